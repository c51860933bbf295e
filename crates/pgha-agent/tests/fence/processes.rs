//! The fence over a fake postmaster whose children ignore every signal that can be ignored.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pgha_agent::clock;
use pgha_agent::fence::client::{Attached, FenceEvent};
use pgha_agent::fence::wire::{NoGuard, PgSignal, RefusalKind, StartSpec, Status};
use tokio::time::sleep;

use crate::rig::*;

#[tokio::test]
async fn when_the_deadline_passes_the_postmaster_and_every_child_are_killed() {
    let rig = Rig::new();
    let mut fence = rig.attach().await;
    assert!(!fence.reattached);
    fence.client.set_deadline(in_ms(60_000)).await.unwrap();
    let pid = rig.start(&fence.client).await;
    fence.client.set_deadline(in_ms(100)).await.unwrap();
    let fired = fired(&mut fence).await;
    assert_punctual(fired);
    assert!(fired.killed >= 4, "{fired:?}");
    let exited = exited(&mut fence).await;
    assert_eq!(
        (exited.pid, exited.epoch, exited.status),
        (pid, 77, Some(libc::SIGKILL))
    );
    assert!(rig.processes().is_empty(), "Exited is said only when all are gone");
}

#[tokio::test]
async fn the_deadline_holds_without_a_daemon() {
    let rig = Rig::new();
    let fence = rig.attach().await;
    fence.client.set_deadline(in_ms(60_000)).await.unwrap();
    rig.start(&fence.client).await;
    fence.client.set_deadline(in_ms(300)).await.unwrap();
    drop(fence);
    sleep(Duration::from_millis(200)).await;
    assert!(!rig.processes().is_empty(), "a daemon that goes is no reason to kill");
    rig.all_gone().await;
    let again = rig.attach().await;
    assert!(again.reattached);
    assert_punctual(again.status.fired.expect("it says that it fired"));
    assert!(again.status.latched && again.status.postmaster.is_none());
    assert_eq!(again.status.last_exit.map(|e| e.epoch), Some(77));
}

#[tokio::test]
async fn a_newer_deadline_replaces_the_older_one() {
    let rig = Rig::new();
    let mut fence = rig.attach().await;
    fence.client.set_deadline(in_ms(60_000)).await.unwrap();
    rig.start(&fence.client).await;
    // Each of them would have fired before the last one was replaced.
    for _ in 0..6 {
        fence.client.set_deadline(in_ms(1_000)).await.unwrap();
        sleep(Duration::from_millis(250)).await;
    }
    fence.client.lift_deadline(NoGuard::Pause).await.unwrap();
    sleep(Duration::from_millis(1_100)).await;
    assert!(fence.events.try_recv().is_err(), "nothing happened");
    assert!(rig.processes().len() >= 7);
}

#[tokio::test]
async fn a_deadline_in_the_past_fires_at_once() {
    let rig = Rig::new();
    let mut fence = rig.attach().await;
    fence.client.lift_deadline(NoGuard::Standby).await.unwrap();
    rig.start(&fence.client).await;
    let sent = clock::boot();
    fence.client.set_deadline(pgha_core::units::Mono(1)).await.unwrap();
    let fired = fired(&mut fence).await;
    assert!(fired.at.since(sent) < PUNCTUAL);
    rig.all_gone().await;
}

#[tokio::test]
async fn after_it_fired_nothing_starts_until_a_newer_guard_is_set() {
    let rig = Rig::new();
    let mut fence = rig.attach().await;
    let refused = |e: pgha_agent::AgentError| e.refusal();
    assert_eq!(
        fence.client.start(rig.spec()).await.map_err(refused),
        Err(Some(RefusalKind::NoGuard))
    );
    fence.client.set_deadline(in_ms(50)).await.unwrap();
    assert_eq!(fired(&mut fence).await.killed, 0, "nothing was running");
    assert_eq!(
        fence.client.start(rig.spec()).await.map_err(refused),
        Err(Some(RefusalKind::Fired))
    );
    fence.client.set_deadline(in_ms(60_000)).await.unwrap();
    rig.start(&fence.client).await;
    assert_eq!(
        fence.client.start(rig.spec()).await.map_err(refused),
        Err(Some(RefusalKind::Running))
    );
    assert_eq!(
        fence.client.quit().await.map_err(refused),
        Err(Some(RefusalKind::Running))
    );
}

