//! The configuration files that the project ships are valid, and the demo uses them as they are.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::process::Command;

use pgha_integration::haproxy::fill_in;
use pgha_integration::programs::{self, repository};

#[test]
fn haproxy_accepts_the_shipped_configuration() {
    let file = repository().join("config/haproxy.cfg");
    let output = Command::new(programs::find("haproxy").unwrap())
        .arg("-c")
        .arg("-f")
        .arg(&file)
        .output()
        .unwrap();
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{said}");
    assert!(!said.contains("WARNING"), "{said}");
}

#[test]
fn the_shipped_ports_and_probes_are_the_documented_ones() {
    let text = std::fs::read_to_string(repository().join("config/haproxy.cfg")).unwrap();
    for line in [
        "bind *:5000",
        "bind *:5001",
        "bind *:7000",
        "option httpchk OPTIONS /primary",
        "option httpchk OPTIONS /replica",
    ] {
        assert!(
            text.lines().any(|l| l.trim() == line),
            "config/haproxy.cfg has no line `{line}`"
        );
    }
    assert!(
        text.matches("check port 8008").count() == 6,
        "each server is probed on its REST port"
    );
    assert!(
        text.matches("on-marked-down shutdown-sessions").count() == 2,
        "nobody stays on a demoted node"
    );
}

#[test]
fn filling_in_replaces_every_address_and_keeps_the_rest() {
    let shipped = std::fs::read_to_string(repository().join("config/haproxy.cfg")).unwrap();
    let binds = [("*:5000", "127.0.0.1:1".parse().unwrap())];
    let servers = [("a".to_owned(), "127.0.0.2:2".parse().unwrap(), 3)];
    let text = fill_in(&shipped, &binds, &servers).unwrap();
    assert!(text.contains("bind 127.0.0.1:1\n") && !text.contains("*:5000"));
    assert_eq!(
        text.matches("    server a 127.0.0.2:2 maxconn 100 check port 3\n")
            .count(),
        2
    );
    assert!(
        !text.lines().any(|line| line.contains("10.0.0.")),
        "an example address is left:\n{text}"
    );
    assert!(
        fill_in(&text, &binds, &servers).is_err(),
        "a file without the placeholder is noticed"
    );
}
