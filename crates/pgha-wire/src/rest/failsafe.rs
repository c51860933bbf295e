//! `POST /failsafe`: a leader that lost etcd asks every listed member for leave to go on.
//!
//! Body, status, text and the header `lsn` are Patroni's. What pgha adds stands under `pgha` in the body and in a header of
//! the answer; Patroni ignores both and sends neither.

use std::time::Duration;

use pgha_core::failsafe::{Ack, Question, Reply as Word, Verdict};
use pgha_core::units::{Lsn, MemberName, Mono};
use serde_json::{Map, Value, json};

use super::reply::Reply;
use crate::limits::quoted;
use crate::pyjson::render_compact;

/// Patroni's header with the position of whoever answers.
pub const LSN_HEADER: &str = "lsn";
/// pgha's header: milliseconds since this member asked etcd the last time, if etcd answered.
pub const DCS_READ_HEADER: &str = "x-pgha-dcs-read-ms-ago";
/// Patroni's text for a leave that is given.
const ACCEPTED: &str = "Accepted";

/// The question in a body.
///
/// # Errors
/// 400 when it does not say who asks, or pgha's part is broken.
pub fn parse_question(body: &Map<String, Value>) -> Result<Question, Reply> {
    let bad = || Reply::error_page(400);
    let text = |map: &Map<String, Value>, key: &str| {
        let text = map.get(key).and_then(Value::as_str).filter(|t| !t.is_empty());
        text.map(str::to_owned).ok_or_else(bad)
    };
    let (mut ttl, mut addressee) = (None, None);
    if let Some(ours) = body.get("pgha") {
        let ours = ours.as_object().ok_or_else(bad)?;
        let ttl_ms = ours.get("ttl_ms").and_then(Value::as_u64).ok_or_else(bad)?;
        ttl = Some(Duration::from_millis(ttl_ms));
        addressee = Some((text(ours, "scope")?, MemberName::new(text(ours, "name")?)));
    }
    let slots = body.get("slots").and_then(Value::as_object).into_iter().flatten();
    Ok(Question {
        name: MemberName::new(text(body, "name")?),
        conn_url: text(body, "conn_url")?,
        api_url: text(body, "api_url")?,
        slots: slots
            .filter_map(|(name, lsn)| Some((name.clone(), Lsn(lsn.as_u64()?))))
            .collect(),
        ttl,
        addressee,
    })
}

/// The body for one member.
pub fn render_question(question: &Question, scope: &str, to: &MemberName) -> String {
    let slots: Map<String, Value> = question
        .slots
        .iter()
        .map(|(name, lsn)| (name.clone(), lsn.0.into()))
        .collect();
    let ttl_ms = question.ttl.unwrap_or_default().as_millis();
    render_compact(&json!({
        "name": question.name.as_str(),
        "conn_url": question.conn_url,
        "api_url": question.api_url,
        "slots": slots,
        "pgha": {
            "ttl_ms": u64::try_from(ttl_ms).unwrap_or(u64::MAX),
            "scope": scope,
            "name": to.as_str(),
        },
    }))
}