#[tokio::test]
async fn when_the_fence_is_killed_the_postmaster_gets_sigquit() {
    let rig = Rig::new();
    let mut fence = rig.attach().await;
    fence.client.lift_deadline(NoGuard::Standby).await.unwrap();
    let pid = rig.start(&fence.client).await;
    kill(Pid::from_raw(fence.client.fence_pid()), Signal::SIGKILL).unwrap();
    assert!(matches!(fence.events.recv().await, Some(FenceEvent::Lost(_))));
    eventually("the postmaster is gone", || !rig.processes().contains(&pid)).await;
    let error = fence.client.status().await.unwrap_err().to_string();
    assert!(error.contains("lost the fence"), "{error}");
    let next = rig.attach().await;
    assert!(!next.reattached, "a leftover socket does not stop the next fence");
}

#[tokio::test]
async fn sigterm_to_the_fence_is_ignored_while_a_postmaster_runs() {
    let rig = Rig::new();
    let fence = rig.attach().await;
    fence.client.lift_deadline(NoGuard::Standby).await.unwrap();
    rig.start(&fence.client).await;
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT] {
        kill(Pid::from_raw(fence.client.fence_pid()), signal).unwrap();
    }
    sleep(Duration::from_millis(200)).await;
    assert!(fence.client.status().await.unwrap().postmaster.is_some());
}

#[tokio::test]
async fn a_restarted_daemon_finds_the_running_postmaster_and_goes_on_counting() {
    let rig = Rig::new();
    let first = rig.attach().await;
    first.client.set_deadline(in_ms(60_000)).await.unwrap();
    let pid = rig.start(&first.client).await;
    let Attached {
        client: stale,
        events: mut stale_events,
        ..
    } = first;
    let mut second = rig.attach().await;
    assert!(second.reattached);
    let postmaster = second.status.postmaster.expect("it runs");
    assert_eq!((postmaster.pid, postmaster.epoch, postmaster.adopted), (pid, 77, false));
    assert_eq!(second.status.seq, 1);
    assert!(
        matches!(stale_events.recv().await, Some(FenceEvent::Lost(_))),
        "one daemon at a time"
    );
    stale.set_deadline(in_ms(90_000)).await.unwrap_err();
    second.client.set_deadline(in_ms(50)).await.unwrap();
    assert_punctual(fired(&mut second).await);
}

#[tokio::test]
async fn when_the_postmaster_is_killed_its_orphans_are_cleared_away_before_exited_is_said() {
    let rig = Rig::new();
    let mut fence = rig.attach().await;
    fence.client.lift_deadline(NoGuard::Standby).await.unwrap();
    let pid = rig.start(&fence.client).await;
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    let exited = exited(&mut fence).await;
    assert_eq!(exited.status, Some(libc::SIGKILL));
    assert!(exited.leftovers >= 3, "{exited:?}");
    assert!(rig.processes().is_empty(), "{:?}", rig.processes());
    assert!(fence.client.status().await.unwrap().postmaster.is_none());
    fs::remove_file(rig.file("ready")).unwrap();
    rig.start(&fence.client).await;
}

#[tokio::test]
async fn an_exit_status_arrives_as_it_was_and_signals_reach_the_postmaster() {
    let rig = Rig::new();
    let mut fence = rig.attach().await;
    fence.client.lift_deadline(NoGuard::Standby).await.unwrap();
    rig.start(&fence.client).await;
    fence.client.signal(PgSignal::Immediate).await.unwrap();
    assert_eq!(exited(&mut fence).await.status, Some(7 << 8));
    let refusal = fence.client.signal(PgSignal::Reload).await.unwrap_err().refusal();
    assert_eq!(refusal, Some(RefusalKind::NotRunning));
}

