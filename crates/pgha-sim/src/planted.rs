//! Defects on purpose: each is one that another project really had, and the campaign has to find it within a stated number
//! of seeds. What a campaign without violations is worth shows here.
//!
//! Defects of the rules live in pgha-core behind the feature `planted-bugs`, and its last check is off while one is
//! planted; those of the fence and the driver live in this crate, where both are simulated.

use std::fmt::Write;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use pgha_core::planted::Planted;

use crate::campaign::{Outcome, run_plan, side_by_side};
use crate::plan::Plan;
use crate::shrink::invariant;
use crate::world::{SEC, World};

/// One defect.
#[derive(Debug)]
pub struct Defect {
    /// Its name in scenario files and in the table.
    pub id: &'static str,
    /// What is wrong.
    pub what: &'static str,
    /// Who had it: projects with the number of the issue or the release.
    pub source: &'static str,
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
    /// In the simulated fence or driver.
    World(WorldDefect),
}

/// A defect of the fence or the driver.
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
}

impl PartialEq for Defect {
    fn eq(&self, other: &Defect) -> bool {
        self.id == other.id
    }
}

const fn core(id: &'static str, planted: Planted, limit: u64, source: &'static str, what: &'static str) -> Defect {
    let place = Place::Core(planted);
    Defect {
        id,
        what,
        source,
        limit,
        place,
    }
}

const fn world(id: &'static str, defect: WorldDefect, limit: u64, source: &'static str, what: &'static str) -> Defect {
    let place = Place::World(defect);
    Defect {
        id,
        what,
        source,
        limit,
        place,
    }
}

/// All defects.
pub const DEFECTS: &[Defect] = &[
    world(
        "no-fence",
        WorldDefect::NoFence,
        50,
        "Patroni without watchdog: #2188, #1411; F01, F17",
        "nothing stops PostgreSQL when the daemon is frozen or gone",
    ),
    world(
        "fence-dies-with-agent",
        WorldDefect::FenceDiesWithAgent,
        200,
        "Patroni #1411, zalando/postgres-operator#1725; F25",
        "a killed daemon leaves PostgreSQL running without a deadline",
    ),
    world(
        "fence-asks-agent",
        WorldDefect::FenceAsksAgent,
        50,
        "CloudNativePG #11280; F17",
        "the fence asks the frozen daemon to stop PostgreSQL",
    ),
    world(
        "fence-clock-stops",
        WorldDefect::FenceClockStops,
        500,
        "rust-lang/rust#87906, Patroni #3407; F18, F21",
        "deadlines are kept on a clock that stands still while the machine is suspended",
    ),
    world(
        "fence-forgotten",
        WorldDefect::FenceForgottenOnRestart,
        500,
        "bitnami/charts#20998; F25",
        "a restarted daemon forgets the deadline of the primary it finds",
    ),
    world(
        "watchdog-closed-early",
        WorldDefect::WatchdogClosedEarly,
        3_000,
        "Patroni #3639, #3661; F49",
        "the watchdog is closed before the last backend has gone",
    ),
    core(
        "promote-without-proof",
        Planted::PromoteWithoutProof,
        50,
        "Patroni #308, #316; etcd #20418; F02, F13",
        "a read that names this node as the leader is enough to promote",
    ),
    core(
        "keepalive-is-proof",
        Planted::KeepaliveIsProof,
        50,
        "etcd #20590; F12",
        "the answer to a keepalive counts as a proof of leadership",
    ),
    core(
        "timeline-as-number",
        Planted::TimelineAsNumber,
        500,
        "pg_auto_failover #683, #1161; F34, F35",
        "a node with a lower timeline number is taken for merely behind",
    ),
    core(
        "old-primary-starts-again",
        Planted::OldPrimaryStartsAgain,
        50,
        "bitnami/charts#6555, repmgr #766; F25",
        "a returned primary starts as a primary although somebody else leads",
    ),
    core(
        "diverged-waits",
        Planted::DivergedWaitsForEver,
        200,
        "Patroni #3648, #3652; pg_auto_failover #774; F30",
        "a diverged node waits for ever and says nothing",
    ),
    core(
        "restart-in-pause",
        Planted::RestartInPause,
        1_000,
        "Patroni 2.0.1, 3.1.0 release notes; F53",
        "a PostgreSQL that a person stopped is started in maintenance mode",
    ),
    core(
        "demote-in-pause",
        Planted::DemoteInPause,
        2_000,
        "Patroni #659; F53",
        "the primary is demoted in maintenance mode when etcd is away",
    ),
    core(
        "race-in-pause",
        Planted::RaceInPause,
        2_000,
        "Patroni 1.4.4 release notes; F53",
        "a standby is promoted in maintenance mode",
    ),
    core(
        "demote-on-first-silence",
        Planted::DemoteOnFirstSilence,
        50,
        "Patroni #3118, #3407, #3572; F05, F06",
        "one answer of etcd that does not come costs the leadership",
    ),
];

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

/// Runs seeds until one finds the defect; `None` when it survives its limit. The smallest such seed, whatever the threads.
pub fn hunt(defect: &'static Defect, jobs: usize) -> Option<Found> {
    let best = AtomicU64::new(u64::MAX);
    let seeds: Range<u64> = 0..defect.limit;
    let parts = side_by_side(seeds, jobs, |found: &mut Option<Found>, seed| {
        if seed > best.load(Ordering::Relaxed) {
            return false;
        }
        let outcome = run_with(defect, seed);
        let Some(violation) = outcome.violations.into_iter().next() else {
            return true;
        };
        best.fetch_min(seed, Ordering::Relaxed);
        *found = Some(Found { seed, violation });
        false
    });
    parts.into_iter().flatten().min_by_key(|f| f.seed)
}

fn run_with(defect: &'static Defect, seed: u64) -> Outcome {
    let mut plan = Plan::draw(seed);
    plan.settings.planted = Some(defect);
    run_plan(plan, false)
}

/// The table of `docs/replayed-bugs.md`.
pub fn table(rows: &[(&'static Defect, Option<Found>)]) -> String {
    let mut text =
        String::from("| id | defect | had by | found by | seeds needed | limit |\n|---|---|---|---|---|---|\n");
    for (defect, found) in rows {
        let (by, seeds) = match found {
            Some(found) => (invariant(&found.violation), (found.seed + 1).to_string()),
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
