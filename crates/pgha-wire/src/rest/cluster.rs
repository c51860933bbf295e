//! `GET /cluster`, and the same as typed rows for the CLI.

use pgha_core::cluster::{ClusterView, Member};
use pgha_core::settings::SynchronousMode;
use pgha_core::units::{Lsn, MemberName, Wall};
use serde_json::{Map, Value};

use crate::cluster::RawMember;
use crate::isotime::render_iso;
use crate::pyjson::render_spaced;
use crate::texts::state_text;
use crate::url::host_and_port;

/// Fields of a member key that are shown as they stand there.
const AS_THEY_ARE: [&str; 5] = [
    "timeline",
    "pending_restart",
    "pending_restart_reason",
    "scheduled_restart",
    "tags",
];

/// A cluster as a table.
#[derive(Clone, PartialEq, Debug)]
pub struct ClusterTable {
    /// Scope.
    pub scope: String,
    /// Rows by name.
    pub members: Vec<MemberRow>,
    /// Maintenance mode.
    pub pause: bool,
    /// A planned switchover.
    pub scheduled_switchover: Option<ScheduledSwitchover>,
}

/// A planned switchover.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScheduledSwitchover {
    /// When.
    pub at: Wall,
    /// Away from whom.
    pub from: Option<MemberName>,
    /// To whom.
    pub to: Option<MemberName>,
}

/// One member.
#[derive(Clone, PartialEq, Debug)]
pub struct MemberRow {
    /// Name.
    pub name: MemberName,
    /// Role.
    pub role: RowRole,
    /// Replication state if it has one and is not the leader of a normal cluster, else Patroni's state text.
    pub state: String,
    /// Address of its REST API.
    pub api_url: Option<String>,
    /// Host and port of its PostgreSQL.
    pub address: Option<(String, u16)>,
    /// `timeline`, `pending_restart`, `pending_restart_reason`, `scheduled_restart` and `tags` as they stand in the
    /// member key, as far as they do.
    pub details: Map<String, Value>,
    /// Positions; `None` for the leader, whose own position is what the others are measured by.
    pub positions: Option<Positions>,
}

/// Role in the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RowRole {
    /// Holds the leader key.
    Leader,
    /// Holds the leader key of a standby cluster.
    StandbyLeader,
    /// Listed in `/sync`.
    SyncStandby,
    /// Listed in `/sync` in quorum mode.
    QuorumStandby,
    /// Any other.
    Replica,
}

impl RowRole {
    /// Patroni's word.
    pub fn text(self) -> &'static str {
        match self {
            RowRole::Leader => "leader",
            RowRole::StandbyLeader => "standby_leader",
            RowRole::SyncStandby => "sync_standby",
            RowRole::QuorumStandby => "quorum_standby",
            RowRole::Replica => "replica",
        }
    }
}

/// Positions of a standby; each is `None` when unknown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Positions {
    /// Received and replayed WAL, and the newer of the two, as the member published them.
    pub received: Option<Position>,
    /// Replayed.
    pub replayed: Option<Position>,
    /// `xlog_location`.
    pub latest: Option<Position>,
}

/// A position and its distance to the leader's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Position {
    /// Where.
    pub lsn: Lsn,
    /// Bytes behind `/status`; 0 if ahead of it.
    pub lag: u64,
}

/// The table of a cluster.
pub fn cluster_table(scope: &str, view: &ClusterView) -> ClusterTable {
    let failover = view.failover.as_ref();
    ClusterTable {
        scope: scope.to_owned(),
        members: view
            .members
            .iter()
            .map(|(name, member)| row(view, name, member))
            .collect(),
        pause: view.settings().pause,
        scheduled_switchover: failover.and_then(|f| {
            Some(ScheduledSwitchover {
                at: f.scheduled_at?,
                from: f.leader.clone(),
                to: f.candidate.clone(),
            })
        }),
    }
}