/// The answer, with the headers that go with it.
pub fn render_verdict(verdict: Verdict) -> (Reply, Vec<(&'static str, String)>) {
    match verdict {
        Verdict::Accepted { lsn, dcs_read_ago } => {
            let lsn = lsn.map(|lsn| (LSN_HEADER, lsn.0.to_string()));
            let read = dcs_read_ago.map(|ago| (DCS_READ_HEADER, ago.as_millis().to_string()));
            (Reply::text(200, ACCEPTED), lsn.into_iter().chain(read).collect())
        }
        Verdict::Off => (Reply::error_page(502), Vec::new()),
        Verdict::RunsAsLeader => (Reply::text(500, "Running as a leader"), Vec::new()),
        Verdict::Refused(text) => (Reply::text(500, text), Vec::new()),
    }
}

/// What a member answered to a request that was sent just after `sent_at`.
pub fn parse_reply(status: u16, body: &[u8], lsn: Option<&str>, dcs_read_ms_ago: Option<&str>, sent_at: Mono) -> Word {
    let text = String::from_utf8_lossy(body);
    if status != 200 || text.trim() != ACCEPTED {
        return Word::Refused(format!("HTTP status {status}: {}", quoted(&text)));
    }
    let number = |text: Option<&str>| text.and_then(|t| t.trim().parse::<u64>().ok());
    Word::Accepted(Ack {
        sent_at,
        lsn: number(lsn).map(Lsn),
        dcs_read_at: number(dcs_read_ms_ago).map(|ms| sent_at.minus(Duration::from_millis(ms))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question() -> Question {
        Question {
            name: "pg1".into(),
            conn_url: "postgres://10.0.0.1:5432/postgres".into(),
            api_url: "http://10.0.0.1:8008/patroni".into(),
            slots: [("pg1".to_owned(), Lsn(0x500))].into(),
            ttl: Some(Duration::from_secs(30)),
            addressee: None,
        }
    }

    fn parse(text: &str) -> Result<Question, Reply> {
        let Value::Object(map) = serde_json::from_str(text).expect("it is JSON") else {
            panic!("an object was expected");
        };
        parse_question(&map)
    }

    #[test]
    fn a_question_comes_back_with_whom_it_is_for() {
        let text = render_question(&question(), "demo", &"pg2".into());
        assert_eq!(
            text,
            r#"{"name":"pg1","conn_url":"postgres://10.0.0.1:5432/postgres","api_url":"http://10.0.0.1:8008/patroni","slots":{"pg1":1280},"pgha":{"ttl_ms":30000,"scope":"demo","name":"pg2"}}"#
        );
        let expected = Question {
            addressee: Some(("demo".to_owned(), "pg2".into())),
            ..question()
        };
        assert_eq!(parse(&text), Ok(expected));
    }

    #[test]
    fn a_broken_part_of_pgha_is_no_question() {
        for part in ["1", "{}", r#"{"ttl_ms":-1}"#, r#"{"ttl_ms":1,"scope":"demo"}"#] {
            let text = format!(r#"{{"name":"a","conn_url":"b","api_url":"c","pgha":{part}}}"#);
            assert_eq!(parse(&text), Err(Reply::error_page(400)), "{part}");
        }
    }

    #[test]
    fn verdicts_are_told_in_the_words_of_patroni() {
        let accepted = Verdict::Accepted {
            lsn: Some(Lsn(1280)),
            dcs_read_ago: Some(Duration::from_millis(250)),
        };
        let headers = vec![("lsn", "1280".to_owned()), (DCS_READ_HEADER, "250".to_owned())];
        assert_eq!(render_verdict(accepted), (Reply::text(200, "Accepted"), headers));
        assert_eq!(render_verdict(Verdict::Off).0, Reply::error_page(502));
        let runs = Reply::text(500, "Running as a leader");
        assert_eq!(render_verdict(Verdict::RunsAsLeader), (runs, Vec::new()));
    }

    #[test]
    fn only_patronis_word_for_yes_counts_as_yes() {
        let at = Mono(10_000_000_000);
        let ack = Ack {
            sent_at: at,
            lsn: Some(Lsn(1280)),
            dcs_read_at: Some(Mono(9_750_000_000)),
        };
        assert_eq!(
            parse_reply(200, b"Accepted", Some("1280"), Some("250"), at),
            Word::Accepted(ack)
        );
        let patroni = Ack {
            dcs_read_at: None,
            lsn: None,
            ..ack
        };
        assert_eq!(
            parse_reply(200, b"Accepted", Some("x"), None, at),
            Word::Accepted(patroni)
        );
        for (status, body) in [
            (200, "<html>"),
            (500, "Running as a leader"),
            (502, "Accepted"),
            (200, ""),
        ] {
            let reply = parse_reply(status, body.as_bytes(), None, None, at);
            assert!(matches!(reply, Word::Refused(_)), "{status} {body}");
        }
    }
}
