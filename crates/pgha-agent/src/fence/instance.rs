//! The postmaster under watch and what is left of it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use pgha_core::units::Mono;

use super::kill;
use super::procs::{Kin, Procs, Table};
use super::wire::{Exited, Postmaster};
use crate::clock;

/// A postmaster, by a handle that cannot mean another process.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) pid: i32,
    pub(super) start_ticks: u64,
    pub(super) epoch: u64,
    handle: Handle,
}

#[derive(Debug)]
enum Handle {
    /// Our child: its pid stays taken until we reap it.
    Child,
    /// Somebody else's: only the pidfd is sure to mean it.
    Adopted { pidfd: OwnedFd, kin: Option<Kin> },
    /// Nobody, for the rehearsal.
    Nobody,
}

impl Watched {
    pub(super) fn child(pid: i32, start_ticks: u64, epoch: u64) -> Watched {
        Watched {
            pid,
            start_ticks,
            epoch,
            handle: Handle::Child,
        }
    }

    pub(super) fn nobody() -> Watched {
        Watched {
            pid: i32::MAX,
            start_ticks: 0,
            epoch: 0,
            handle: Handle::Nobody,
        }
    }

    /// Takes a running process that started at `start_ticks`. `None`: it is not there, or the pid is another's now.
    pub(super) fn adopt(procs: &Table, pid: i32, start_ticks: u64, epoch: u64) -> io::Result<Option<Watched>> {
        let Some(raw) = rustix::process::Pid::from_raw(pid) else {
            return Ok(None);
        };
        let pidfd = match rustix::process::pidfd_open(raw, rustix::process::PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        // Looked up after the handle was opened: if this is the process then so is the handle.
        match procs.one(pid) {
            Some(p) if p.start_ticks == start_ticks && !p.is_dead() => {
                let handle = Handle::Adopted {
                    pidfd,
                    kin: procs.kin(pid),
                };
                Ok(Some(Watched {
                    pid,
                    start_ticks,
                    epoch,
                    handle,
                }))
            }
            _ => Ok(None),
        }
    }

    pub(super) fn is_adopted(&self) -> bool {
        matches!(self.handle, Handle::Adopted { .. })
    }

    /// Becomes readable when an adopted postmaster ends. A child's end comes as SIGCHLD.
    pub(super) fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        match &self.handle {
            Handle::Adopted { pidfd, .. } => Some(pidfd.as_fd()),
            Handle::Child | Handle::Nobody => None,
        }
    }

    /// Sends a signal. That it is gone is no error: its end is noticed by other ways.
    pub(super) fn signal(&self, signal: Signal) {
        match &self.handle {
            Handle::Child => {
                let _gone = signal::kill(Pid::from_raw(self.pid), signal);
            }
            Handle::Adopted { pidfd, .. } => {
                if let Some(raw) = rustix::process::Signal::from_named_raw(signal as i32) {
                    let _gone = rustix::process::pidfd_send_signal(pidfd, raw);
                }
            }
            Handle::Nobody => {}
        }
    }
}

/// The one instance a fence watches over.
#[derive(Debug)]
pub(super) struct Instance {
    postmaster: Watched,
    ending: Option<Ending>,
}

/// The postmaster has ended or was killed; its processes are being cleared away.
#[derive(Debug)]
struct Ending {
    /// The postmaster's own end; `None` while SIGKILL has not done its work.
    ended: Option<Ended>,
    leftovers: u32,
}

#[derive(Clone, Copy, Debug)]
struct Ended {
    status: Option<i32>,
    /// Kin that started later than this are not its processes.
    cutoff: u64,
}

impl Instance {
    pub(super) fn new(postmaster: Watched) -> Instance {
        Instance {
            postmaster,
            ending: None,
        }
    }

    pub(super) fn postmaster(&self) -> &Watched {
        &self.postmaster
    }

    pub(super) fn is_ending(&self) -> bool {
        self.ending.is_some()
    }

    pub(super) fn describe(&self) -> Postmaster {
        Postmaster {
            pid: self.postmaster.pid,
            start_ticks: self.postmaster.start_ticks,
            epoch: self.postmaster.epoch,
            adopted: self.postmaster.is_adopted(),
            ending: self.is_ending(),
        }
    }

