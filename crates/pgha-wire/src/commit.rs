//! From core's commits to transactions of etcd: guards become compares, values become Patroni's JSON.
//!
//! `optime/leader`, which Patroni writes for members older than 2.1, is absent on purpose: such members are not
//! supported in one cluster with pgha.

use pgha_core::cluster::HistoryLine;
use pgha_core::commit::{Change, Commit, FailoverValue, Guard, Key, MemberValue, StatusValue};
use pgha_core::pg::PendingRestart;
use pgha_core::rewind::DivergedWal;
use pgha_core::tags::Tags;
use pgha_core::units::{MemberName, Revision};
use serde_json::{Map, Value};

use crate::isotime::render_iso;
use crate::keys::full_key;
use crate::kv::{Compare, Op, Txn};
use crate::pyjson::render_compact;
use crate::tags::published_tags;
use crate::texts::{role_text, state_text};

/// What a member key says that does not change from cycle to cycle.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct MemberIdentity<'a> {
    /// Own name.
    pub name: &'a MemberName,
    /// `postgres://HOST:PORT/DBNAME`, without user and password.
    pub conn_url: &'a str,
    /// `http(s)://HOST:PORT/patroni`.
    pub api_url: &'a str,
    /// `postgres://HOST:PORT/DBNAME` of a pooler.
    pub proxy_url: Option<&'a str>,
    /// Version text for peers; see [`crate::texts::PATRONI_VERSION`].
    pub version: &'a str,
    /// Configured tags.
    pub tags: &'a Tags,
}

/// Writes `commit` for the scope at `base`. A commit touches each key at most once; etcd would refuse it otherwise.
pub fn render_txn(base: &str, me: &MemberIdentity<'_>, commit: &Commit) -> Txn {
    let txn = Txn {
        compares: commit.guards.iter().flat_map(|g| render_guard(base, g)).collect(),
        ops: commit.changes.iter().map(|c| render_change(base, me, c)).collect(),
    };
    debug_assert!(touches_each_key_once(&txn), "{:?} touches a key twice", commit.purpose);
    txn
}

fn render_guard(base: &str, guard: &Guard) -> Vec<Compare> {
    match guard {
        Guard::LeaderIsMine { create_revision, lease } => {
            let leader = full_key(base, &Key::Leader);
            vec![
                Compare::CreateRevision(leader.clone(), *create_revision),
                Compare::Lease(leader, *lease),
            ]
        }
        Guard::Absent(key) => vec![Compare::CreateRevision(full_key(base, key), Revision(0))],
        Guard::Unchanged(key, revision) => vec![Compare::ModRevision(full_key(base, key), *revision)],
    }
}

fn render_change(base: &str, me: &MemberIdentity<'_>, change: &Change) -> Op {
    let (key, value, lease) = match change {
        Change::PutLeader { name, lease } => (Key::Leader, name.to_string(), Some(*lease)),
        Change::PutMember { name, lease, value } => {
            debug_assert_eq!(name, me.name, "a member writes only its own key");
            (Key::Member(name.clone()), render_member(me, value), Some(*lease))
        }
        Change::PutInitialize { system_id, lease } => (
            Key::Initialize,
            system_id.map(|id| id.to_string()).unwrap_or_default(),
            *lease,
        ),
        Change::PutConfig(text) => (Key::Config, text.clone(), None),
        Change::PutFailover(value) => (Key::Failover, render_failover(value.as_ref()), None),
        Change::PutHistory(lines) => (Key::History, render_history(lines), None),
        Change::PutStatus(value) => (Key::Status, render_status(value), None),
        Change::PutSync {
            leader,
            quorum,
            standbys,
        } => (Key::Sync, render_sync(leader.as_ref(), *quorum, standbys), None),
        Change::PutFailsafe(members) => {
            let map = members
                .iter()
                .map(|(name, url)| (name.to_string(), Value::from(url.as_str())));
            (Key::Failsafe, render_compact(&Value::Object(map.collect())), None)
        }
        Change::Delete(key) => return Op::Delete(full_key(base, key)),
    };
    Op::Put {
        key: full_key(base, &key),
        value: value.into_bytes(),
        lease,
    }
}

fn touches_each_key_once(txn: &Txn) -> bool {
    let mut keys: Vec<&str> = Vec::with_capacity(txn.ops.len());
    txn.ops.iter().all(|op| {
        let (Op::Put { key, .. } | Op::Delete(key) | Op::DeletePrefix(key)) = op;
        let new = !keys.contains(&key.as_str());
        keys.push(key);
        new
    })
}

/// An object that is filled field by field, in the order of writing.
struct Object(Map<String, Value>);

impl Object {
    fn put(&mut self, key: &str, value: impl Into<Value>) {
        self.0.insert(key.to_owned(), value.into());
    }

