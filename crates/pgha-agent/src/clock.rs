//! The only place of the daemon that reads clocks.
//!
//! Boot time is `CLOCK_BOOTTIME`, which runs on while the machine sleeps; the clocks of the standard library and of tokio
//! stop then, so a deadline kept by them would be missed by the length of the sleep. Wall time goes only to what a
//! person scheduled and to history.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use pgha_core::units::{Mono, Now, Wall};
use rustix::time::{ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use tokio::io::unix::AsyncFd;

use crate::error::AgentError;

const NANOS_PER_SEC: u64 = 1_000_000_000;

/// Both clocks.
pub fn now() -> Now {
    Now {
        mono: boot(),
        wall: wall(),
    }
}

/// The boot clock alone.
pub fn boot() -> Mono {
    let t = rustix::time::clock_gettime(ClockId::Boottime);
    let secs = u64::try_from(t.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(t.tv_nsec).unwrap_or(0);
    Mono(secs.saturating_mul(NANOS_PER_SEC).saturating_add(nanos))
}

fn wall() -> Wall {
    let t = rustix::time::clock_gettime(ClockId::Realtime);
    Wall(t.tv_sec.saturating_mul(1_000_000).saturating_add(t.tv_nsec / 1_000))
}

/// A kernel timer on the boot clock, close-on-exec and non-blocking.
pub fn boot_timer() -> io::Result<OwnedFd> {
    Ok(rustix::time::timerfd_create(
        TimerfdClockId::Boottime,
        TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
    )?)
}

/// Sets a timer of [`boot_timer`] to expire at `at`, or stops it. A point in the past expires at once.
pub fn set_boot_timer(timer: &OwnedFd, at: Option<Mono>) -> io::Result<()> {
    // All zeroes would stop the timer, so the first nanosecond after boot stands in for boot itself.
    let it_value = at.map_or(Timespec { tv_sec: 0, tv_nsec: 0 }, |at| timespec(Mono(at.0.max(1))));
    let value = Itimerspec {
        it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
        it_value,
    };
    rustix::time::timerfd_settime(timer, TimerfdTimerFlags::ABSTIME, &value)?;
    Ok(())
}

/// A length of time as the kernel takes it.
pub fn timespec_of(d: Duration) -> Timespec {
    timespec(Mono::default().plus(d))
}

fn timespec(at: Mono) -> Timespec {
    // Both parts fit: u64 nanoseconds are at most 18_446_744_073 seconds.
    Timespec {
        tv_sec: i64::try_from(at.0 / NANOS_PER_SEC).unwrap_or(i64::MAX),
        tv_nsec: i64::try_from(at.0 % NANOS_PER_SEC).unwrap_or(0),
    }
}

/// Sleeps until points on the boot clock. One sleeper is one timer; it can be set again while nobody waits.
#[derive(Debug)]
pub struct Sleeper {
    timer: AsyncFd<OwnedFd>,
}

impl Sleeper {
    /// A sleeper in the current tokio runtime.
    ///
    /// # Errors
    /// [`AgentError::Os`] when the process has no file handle left.
    #[allow(unsafe_code)]
    pub fn new() -> Result<Sleeper, AgentError> {
        let timer = boot_timer().map_err(|e| AgentError::os("create a timer on the boot clock", e))?;
        // SAFETY: the handle is owned by the AsyncFd, which never gives it away, so it stays this open timer.
        let timer = unsafe { AsyncFd::register(timer) }
            .map_err(|e| AgentError::os("watch a timer on the boot clock", io::Error::from(e)))?;
        Ok(Sleeper { timer })
    }

    /// Returns when the boot clock has reached `at`, at once when it already has. Cancel safe.
    pub async fn until(&mut self, at: Mono) -> Result<(), AgentError> {
        set_boot_timer(self.timer.get_ref(), Some(at)).map_err(|e| AgentError::os("set a timer", e))?;
        while boot() < at {
            let mut ready = self
                .timer
                .readable()
                .await
                .map_err(|e| AgentError::os("wait for a timer", e))?;
            let mut expirations = [0u8; 8];
            match rustix::io::read(self.timer.get_ref(), &mut expirations) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => ready.clear_ready(),
                Err(e) => return Err(AgentError::os("read a timer", e)),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_clock_goes_forward_and_the_wall_clock_is_after_2020() {
        let first = now();
        let second = now();
        assert!(second.mono >= first.mono);
        assert!(first.wall.0 > 1_577_836_800_000_000);
    }

    #[tokio::test]
    async fn a_sleeper_wakes_at_its_point_and_can_be_used_again() {
        let mut sleeper = Sleeper::new().expect("timers exist");
        for _ in 0..3 {
            let at = boot().plus(Duration::from_millis(30));
            sleeper.until(at).await.expect("sleeps");
            let late = boot().since(at);
            assert!(boot() >= at && late < Duration::from_millis(500), "late by {late:?}");
        }
    }

    #[tokio::test]
    async fn a_point_in_the_past_does_not_sleep() {
        let mut sleeper = Sleeper::new().expect("timers exist");
        sleeper.until(Mono(0)).await.expect("returns at once");
        sleeper.until(boot()).await.expect("returns at once");
    }

    #[tokio::test]
    async fn a_cancelled_sleep_does_not_shorten_the_next_one() {
        let mut sleeper = Sleeper::new().expect("timers exist");
        let early = boot().plus(Duration::from_millis(20));
        let cancelled = tokio::time::timeout(Duration::from_millis(1), sleeper.until(early)).await;
        assert!(cancelled.is_err());
        let at = boot().plus(Duration::from_millis(60));
        sleeper.until(at).await.expect("sleeps");
        assert!(boot() >= at);
    }
}
