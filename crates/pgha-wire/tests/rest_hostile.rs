//! What strangers may send: answers of peers, and bytes, bodies and targets that nobody meant. An error each, never a
//! panic.

mod common;

use common::{BASE, any_json, key, leader, name, snapshot, standby, stopped};
use pgha_core::cluster::MemberRole;
use pgha_core::units::{Lsn, Wall};
use pgha_wire::cluster::parse_cluster;
use pgha_wire::error::WireError;
use pgha_wire::rest::actions::{Body, parse_body, parse_reinitialize, parse_restart};
use pgha_wire::rest::failsafe::parse_question;
use pgha_wire::rest::status::{NodeStatus, parse_peer, render_patroni};
use pgha_wire::rest::switchover::{Change, parse_change};
use pgha_wire::rest::{health, patch, routes};
use proptest::prelude::*;
use serde_json::{Map, Value};

const NOW: Wall = Wall(1_767_272_400_000_000);

#[test]
fn our_own_status_is_read_by_peers() {
    let peer = parse_peer(render_patroni(&leader()).as_bytes()).expect("it is a status");
    assert_eq!(
        (peer.name, peer.scope.as_deref(), peer.role),
        (Some(name("n1")), Some("batman"), MemberRole::Primary)
    );
    assert_eq!((peer.in_recovery, peer.lsn), (Some(false), Some(Lsn(50_331_648))));
    assert_eq!(peer.system_id.map(|i| i.0), Some(7_123_456_789_012_345_678));
    let peer = parse_peer(render_patroni(&standby()).as_bytes()).expect("it is a status");
    assert_eq!((peer.in_recovery, peer.lsn), (Some(true), Some(Lsn(50_331_600))));
    assert_eq!(peer.timeline.map(|t| t.0), Some(3));
    match parse_peer(render_patroni(&stopped()).as_bytes()) {
        Err(WireError::PeerPostgresSilent { status }) => {
            assert_eq!(
                (status.role, status.in_recovery, status.lsn),
                (MemberRole::Demoted, None, None)
            );
        }
        other => panic!("a silent PostgreSQL is expected, found {other:?}"),
    }
}

#[test]
fn a_peer_that_may_still_be_promoted_says_so() {
    let told = |status: NodeStatus| parse_peer(render_patroni(&status).as_bytes()).map(|peer| peer.may_write);
    assert_eq!(told(standby()).ok(), Some(false));
    let promoting = NodeStatus {
        may_write: true,
        ..standby()
    };
    assert_eq!(told(promoting).ok(), Some(true));
    let stopped = NodeStatus {
        may_write: true,
        ..stopped()
    };
    match parse_peer(render_patroni(&stopped).as_bytes()) {
        Err(WireError::PeerPostgresSilent { status }) => assert!(status.may_write),
        other => panic!("a silent PostgreSQL is expected, found {other:?}"),
    }
}

#[test]
fn a_peer_tells_to_whom_it_gave_its_word() {
    let told = |status: NodeStatus| parse_peer(render_patroni(&status).as_bytes()).map(|peer| peer.failsafe_leader);
    assert_eq!(told(standby()).ok(), Some(None));
    let bound = NodeStatus {
        failsafe_leader: Some("n1".into()),
        ..standby()
    };
    assert_eq!(told(bound).ok(), Some(Some("n1".into())));
}

