//! The demo keeps its promises: the script ends well, and nothing stays behind, however the demo ends.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pgha_integration::agent::Agent;
use pgha_integration::process::belonging_to;
use pgha_integration::wait::wait_for;

const BOOT_LIMIT: Duration = Duration::from_secs(120);
const END_LIMIT: Duration = Duration::from_secs(30);

/// One test, since the demo takes the well-known ports of 127.0.0.1 and two at once could want the same.
#[tokio::test(flavor = "multi_thread")]
async fn the_script_succeeds_and_nothing_ever_stays_behind() -> Result<()> {
    let root = tempfile::tempdir()?;
    std::fs::set_permissions(root.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;

    let output = demo(root.path()).args(["--script", "failover"]).output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "the script ended with {}:\n{said}",
        output.status
    );
    for phrase in [
        "lease gone",
        "lock taken by",
        "promoted",
        "first write through HAProxy",
        "rejoined by pg_rewind",
        "0 missing",
    ] {
        ensure!(said.contains(phrase), "the script does not say `{phrase}`:\n{said}");
    }
    ensure!(scratch_in(root.path()).is_none(), "the script left its directory");

    for signal in [Signal::SIGINT, Signal::SIGKILL] {
        ends_without_a_trace(root.path(), signal)
            .await
            .with_context(|| format!("after {signal}"))?;
    }
    Ok(())
}

async fn ends_without_a_trace(root: &Path, signal: Signal) -> Result<()> {
    let log = root.join("demo.out");
    let mut child = demo(root).stdout(std::fs::File::create(&log)?).spawn()?;
    let read = || std::fs::read_to_string(&log).unwrap_or_default();
    wait_for("the demo shows its table", BOOT_LIMIT, async || {
        read().contains("Ctrl-C stops everything").then_some(())
    })
    .await
    .with_context(read)?;
    let scratch = scratch_in(root).context("a scratch directory while it runs")?;
    ensure!(
        belonging_to(&scratch).len() > 10,
        "etcd, HAProxy, three agents and three PostgreSQL run"
    );
    let memory = shared_memory_of(&scratch);
    ensure!(
        memory.len() >= 3,
        "three servers have shared memory with names, but only these were found: {memory:?}"
    );
    kill(Pid::from_raw(i32::try_from(child.id())?), signal)?;
    let status = wait_for("the demo ends", END_LIMIT, async || child.try_wait().ok().flatten()).await?;
    ensure!(
        signal == Signal::SIGKILL || status.success(),
        "it ended with {status}:\n{}",
        read()
    );
    wait_for("every process is gone and the directory too", END_LIMIT, async || {
        (belonging_to(&scratch).is_empty() && !scratch.exists()).then_some(())
    })
    .await?;
    let left: Vec<_> = memory.into_iter().filter(SharedMemory::is_there).collect();
    ensure!(left.is_empty(), "shared memory is left behind: {left:?}");
    Ok(())
}

/// Shared memory with a name, which outlives its processes unless somebody removes it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum SharedMemory {
    /// A file in /dev/shm.
    Posix(PathBuf),
    /// The number of a System V segment.
    SystemV(String),
}

impl SharedMemory {
    fn is_there(&self) -> bool {
        match self {
            SharedMemory::Posix(path) => path.exists(),
            SharedMemory::SystemV(id) => std::fs::read_to_string("/proc/sysvipc/shm")
                .unwrap()
                .lines()
                .any(|line| line.split_ascii_whitespace().nth(1) == Some(id)),
        }
    }
}

/// What the processes below `dir` have mapped, as the kernel tells: a System V segment shows its number as the inode.
fn shared_memory_of(dir: &Path) -> BTreeSet<SharedMemory> {
    belonging_to(dir)
        .iter()
        .filter_map(|process| std::fs::read_to_string(format!("/proc/{}/maps", process.pid)).ok())
        .flat_map(|maps| {
            maps.lines()
                .filter_map(|line| {
                    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
                    let (inode, name) = (fields.get(4)?, fields.get(5)?);
                    if name.starts_with("/SYSV") {
                        Some(SharedMemory::SystemV((*inode).to_owned()))
                    } else if name.starts_with("/dev/shm/PostgreSQL.") {
                        Some(SharedMemory::Posix(PathBuf::from(name)))
                    } else {
                        None
                    }
                })
                .collect::<Vec<_>>()
        })
        .collect()
}

fn demo(root: &Path) -> Command {
    let agent = match Agent::from_env() {
        Agent::Pgha => "pgha",
        Agent::Patroni => "patroni",
    };
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgha-demo"));
    command
        .args(["--agent", agent])
        .env("PGHA_SCRATCH_ROOT", root)
        .stdin(Stdio::null());
    command
}

fn scratch_in(root: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(root).ok()?;
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.is_dir())
}
