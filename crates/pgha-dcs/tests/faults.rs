//! What breaks around etcd, and that the backend lives with it.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::time::Duration;

use common::proxy::Proxy;
use common::{BUDGET, Etcd, about, absent, put, read, txn, wait_hint, write};
use pgha_core::commit::CommitOutcome;
use pgha_core::units::Revision;
use pgha_dcs::etcd::{EtcdConfig, EtcdDcs};
use pgha_dcs::{Dcs, DcsError, KeepAlive};
use pgha_wire::kv::Op;

const TTL: Duration = Duration::from_secs(60);

#[tokio::test]
async fn f05_the_loss_of_the_connected_member_of_three_costs_no_cycle() {
    let mut etcd = Etcd::three();
    let dcs = etcd.dcs();
    let lease = dcs.grant_lease(TTL, BUDGET).await.unwrap();
    write(&*dcs, "/t/a", "1").await;
    let lost = dcs.status().current.unwrap();
    etcd.member(&lost).freeze();
    // One cycle: read, keepalive, guarded write. Only the first call meets the frozen member. Its answer may need an
    // election, if the frozen one led.
    assert_eq!(read(&*dcs).await.keys.len(), 1);
    assert_eq!(
        dcs.keep_lease(lease, BUDGET).await.unwrap(),
        KeepAlive::Alive { ttl: TTL }
    );
    write(&*dcs, "/t/a", "2").await;
    assert_ne!(dcs.status().current.unwrap(), lost);
    etcd.member(&lost).thaw();
}

#[tokio::test]
async fn f05_a_keepalive_and_a_grant_alone_also_find_another_member() {
    let mut etcd = Etcd::three();
    let dcs = etcd.dcs();
    let lease = dcs.grant_lease(TTL, BUDGET).await.unwrap();
    let lost = dcs.status().current.unwrap();
    etcd.member(&lost).freeze();
    assert_eq!(
        dcs.keep_lease(lease, BUDGET).await.unwrap(),
        KeepAlive::Alive { ttl: TTL }
    );
    assert!(dcs.grant_lease(TTL, BUDGET).await.is_ok());
    etcd.member(&lost).thaw();
}

#[tokio::test]
async fn f06_the_death_of_the_etcd_leader_is_bridged_by_the_next_read() {
    let mut etcd = Etcd::three();
    let dcs = etcd.dcs();
    let lease = dcs.grant_lease(TTL, BUDGET).await.unwrap();
    write(&*dcs, "/t/a", "1").await;
    let leader = etcd.members.iter().position(|member| {
        let line = member.ctl(&["endpoint", "status"]);
        line.split(',').nth(4).is_some_and(|field| field.trim() == "true")
    });
    etcd.members[leader.expect("one member leads")].kill();
    assert_eq!(read(&*dcs).await.keys.len(), 1);
    assert_eq!(
        dcs.keep_lease(lease, BUDGET).await.unwrap(),
        KeepAlive::Alive { ttl: TTL }
    );
}

#[tokio::test]
async fn f05_a_frozen_member_is_not_handed_a_write_on_a_new_connection() {
    let mut etcd = Etcd::three();
    let probe = etcd.dcs();
    read(&*probe).await;
    let frozen = etcd.members[0].url.clone();
    etcd.member(&frozen).freeze();
    // If it led, the others have to elect a leader: a write forwarded to the frozen one is unknown, and rightly so.
    let others = EtcdDcs::new(EtcdConfig {
        discover_members: false,
        ..EtcdConfig::new(etcd.urls().split_off(1))
    });
    read(&others.unwrap()).await;
    // The kernel still accepts connections for it. The write must go to somebody who has shown a sign of life.
    let mut tries = 0;
    loop {
        let dcs = etcd.dcs();
        let starts_with_frozen = dcs.status().current.as_deref() == Some(frozen.as_str());
        let outcome = dcs.commit(&txn(vec![], vec![put("/t/a", "1", None)]), BUDGET).await;
        assert!(matches!(outcome, CommitOutcome::Applied { .. }), "{outcome:?}");
        tries += 1;
        if starts_with_frozen {
            break;
        }
        assert!(tries < 100, "the first endpoint is chosen at random");
    }
    etcd.member(&frozen).thaw();
}

