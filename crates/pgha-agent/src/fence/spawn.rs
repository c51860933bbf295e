//! Starting the postmaster as a child that dies with the fence.

use std::ffi::{CString, OsStr};
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::unistd::{ForkResult, Pid};
use rustix::event::{PollFd, PollFlags};

use super::wire::StartSpec;
use crate::clock;

/// How long the program's file may take to be loaded. While the fence waits for it no postmaster runs, so no deadline can
/// be missed.
const EXEC_WAIT: Duration = Duration::from_secs(10);

/// All that the child needs, made before the fork.
struct Prepared {
    program: CString,
    argv: Vec<CString>,
    env: Vec<CString>,
    cwd: CString,
    null: File,
    log: Option<File>,
}

/// Starts it and returns its pid, once the program has taken the place of the fork.
///
/// # Errors
/// A sentence for the daemon: which step failed and why.
#[allow(unsafe_code)]
pub(super) fn spawn(spec: &StartSpec) -> Result<i32, String> {
    let prepared = prepare(spec)?;
    let (mut failure, failed) = io::pipe().map_err(|e| format!("cannot create a pipe: {e}"))?;
    let parent = Pid::this();
    // SAFETY: this process has one thread, so no lock is held in the child by a thread that is not there.
    let child = match unsafe { nix::unistd::fork() }.map_err(|e| format!("cannot fork: {e}"))? {
        ForkResult::Child => {
            let (step, errno) = become_postmaster(&prepared, parent);
            let errno = (errno as i32).to_le_bytes();
            let _unread = nix::unistd::write(&failed, &[step, errno[0], errno[1], errno[2], errno[3]]);
            // SAFETY: ends the process without running the parent's exit handlers.
            unsafe { libc::_exit(127) }
        }
        ForkResult::Parent { child } => child,
    };
    drop(failed);
    let wait = clock::timespec_of(EXEC_WAIT);
    let ready =
        rustix::io::retry_on_intr(|| rustix::event::poll(&mut [PollFd::new(&failure, PollFlags::IN)], Some(&wait)));
    let mut report = [0u8; 5];
    let problem = match ready {
        Ok(1..) => match failure.read(&mut report) {
            // The write end was closed by a successful exec.
            Ok(0) => return Ok(child.as_raw()),
            Ok(5) => {
                let errno = i32::from_le_bytes([report[1], report[2], report[3], report[4]]);
                format!(
                    "cannot {}: {}",
                    step_name(report[0], spec),
                    Errno::from_raw(errno).desc()
                )
            }
            Ok(_) | Err(_) => "it failed without saying why".to_owned(),
        },
        Ok(0) | Err(_) => format!("{} did not load within {EXEC_WAIT:?}", spec.program.display()),
    };
    let _gone = nix::sys::signal::kill(child, Signal::SIGKILL);
    let _reaped = nix::sys::wait::waitpid(child, None);
    Err(problem)
}

const STEP_SIGNALS: u8 = 1;
const STEP_PARENT: u8 = 2;
const STEP_STDIO: u8 = 3;
const STEP_CWD: u8 = 4;
const STEP_EXEC: u8 = 5;

fn step_name(step: u8, spec: &StartSpec) -> String {
    match step {
        STEP_SIGNALS => "reset the signals".to_owned(),
        STEP_PARENT => "tie the postmaster to the fence".to_owned(),
        STEP_STDIO => "redirect the output".to_owned(),
        STEP_CWD => format!("enter {}", spec.cwd.display()),
        _ => format!("run {}", spec.program.display()),
    }
}

fn prepare(spec: &StartSpec) -> Result<Prepared, String> {
    if !spec.program.is_absolute() {
        return Err(format!(
            "the program {} is not an absolute path",
            spec.program.display()
        ));
    }
    let program = c_string(spec.program.as_os_str())?;
    let mut argv = vec![program.clone()];
    for arg in &spec.args {
        argv.push(c_string(arg)?);
    }
    let mut env = Vec::with_capacity(spec.env.len());
    for (name, value) in &spec.env {
        let mut pair = name.clone();
        pair.push("=");
        pair.push(value);
        env.push(c_string(&pair)?);
    }
    let open = |options: &mut OpenOptions, path: &std::path::Path| {
        options
            .open(path)
            .map_err(|e| format!("cannot open {}: {e}", path.display()))
    };
    let null = open(OpenOptions::new().read(true), std::path::Path::new("/dev/null"))?;
    let log = match &spec.log {
        Some(path) => {
            let mut options = OpenOptions::new();
            // Not blocking while it is opened, as a FIFO without a reader would.
            options
                .append(true)
                .create(true)
                .mode(0o600)
                .custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK);
            let file = open(&mut options, path)?;
            rustix::fs::fcntl_setfl(&file, rustix::fs::OFlags::APPEND)
                .map_err(|e| format!("cannot write to {}: {e}", path.display()))?;
            Some(file)
        }
        None => None,
    };
    Ok(Prepared {
        program,
        argv,
        env,
        cwd: c_string(spec.cwd.as_os_str())?,
        null,
        log,
    })
}

fn c_string(text: &OsStr) -> Result<CString, String> {
    CString::new(text.as_bytes()).map_err(|_| "a text with a zero byte cannot be passed to a program".to_owned())
}

/// Runs in the child; returns only on failure, with the step and the reason.
fn become_postmaster(prepared: &Prepared, parent: Pid) -> (u8, Errno) {
    match prepare_child(prepared, parent) {
        Err(failure) => failure,
        Ok(()) => {
            let Err(errno) = nix::unistd::execve(&prepared.program, &prepared.argv, &prepared.env);
            (STEP_EXEC, errno)
        }
    }
}

#[allow(unsafe_code)]
fn prepare_child(prepared: &Prepared, parent: Pid) -> Result<(), (u8, Errno)> {
    for number in 1..=libc::SIGRTMAX() {
        // SAFETY: sets the default action; numbers that cannot be changed (SIGKILL, glibc's own) are refused, no matter.
        unsafe { libc::signal(number, libc::SIG_DFL) };
    }
    nix::sys::signal::sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)
        .map_err(|e| (STEP_SIGNALS, e))?;
    // Only fails for a leader of a process group, which a fresh fork is not.
    nix::unistd::setsid().map_err(|e| (STEP_SIGNALS, e))?;
    // An immediate shutdown: a postmaster whose fence is dead is not fenced any more.
    nix::sys::prctl::set_pdeathsig(Signal::SIGQUIT).map_err(|e| (STEP_PARENT, e))?;
    if Pid::parent() != parent {
        // It died between fork and prctl, so the signal will never come.
        return Err((STEP_PARENT, Errno::ESRCH));
    }
    redirect(prepared.null.as_raw_fd(), libc::STDIN_FILENO)?;
    let out = prepared.log.as_ref().map_or(libc::STDERR_FILENO, File::as_raw_fd);
    redirect(out, libc::STDOUT_FILENO)?;
    redirect(out, libc::STDERR_FILENO)?;
    nix::unistd::chdir(prepared.cwd.as_c_str()).map_err(|e| (STEP_CWD, e))
}

/// Everything else is close-on-exec, see [`super::server`].
#[allow(unsafe_code)]
fn redirect(from: RawFd, to: RawFd) -> Result<(), (u8, Errno)> {
    // SAFETY: dup2 of two plain numbers; nothing owns the target.
    Errno::result(unsafe { libc::dup2(from, to) })
        .map(drop)
        .map_err(|e| (STEP_STDIO, e))
}
