//! Processes as `/proc` and pidfds show them.
//!
//! Invariant: a pid is only believed together with its start time, and a signal goes through a pidfd that was opened
//! before that check, so a reused pid is never hit. A zombie counts as gone: it runs nothing any more.
//! Absent on purpose: reaping. Whoever forked a process waits for it.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::error::Error;

/// A process that cannot be confused with a later one of the same pid.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ProcessId {
    /// Process id.
    pub pid: i32,
    /// `/proc/PID/stat` field 22: clock ticks after boot.
    pub start_ticks: u64,
}

/// What `/proc/PID/stat` says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Stat {
    /// `R`, `S`, `D`, `T`, `Z`, ...
    pub(crate) state: char,
    /// Parent.
    pub(crate) parent: i32,
    /// Start time in clock ticks after boot.
    pub(crate) start_ticks: u64,
}

impl Stat {
    fn is_gone(&self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x')
    }
    /// Stopped by a signal or a tracer: it is there and does nothing.
    pub(crate) fn is_frozen(&self) -> bool {
        matches!(self.state, 'T' | 't')
    }
}

/// Reads `/proc/PID/stat`; `None` when there is no such process or it is a zombie.
pub(crate) fn stat(pid: i32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    parse_stat(&text).filter(|s| !s.is_gone())
}

fn parse_stat(text: &str) -> Option<Stat> {
    // The name in parentheses may itself contain spaces and parentheses.
    let rest = &text[text.rfind(')')? + 1..];
    let mut fields = rest.split_whitespace();
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    let start_ticks = fields.nth(17)?.parse().ok()?;
    Some(Stat {
        state,
        parent,
        start_ticks,
    })
}

/// The living process with this pid, now.
pub fn process_id(pid: i32) -> Option<ProcessId> {
    stat(pid).map(|s| ProcessId {
        pid,
        start_ticks: s.start_ticks,
    })
}

/// Is exactly this process still alive?
pub fn is_alive(process: ProcessId) -> bool {
    stat(process.pid).is_some_and(|s| s.start_ticks == process.start_ticks)
}

/// File name of the program a process runs, without the mark of a file that an upgrade has replaced.
pub(crate) fn program_name(pid: i32) -> Option<String> {
    let path = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    let name = path.file_name()?.to_string_lossy().into_owned();
    Some(name.strip_suffix(" (deleted)").map(str::to_string).unwrap_or(name))
}

/// The command line, arguments joined by spaces. PostgreSQL's children write their title here.
pub(crate) fn title(pid: i32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes).replace('\0', " ");
    text.trim_end().to_string()
}

/// Does the process have `dir` as its working directory?
pub(crate) fn works_in(pid: i32, dir: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let cwd = PathBuf::from(format!("/proc/{pid}/cwd"));
    match (cwd.metadata(), dir.metadata()) {
        (Ok(a), Ok(b)) => a.dev() == b.dev() && a.ino() == b.ino(),
        _ => false,
    }
}

/// All pids in `/proc`.
pub(crate) fn all_pids() -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|e| e.file_name().to_str()?.parse().ok())
        .collect()
}

/// Living children of a process.
pub(crate) fn children(parent: ProcessId) -> Vec<ProcessId> {
    let list = fs::read_to_string(format!("/proc/{0}/task/{0}/children", parent.pid));
    let pids: Vec<i32> = match list {
        Ok(text) => text.split_whitespace().filter_map(|w| w.parse().ok()).collect(),
        // The kernel may be built without that file.
        Err(_) => all_pids(),
    };
    pids.into_iter()
        .filter_map(|pid| stat(pid).map(|s| (pid, s)))
        .filter(|(_, s)| s.parent == parent.pid)
        .map(|(pid, s)| ProcessId {
            pid,
            start_ticks: s.start_ticks,
        })
        .collect()
}

/// A pidfd of exactly this process; `None` when it is gone.
fn open(process: ProcessId) -> Result<Option<OwnedFd>, Error> {
    let Some(pid) = Pid::from_raw(process.pid) else {
        return Ok(None);
    };
    let fd = match pidfd_open(pid, PidfdFlags::NONBLOCK) {
        Ok(fd) => fd,
        Err(rustix::io::Errno::SRCH) => return Ok(None),
        Err(e) => return Err(io_error("open a pidfd of", process, e.into())),
    };
    Ok(is_alive(process).then_some(fd))
}

fn io_error(what: &'static str, process: ProcessId, source: io::Error) -> Error {
    Error::Io {
        what,
        path: PathBuf::from(format!("/proc/{}", process.pid)),
        source,
    }
}

/// Sends a signal to exactly this process. `Ok(false)` when it is gone already.
///
/// # Errors
/// The operating system refused.
pub fn send_signal(process: ProcessId, signal: Signal) -> Result<bool, Error> {
    let Some(fd) = open(process)? else { return Ok(false) };
    match pidfd_send_signal(&fd, signal) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::SRCH) => Ok(false),
        Err(e) => Err(io_error("signal", process, e.into())),
    }
}

/// Returns when the process has exited (at once when it has already). It need not be our child.
///
/// # Errors
/// The kernel gives no pidfd (too many open files).
pub async fn wait_exit(process: ProcessId) -> Result<(), Error> {
    let Some(fd) = open(process)? else { return Ok(()) };
    // SAFETY: an OwnedFd keeps its descriptor open and unchanged until it is dropped, and nothing else owns this one.
    #[allow(unsafe_code)]
    let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
    let fd = fd.map_err(|e| io_error("watch", process, e.into()))?;
    fd.readable().await.map(drop).map_err(|e| io_error("watch", process, e))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let text = "42 (a) b) (c) S 7 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 98765 1 2";
        assert_eq!(
            parse_stat(text),
            Some(Stat {
                state: 'S',
                parent: 7,
                start_ticks: 98765
            })
        );
        assert_eq!(parse_stat("42 (x"), None);
        assert_eq!(parse_stat(""), None);
    }

    #[tokio::test]
    async fn the_exit_of_a_process_is_noticed_and_its_pid_no_longer_believed() {
        let mut child = std::process::Command::new("sleep").arg("30").spawn().unwrap();
        let process = process_id(i32::try_from(child.id()).unwrap()).unwrap();
        assert!(is_alive(process));
        let other = ProcessId {
            start_ticks: process.start_ticks + 1,
            ..process
        };
        assert!(
            !send_signal(other, Signal::KILL).unwrap(),
            "a reused pid is not signalled"
        );
        wait_exit(other).await.unwrap();
        assert!(is_alive(process));
        assert!(send_signal(process, Signal::KILL).unwrap());
        tokio::time::timeout(std::time::Duration::from_secs(5), wait_exit(process))
            .await
            .unwrap()
            .unwrap();
        assert!(!is_alive(process), "a zombie counts as gone");
        child.wait().unwrap();
        assert!(!send_signal(process, Signal::KILL).unwrap());
    }
}
