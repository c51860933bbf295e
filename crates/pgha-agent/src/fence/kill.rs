//! The kill path. Nothing here allocates, logs or waits for another process's good will.

use std::time::Duration;

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

use super::instance::Watched;
use super::procs::{Kin, Procs};
use crate::clock;

/// How long a SIGSTOP may take to show before the children are killed anyway. A postmaster that does not stop within it
/// is in the kernel and cannot fork there.
const STOP_WAIT: Duration = Duration::from_millis(20);
/// Passes over the process table before the postmaster is killed although new children still turn up.
const MAX_PASSES: u32 = 20;

/// Kills a postmaster with all its children and returns how many processes that were.
///
/// It is stopped first, so that it forks no more and does not answer the death of a backend with a restart of all.
/// While it is stopped it reaps nothing, so no child's pid can be reused and the number of its children, dead ones
/// included, only grows; when it no longer does, all of them have been killed.
pub(super) fn kill_postmaster(procs: &mut Procs, postmaster: &Watched) -> u32 {
    postmaster.signal(Signal::SIGSTOP);
    wait_stopped(procs, postmaster.pid);
    let mut killed = 1;
    let mut before = 0;
    for _ in 0..MAX_PASSES {
        let mut children = 0;
        let pass = procs.each(|_, p| {
            if p.ppid == postmaster.pid {
                children += 1;
                if !p.is_dead() {
                    kill(p.pid);
                }
            }
        });
        // A table that cannot be read (no file handles left in the machine) must not save the postmaster; its
        // children are swept up once they are orphans.
        if pass.is_err() || children == before {
            break;
        }
        killed += children - before;
        before = children;
    }
    postmaster.signal(Signal::SIGKILL);
    killed
}

fn wait_stopped(procs: &Procs, pid: i32) {
    let give_up = clock::boot().plus(STOP_WAIT);
    while clock::boot() < give_up {
        match procs.table().one(pid) {
            Some(p) if !p.is_dead() && !matches!(p.state, b'T' | b't') => std::thread::yield_now(),
            _ => return,
        }
    }
}

/// Kills all children of this process except `spare`, and returns how many were alive.
///
/// They are orphans of the postmaster, which came here because the fence is a subreaper.
pub(super) fn kill_own_children(procs: &mut Procs, spare: Option<i32>) -> u32 {
    let me = Pid::this().as_raw();
    let mut killed = 0;
    let pass = procs.each(|_, p| {
        if p.ppid == me && Some(p.pid) != spare && !p.is_dead() {
            kill(p.pid);
            killed += 1;
        }
    });
    // An unreadable table is tried again at the next sweep: the children are still there to be waited for.
    if pass.is_err() { 0 } else { killed }
}

/// Kills the processes of an adopted postmaster that has ended, and returns how many were alive.
///
/// They are orphans of somebody else, so they are known by program and working directory. Those that started
/// after `cutoff` belong to a postmaster that somebody has started since.
pub(super) fn kill_kin(procs: &mut Procs, kin: Kin, cutoff: u64) -> Option<u32> {
    let mut found = 0;
    let pass = procs.each(|table, p| {
        if p.start_ticks <= cutoff && !p.is_dead() && table.kin(p.pid) == Some(kin) {
            kill(p.pid);
            found += 1;
        }
    });
    pass.ok().map(|()| found)
}

fn kill(pid: i32) {
    // The only error is that it is gone already (or, for a program that changed its user, that it may not be killed, which
    // the next sweep shows by finding it again).
    let _gone = signal::kill(Pid::from_raw(pid), Signal::SIGKILL);
}

/// Walks the kill path without a victim, so that its code, its buffers and its stack are in memory, and locked there,
/// before they are needed on a machine that has no memory left.
pub(super) fn rehearse(procs: &mut Procs) {
    let stack = [0u8; 32 * 1024];
    std::hint::black_box(&stack);
    let nobody = Watched::nobody();
    std::hint::black_box(kill_postmaster(procs, &nobody));
    std::hint::black_box(kill_own_children(procs, None));
}
