//! What goes out, byte for byte: values of etcd and answers of the REST API, compared with the files in `golden/`.

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use common::{
    BASE, NOW, facts, key, leader, name, pending_restart, primary_role, snapshot, standby, stopped, tags, wal_sender,
};
use pgha_core::cluster::{HistoryLine, MemberRole, MemberState};
use pgha_core::commit::{Change, Commit, FailoverValue, Guard, Key, MemberValue, Purpose, StatusValue};
use pgha_core::tags::Tags;
use pgha_core::units::{LeaseId, Lsn, Revision, SystemId, Timeline, Wall};
use pgha_wire::cluster::parse_cluster;
use pgha_wire::commit::{MemberIdentity, render_txn};
use pgha_wire::kv::{Compare, Op};
use pgha_wire::rest::cluster::{cluster_table, render_cluster};
use pgha_wire::rest::metrics::render_metrics;
use pgha_wire::rest::status::{DecisionNote, NodeStatus, SyncStanding, render_patroni};
use pgha_wire::texts::PATRONI_VERSION;
use serde_json::json;

const SCHEDULED_RESTART: &str = r#"{"schedule":"2026-01-01T13:00:00+00:00","restart_pending":true,"postmaster_start_time":"2025-12-31 23:00:00.123456+00:00"}"#;

/// Compares with a file that ends with one newline.
fn check(golden: &str, found: &str) {
    assert_eq!(found, golden.strip_suffix('\n').unwrap_or(golden));
}

fn put_as(identity: &MemberIdentity<'_>, change: Change) -> String {
    let commit = Commit {
        purpose: Purpose::TouchMember,
        guards: Vec::new(),
        changes: vec![change],
    };
    let value = render_txn(BASE, identity, &commit)
        .ops
        .into_iter()
        .find_map(|op| match op {
            Op::Put { value, .. } => Some(value),
            Op::Delete(_) | Op::DeletePrefix(_) => None,
        });
    String::from_utf8(value.expect("the change is a put")).expect("values are text")
}

fn put(change: Change) -> String {
    let (me, tags) = (name("n1"), Tags::default());
    let identity = MemberIdentity {
        name: &me,
        conn_url: "",
        api_url: "",
        proxy_url: None,
        version: "",
        tags: &tags,
    };
    put_as(&identity, change)
}

fn put_member(number: u8, proxy_url: Option<&str>, tags: &Tags, value: MemberValue) -> String {
    let me = name(&format!("n{number}"));
    let identity = MemberIdentity {
        name: &me,
        conn_url: &format!("postgres://10.0.0.{number}:5432/postgres"),
        api_url: &format!("http://10.0.0.{number}:8008/patroni"),
        proxy_url,
        version: PATRONI_VERSION,
        tags,
    };
    put_as(
        &identity,
        Change::PutMember {
            name: me.clone(),
            lease: LeaseId(1),
            value: Box::new(value),
        },
    )
}

#[test]
fn the_member_key_of_a_primary_has_every_field_in_patronis_order() {
    let value = MemberValue {
        state: MemberState::Running,
        role: MemberRole::Primary,
        lsn: Some(Lsn(50_331_648)),
        timeline: Some(Timeline(3)),
        checkpoint_outstanding: true,
        pause: true,
        pending_restart: pending_restart(),
        scheduled_restart: Some(SCHEDULED_RESTART.into()),
        ..MemberValue::default()
    };
    let tags = tags(&json!({"clonefrom": true, "nofailover": false, "dc": "Zürich"}));
    let found = put_member(1, Some("postgres://10.0.0.1:6432/postgres"), &tags, value);
    check(include_str!("golden/member_primary.json"), &found);
}

#[test]
fn the_member_key_of_a_standby_has_its_positions_and_asks_for_release_from_sync() {
    let value = MemberValue {
        state: MemberState::Running,
        role: MemberRole::Replica,
        lsn: Some(Lsn(50_331_600)),
        receive_lsn: Some(Lsn(50_331_600)),
        replay_lsn: Some(Lsn(50_331_500)),
        replication_state: Some("streaming".into()),
        timeline: Some(Timeline(3)),
        release_from_sync: true,
        ..MemberValue::default()
    };
    check(
        include_str!("golden/member_standby.json"),
        &put_member(2, None, &Tags::default(), value),
    );
}

#[test]
fn the_member_key_of_a_new_node_has_only_what_is_known() {
    let value = MemberValue {
        state: MemberState::CreatingReplica,
        receive_lsn: Some(Lsn(0)),
        replay_lsn: Some(Lsn(0)),
        ..MemberValue::default()
    };
    check(
        include_str!("golden/member_new.json"),
        &put_member(3, None, &Tags::default(), value),
    );
}

