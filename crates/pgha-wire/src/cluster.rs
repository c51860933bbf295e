//! From a prefix of etcd to a [`ClusterView`]: total, whatever stands in the keys.
//!
//! A value that cannot be understood is listed in [`ClusterView::unreadable`] with the reason and counts as missing;
//! the other keys are not affected. What is optional inside of a member key is dropped alone when it is broken: a
//! member with a strange `timeline` is still a member.
//!
//! Citus groups are absent on purpose: keys below `<group>/` belong to another cluster and are ignored.

mod member;

use std::collections::BTreeMap;
use std::sync::Arc;

use pgha_core::cluster::{
    ClusterView, ConfigKey, FailoverKey, FailsafeKey, HistoryKey, HistoryLine, Initialize, LeaderKey, StatusKey,
    SyncKey,
};
use pgha_core::commit::Key;
use pgha_core::units::{Lsn, MemberName, Revision, SystemId, Timeline};
use serde_json::{Map, Value};

use crate::isotime::parse_iso;
use crate::keys::{self, OPTIME_LEADER};
use crate::kv::{KeyValue, Snapshot};
use crate::limits::{
    MAX_CONFIG_BYTES, MAX_FAILOVER_BYTES, MAX_FAILSAFE_BYTES, MAX_HISTORY_BYTES, MAX_INITIALIZE_BYTES,
    MAX_MEMBER_BYTES, MAX_MEMBERS, MAX_NAME_BYTES, MAX_STATUS_BYTES, MAX_SYNC_BYTES, quoted,
};
use crate::settings::parse_settings;
use crate::values::is_truthy;

pub(crate) use member::RawMember;

/// A shorter text of digits is no system identifier.
const MIN_SYSTEM_ID_DIGITS: usize = 10;

/// Why a value cannot be read.
type Reason = String;

/// Reads all keys of the scope at `base` (see [`keys::base_path`]) out of one snapshot of its prefix.
pub fn parse_cluster(base: &str, snapshot: &Snapshot) -> ClusterView {
    parse_keys(base, snapshot.revision, &snapshot.keys, &ClusterView::default())
}

/// As [`parse_cluster`], for whoever reads one etcd again and again: members and `/config` that were not written since
/// `known` are taken from there. `known` must come from the same etcd, of which no snapshot was restored in between.
pub fn parse_keys<'a>(
    base: &str,
    revision: Revision,
    keys: impl IntoIterator<Item = &'a KeyValue>,
    known: &ClusterView,
) -> ClusterView {
    let mut view = ClusterView {
        revision,
        ..ClusterView::default()
    };
    let mut has_status = false;
    let mut old_optime = None;
    for kv in keys {
        if keys::relative(base, &kv.key) == Some(OPTIME_LEADER) {
            old_optime = Some(kv);
            continue;
        }
        let Some(key) = keys::parse_key(base, &kv.key) else {
            continue;
        };
        has_status |= key == Key::Status;
        if let Err(reason) = read_key(&mut view, key, kv, known) {
            view.unreadable.push((kv.key.clone(), reason));
        }
    }
    if let Some(kv) = old_optime.filter(|_| !has_status) {
        match parse_optime(kv) {
            Ok(status) => view.status = Some(status),
            Err(reason) => view.unreadable.push((kv.key.clone(), reason)),
        }
    }
    view
}

fn read_key(view: &mut ClusterView, key: Key, kv: &KeyValue, known: &ClusterView) -> Result<(), Reason> {
    match key {
        Key::Leader => view.leader = Some(parse_leader(kv)?),
        Key::Member(name) => {
            if view.members.len() >= MAX_MEMBERS {
                return Err(format!("there are more than {MAX_MEMBERS} members"));
            }
            if name.as_str().len() > MAX_NAME_BYTES {
                return Err(format!("the name is longer than {MAX_NAME_BYTES} bytes"));
            }
            let unchanged = known.members.get(&name).filter(|m| m.mod_revision == kv.mod_revision);
            let member = match unchanged {
                Some(member) => Arc::clone(member),
                None => Arc::new(member::parse_member(kv, text(kv, MAX_MEMBER_BYTES)?)?),
            };
            view.members.insert(name, member);
        }
        Key::Initialize => {
            // Not a missing key: a cluster may be behind it, so nobody may bootstrap over it.
            view.initialize = Initialize::Unreadable;
            view.initialize = parse_initialize(kv)?;
        }
        Key::Config => {
            let unchanged = known.config.as_ref().filter(|c| c.mod_revision == kv.mod_revision);
            view.config = Some(unchanged.cloned().map_or_else(|| parse_config(kv), Ok)?);
        }
        Key::Failover => view.failover = parse_failover(kv)?,
        Key::History => view.history = Some(parse_history(kv)?),
        Key::Status => view.status = Some(parse_status(kv)?),
        Key::Sync => view.sync = Some(parse_sync(kv)?),
        Key::Failsafe => {
            view.failsafe = Some(FailsafeKey {
                mod_revision: kv.mod_revision,
                members: parse_failsafe(text(kv, MAX_FAILSAFE_BYTES)?)?,
            });
        }
    }
    Ok(())
}

