//! Broken configurations give clear findings with file, line and path, show no secret, and never bring the reader down.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;

use pgha_wire::config::{Finding, Severity, Source, load};
use proptest::prelude::*;

const BASE: &str = "\
scope: batman
name: node1
restapi:
  listen: 10.0.0.1:8008
  connect_address: 10.0.0.1:8008
etcd3:
  hosts: [10.0.0.1:2379]
bootstrap:
  dcs: {ttl: 30}
tags: {}
log: {}
watchdog: {}
postgresql:
  listen: 10.0.0.1:5432
  connect_address: 10.0.0.1:5432
  data_dir: /data
  authentication:
    superuser: {username: postgres, password: hunter2}
    replication: {username: replicator, password: hunter2}
";

fn findings(sources: &[Source<'_>]) -> Vec<Finding> {
    match load(sources, &BTreeMap::new()) {
        Ok(loaded) => loaded.warnings,
        Err(findings) => findings,
    }
}

struct Case<'a> {
    sentence: &'a str,
    yaml: String,
    expected: Vec<&'a str>,
}

fn cases(text: &str) -> Vec<Case<'_>> {
    let mut cases: Vec<Case<'_>> = Vec::new();
    for line in text.lines() {
        if let Some(sentence) = line.strip_prefix("=== ") {
            cases.push(Case {
                sentence,
                yaml: String::new(),
                expected: Vec::new(),
            });
        } else if let Some(case) = cases.last_mut() {
            match line.strip_prefix("--> ") {
                Some(expected) => case.expected.push(expected),
                None => {
                    case.yaml.push_str(line);
                    case.yaml.push('\n');
                }
            }
        }
    }
    cases
}

#[test]
fn the_base_of_the_table_is_flawless() {
    assert_eq!(
        findings(&[Source {
            name: "base.yml",
            text: BASE
        }]),
        []
    );
}

#[test]
fn every_broken_file_is_reported_with_line_and_path_and_nothing_else_is() {
    let cases = cases(include_str!("data/broken_yaml.txt"));
    assert!(cases.len() >= 40, "the table has been read");
    let mut failures = String::new();
    for case in &cases {
        let broken = Source {
            name: "broken.yml",
            text: &case.yaml,
        };
        let base = Source {
            name: "base.yml",
            text: BASE,
        };
        let sources = if case.sentence.ends_with("(alone)") {
            vec![broken]
        } else {
            vec![base, broken]
        };
        let found = findings(&sources);
        let errors: Vec<String> = found
            .iter()
            .filter(|f| f.severity == Severity::Error)
            .map(ToString::to_string)
            .collect();
        let all: Vec<String> = found.iter().map(ToString::to_string).collect();
        let missing: Vec<_> = case
            .expected
            .iter()
            .filter(|e| !errors.iter().any(|error| error.contains(**e)))
            .collect();
        let surplus: Vec<_> = errors
            .iter()
            .filter(|error| !case.expected.iter().any(|e| error.contains(e)))
            .collect();
        let leaked = all.iter().any(|text| text.contains("hunter2"));
        if !missing.is_empty() || !surplus.is_empty() || leaked || case.expected.is_empty() {
            failures.push_str(&format!(
                "{}\n  missing {missing:#?}\n  surplus {surplus:#?}\n  leaked {leaked}\n",
                case.sentence
            ));
        }
    }
    assert!(failures.is_empty(), "{failures}");
}

#[test]
fn all_errors_of_a_file_come_out_at_once() {
    let text = "name: 5\nscope: [x]\nrestapi: {listen: 1, verify_client: 7}\npostgresql: {listen: 2, use_pg_rewind: x}\nlog: {level: 9}\n";
    let found: Vec<String> = findings(&[Source { name: "f", text: BASE }, Source { name: "g", text }])
        .iter()
        .map(|f| f.path.clone())
        .collect();
    let expected = [
        "scope",
        "name",
        "restapi.listen",
        "restapi.verify_client",
        "postgresql.listen",
        "postgresql.use_pg_rewind",
        "log.level",
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_configuration_without_any_source_says_that_it_is_empty() {
    assert_eq!(
        findings(&[]).iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["configuration: the configuration is empty"]
    );
}

/// The base with one value replaced by a piece of YAML.
fn mutated() -> impl Strategy<Value = String> {
    let lines = BASE.lines().count();
    (0..lines, "[-a-z0-9:,{}\\[\\]&*!|>'\"~. ]{0,12}").prop_map(|(target, piece)| {
        let replace = |(i, line): (usize, &str)| match line.split_once(':') {
            Some((key, _)) if i == target => format!("{key}: {piece}\n"),
            _ => format!("{line}\n"),
        };
        BASE.lines().enumerate().map(replace).collect()
    })
}

proptest! {
    #[test]
    fn no_bytes_bring_the_reader_down(bytes in any::<Vec<u8>>()) {
        let text = String::from_utf8_lossy(&bytes);
        let found = findings(&[Source { name: "x", text: &text }]);
        prop_assert!(!found.is_empty());
    }

    #[test]
    fn no_change_of_a_value_brings_the_reader_down_or_shows_a_password(text in mutated()) {
        for finding in findings(&[Source { name: "x", text: &text }]) {
            let shown = finding.to_string();
            prop_assert!(!shown.contains("hunter2"), "{}", shown);
        }
    }

    #[test]
    fn no_environment_brings_the_reader_down(
        key in prop::sample::select(vec!["NAME", "RESTAPI_ALLOWLIST", "LOG_FORMAT", "LOG_LOGGERS", "ETCD3_HOSTS", "RESTAPI_HTTP_EXTRA_HEADERS", "SUPERUSER_PASSWORD", "X"]),
        value in any::<String>(),
    ) {
        let env = [(format!("PATRONI_{key}"), value)].into();
        if let Err(found) = load(&[Source { name: "x", text: BASE }], &env) {
            let by_variable = |f: &Finding| f.severity == Severity::Warning || f.source.starts_with("environment variable PATRONI_");
            prop_assert!(found.iter().all(by_variable), "{found:?}");
        }
    }
}