#[tokio::test]
async fn f16_a_full_database_refuses_writes_serves_reads_and_recovers() {
    let etcd = Etcd::single_with(&["--quota-backend-bytes", "1000000"]);
    let dcs = etcd.dcs();
    write(&*dcs, "/t/leader", "me").await;
    let big = txn(
        vec![],
        vec![Op::Put {
            key: "/t/big".into(),
            value: vec![b'x'; 200_000],
            lease: None,
        }],
    );
    let mut outcome = CommitOutcome::Conflict;
    for _ in 0..20 {
        outcome = dcs.commit(&big, BUDGET).await;
        if !matches!(outcome, CommitOutcome::Applied { .. }) {
            break;
        }
        // etcd counts what it has flushed, which it does ten times a second.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(outcome, CommitOutcome::Refused);
    let small = txn(vec![], vec![put("/t/status", "1", None)]);
    assert_eq!(dcs.commit(&small, BUDGET).await, CommitOutcome::Refused);
    assert!(dcs.status().last_error.unwrap().contains("no space"));
    assert!(read(&*dcs).await.keys.iter().any(|kv| kv.key == "/t/leader"));

    let member = &etcd.members[0];
    let drop_big = txn(vec![], vec![Op::Delete("/t/big".into())]);
    let CommitOutcome::Applied { revision } = dcs.commit(&drop_big, BUDGET).await else {
        panic!("deletes work")
    };
    member.ctl(&["compaction", &revision.0.to_string(), "--physical"]);
    member.ctl(&["defrag"]);
    member.ctl(&["alarm", "disarm"]);
    assert!(matches!(
        dcs.commit(&small, BUDGET).await,
        CommitOutcome::Applied { .. }
    ));
    assert_eq!(dcs.status().last_error, None);
}

#[tokio::test]
async fn members_are_discovered_and_take_over_when_the_configured_one_dies() {
    let mut etcd = Etcd::three();
    let dcs = EtcdDcs::new(EtcdConfig::new([etcd.members[0].url.as_str()])).unwrap();
    dcs.survey(BUDGET).await.unwrap();
    let status = dcs.status();
    assert_eq!(status.endpoints.len(), 3, "{status:?}");
    assert_eq!(
        status.endpoints.iter().filter(|endpoint| endpoint.configured).count(),
        1
    );
    etcd.members[0].kill();
    read(&dcs).await;
    write(&dcs, "/t/a", "1").await;
}

#[tokio::test]
async fn without_discovery_only_the_configured_endpoints_are_used() {
    let etcd = Etcd::three();
    let mut config = EtcdConfig::new([etcd.members[0].url.as_str()]);
    config.discover_members = false;
    let dcs = EtcdDcs::new(config).unwrap();
    dcs.survey(BUDGET).await.unwrap();
    assert_eq!(dcs.status().endpoints.len(), 1);
}

#[tokio::test]
async fn everything_goes_over_one_connection() {
    let etcd = Etcd::single();
    let proxy = Proxy::before(&etcd.members[0].url).await;
    let mut config = EtcdConfig::new([proxy.url.as_str()]);
    config.discover_members = false;
    let dcs = EtcdDcs::new(config).unwrap();
    assert_eq!(proxy.accepted(), 0, "nothing is connected before the first call");
    let mut hints = dcs.watch("/t/", Revision(0));
    let (first, second, third) = tokio::join!(
        dcs.read("/t/", BUDGET),
        dcs.grant_lease(TTL, BUDGET),
        dcs.read("/t/", BUDGET)
    );
    assert!(first.is_ok() && third.is_ok());
    for _ in 0..3 {
        dcs.keep_lease(*second.as_ref().unwrap(), BUDGET).await.unwrap();
        write(&dcs, "/t/a", "1").await;
    }
    assert!(wait_hint(&mut hints, BUDGET, |_| true).await.is_some());
    assert_eq!((proxy.accepted(), proxy.open()), (1, 1));
    drop((hints, dcs));
    for _ in 0..100 {
        if proxy.open() == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the connection outlived its users");
}

#[tokio::test]
async fn a_watch_notices_by_itself_that_its_connection_is_dead() {
    let etcd = Etcd::single();
    let proxy = Proxy::before(&etcd.members[0].url).await;
    let dcs = EtcdDcs::new(EtcdConfig::new([proxy.url.as_str()])).unwrap();
    dcs.survey(BUDGET).await.unwrap();
    let start = read(&dcs).await.revision;
    assert_eq!(dcs.status().current.as_deref(), Some(proxy.url.as_str()));
    let mut hints = dcs.watch("/t/", start);
    etcd.members[0].ctl(&["put", "/t/a", "1"]);
    assert!(wait_hint(&mut hints, BUDGET, about("/t/a")).await.is_some());
    proxy.swallow_all();
    etcd.members[0].ctl(&["put", "/t/b", "1"]);
    // Nobody reads meanwhile. The pings find out, and the member's own address is the way round the proxy.
    assert!(
        wait_hint(&mut hints, Duration::from_secs(15), about("/t/b"))
            .await
            .is_some()
    );
}

fn seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(time.tv_sec.try_into().unwrap(), time.tv_nsec.try_into().unwrap()).as_secs_f64()
}

#[tokio::test]
async fn every_call_ends_within_its_budget_when_etcd_is_silent() {
    let etcd = Etcd::single();
    let dcs = etcd.dcs();
    let lease = dcs.grant_lease(TTL, BUDGET).await.unwrap();
    etcd.members[0].freeze();
    let budget = Duration::from_millis(700);
    let change = txn(vec![absent("/t/a")], vec![put("/t/a", "1", None)]);
    let started = seconds();
    assert!(dcs.read("/t/", budget).await.is_err());
    assert!(dcs.keep_lease(lease, budget).await.is_err());
    assert!(dcs.grant_lease(TTL, budget).await.is_err());
    assert!(dcs.revoke_lease(lease, budget).await.is_err());
    let outcome = dcs.commit(&change, budget).await;
    assert!(
        matches!(outcome, CommitOutcome::Unknown | CommitOutcome::Refused),
        "{outcome:?}"
    );
    let took = seconds() - started;
    assert!(
        took < (budget * 5 + Duration::from_millis(500)).as_secs_f64(),
        "{took} s"
    );
    etcd.members[0].thaw();
    let snapshot = read(&*dcs).await;
    assert!(snapshot.keys.is_empty() || outcome == CommitOutcome::Unknown);
}

#[tokio::test]
async fn a_transaction_that_etcd_calls_malformed_is_refused_for_certain() {
    let etcd = Etcd::single();
    let dcs = etcd.dcs();
    let twice = txn(vec![], vec![put("/t/a", "1", None), put("/t/a", "2", None)]);
    assert_eq!(dcs.commit(&twice, BUDGET).await, CommitOutcome::Refused);
    let huge = txn(
        vec![],
        vec![Op::Put {
            key: "/t/a".into(),
            value: vec![0; 3_000_000],
            lease: None,
        }],
    );
    assert_eq!(dcs.commit(&huge, BUDGET).await, CommitOutcome::Refused);
    let everything = txn(vec![], vec![Op::DeletePrefix(String::new())]);
    assert_eq!(dcs.commit(&everything, BUDGET).await, CommitOutcome::Refused);
    assert!(matches!(dcs.read("", BUDGET).await, Err(DcsError::Config { .. })));
    assert!(read(&*dcs).await.keys.is_empty());
}
