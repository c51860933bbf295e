//! A failing run is made small, and what is left fails in the same way from its text alone.
#![allow(clippy::unwrap_used, clippy::panic)]

use pgha_sim::campaign::run_plan;
use pgha_sim::plan::Plan;
use pgha_sim::planted::by_id;
use pgha_sim::shrink::{invariant, shrink};

/// A seed in which nobody enforces a deadline and which therefore fails.
fn failing_plan() -> Plan {
    let drawn = (0..100).map(|seed| {
        let mut plan = Plan::draw(seed);
        plan.settings.planted = by_id("no-fence");
        plan
    });
    drawn
        .filter(|plan| plan.faults.len() > 5)
        .find(|plan| !run_plan(plan.clone(), false).violations.is_empty())
        .unwrap()
}

#[test]
fn a_shrunk_plan_has_fewer_faults_and_breaks_the_same_invariant_when_read_again() {
    let plan = failing_plan();
    let before = run_plan(plan.clone(), false).violations;
    let small = shrink(&plan).unwrap();
    assert!(small.plan.faults.len() < plan.faults.len(), "{}", small.scenario());
    assert_eq!(invariant(&small.violation), invariant(&before[0]));
    let read = Plan::parse(&small.scenario()).unwrap();
    assert_eq!(read, small.plan);
    assert!(run_plan(read, false).violations.contains(&small.violation));
}

#[test]
fn a_plan_that_breaks_nothing_is_not_shrunk() {
    let plan = Plan::parse("seed 3\nat 30s kill postgres leader").unwrap();
    assert!(shrink(&plan).is_none());
}
