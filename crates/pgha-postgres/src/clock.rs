//! The boot clock, for measuring how long something took.
//!
//! Deadlines come from the caller; `tokio::time` bounds single waits. Absent on purpose: the wall clock.

use pgha_core::units::Mono;

/// `CLOCK_BOOTTIME` now.
pub(crate) fn boot_now() -> Mono {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let secs = u64::try_from(t.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(t.tv_nsec).unwrap_or(0);
    Mono(secs.saturating_mul(1_000_000_000).saturating_add(nanos))
}