#[tokio::test]
async fn a_stopped_postmaster_is_killed_all_the_same() {
    let rig = Rig::new();
    let mut fence = rig.attach().await;
    fence.client.set_deadline(in_ms(60_000)).await.unwrap();
    rig.start(&fence.client).await;
    for pid in rig.processes() {
        kill(Pid::from_raw(pid), Signal::SIGSTOP).unwrap();
    }
    fence.client.set_deadline(in_ms(50)).await.unwrap();
    assert_punctual(fired(&mut fence).await);
    exited(&mut fence).await;
    assert!(rig.processes().is_empty(), "{:?}", rig.processes());
}

#[tokio::test]
async fn a_fence_that_was_frozen_beyond_the_deadline_fires_as_soon_as_it_runs_again() {
    let rig = Rig::new();
    let mut fence = rig.attach().await;
    fence.client.set_deadline(in_ms(60_000)).await.unwrap();
    rig.start(&fence.client).await;
    fence.client.set_deadline(in_ms(200)).await.unwrap();
    let pid = Pid::from_raw(fence.client.fence_pid());
    kill(pid, Signal::SIGSTOP).unwrap();
    sleep(Duration::from_millis(600)).await;
    let thawed = clock::boot();
    kill(pid, Signal::SIGCONT).unwrap();
    assert!(fired(&mut fence).await.at.since(thawed) < PUNCTUAL);
}

#[tokio::test]
async fn a_newer_deadline_that_waits_in_the_socket_of_a_frozen_fence_counts() {
    let rig = Rig::new();
    let mut fence = rig.attach().await;
    fence.client.set_deadline(in_ms(60_000)).await.unwrap();
    rig.start(&fence.client).await;
    fence.client.set_deadline(in_ms(300)).await.unwrap();
    let pid = Pid::from_raw(fence.client.fence_pid());
    kill(pid, Signal::SIGSTOP).unwrap();
    let client = fence.client.clone();
    let newer = tokio::spawn(async move { client.set_deadline(in_ms(60_000)).await });
    sleep(Duration::from_millis(600)).await;
    kill(pid, Signal::SIGCONT).unwrap();
    newer.await.unwrap().unwrap();
    sleep(Duration::from_millis(100)).await;
    assert!(fence.events.try_recv().is_err(), "nothing happened");
    assert!(rig.processes().len() >= 7);
}

#[tokio::test]
async fn a_fence_that_does_not_answer_is_reported_as_lost_in_bounded_time() {
    let rig = Rig::new();
    let fence = rig.attach().await;
    let pid = Pid::from_raw(fence.client.fence_pid());
    kill(pid, Signal::SIGSTOP).unwrap();
    let error = fence.client.status().await.unwrap_err().to_string();
    kill(pid, Signal::SIGCONT).unwrap();
    assert!(error.contains("no answer within 2s"), "{error}");
    fence
        .client
        .status()
        .await
        .expect("a late answer to the first question is not taken for that to the second");
}

#[tokio::test]
async fn hundreds_of_children_are_killed_in_time() {
    let rig = Rig::new();
    let mut fence = rig.attach().await;
    fence.client.set_deadline(in_ms(60_000)).await.unwrap();
    let script = "for i in $(seq 300); do sleep 1000 & done; touch \"$DIR/ready\"; while :; do wait; done";
    let spec = StartSpec {
        args: vec!["-c".into(), script.into()],
        ..rig.spec()
    };
    fence.client.start(spec).await.unwrap();
    eventually("all are there", || rig.file("ready").exists()).await;
    fence.client.set_deadline(in_ms(100)).await.unwrap();
    let fired = fired(&mut fence).await;
    assert_punctual(fired);
    assert_eq!(fired.killed, 301);
    exited(&mut fence).await;
    assert!(rig.processes().is_empty(), "{:?}", rig.processes());
}

