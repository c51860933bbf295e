//! Statements about PostgreSQL, held against the model. `postgres_statements.txt` lists them; the suite in pgha-postgres
//! holds the same ones against real servers.
#![allow(clippy::unwrap_used)]

use pgha_core::job::{Job, StartRole, StopMode};
use pgha_core::pg::ControlState;
use pgha_sim::bench::Bench;
use pgha_sim::postgres::{SEGMENT, Server, WAL_KEEP};

#[test]
fn this_suite_holds_every_statement_and_no_other() {
    let source = include_str!("postgres_conformance.rs");
    let mut held: Vec<&str> = source
        .split("#[test]\nfn ")
        .skip(1)
        .filter_map(|rest| rest.split('(').next())
        .filter(|name| *name != "this_suite_holds_every_statement_and_no_other")
        .filter(|name| name.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
        .collect();
    let mut listed: Vec<&str> = include_str!("postgres_statements.txt").lines().collect();
    held.sort_unstable();
    listed.sort_unstable();
    assert_eq!(held, listed);
}

#[test]
fn a_killed_postmaster_loses_nothing_that_was_flushed() {
    let mut bench = Bench::cluster(1);
    let flushed = bench.commit(0);
    bench.pass(100);
    assert!(bench.is_acknowledged(flushed));
    let only_written = bench.commit(0);
    bench.kill(0);
    bench.start_primary(0);
    let data = bench.data(0);
    assert!(data.history.contains(data.flushed, flushed));
    assert!(data.flushed < only_written.lsn && !bench.is_acknowledged(only_written));
}

#[test]
fn after_a_promotion_the_timeline_history_names_the_fork() {
    let mut bench = Bench::cluster(2);
    bench.commit(0);
    bench.pass(100);
    bench.kill(0);
    let end = bench.data(1).written;
    bench.run(1, Job::Promote);
    assert!(bench.is_primary(1));
    let ends: Vec<(u32, u64)> = bench.data(1).history.ends().iter().map(|(t, l)| (t.0, l.0)).collect();
    assert_eq!(ends, [(1, end)]);
    assert_eq!(bench.data(1).timeline(), 2);
}

#[test]
fn a_clean_shutdown_sends_the_shutdown_checkpoint_to_connected_standbys() {
    let mut bench = Bench::cluster(2);
    bench.commit(0);
    bench.stop(0);
    assert_eq!(bench.data(1).flushed, bench.data(0).written);
    assert!(bench.data(0).checkpoint < bench.data(1).flushed);
}

#[test]
fn a_standby_that_was_ahead_at_the_fork_cannot_follow_without_rewind() {
    let mut bench = Bench::cluster(3);
    bench.world.replication.block(0, 1);
    bench.commit(0);
    bench.pass(500);
    bench.kill(0);
    assert!(bench.data(2).written > bench.data(1).written);
    bench.run(1, Job::Promote);
    let upstream = bench.upstream(1);
    bench.run(
        2,
        Job::Follow {
            upstream: Some(upstream.clone()),
        },
    );
    bench.pass(5_000);
    assert!(!bench.pg(2).is_streaming());
    bench.begin_checkpoint(1, 10);
    bench.stop(2);
    let rewind = Job::Rewind {
        source: upstream,
        discards: None,
        keep_aside: false,
    };
    bench.run(2, rewind);
    bench.start_standby(2, 1);
    bench.pass(2_000);
    assert!(bench.pg(2).is_streaming());
}

#[test]
fn a_primary_that_was_stopped_cleanly_follows_its_successor_without_rewind() {
    let mut bench = Bench::cluster(2);
    bench.commit(0);
    bench.stop(0);
    bench.run(1, Job::Promote);
    bench.commit(1);
    bench.start_standby(0, 1);
    bench.pass(2_000);
    assert!(bench.pg(0).is_streaming());
    assert_eq!(bench.data(0).timeline(), 2);
}

#[test]
fn a_synchronous_commit_waits_until_the_named_standby_has_flushed_it() {
    let mut bench = Bench::cluster(2);
    bench.set_sync_names(0, "n2");
    bench.pass(3_000);
    bench.world.replication.block(0, 1);
    let commit = bench.commit(0);
    bench.pass(3_000);
    assert!(!bench.is_acknowledged(commit));
    bench.world.replication.unblock(0, 1);
    bench.pass(3_000);
    assert!(bench.is_acknowledged(commit));
    assert!(bench.data(1).flushed >= commit.lsn);
}

#[test]
fn while_the_checkpointer_is_busy_new_synchronous_standby_names_hold_up_no_commit() {
    let mut bench = Bench::cluster(1);
    bench.begin_checkpoint(0, 20_000);
    bench.set_sync_names(0, "n2");
    bench.pass(3_000);
    assert_eq!(bench.pg(0).sync.loaded.text, "n2");
    let early = bench.commit(0);
    bench.pass(1_000);
    assert!(bench.is_acknowledged(early), "although no standby has it");
    bench.pass(20_000);
    let late = bench.commit(0);
    bench.pass(3_000);
    assert!(!bench.is_acknowledged(late));
}

#[test]
fn a_standby_streams_only_through_a_slot_that_exists() {
    let mut bench = Bench::cluster(2);
    bench.stop(1);
    let mut upstream = bench.upstream(0);
    upstream.slot = Some("n2".into());
    let role = StartRole::Standby {
        upstream: Some(upstream),
    };
    let timeout = std::time::Duration::from_secs(60);
    bench.run(1, Job::Start { role, timeout });
    bench.pass(3_000);
    assert!(!bench.pg(1).is_streaming());
    bench.create_slot(0, "n2");
    bench.pass(3_000);
    assert!(bench.pg(1).is_streaming());
    assert!(bench.data(0).slots["n2"].restart >= bench.data(1).flushed);
}

/// A standby that was away while its primary wrote more WAL than it keeps.
fn left_behind(mut bench: Bench) -> Bench {
    bench.stop(1);
    bench.write(0, WAL_KEEP + 3 * SEGMENT);
    bench.pass(20_000);
    bench.checkpoint(0);
    assert!(bench.data(0).oldest > bench.data(1).written);
    bench
}

#[test]
fn a_standby_whose_next_wal_its_upstream_has_removed_streams_no_more() {
    let mut bench = left_behind(Bench::cluster(2));
    let stood_at = bench.data(1).written;
    bench.start_standby(1, 0);
    bench.pass(20_000);
    assert!(!bench.pg(1).is_streaming());
    assert_eq!(bench.data(1).written, stood_at);
}

#[test]
fn a_standby_gets_from_the_archive_what_its_upstream_has_removed() {
    let mut bench = left_behind(Bench::cluster_with_archive(2));
    bench.world.archive.away += 1;
    bench.start_standby(1, 0);
    bench.pass(20_000);
    assert!(!bench.pg(1).is_streaming());
    bench.world.archive.away -= 1;
    bench.pass(60_000);
    assert!(bench.pg(1).is_streaming());
    assert_eq!(bench.data(1).flushed, bench.data(0).flushed);
}

#[test]
fn wal_that_is_not_archived_yet_is_not_removed() {
    let mut bench = Bench::cluster_with_archive(2);
    bench.pass(20_000);
    bench.world.archive.away += 1;
    let not_archived = bench.data(0).flushed;
    bench.write(0, WAL_KEEP + 3 * SEGMENT);
    bench.checkpoint(0);
    assert!(bench.data(0).oldest <= not_archived);
    bench.world.archive.away -= 1;
    bench.pass(60_000);
    bench.checkpoint(0);
    assert!(bench.data(0).oldest > not_archived);
}

#[test]
fn a_shutdown_waits_until_all_wal_is_archived() {
    let mut bench = Bench::cluster_with_archive(1);
    bench.write(0, 10 * SEGMENT);
    bench.world.archive.slow = Some(20);
    let (mode, checkpoint_first) = (StopMode::Fast, false);
    bench.begin(0, Job::Stop { mode, checkpoint_first });
    bench.pass(2_000);
    assert!(bench.pg(0).server != Server::Down && !bench.pg(0).is_writable());
    assert_eq!(
        bench.data(0).state,
        ControlState::ShutDown,
        "and nothing can be written any more"
    );
    bench.pass(120_000);
    assert_eq!(bench.pg(0).server, Server::Down);
    let data = bench.data(0);
    assert_eq!(
        data.to_archive * SEGMENT,
        data.checkpoint,
        "the segment was switched before the checkpoint"
    );
}
