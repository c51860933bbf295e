//! An answer of the REST API before it becomes HTTP.

use pgha_core::request::Answer;

use super::failsafe::render_verdict;

/// Media type of a body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ContentType {
    /// A bare text, which Patroni labels `text/html`.
    Text,
    /// A small page that explains an error.
    ErrorPage,
    /// JSON.
    Json,
    /// The text format of Prometheus.
    Metrics,
}

impl ContentType {
    /// Value of the `Content-Type` header.
    pub fn header(self) -> &'static str {
        match self {
            ContentType::Text => "text/html",
            ContentType::ErrorPage => "text/html;charset=utf-8",
            ContentType::Json => "application/json",
            ContentType::Metrics => "text/plain",
        }
    }
}

/// Status code and body.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Media type of the body.
    pub content: ContentType,
    /// Body.
    pub body: String,
}

impl Reply {
    /// A bare text.
    pub fn text(status: u16, body: impl Into<String>) -> Reply {
        Reply {
            status,
            content: ContentType::Text,
            body: body.into(),
        }
    }

    /// A JSON body.
    pub fn json(status: u16, body: String) -> Reply {
        Reply {
            status,
            content: ContentType::Json,
            body,
        }
    }

    /// A page with the standard words of a status, for 400, 409, 411, 413, 501, 502 and 503.
    pub fn error_page(status: u16) -> Reply {
        let (message, explanation) = words(status);
        page(status, message, explanation)
    }

    /// The answer to a method that exists for no path like this. patronictl looks for the sentence in it.
    pub fn unsupported_method(method: &str) -> Reply {
        page(
            501,
            &format!("Unsupported method ({})", escape_html(&format!("'{method}'"))),
            words(501).1,
        )
    }
}

impl From<Answer> for Reply {
    fn from(answer: Answer) -> Reply {
        let (status, text) = match answer {
            Answer::Done(text) => (200, text),
            Answer::Scheduled(text) => (202, text),
            Answer::Conflict(text) => (409, text),
            Answer::NotFound(text) => (404, text),
            Answer::Refused(text) => (503, text),
            Answer::Impossible(text) => (500, text),
            Answer::Failsafe(verdict) => return render_verdict(verdict).0,
        };
        Reply::text(status, text)
    }
}

fn words(status: u16) -> (&'static str, &'static str) {
    match status {
        400 => ("Bad Request", "Bad request syntax or unsupported method"),
        409 => ("Conflict", "Request conflict"),
        411 => ("Length Required", "Client must specify Content-Length"),
        413 => ("Request Entity Too Large", "Entity is too large"),
        501 => ("Not Implemented", "Server does not support this operation"),
        502 => ("Bad Gateway", "Invalid responses from another server/proxy"),
        503 => (
            "Service Unavailable",
            "The server cannot process the request due to a high load",
        ),
        _ => ("Error", "The request failed"),
    }
}

fn page(status: u16, message: &str, explanation: &str) -> Reply {
    let body = format!(
        "<!DOCTYPE HTML>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Error response</title></head>\n<body>\
         <h1>Error response</h1>\n<p>Error code: {status}</p>\n<p>Message: {message}.</p>\n\
         <p>Error code explanation: {status} - {explanation}.</p>\n</body></html>\n"
    );
    Reply {
        status,
        content: ContentType::ErrorPage,
        body,
    }
}

fn escape_html(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_for_an_unsupported_method_says_what_patronictl_looks_for() {
        let reply = Reply::unsupported_method("PO<ST");
        assert_eq!((reply.status, reply.content.header()), (501, "text/html;charset=utf-8"));
        assert!(reply.body.contains("Unsupported method ('PO&lt;ST')"), "{}", reply.body);
        assert!(
            reply.body.contains("Server does not support this operation"),
            "{}",
            reply.body
        );
    }

    #[test]
    fn answers_of_core_have_the_statuses_of_patroni() {
        let text = || "x".to_owned();
        let answers = [
            (Answer::Done(text()), 200),
            (Answer::Scheduled(text()), 202),
            (Answer::NotFound(text()), 404),
            (Answer::Conflict(text()), 409),
            (Answer::Impossible(text()), 500),
            (Answer::Refused(text()), 503),
        ];
        for (answer, status) in answers {
            assert_eq!(Reply::from(answer), Reply::text(status, "x"));
        }
    }
}
