//! The status of a node: what is published after each cycle, and `GET /patroni` made from it.

use std::collections::BTreeMap;
use std::time::Duration;

use pgha_core::cluster::{MemberRole, MemberState};
use pgha_core::peer::PeerStatus;
use pgha_core::pg::{PendingRestart, SqlFacts, SqlRole, WalSender};
use pgha_core::rewind::DivergedWal;
use pgha_core::tags::Tags;
use pgha_core::units::{Lsn, MemberName, Mono, SystemId, Timeline};
use serde_json::{Map, Value, json};

use crate::commit::pending_restart_reason;
use crate::error::WireError;
use crate::limits::MAX_PEER_BYTES;
use crate::pyjson::render_spaced;
use crate::tags::{parse_tags, published_tags};
use crate::texts::{parse_role, parse_state, role_text, state_text};
use crate::values::is_truthy;

/// Everything the REST API tells about this node. Plain data: whoever publishes it has decided what is true.
#[derive(Clone, PartialEq, Debug)]
pub struct NodeStatus {
    /// Own name.
    pub name: MemberName,
    /// Scope.
    pub scope: String,
    /// Version text of the agent, as in the member key.
    pub version: String,
    /// System identifier of the local cluster.
    pub system_id: Option<SystemId>,
    /// What the agent takes PostgreSQL's state to be.
    pub state: MemberState,
    /// What the agent takes the role to be; shown where PostgreSQL does not answer.
    pub role: MemberRole,
    /// There is a postmaster process.
    pub postmaster_running: bool,
    /// PostgreSQL's last answer; `None` when it did not answer in the last observation.
    pub sql: Option<SqlFacts>,
    /// Standing in `/sync`.
    pub sync_standing: SyncStanding,
    /// Until when this node leads.
    pub leader_until: LeaderUntil,
    /// PostgreSQL accepts writes, or may yet be made to under a proof that is still good.
    pub may_write: bool,
    /// The cluster follows a remote primary.
    pub standby_cluster: bool,
    /// Maintenance mode.
    pub pause: bool,
    /// Nobody holds the leader key, or it is not known whether anybody does.
    pub cluster_unlocked: bool,
    /// etcd answered when it was last asked.
    pub dcs_reachable: bool,
    /// Unix seconds of etcd's last answer; 0 = never.
    pub dcs_last_seen_s: u64,
    /// `failsafe_mode` in the settings.
    pub failsafe_enabled: bool,
    /// Failsafe mode keeps the cluster going right now.
    pub failsafe_active: bool,
    /// Whom this node told that it may go on as the leader without etcd, while that binds it.
    pub failsafe_leader: Option<MemberName>,
    /// This node is listed in `/failsafe`.
    pub failsafe_member: bool,
    /// The leader's position in `/status`.
    pub optime: Option<Lsn>,
    /// Setting, in bytes.
    pub maximum_lag_on_failover: u64,
    /// Configured tags.
    pub tags: Tags,
    /// This node asks to be released from `/sync`.
    pub release_from_sync: bool,
    /// Parameters that wait for a restart.
    pub pending_restart: Vec<PendingRestart>,
    /// `schedule` and conditions of a scheduled restart as JSON text, as in the member key.
    pub scheduled_restart: Option<String>,
    /// The watchdog is required and does not work.
    pub watchdog_failed: bool,
    /// When the next heartbeat is due.
    pub next_run: Mono,
    /// Lease time to live.
    pub ttl: Duration,
    /// How long the last cycle took.
    pub loop_duration: Option<Duration>,
    /// The last decision.
    pub decision: Option<DecisionNote>,
    /// What a running job does, e.g. `basebackup 40 %`.
    pub job: Option<String>,
    /// Local WAL outside of the leader's history, which is discarded when the node is repaired.
    pub diverged_wal: Option<DivergedWal>,
    /// Counts since the agent's start.
    pub counters: Counters,
}

