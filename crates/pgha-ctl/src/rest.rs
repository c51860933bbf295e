//! The REST API of members, as a client. One connection per request: a person does not send many.
//!
//! Invariant: a request is sent at most once, and the error says whether it can have arrived. Absent on purpose: TLS,
//! which the members do not offer yet.

use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Uri};
use hyper_util::rt::TokioIo;
use pgha_wire::config::BasicAuth;
use pgha_wire::pyjson::render_spaced;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::error::explain;
use crate::limits::{CONNECT_LIMIT, MAX_BODY_BYTES, MAX_HEAD_BYTES, MAX_SHOWN_BODY_CHARS};

const AGENT: &str = concat!("pgha-ctl/", env!("CARGO_PKG_VERSION"));
const DEFAULT_PORT: u16 = 80;

/// The client.
pub struct Rest {
    authorization: Option<HeaderValue>,
}

/// What is asked of a member.
#[derive(Clone, PartialEq, Debug)]
pub struct Call<'a> {
    /// Method.
    pub method: Method,
    /// Path below the root of the API, e.g. `/restart`.
    pub path: &'a str,
    /// JSON body.
    pub body: Option<Value>,
    /// From the first packet to the end of the answer.
    pub limit: Duration,
}

/// What a member said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Body; what is no UTF-8 in it is replaced.
    pub body: String,
}

impl Answer {
    /// The body in one line that is fit for a terminal. Of an error page only its message is shown.
    pub fn shown(&self) -> String {
        let text = match self.body.split_once("<p>Message: ") {
            Some((_, rest)) => rest.split("</p>").next().unwrap_or_default().trim_end_matches('.'),
            None => self.body.trim(),
        };
        text.chars()
            .take(MAX_SHOWN_BODY_CHARS)
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect()
    }
}

/// Why there is no answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CallError {
    /// The member never saw the request.
    NotSent(String),
    /// It may have seen it, and may be doing what was asked.
    Lost(String),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (CallError::NotSent(reason) | CallError::Lost(reason)) = self;
        f.write_str(reason)
    }
}

impl Rest {
    /// A client that shows these credentials to every member.
    pub fn new(auth: Option<&BasicAuth>) -> Rest {
        let authorization = auth.and_then(|auth| {
            let pair = STANDARD.encode(format!("{}:{}", auth.username, auth.password.expose()));
            // Base64 is always a valid header value.
            let mut value = HeaderValue::from_str(&format!("Basic {pair}")).ok()?;
            value.set_sensitive(true);
            Some(value)
        });
        Rest { authorization }
    }

    /// Sends a request to the member with this `api_url`.
    ///
    /// # Errors
    /// [`CallError`], by whether the member can have seen the request.
    pub async fn call(&self, api_url: &str, call: Call<'_>) -> Result<Answer, CallError> {
        let limit = call.limit;
        let target = Target::parse(api_url).map_err(CallError::NotSent)?;
        let sender = match timeout(CONNECT_LIMIT.min(limit), connect(&target)).await {
            Ok(connected) => connected.map_err(|e| CallError::NotSent(format!("{target}: {e}")))?,
            Err(_) => {
                return Err(CallError::NotSent(format!(
                    "{target}: no connection within {CONNECT_LIMIT:?}"
                )));
            }
        };
        match timeout(limit, self.exchange(sender, &target, call)).await {
            Ok(answered) => answered,
            Err(_) => Err(CallError::Lost(format!(
                "{target}: no answer within {} seconds",
                limit.as_secs()
            ))),
        }
    }

    async fn exchange(
        &self,
        mut sender: SendRequest<Full<Bytes>>,
        target: &Target,
        call: Call<'_>,
    ) -> Result<Answer, CallError> {
        let not_sent = |reason: String| CallError::NotSent(format!("{target}: {reason}"));
        let lost = |reason: String| CallError::Lost(format!("{target}: {reason}"));
        let body = call.body.as_ref().map(render_spaced).unwrap_or_default();
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = call.method;
        *request.uri_mut() = call.path.parse::<Uri>().map_err(|e| not_sent(e.to_string()))?;
        let headers = request.headers_mut();
        headers.insert(
            HOST,
            HeaderValue::from_str(&target.authority()).map_err(|e| not_sent(e.to_string()))?,
        );
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        if call.body.is_some() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        if let Some(authorization) = &self.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        let response = sender.send_request(request).await.map_err(|e| {
            if e.is_canceled() {
                not_sent(explain(&e))
            } else {
                lost(explain(&e))
            }
        })?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), MAX_BODY_BYTES).collect().await;
        let body = body
            .map_err(|e| lost(format!("status {status}, but the body is unreadable: {e}")))?
            .to_bytes();
        Ok(Answer {
            status,
            body: String::from_utf8_lossy(&body).into_owned(),
        })
    }
}

/// Host and port of an `api_url`.
struct Target {
    host: String,
    port: u16,
}

impl Target {
    fn parse(api_url: &str) -> Result<Target, String> {
        let shown: String = api_url.chars().take(100).collect();
        let uri: Uri = api_url.parse().map_err(|_| format!("api_url {shown:?} is not a URL"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => {
                return Err(format!(
                    "{shown}: https is not supported yet; the member's REST API must speak http"
                ));
            }
            Some(_) | None => return Err(format!("api_url {shown:?} is not an http:// URL")),
        }
        let host = uri
            .host()
            .unwrap_or_default()
            .trim_start_matches('[')
            .trim_end_matches(']');
        if host.is_empty() {
            return Err(format!("api_url {shown:?} names no host"));
        }
        Ok(Target {
            host: host.to_owned(),
            port: uri.port_u16().unwrap_or(DEFAULT_PORT),
        })
    }

    fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.authority())
    }
}

async fn connect(target: &Target) -> Result<SendRequest<Full<Bytes>>, String> {
    let stream = TcpStream::connect((target.host.as_str(), target.port))
        .await
        .map_err(|e| explain(&e))?;
    let handshake = http1::Builder::new()
        .max_buf_size(MAX_HEAD_BYTES)
        .handshake(TokioIo::new(stream))
        .await;
    let (sender, connection) = handshake.map_err(|e| explain(&e))?;
    // It ends with the sender; what went wrong on it comes out of the request.
    tokio::spawn(connection);
    Ok(sender)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_api_url_gives_host_and_port() {
        for (url, expected) in [
            ("http://10.0.0.1:8008/patroni", "10.0.0.1:8008"),
            ("http://db1/patroni", "db1:80"),
            ("http://[fe80::1]:8008/patroni", "[fe80::1]:8008"),
        ] {
            assert_eq!(
                Target::parse(url).map(|t| t.authority()),
                Ok(expected.to_owned()),
                "{url}"
            );
        }
        for (url, part) in [
            ("https://a:1/x", "https"),
            ("postgres://a:1/x", "http://"),
            ("", "not a"),
            ("http:///x", "not a"),
        ] {
            assert!(Target::parse(url).is_err_and(|e| e.contains(part)), "{url}");
        }
    }

    #[test]
    fn of_an_error_page_only_the_message_is_shown() {
        let page =
            "<!DOCTYPE HTML>\n<html>\n<p>Error code: 501</p>\n<p>Message: Unsupported method ('POST').</p>\n</html>\n";
        let shown = |body: &str| {
            Answer {
                status: 501,
                body: body.to_owned(),
            }
            .shown()
        };
        assert_eq!(shown(page), "Unsupported method ('POST')");
        assert_eq!(shown("a\u{1b}[31m\nb"), "a [31m b");
        assert_eq!(shown(&"x".repeat(1000)).len(), MAX_SHOWN_BODY_CHARS);
    }
}
