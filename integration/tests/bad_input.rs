//! Broken configuration files: a clear error with the place, exit 1, never a panic.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::process::{Command, Output};

use pgha_integration::programs;

/// A file that is right.
const GOOD: &str = "\
scope: demo
name: pg1
restapi:
  listen: 10.0.0.1:8008
  connect_address: 10.0.0.1:8008
etcd3:
  hosts:
    - 10.0.0.9:2379
bootstrap:
  dcs:
    ttl: 30
    loop_wait: 10
    retry_timeout: 10
    maximum_lag_on_failover: 1048576
    postgresql:
      use_pg_rewind: on
      use_slots: yes
  initdb:
    - encoding: UTF8
    - data-checksums
postgresql:
  listen: 10.0.0.1:5432
  connect_address: 10.0.0.1:5432
  data_dir: /srv/pg/data
  bin_dir: BIN_DIR
  authentication:
    superuser:
      username: postgres
      password: secret-of-the-superuser
    replication:
      username: replicator
      password: secret-of-the-replicator
  parameters:
    work_mem: 4MB
  pg_hba:
    - host all all 10.0.0.0/8 scram-sha-256
tags:
  nofailover: false
watchdog:
  mode: off
";

/// What to replace in the good file, with what, and what the error has to name.
const BROKEN: &[(&str, &str, &str, &[&str])] = &[
    (
        "an unclosed bracket",
        "    - data-checksums\n",
        "    - [data-checksums\n",
        &[],
    ),
    (
        "a tab as indentation",
        "  listen: 10.0.0.1:8008",
        "\tlisten: 10.0.0.1:8008",
        &[],
    ),
    ("no scope", "scope: demo\n", "", &["scope"]),
    ("no name", "name: pg1\n", "", &["name"]),
    ("an empty name", "name: pg1\n", "name: ''\n", &["name"]),
    ("a list as the name", "name: pg1\n", "name: [pg1]\n", &["name"]),
    ("a name with a slash", "name: pg1\n", "name: pg/1\n", &["name"]),
    (
        "no data directory",
        "  data_dir: /srv/pg/data\n",
        "",
        &["postgresql.data_dir"],
    ),
    (
        "a number as data directory",
        "data_dir: /srv/pg/data",
        "data_dir: 5",
        &["postgresql.data_dir"],
    ),
    ("no etcd", "etcd3:\n  hosts:\n    - 10.0.0.9:2379\n", "", &["etcd"]),
    (
        "etcd without an address",
        "etcd3:\n  hosts:\n    - 10.0.0.9:2379\n",
        "etcd3: {}\n",
        &["etcd3"],
    ),
    (
        "an etcd port out of range",
        "10.0.0.9:2379",
        "10.0.0.9:99999",
        &["etcd3.hosts", "99999"],
    ),
    (
        "a REST port out of range",
        "  listen: 10.0.0.1:8008",
        "  listen: 10.0.0.1:80080",
        &["restapi.listen", "80080"],
    ),
    (
        "a REST port that is no number",
        "  listen: 10.0.0.1:8008",
        "  listen: 10.0.0.1:http",
        &["restapi.listen"],
    ),
    ("a text as ttl", "ttl: 30", "ttl: soon", &["bootstrap.dcs.ttl", "soon"]),
    ("a negative ttl", "ttl: 30", "ttl: -5", &["bootstrap.dcs.ttl", "-5"]),
    ("a ttl below the least", "ttl: 30", "ttl: 1", &["bootstrap.dcs.ttl"]),
    (
        "a list as loop_wait",
        "loop_wait: 10",
        "loop_wait: [10]",
        &["bootstrap.dcs.loop_wait"],
    ),
    (
        "a list as parameters",
        "  parameters:\n    work_mem: 4MB\n",
        "  parameters: [work_mem]\n",
        &["postgresql.parameters"],
    ),
    (
        "a text as pg_hba",
        "  pg_hba:\n    - host all",
        "  pg_hba: host all",
        &["postgresql.pg_hba"],
    ),
    (
        "a list as a user",
        "    superuser:\n      username: postgres\n      password: secret-of-the-superuser\n",
        "    superuser: [postgres, secret-of-the-superuser]\n",
        &["postgresql.authentication.superuser"],
    ),
    (
        "an unknown watchdog mode",
        "mode: off",
        "mode: sometimes",
        &["watchdog.mode", "sometimes"],
    ),
];

#[test]
fn the_good_file_is_accepted_in_silence() {
    let output = validate("good", GOOD.as_bytes());
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(said(&output), "");
}

