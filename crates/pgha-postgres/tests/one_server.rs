//! One real server: what is observed of it in each of its states, and what is done with its directory.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use common::{LIMIT, Node, SUPER_PASSWORD, bin, boot_time};
use pgha_core::pg::{
    ControlData, ControlState, DataDir, Postmaster, PostmasterPhase, SqlRole, SqlView, UnfinishedWork,
};
use pgha_core::rewind::DivergedWal;
use pgha_core::units::{Lsn, Mono, SystemId, Timeline};
use pgha_postgres::{
    AfterTimeout, Error, Job, PostBootstrap, Signal, StartOutcome, StopMode, StopOutcome, StopRequest, find_postmaster,
    read_control, send_signal, server_children, user_backends, wait_exit,
};

/// The value of a line of pg_controldata.
fn controldata(dir: &Path, key: &str) -> String {
    let out = Command::new(format!("{}/pg_controldata", bin()))
        .arg(dir)
        .env("LC_ALL", "C")
        .output()
        .unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    let line = text
        .lines()
        .find_map(|l| l.strip_prefix(key))
        .unwrap_or_else(|| panic!("{key}: {text}"));
    line.trim_start_matches(':').trim().to_string()
}

fn state_text(state: ControlState) -> &'static str {
    match state {
        ControlState::StartingUp => "starting up",
        ControlState::ShutDown => "shut down",
        ControlState::ShutDownInRecovery => "shut down in recovery",
        ControlState::ShuttingDown => "shutting down",
        ControlState::InCrashRecovery => "in crash recovery",
        ControlState::InArchiveRecovery => "in archive recovery",
        ControlState::InProduction => "in production",
    }
}

/// Compares our reading of pg_control with PostgreSQL's own.
fn same_as_pg_controldata(dir: &Path) -> ControlData {
    let file = read_control(dir).unwrap();
    let c = file.data.clone();
    let lsn = |key| Lsn::parse(&controldata(dir, key)).unwrap();
    let number = |key| controldata(dir, key).parse::<u64>().unwrap();
    assert_eq!(state_text(c.state), controldata(dir, "Database cluster state"));
    assert_eq!(c.system_id, SystemId(number("Database system identifier")));
    assert_eq!(u64::from(file.control_version), number("pg_control version number"));
    assert_eq!(u64::from(file.catalog_version), number("Catalog version number"));
    assert_eq!(c.checkpoint, lsn("Latest checkpoint location"));
    assert_eq!(c.redo, lsn("Latest checkpoint's REDO location"));
    assert_eq!(
        u64::from(c.checkpoint_timeline.0),
        number("Latest checkpoint's TimeLineID")
    );
    assert_eq!(
        u64::from(file.previous_timeline.0),
        number("Latest checkpoint's PrevTimeLineID")
    );
    assert_eq!(c.min_recovery, lsn("Minimum recovery ending location"));
    assert_eq!(
        u64::from(c.min_recovery_timeline.map_or(0, |t| t.0)),
        number("Min recovery ending loc's timeline")
    );
    assert_eq!(file.backup_start, lsn("Backup start location"));
    assert_eq!(file.backup_end, lsn("Backup end location"));
    assert_eq!(
        file.backup_end_required,
        controldata(dir, "End-of-backup record required") == "yes"
    );
    assert_eq!(c.wal_log_hints, controldata(dir, "wal_log_hints setting") == "on");
    assert_eq!(c.data_checksums, number("Data page checksum version") != 0);
    assert_eq!(
        u64::try_from(file.max_connections).unwrap(),
        number("max_connections setting")
    );
    assert_eq!(
        u64::try_from(file.max_worker_processes).unwrap(),
        number("max_worker_processes setting")
    );
    assert_eq!(
        u64::try_from(file.max_wal_senders).unwrap(),
        number("max_wal_senders setting")
    );
    assert_eq!(
        u64::try_from(file.max_prepared_transactions).unwrap(),
        number("max_prepared_xacts setting")
    );
    assert_eq!(
        u64::try_from(file.max_locks_per_transaction).unwrap(),
        number("max_locks_per_xact setting")
    );
    assert_eq!(u64::from(file.wal_block_size), number("WAL block size"));
    assert_eq!(u64::from(file.wal_segment_size), number("Bytes per WAL segment"));
    assert_eq!(c.major_version, major(dir));
    c
}

/// The major version that initdb noted.
fn major(dir: &Path) -> u32 {
    let text = std::fs::read_to_string(dir.join("PG_VERSION")).unwrap();
    text.trim().parse().unwrap()
}

