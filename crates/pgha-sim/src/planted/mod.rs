//! Defects on purpose: each is one that another project really had, and the campaign has to find it within a stated number
//! of seeds. What a campaign without violations is worth shows here.
//!
//! Defects of the rules live in pgha-core behind the feature `planted-bugs`, and its last check is off while one is
//! planted; those of the fence, the driver and its client of etcd live in this crate, where they are simulated.
//! `defects.rs` has the list.

mod defects;

use std::fmt::Write;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use pgha_core::planted::Planted;

use crate::campaign::{Outcome, run_plan, side_by_side};
use crate::plan::Plan;
use crate::shrink::invariant;
use crate::world::{SEC, World};

pub use defects::DEFECTS;

/// One defect.
#[derive(Debug)]
pub struct Defect {
    /// Its name in scenario files and in the table.
    pub id: &'static str,
    /// What is wrong.
    pub what: &'static str,
    /// Who had it: projects with the number of the issue or the release.
    pub source: &'static str,
    /// The first seed that is tried.
    pub from: u64,
    /// It must be found within so many seeds.
    pub limit: u64,
    /// Where it sits.
    pub place: Place,
}

/// Where a defect sits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// In the rules.
    Core(Planted),
    /// In the simulated fence, driver or client of etcd.
    World(WorldDefect),
}

/// A defect of the fence, the driver, its clock or its client of etcd.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WorldDefect {
    /// Nobody enforces the deadline.
    NoFence,
    /// The fence lets go when the daemon dies.
    FenceDiesWithAgent,
    /// The fence asks the daemon to stop PostgreSQL.
    FenceAsksAgent,
    /// The fence's clock stands still while the machine is frozen.
    FenceClockStops,
    /// A restarted daemon sets the fence to a state without a deadline.
    FenceForgottenOnRestart,
    /// The watchdog is closed when the stop begins.
    WatchdogClosedEarly,
    /// An expired token of etcd is not asked for anew.
    TokenNeverRenewed,
    /// Only one member of etcd is ever asked.
    OneMemberAsked,
    /// Answers from the past are handed on.
    PastBelieved,
    /// The clock of all deadlines jumps with the wall clock.
    DeadlinesOnWallClock,
}

impl PartialEq for Defect {
    fn eq(&self, other: &Defect) -> bool {
        self.id == other.id
    }
}

/// The defect of this name.
pub fn by_id(id: &str) -> Option<&'static Defect> {
    DEFECTS.iter().find(|d| d.id == id)
}

/// How a defect was found.
#[derive(Debug)]
pub struct Found {
    /// The seed.
    pub seed: u64,
    /// The first violation.
    pub violation: String,
}

/// Runs seeds until one finds the defect; `None` when it survives its limit. The smallest such seed, whatever the threads. A seed
/// that breaks something without the defect, too, shows nothing.
pub fn hunt(defect: &'static Defect, jobs: usize) -> Option<Found> {
    let best = AtomicU64::new(u64::MAX);
    let seeds: Range<u64> = defect.from..defect.from + defect.limit;
    let parts = side_by_side(seeds, jobs, |found: &mut Option<Found>, seed| {
        if seed > best.load(Ordering::Relaxed) {
            return false;
        }
        let outcome = run_with(Some(defect), seed);
        let Some(violation) = outcome.violations.into_iter().next() else {
            return true;
        };
        if !run_with(None, seed).violations.is_empty() {
            return true;
        }
        best.fetch_min(seed, Ordering::Relaxed);
        *found = Some(Found { seed, violation });
        false
    });
    parts.into_iter().flatten().min_by_key(|f| f.seed)
}

fn run_with(defect: Option<&'static Defect>, seed: u64) -> Outcome {
    let mut plan = Plan::draw(seed);
    plan.settings.planted = defect;
    run_plan(plan, false)
}

/// The table of `docs/replayed-bugs.md`.
pub fn table(rows: &[(&'static Defect, Option<Found>)]) -> String {
    let mut text =
        String::from("| id | defect | had by | found by | seeds needed | limit |\n|---|---|---|---|---|---|\n");
    for (defect, found) in rows {
        let (by, seeds) = match found {
            Some(found) => (invariant(&found.violation), (found.seed - defect.from + 1).to_string()),
            None => ("SURVIVED", "-".into()),
        };
        let Defect {
            id,
            what,
            source,
            limit,
            ..
        } = defect;
        writeln!(text, "| {id} | {what} | {source} | {by} | {seeds} | {limit} |").expect("a String takes everything");
    }
    text
}

impl World {
    /// Is this defect of the world planted?
    pub(crate) fn suffers(&self, defect: WorldDefect) -> bool {
        self.plan
            .settings
            .planted
            .is_some_and(|d| d.place == Place::World(defect))
    }

    /// Plants the defect of the plan in a daemon that was just started.
    #[cfg(feature = "planted-bugs")]
    pub(crate) fn plant(&mut self, i: usize) {
        if let (Some(agent), Some(Place::Core(defect))) =
            (&mut self.nodes[i].agent, self.plan.settings.planted.map(|d| d.place))
        {
            agent.plant(defect);
        }
    }

    /// The defects of the rules are not in this build.
    #[cfg(not(feature = "planted-bugs"))]
    pub(crate) fn plant(&mut self, _: usize) {}

    /// Does a defect keep the fence from looking at its deadline now?
    pub(crate) fn fence_is_idle(&self, i: usize) -> bool {
        let node = &self.nodes[i];
        self.suffers(WorldDefect::NoFence)
            || self.suffers(WorldDefect::FenceAsksAgent) && !node.agent_runs()
            || self.suffers(WorldDefect::FenceClockStops) && node.thawed_at.is_some_and(|at| self.now < at + 10 * SEC)
    }
}
