//! Life as process 1 of a container: somebody must reap the orphans, and it must not be the daemon.
//!
//! Reaping everybody's children in the daemon would steal the exit codes of its own. So process 1 forks: the child becomes
//! the daemon, the parent only reaps, passes signals on and, when the daemon ends, ends with the same exit code, which
//! ends the container. (Patroni's returns 0 whatever happened, so that a failed start looked like a success.)
//!
//! Must be called before any other thread exists, since a fork keeps only the calling one.

use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::unistd::{ForkResult, Pid};

use crate::error::AgentError;
use crate::stderr_log;

/// The signals that are passed on.
const FORWARDED: [Signal; 7] = [
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGINT,
    Signal::SIGABRT,
    Signal::SIGTERM,
];

/// Which of the two processes this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// The daemon; or a process that was not process 1 in the first place.
    Daemon,
    /// Process 1, after the daemon has ended: leave with this code.
    Init(u8),
}

/// Splits process 1 in two; does nothing in any other process.
///
/// # Errors
/// [`AgentError::Os`] when the process has threads already or cannot fork.
pub fn split() -> Result<Split, AgentError> {
    if Pid::this().as_raw() != 1 {
        return Ok(Split::Daemon);
    }
    only_one_thread()?;
    let mut wanted = SigSet::empty();
    wanted.add(Signal::SIGCHLD);
    for signal in FORWARDED {
        wanted.add(signal);
    }
    // Blocked before the fork, so that none is lost between fork and wait.
    let before = block(&wanted)?;
    // SAFETY: checked above, there is one thread, so the child misses none that holds a lock.
    #[allow(unsafe_code)]
    let forked = unsafe { nix::unistd::fork() };
    match forked.map_err(|e| AgentError::os("fork the daemon", e))? {
        ForkResult::Child => {
            // A group of its own: Ctrl-C at a terminal reaches process 1, which passes it on once.
            let own_group = nix::unistd::setpgid(Pid::from_raw(0), Pid::from_raw(0));
            own_group.map_err(|e| AgentError::os("give the daemon a process group", e))?;
            sigprocmask(SigmaskHow::SIG_SETMASK, Some(&before), None)
                .map_err(|e| AgentError::os("restore the signals of the daemon", e))?;
            Ok(Split::Daemon)
        }
        ForkResult::Parent { child } => Ok(Split::Init(be_init(&wanted, child))),
    }
}

fn only_one_thread() -> Result<(), AgentError> {
    let what = "become the init of the container";
    let threads = std::fs::read_dir("/proc/self/task")
        .map_err(|e| AgentError::os(what, e))?
        .count();
    if threads == 1 {
        return Ok(());
    }
    Err(AgentError::os(
        what,
        std::io::Error::other(format!("the process has {threads} threads already")),
    ))
}

fn block(wanted: &SigSet) -> Result<SigSet, AgentError> {
    let mut before = SigSet::empty();
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(wanted), Some(&mut before))
        .map_err(|e| AgentError::os("take over the signals of the container", e))?;
    Ok(before)
}

/// Reaps and passes on until the daemon has ended; returns its exit code as a shell gives it.
fn be_init(wanted: &SigSet, daemon: Pid) -> u8 {
    loop {
        match wanted.wait() {
            Ok(Signal::SIGCHLD) => {
                if let Some(code) = reap(daemon) {
                    return code;
                }
            }
            Ok(signal) => {
                // The only error is that the daemon has just ended, which the next SIGCHLD says.
                let _ended = kill(daemon, signal);
            }
            Err(e) => stderr_log::line("ERROR", "pgha-init", format_args!("cannot wait for signals: {e}")),
        }
    }
}

/// Reaps all that have ended. `Some`: the daemon was among them.
#[allow(unsafe_code)]
fn reap(daemon: Pid) -> Option<u8> {
    let mut code = None;
    loop {
        let mut status = 0;
        // SAFETY: waitpid writes to `status` only. The raw call, as nix has no word for death by a real-time signal.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
        match pid {
            1.. if pid == daemon.as_raw() => code = Some(exit_code(status)),
            1.. => stderr_log::line(
                "INFO",
                "pgha-init",
                format_args!("Reaped pid={pid}, exit status={}", exit_code(status)),
            ),
            _ if pid < 0 && nix::errno::Errno::last() == nix::errno::Errno::EINTR => {}
            _ => return code,
        }
    }
}

fn exit_code(status: libc::c_int) -> u8 {
    let code = if libc::WIFSIGNALED(status) {
        128 + libc::WTERMSIG(status)
    } else {
        libc::WEXITSTATUS(status)
    };
    u8::try_from(code).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_a_shell_gives() {
        assert_eq!((exit_code(0), exit_code(7 << 8), exit_code(255 << 8)), (0, 7, 255));
        assert_eq!((exit_code(libc::SIGKILL), exit_code(libc::SIGTERM)), (137, 143));
    }

    #[test]
    fn any_other_process_is_left_as_it_is() {
        assert_eq!(split().expect("does nothing"), Split::Daemon);
    }
}
