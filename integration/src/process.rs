//! Processes: starting them with a log file, and finding those that belong to a directory.
//!
//! The agent, its fence and the postmaster each have a session of their own, so no process group holds them together.
//! They are found by what they cannot shed: a variable in their environment, their program file, their working
//! directory, or a parent that was found.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::boottime;
use crate::netns::NetHost;
use crate::programs::base_name;
use crate::user::RunAs;

/// The variable that marks every process of a cluster; its value is the node's directory.
pub const MARK: &str = "SCRATCH_OF_PGHA";
/// Programs that are also recognised by their working directory or arguments, because PostgreSQL overwrites the
/// environment that the kernel shows. Other programs are not: somebody may be reading a log there.
const SERVERS: [&str; 5] = ["postgres", "etcd", "haproxy", "pgha", "pgha-fence"];
/// How long a directory's processes are killed again before it is called a failure.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// A process started by the harness. Killed and reaped when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    exit: Option<ExitStatus>,
}

impl Process {
    /// Starts `command` as `user` in `dir`, in a process group of its own so that a terminal's ctrl-C reaches only us.
    /// What it writes is appended to `log`.
    pub fn start(command: Command, user: &RunAs, dir: &Path, log: &Path) -> Result<Self> {
        Self::start_on(None, command, user, dir, log)
    }

    /// The same on a host of its own.
    pub fn start_on(
        host: Option<&NetHost>,
        mut command: Command,
        user: &RunAs,
        dir: &Path,
        log: &Path,
    ) -> Result<Self> {
        let out = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("cannot write {}", log.display()))?;
        let err = out.try_clone()?;
        user.apply(&mut command);
        command
            .env(MARK, dir)
            .current_dir(dir)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err);
        let spawned = match host {
            None => command.spawn(),
            Some(host) => host.enter(|| command.spawn())?,
        };
        let child = spawned.with_context(|| format!("cannot start {:?}", command.get_program()))?;
        Ok(Self { child, exit: None })
    }

    /// The process id.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap_or(i32::MAX))
    }

    /// Sends a signal, if it still runs.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.exit_status().is_none() {
            kill(self.pid(), signal).with_context(|| format!("cannot send {signal} to {}", self.pid()))?;
        }
        Ok(())
    }

    /// How it ended, if it has.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        if self.exit.is_none() {
            self.exit = self.child.try_wait().ok().flatten();
        }
        self.exit
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.exit_status().is_none() {
            // It may end on its own between the look and the kill; waiting for it is right in both cases.
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}

/// A line of the kernel's process list.
#[derive(Clone, Debug)]
pub struct Found {
    /// The process.
    pub pid: Pid,
    /// Its program's file name.
    pub program: String,
    /// Its arguments, joined by spaces; PostgreSQL shows here what a backend does.
    pub title: String,
}

/// Every living process that belongs to `dir`: a node's directory, or a whole scratch directory.
pub fn belonging_to(dir: &Path) -> Vec<Found> {
    let rows: Vec<Row> = fs::read_dir("/proc")
        .map(|entries| {
            entries
                .filter_map(|entry| Row::read(&entry.ok()?.path(), dir))
                .collect()
        })
        .unwrap_or_default();
    let mut members: BTreeSet<i32> = rows.iter().filter(|row| row.marked).map(|row| row.pid).collect();
    loop {
        let children: Vec<i32> = rows
            .iter()
            .filter(|row| members.contains(&row.parent) && !members.contains(&row.pid))
            .map(|row| row.pid)
            .collect();
        if children.is_empty() {
            break;
        }
        members.extend(children);
    }
    rows.into_iter()
        .filter(|row| members.contains(&row.pid))
        .map(|row| Found {
            pid: Pid::from_raw(row.pid),
            program: row.program,
            title: row.title,
        })
        .collect()
}

/// Kills every process that belongs to `dir` with `SIGKILL`, again until none is left.
pub fn kill_all(dir: &Path) -> Result<()> {
    let start = boottime::now();
    loop {
        let found = belonging_to(dir);
        if found.is_empty() {
            return Ok(());
        }
        for process in &found {
            // A process that went by itself since the look is what we want.
            kill(process.pid, Signal::SIGKILL).ok();
        }
        if boottime::since(start) > KILL_LIMIT {
            anyhow::bail!("these processes outlive SIGKILL: {found:?}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

struct Row {
    pid: i32,
    parent: i32,
    program: String,
    title: String,
    marked: bool,
}

impl Row {
    /// Nothing for what is no process, ourselves, and a zombie, which only waits for its parent.
    fn read(proc_dir: &Path, dir: &Path) -> Option<Self> {
        let pid: i32 = base_name(proc_dir).parse().ok()?;
        if pid == Pid::this().as_raw() {
            return None;
        }
        let stat = fs::read_to_string(proc_dir.join("stat")).ok()?;
        // The name in parentheses may itself contain spaces and parentheses.
        let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
        let state = fields.next()?;
        let parent: i32 = fields.next()?.parse().ok()?;
        if state == "Z" || state == "X" {
            return None;
        }
        let exe = fs::read_link(proc_dir.join("exe")).unwrap_or_default();
        let program = base_name(&exe).trim_end_matches(" (deleted)").to_owned();
        let title = text(&proc_dir.join("cmdline")).replace('\0', " ");
        let marked = exe.starts_with(dir)
            || is_marked(&text(&proc_dir.join("environ")), dir)
            || (SERVERS.contains(&program.as_str()) && (is_below(&proc_dir.join("cwd"), dir) || mentions(&title, dir)));
        Some(Self {
            pid,
            parent,
            program,
            title,
            marked,
        })
    }
}

fn text(file: &Path) -> String {
    fs::read(file)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default()
}

fn is_marked(environ: &str, dir: &Path) -> bool {
    environ
        .split('\0')
        .filter_map(|entry| entry.strip_prefix(MARK)?.strip_prefix('='))
        .any(|value| Path::new(value).starts_with(dir))
}

fn is_below(link: &Path, dir: &Path) -> bool {
    fs::read_link(link).is_ok_and(|cwd: PathBuf| cwd.starts_with(dir))
}

fn mentions(title: &str, dir: &Path) -> bool {
    title.contains(&format!("{}/", dir.display()))
}

/// What one process uses, as the kernel counts it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Resident memory.
    pub resident_kb: u64,
    /// Threads.
    pub threads: u64,
    /// CPU time since it started.
    pub cpu: Duration,
}

/// The usage of a process, nothing if it is gone.
pub fn usage(pid: Pid) -> Option<Usage> {
    /// Ticks per second in /proc; fixed by the kernel's interface on every Linux.
    const TICKS: u64 = 100;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| -> Option<u64> {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name))?
            .split_ascii_whitespace()
            .next()?
            .parse()
            .ok()
    };
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<u64>().ok());
    let cpu = ticks(11)? + ticks(12)?;
    Some(Usage {
        resident_kb: field("VmRSS:")?,
        threads: field("Threads:")?,
        cpu: Duration::from_millis(cpu * 1000 / TICKS),
    })
}
