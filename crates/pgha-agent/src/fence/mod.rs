//! The fence: PostgreSQL never outlives its lease.
//!
//! `pgha-fence` is a process of its own, the parent of the postmaster. The daemon hands it each new deadline; when one
//! passes without a newer one, the fence kills the postmaster and every process of it, whatever has become of the
//! daemon: killed, stopped, starved, out of memory. The postmaster in turn has a parent-death signal, so that the
//! death of the fence stops PostgreSQL too. A restarted or upgraded daemon attaches to the running fence.
//!
//! Invariants:
//! - At most one fence per data directory (a lock in the private state directory) and at most one postmaster per fence.
//! - Nothing is started before a guard was set, nor after the fence fired until a newer guard is set.
//! - A guard is replaced only by one with a greater number; one connection at a time speaks for the daemon, the newest.
//! - `Exited` is said only when no process of the postmaster is left that could hold shared memory.
//! - The kill path allocates nothing, waits for nobody and writes no log line before the last SIGKILL is sent.
//!
//! Absent on purpose: threads, tokio and serde in the fence, since its memory is locked and small; any knowledge
//! of etcd, leases or roles; any decision other than that of the clock.
//!
//! For an adopted postmaster (one that the fence did not start) the deadline holds, but there is no parent-death
//! signal, its exit status is unknown, and processes that its backends started (an archive command, say) are not
//! chased: they go to another parent. Its next start through the fence ends these limits.

pub mod client;
mod codec;
mod conn;
mod guard;
mod instance;
mod kill;
mod platform;
mod procs;
pub mod server;
mod spawn;
pub mod wire;
