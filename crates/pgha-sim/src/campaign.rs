//! Runs seeds and adds up what they showed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::etcd::Time;
use crate::plan::Plan;
use crate::world::{SEC, World};

/// Events in one seed before it is called a livelock.
const MAX_EVENTS: u64 = 3_000_000;

/// What one seed showed.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// Broken invariants.
    pub violations: Vec<String>,
    /// What was reached.
    pub counters: BTreeMap<String, u64>,
    /// Hash of the trace.
    pub trace_hash: u64,
    /// Simulated time.
    pub simulated: Time,
    /// The trace, when asked for.
    pub trace: Vec<String>,
}

/// Runs the plan of one seed.
pub fn run_seed(seed: u64, with_trace: bool) -> Outcome {
    run_plan(Plan::draw(seed), with_trace)
}

/// Runs a plan: faults with safety checked after every event, then calm and a demand for progress.
pub fn run_plan(plan: Plan, with_trace: bool) -> Outcome {
    let seed = plan.seed;
    let mut world = World::new(plan, with_trace);
    let fault_end = world.plan.settings.fault_seconds * SEC;
    let end = fault_end + crate::world::nanos(world.plan.settings.calm());
    // Whoever may found an emptied scope by itself has done so by then; there is time left to do it by order.
    let help = fault_end + (2 * world.plan.settings.ttl + 30) * SEC;
    let mut events = 0;
    for until in [fault_end, help, end] {
        while world.step(until).is_some() {
            world.check();
            events += 1;
            if !world.violations.is_empty() || events > MAX_EVENTS {
                break;
            }
        }
        if until == fault_end {
            world.now = fault_end;
            world.heal();
        }
        if until == help {
            world.now = help;
            world.help();
        }
    }
    if events > MAX_EVENTS {
        world
            .violations
            .push(format!("livelock: more than {MAX_EVENTS} events"));
    }
    if world.violations.is_empty() {
        world.check_progress();
    }
    Outcome {
        seed,
        violations: world.violations,
        counters: world.counters,
        trace_hash: world.trace_hash,
        simulated: world.now,
        trace: world.trace.unwrap_or_default(),
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
    pub counters: BTreeMap<String, u64>,
    /// Simulated time.
    pub simulated: Time,
}

/// Runs the seeds `from..to` on `jobs` threads.
pub fn run(from: u64, to: u64, jobs: usize) -> Summary {
    let next = AtomicU64::new(from);
    let parts: Vec<Summary> = std::thread::scope(|scope| {
        let work = || {
            let mut part = Summary::default();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= to {
                    return part;
                }
                part.add(run_seed(seed, false));
            }
        };
        let handles: Vec<_> = (0..jobs.max(1)).map(|_| scope.spawn(work)).collect();
        handles.into_iter().filter_map(|h| h.join().ok()).collect()
    });
    let mut sum = Summary::default();
    for part in parts {
        sum.seeds += part.seeds;
        sum.simulated += part.simulated;
        sum.failed.extend(part.failed);
        for (name, n) in part.counters {
            *sum.counters.entry(name).or_insert(0) += n;
        }
    }
    sum.failed.sort_by_key(|o| o.seed);
    sum
}

impl Summary {
    fn add(&mut self, outcome: Outcome) {
        self.seeds += 1;
        self.simulated += outcome.simulated;
        for (name, n) in &outcome.counters {
            *self.counters.entry(name.clone()).or_insert(0) += n;
        }
        if !outcome.violations.is_empty() {
            self.failed.push(outcome);
        }
    }
}