fn text(kv: &KeyValue, max_bytes: usize) -> Result<&str, Reason> {
    if kv.value.len() > max_bytes {
        return Err(format!(
            "{} bytes are more than the allowed {max_bytes}",
            kv.value.len()
        ));
    }
    std::str::from_utf8(&kv.value).map_err(|e| format!("it is not UTF-8: {e}"))
}

fn json(text: &str) -> Result<Value, Reason> {
    serde_json::from_str(text).map_err(|e| format!("it is not JSON: {e}"))
}

fn object(text: &str) -> Result<Map<String, Value>, Reason> {
    match json(text)? {
        Value::Object(map) => Ok(map),
        other => Err(format!(
            "a JSON object is expected, found {}",
            quoted(&other.to_string())
        )),
    }
}

fn parse_leader(kv: &KeyValue) -> Result<LeaderKey, Reason> {
    let name = text(kv, MAX_NAME_BYTES)?;
    if name.is_empty() {
        return Err("it names nobody".to_owned());
    }
    Ok(LeaderKey {
        name: MemberName::new(name),
        create_revision: kv.create_revision,
        mod_revision: kv.mod_revision,
        lease: kv.lease,
    })
}

fn parse_initialize(kv: &KeyValue) -> Result<Initialize, Reason> {
    let text = text(kv, MAX_INITIALIZE_BYTES)?;
    if text.is_empty() {
        return Ok(Initialize::InProgress {
            mod_revision: kv.mod_revision,
            lease: kv.lease,
        });
    }
    let digits = text.len() >= MIN_SYSTEM_ID_DIGITS && text.bytes().all(|b| b.is_ascii_digit());
    match text.parse() {
        Ok(id) if digits => Ok(Initialize::Done(SystemId(id))),
        _ => Err(format!("a system identifier is expected, found {}", quoted(text))),
    }
}

fn parse_config(kv: &KeyValue) -> Result<ConfigKey, Reason> {
    let text = text(kv, MAX_CONFIG_BYTES)?;
    let config = Value::Object(object(text)?);
    let (settings, _) = parse_settings(&config);
    Ok(ConfigKey {
        mod_revision: kv.mod_revision,
        text: text.to_owned(),
        settings,
    })
}

fn parse_failover(kv: &KeyValue) -> Result<Option<FailoverKey>, Reason> {
    let text = text(kv, MAX_FAILOVER_BYTES)?;
    let mut key = FailoverKey {
        mod_revision: kv.mod_revision,
        leader: None,
        candidate: None,
        scheduled_at: None,
        schedule_unreadable: false,
    };
    if let Some((leader, candidate)) = old_failover_form(text) {
        key.leader = leader;
        key.candidate = candidate;
    } else if !text.is_empty() {
        let map = object(text)?;
        key.leader = name(&map, "leader")?;
        key.candidate = name(&map, "member")?;
        if let Some(when) = map.get("scheduled_at").filter(|v| is_truthy(v)) {
            key.scheduled_at = when.as_str().and_then(|s| parse_iso(s).ok());
            key.schedule_unreadable = key.scheduled_at.is_none();
        }
    }
    Ok((key.leader.is_some() || key.candidate.is_some()).then_some(key))
}

/// `leader:candidate` or `leader`, as old Patroni wrote it. Anything that looks like JSON gone wrong is not that.
fn old_failover_form(text: &str) -> Option<(Option<MemberName>, Option<MemberName>)> {
    let strange = |c: char| c.is_control() || matches!(c, '{' | '}' | '[' | ']' | '"');
    if text.is_empty() || text.contains(strange) || serde_json::from_str::<Value>(text).is_ok() {
        return None;
    }
    let mut parts = text
        .split(':')
        .map(|p| Some(p.trim()).filter(|p| !p.is_empty()).map(MemberName::new));
    Some((parts.next().flatten(), parts.next().flatten()))
}

/// A name in an object: missing, null and empty are none.
fn name(map: &Map<String, Value>, key: &str) -> Result<Option<MemberName>, Reason> {
    match map.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(s)) if s.len() <= MAX_NAME_BYTES => {
            Ok(Some(s).filter(|s| !s.is_empty()).map(|s| MemberName::new(s.as_str())))
        }
        Some(other) => Err(format!(
            "a member name is expected in {key:?}, found {}",
            quoted(&other.to_string())
        )),
    }
}

fn parse_history(kv: &KeyValue) -> Result<HistoryKey, Reason> {
    let text = text(kv, MAX_HISTORY_BYTES)?;
    let Value::Array(lines) = json(text)? else {
        return Err("a JSON array is expected".to_owned());
    };
    let lines: Option<Vec<HistoryLine>> = lines.iter().map(parse_history_line).collect();
    let lines = lines.ok_or("each line has to be [timeline, LSN, reason, timestamp, new leader]")?;
    Ok(HistoryKey {
        mod_revision: kv.mod_revision,
        lines,
    })
}

