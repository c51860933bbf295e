//! Health checks, route by route, in the situations that load balancers meet.

mod common;

use std::time::Duration;

use common::{NOW, facts, leader, standby, standby_facts, stopped, tags};
use pgha_core::cluster::{MemberRole, MemberState};
use pgha_core::pg::SqlRole;
use pgha_core::units::Lsn;
use pgha_wire::rest::health::{health, liveness, readiness};
use pgha_wire::rest::status::{LeaderUntil, NodeStatus, SyncStanding};
use serde_json::json;

/// Each path with the status it has to have.
fn check(status: &NodeStatus, expected: &[(&str, u16)]) {
    for (path, code) in expected {
        assert_eq!(health(path, status, NOW), *code, "{path} on {}", status.name);
    }
}

const WRITE_PATHS: [&str; 8] = [
    "/",
    "/primary",
    "/master",
    "/read-write",
    "/leader",
    "/foo-leader-x",
    "/primary?lag=1",
    "//primary",
];

fn standby_cluster(status: NodeStatus, role: MemberRole) -> NodeStatus {
    let sql = Some(facts(SqlRole::Standby(standby_facts())));
    NodeStatus {
        standby_cluster: true,
        role,
        sql,
        ..status
    }
}

#[test]
fn the_leader_takes_writes_and_reads() {
    for path in WRITE_PATHS {
        assert_eq!(health(path, &leader(), NOW), 200, "{path}");
    }
    check(
        &leader(),
        &[
            ("/standby-leader", 503),
            ("/standby_leader", 503),
            ("/replica", 503),
            ("/read-only", 200),
            ("/read-only-sync", 200),
            ("/read-only-synchronous", 200),
            ("/read-only-quorum", 200),
            ("/health", 200),
            ("/foo/health", 200),
            ("/sync", 503),
            ("/async", 503),
            ("/quorum", 503),
            ("/liveness", 503),
            ("/patroni", 503),
            ("/something", 503),
        ],
    );
}

#[test]
fn a_standby_takes_reads_only() {
    for path in WRITE_PATHS {
        assert_eq!(health(path, &standby(), NOW), 503, "{path}");
    }
    check(
        &standby(),
        &[
            ("/replica", 200),
            ("/read-only", 200),
            ("/async", 200),
            ("/asynchronous", 200),
            ("/sync", 503),
            ("/quorum", 503),
            ("/read-only-sync", 503),
            ("/read-only-quorum", 503),
            ("/health", 200),
        ],
    );
}

#[test]
fn no_write_goes_to_a_leader_whose_proof_has_run_out() {
    for until in [
        LeaderUntil::Proven(NOW),
        LeaderUntil::Proven(NOW.minus(Duration::from_secs(1))),
        LeaderUntil::Lifted(NOW),
        LeaderUntil::NotLeader,
    ] {
        let expired = NodeStatus {
            leader_until: until,
            ..leader()
        };
        for path in WRITE_PATHS.into_iter().chain(["/read-only", "/read-only-sync"]) {
            assert_eq!(health(path, &expired, NOW), 503, "{path} with {until:?}");
        }
    }
}

#[test]
fn no_write_goes_to_a_leader_that_is_still_in_recovery() {
    let promoting = NodeStatus {
        leader_until: LeaderUntil::Lifted(NOW.plus(Duration::from_secs(1))),
        role: MemberRole::Promoted,
        ..standby()
    };
    for path in WRITE_PATHS {
        assert_eq!(health(path, &promoting, NOW), 503, "{path}");
    }
}

#[test]
fn a_primary_that_does_not_answer_keeps_its_writes_while_it_is_known_to_run() {
    let slow = NodeStatus { sql: None, ..leader() };
    check(
        &slow,
        &[("/primary", 200), ("/leader", 200), ("/health", 503), ("/replica", 503)],
    );
    for state in [
        MemberState::Crashed,
        MemberState::Starting,
        MemberState::Stopping,
        MemberState::Stopped,
    ] {
        let down = NodeStatus { state, ..slow.clone() };
        check(&down, &[("/primary", 503), ("/leader", 503)]);
    }
}

