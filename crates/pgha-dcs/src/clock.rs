//! The boot clock. `Instant` stops while the machine is suspended and would keep an endpoint banished, or a budget
//! open, for longer than anybody waited.

use pgha_core::units::Mono;
use rustix::time::{ClockId, clock_gettime};

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// Now, on `CLOCK_BOOTTIME`.
pub(crate) fn boot_now() -> Mono {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    Mono(seconds.saturating_mul(NANOS_PER_SECOND).saturating_add(nanos))
}
