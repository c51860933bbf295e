//! Runs plans and seeds, and adds up what they showed.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::counters::Counters;
use crate::etcd::Time;
use crate::plan::Plan;
use crate::world::{SEC, World, nanos};

/// Events in one seed before it is called a livelock.
const MAX_EVENTS: u64 = 3_000_000;
/// Of so many seeds one is run twice, and both runs must have the same trace.
const REPLAY_EVERY: u64 = 100;

/// What one seed showed.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// Broken invariants, each text beginning with its name.
    pub violations: Vec<String>,
    /// What was reached.
    pub counters: Counters,
    /// Hash of the trace.
    pub trace_hash: u64,
    /// Simulated time at the end, or when an invariant broke.
    pub ended_at: Time,
    /// The trace, when asked for.
    pub trace: Vec<String>,
}

/// Runs the plan of one seed.
pub fn run_seed(seed: u64, with_trace: bool) -> Outcome {
    run_plan(Plan::draw(seed), with_trace)
}

/// Runs a plan in two phases: faults with safety checked after every event, then calm and a demand for progress. It ends
/// where the first invariant breaks.
pub fn run_plan(plan: Plan, with_trace: bool) -> Outcome {
    let seed = plan.seed;
    let settings = &plan.settings;
    let fault_end = settings.fault_seconds * SEC;
    // Whoever may found an emptied scope by itself has done so by then; there is time left to do it by order.
    let help = fault_end + (2 * settings.ttl + 30) * SEC;
    // A daemon that was away has seen by then that it may be in maintenance mode.
    let leave = fault_end + (settings.ttl + 10) * SEC;
    let end = fault_end + nanos(settings.calm());
    let settled = fault_end + (3 * settings.ttl + 60) * SEC;
    let mut world = World::new(plan, with_trace);
    let mut left = MAX_EVENTS;
    world.run_until(fault_end, &mut left);
    if world.violations.is_empty() {
        world.heal();
        world.expect_quiet_from(settled);
        world.run_until(leave, &mut left);
    }
    if world.violations.is_empty() {
        world.operators_leave();
        world.run_until(help, &mut left);
    }
    if world.violations.is_empty() {
        world.help();
        world.run_until(end, &mut left);
    }
    // A primary that stays unattended for ever keeps operators from lifting maintenance mode, and nothing is promised in it.
    if world.violations.is_empty() && !world.is_paused() {
        world.check_progress();
    }
    Outcome {
        seed,
        violations: world.violations,
        counters: world.counters,
        trace_hash: std::hash::Hasher::finish(&world.trace_hash),
        ended_at: world.now,
        trace: world.trace.unwrap_or_default(),
    }
}

impl World {
    /// Lets things happen until a point in time, or until an invariant breaks.
    fn run_until(&mut self, until: Time, left: &mut u64) {
        while self.step(until).is_some() {
            self.check();
            if *left == 0 {
                self.violation(format!("LIVELOCK: more than {MAX_EVENTS} events"));
            }
            if !self.violations.is_empty() {
                return;
            }
            *left -= 1;
        }
        self.now = until;
    }
}

/// The sum of many seeds.
#[derive(Debug, Default)]
pub struct Summary {
    /// Seeds run.
    pub seeds: u64,
    /// Seeds with a violation, in order.
    pub failed: Vec<Outcome>,
    /// Sum of all counters.
    pub counters: Counters,
    /// Simulated time.
    pub simulated: Time,
}

/// Runs the seeds `from..to` on `jobs` threads.
pub fn run(from: u64, to: u64, jobs: usize) -> Summary {
    let parts = side_by_side(from..to, jobs, |part: &mut Summary, seed| {
        part.add(run_checked(seed));
        true
    });
    let mut sum = Summary::default();
    for part in parts {
        sum.seeds += part.seeds;
        sum.simulated += part.simulated;
        sum.counters.add(&part.counters);
        sum.failed.extend(part.failed);
    }
    sum.failed.sort_by_key(|o| o.seed);
    sum
}

/// One seed; now and then it is run twice, and a different trace counts as a violation.
fn run_checked(seed: u64) -> Outcome {
    let mut outcome = run_seed(seed, false);
    if seed.is_multiple_of(REPLAY_EVERY) {
        let again = run_seed(seed, false).trace_hash;
        if again != outcome.trace_hash {
            let text = format!(
                "DETERMINISM: a second run gave the trace {again:016x} instead of {:016x}",
                outcome.trace_hash
            );
            outcome.violations.push(text);
        }
    }
    outcome
}

/// Calls `work` for each number on `jobs` threads, each with a sum of its own. `false` ends that thread.
pub(crate) fn side_by_side<Sum: Default + Send>(
    numbers: Range<u64>,
    jobs: usize,
    work: impl Fn(&mut Sum, u64) -> bool + Sync,
) -> Vec<Sum> {
    let next = AtomicU64::new(numbers.start);
    std::thread::scope(|scope| {
        let one_thread = || {
            let mut sum = Sum::default();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= numbers.end || !work(&mut sum, number) {
                    return sum;
                }
            }
        };
        let handles: Vec<_> = (0..jobs.max(1)).map(|_| scope.spawn(one_thread)).collect();
        let ended = handles.into_iter().map(|h| h.join());
        ended
            .map(|sum| sum.expect("a run that panics ends the campaign"))
            .collect()
    })
}

impl Summary {
    fn add(&mut self, outcome: Outcome) {
        self.seeds += 1;
        self.simulated += outcome.ended_at;
        self.counters.add(&outcome.counters);
        if !outcome.violations.is_empty() {
            self.failed.push(outcome);
        }
    }
}
