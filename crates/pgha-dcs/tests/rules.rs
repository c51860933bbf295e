//! The rules about etcd (R1 to R10), as far as they are kept by this crate, each against a real etcd.
//!
//! R2's deadline, R6's guards and R10's wait are kept by core; what they rest on is tested here and in the conformance
//! suite. R7's table is tested beside it.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::time::Duration;

use common::proxy::Proxy;
use common::{BUDGET, Etcd, about, absent, put, read, txn, wait_hint, write};
use pgha_core::commit::CommitOutcome;
use pgha_core::units::{LeaseId, Revision};
use pgha_dcs::etcd::{EtcdConfig, EtcdDcs};
use pgha_dcs::{Dcs, DcsError, Hint, KeepAlive};
use pgha_wire::kv::Compare;

const SHORT: Duration = Duration::from_millis(800);
const TTL: Duration = Duration::from_secs(60);

/// A backend that talks to one endpoint only.
fn dcs_at(url: &str) -> EtcdDcs {
    let mut config = EtcdConfig::new([url]);
    config.discover_members = false;
    config.regression_grace = Duration::from_secs(1);
    EtcdDcs::new(config).unwrap()
}

fn lease_in_etcdctl(lease: LeaseId) -> String {
    format!("{:x}", lease.0)
}

#[tokio::test]
async fn r1_the_proof_fails_when_the_lease_was_revoked_and_the_key_taken_again() {
    let etcd = Etcd::single();
    let dcs = etcd.dcs();
    let mine = dcs.grant_lease(TTL, BUDGET).await.unwrap();
    let acquire = txn(vec![absent("/t/leader")], vec![put("/t/leader", "me", Some(mine))]);
    let CommitOutcome::Applied { revision: created } = dcs.commit(&acquire, BUDGET).await else {
        panic!()
    };
    let guards = vec![
        Compare::CreateRevision("/t/leader".into(), created),
        Compare::Lease("/t/leader".into(), mine),
    ];
    let proof = txn(guards, vec![put("/t/status", "1", None)]);
    assert!(matches!(
        dcs.commit(&proof, BUDGET).await,
        CommitOutcome::Applied { .. }
    ));

    etcd.members[0].ctl(&["lease", "revoke", &lease_in_etcdctl(mine)]);
    assert_eq!(dcs.commit(&proof, BUDGET).await, CommitOutcome::Conflict);
    // Also when the same name holds the key again.
    write(&*dcs, "/t/leader", "me").await;
    assert_eq!(dcs.commit(&proof, BUDGET).await, CommitOutcome::Conflict);
}

#[tokio::test]
async fn r2_a_keepalive_whose_reply_is_lost_is_no_keepalive() {
    let etcd = Etcd::single();
    let proxy = Proxy::before(&etcd.members[0].url).await;
    let dcs = dcs_at(&proxy.url);
    let lease = dcs.grant_lease(TTL, BUDGET).await.unwrap();
    assert_eq!(
        dcs.keep_lease(lease, BUDGET).await.unwrap(),
        KeepAlive::Alive { ttl: TTL }
    );
    proxy.swallow_replies();
    let error = dcs.keep_lease(lease, SHORT).await.unwrap_err();
    assert!(matches!(error, DcsError::TimedOut { .. }), "{error:?}");
    proxy.pass();
    assert_eq!(
        dcs.keep_lease(lease, BUDGET).await.unwrap(),
        KeepAlive::Alive { ttl: TTL }
    );
}

#[tokio::test]
async fn r2_a_lease_revoked_by_hand_is_gone() {
    let etcd = Etcd::single();
    let dcs = etcd.dcs();
    let lease = dcs.grant_lease(TTL, BUDGET).await.unwrap();
    etcd.members[0].ctl(&["lease", "revoke", &lease_in_etcdctl(lease)]);
    assert_eq!(dcs.keep_lease(lease, BUDGET).await.unwrap(), KeepAlive::Gone);
}

#[tokio::test]
async fn r3_a_member_that_lost_the_others_serves_no_old_data() {
    let mut etcd = Etcd::three();
    let all = etcd.dcs();
    write(&*all, "/t/a", "old").await;
    let isolated = etcd.members.remove(0);
    let alone = dcs_at(&isolated.url);
    read(&alone).await;
    etcd.members.iter().for_each(common::Member::freeze);
    // What it has is old, or will be: an error is the only right answer.
    let error = alone.read("/t/", Duration::from_secs(3)).await.unwrap_err();
    assert!(
        matches!(error, DcsError::TimedOut { .. } | DcsError::Unreachable { .. }),
        "{error:?}"
    );
    let outcome = alone.commit(&txn(vec![], vec![put("/t/a", "new", None)]), SHORT).await;
    assert!(
        matches!(outcome, CommitOutcome::Unknown | CommitOutcome::Refused),
        "{outcome:?}"
    );
    etcd.members.iter().for_each(common::Member::thaw);
}

