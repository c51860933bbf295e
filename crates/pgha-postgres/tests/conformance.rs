//! The statements about PostgreSQL that the simulator relies on, held against real servers. The list is the simulator's;
//! its own suite holds them against the model.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::process::Command;
use std::thread;
use std::time::Duration;

use common::{LIMIT, Node, is_streaming};
use pgha_core::pg::{ControlState, PgView, Postmaster, SqlView};
use pgha_core::units::{Lsn, Timeline};
use pgha_postgres::{
    AfterTimeout, Job, PromoteOutcome, RewindOutcome, RewindRequest, ShutdownCheckpoint, StopMode, StopOutcome,
    StopRequest, WaitsForWal,
};

/// Long enough for what would happen at once.
const A_WHILE: Duration = Duration::from_millis(1500);

#[test]
fn this_suite_holds_every_statement_and_no_other() {
    let source = include_str!("conformance.rs");
    let mut held: Vec<&str> = source
        .split("worker_threads = 2)]\nasync fn ")
        .skip(1)
        .filter_map(|rest| rest.split('(').next())
        .filter(|name| name.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
        .collect();
    let mut listed: Vec<&str> = include_str!("../../pgha-sim/tests/postgres_statements.txt")
        .lines()
        .collect();
    held.sort_unstable();
    listed.sort_unstable();
    assert_eq!(held, listed);
}

fn position(view: &PgView) -> Lsn {
    view.facts().and_then(|f| f.lsn()).unwrap()
}

fn reload_with(node: &Node, setting: &str) {
    node.sql(&format!("ALTER SYSTEM SET {setting}"));
    node.sql("SELECT pg_reload_conf()");
}

/// Sends a signal to the one server process of this kind.
fn signal(node: &Node, signal: &str, kind: &str) {
    let pid = node.sql(&format!(
        "SELECT pid FROM pg_stat_activity WHERE backend_type = '{kind}'"
    ));
    assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
}

async fn kill(node: &Node) {
    node.kill_postmaster();
    node.until("death", |v| {
        v.postmaster == Postmaster::NotRunning && v.sql == SqlView::NotAsked
    })
    .await;
}

async fn stop(node: &Node) -> Option<ShutdownCheckpoint> {
    let request = StopRequest {
        mode: StopMode::Fast,
        checkpoint: None,
        timeout: LIMIT,
        after_timeout: AfterTimeout::Leave,
    };
    let report = node.listen();
    let job = Job {
        cancel: &node.cancel,
        report: &report,
    };
    match node.instance.stop(&request, &node.launcher, &job).await.unwrap() {
        StopOutcome::Stopped { clean } => clean,
        other => panic!("{other:?}"),
    }
}

async fn promote(node: &Node) {
    let report = node.listen();
    let job = Job {
        cancel: &node.cancel,
        report: &report,
    };
    let outcome = node.instance.promote(LIMIT, &job).await.unwrap();
    assert_eq!(outcome, PromoteOutcome::Promoted);
}

async fn pair() -> (Node, Node) {
    let a = Node::primary().await;
    a.sql("CREATE TABLE t (i int)");
    let b = Node::standby_of(&a).await;
    b.until("streaming", is_streaming).await;
    (a, b)
}

/// Waits until the standby has all that the primary flushed.
async fn caught_up(primary: &Node, standby: &Node) {
    let end = position(&primary.observe().await);
    standby
        .until("all WAL", |v| v.facts().and_then(|f| f.lsn()).is_some_and(|l| l >= end))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_postmaster_loses_nothing_that_was_flushed() {
    let a = Node::primary().await;
    a.sql("CREATE TABLE t (i int)");
    a.sql("INSERT INTO t VALUES (1)");
    kill(&a).await;
    a.start_up().await;
    assert_eq!(a.sql("SELECT count(*) FROM t"), "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_promotion_the_timeline_history_names_the_fork() {
    let (a, b) = pair().await;
    caught_up(&a, &b).await;
    kill(&a).await;
    let end = Lsn::parse(&b.sql("SELECT pg_last_wal_replay_lsn()")).unwrap();
    promote(&b).await;
    let history = b.instance.history(Timeline(2)).await.unwrap().unwrap();
    assert_eq!(history.entries.len(), 1);
    assert_eq!(
        (history.entries[0].timeline, history.entries[0].switchpoint),
        (Timeline(1), end)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clean_shutdown_sends_the_shutdown_checkpoint_to_connected_standbys() {
    let (a, b) = pair().await;
    let end = stop(&a).await.unwrap();
    assert!(position(&b.observe().await) >= end.end.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_that_was_ahead_at_the_fork_cannot_follow_without_rewind() {
    let (a, b) = pair().await;
    let c = Node::standby_of(&a).await;
    c.until("streaming", is_streaming).await;
    reload_with(&b, "primary_conninfo = ''");
    b.until("the end of streaming", |v| !is_streaming(v)).await;
    a.sql("INSERT INTO t SELECT generate_series(1, 1000)");
    caught_up(&a, &c).await;
    assert!(position(&c.observe().await) > position(&b.observe().await));
    kill(&a).await;
    promote(&b).await;
    b.instance.checkpoint(LIMIT).await.unwrap();
    stop(&c).await;
    c.follow(&b).await;
    c.start_up().await;
    tokio::time::sleep(A_WHILE).await;
    assert!(!is_streaming(&c.observe().await), "{}", c.log());
    stop(&c).await;
    let request = RewindRequest {
        source: b.address(),
        restore_target_wal: false,
        options: vec!["--no-sync".into()],
    };
    let report = c.listen();
    let job = Job {
        cancel: &c.cancel,
        report: &report,
    };
    let outcome = c.instance.rewind(&request, &job).await.unwrap();
    assert_eq!(outcome, RewindOutcome::Done { rewound: true });
    std::fs::remove_file(c.data().join("postgresql.auto.conf")).unwrap();
    c.follow(&b).await;
    c.start_up().await;
    c.until("streaming", is_streaming).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_was_stopped_cleanly_follows_its_successor_without_rewind() {
    let (a, b) = pair().await;
    stop(&a).await;
    promote(&b).await;
    b.sql("INSERT INTO t VALUES (1)");
    a.follow(&b).await;
    a.start_up().await;
    let view = a.until("streaming", is_streaming).await;
    assert_eq!(view.facts().unwrap().timeline(), Some(Timeline(2)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_synchronous_commit_waits_until_the_named_standby_has_flushed_it() {
    let (a, b) = pair().await;
    reload_with(&a, "synchronous_standby_names = 'standby'");
    thread::sleep(A_WHILE);
    signal(&b, "-STOP", "walreceiver");
    thread::scope(|scope| {
        let commit = scope.spawn(|| a.sql("INSERT INTO t VALUES (1)"));
        thread::sleep(A_WHILE);
        assert!(!commit.is_finished());
        signal(&b, "-CONT", "walreceiver");
        commit.join().unwrap();
    });
    assert_eq!(a.sql("SELECT count(*) FROM t"), "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_checkpointer_is_busy_new_synchronous_standby_names_hold_up_no_commit() {
    let a = Node::primary().await;
    a.sql("CREATE TABLE t (i int)");
    signal(&a, "-STOP", "checkpointer");
    reload_with(&a, "synchronous_standby_names = 'nobody'");
    thread::sleep(A_WHILE);
    assert_eq!(a.sql("SHOW synchronous_standby_names"), "nobody");
    a.sql("INSERT INTO t VALUES (1)");
    signal(&a, "-CONT", "checkpointer");
    thread::sleep(A_WHILE);
    thread::scope(|scope| {
        let commit = scope.spawn(|| a.sql("INSERT INTO t VALUES (2)"));
        thread::sleep(A_WHILE);
        assert!(!commit.is_finished());
        reload_with(&a, "synchronous_standby_names = ''");
        commit.join().unwrap();
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_streams_only_through_a_slot_that_exists() {
    let (a, b) = pair().await;
    reload_with(&b, "primary_slot_name = 's'");
    b.until("the end of streaming", |v| !is_streaming(v)).await;
    tokio::time::sleep(A_WHILE).await;
    assert!(!is_streaming(&b.observe().await));
    a.sql("SELECT pg_create_physical_replication_slot('s', true)");
    b.until("streaming", is_streaming).await;
    assert_eq!(
        a.sql("SELECT active FROM pg_replication_slots WHERE slot_name = 's'"),
        "t"
    );
}

// ---- WAL that is removed, and the archive ----

/// Makes a full segment of WAL and goes on with the next one. Returns the name of the full one.
fn fill_segment(node: &Node) -> String {
    node.sql("INSERT INTO t VALUES (1)");
    let name = node.sql("SELECT pg_walfile_name(pg_current_wal_insert_lsn())");
    node.sql("SELECT pg_switch_wal()");
    name
}

fn has_segment(node: &Node, name: &str) -> bool {
    node.data().join("pg_wal").join(name).exists()
}

/// An archive below the primary's root, with a file `away` that makes its commands fail.
struct Archive {
    dir: std::path::PathBuf,
}

impl Archive {
    /// The primary is started again with archive_mode; a command takes `pause` seconds.
    async fn of(primary: &Node, pause: &str) -> Archive {
        let dir = primary.root.path().join("archive");
        std::fs::create_dir(&dir).unwrap();
        let at = dir.display();
        primary.sql("ALTER SYSTEM SET archive_mode = on");
        primary.sql(&format!(
            "ALTER SYSTEM SET archive_command = 'test ! -e {at}/away && sleep {pause} && test ! -e {at}/%f && cp %p {at}/%f'"
        ));
        stop(primary).await;
        primary.start_up().await;
        Archive { dir }
    }

    fn restore_command(&self) -> String {
        let at = self.dir.display();
        format!("restore_command = 'test ! -e {at}/away && cp {at}/%f %p'")
    }

    fn set_away(&self, away: bool) {
        let file = self.dir.join("away");
        if away {
            std::fs::write(file, "").unwrap();
        } else {
            std::fs::remove_file(file).unwrap();
        }
    }

    /// Waits until a file is in it.
    async fn has(&self, name: &str) {
        for _ in 0..400 {
            if self.dir.join(name).exists() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{name} was not archived");
    }
}

/// Stops the standby, and has the primary write and remove the WAL that it needs next.
async fn leave_behind(primary: &Node, standby: &Node, archive: Option<&Archive>) {
    caught_up(primary, standby).await;
    stop(standby).await;
    reload_with(primary, "wal_keep_size = 0");
    let first = fill_segment(primary);
    for _ in 0..2 {
        let name = fill_segment(primary);
        if let Some(archive) = archive {
            archive.has(&name).await;
        }
    }
    primary.instance.checkpoint(LIMIT).await.unwrap();
    assert!(!has_segment(primary, &first));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_whose_next_wal_its_upstream_has_removed_streams_no_more() {
    let (a, b) = pair().await;
    let at = position(&b.observe().await);
    assert!(b.instance.keeps_wal_from(&a.address(), at, LIMIT).await.unwrap());
    leave_behind(&a, &b, None).await;
    b.start_up().await;
    tokio::time::sleep(A_WHILE).await;
    let view = b.observe().await;
    assert!(!is_streaming(&view));
    // What the agent tells it by.
    let waits = b.instance.waits_for_wal(LIMIT).await.unwrap();
    assert_eq!(waits, Some(WaitsForWal { archive: false }));
    let kept = b.instance.keeps_wal_from(&a.address(), position(&view), LIMIT).await;
    assert!(!kept.unwrap());
    assert_eq!(
        a.instance.waits_for_wal(LIMIT).await.unwrap(),
        None,
        "a primary waits for nobody"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_gets_from_the_archive_what_its_upstream_has_removed() {
    let (a, b) = pair().await;
    let archive = Archive::of(&a, "0").await;
    b.until("streaming", is_streaming).await;
    reload_with(&b, &archive.restore_command());
    leave_behind(&a, &b, Some(&archive)).await;
    archive.set_away(true);
    b.start_up().await;
    tokio::time::sleep(A_WHILE).await;
    assert!(!is_streaming(&b.observe().await));
    archive.set_away(false);
    b.until("streaming", is_streaming).await;
    assert_eq!(b.sql("SELECT count(*) FROM t"), "3");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wal_that_is_not_archived_yet_is_not_removed() {
    let a = Node::primary().await;
    a.sql("CREATE TABLE t (i int)");
    let archive = Archive::of(&a, "0").await;
    reload_with(&a, "wal_keep_size = 0");
    archive.set_away(true);
    let first = fill_segment(&a);
    fill_segment(&a);
    a.instance.checkpoint(LIMIT).await.unwrap();
    assert!(has_segment(&a, &first));
    archive.set_away(false);
    // A full segment wakes the archiver that has given up for a while.
    archive.has(&fill_segment(&a)).await;
    archive.has(&first).await;
    a.instance.checkpoint(LIMIT).await.unwrap();
    assert!(!has_segment(&a, &first));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_waits_until_all_wal_is_archived() {
    let a = Node::primary().await;
    a.sql("CREATE TABLE t (i int)");
    let archive = Archive::of(&a, "3").await;
    a.sql("INSERT INTO t VALUES (1)");
    let last = a.sql("SELECT pg_walfile_name(pg_current_wal_insert_lsn())");
    let (end, ()) = tokio::join!(stop(&a), async {
        tokio::time::sleep(A_WHILE).await;
        assert_eq!(a.instance.control().await.unwrap().data.state, ControlState::ShutDown);
        assert!(!archive.dir.join(&last).exists());
        assert!(
            a.observe().await.is_running(),
            "although nothing can be written any more"
        );
    });
    assert!(
        end.unwrap().switch.is_some(),
        "the segment was switched before the checkpoint"
    );
    assert!(archive.dir.join(&last).exists());
}