#[test]
fn an_unknown_key_is_warned_of_by_its_full_path() {
    let text = GOOD.replace("  parameters:", "  data_dri: /srv\n  parameters:");
    let output = validate("unknown", text.as_bytes());
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(said(&output).contains("postgresql.data_dri"), "{}", said(&output));
}

/// Patroni takes both, so a file that works there is not refused here; whoever wrote it should still hear of it.
#[test]
fn a_tag_that_means_something_else_than_it_says_is_warned_of() {
    for (from, to, names) in [
        (
            "nofailover: false",
            "nofailover: perhaps",
            ["tags.nofailover", "perhaps"],
        ),
        (
            "  nofailover: false",
            "  nofailover: true\n  failover_priority: 2",
            ["tags.nofailover", "failover_priority"],
        ),
    ] {
        let output = validate("warned", GOOD.replacen(from, to, 1).as_bytes());
        let said = said(&output);
        assert_eq!(output.status.code(), Some(0), "{said}");
        assert!(names.iter().all(|name| said.contains(name)), "{said}");
    }
}

#[test]
fn each_broken_file_is_refused_with_its_place() {
    let mut failed = Vec::new();
    for (what, from, to, names) in BROKEN {
        assert!(GOOD.contains(from), "the good file has no {from:?} for {what}");
        let output = validate("broken", GOOD.replacen(from, to, 1).as_bytes());
        let said = said(&output);
        let mut wrong = Vec::new();
        if output.status.code() != Some(1) {
            wrong.push(format!("ended with {}", output.status));
        }
        if said.contains("panicked") {
            wrong.push("panicked".to_owned());
        }
        if !said.contains("broken.yml") {
            wrong.push("does not name the file".to_owned());
        }
        wrong.extend(
            names
                .iter()
                .filter(|name| !said.contains(**name))
                .map(|name| format!("does not name {name}")),
        );
        if said.contains("secret-of") {
            wrong.push("tells a secret".to_owned());
        }
        if !wrong.is_empty() {
            failed.push(format!("{what}: {}\n    it said: {said}", wrong.join(", ")));
        }
    }
    assert!(
        failed.is_empty(),
        "{} of {}:\n{}",
        failed.len(),
        BROKEN.len(),
        failed.join("\n")
    );
}

#[test]
fn an_error_names_the_line() {
    let text = GOOD.replace("ttl: 30", "ttl: soon");
    let line = text.lines().position(|line| line.contains("ttl: soon")).unwrap() + 1;
    let output = validate("line", text.as_bytes());
    assert!(
        said(&output).contains(&line.to_string()),
        "line {line}: {}",
        said(&output)
    );
}

#[test]
fn what_is_no_configuration_at_all_is_refused() {
    let bomb: String = std::iter::once("a0: &a0 [x, x]\n".to_owned())
        .chain((1..40).map(|n| format!("a{n}: &a{n} [*a{p}, *a{p}, *a{p}, *a{p}]\n", p = n - 1)))
        .collect();
    let deep = "[".repeat(100_000);
    let inputs: [(&str, &[u8]); 7] = [
        ("empty", b""),
        ("a list", b"- scope\n- name\n"),
        ("a number", b"42\n"),
        ("no text", &[0xff, 0xfe, 0x00, 0x80]),
        ("zeroes", &[0; 4096]),
        ("an alias bomb", bomb.as_bytes()),
        ("brackets without end", deep.as_bytes()),
    ];
    for (what, bytes) in inputs {
        let output = validate("nonsense", bytes);
        assert_eq!(
            output.status.code(),
            Some(1),
            "{what}: {} {}",
            output.status,
            said(&output)
        );
        assert!(!said(&output).contains("panicked"), "{what}: {}", said(&output));
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let output = run(std::path::Path::new("/nowhere/pgha.yml"));
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("/nowhere/pgha.yml"), "{}", said(&output));
}

fn validate(name: &str, bytes: &[u8]) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let bin_dir = programs::postgres_bin().unwrap().display().to_string();
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text.replace("BIN_DIR", &bin_dir).into_bytes(),
        Err(_) => bytes.to_vec(),
    };
    let file = dir.path().join(format!("{name}.yml"));
    std::fs::write(&file, text).unwrap();
    run(&file)
}

fn run(file: &std::path::Path) -> Output {
    let mut command = Command::new(programs::own("pgha").unwrap());
    for (key, _) in std::env::vars_os().filter(|(key, _)| key.to_string_lossy().starts_with("PATRONI_")) {
        command.env_remove(key);
    }
    command.arg("--validate-config").arg(file).output().unwrap()
}

fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}