#[tokio::test]
async fn r4_a_write_whose_reply_is_lost_is_unknown_and_is_found_by_reading() {
    let etcd = Etcd::single();
    let proxy = Proxy::before(&etcd.members[0].url).await;
    let dcs = dcs_at(&proxy.url);
    let lease = dcs.grant_lease(TTL, BUDGET).await.unwrap();
    let acquire = txn(vec![absent("/t/leader")], vec![put("/t/leader", "me", Some(lease))]);
    proxy.swallow_replies();
    assert_eq!(dcs.commit(&acquire, SHORT).await, CommitOutcome::Unknown);
    proxy.pass();
    let found = read(&dcs).await.keys;
    assert_eq!(found.len(), 1, "the request reached etcd");
    assert_eq!(
        found[0].lease,
        Some(lease),
        "so the node can tell that the key is its own"
    );
    // The transaction was sent once: the key has had one write.
    assert_eq!(found[0].create_revision, found[0].mod_revision);
}

#[tokio::test]
async fn r4_a_write_that_never_left_is_refused_for_certain() {
    let mut etcd = Etcd::single();
    let dcs = etcd.dcs();
    write(&*dcs, "/t/a", "1").await;
    etcd.members[0].kill();
    // The connection is known to be gone a moment later; until then the outcome may be unknown, never applied.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let change = txn(vec![], vec![put("/t/a", "2", None)]);
    assert_eq!(dcs.commit(&change, SHORT).await, CommitOutcome::Refused);
    etcd.members[0].restart();
    assert_eq!(read(&*dcs).await.keys[0].value, b"1");
}

#[tokio::test]
async fn r4_a_write_that_etcd_only_swallows_is_unknown_and_may_not_be_there() {
    let etcd = Etcd::single();
    let proxy = Proxy::before(&etcd.members[0].url).await;
    let dcs = dcs_at(&proxy.url);
    read(&dcs).await;
    proxy.swallow_all();
    let change = txn(vec![], vec![put("/t/a", "1", None)]);
    assert_eq!(dcs.commit(&change, SHORT).await, CommitOutcome::Unknown);
    proxy.pass();
    assert!(read(&dcs).await.keys.is_empty());
}