#[test]
fn the_answers_of_other_versions_are_read_too() {
    for (text, in_recovery, lsn) in [
        (r#"{"role":"master","wal":{"location":5}}"#, false, Some(5)),
        (
            r#"{"role":"replica","wal":{"received_location":5,"replayed_location":7}}"#,
            true,
            Some(7),
        ),
        (r#"{"role":"replica","xlog":{"replayed_location":7}}"#, true, Some(7)),
        (r#"{"role":"replica","wal":{},"xlog":{"location":7}}"#, false, Some(7)),
        (r#"{"role":"primary","xlog":{"location":0}}"#, false, None),
        (r#"{"xlog":{"location":"7"}}"#, true, None),
    ] {
        let peer = parse_peer(text.as_bytes()).expect("it is a status");
        assert_eq!(
            (peer.in_recovery, peer.lsn.map(|l| l.0)),
            (Some(in_recovery), lsn),
            "{text}"
        );
    }
    for bad in ["", "[]", "null", "x", "{", "\"{}\"", "1"] {
        assert!(
            matches!(parse_peer(bad.as_bytes()), Err(WireError::Peer { .. })),
            "{bad}"
        );
    }
    for silent in [
        "{}",
        r#"{"xlog":null}"#,
        r#"{"xlog":[1]}"#,
        r#"{"wal":7,"xlog":{"location":7}}"#,
    ] {
        assert!(
            matches!(parse_peer(silent.as_bytes()), Err(WireError::PeerPostgresSilent { .. })),
            "{silent}"
        );
    }
    assert!(parse_peer(&vec![b' '; 2 * 1024 * 1024]).is_err());
}

fn any_body() -> impl Strategy<Value = Map<String, Value>> {
    let names = [
        "leader",
        "candidate",
        "member",
        "scheduled_at",
        "schedule",
        "role",
        "postgres_version",
        "timeout",
        "restart_pending",
        "force",
        "from_leader",
        "name",
        "slots",
        "ttl",
        "postgresql",
        "pause",
        "wal",
        "xlog",
        "timeline",
        "tags",
        "patroni",
    ];
    let name = prop_oneof![9 => prop::sample::select(names.to_vec()).prop_map(str::to_owned), 1 => ".{0,6}"];
    prop::collection::vec((name, any_json()), 0..6).prop_map(Map::from_iter)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_can_break_a_body_or_a_peer(bytes: Vec<u8>) {
        parse_body(Some(&bytes), Body::Optional).ok();
        parse_body(Some(&bytes), Body::Mandatory).ok();
        parse_peer(&bytes).ok();
    }

    #[test]
    fn no_body_can_break_a_request(request in any_body(), other in any_body(), paused: bool) {
        if let Err(reply) = parse_restart(&request, paused, NOW, None) {
            prop_assert!((400..=500).contains(&reply.status) && reply.body.len() < 500);
        }
        let view = parse_cluster(BASE, &snapshot(vec![key("leader", "n1"), key("members/n2", r#"{"api_url":"u"}"#)]));
        parse_reinitialize(&request);
        if let Err(reply) = parse_question(&request) {
            prop_assert_eq!(reply.status, 400);
        }
        for change in [Change::Switchover, Change::Failover] {
            if let Err(reply) = parse_change(change, &request, &view, NOW) {
                prop_assert!([400, 412, 422].contains(&reply.status), "{reply:?}");
            }
        }
        let changed = patch::patch_config(&other, &request).expect("small");
        prop_assert!(serde_json::from_str::<Map<String, Value>>(&changed.text).is_ok());
        parse_peer(Value::Object(request).to_string().as_bytes()).ok();
    }

    #[test]
    fn a_replacement_becomes_what_was_asked_for(request in any_body(), other in any_body()) {
        let replaced = patch::replace_config(Some(&other), &request).expect("small");
        prop_assert_eq!(serde_json::from_str::<Map<String, Value>>(&replaced.text).ok(), Some(request.clone()));
        prop_assert!(!patch::replace_config(Some(&request), &request).expect("small").changed);
    }

    #[test]
    fn no_target_can_break_a_health_check(target in ".{0,40}", words in "(/|\\?|&|=|%|leader|replica|lag|tag_|sync|-|1kB){0,12}") {
        for target in [&target, &words] {
            for status in [leader(), standby(), stopped()] {
                let codes = [
                    health::health(target, &status, common::NOW),
                    health::readiness(target, &status, common::NOW),
                ];
                prop_assert!(codes.iter().all(|c| [200, 503].contains(c)));
            }
            for method in ["GET", "POST", target] {
                routes::route(method, target);
            }
        }
    }
}
