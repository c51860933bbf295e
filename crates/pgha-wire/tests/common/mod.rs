//! A small cluster to render and to ask, shared by the tests.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::time::Duration;

use pgha_core::cluster::{MemberRole, MemberState};
use pgha_core::pg::{PendingRestart, SqlFacts, SqlRole, StandbyFacts, WalReceiver, WalSender};
use pgha_core::tags::Tags;
use pgha_core::units::{LeaseId, Lsn, MemberName, Mono, Revision, SystemId, Timeline};
use pgha_wire::kv::{KeyValue, Snapshot};
use pgha_wire::rest::status::{Counters, LeaderUntil, NodeStatus, SyncStanding};
use pgha_wire::tags::parse_tags;
use proptest::prelude::*;
use serde_json::{Value, json};

/// The base path of the cluster.
pub const BASE: &str = "/service/batman";
/// The time of the tests.
pub const NOW: Mono = Mono(1_000_000_000_000);

pub fn name(text: &str) -> MemberName {
    MemberName::new(text)
}

/// A key below the base path, at revision 7.
pub fn key(relative: &str, value: impl AsRef<[u8]>) -> KeyValue {
    KeyValue {
        key: format!("{BASE}/{relative}"),
        value: value.as_ref().to_vec(),
        create_revision: Revision(5),
        mod_revision: Revision(7),
        lease: Some(LeaseId(42)),
    }
}

pub fn snapshot(keys: Vec<KeyValue>) -> Snapshot {
    Snapshot {
        revision: Revision(9),
        keys,
    }
}

pub fn tags(value: &Value) -> Tags {
    parse_tags(value.as_object().expect("tags are an object"))
}

pub fn pending_restart() -> Vec<PendingRestart> {
    vec![PendingRestart {
        name: "max_connections".into(),
        old_value: "100".into(),
        new_value: "200".into(),
    }]
}

pub fn facts(role: SqlRole) -> SqlFacts {
    SqlFacts {
        response_time: Duration::from_micros(1500),
        server_version: 150_020,
        postmaster_start_time: "2025-12-31 23:00:00.123456+00:00".into(),
        role,
        wal_senders: Vec::new(),
        slots: Default::default(),
        synchronous_standby_names: String::new(),
        synchronous_commit: "on".into(),
        pending_restart: Vec::new(),
    }
}

pub fn primary_role() -> SqlRole {
    SqlRole::Primary {
        timeline: Timeline(3),
        flush: Lsn(50_331_648),
        write: Lsn(50_331_700),
    }
}

pub fn standby_facts() -> StandbyFacts {
    StandbyFacts {
        timeline: Some(Timeline(3)),
        received: Some(Lsn(50_331_600)),
        replayed: Some(Lsn(50_331_500)),
        replayed_timestamp: Some("2026-01-01 12:59:59.000001+00:00".into()),
        replay_paused: false,
        wal_receiver: Some(WalReceiver {
            status: "streaming".into(),
            sender_host: Some("10.0.0.1".into()),
            sender_port: Some(5432),
            latest_end: Some(Lsn(50_331_648)),
        }),
        primary_conninfo: String::new(),
        primary_slot_name: "n2".into(),
        has_restore_command: false,
    }
}

pub fn wal_sender(
    application_name: &str,
    client_addr: Option<&str>,
    sync_state: &str,
    sync_priority: i32,
) -> WalSender {
    WalSender {
        pid: 1,
        usename: "replicator".into(),
        application_name: application_name.into(),
        client_addr: client_addr.map(str::to_owned),
        state: "streaming".into(),
        sync_state: sync_state.into(),
        sync_priority,
        write: None,
        flush: None,
        replay: None,
    }
}

fn node(member: &str, state: MemberState, role: MemberRole, sql: Option<SqlFacts>) -> NodeStatus {
    NodeStatus {
        name: name(member),
        scope: "batman".into(),
        version: "4.1.5".into(),
        system_id: Some(SystemId(7_123_456_789_012_345_678)),
        state,
        role,
        postmaster_running: sql.is_some(),
        sql,
        sync_standing: SyncStanding::None,
        leader_until: LeaderUntil::NotLeader,
        may_write: false,
        standby_cluster: false,
        pause: false,
        cluster_unlocked: false,
        dcs_reachable: true,
        dcs_last_seen_s: 1_767_272_400,
        failsafe_enabled: false,
        failsafe_active: false,
        failsafe_leader: None,
        failsafe_member: false,
        optime: Some(Lsn(50_331_648)),
        maximum_lag_on_failover: 1_048_576,
        tags: Tags::default(),
        release_from_sync: false,
        pending_restart: Vec::new(),
        scheduled_restart: None,
        watchdog_failed: false,
        next_run: NOW,
        ttl: Duration::from_secs(30),
        loop_duration: None,
        decision: None,
        job: None,
        diverged_wal: None,
        counters: Counters::default(),
    }
}

/// `n1`, the leader, with a proof that is good for ten seconds.
pub fn leader() -> NodeStatus {
    NodeStatus {
        leader_until: LeaderUntil::Proven(NOW.plus(Duration::from_secs(10))),
        ..node(
            "n1",
            MemberState::Running,
            MemberRole::Primary,
            Some(facts(primary_role())),
        )
    }
}

/// `n2`, a streaming standby.
pub fn standby() -> NodeStatus {
    node(
        "n2",
        MemberState::Running,
        MemberRole::Replica,
        Some(facts(SqlRole::Standby(standby_facts()))),
    )
}

/// `n3`, a node without PostgreSQL and without etcd.
pub fn stopped() -> NodeStatus {
    NodeStatus {
        system_id: None,
        cluster_unlocked: true,
        dcs_reachable: false,
        dcs_last_seen_s: 0,
        ..node("n3", MemberState::Stopped, MemberRole::Demoted, None)
    }
}

/// Any JSON, with words in it that mean something to us.
pub fn any_json() -> impl Strategy<Value = Value> {
    let word = prop::sample::select(vec![
        "leader",
        "member",
        "optime",
        "slots",
        "tags",
        "quorum",
        "sync_standby",
        "scheduled_at",
        "ttl",
        "postgresql",
        "conn_kwargs",
        "retain_slots",
        "pause",
        "host",
        "-1",
        "n1",
        "n2",
        "replica",
        "0x1",
        "1e999",
        "on",
        "2026-01-01T13:00:00Z",
    ]);
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(|b| json!(b)),
        any::<i64>().prop_map(|n| json!(n)),
        any::<f64>().prop_map(|n| json!(n)),
        ".{0,8}".prop_map(|s| json!(s)),
        word.clone().prop_map(|s| json!(s)),
        "[0-9]{1,4}(\\.[0-9]{1,3}){0,3}(MB|kB|s|min)?".prop_map(|s| json!(s)),
        "20[0-9]{2}-[01][0-9]-[0-3][0-9][T ][0-2][0-9]:[0-6][0-9](Z|[+-][0-9]{2}:?[0-9]{2}| UTC)?"
            .prop_map(|s| json!(s)),
    ];
    leaf.prop_recursive(4, 32, 6, move |inner| {
        let name = prop_oneof![word.clone().prop_map(str::to_owned), ".{0,4}"];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(|v| json!(v)),
            prop::collection::btree_map(name, inner, 0..6).prop_map(|m| json!(m)),
        ]
    })
}
