//! `/members/<name>`: what a member says of itself.

use pgha_core::cluster::Member;
use pgha_core::rewind::DivergedWal;
use pgha_core::units::Lsn;
use serde_json::{Map, Value};

use super::{Reason, object, parse_lsn, parse_timeline};
use crate::kv::KeyValue;
use crate::pyjson::render_compact;
use crate::tags::parse_tags;
use crate::texts::{parse_role, parse_state};
use crate::url::{percent_decode, without_secrets};
use crate::values::{is_truthy, python_str};

/// Old members put a bare URL there; it begins so.
const URL_START: &str = "postgres";

pub(super) fn parse_member(kv: &KeyValue, text: &str) -> Result<Member, Reason> {
    let is_url = text.starts_with(URL_START);
    let raw = if is_url {
        from_url(text)?
    } else {
        RawMember(object(text)?)
    };
    let tags = raw
        .0
        .get("tags")
        .and_then(Value::as_object)
        .map(parse_tags)
        .unwrap_or_default();
    Ok(Member {
        mod_revision: kv.mod_revision,
        lease: kv.lease,
        conn_url: raw.conn_url(),
        api_url: raw.text("api_url"),
        state: raw.str("state").map(parse_state).unwrap_or_default(),
        role: raw.str("role").map(parse_role).unwrap_or_default(),
        version: raw.text("version"),
        tags,
        lsn: raw.lsn("xlog_location"),
        receive_lsn: raw.lsn("receive_lsn").filter(|l| l.0 > 0),
        replay_lsn: raw.lsn("replay_lsn").filter(|l| l.0 > 0),
        timeline: raw.0.get("timeline").and_then(parse_timeline),
        replication_state: raw.text("replication_state"),
        diverged_wal: raw.0.get("diverged_wal").and_then(parse_diverged),
        // Its presence means that the checkpoint is outstanding; `false` is the only value that is ever written.
        checkpoint_outstanding: raw
            .0
            .get("checkpoint_after_promote")
            .is_some_and(|v| *v != Value::Bool(true)),
        pause: raw.0.get("pause").is_some_and(is_truthy),
        pending_restart: raw.0.get("pending_restart").is_some_and(is_truthy),
        text: if is_url {
            render_compact(&Value::Object(raw.0))
        } else {
            text.to_owned()
        },
    })
}

/// `{"timeline": .., "from": .., "to": ..}`, positions in bytes.
fn parse_diverged(value: &Value) -> Option<DivergedWal> {
    Some(DivergedWal {
        timeline: value.get("timeline").and_then(parse_timeline)?,
        from: value.get("from").and_then(parse_lsn)?,
        to: value.get("to").and_then(parse_lsn)?,
    })
}

/// The JSON of a member key, for those who show what core does not know of.
pub(crate) struct RawMember(Map<String, Value>);

impl RawMember {
    /// From the text kept in [`Member::text`]; nothing at all if that is no object.
    pub(crate) fn of(member: &Member) -> RawMember {
        RawMember(object(&member.text).unwrap_or_default())
    }

    /// A field as it stands in the key.
    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    fn str(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(Value::as_str).filter(|s| !s.is_empty())
    }

    fn text(&self, key: &str) -> Option<String> {
        self.str(key).map(str::to_owned)
    }

    fn lsn(&self, key: &str) -> Option<Lsn> {
        self.0.get(key).and_then(parse_lsn)
    }

    /// `conn_url`, or one made of `conn_kwargs`. User and password are not kept: nobody connects with them.
    fn conn_url(&self) -> Option<String> {
        if let Some(url) = self.str("conn_url") {
            return Some(without_secrets(url)).filter(|u| !u.is_empty());
        }
        let parts = self.0.get("conn_kwargs")?;
        let host = parts.get("host").and_then(Value::as_str)?;
        let host = if host.contains(':') && !host.starts_with('[') {
            format!("[{host}]")
        } else {
            host.to_owned()
        };
        let port = parts.get("port").map_or_else(|| "5432".to_owned(), python_str);
        Some(without_secrets(&format!("postgresql://{host}:{port}")))
    }
}

/// `postgres://...?application_name=<api_url>`, with the password removed at once.
fn from_url(text: &str) -> Result<RawMember, Reason> {
    let conn_url = without_secrets(text);
    if conn_url.is_empty() {
        return Err("it is neither a JSON object nor a postgres:// URL".to_owned());
    }
    let query = text
        .split_once('?')
        .map_or("", |(_, q)| q.split('#').next().unwrap_or_default());
    let mut parameters = query.split('&').filter_map(|p| p.split_once('='));
    let api_url = parameters
        .find(|(name, _)| *name == "application_name")
        .map(|(_, value)| percent_decode(value));
    let mut raw = Map::from_iter([("conn_url".to_owned(), Value::String(conn_url))]);
    if let Some(url) = api_url {
        raw.insert("api_url".to_owned(), Value::String(url));
    }
    Ok(RawMember(raw))
}
