//! Replays every kept scenario: each was a bug once, or shows what no seed comes to often enough.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::PathBuf;

use pgha_sim::campaign::run_plan;
use pgha_sim::plan::Plan;

#[test]
fn every_kept_scenario_replays_without_a_violation_and_twice_the_same() {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&directory)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", directory.display());
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let plan = Plan::parse(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let first = run_plan(plan.clone(), false);
        assert!(
            first.violations.is_empty(),
            "{}: {:?}",
            file.display(),
            first.violations
        );
        let second = run_plan(plan, false);
        assert_eq!(first.trace_hash, second.trace_hash, "{}", file.display());
    }
}