#[test]
fn failover_is_patronis() {
    let value = FailoverValue {
        leader: Some(name("n1")),
        candidate: Some(name("n2")),
        scheduled_at: Some(Wall(1_767_272_400_000_000)),
    };
    check(
        include_str!("golden/failover_switchover.json"),
        &put(Change::PutFailover(Some(value))),
    );
    check(
        include_str!("golden/failover_empty.json"),
        &put(Change::PutFailover(None)),
    );
}

#[test]
fn history_is_patronis_and_short_lines_stay_short() {
    let line = |timeline, switchpoint, reason: &str, timestamp: &str, new_leader: &str| HistoryLine {
        timeline: Timeline(timeline),
        switchpoint: Lsn(switchpoint),
        reason: reason.into(),
        timestamp: timestamp.into(),
        new_leader: new_leader.into(),
    };
    let lines = vec![
        line(
            1,
            25_623_960,
            "no recovery target specified",
            "2026-01-01T10:00:00.5+00:00",
            "n2",
        ),
        line(
            2,
            25_624_000,
            "no recovery target specified",
            "2026-01-01T11:00:00+00:00",
            "",
        ),
        line(3, 33_554_432, "old line", "", ""),
    ];
    check(include_str!("golden/history.json"), &put(Change::PutHistory(lines)));
}

#[test]
fn status_is_patronis_with_our_marks_behind_it() {
    let value = StatusValue {
        optime: Lsn(50_331_648),
        slots: BTreeMap::from([("n1".into(), Lsn(50_331_648)), ("n2".into(), Lsn(50_331_500))]),
        retain_slots: vec!["n2".into(), "n3".into()],
        ..StatusValue::default()
    };
    check(include_str!("golden/status.json"), &put(Change::PutStatus(value)));
    let value = StatusValue {
        optime: Lsn(50_331_648),
        writer: Some(name("n1")),
        released: true,
        ..StatusValue::default()
    };
    check(
        include_str!("golden/status_released.json"),
        &put(Change::PutStatus(value)),
    );
}

#[test]
fn sync_and_failsafe_are_patronis() {
    let sync = |leader: Option<&str>, quorum, standbys: &[&str]| Change::PutSync {
        leader: leader.map(name),
        quorum,
        standbys: standbys.iter().map(|n| name(n)).collect(),
    };
    check(
        include_str!("golden/sync.json"),
        &put(sync(Some("n1"), 0, &["n3", "n2"])),
    );
    check(
        include_str!("golden/sync_quorum.json"),
        &put(sync(Some("n1"), 1, &["n2", "n3"])),
    );
    check(include_str!("golden/sync_empty.json"), &put(sync(None, 0, &[])));
    let members = ["n1", "n2"].map(|n| (name(n), format!("http://10.0.0.{}:8008/patroni", &n[1..])));
    check(
        include_str!("golden/failsafe.json"),
        &put(Change::PutFailsafe(BTreeMap::from(members))),
    );
}

#[test]
fn plain_keys_are_plain_text() {
    assert_eq!(
        put(Change::PutLeader {
            name: name("n1"),
            lease: LeaseId(1)
        }),
        "n1"
    );
    assert_eq!(
        put(Change::PutInitialize {
            system_id: None,
            lease: None
        }),
        ""
    );
    let system_id = Some(SystemId(7_123_456_789_012_345_678));
    assert_eq!(
        put(Change::PutInitialize { system_id, lease: None }),
        "7123456789012345678"
    );
    assert_eq!(put(Change::PutConfig("{\"ttl\": 30}".into())), "{\"ttl\": 30}");
}

#[test]
fn guards_become_compares_and_changes_operations() {
    let (me, no_tags) = (name("n1"), Tags::default());
    let identity = MemberIdentity {
        name: &me,
        conn_url: "",
        api_url: "",
        proxy_url: None,
        version: "",
        tags: &no_tags,
    };
    let commit = Commit {
        purpose: Purpose::ReleaseLeaderKey,
        guards: vec![
            Guard::LeaderIsMine {
                create_revision: Revision(5),
                lease: LeaseId(6),
            },
            Guard::Absent(Key::Initialize),
            Guard::Unchanged(Key::Member(name("n2")), Revision(8)),
        ],
        changes: vec![
            Change::Delete(Key::Leader),
            Change::PutInitialize {
                system_id: None,
                lease: Some(LeaseId(6)),
            },
            Change::PutFailover(None),
        ],
    };
    let txn = render_txn(BASE, &identity, &commit);
    let full = |k: &str| format!("/service/batman/{k}");
    assert_eq!(
        txn.compares,
        [
            Compare::CreateRevision(full("leader"), Revision(5)),
            Compare::Lease(full("leader"), LeaseId(6)),
            Compare::CreateRevision(full("initialize"), Revision(0)),
            Compare::ModRevision(full("members/n2"), Revision(8)),
        ]
    );
    assert_eq!(
        txn.ops,
        [
            Op::Delete(full("leader")),
            Op::Put {
                key: full("initialize"),
                value: Vec::new(),
                lease: Some(LeaseId(6))
            },
            Op::Put {
                key: full("failover"),
                value: b"{}".to_vec(),
                lease: None
            },
        ]
    );
}

