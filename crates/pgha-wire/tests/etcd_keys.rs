//! What comes in from etcd: old spellings are understood, broken values are told and count as missing, and no bytes
//! can break the reader. What we write ourselves is read back in `etcd_round_trip.rs`.

mod common;

use common::{BASE, any_json, key, name, snapshot};
use pgha_core::cluster::{ClusterView, Initialize, MemberRole, MemberState};
use pgha_core::tags::Tags;
use pgha_core::units::{LeaseId, Lsn, MemberName, Revision, SystemId, Timeline};
use pgha_wire::cluster::parse_cluster;
use pgha_wire::kv::KeyValue;
use pgha_wire::limits::MAX_NAME_BYTES;
use proptest::prelude::*;

fn parse(keys: Vec<KeyValue>) -> ClusterView {
    parse_cluster(BASE, &snapshot(keys))
}

/// Parses one key that has to be readable.
fn parse_one(relative: &str, value: &str) -> ClusterView {
    let view = parse(vec![key(relative, value)]);
    assert_eq!(view.unreadable, Vec::new(), "{relative}: {value}");
    view
}

#[test]
fn a_whole_cluster_is_read_at_one_revision() {
    let view = parse(vec![
        key("config", r#"{"ttl":20,"loop_wait":5,"retry_timeout":5}"#),
        key("failover", "{}"),
        key("failsafe", include_str!("golden/failsafe.json")),
        key("history", include_str!("golden/history.json")),
        key("initialize", "7123456789012345678"),
        key("leader", "n1"),
        key("members/n1", include_str!("golden/member_primary.json")),
        key("members/n2", include_str!("golden/member_standby.json")),
        key("members/n2/deeper", "ignored"),
        key("0/leader", "ignored"),
        key("optime/leader", "1"),
        key("status", include_str!("golden/status_released.json")),
        key("sync", include_str!("golden/sync_quorum.json")),
    ]);
    assert_eq!(view.unreadable, Vec::new());
    assert_eq!(view.revision, Revision(9));
    assert_eq!(view.initialize, Initialize::Done(SystemId(7_123_456_789_012_345_678)));
    let leader = view.leader.as_ref().expect("there is a leader");
    assert_eq!(
        (leader.name.as_str(), leader.create_revision, leader.mod_revision),
        ("n1", Revision(5), Revision(7))
    );
    assert_eq!(leader.lease, Some(LeaseId(42)));
    assert_eq!(view.settings().ttl.as_secs(), 20);
    assert_eq!(view.failover, None);
    assert_eq!(view.failsafe.as_ref().map(|key| key.members.len()), Some(2));
    assert_eq!(view.timeline_by_history(), Some(Timeline(4)));
    assert_eq!(
        view.members.keys().map(MemberName::as_str).collect::<Vec<_>>(),
        ["n1", "n2"]
    );
    let status = view.status.as_ref().expect("there is a status");
    assert_eq!((status.optime, status.released), (Lsn(50_331_648), true));
    assert_eq!(status.writer, Some(name("n1")));
    let sync = view.sync.as_ref().expect("there is a sync key");
    assert_eq!((sync.quorum, sync.standbys.len()), (1, 2));
    let n1 = &view.members[&name("n1")];
    assert_eq!(
        (n1.role, n1.state, n1.timeline),
        (MemberRole::Primary, MemberState::Running, Some(Timeline(3)))
    );
    assert!(n1.checkpoint_outstanding && n1.pause && n1.pending_restart && n1.tags.clonefrom);
    let n2 = &view.members[&name("n2")];
    assert!(!n2.checkpoint_outstanding && !n2.pause && !n2.tags.may_sync());
    assert_eq!(n2.replication_state.as_deref(), Some("streaming"));
}

#[test]
fn old_spellings_of_members_are_understood() {
    let url = "postgres://user:secret@10.0.0.1:5432/postgres?application_name=http%3A%2F%2F10.0.0.1%3A8008%2Fpatroni";
    let view = parse_one("members/a", url);
    let member = &view.members[&name("a")];
    assert_eq!(member.conn_url.as_deref(), Some("postgres://10.0.0.1:5432/postgres"));
    assert_eq!(member.api_url.as_deref(), Some("http://10.0.0.1:8008/patroni"));
    assert!(!format!("{view:?}").contains("secret"), "no password is kept");

    let view = parse_one(
        "members/a",
        r#"{"conn_kwargs":{"host":"::1","port":5433},"role":"master","state":"odd"}"#,
    );
    let member = &view.members[&name("a")];
    assert_eq!(member.conn_url.as_deref(), Some("postgresql://[::1]:5433"));
    assert_eq!((member.role, member.state), (MemberRole::Primary, MemberState::Unknown));
}

#[test]
fn a_broken_part_of_a_member_does_not_hide_the_member() {
    let view = parse_one(
        "members/a",
        r#"{"conn_url":1,"api_url":[],"state":{},"role":null,"tags":"x","timeline":0,"xlog_location":-1,"receive_lsn":"x"}"#,
    );
    let member = &view.members[&name("a")];
    assert_eq!(
        (
            member.conn_url.as_ref(),
            member.timeline,
            member.lsn,
            member.receive_lsn
        ),
        (None, None, None, None)
    );
    assert_eq!(member.tags, Tags::default());
}

#[test]
fn old_spellings_of_failover_and_status_are_understood() {
    let failover = |text: &str| parse_one("failover", text).failover.map(|f| (f.leader, f.candidate));
    assert_eq!(failover("a:b"), Some((Some(name("a")), Some(name("b")))));
    assert_eq!(failover("a"), Some((Some(name("a")), None)));
    assert_eq!(failover(" : b "), Some((None, Some(name("b")))));
    for empty in [
        "",
        "{}",
        r#"{"leader":"","member":null}"#,
        r#"{"scheduled_at":"2026-01-01T13:00:00+00:00"}"#,
        ":",
    ] {
        assert_eq!(failover(empty), None, "{empty}");
    }

    assert_eq!(parse_one("status", "12345").status.map(|s| s.optime), Some(Lsn(12345)));
    assert_eq!(
        parse_one("status", r#"{"optime":"12345"}"#).status.map(|s| s.optime),
        Some(Lsn(12345))
    );
    assert_eq!(
        parse_one("optime/leader", "12345").status.map(|s| s.optime),
        Some(Lsn(12345))
    );
    let both = parse(vec![key("optime/leader", "1"), key("status", r#"{"optime":2}"#)]);
    assert_eq!(both.status.map(|s| s.optime), Some(Lsn(2)));
    let broken = parse(vec![key("optime/leader", "1"), key("status", "x")]);
    assert_eq!(
        (broken.status, broken.unreadable.len()),
        (None, 1),
        "the old key is for when the new one is missing"
    );
}

#[test]
fn a_schedule_that_cannot_be_read_is_told_apart_from_none() {
    for bad in ["\"tomorrow\"", "\"2026-01-01T13:00:00\"", "17", "[1]"] {
        let failover = parse_one("failover", &format!(r#"{{"leader":"a","scheduled_at":{bad}}}"#)).failover;
        let failover = failover.expect("it names a leader");
        assert!(failover.schedule_unreadable && failover.scheduled_at.is_none(), "{bad}");
    }
}

#[test]
fn initialize_is_absent_in_progress_done_or_unreadable() {
    assert_eq!(parse(Vec::new()).initialize, Initialize::Absent);
    assert!(matches!(
        parse_one("initialize", "").initialize,
        Initialize::InProgress { .. }
    ));
    assert_eq!(
        parse_one("initialize", "1234567890").initialize,
        Initialize::Done(SystemId(1_234_567_890))
    );
    for bad in [
        "123456789",
        "99999999999999999999",
        "+123456789012",
        "12345678901x",
        " ",
        "{}",
    ] {
        let view = parse(vec![key("initialize", bad)]);
        assert_eq!(
            (view.initialize, view.unreadable.len()),
            (Initialize::Unreadable, 1),
            "{bad}"
        );
    }
}

/// For each key: values that are none.
const BROKEN: [(&str, &[&str]); 8] = [
    ("leader", &[""]),
    (
        "members/a",
        &[
            "",
            "{",
            "[]",
            "1",
            "null",
            "\"x\"",
            "postgresql",
            "{\"a\":NaN}",
            "\u{0}",
        ],
    ),
    ("config", &["", "{", "[]", "1", "null", "ttl: 30"]),
    (
        "failover",
        &[
            "[]",
            "1",
            "null",
            "true",
            "\"a\"",
            "{",
            "{\"leader\":1}",
            "{\"member\":[]}",
            "a\nb",
        ],
    ),
    (
        "history",
        &[
            "",
            "{}",
            "1",
            "[1]",
            "[[1,2]]",
            "[[0,2,\"r\"]]",
            "[[1,-2,\"r\"]]",
            "[[1,2,3]]",
            "[[1,2,\"r\",4]]",
        ],
    ),
    (
        "status",
        &[
            "",
            "{",
            "[]",
            "null",
            "true",
            "-1",
            "{\"optime\":-1}",
            "{\"optime\":{}}",
            "{\"slots\":1}",
            "{\"retain_slots\":{}}",
            "{\"writer\":1}",
        ],
    ),
    (
        "sync",
        &[
            "",
            "[]",
            "1",
            "null",
            "{\"quorum\":-1}",
            "{\"quorum\":\"x\"}",
            "{\"leader\":1}",
            "{\"sync_standby\":[]}",
        ],
    ),
    ("failsafe", &["", "[]", "1", "null", "{\"a\":1}", "{\"a\":null}"]),
];

#[test]
fn every_broken_value_is_told_and_counts_as_missing() {
    for (relative, values) in BROKEN {
        let not_utf8: &[u8] = &[0xff, 0xfe];
        let too_long = vec![b' '; 2 * 1024 * 1024];
        let values = values.iter().map(|v| v.as_bytes()).chain([not_utf8, &too_long]);
        for value in values {
            let shown = String::from_utf8_lossy(&value[..value.len().min(80)]).into_owned();
            let view = parse(vec![key(relative, value)]);
            let told: Vec<&str> = view.unreadable.iter().map(|(k, _)| k.as_str()).collect();
            assert_eq!(told, [format!("{BASE}/{relative}")], "{relative}: {shown}");
            assert!(
                view.unreadable
                    .iter()
                    .all(|(_, reason)| !reason.is_empty() && reason.len() < 500)
            );
            let empty = ClusterView {
                revision: view.revision,
                unreadable: view.unreadable.clone(),
                ..ClusterView::default()
            };
            assert_eq!(view, empty, "{relative}: {shown}");
        }
    }
    let long_name = "a".repeat(MAX_NAME_BYTES + 1);
    assert_eq!(
        parse(vec![key(&format!("members/{long_name}"), "{}")]).unreadable.len(),
        1
    );
}

#[test]
fn one_broken_key_does_not_touch_the_others() {
    let view = parse(vec![
        key("config", "{"),
        key("leader", "n1"),
        key("members/n1", "{}"),
        key("sync", "[]"),
    ]);
    assert_eq!(view.unreadable.len(), 2);
    assert_eq!(view.leader_name(), Some(&name("n1")));
    assert_eq!(view.members.len(), 1);
}

#[test]
fn deep_nesting_is_refused_and_not_followed() {
    let deep = "[".repeat(100_000);
    for relative in ["members/a", "config", "history", "status"] {
        assert_eq!(parse(vec![key(relative, &deep)]).unreadable.len(), 1, "{relative}");
    }
}

const RELATIVE: [&str; 11] = [
    "leader",
    "members/a",
    "initialize",
    "config",
    "failover",
    "history",
    "status",
    "sync",
    "failsafe",
    "optime/leader",
    "other",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_can_break_the_reader(values in prop::collection::vec((prop::sample::select(RELATIVE.to_vec()), any::<Vec<u8>>()), 0..6)) {
        parse(values.into_iter().map(|(k, v)| key(k, v)).collect());
    }

    #[test]
    fn no_json_can_break_the_reader(relative in prop::sample::select(RELATIVE.to_vec()), value in any_json()) {
        let view = parse(vec![key(relative, value.to_string())]);
        prop_assert!(view.unreadable.len() <= 1);
    }

    #[test]
    fn no_key_can_break_the_reader(full in ".{0,40}", value in any::<Vec<u8>>()) {
        let kv = KeyValue { key: full, value, create_revision: Revision(1), mod_revision: Revision(1), lease: None };
        parse(vec![kv]);
    }
}