    fn put_some(&mut self, key: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.put(key, value);
        }
    }

    fn compact(self) -> String {
        render_compact(&Value::Object(self.0))
    }
}

fn render_member(me: &MemberIdentity<'_>, value: &MemberValue) -> String {
    let mut out = Object(Map::new());
    out.put("conn_url", me.conn_url);
    out.put("api_url", me.api_url);
    out.put("state", state_text(value.state));
    out.put("role", role_text(value.role));
    out.put("version", me.version);
    out.put_some("proxy_url", me.proxy_url);
    out.put_some(
        "checkpoint_after_promote",
        value.checkpoint_outstanding.then_some(false),
    );
    let tags = published_tags(me.tags, value.release_from_sync);
    out.put_some("tags", (!tags.is_empty()).then_some(Value::Object(tags)));
    if !value.pending_restart.is_empty() {
        out.put("pending_restart", true);
        out.put("pending_restart_reason", pending_restart_reason(&value.pending_restart));
    }
    out.put_some("xlog_location", value.lsn.map(|l| l.0));
    out.put_some("replay_lsn", value.replay_lsn.filter(|l| l.0 > 0).map(|l| l.0));
    out.put_some("receive_lsn", value.receive_lsn.filter(|l| l.0 > 0).map(|l| l.0));
    out.put_some("replication_state", value.replication_state.as_deref());
    out.put_some("timeline", value.timeline.map(|t| t.0));
    out.put_some("diverged_wal", value.diverged_wal.map(diverged));
    // The text is JSON of our own making; were it not, the key would rather do without it than be unreadable.
    let restart = value
        .scheduled_restart
        .as_deref()
        .and_then(|t| serde_json::from_str::<Value>(t).ok());
    out.put_some("scheduled_restart", restart);
    out.put_some("pause", value.pause.then_some(true));
    out.compact()
}

/// WAL outside of the leader's history as a member key has it: positions in bytes.
fn diverged(wal: DivergedWal) -> Value {
    let mut out = Object(Map::new());
    out.put("timeline", wal.timeline.0);
    out.put("from", wal.from.0);
    out.put("to", wal.to.0);
    Value::Object(out.0)
}

/// `{"<parameter>": {"old_value": .., "new_value": ..}}`.
pub(crate) fn pending_restart_reason(pending: &[PendingRestart]) -> Value {
    let entry = |p: &PendingRestart| {
        let mut values = Object(Map::new());
        values.put("old_value", p.old_value.as_str());
        values.put("new_value", p.new_value.as_str());
        (p.name.clone(), Value::Object(values.0))
    };
    Value::Object(pending.iter().map(entry).collect())
}

fn render_failover(value: Option<&FailoverValue>) -> String {
    let mut out = Object(Map::new());
    if let Some(value) = value {
        out.put_some("leader", value.leader.as_ref().map(MemberName::as_str));
        out.put_some("member", value.candidate.as_ref().map(MemberName::as_str));
        out.put_some("scheduled_at", value.scheduled_at.map(render_iso));
    }
    out.compact()
}

fn render_history(lines: &[HistoryLine]) -> String {
    let line = |l: &HistoryLine| {
        let mut out: Vec<Value> = vec![l.timeline.0.into(), l.switchpoint.0.into(), l.reason.as_str().into()];
        // Lines that came short stay short.
        if !l.timestamp.is_empty() || !l.new_leader.is_empty() {
            out.push(l.timestamp.as_str().into());
        }
        if !l.new_leader.is_empty() {
            out.push(l.new_leader.as_str().into());
        }
        Value::Array(out)
    };
    render_compact(&Value::Array(lines.iter().map(line).collect()))
}

fn render_status(value: &StatusValue) -> String {
    let mut out = Object(Map::new());
    out.put("optime", value.optime.0);
    let slots: Map<String, Value> = value
        .slots
        .iter()
        .map(|(name, lsn)| (name.clone(), lsn.0.into()))
        .collect();
    out.put_some("slots", (!slots.is_empty()).then_some(Value::Object(slots)));
    out.put_some(
        "retain_slots",
        (!value.retain_slots.is_empty()).then(|| value.retain_slots.clone()),
    );
    out.put_some("writer", value.writer.as_ref().map(MemberName::as_str));
    out.put_some("released", value.released.then_some(true));
    out.compact()
}

fn render_sync(leader: Option<&MemberName>, quorum: u32, standbys: &[MemberName]) -> String {
    let mut names: Vec<&str> = standbys.iter().map(MemberName::as_str).collect();
    names.sort_unstable();
    let mut out = Object(Map::new());
    out.put("leader", leader.map(MemberName::as_str));
    out.put("quorum", quorum);
    out.put("sync_standby", (!names.is_empty()).then(|| names.join(",")));
    out.compact()
}