fn busy_leader() -> NodeStatus {
    let mut sql = facts(primary_role());
    sql.wal_senders = vec![
        wal_sender("n2", Some("10.0.0.2"), "async", 0),
        wal_sender("n3", None, "sync", 1),
    ];
    NodeStatus {
        sql: Some(sql),
        pause: true,
        tags: tags(&json!({"dc": "Zürich"})),
        pending_restart: pending_restart(),
        scheduled_restart: Some(SCHEDULED_RESTART.into()),
        watchdog_failed: true,
        decision: Some(DecisionNote {
            rule: 500,
            text: "no action. I am (n1), the leader with the lock".into(),
            waits_for: Some("nothing".into()),
        }),
        ..leader()
    }
}

#[test]
fn the_status_of_a_node_is_patronis_with_our_section_at_the_end() {
    check(
        include_str!("golden/patroni_primary.json"),
        &render_patroni(&busy_leader()),
    );
    let synchronous = NodeStatus {
        sync_standing: SyncStanding::Sync,
        ..standby()
    };
    check(
        include_str!("golden/patroni_standby.json"),
        &render_patroni(&synchronous),
    );
    let copying = NodeStatus {
        failsafe_active: true,
        job: Some("basebackup 40 %".into()),
        ..stopped()
    };
    check(include_str!("golden/patroni_stopped.json"), &render_patroni(&copying));
}

#[test]
fn a_postgresql_that_does_not_answer_is_shown_as_unknown() {
    let hung = NodeStatus { sql: None, ..leader() };
    check(include_str!("golden/patroni_hung.json"), &render_patroni(&hung));
}

#[test]
fn the_cluster_is_shown_as_patroni_shows_it() {
    let view = parse_cluster(
        BASE,
        &snapshot(vec![
            key("config", r#"{"pause": true, "synchronous_mode": true}"#),
            key("failover", include_str!("golden/failover_switchover.json")),
            key("leader", "n1"),
            key(
                "members/n1",
                r#"{"conn_url":"postgres://10.0.0.1:5432/postgres","api_url":"http://10.0.0.1:8008/patroni","state":"running","replication_state":"streaming","xlog_location":1,"timeline":3}"#,
            ),
            key(
                "members/n2",
                r#"{"conn_url":"postgres://10.0.0.2:5432/postgres","api_url":"http://10.0.0.2:8008/patroni","state":"running","role":"replica","tags":{"clonefrom":true},"scheduled_restart":{"schedule":"2026-01-01T13:00:00+00:00"},"pending_restart_reason":{"max_connections":{"old_value":"100","new_value":"200"}},"pending_restart":true,"xlog_location":50331600,"replay_lsn":50331500,"receive_lsn":50331600,"replication_state":"streaming","timeline":3}"#,
            ),
            key("members/n3", r#"{"state":"creating replica"}"#),
            key(
                "members/n4",
                r#"{"conn_url":"postgres://[::1]:5433/postgres","api_url":"http://[::1]:8008/patroni","state":"running","xlog_location":50331649}"#,
            ),
            key("status", include_str!("golden/status.json")),
            key("sync", r#"{"leader":"n1","quorum":0,"sync_standby":"N2"}"#),
        ]),
    );
    assert_eq!(view.unreadable, Vec::new());
    check(
        include_str!("golden/cluster.json"),
        &render_cluster(&cluster_table("batman", &view)),
    );
}

#[test]
fn metrics_are_patronis_with_ours_behind_them() {
    let mut busy = busy_leader();
    busy.loop_duration = Some(Duration::from_millis(25));
    busy.counters.decisions = BTreeMap::from([(500, 7), (610, 1)]);
    busy.counters.promotions = 1;
    assert_eq!(render_metrics(&busy, NOW), include_str!("golden/metrics_primary.txt"));
    let synchronous = NodeStatus {
        sync_standing: SyncStanding::Quorum,
        ..standby()
    };
    assert_eq!(
        render_metrics(&synchronous, NOW),
        include_str!("golden/metrics_standby.txt")
    );
    let series = render_metrics(&stopped(), NOW)
        .lines()
        .filter(|l| l.starts_with("patroni_"))
        .count();
    assert_eq!(series, 24, "two series need an answer of PostgreSQL");
}