#[tokio::test]
async fn kill_all_kills_at_once_and_does_not_latch() {
    let rig = Rig::new();
    let mut fence = rig.attach().await;
    fence.client.set_deadline(in_ms(60_000)).await.unwrap();
    rig.start(&fence.client).await;
    fence.client.kill_all().await.unwrap();
    exited(&mut fence).await;
    assert!(rig.processes().is_empty(), "{:?}", rig.processes());
    assert!(!fence.client.status().await.unwrap().latched);
}

#[tokio::test]
async fn the_postmaster_gets_its_own_environment_output_and_no_files_of_the_fence() {
    let rig = Rig::new();
    let fence = rig.attach().await;
    fence.client.lift_deadline(NoGuard::Standby).await.unwrap();
    rig.start(&fence.client).await;
    assert_eq!(fs::read_to_string(rig.file("args")).unwrap(), "-D a b\n");
    let env = fs::read_to_string(rig.file("env")).unwrap();
    let names: Vec<_> = env
        .lines()
        .filter_map(|line| line.split_once('=').map(|(name, _)| name))
        .collect();
    // PWD and _ are set by the shell itself.
    assert!(
        names
            .iter()
            .all(|n| ["DIR", "PATH", "PGHA_TEST_MARK", "PWD", "_", "OLDPWD", "SHLVL"].contains(n)),
        "{env}"
    );
    // 0 to 2, and the directory that ls itself has open.
    assert_eq!(fs::read_to_string(rig.file("fds")).unwrap(), "0\n1\n2\n3\n");
    assert_eq!(
        fs::metadata(rig.file("log")).unwrap().permissions().mode() & 0o777,
        0o600
    );
}

#[tokio::test]
async fn what_cannot_be_started_is_refused_with_the_reason() {
    let rig = Rig::new();
    let fence = rig.attach().await;
    fence.client.lift_deadline(NoGuard::Standby).await.unwrap();
    let broken = [
        (
            StartSpec {
                program: "/nonexistent/postgres".into(),
                ..rig.spec()
            },
            "No such file",
        ),
        (
            StartSpec {
                program: "sh".into(),
                ..rig.spec()
            },
            "absolute",
        ),
        (
            StartSpec {
                program: "/etc/passwd".into(),
                ..rig.spec()
            },
            "Permission denied",
        ),
        (
            StartSpec {
                cwd: "/nonexistent".into(),
                ..rig.spec()
            },
            "enter /nonexistent",
        ),
        (
            StartSpec {
                log: Some("/nonexistent/log".into()),
                ..rig.spec()
            },
            "open /nonexistent/log",
        ),
        (
            StartSpec {
                args: vec!["a\0b".into()],
                ..rig.spec()
            },
            "zero byte",
        ),
    ];
    for (spec, reason) in broken {
        let error = fence.client.start(spec).await.unwrap_err();
        assert_eq!(error.refusal(), Some(RefusalKind::CannotStart));
        assert!(error.to_string().contains(reason), "{error}");
    }
    rig.start(&fence.client).await;
}

#[tokio::test]
async fn a_postmaster_that_somebody_else_started_is_adopted_and_killed_at_the_deadline() {
    let rig = Rig::new();
    let mut foreign = foreign_postmaster(&rig);
    let pid = i32::try_from(foreign.id()).unwrap();
    let mut fence = rig.attach().await;
    fence.client.set_deadline(in_ms(60_000)).await.unwrap();
    eventually("its children run", || rig.processes().len() >= 7).await;
    let wrong = fence.client.adopt(pid, start_ticks(pid) + 1, 5).await.unwrap_err();
    assert_eq!(wrong.refusal(), Some(RefusalKind::NoSuchProcess));
    fence.client.adopt(pid, start_ticks(pid), 5).await.unwrap();
    let status: Status = fence.client.status().await.unwrap();
    assert!(
        status
            .postmaster
            .is_some_and(|p| p.adopted && p.epoch == 5 && p.pid == pid)
    );
    fence.client.set_deadline(in_ms(50)).await.unwrap();
    assert_punctual(fired(&mut fence).await);
    foreign.wait().unwrap();
    let exited = exited(&mut fence).await;
    assert_eq!((exited.pid, exited.epoch, exited.status), (pid, 5, None));
    // What the children had started themselves is nobody's business any more, see the module.
    eventually("the shells are gone", || {
        rig.processes().iter().all(|pid| cmdline(*pid).starts_with("sleep"))
    })
    .await;
}

