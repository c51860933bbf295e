//! The watchdog of a machine: armed with the first deadline, fed with each newer one, closed when the fence has none to
//! enforce. Not fed in time it resets the machine.

use pgha_core::effect::FenceOrder;
use pgha_core::event::{Event, OpId};
use pgha_core::job::{Job, JobFailure, JobOutcome};
use pgha_core::plan::makes_writable;
use pgha_core::view::WatchdogView;

use crate::etcd::Time;
use crate::planted::WorldDefect;
use crate::world::{Happening, MS, SEC, World, nanos};

/// How long before the lease's end it fires, as `safety_margin` is by default.
const MARGIN: Time = 5 * SEC;
/// How long a machine needs to come up again.
const BOOT: Time = 20 * SEC;

/// The device.
#[derive(Clone, Copy, Debug, Default)]
pub struct Watchdog {
    /// Faults that keep it from working.
    pub broken: u32,
    /// When it resets the machine, if it is armed and not fed.
    pub fires_at: Option<Time>,
    /// Maintenance mode was lifted while it did not work: by when the server must have stopped for that.
    pub missed_until: Option<Time>,
}

impl World {
    /// The fence has a new order in the place of the one before, and the watchdog with it.
    pub(crate) fn tend_watchdog(&mut self, i: usize, before: Option<FenceOrder>, order: FenceOrder) {
        if !self.plan.settings.watchdog_required {
            return;
        }
        let works = self.nodes[i].watchdog.broken == 0;
        // The timeout follows the ttl that the daemon goes by: set anew as it is fed.
        let ttl = self.nodes[i].agent.as_ref().map(|agent| agent.view().settings().ttl);
        let timeout = nanos(ttl.unwrap_or_default()).saturating_sub(MARGIN);
        let fires_at = match order {
            FenceOrder::Until(_) if works => Some(self.now + timeout),
            // It is not fed any more: what was armed fires.
            FenceOrder::Until(_) => self.nodes[i].watchdog.fires_at,
            FenceOrder::StandbyOnly | FenceOrder::Paused => None,
        };
        let missed_until = match order {
            FenceOrder::Until(at) if fires_at.is_none() && before == Some(FenceOrder::Paused) => {
                Some(self.nodes[i].clock.when(at))
            }
            FenceOrder::Until(_) => self.nodes[i].watchdog.missed_until,
            FenceOrder::StandbyOnly | FenceOrder::Paused => None,
        };
        self.nodes[i].watchdog.missed_until = missed_until;
        self.nodes[i].watchdog.fires_at = fires_at;
        if let Some(when) = fires_at {
            self.at(when, Happening::Watchdog { node: i });
        }
        self.tell_watchdog(i);
    }

    /// The daemon learns the state of the device.
    pub(crate) fn tell_watchdog(&mut self, i: usize) {
        if !self.plan.settings.watchdog_required {
            return;
        }
        let device = self.nodes[i].watchdog;
        let seen = match device.fires_at {
            _ if device.broken > 0 => WatchdogView::Failed,
            Some(_) => WatchdogView::Armed,
            None => WatchdogView::Usable,
        };
        let knows = self.nodes[i].agent.as_ref().map(|a| a.view().memory.watchdog);
        if knows != Some(seen) {
            self.send(i, Event::Watchdog(seen));
        }
    }

    /// Its time may be over.
    pub(crate) fn watchdog_looks(&mut self, i: usize) {
        if self.nodes[i].watchdog.fires_at.is_some_and(|at| self.now >= at) {
            self.count("watchdog fired");
            let name = self.nodes[i].name.clone();
            self.note(|| format!("the watchdog resets {name}"));
            self.kill_node(i);
            self.at(self.now + BOOT, Happening::Supervise { node: i });
        }
    }

    /// A required watchdog that is not armed forbids what makes PostgreSQL writable, as the driver does.
    pub(crate) fn is_forbidden_by_watchdog(&self, i: usize, job: &Job) -> bool {
        let armed = self.nodes[i].watchdog.fires_at.is_some();
        let required = self.plan.settings.watchdog_required;
        let paused = self.nodes[i].fence == Some(FenceOrder::Paused);
        required && !armed && !paused && makes_writable(job)
    }

    pub(crate) fn refuse_job(&mut self, i: usize, op: OpId) {
        let outcome = JobOutcome::Failed {
            failure: JobFailure::Fenced,
            reason: "the required watchdog is not armed".into(),
        };
        let epoch = self.nodes[i].epoch;
        self.later(i, epoch, MS, Event::JobEnded { op, outcome });
    }

    /// The defect of Patroni before 4.1.4: closed when the stop begins, not when the last backend has gone.
    pub(crate) fn close_watchdog_early(&mut self, i: usize, job: &Job) {
        if matches!(job, Job::Stop { .. }) && self.suffers(WorldDefect::WatchdogClosedEarly) {
            self.nodes[i].watchdog.fires_at = None;
        }
    }
}