/// Standing of this node in `/sync`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SyncStanding {
    /// Not listed.
    #[default]
    None,
    /// A synchronous standby.
    Sync,
    /// A voter in quorum mode.
    Quorum,
}

/// Until when this node may call itself the leader.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LeaderUntil {
    /// It does not lead.
    #[default]
    NotLeader,
    /// It holds the leader key, by a proof that is good until then.
    Proven(Mono),
    /// It leads in maintenance mode, with the leader key or with etcd out of reach: good until then unless the daemon has
    /// looked again.
    Lifted(Mono),
}

impl LeaderUntil {
    /// Does this node lead at `now`?
    pub fn holds(self, now: Mono) -> bool {
        match self {
            LeaderUntil::NotLeader => false,
            LeaderUntil::Proven(until) | LeaderUntil::Lifted(until) => until > now,
        }
    }
}

/// A decision as it is shown.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DecisionNote {
    /// Number of its rule.
    pub rule: u16,
    /// What it says, e.g. `no action. I am (n1), the leader with the lock`.
    pub text: String,
    /// What it waits for.
    pub waits_for: Option<String>,
}

/// Counts since the agent's start.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Decisions by number of their rule.
    pub decisions: BTreeMap<u16, u64>,
    /// Promotions of the local PostgreSQL.
    pub promotions: u64,
    /// Demotions of the local PostgreSQL.
    pub demotions: u64,
    /// Bytes of WAL outside of the leader's history that were discarded.
    pub discarded_wal_bytes: u64,
}

impl NodeStatus {
    /// PostgreSQL's answer, if its state is one in which an answer counts.
    pub(crate) fn answer(&self) -> Option<&SqlFacts> {
        let asked = matches!(
            self.state,
            MemberState::Running | MemberState::Restarting | MemberState::Starting
        );
        self.sql.as_ref().filter(|_| asked)
    }

    /// The state as shown: a PostgreSQL that is said to run and does not answer is `unknown`.
    pub(crate) fn shown_state(&self) -> MemberState {
        match (self.state, self.answer()) {
            (MemberState::Running, None) => MemberState::Unknown,
            (state, _) => state,
        }
    }

    /// The role as shown: PostgreSQL's own word if it answers.
    pub(crate) fn shown_role(&self) -> MemberRole {
        match self.answer().map(|facts| &facts.role) {
            None => self.role,
            Some(SqlRole::Primary { .. }) => MemberRole::Primary,
            Some(SqlRole::Standby(_)) if self.standby_cluster => self.role,
            Some(SqlRole::Standby(_)) => MemberRole::Replica,
        }
    }

    /// Standing in `/sync` as shown: a standby's only.
    pub(crate) fn shown_sync(&self) -> SyncStanding {
        let standby = self.answer().is_some() && self.shown_role() == MemberRole::Replica;
        if standby {
            self.sync_standing
        } else {
            SyncStanding::None
        }
    }

    /// The newest position of the leader that is known: that of `/status`, or what the wal receiver was told.
    pub(crate) fn leader_position(&self) -> Lsn {
        let optime = self.optime.filter(|_| self.dcs_reachable).unwrap_or_default();
        optime.max(self.latest_end().unwrap_or_default())
    }

    /// What the wal receiver was last told of the sender's position.
    pub(crate) fn latest_end(&self) -> Option<Lsn> {
        match &self.answer()?.role {
            SqlRole::Standby(standby) => standby.wal_receiver.as_ref()?.latest_end.filter(|l| l.0 > 0),
            SqlRole::Primary { .. } => None,
        }
    }
}

/// `streaming`, `in archive recovery` or nothing: how a standby gets its WAL.
pub fn replication_state(facts: &SqlFacts) -> Option<&'static str> {
    match &facts.role {
        SqlRole::Standby(s) if s.wal_receiver.as_ref().is_some_and(|r| r.status == "streaming") => Some("streaming"),
        SqlRole::Standby(s) if s.has_restore_command => Some("in archive recovery"),
        SqlRole::Standby(_) | SqlRole::Primary { .. } => None,
    }
}