/// The body of `GET /cluster`.
pub fn render_cluster(table: &ClusterTable) -> String {
    let mut out = Map::new();
    out.insert("members".to_owned(), table.members.iter().map(render_row).collect());
    if table.pause {
        out.insert("pause".to_owned(), true.into());
    }
    if let Some(planned) = &table.scheduled_switchover {
        let mut switchover = Map::from_iter([("at".to_owned(), Value::from(render_iso(planned.at)))]);
        for (key, name) in [("from", &planned.from), ("to", &planned.to)] {
            if let Some(name) = name {
                switchover.insert(key.to_owned(), name.as_str().into());
            }
        }
        out.insert("scheduled_switchover".to_owned(), Value::Object(switchover));
    }
    out.insert("scope".to_owned(), table.scope.as_str().into());
    render_spaced(&Value::Object(out))
}

/// Is the name listed in `/sync`? Names compare as PostgreSQL compares them.
pub(crate) fn is_sync_member(view: &ClusterView, name: &MemberName) -> bool {
    let Some(sync) = view.sync.as_ref().filter(|s| s.leader.is_some()) else {
        return false;
    };
    sync.standbys
        .iter()
        .any(|s| s.as_str().to_lowercase() == name.as_str().to_lowercase())
}

fn row(view: &ClusterView, name: &MemberName, member: &Member) -> MemberRow {
    let settings = view.settings();
    let is_leader = view.leader_name() == Some(name);
    let role = if is_leader {
        if settings.standby_cluster.is_some() {
            RowRole::StandbyLeader
        } else {
            RowRole::Leader
        }
    } else if settings.is_synchronous() && is_sync_member(view, name) {
        match settings.synchronous_mode {
            SynchronousMode::Quorum => RowRole::QuorumStandby,
            SynchronousMode::On | SynchronousMode::Off => RowRole::SyncStandby,
        }
    } else {
        RowRole::Replica
    };
    let raw = RawMember::of(member);
    let replication = member.replication_state.as_deref().filter(|_| role != RowRole::Leader);
    let details = AS_THEY_ARE
        .iter()
        .filter_map(|key| Some(((*key).to_owned(), raw.get(key)?.clone())));
    MemberRow {
        name: name.clone(),
        role,
        state: replication.map_or_else(|| raw_state(&raw, member), str::to_owned),
        api_url: member.api_url.clone(),
        address: member.conn_url.as_deref().and_then(host_and_port),
        details: details.collect(),
        positions: (!is_leader).then(|| positions(view, member)),
    }
}

/// The word in the key, even if it is none that we know; nothing if there is none.
fn raw_state(raw: &RawMember, member: &Member) -> String {
    raw.get("state").and_then(Value::as_str).map_or_else(
        || {
            if raw.get("state").is_some() {
                state_text(member.state).to_owned()
            } else {
                String::new()
            }
        },
        str::to_owned,
    )
}

fn positions(view: &ClusterView, member: &Member) -> Positions {
    let optime = view.status.as_ref().map(|s| s.optime).unwrap_or_default();
    let position = |lsn: Option<Lsn>| {
        let lsn = lsn.filter(|l| l.0 > 0)?;
        Some(Position {
            lsn,
            lag: optime.ahead_of(lsn),
        })
    };
    Positions {
        received: position(member.receive_lsn),
        replayed: position(member.replay_lsn),
        latest: position(member.lsn),
    }
}

fn render_row(row: &MemberRow) -> Value {
    let mut out = Map::new();
    let mut put = |key: &str, value: Value| {
        out.insert(key.to_owned(), value);
    };
    put("name", row.name.as_str().into());
    put("role", row.role.text().into());
    put("state", row.state.as_str().into());
    put("api_url", row.api_url.as_deref().into());
    if let Some((host, port)) = &row.address {
        put("host", host.as_str().into());
        put("port", (*port).into());
    }
    for (key, value) in &row.details {
        put(key, value.clone());
    }
    if let Some(positions) = &row.positions {
        for (prefix, position) in [
            ("receive_", positions.received),
            ("replay_", positions.replayed),
            ("", positions.latest),
        ] {
            let (lag, lsn) = match position {
                Some(p) => (p.lag.into(), p.lsn.to_string().into()),
                None => (Value::from("unknown"), Value::from("unknown")),
            };
            put(&format!("{prefix}lag"), lag);
            put(&format!("{prefix}lsn"), lsn);
        }
    }
    Value::Object(out)
}