/// Old lines have three or four elements.
fn parse_history_line(line: &Value) -> Option<HistoryLine> {
    let line = line.as_array()?;
    let optional = |at: usize| match line.get(at) {
        None | Some(Value::Null) => Some(String::new()),
        Some(Value::String(s)) => Some(s.clone()),
        Some(_) => None,
    };
    Some(HistoryLine {
        timeline: parse_timeline(line.first()?)?,
        switchpoint: parse_lsn(line.get(1)?)?,
        reason: line.get(2)?.as_str()?.to_owned(),
        timestamp: optional(3)?,
        new_leader: optional(4)?,
    })
}

/// A position in bytes: a number or, as `int()` of Python takes it, its digits.
fn parse_lsn(value: &Value) -> Option<Lsn> {
    match value {
        Value::Number(n) => n.as_u64().map(Lsn),
        Value::String(s) => s.trim().parse().ok().map(Lsn),
        _ => None,
    }
}

fn parse_timeline(value: &Value) -> Option<Timeline> {
    value
        .as_u64()
        .and_then(|n| u32::try_from(n).ok())
        .filter(|n| *n > 0)
        .map(Timeline)
}

fn parse_status(kv: &KeyValue) -> Result<StatusKey, Reason> {
    let text = text(kv, MAX_STATUS_BYTES)?;
    let map = match json(text)? {
        Value::Object(map) => map,
        // A bare number is how the first versions of this key looked.
        Value::Number(optime) => Map::from_iter([("optime".to_owned(), Value::Number(optime))]),
        other => {
            return Err(format!(
                "a JSON object is expected, found {}",
                quoted(&other.to_string())
            ));
        }
    };
    let optime = match map.get("optime") {
        None | Some(Value::Null) => Lsn(0),
        Some(value) => parse_lsn(value).ok_or("an LSN in bytes is expected in \"optime\"")?,
    };
    let slots = match map.get("slots") {
        None | Some(Value::Null) => BTreeMap::new(),
        // Slot positions are advice to standbys; one that is no LSN is left out rather than hiding the optime.
        Some(Value::Object(slots)) => slots
            .iter()
            .filter_map(|(k, v)| Some((k.clone(), parse_lsn(v)?)))
            .collect(),
        Some(_) => return Err("an object is expected in \"slots\"".to_owned()),
    };
    let retain_slots = match map.get("retain_slots") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(names)) => names.iter().filter_map(|n| n.as_str().map(str::to_owned)).collect(),
        Some(_) => return Err("an array is expected in \"retain_slots\"".to_owned()),
    };
    Ok(StatusKey {
        mod_revision: kv.mod_revision,
        optime,
        slots,
        retain_slots,
        writer: name(&map, "writer")?,
        released: map.get("released") == Some(&Value::Bool(true)),
    })
}

fn parse_optime(kv: &KeyValue) -> Result<StatusKey, Reason> {
    let text = text(kv, MAX_STATUS_BYTES)?;
    let optime = text
        .trim()
        .parse()
        .map_err(|_| format!("an LSN in bytes is expected, found {}", quoted(text)))?;
    Ok(StatusKey {
        mod_revision: kv.mod_revision,
        optime: Lsn(optime),
        ..StatusKey::default()
    })
}

fn parse_sync(kv: &KeyValue) -> Result<SyncKey, Reason> {
    let map = object(text(kv, MAX_SYNC_BYTES)?)?;
    let leader = name(&map, "leader")?;
    let quorum = match map.get("quorum") {
        None | Some(Value::Null) => Some(0),
        Some(Value::Number(n)) => n.as_u64().and_then(|n| u32::try_from(n).ok()),
        Some(Value::String(s)) if s.is_empty() => Some(0),
        Some(Value::String(s)) => s.trim().parse().ok(),
        Some(_) => None,
    };
    let quorum = quorum.ok_or("a whole number of 0 or more is expected in \"quorum\"")?;
    let standbys = match map.get("sync_standby") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::String(s)) => s
            .split(',')
            .map(str::trim)
            .filter(|n| !n.is_empty())
            .map(MemberName::new)
            .collect(),
        Some(_) => return Err("a text of names is expected in \"sync_standby\"".to_owned()),
    };
    let quorum = if leader.is_some() { quorum } else { 0 };
    Ok(SyncKey {
        mod_revision: kv.mod_revision,
        leader,
        quorum,
        standbys,
    })
}

fn parse_failsafe(text: &str) -> Result<BTreeMap<MemberName, String>, Reason> {
    let entries = object(text)?.into_iter().map(|(name, url)| match url {
        Value::String(url) => Ok((MemberName::new(name), url)),
        other => Err(format!(
            "a URL is expected for {}, found {}",
            quoted(&name),
            quoted(&other.to_string())
        )),
    });
    entries.collect()
}