/// Positions of a standby as shown: received (or, if nothing was, replayed) and replayed.
pub(crate) fn standby_positions(facts: &SqlFacts) -> Option<(Lsn, Lsn)> {
    match &facts.role {
        SqlRole::Standby(s) => {
            let replayed = s.replayed.unwrap_or_default();
            Some((s.received.filter(|l| l.0 > 0).unwrap_or(replayed), replayed))
        }
        SqlRole::Primary { .. } => None,
    }
}

/// The body of `GET /patroni` and of every health check by GET.
pub fn render_patroni(status: &NodeStatus) -> String {
    let mut out = Map::new();
    let mut put = |key: &str, value: Value| {
        out.insert(key.to_owned(), value);
    };
    put("state", state_text(status.shown_state()).into());
    if let Some(facts) = status.answer() {
        put("postmaster_start_time", facts.postmaster_start_time.as_str().into());
    }
    put("role", role_text(status.shown_role()).into());
    if let Some(facts) = status.answer() {
        put("server_version", facts.server_version.into());
        put("xlog", xlog(facts));
        match status.shown_sync() {
            SyncStanding::None => {}
            SyncStanding::Sync => put("sync_standby", true.into()),
            SyncStanding::Quorum => put("quorum_standby", true.into()),
        }
        put("timeline", facts.timeline().map(|t| t.0).into());
        if let Some(state) = replication_state(facts) {
            put("replication_state", state.into());
        }
        if !facts.wal_senders.is_empty() {
            put("replication", facts.wal_senders.iter().map(wal_sender).collect());
        }
    }
    for (key, flag) in [
        ("pause", status.pause),
        ("cluster_unlocked", status.cluster_unlocked),
        ("failsafe_mode_is_active", status.failsafe_active),
    ] {
        if flag {
            put(key, true.into());
        }
    }
    put("dcs_last_seen", status.dcs_last_seen_s.into());
    let tags = published_tags(&status.tags, status.release_from_sync);
    if !tags.is_empty() {
        put("tags", Value::Object(tags));
    }
    if let Some(id) = status.system_id {
        put("database_system_identifier", id.to_string().into());
    }
    if !status.pending_restart.is_empty() {
        put("pending_restart", true.into());
        put(
            "pending_restart_reason",
            pending_restart_reason(&status.pending_restart),
        );
    }
    put(
        "patroni",
        json!({"version": status.version, "scope": status.scope, "name": status.name.as_str()}),
    );
    if let Some(restart) = status.scheduled_restart.as_deref().and_then(shown_restart) {
        put("scheduled_restart", restart);
    }
    if status.watchdog_failed {
        put("watchdog_failed", true.into());
    }
    put_own(status, &mut put);
    render_spaced(&Value::Object(out))
}

/// What Patroni does not have, behind all that it has.
fn put_own(status: &NodeStatus, put: &mut impl FnMut(&str, Value)) {
    let mut own = Map::new();
    if let Some(decision) = &status.decision {
        own.insert("rule".to_owned(), decision.rule.into());
        own.insert("decision".to_owned(), decision.text.as_str().into());
        if let Some(waits_for) = &decision.waits_for {
            own.insert("waits_for".to_owned(), waits_for.as_str().into());
        }
    }
    if let Some(job) = &status.job {
        own.insert("job".to_owned(), job.as_str().into());
    }
    if let Some(leader) = &status.failsafe_leader {
        own.insert("failsafe_leader".to_owned(), leader.as_str().into());
    }
    // A primary says so by its role. Of any other, peers in a race must know that it may still become one.
    if status.may_write && status.shown_role() != MemberRole::Primary {
        own.insert("may_write".to_owned(), true.into());
    }
    if !own.is_empty() {
        put("pgha", Value::Object(own));
    }
}