#[test]
fn a_standby_cluster_has_a_standby_leader_and_no_primary() {
    let first = standby_cluster(leader(), MemberRole::StandbyLeader);
    check(
        &first,
        &[
            ("/standby-leader", 200),
            ("/standby_leader", 200),
            ("/leader", 200),
            ("/primary", 503),
            ("/", 503),
            ("/replica", 503),
            ("/read-only", 200),
        ],
    );
    let second = standby_cluster(standby(), MemberRole::Replica);
    check(
        &second,
        &[
            ("/standby-leader", 503),
            ("/leader", 503),
            ("/replica", 200),
            ("/read-only", 200),
        ],
    );
}

#[test]
fn in_pause_without_etcd_a_primary_whose_deadline_is_lifted_serves_on() {
    let paused = NodeStatus {
        pause: true,
        dcs_reachable: false,
        leader_until: LeaderUntil::Lifted(NOW.plus(Duration::from_secs(1))),
        ..leader()
    };
    check(
        &paused,
        &[
            ("/primary", 200),
            ("/leader", 200),
            ("/standby-leader", 503),
            ("/read-only-sync", 503),
        ],
    );
    let without = NodeStatus {
        leader_until: LeaderUntil::NotLeader,
        ..paused
    };
    check(&without, &[("/primary", 503), ("/leader", 503)]);
}

#[test]
fn synchronous_standbys_are_found_by_their_standing() {
    let sync = NodeStatus {
        sync_standing: SyncStanding::Sync,
        ..standby()
    };
    check(
        &sync,
        &[
            ("/sync", 200),
            ("/synchronous", 200),
            ("/quorum", 503),
            ("/async", 503),
            ("/read-only-sync", 200),
        ],
    );
    let quorum = NodeStatus {
        sync_standing: SyncStanding::Quorum,
        ..standby()
    };
    check(
        &quorum,
        &[
            ("/sync", 503),
            ("/quorum", 200),
            ("/async", 503),
            ("/read-only-quorum", 200),
        ],
    );
    let lost = NodeStatus {
        dcs_reachable: false,
        ..sync
    };
    check(&lost, &[("/sync", 503), ("/read-only-sync", 503), ("/replica", 200)]);
    check(&sync_prefix(), &[("/sync/x", 503), ("/synch", 503)]);
}

fn sync_prefix() -> NodeStatus {
    NodeStatus {
        sync_standing: SyncStanding::Sync,
        ..standby()
    }
}

#[test]
fn lag_counts_from_the_newest_known_position_of_the_leader() {
    // 148 bytes behind both /status and what the wal receiver was told.
    check(
        &standby(),
        &[
            ("/replica?lag=148", 200),
            ("/replica?lag=147", 503),
            ("/replica?lag=0x94", 200),
            ("/replica?lag=1kB", 200),
            ("/replica?lag=1kb", 200),
            ("/replica?lag=nonsense", 200),
            ("/replica?lag=", 200),
            ("/replica?lag=-1", 503),
            ("/async?lag=147", 503),
            ("/read-only?lag=147", 503),
        ],
    );
    let ahead = NodeStatus {
        optime: Some(Lsn(50_331_500 + 1_000_000)),
        ..standby()
    };
    check(&ahead, &[("/replica?lag=999999", 503), ("/replica?lag=1000000", 200)]);
    let mut unknown = NodeStatus {
        optime: None,
        ..standby()
    };
    let no_receiver = pgha_core::pg::StandbyFacts {
        wal_receiver: None,
        ..standby_facts()
    };
    unknown.sql = Some(facts(SqlRole::Standby(no_receiver)));
    check(&unknown, &[("/replica?lag=0", 200)]);
}

#[test]
fn replication_state_can_be_asked_for() {
    check(
        &standby(),
        &[
            ("/replica?replication_state=streaming", 200),
            ("/replica?replication_state=in%20archive+recovery", 503),
            ("/read-only?replication_state=x", 503),
        ],
    );
    let archive = pgha_core::pg::StandbyFacts {
        wal_receiver: None,
        has_restore_command: true,
        ..standby_facts()
    };
    let archive = NodeStatus {
        sql: Some(facts(SqlRole::Standby(archive))),
        ..standby()
    };
    check(
        &archive,
        &[
            ("/replica?replication_state=in%20archive+recovery", 200),
            ("/replica", 200),
        ],
    );
}

