//! Makes a failing plan small: fewer faults, a shorter run, usual settings, as long as the same invariant breaks. What is
//! left is a scenario file that a person can read.

use crate::campaign::run_plan;
use crate::plan::{Lasts, Plan};
use crate::settings::{KNOBS, SimSettings};
use crate::world::{MS, SEC};

/// Most runs that one shrinking may take.
const MAX_RUNS: u32 = 3_000;

/// A small plan that still fails.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// The plan.
    pub plan: Plan,
    /// The first violation of the small plan.
    pub violation: String,
    /// How many runs it took.
    pub runs: u32,
}

/// The name an invariant's violation begins with: `S1`.
pub fn invariant(violation: &str) -> &str {
    violation.split([':', ' ']).next().unwrap_or(violation)
}

/// Shrinks a plan that breaks an invariant; `None` when it breaks none.
pub fn shrink(plan: &Plan) -> Option<Shrunk> {
    let first = run_plan(plan.clone(), false);
    let violation = first.violations.first()?.clone();
    let mut work = Shrinking {
        plan: plan.clone(),
        broken: invariant(&violation).to_owned(),
        violation,
        runs: 1,
    };
    loop {
        let before = work.plan.clone();
        work.fewer_faults();
        work.shorter_run(first.ended_at / SEC + 1);
        work.usual_settings();
        work.simpler_faults();
        if work.plan == before || work.runs >= MAX_RUNS {
            break;
        }
    }
    Some(Shrunk {
        plan: work.plan,
        violation: work.violation,
        runs: work.runs,
    })
}

impl Shrunk {
    /// The scenario file: what it shows, then the plan.
    pub fn scenario(&self) -> String {
        format!("# {}\n{}", self.violation, self.plan)
    }
}

struct Shrinking {
    plan: Plan,
    broken: String,
    violation: String,
    runs: u32,
}

impl Shrinking {
    /// Takes the smaller plan if it breaks the same invariant.
    fn try_plan(&mut self, plan: Plan) -> bool {
        if plan == self.plan || self.runs >= MAX_RUNS {
            return false;
        }
        self.runs += 1;
        let outcome = run_plan(plan.clone(), false);
        let same = outcome.violations.into_iter().find(|v| invariant(v) == self.broken);
        match same {
            Some(violation) => {
                self.plan = plan;
                self.violation = violation;
                true
            }
            None => false,
        }
    }

    /// Removes faults: halves first, single ones at last.
    fn fewer_faults(&mut self) {
        let mut chunk = self.plan.faults.len().div_ceil(2).max(1);
        loop {
            let mut at = 0;
            while at < self.plan.faults.len() {
                let mut plan = self.plan.clone();
                plan.faults.drain(at..(at + chunk).min(plan.faults.len()));
                if !self.try_plan(plan) {
                    at += chunk;
                }
            }
            if chunk == 1 {
                return;
            }
            chunk = chunk.div_ceil(2);
        }
    }

    /// Ends the faults earlier: not before the last of them begins, and first where the violation was.
    fn shorter_run(&mut self, seen_after: u64) {
        let least = self.plan.faults.last().map_or(0, |f| f.at / SEC) + 1;
        for seconds in [least, seen_after] {
            let mut plan = self.plan.clone();
            if seconds < plan.settings.fault_seconds {
                plan.settings.fault_seconds = seconds;
                self.try_plan(plan);
            }
        }
        while self.plan.settings.fault_seconds > least {
            let mut plan = self.plan.clone();
            plan.settings.fault_seconds = least.midpoint(plan.settings.fault_seconds);
            if !self.try_plan(plan) {
                return;
            }
        }
    }

    /// Every setting as usual where that does not matter, the planted defect excepted; then fewer nodes.
    fn usual_settings(&mut self) {
        let usual = SimSettings::default();
        for knob in KNOBS.iter().filter(|k| !matches!(k.name, "planted" | "fault_seconds")) {
            let mut plan = self.plan.clone();
            let value = (knob.get)(&usual);
            if (knob.set)(&mut plan.settings, &value).is_ok() && !is_meaningless(&plan) {
                self.try_plan(plan);
            }
        }
        while self.plan.settings.nodes > 1 {
            let mut plan = self.plan.clone();
            plan.settings.nodes -= 1;
            if is_meaningless(&plan) || !self.try_plan(plan) {
                return;
            }
        }
    }

    /// Round times and short faults read better.
    fn simpler_faults(&mut self) {
        for i in 0..self.plan.faults.len() {
            let mut plan = self.plan.clone();
            plan.faults[i].at = (plan.faults[i].at / SEC).max(1) * SEC;
            plan.faults.sort_by_key(|f| f.at);
            self.try_plan(plan);
            while let Lasts::For(time) = self.plan.faults[i].lasts {
                let mut plan = self.plan.clone();
                plan.faults[i].lasts = Lasts::For((time / 2 / MS * MS).max(MS));
                if !self.try_plan(plan) {
                    break;
                }
            }
        }
    }
}

/// Nobody can do without the victim of a lasting fault when there are fewer than three.
fn is_meaningless(plan: &Plan) -> bool {
    let ever = plan.faults.iter().any(|f| f.lasts == Lasts::Ever);
    ever && plan.settings.nodes < 3 || plan.faults.iter().any(|f| f.names_beyond(plan.settings.nodes))
}
