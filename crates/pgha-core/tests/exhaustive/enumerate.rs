//! Goes through every combination of some dimensions, and through `decide` with each.

use std::collections::{BTreeMap, BTreeSet};

use pgha_core::decide::{Decision, decide};
use pgha_core::rule::Rule;
use pgha_core::view::View;

use super::facts::{Dimension, put};
use super::implications::ALL;
use super::support::world::World;

/// A situation: what always holds in it, and what varies.
pub struct Situation {
    pub name: &'static str,
    pub dimensions: Vec<Dimension>,
}

/// What an enumeration came by.
#[derive(Default)]
pub struct Tally {
    pub views: u64,
    pub rules: BTreeSet<Rule>,
    /// How often the premise of each implication held.
    pub premises: BTreeMap<&'static str, u64>,
    pub faults: Vec<String>,
}

impl Tally {
    pub fn add(&mut self, other: Tally) {
        self.views += other.views;
        self.rules.extend(other.rules);
        for (name, times) in other.premises {
            *self.premises.entry(name).or_default() += times;
        }
        self.faults.extend(other.faults);
    }
}

/// All views of a situation. `think` is `decide`, or what a mistake would make of it.
pub fn run(situation: &Situation, think: fn(&View) -> Decision) -> Tally {
    let mut tally = Tally::default();
    let mut premises = vec![0_u64; ALL.len()];
    let dimensions = &situation.dimensions;
    let mut digits = vec![0_usize; dimensions.len()];
    let mut view = World::new().view();
    let mut changed = 0;
    // One view for each broken implication is enough to begin with.
    let mut shown = BTreeSet::new();
    loop {
        for (dimension, digit) in dimensions.iter().zip(&digits).skip(changed) {
            put(dimension.part, &dimension.values[*digit].1, &mut view);
        }
        tally.views += 1;
        let decision = think(&view);
        if decision != think(&view) {
            tally
                .faults
                .push(story(situation, &digits, "two decisions from one view", &decision));
        }
        tally.rules.insert(decision.rule);
        for (implication, times) in ALL.iter().zip(&mut premises) {
            match (implication.holds)(&view, &decision) {
                None => {}
                Some(true) => *times += 1,
                Some(false) => {
                    *times += 1;
                    if shown.insert(implication.name) {
                        tally
                            .faults
                            .push(story(situation, &digits, implication.name, &decision));
                    }
                }
            }
        }
        // The next combination: the last dimension turns fastest.
        let Some(turn) = (0..digits.len())
            .rev()
            .find(|i| digits[*i] + 1 < dimensions[*i].values.len())
        else {
            break;
        };
        digits[turn] += 1;
        digits[turn + 1..].fill(0);
        changed = turn;
    }
    tally.premises = ALL.iter().map(|i| i.name).zip(premises).collect();
    tally
}

/// A broken implication as a scenario that can be put into a file.
fn story(situation: &Situation, digits: &[usize], name: &str, decision: &Decision) -> String {
    let said = situation
        .dimensions
        .iter()
        .zip(digits)
        .map(|(d, i)| d.values[*i].0.replace("; ", "\n"));
    let lines: Vec<String> = said.filter(|l| !l.is_empty()).collect();
    format!(
        "{} in `{}`: {} {:?} ({})\n{}\ndecide\n",
        name,
        situation.name,
        decision.rule.name(),
        decision.action,
        decision.because,
        lines.join("\n")
    )
}

/// The production code.
pub fn production(v: &View) -> Decision {
    decide(v)
}
