//! Every rule, on the smallest cluster that shows it.
//!
//! The scenarios stand in `tests/scenarios/*.txt`; their language is described in `support/script.rs`. After a change
//! that was meant, `PGHA_UPDATE=1` rewrites what is expected; its diff is read as code.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use pgha_core::rule::Rule;
use similar::TextDiff;
use support::script;

fn files() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut files: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "txt"))
        .collect();
    files.sort();
    files
}

/// Runs every file, and rewrites it when that is asked for. Gives the rules that were seen, and all that is wrong.
fn run_all(update: bool) -> (BTreeSet<Rule>, String) {
    let (mut rules, mut wrong) = (BTreeSet::new(), String::new());
    for path in files() {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let expected = fs::read_to_string(&path).unwrap();
        let outcome = script::run(&name, &expected);
        rules.extend(outcome.rules);
        wrong.push_str(&outcome.errors.join("\n"));
        if outcome.text == expected {
            continue;
        }
        if update {
            fs::write(&path, &outcome.text).unwrap();
        } else {
            let diff = TextDiff::from_lines(&expected, &outcome.text);
            let diff = diff
                .unified_diff()
                .context_radius(12)
                .header(&name, "as it is now")
                .to_string();
            wrong.push_str(&diff);
        }
    }
    (rules, wrong)
}

#[test]
fn every_scenario_comes_out_as_it_is_written() {
    let update = std::env::var_os("PGHA_UPDATE").is_some();
    let (_, wrong) = run_all(update);
    assert!(wrong.is_empty(), "{wrong}\nPGHA_UPDATE=1 writes down what is true now.");
}

#[test]
fn every_rule_is_shown_by_a_scenario() {
    let (seen, _) = run_all(false);
    let missing: Vec<&str> = Rule::ALL
        .iter()
        .filter(|r| !seen.contains(r))
        .map(|r| r.name())
        .collect();
    assert!(missing.is_empty(), "no scenario shows {}", missing.join(", "));
}
