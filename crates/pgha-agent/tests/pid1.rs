//! Process 1 of a real pid namespace. Where namespaces are not permitted each test says so and passes as skipped.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

fn probe() -> PathBuf {
    let mut dir = std::env::current_exe().unwrap();
    dir.pop();
    dir.pop();
    let probe = dir.join("examples/pid1_probe");
    assert!(probe.exists(), "build it first: cargo build -p pgha-agent --examples");
    probe
}

/// The probe as process 1, or `None` where that is not permitted.
fn as_pid1(test: &str, args: &[&str]) -> Option<Command> {
    let namespace = ["--pid", "--fork", "--mount-proc"];
    if !Command::new("unshare")
        .args(namespace)
        .arg("true")
        .status()
        .is_ok_and(|s| s.success())
    {
        eprintln!("SKIPPED {test}: pid namespaces are not permitted here");
        return None;
    }
    let mut command = Command::new("unshare");
    command.args(namespace).arg(probe()).args(args);
    Some(command)
}

fn run(test: &str, args: &[&str]) -> Option<Output> {
    as_pid1(test, args).map(|mut command| command.output().unwrap())
}

#[test]
fn the_exit_code_of_the_daemon_is_that_of_the_container() {
    for code in [0u8, 1, 42, 255] {
        let Some(output) = run("exit code", &["exit", &code.to_string()]) else {
            return;
        };
        assert_eq!(output.status.code(), Some(i32::from(code)), "{output:?}");
    }
}

#[test]
fn a_daemon_that_was_killed_is_not_a_success() {
    let Some(output) = run("killed daemon", &["die"]) else {
        return;
    };
    assert_eq!(output.status.code(), Some(137), "{output:?}");
}

#[test]
fn a_storm_of_orphans_is_reaped_and_own_children_keep_their_exit_codes() {
    let Some(output) = run("orphans", &["orphans", "50"]) else {
        return;
    };
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{log}");
    assert!(log.contains("exit status=3"), "{log}");
}

#[test]
fn signals_are_passed_on_to_the_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("signals");
    let Some(mut command) = as_pid1("signals", &["signals", file.to_str().unwrap()]) else {
        return;
    };
    let mut unshare = command.spawn().unwrap();
    let wait_for = |text: &str| {
        for _ in 0..400 {
            if std::fs::read_to_string(&file).unwrap_or_default().contains(text) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("{text} never came");
    };
    wait_for("ready");
    let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", unshare.id())).unwrap();
    let init = Pid::from_raw(children.trim().parse().unwrap());
    for signal in [
        Signal::SIGHUP,
        Signal::SIGQUIT,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGINT,
        Signal::SIGABRT,
    ] {
        kill(init, signal).unwrap();
        wait_for(signal.as_str());
    }
    kill(init, Signal::SIGTERM).unwrap();
    assert_eq!(unshare.wait().unwrap().code(), Some(42));
}