#[test]
fn tags_filter_reads_and_not_writes() {
    let configured = tags(&json!({"dc": "east", "rack": 7, "ssd": true, "nothing": null}));
    let standby = NodeStatus {
        tags: configured.clone(),
        ..standby()
    };
    check(
        &standby,
        &[
            ("/replica?tag_dc=east", 200),
            ("/replica?tag_dc=west", 503),
            ("/replica?tag_dc=EAST", 503),
            ("/replica?tag_rack=7&tag_ssd=true", 200),
            ("/replica?tag_ssd=True", 503),
            ("/replica?tag_other=x", 503),
            ("/replica?tag_nothing=none", 503),
            ("/health?tag_dc=west", 503),
            ("/async?tag_dc=east", 200),
        ],
    );
    let leader = NodeStatus {
        tags: configured,
        ..leader()
    };
    check(
        &leader,
        &[
            ("/primary?tag_dc=west", 200),
            ("/leader?tag_dc=west", 200),
            ("/read-only?tag_dc=west", 503),
        ],
    );
}

#[test]
fn a_standby_outside_of_load_balancing_takes_no_reads() {
    let aside = NodeStatus {
        tags: tags(&json!({"noloadbalance": true})),
        ..standby()
    };
    check(
        &aside,
        &[
            ("/replica", 503),
            ("/read-only", 503),
            ("/async", 503),
            ("/health", 200),
        ],
    );
}

#[test]
fn a_stopped_node_takes_nothing() {
    for path in ["/", "/leader", "/replica", "/read-only", "/health", "/sync", "/async"] {
        assert_eq!(health(path, &stopped(), NOW), 503, "{path}");
    }
}

#[test]
fn liveness_gives_a_standby_twice_the_time() {
    let late = |status: NodeStatus, seconds| NodeStatus {
        next_run: NOW.minus(Duration::from_secs(seconds)),
        ..status
    };
    for (status, code) in [
        (late(leader(), 29), 200),
        (late(leader(), 30), 503),
        (late(standby(), 59), 200),
        (late(standby(), 60), 503),
        (
            late(
                NodeStatus {
                    postmaster_running: false,
                    ..leader()
                },
                59,
            ),
            200,
        ),
        (
            late(
                NodeStatus {
                    pause: true,
                    ..leader()
                },
                600,
            ),
            200,
        ),
    ] {
        assert_eq!(
            liveness(&status, NOW),
            code,
            "{} late by {:?}",
            status.name,
            NOW.since(status.next_run)
        );
    }
}

#[test]
fn readiness_is_leading_or_streaming_close_behind() {
    assert_eq!(readiness("/readiness", &leader(), NOW), 200);
    let expired = NodeStatus {
        leader_until: LeaderUntil::Proven(NOW),
        ..leader()
    };
    assert_eq!(readiness("/readiness", &expired, NOW), 503);
    for (query, code) in [
        ("/readiness", 200),
        ("/readiness?lag=147", 503),
        ("/readiness?lag=147&mode=apply", 503),
        ("/readiness?lag=48&mode=write", 200),
        ("/readiness?lag=47&mode=write", 503),
        ("/readiness?lag=x", 200),
    ] {
        assert_eq!(readiness(query, &standby(), NOW), code, "{query}");
    }
    let strict = NodeStatus {
        maximum_lag_on_failover: 147,
        ..standby()
    };
    assert_eq!(readiness("/readiness", &strict, NOW), 503);
    assert_eq!(
        readiness("/readiness", &NodeStatus { sql: None, ..standby() }, NOW),
        503
    );
    assert_eq!(
        readiness(
            "/readiness",
            &NodeStatus {
                state: MemberState::Starting,
                ..standby()
            },
            NOW
        ),
        503
    );
    assert_eq!(readiness("/readiness", &stopped(), NOW), 503);
}

#[test]
fn readiness_without_etcd_goes_by_the_wal_receiver_or_by_failsafe() {
    let lost = NodeStatus {
        dcs_reachable: false,
        ..standby()
    };
    assert_eq!(
        readiness("/readiness", &lost, NOW),
        200,
        "the wal receiver knows the leader's position"
    );
    let mut receiver = standby_facts();
    receiver.wal_receiver.as_mut().expect("it streams").latest_end = None;
    let blind = NodeStatus {
        sql: Some(facts(SqlRole::Standby(receiver))),
        ..lost
    };
    assert_eq!(readiness("/readiness", &blind, NOW), 503);
    assert_eq!(
        readiness(
            "/readiness",
            &NodeStatus {
                failsafe_active: true,
                ..blind
            },
            NOW
        ),
        200
    );
}