#[tokio::test]
async fn r5_an_etcd_restored_from_an_older_copy_is_refused_first_and_accepted_in_the_end() {
    let mut etcd = Etcd::single();
    let dcs = dcs_at(&etcd.members[0].url);
    let mut hints = dcs.watch("/t/", Revision(0));
    write(&dcs, "/t/a", "old").await;
    let copy = etcd.path("copy");
    etcd.members[0].kill();
    assert!(cp(etcd.members[0].data_dir(), &copy));
    etcd.members[0].restart();
    // A read first, as in every cycle: a write on the dead connection would be unknown.
    read(&dcs).await;
    for _ in 0..5 {
        write(&dcs, "/t/a", "new").await;
    }
    let newest = read(&dcs).await.revision;

    etcd.members[0].kill();
    std::fs::remove_dir_all(etcd.members[0].data_dir()).unwrap();
    assert!(cp(&copy, etcd.members[0].data_dir()));
    etcd.members[0].restart();
    while wait_hint(&mut hints, SHORT, |_| true).await.is_some() {}

    let error = dcs.read("/t/", BUDGET).await.unwrap_err();
    assert!(matches!(error, DcsError::Stale { .. }), "{error:?}");
    let write_back = txn(vec![], vec![put("/t/b", "1", None)]);
    assert_eq!(
        dcs.commit(&write_back, BUDGET).await,
        CommitOutcome::Unknown,
        "nothing about the past is certain"
    );
    let mut refusals = 1;
    let accepted = loop {
        match dcs.read("/t/", BUDGET).await {
            Ok(snapshot) => break snapshot,
            Err(DcsError::Stale { .. }) => refusals += 1,
            Err(other) => panic!("{other:?}"),
        }
        assert!(refusals < 60, "stuck for ever");
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    assert!(refusals >= 5, "accepted after {refusals} refusals");
    assert!(accepted.revision < newest);
    assert_eq!(dcs.status().resets, 1);
    assert!(
        dcs.warnings().iter().any(|text| text.contains("restored")),
        "{:?}",
        dcs.warnings()
    );
    assert!(
        wait_hint(&mut hints, BUDGET, |hint| *hint == Hint::Resync)
            .await
            .is_some()
    );
    write(&dcs, "/t/a", "after").await;
    assert!(
        wait_hint(&mut hints, BUDGET, about("/t/a")).await.is_some(),
        "the watch follows the restored etcd"
    );
}

fn cp(from: &std::path::Path, to: &std::path::Path) -> bool {
    std::process::Command::new("cp")
        .arg("-a")
        .arg(from)
        .arg(to)
        .status()
        .unwrap()
        .success()
}

#[tokio::test]
async fn r5_a_member_of_another_cluster_among_the_endpoints_is_not_believed() {
    let (mut home, stranger) = (Etcd::single(), Etcd::single());
    write(&*stranger.dcs(), "/t/leader", "stranger").await;
    let mut config = EtcdConfig::new([home.members[0].url.as_str(), &stranger.members[0].url]);
    config.discover_members = false;
    config.regression_grace = Duration::ZERO;
    let dcs = EtcdDcs::new(config).unwrap();
    // Home answers first, because the stranger stands still until then.
    stranger.members[0].freeze();
    read(&dcs).await;
    write(&dcs, "/t/leader", "home").await;
    stranger.members[0].thaw();
    home.members[0].kill();
    for _ in 0..10 {
        let error = dcs.read("/t/", SHORT).await.unwrap_err();
        assert!(!matches!(error, DcsError::Denied { .. }), "{error:?}");
    }
    let outcome = dcs.commit(&txn(vec![], vec![put("/t/status", "1", None)]), SHORT).await;
    assert!(
        matches!(outcome, CommitOutcome::Unknown | CommitOutcome::Refused),
        "{outcome:?}"
    );
    home.members[0].restart();
    assert_eq!(read(&dcs).await.keys[0].value, b"home");
}

#[tokio::test]
async fn r7_an_etcd_that_is_down_is_unreachable_and_serves_again_when_it_is_back() {
    let mut etcd = Etcd::single();
    let dcs = etcd.dcs();
    write(&*dcs, "/t/a", "1").await;
    etcd.members[0].kill();
    let error = dcs.read("/t/", SHORT).await.unwrap_err();
    assert!(
        matches!(error, DcsError::Unreachable { .. } | DcsError::TimedOut { .. }),
        "{error:?}"
    );
    assert!(dcs.status().last_error.is_some());
    etcd.members[0].restart();
    assert_eq!(read(&*dcs).await.keys.len(), 1);
    assert_eq!(dcs.status().last_error, None);
}

#[tokio::test]
async fn r8_a_compacted_watch_says_resync_and_goes_on() {
    let etcd = Etcd::single();
    let dcs = etcd.dcs();
    let first = write(&*dcs, "/t/a", "1").await;
    let mut last = first;
    for _ in 0..5 {
        last = write(&*dcs, "/t/a", "2").await;
    }
    etcd.members[0].ctl(&["compaction", &last.0.to_string()]);
    let mut hints = dcs.watch("/t/", first);
    assert!(
        wait_hint(&mut hints, BUDGET, |hint| *hint == Hint::Resync)
            .await
            .is_some()
    );
    // The second Resync says that the new watch stands.
    assert!(
        wait_hint(&mut hints, BUDGET, |hint| *hint == Hint::Resync)
            .await
            .is_some()
    );
    write(&*dcs, "/t/b", "3").await;
    assert!(wait_hint(&mut hints, BUDGET, about("/t/b")).await.is_some());
}

#[tokio::test]
async fn r8_a_watch_survives_the_restart_of_etcd_and_misses_nothing() {
    let mut etcd = Etcd::single();
    let dcs = etcd.dcs();
    let start = write(&*dcs, "/t/a", "1").await;
    let mut hints = dcs.watch("/t/", start);
    write(&*dcs, "/t/b", "1").await;
    assert!(wait_hint(&mut hints, BUDGET, about("/t/b")).await.is_some());
    etcd.members[0].restart();
    // Written by somebody else, maybe before the watch stands again.
    etcd.members[0].ctl(&["put", "/t/c", "1"]);
    assert!(
        wait_hint(&mut hints, Duration::from_secs(10), about("/t/c"))
            .await
            .is_some()
    );
}

#[tokio::test]
async fn r8_a_watch_on_a_frozen_member_moves_to_another() {
    let mut etcd = Etcd::three();
    let dcs = etcd.dcs();
    let start = write(&*dcs, "/t/a", "1").await;
    let mut hints = dcs.watch("/t/", start);
    write(&*dcs, "/t/b", "1").await;
    assert!(wait_hint(&mut hints, BUDGET, about("/t/b")).await.is_some());
    let current = dcs.status().current.unwrap();
    etcd.member(&current).freeze();
    // The loop's own read finds out, and the watch follows it.
    read(&*dcs).await;
    assert_ne!(dcs.status().current.unwrap(), current);
    write(&*dcs, "/t/c", "1").await;
    assert!(wait_hint(&mut hints, BUDGET, about("/t/c")).await.is_some());
}

#[tokio::test]
async fn r9_the_version_is_known_after_the_survey_and_an_old_one_is_warned_of() {
    let etcd = Etcd::single();
    let dcs = etcd.dcs();
    dcs.survey(BUDGET).await.unwrap();
    let status = dcs.status();
    let version = status.endpoints[0]
        .version
        .clone()
        .expect("the survey tells the version");
    let warned = dcs.warnings().iter().any(|text| text.contains(&version));
    assert_eq!(warned, version.starts_with("3.4."), "{version}: {:?}", dcs.warnings());
}
