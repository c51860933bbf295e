//! The clocks of a machine: the boot clock, which may drift and begins anew with a reboot, and the wall clock, which may jump.

use pgha_core::units::{Mono, Wall};

use crate::etcd::Time;

/// Rates are in millionths.
const MILLION: i128 = 1_000_000;

/// The clocks of one machine against simulated time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Simulated time at which the boot clock showed `boot`.
    since: Time,
    /// Boot clock at `since`.
    boot: u64,
    /// How much faster than simulated time the boot clock runs, in millionths.
    drift_ppm: i64,
    /// What wall time is off by, in microseconds.
    wall_offset: i64,
}

impl Clock {
    /// A clock that shows `boot` nanoseconds at time zero and runs true.
    pub fn new(boot: u64) -> Clock {
        Clock {
            since: 0,
            boot,
            drift_ppm: 0,
            wall_offset: 0,
        }
    }

    /// The boot clock.
    pub fn boot(&self, now: Time) -> Mono {
        if self.drift_ppm == 0 && now >= self.since {
            return Mono(self.boot.saturating_add(now - self.since));
        }
        let passed = i128::from(now) - i128::from(self.since);
        let shown = i128::from(self.boot) + passed * (MILLION + i128::from(self.drift_ppm)) / MILLION;
        Mono(u64::try_from(shown).unwrap_or(0))
    }

    /// The first simulated time at which the boot clock shows at least `mono`.
    pub fn when(&self, mono: Mono) -> Time {
        if self.drift_ppm == 0 && mono.0 >= self.boot {
            return self.since.saturating_add(mono.0 - self.boot);
        }
        let rate = MILLION + i128::from(self.drift_ppm);
        let wanted = (i128::from(mono.0) - i128::from(self.boot)) * MILLION;
        let passed = wanted.div_euclid(rate) + i128::from(wanted.rem_euclid(rate) != 0);
        Time::try_from(i128::from(self.since) + passed).unwrap_or(0)
    }

    /// The wall clock.
    pub fn wall(&self, now: Time) -> Wall {
        Wall(i64::try_from(now / 1000).unwrap_or(0).saturating_add(self.wall_offset))
    }

    /// From `now` on the boot clock runs `ppm` millionths fast.
    pub fn drift(&mut self, now: Time, ppm: i64) {
        self.boot = self.boot(now).0;
        self.since = now;
        self.drift_ppm = ppm;
    }

    /// The wall clock is set by somebody.
    pub fn jump(&mut self, micros: i64) {
        self.wall_offset = self.wall_offset.saturating_add(micros);
    }

    /// The boot clock jumps too, as no boot clock does.
    pub fn jump_boot(&mut self, now: Time, ms: i64) {
        let jump = ms.saturating_mul(1_000_000);
        self.boot = self.boot(now).0.saturating_add_signed(jump);
        self.since = now;
    }

    /// The machine boots: its boot clock begins at zero.
    pub fn reboot(&mut self, now: Time) {
        self.since = now;
        self.boot = 0;
    }
}