/// A stop signal takes effect when the process is next scheduled.
fn wait_until_stopped(pid: i32) {
    while !std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .unwrap()
        .contains(") T ")
    {
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn stop(mode: StopMode) -> StopRequest {
    StopRequest {
        mode,
        checkpoint: Some(LIMIT),
        timeout: LIMIT,
        after_timeout: AfterTimeout::Kill,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pg_control_is_read_as_pg_controldata_reads_it_in_every_state_of_a_servers_life() {
    let a = Node::primary().await;
    assert_eq!(same_as_pg_controldata(&a.data()).state, ControlState::InProduction);
    let b = Node::standby_of(&a).await;
    b.until("streaming", common::is_streaming).await;
    let c = same_as_pg_controldata(&b.data());
    assert_eq!((c.state, c.recovery_signal), (ControlState::InArchiveRecovery, true));
    let report = a.listen();
    let job = Job {
        cancel: &a.cancel,
        report: &report,
    };
    b.instance.stop(&stop(StopMode::Fast), &b.launcher, &job).await.unwrap();
    assert_eq!(
        same_as_pg_controldata(&b.data()).state,
        ControlState::ShutDownInRecovery
    );
    let StopOutcome::Stopped { clean } = a
        .instance
        .stop(&stop(StopMode::Immediate), &a.launcher, &job)
        .await
        .unwrap()
    else {
        panic!()
    };
    assert_eq!(clean, None, "an immediate stop writes no shutdown checkpoint");
    assert_eq!(same_as_pg_controldata(&a.data()).state, ControlState::InProduction);
    let recovered = a.instance.crash_recovery(&[], &job).await.unwrap();
    assert_eq!(recovered.data.state, ControlState::ShutDown);
    assert_eq!(same_as_pg_controldata(&a.data()).state, ControlState::ShutDown);

    // Where the checkpoint record ends, pg_waldump finds no further record.
    let end = a.instance.shutdown_checkpoint().await.unwrap().unwrap();
    let out = Command::new(format!("{}/pg_waldump", bin()))
        .args([
            "-p",
            &a.data().join("pg_wal").display().to_string(),
            "-s",
            &end.checkpoint.to_string(),
        ])
        .env("LC_ALL", "C")
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(words.contains(&format!("at {}:", end.end.unwrap())), "{end:?}: {words}");

    let path = a.data().join("global/pg_control");
    let good = std::fs::read(&path).unwrap();
    for bad in [&good[..100], &[], &[7; 8192]] {
        std::fs::write(&path, bad).unwrap();
        assert!(matches!(read_control(&a.data()), Err(Error::Control { .. })));
        assert!(matches!(a.observe().await.data_dir, DataDir::Foreign { .. }));
    }
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(a.observe().await.data_dir, DataDir::Foreign { .. }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bootstrap_is_unfinished_until_somebody_says_it_is_done() {
    let a = Node::new();
    assert_eq!(a.observe().await.data_dir, DataDir::Empty);
    a.initdb().await;
    assert_eq!(
        a.observe().await.data_dir,
        DataDir::Unfinished {
            what: UnfinishedWork::Bootstrap
        }
    );
    let report = a.listen();
    let job = Job {
        cancel: &a.cancel,
        report: &report,
    };
    assert!(
        matches!(a.instance.initdb(&[], &job).await, Err(Error::Unsuitable { .. })),
        "never over existing data"
    );
    a.instance
        .write_config(&a.config("log_statement = 'all'\nlog_min_duration_statement = 0"))
        .await
        .unwrap();
    a.start_up().await;
    let script = a.root.path().join("script");
    std::fs::write(
        &script,
        format!(
            "#!/bin/sh\nexec {}/psql -X \"$2\" -c \"CREATE TABLE made AS SELECT '$1'\"\n",
            bin()
        ),
    )
    .unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let request = PostBootstrap {
        script: Some((script, vec!["by-script".into()])),
    };
    a.instance.post_bootstrap(&request, &job).await.unwrap();
    assert_eq!(a.sql("TABLE made"), "by-script");
    assert_eq!(
        a.sql("SELECT rolreplication FROM pg_roles WHERE rolname = 'replicator'"),
        "t"
    );
    assert_eq!(
        a.sql("SELECT has_function_privilege('rewind o''user', 'pg_read_binary_file(text)', 'execute')"),
        "t"
    );
    assert!(
        !a.log().contains("SCRAM-SHA-256$") && !a.log().contains(SUPER_PASSWORD),
        "no verifier in the log"
    );
    a.instance.unfinished().finish().unwrap();
    let view = a.observe().await;
    assert!(matches!(view.data_dir, DataDir::Present(_)));
    let facts = view.facts().unwrap();
    assert!(matches!(
        facts.role,
        SqlRole::Primary {
            timeline: Timeline(1),
            ..
        }
    ));
    assert!(facts.response_time > Duration::ZERO && facts.server_version >= 150_000);
    let failing = PostBootstrap {
        script: Some(("/bin/false".into(), vec![])),
    };
    assert!(matches!(
        a.instance.post_bootstrap(&failing, &job).await,
        Err(Error::Failed { .. })
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_postmaster_is_noticed_at_once_and_the_server_starts_again_beside_its_old_pid_file() {
    let a = Node::primary().await;
    let server = find_postmaster(&a.data(), "postgres").process().unwrap();
    assert!(matches!(a.start().await, StartOutcome::AlreadyRunning { process } if process == server));
    let noticed = tokio::spawn(wait_exit(server));
    let began = boot_time();
    a.kill_postmaster();
    noticed.await.unwrap().unwrap();
    assert!((boot_time() - began) < Duration::from_millis(500));
    assert_eq!(a.observe().await.postmaster, Postmaster::NotRunning);
    a.start_up().await;
    assert!((boot_time() - began) < Duration::from_secs(5));
    assert!(matches!(a.observe().await.sql, SqlView::Answered(_)));

    // An unrelated process under the recorded pid neither counts as the server nor hinders it.
    a.kill_postmaster();
    a.until("death", |v| v.postmaster == Postmaster::NotRunning).await;
    let pid_file = a.data().join("postmaster.pid");
    let text = std::fs::read_to_string(&pid_file).unwrap();
    let (_, rest) = text.split_once('\n').unwrap();
    let mut stranger = Command::new("sleep").arg("60").spawn().unwrap();
    std::fs::write(&pid_file, format!("{}\n{rest}", stranger.id())).unwrap();
    assert_eq!(a.observe().await.postmaster, Postmaster::NotRunning);
    a.start_up().await;
    stranger.kill().unwrap();
    stranger.wait().unwrap();

    // A server whose pid file was deleted is still a server.
    std::fs::remove_file(&pid_file).unwrap();
    assert!(matches!(a.observe().await.postmaster, Postmaster::Running { .. }));
    assert!(matches!(a.instance.wipe().await, Err(Error::InUse { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_server_gives_no_answer_and_the_observation_keeps_its_budget() {
    let a = Node::primary().await;
    assert!(
        matches!(a.observe().await.sql, SqlView::Answered(_)),
        "a connection is kept now"
    );
    let server = find_postmaster(&a.data(), "postgres").process().unwrap();
    let mut all = server_children(server);
    all.push(server);
    for p in &all {
        send_signal(*p, Signal::STOP).unwrap();
    }
    wait_until_stopped(server.pid);
    let budget = Duration::from_millis(600);
    for _ in 0..2 {
        let began = boot_time();
        let view = a.instance.observe(Mono(7), budget).await;
        assert!(
            (boot_time() - began) < budget + Duration::from_millis(300),
            "{:?}",
            (boot_time() - began)
        );
        assert!(
            matches!(
                view.sql,
                SqlView::Unanswered {
                    cannot_connect_now: false,
                    ..
                }
            ),
            "{:?}",
            view.sql
        );
        assert!(matches!(
            view.postmaster,
            Postmaster::Running {
                phase: PostmasterPhase::Unknown,
                ..
            }
        ));
        assert!(matches!(view.data_dir, DataDir::Present(_)));
        assert_eq!(view.observed_at, Mono(7));
    }
    for p in &all {
        send_signal(*p, Signal::CONT).unwrap();
    }
    a.until("an answer", |v| matches!(v.sql, SqlView::Answered(_))).await;

    // The last resort works on a frozen server too.
    send_signal(server, Signal::STOP).unwrap();
    wait_until_stopped(server.pid);
    let report = a.listen();
    let job = Job {
        cancel: &a.cancel,
        report: &report,
    };
    let request = StopRequest {
        mode: StopMode::Fast,
        checkpoint: Some(Duration::from_millis(100)),
        timeout: Duration::from_millis(200),
        after_timeout: AfterTimeout::Leave,
    };
    assert_eq!(
        a.instance.stop(&request, &a.launcher, &job).await.unwrap(),
        StopOutcome::StillRunning
    );
    let request = StopRequest {
        after_timeout: AfterTimeout::Kill,
        ..request
    };
    assert_eq!(
        a.instance.stop(&request, &a.launcher, &job).await.unwrap(),
        StopOutcome::Stopped { clean: None }
    );
    assert_eq!(
        a.instance.stop(&request, &a.launcher, &job).await.unwrap(),
        StopOutcome::NotRunning
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_settings_the_backends_and_what_waits_for_a_restart_are_seen() {
    let a = Node::primary().await;
    let server = find_postmaster(&a.data(), "postgres").process().unwrap();
    a.observe().await;
    let own = user_backends(server).len();
    assert_eq!(own, 1, "the kept connection");
    assert!(
        a.instance
            .write_config(&a.config("max_connections = 33"))
            .await
            .unwrap()
    );
    a.instance.reload(&a.launcher).await.unwrap();
    let view = a
        .until("a pending restart", |v| {
            v.facts().is_some_and(|f| !f.pending_restart.is_empty())
        })
        .await;
    let pending = &view.facts().unwrap().pending_restart[0];
    assert_eq!(
        (
            pending.name.as_str(),
            pending.old_value.as_str(),
            pending.new_value.as_str()
        ),
        ("max_connections", "20", "33")
    );
    let settings = a.instance.settings(LIMIT).await.unwrap();
    assert!(settings["max_connections"].pending_restart);
    assert_eq!(settings["cluster_name"].source, "command line");
    assert_eq!(a.instance.bin().version().await.unwrap().major, major(&a.data()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_is_judged_by_mode_mount_and_content_and_removed_with_all_it_links_to() {
    let a = Node::primary().await;
    let (data, root) = (a.data(), a.root.path().to_path_buf());
    let space = root.join("space");
    std::fs::create_dir(&space).unwrap();
    a.sql(&format!("CREATE TABLESPACE s LOCATION '{}'", space.display()));
    a.sql("CREATE TABLE t (i int) TABLESPACE s");
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o755)).unwrap();
    assert!(
        matches!(a.observe().await.data_dir, DataDir::Present(_)),
        "a running server does not mind"
    );
    let report = a.listen();
    let job = Job {
        cancel: &a.cancel,
        report: &report,
    };
    a.instance.stop(&stop(StopMode::Fast), &a.launcher, &job).await.unwrap();
    let DataDir::Inaccessible { reason } = a.observe().await.data_dir else {
        panic!()
    };
    assert!(reason.contains("0755") && reason.contains("chmod"), "{reason}");
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o750)).unwrap();
    assert!(matches!(a.observe().await.data_dir, DataDir::Present(_)));

    // WAL elsewhere, behind a link; a link that is none of PostgreSQL's business must not be followed.
    let (wal, precious) = (root.join("wal"), root.join("precious"));
    std::fs::rename(data.join("pg_wal"), &wal).unwrap();
    symlink(&wal, data.join("pg_wal")).unwrap();
    std::fs::create_dir(&precious).unwrap();
    std::fs::write(precious.join("keep"), "").unwrap();
    std::fs::write(space.join("keep"), "").unwrap();
    symlink(&precious, data.join("link")).unwrap();

    let astray = |from| DivergedWal {
        timeline: Timeline(1),
        from: Lsn(from),
        to: Lsn(from),
    };
    let kept = a.instance.keep_wal(astray(0)).await.unwrap();
    assert_eq!(kept.path, root.join("data.diverged-1-0"));
    let segments = std::fs::read_dir(&kept.path).unwrap().count();
    assert!(segments > 0 && segments == kept.files);
    assert_eq!(a.instance.keep_wal(astray(u64::MAX >> 1)).await.unwrap().files, 0);

    let aside = a.instance.set_aside(".failed").await.unwrap();
    assert_eq!(aside, root.join("data.failed"));
    assert!(root.join("wal.failed").is_dir() && root.join("space.failed").is_dir() && !wal.exists());
    assert_eq!(
        std::fs::read_link(aside.join("pg_wal")).unwrap(),
        root.join("wal.failed")
    );
    assert_eq!(a.observe().await.data_dir, DataDir::Empty);
    assert!(a.instance.set_aside("no-dot").await.is_err());

    std::fs::rename(&aside, &data).unwrap();
    a.instance.wipe().await.unwrap();
    assert_eq!(a.observe().await.data_dir, DataDir::Empty);
    assert_eq!(std::fs::read_dir(&data).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(root.join("wal.failed")).unwrap().count(), 0);
    assert!(precious.join("keep").exists() && root.join("space.failed/keep").exists());
    assert_eq!(std::fs::read_dir(root.join("space.failed")).unwrap().count(), 1);

    std::fs::write(data.join("notes.txt"), "").unwrap();
    assert!(matches!(a.observe().await.data_dir, DataDir::Foreign { .. }));
    std::fs::remove_file(data.join("notes.txt")).unwrap();
    std::fs::create_dir(data.join("lost+found")).unwrap();
    std::fs::write(data.join(".hidden"), "").unwrap();
    assert_eq!(a.observe().await.data_dir, DataDir::Empty);
    std::fs::write(root.join("state/pgha.mount"), "/mnt/gone\n").unwrap();
    assert!(
        matches!(a.observe().await.data_dir, DataDir::Inaccessible { .. }),
        "its mount is missing"
    );
}