fn xlog(facts: &SqlFacts) -> Value {
    match &facts.role {
        SqlRole::Primary { flush, .. } => json!({"location": flush.0}),
        SqlRole::Standby(s) => {
            let (received, replayed) = standby_positions(facts).unwrap_or_default();
            json!({
                "received_location": received.0,
                "replayed_location": replayed.0,
                "replayed_timestamp": s.replayed_timestamp,
                "paused": s.replay_paused,
            })
        }
    }
}

fn wal_sender(sender: &WalSender) -> Value {
    json!({
        "usename": sender.usename,
        "application_name": sender.application_name,
        "client_addr": sender.client_addr,
        "state": sender.state,
        "sync_state": sender.sync_state,
        "sync_priority": sender.sync_priority,
    })
}

/// The status shows what was asked for, without the start time that only the member key keeps.
fn shown_restart(text: &str) -> Option<Value> {
    let mut restart: Map<String, Value> = serde_json::from_str(text).ok()?;
    restart.shift_remove("postmaster_start_time");
    Some(Value::Object(restart))
}

/// Reads a peer's `GET /patroni`.
///
/// # Errors
/// [`WireError::PeerPostgresSilent`] when it has no WAL positions, [`WireError::Peer`] when it is no status at all.
pub fn parse_peer(body: &[u8]) -> Result<PeerStatus, WireError> {
    let wrong = |reason: String| WireError::Peer { reason };
    if body.len() > MAX_PEER_BYTES {
        return Err(wrong(format!(
            "{} bytes are more than the allowed {MAX_PEER_BYTES}",
            body.len()
        )));
    }
    let json: Map<String, Value> = serde_json::from_slice(body).map_err(|e| wrong(format!("no JSON object: {e}")))?;
    let text = |key: &str| json.get(key).and_then(Value::as_str);
    let own = |key: &str| json.get("pgha")?.get(key);
    let patroni = |key: &str| json.get("patroni")?.get(key)?.as_str();
    let mut status = PeerStatus {
        name: patroni("name").map(MemberName::new),
        scope: patroni("scope").map(str::to_owned),
        system_id: text("database_system_identifier")
            .and_then(|t| t.parse().ok())
            .map(SystemId),
        state: text("state").map(parse_state).unwrap_or_default(),
        role: text("role").map(parse_role).unwrap_or_default(),
        timeline: number(json.get("timeline"))
            .and_then(|t| u32::try_from(t).ok())
            .filter(|t| *t > 0)
            .map(Timeline),
        in_recovery: None,
        lsn: None,
        may_write: own("may_write").is_some_and(is_truthy),
        failsafe_leader: own("failsafe_leader").and_then(Value::as_str).map(MemberName::new),
        watchdog_failed: json.get("watchdog_failed").is_some_and(is_truthy),
        tags: json
            .get("tags")
            .and_then(Value::as_object)
            .map(parse_tags)
            .unwrap_or_default(),
    };
    let wal = json.get("wal").filter(|v| is_truthy(v)).or_else(|| json.get("xlog"));
    let Some(wal) = wal.and_then(Value::as_object) else {
        return Err(WireError::PeerPostgresSilent {
            status: Box::new(status),
        });
    };
    let position = |key: &str| number(wal.get(key)).map(Lsn);
    let location = position("location").filter(|l| l.0 > 0);
    // The two shapes are told by `location`; the role is believed only when it claims more than the shape does.
    let in_recovery = location.is_none() && status.role != MemberRole::Primary;
    status.in_recovery = Some(in_recovery);
    status.lsn = if in_recovery {
        position("received_location").max(position("replayed_location"))
    } else {
        location
    };
    Ok(status)
}

fn number(value: Option<&Value>) -> Option<u64> {
    value.and_then(Value::as_u64)
}
