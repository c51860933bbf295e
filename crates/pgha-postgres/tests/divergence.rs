//! The life of a pair: clone, stream, lose the primary, promote, diverge, rewind, follow.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::{LIMIT, Node, is_streaming};
use pgha_core::pg::{ControlState, DataDir, Postmaster, SqlRole, SqlView, UnfinishedWork};
use pgha_core::units::{Lsn, Timeline};
use pgha_postgres::{
    AfterTimeout, Error, Job, Progress, PromoteOutcome, RewindOutcome, RewindRequest, SlotAction, SlotOutcome,
    StopMode, StopOutcome, StopRequest,
};

fn fast() -> StopRequest {
    StopRequest {
        mode: StopMode::Fast,
        checkpoint: None,
        timeout: LIMIT,
        after_timeout: AfterTimeout::Leave,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_primary_that_went_on_alone_is_rewound_and_follows_the_new_one() {
    let a = Node::primary().await;
    a.sql("CREATE TABLE t AS SELECT generate_series(1, 1000) i");
    let b = Node::standby_of(&a).await;
    let copied = b
        .heard()
        .into_iter()
        .any(|p| matches!(p, Progress::Bytes { done, total: Some(total) } if done > 1 << 20 && total >= done));
    assert!(copied, "the base backup told its progress");
    let view = b.until("streaming", is_streaming).await;
    let SqlRole::Standby(standby) = &view.facts().unwrap().role else {
        panic!()
    };
    assert_eq!(standby.timeline, Some(Timeline(1)));
    assert_eq!(standby.wal_receiver.as_ref().unwrap().sender_port, Some(a.port()));
    assert!(standby.primary_conninfo.contains("application_name=standby"));
    let view = a.observe().await;
    let senders = &view.facts().unwrap().wal_senders;
    assert_eq!(
        (
            senders.len(),
            senders[0].application_name.as_str(),
            senders[0].state.as_str()
        ),
        (1, "standby", "streaming")
    );

    // The local server's own identity comes over the replication protocol.
    let here = b.instance.identify_system(&b.address(), LIMIT).await.unwrap();
    assert_eq!(here.system_id, b.instance.control().await.unwrap().data.system_id);
    assert_eq!(here.timeline, Timeline(1));

    a.kill_postmaster();
    a.until("death", |v| {
        v.postmaster == Postmaster::NotRunning && v.sql == SqlView::NotAsked
    })
    .await;
    let report = b.listen();
    let outcome = b
        .instance
        .promote(
            LIMIT,
            &Job {
                cancel: &b.cancel,
                report: &report,
            },
        )
        .await
        .unwrap();
    assert_eq!(outcome, PromoteOutcome::Promoted);
    b.sql("INSERT INTO t VALUES (-1)");
    let view = b.observe().await;
    assert!(matches!(
        view.facts().unwrap().role,
        SqlRole::Primary {
            timeline: Timeline(2),
            ..
        }
    ));
    b.instance.checkpoint(LIMIT).await.unwrap();

    // The old primary goes on alone and stops cleanly.
    a.start_up().await;
    a.sql("INSERT INTO t SELECT generate_series(2000, 3000)");
    let report = a.listen();
    let job = Job {
        cancel: &a.cancel,
        report: &report,
    };
    let StopOutcome::Stopped { clean: Some(end) } = a.instance.stop(&fast(), &a.launcher, &job).await.unwrap() else {
        panic!("not clean")
    };

    // The facts from which divergence is concluded.
    assert_eq!(
        b.instance.source_checkpoint(&b.address(), LIMIT).await.unwrap(),
        (false, Timeline(2))
    );
    let there = b.instance.identify_system(&b.address(), LIMIT).await.unwrap();
    let history = a
        .instance
        .timeline_history(&b.address(), there.timeline, LIMIT)
        .await
        .unwrap();
    assert_eq!(
        (there.timeline, history.len(), history[0].timeline),
        (Timeline(2), 1, Timeline(1))
    );
    assert!(end.checkpoint > history[0].switchpoint);
    assert_eq!(b.instance.history(Timeline(2)).await.unwrap().unwrap().entries, history);
    assert_eq!(b.instance.history(Timeline(1)).await.unwrap(), None);

    let request = RewindRequest {
        source: b.address(),
        restore_target_wal: false,
        options: vec!["--no-sync".into()],
    };
    let outcome = a.instance.rewind(&request, &job).await.unwrap();
    assert_eq!(outcome, RewindOutcome::Done { rewound: true }, "{:?}", a.heard());
    assert_eq!(a.instance.unfinished().read().unwrap(), None);
    a.follow(&b).await;
    a.start_up().await;
    let view = a.until("streaming on timeline 2", is_streaming).await;
    assert_eq!(view.facts().unwrap().timeline(), Some(Timeline(2)));
    let rows = "SELECT count(*) || ' ' || min(i) || ' ' || max(i) FROM t";
    a.until("the new row", |_| a.sql(rows) == "1001 -1 1000").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_that_has_the_shutdown_checkpoint_takes_over_without_a_rewind() {
    let a = Node::primary().await;
    let b = Node::standby_of(&a).await;
    b.until("streaming", is_streaming).await;
    // The end of the base backup switched WAL; something must come between that and the checkpoint.
    a.sql("CREATE TABLE t (i int)");
    let report = a.listen();
    let job = Job {
        cancel: &a.cancel,
        report: &report,
    };
    let StopOutcome::Stopped { clean: Some(end) } = a.instance.stop(&fast(), &a.launcher, &job).await.unwrap() else {
        panic!("not clean")
    };
    let heard = a.heard();
    let at = |wanted: &Progress| heard.iter().position(|p| p == wanted);
    let (gone, written) = (at(&Progress::BackendsGone), at(&Progress::ShutdownCheckpoint(end)));
    assert!(gone.is_some() && written > gone, "{heard:?}");
    assert_eq!(end.needed(), end.checkpoint, "no WAL switch without archiving");
    b.until("the checkpoint", |v| {
        v.facts().and_then(|f| f.lsn()).is_some_and(|lsn| lsn >= end.checkpoint)
    })
    .await;
    let report = b.listen();
    b.instance
        .promote(
            LIMIT,
            &Job {
                cancel: &b.cancel,
                report: &report,
            },
        )
        .await
        .unwrap();
    let history = a
        .instance
        .timeline_history(&b.address(), Timeline(2), LIMIT)
        .await
        .unwrap();
    assert_eq!(
        Some(history[0].switchpoint),
        end.end,
        "the new timeline begins where the checkpoint record ends"
    );
    a.follow(&b).await;
    a.start_up().await;
    a.until("streaming on timeline 2", |v| {
        is_streaming(v) && v.facts().and_then(|f| f.timeline()) == Some(Timeline(2))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_archiving_the_needed_position_is_the_wal_switch_before_the_checkpoint() {
    let a = Node::primary().await;
    let report = a.listen();
    let job = Job {
        cancel: &a.cancel,
        report: &report,
    };
    a.instance.stop(&fast(), &a.launcher, &job).await.unwrap();
    let archive = a.root.path().join("archive");
    std::fs::create_dir(&archive).unwrap();
    let command = format!("test -e {0}/open && cp %p {0}/%f", archive.display());
    a.instance
        .write_config(&a.config(&format!("archive_mode = on\narchive_command = '{command}'")))
        .await
        .unwrap();
    a.start_up().await;
    a.sql("CREATE TABLE t (i int)");
    let stop = StopRequest {
        mode: StopMode::Fast,
        ..fast()
    };
    let StopOutcome::Stopped { clean: Some(end) } = a.instance.stop(&stop, &a.launcher, &job).await.unwrap() else {
        panic!("not clean")
    };
    assert!(end.switch.is_some_and(|s| s < end.checkpoint), "{end:?}");
    assert_eq!(end.needed(), end.switch.unwrap());
    // What the failing command left behind is archived afterwards, once.
    std::fs::write(archive.join("open"), "").unwrap();
    let first = a.instance.archive_ready(&command, &job).await.unwrap();
    assert!(first >= 1);
    assert_eq!(std::fs::read_dir(&archive).unwrap().count(), first + 1);
    assert_eq!(a.instance.archive_ready(&command, &job).await.unwrap(), 0);
    assert!(matches!(a.instance.archive_ready("false", &job).await, Ok(0)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rewind_that_cannot_begin_changes_nothing_and_a_cancelled_clone_stays_marked() {
    let a = Node::primary().await;
    let b = Node::standby_of(&a).await;
    let report = b.listen();
    let job = Job {
        cancel: &b.cancel,
        report: &report,
    };
    let request = RewindRequest {
        source: a.address(),
        restore_target_wal: false,
        options: vec![],
    };
    assert!(matches!(
        b.instance.rewind(&request, &job).await,
        Err(Error::InUse { .. })
    ));
    b.instance.stop(&fast(), &b.launcher, &job).await.unwrap();
    assert_eq!(
        b.instance.control().await.unwrap().data.state,
        ControlState::ShutDownInRecovery
    );
    let nobody = RewindRequest {
        source: b.address(),
        ..request.clone()
    };
    let outcome = b.instance.rewind(&nobody, &job).await.unwrap();
    assert!(matches!(outcome, RewindOutcome::SourceNotReady { .. }), "{outcome:?}");
    assert!(matches!(b.observe().await.data_dir, DataDir::Present(_)));
    assert_eq!(
        b.instance.rewind(&request, &job).await.unwrap(),
        RewindOutcome::Done { rewound: false }
    );

    // A clone slow enough to be cancelled in the middle.
    b.instance.wipe().await.unwrap();
    assert_eq!(b.observe().await.data_dir, DataDir::Empty);
    let slow = pgha_postgres::BasebackupRequest {
        source: a.address(),
        options: vec!["--checkpoint=fast".into(), "--max-rate=1M".into()],
    };
    let cancel = tokio_util::sync::CancellationToken::new();
    let (token, data) = (cancel.clone(), b.data());
    tokio::spawn(async move {
        while !data.join("PG_VERSION").exists() && !data.join("base").exists() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        token.cancel();
    });
    // No secret in any command line while it runs.
    let secrets = tokio::spawn(async {
        for _ in 0..20 {
            for entry in std::fs::read_dir("/proc").unwrap().flatten() {
                let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
                let line = String::from_utf8_lossy(&line).into_owned();
                assert!(
                    !line.contains(common::REPLICATION_PASSWORD) && !line.contains(common::SUPER_PASSWORD),
                    "{line}"
                );
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    });
    let cancelled = b
        .instance
        .basebackup(
            &slow,
            &Job {
                cancel: &cancel,
                report: &report,
            },
        )
        .await;
    assert!(matches!(cancelled, Err(Error::Cancelled)), "{cancelled:?}");
    secrets.await.unwrap();
    assert_eq!(
        b.observe().await.data_dir,
        DataDir::Unfinished {
            what: UnfinishedWork::Clone
        }
    );
    let request = pgha_postgres::StartRequest {
        options: vec![],
        timeout: LIMIT,
        during_bootstrap: false,
    };
    assert!(matches!(
        b.instance.start(&request, &b.launcher, &job).await,
        Err(Error::Unsuitable { .. })
    ));
    b.instance.wipe().await.unwrap();
    assert_eq!(b.observe().await.data_dir, DataDir::Empty);
    assert_eq!(b.instance.unfinished().read().unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rewind_that_stops_half_way_leaves_a_directory_that_is_never_started() {
    use std::os::unix::fs::PermissionsExt;
    let a = Node::primary().await;
    let report = a.listen();
    let job = Job {
        cancel: &a.cancel,
        report: &report,
    };
    a.instance.stop(&fast(), &a.launcher, &job).await.unwrap();
    // A pg_rewind that dies right after the words with which the real one begins to write.
    let broken = a.root.path().join("broken_rewind");
    std::fs::write(
        &broken,
        "#!/bin/sh\necho 'pg_rewind: need to copy 3 MB'\necho 'server closed the connection' >&2\nexit 1\n",
    )
    .unwrap();
    std::fs::set_permissions(&broken, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut spec = a.instance.spec().clone();
    spec.bin_name.insert("pg_rewind".into(), broken.display().to_string());
    let again = pgha_postgres::Instance::new(spec);
    let request = RewindRequest {
        source: a.address(),
        restore_target_wal: false,
        options: vec![],
    };
    let outcome = again.rewind(&request, &job).await.unwrap();
    assert!(matches!(outcome, RewindOutcome::Interrupted { .. }), "{outcome:?}");
    assert_eq!(
        a.observe().await.data_dir,
        DataDir::Unfinished {
            what: UnfinishedWork::Rewind
        }
    );
    let start = pgha_postgres::StartRequest {
        options: vec![],
        timeout: LIMIT,
        during_bootstrap: true,
    };
    assert!(matches!(
        a.instance.start(&start, &a.launcher, &job).await,
        Err(Error::Unsuitable { .. })
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_are_made_moved_and_dropped_and_each_outcome_is_told() {
    let a = Node::primary().await;
    let create = |n: &str| SlotAction::CreatePhysical { name: n.into() };
    let drop_slot = |n: &str| SlotAction::Drop { name: n.into() };
    let outcomes = a
        .instance
        .change_slots(&[create("b"), create("b"), create("Bad Name")], LIMIT)
        .await
        .unwrap();
    assert_eq!(outcomes[..2], [SlotOutcome::Done, SlotOutcome::Unchanged]);
    assert!(matches!(outcomes[2], SlotOutcome::Failed { .. }));
    let before = a.observe().await.facts().unwrap().slots["b"].restart.unwrap();
    a.sql("CREATE TABLE t AS SELECT generate_series(1, 1000) i; CHECKPOINT");
    let to = a.observe().await.facts().unwrap().lsn().unwrap();
    assert!(to > before);
    let advance = SlotAction::Advance { name: "b".into(), to };
    assert_eq!(
        a.instance.change_slots(&[advance], LIMIT).await.unwrap(),
        [SlotOutcome::Done]
    );
    assert_eq!(a.observe().await.facts().unwrap().slots["b"].restart, Some(to));
    let outcomes = a
        .instance
        .change_slots(&[drop_slot("b"), drop_slot("b")], LIMIT)
        .await
        .unwrap();
    assert_eq!(outcomes, [SlotOutcome::Done, SlotOutcome::Unchanged]);
    assert!(a.observe().await.facts().unwrap().slots.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_promotions_at_one_position_are_told_apart_by_their_first_record() {
    let a = Node::primary().await;
    a.sql("CREATE TABLE t (i int)");
    let (b, c) = (Node::standby_of(&a).await, Node::standby_of(&a).await);
    for node in [&b, &c] {
        node.until("streaming", is_streaming).await;
    }
    let report = a.listen();
    let job = Job {
        cancel: &a.cancel,
        report: &report,
    };
    a.instance.stop(&fast(), &a.launcher, &job).await.unwrap();
    for node in [&b, &c] {
        let report = node.listen();
        let job = Job {
            cancel: &node.cancel,
            report: &report,
        };
        node.instance.promote(LIMIT, &job).await.unwrap();
    }
    let history = b.instance.history(Timeline(2)).await.unwrap().unwrap();
    let other = c.instance.history(Timeline(2)).await.unwrap().unwrap();
    assert_eq!(history.entries, other.entries, "the histories are the same");

    let view = b.observe().await;
    let (from, upto) = (history.entries[0].switchpoint, view.facts().unwrap().lsn().unwrap());
    let compare = async |source: &Node, timeline: u32, upto: Lsn| {
        let source = source.address();
        let compared = b
            .instance
            .is_same_promotion(&source, Timeline(timeline), from, upto, LIMIT);
        compared.await.unwrap()
    };
    assert_eq!(compare(&b, 2, upto).await, Some(true));
    assert_eq!(compare(&c, 2, upto).await, Some(false));
    assert_eq!(compare(&b, 2, from).await, None, "nothing to compare yet");
    assert_eq!(compare(&b, 7, upto).await, None, "there is no such file");
}