#[tokio::test]
async fn the_orphans_of_an_adopted_postmaster_are_found_and_a_newer_postmaster_is_spared() {
    let rig = Rig::new();
    let mut foreign = foreign_postmaster(&rig);
    let pid = i32::try_from(foreign.id()).unwrap();
    let mut fence = rig.attach().await;
    fence.client.lift_deadline(NoGuard::Pause).await.unwrap();
    eventually("its children run", || rig.processes().len() >= 7).await;
    fence.client.adopt(pid, start_ticks(pid), 5).await.unwrap();
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    foreign.wait().unwrap();
    let exited = exited(&mut fence).await;
    assert!(exited.leftovers >= 3, "{exited:?}");
    let mut next = foreign_postmaster(&rig);
    sleep(Duration::from_millis(200)).await;
    assert!(
        next.try_wait().unwrap().is_none(),
        "the next postmaster was not touched"
    );
}

#[tokio::test]
async fn a_second_fence_on_the_same_directory_is_refused() {
    let rig = Rig::new();
    let fence = rig.attach().await;
    let second = Command::new(FENCE).arg(rig.state.path()).output().unwrap();
    assert_eq!(second.status.code(), Some(3));
    let message = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(
        message.contains(&format!("pid {}", fence.client.fence_pid())),
        "{message}"
    );
    fence.client.status().await.expect("the first one still serves");
}

#[tokio::test]
async fn garbage_on_the_socket_costs_only_its_own_connection() {
    let rig = Rig::new();
    let fence = rig.attach().await;
    for garbage in [
        &b"\xff\xff\xff\xff"[..],
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x05\0\0\0\x05\0\0\0\0",
    ] {
        let mut stream = std::os::unix::net::UnixStream::connect(rig.state.socket()).unwrap();
        std::io::Write::write_all(&mut stream, garbage).unwrap();
        sleep(Duration::from_millis(20)).await;
        fence.client.status().await.expect("the daemon is still served");
    }
}

#[tokio::test]
async fn the_fence_is_small_and_its_memory_is_locked() {
    let rig = Rig::new();
    let fence = rig.attach().await;
    fence.client.lift_deadline(NoGuard::Standby).await.unwrap();
    rig.start(&fence.client).await;
    let status = fs::read_to_string(format!("/proc/{}/status", fence.client.fence_pid())).unwrap();
    let kb = |name: &str| -> u64 {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    eprintln!(
        "fence: resident {} kB, locked {} kB, mapped {} kB",
        kb("VmRSS"),
        kb("VmLck"),
        kb("VmSize")
    );
    assert!(kb("VmRSS") < 3 * 1024, "{status}");
    assert!(kb("VmLck") > 0, "{status}");
    assert!(
        kb("VmSize") < 8 * 1024,
        "more could not be locked without a privilege: {status}"
    );
    assert_eq!(kb("Threads"), 1);
}

#[tokio::test]
async fn quit_ends_it_and_removes_the_socket() {
    let rig = Rig::new();
    let mut fence = rig.attach().await;
    fence.client.quit().await.unwrap();
    assert!(matches!(fence.events.recv().await, Some(FenceEvent::Lost(_))));
    eventually("the socket is gone", || !rig.state.socket().exists()).await;
    // The lock goes with the process, a moment after the socket.
    eventually("the place is free", || rig.state.lock_fence().is_ok()).await;
}

#[tokio::test]
async fn without_postmaster_and_daemon_it_leaves_after_ten_seconds() {
    let rig = Rig::new();
    let fence = rig.attach().await;
    let pid = fence.client.fence_pid();
    drop(fence);
    sleep(Duration::from_secs(8)).await;
    assert!(
        cmdline(pid).contains("pgha-fence"),
        "it waits for a daemon that is being restarted"
    );
    eventually("it has left", || !rig.state.socket().exists()).await;
}
