//! Boot time, the clock of every measurement: it runs on while the machine sleeps and never jumps.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Time since boot.
pub fn now() -> Duration {
    // CLOCK_BOOTTIME exists on every kernel that PostgreSQL and etcd run on; zero would only spoil a measurement.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}

/// Time since an earlier [`now`].
pub fn since(earlier: Duration) -> Duration {
    now().saturating_sub(earlier)
}