    /// Kills everything; [`Instance::sweep`] does the rest. Returns how many processes were sent SIGKILL.
    pub(super) fn kill(&mut self, procs: &mut Procs) -> u32 {
        let mut killed = 0;
        if self.ending.as_ref().is_none_or(|e| e.ended.is_none()) {
            killed += kill::kill_postmaster(procs, &self.postmaster);
        }
        if !self.postmaster.is_adopted() {
            killed += kill::kill_own_children(procs, Some(self.postmaster.pid));
        }
        self.ending.get_or_insert(Ending {
            ended: None,
            leftovers: 0,
        });
        killed
    }

    /// The postmaster was reaped.
    pub(super) fn reaped(&mut self, status: i32) {
        self.note_end(Some(status));
    }

    /// Looks whether an adopted postmaster has ended.
    pub(super) fn check_adopted(&mut self, procs: &Table) {
        if self.postmaster.is_adopted() {
            let alive = procs.one(self.postmaster.pid);
            if alive.is_none_or(|p| p.is_dead() || p.start_ticks != self.postmaster.start_ticks) {
                self.note_end(None);
            }
        }
    }

    fn note_end(&mut self, status: Option<i32>) {
        let ending = self.ending.get_or_insert(Ending {
            ended: None,
            leftovers: 0,
        });
        ending.ended.get_or_insert(Ended {
            status,
            cutoff: ticks_now(),
        });
    }

    /// Kills what is left after the postmaster's end. `Some`: nothing is left.
    ///
    /// Called again and again while [`Instance::is_ending`]: a process in the kernel's uninterruptible sleep can take
    /// its time, and until it is gone the data directory is in use.
    pub(super) fn sweep(&mut self, procs: &mut Procs) -> Option<Exited> {
        let ending = self.ending.as_mut()?;
        let ended = ending.ended?;
        let clear = match &self.postmaster.handle {
            Handle::Child => {
                ending.leftovers += kill::kill_own_children(procs, None);
                reap_orphans()
            }
            Handle::Adopted { kin: Some(kin), .. } => match kill::kill_kin(procs, *kin, ended.cutoff) {
                Some(found) => {
                    ending.leftovers += found;
                    found == 0
                }
                None => false,
            },
            Handle::Adopted { kin: None, .. } | Handle::Nobody => true,
        };
        clear.then(|| Exited {
            pid: self.postmaster.pid,
            epoch: self.postmaster.epoch,
            status: ended.status,
            at: clock::boot(),
            leftovers: ending.leftovers,
        })
    }
}

/// Reaps until no child is left. False: one is still there.
fn reap_orphans() -> bool {
    loop {
        match wait_any() {
            Waited::Reaped { .. } => {}
            Waited::NoneEnded => return false,
            Waited::NoChild => return true,
        }
    }
}

/// A look at the children of this process.
pub(super) enum Waited {
    /// One has ended and is reaped.
    Reaped { pid: i32, status: i32 },
    /// There are some, none has ended.
    NoneEnded,
    /// There are none.
    NoChild,
}

/// Reaps one child if one has ended. The status stays raw: nix cannot express a death by a real-time signal.
#[allow(unsafe_code)]
pub(super) fn wait_any() -> Waited {
    loop {
        let mut status = 0;
        // SAFETY: waitpid writes to `status` only.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
        match pid {
            0 => return Waited::NoneEnded,
            1.. => return Waited::Reaped { pid, status },
            _ if Errno::last() == Errno::EINTR => {}
            _ => return Waited::NoChild,
        }
    }
}

/// Boot time in the unit of `/proc/<pid>/stat`.
fn ticks_now() -> u64 {
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)
        .ok()
        .flatten()
        .unwrap_or(100);
    let Mono(nanos) = clock::boot();
    let ticks = u128::from(nanos) * u128::from(per_second.unsigned_abs()) / 1_000_000_000;
    u64::try_from(ticks).unwrap_or(u64::MAX)
}
