//! What the fence asks of the operating system once, at its start, and how it waits.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::error::AgentError;
use crate::stderr_log;

/// Opens the socket in the place of one that a killed fence left behind.
pub(super) fn listen(socket: &Path) -> Result<UnixListener, AgentError> {
    let os = |step: &str, e: io::Error| AgentError::os(format!("{step} {}", socket.display()), e);
    // With the lock held this is a leftover of a fence that was killed.
    match std::fs::remove_file(socket) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(os("remove", e)),
    }
    let listener = UnixListener::bind(socket).map_err(|e| os("listen at", e))?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600)).map_err(|e| os("restrict", e))?;
    listener.set_nonblocking(true).map_err(|e| os("listen at", e))?;
    Ok(listener)
}

/// Blocks the signals that the fence handles itself and returns where they arrive.
pub(super) fn take_signals() -> nix::Result<SignalFd> {
    let mut set = SigSet::empty();
    for signal in [
        Signal::SIGCHLD,
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGHUP,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
    ] {
        set.add(signal);
    }
    nix::sys::signal::sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), None)?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}

/// Closes what the daemon's launcher may have left open, so that neither fence nor postmaster keeps it open for years.
#[allow(unsafe_code)]
pub(super) fn close_inherited_files() {
    const FIRST: libc::c_uint = 3;
    const LAST_TRIED: libc::c_int = 1023;
    // SAFETY: called first thing in the process, when nothing in it owns a file above standard error.
    unsafe {
        if libc::close_range(FIRST, libc::c_uint::MAX, 0) != 0 {
            for fd in 3..=LAST_TRIED {
                libc::close(fd);
            }
        }
    }
}

/// Locks the memory, each page as it is first used: the whole of what is mapped would count against the limit of 8 MB that
/// an unprivileged user has, but not be resident.
#[allow(unsafe_code)]
pub(super) fn lock_memory() {
    // SAFETY: no pointers are involved.
    let result = unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT) };
    if result != 0 {
        let e = io::Error::last_os_error();
        stderr_log::line(
            "WARNING",
            "pgha-fence",
            format_args!(
                "cannot lock the memory of the fence ({e}); raise LimitMEMLOCK to 16 MB to be safe from swapping"
            ),
        );
    }
}

/// Waits until one of the files is ready; a wait cut short by a signal is no error. Entries with fd -1 are left out.
#[allow(unsafe_code)]
pub(super) fn poll(table: &mut [libc::pollfd], timeout: Option<Duration>) -> io::Result<()> {
    let timeout = timeout.map(|d| libc::timespec {
        tv_sec: libc::time_t::try_from(d.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: i64::from(d.subsec_nanos()),
    });
    let timeout = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    let len = libc::nfds_t::try_from(table.len()).unwrap_or(0);
    // SAFETY: `table` and `timeout` live through the call; entries with fd -1 are skipped by the kernel.
    if unsafe { libc::ppoll(table.as_mut_ptr(), len, timeout, std::ptr::null()) } >= 0 {
        return Ok(());
    }
    match io::Error::last_os_error() {
        e if e.kind() == io::ErrorKind::Interrupted => Ok(()),
        e => Err(e),
    }
}
