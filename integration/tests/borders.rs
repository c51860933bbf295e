//! The borders between the crates, kept by a machine: who may import whom, and which calls are banned.
//!
//! The table is the one of docs/ARCHITECTURE.md. A new edge is a change of the design: change both, and say why there.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use pgha_integration::programs::repository;

/// Crate, and which of ours it may import.
const MAY_IMPORT: [(&str, &[&str]); 9] = [
    ("pgha-core", &[]),
    ("pgha-wire", &["pgha-core"]),
    ("pgha-sim", &["pgha-core", "pgha-wire"]),
    ("pgha-dcs", &["pgha-core", "pgha-wire"]),
    ("pgha-api", &["pgha-core", "pgha-wire"]),
    ("pgha-postgres", &["pgha-core"]),
    ("pgha-ctl", &["pgha-core", "pgha-wire", "pgha-dcs"]),
    (
        "pgha-agent",
        &["pgha-core", "pgha-wire", "pgha-dcs", "pgha-api", "pgha-postgres"],
    ),
    ("pgha-integration", &["pgha-sim"]),
];
/// Outside crates that do I/O, ask the system or draw random numbers: none of them belongs below the pure crates.
const IMPURE: [&str; 13] = [
    "tokio",
    "tokio-util",
    "tokio-postgres",
    "etcd-client",
    "axum",
    "hyper",
    "hyper-util",
    "nix",
    "rustix",
    "libc",
    "rand",
    "getrandom",
    "tempfile",
];
/// What every crate's clippy.toml bans at least.
const BANNED_CALLS: [&str; 2] = ["std::time::Instant::now", "std::time::SystemTime::now"];

#[test]
fn each_crate_imports_only_what_the_table_allows() {
    let table: BTreeMap<&str, BTreeSet<&str>> = MAY_IMPORT
        .iter()
        .map(|(name, may)| (*name, may.iter().copied().collect()))
        .collect();
    for dir in crate_dirs() {
        let manifest = Manifest::read(&dir);
        let allowed = table.get(manifest.name.as_str());
        let allowed = allowed.unwrap_or_else(|| panic!("{} is not in the table of the borders", manifest.name));
        let ours: BTreeSet<&str> = manifest
            .dependencies
            .iter()
            .map(String::as_str)
            .filter(|name| name.starts_with("pgha-"))
            .collect();
        let beyond: Vec<_> = ours.difference(allowed).collect();
        assert!(
            beyond.is_empty(),
            "{} imports {beyond:?}, which its border forbids",
            manifest.name
        );
    }
}

#[test]
fn every_crate_of_the_table_exists() {
    let found: BTreeSet<String> = crate_dirs().iter().map(|dir| Manifest::read(dir).name).collect();
    let table: BTreeSet<String> = MAY_IMPORT.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(found, table);
}

#[test]
fn the_pure_crates_have_nothing_impure_below_them() {
    for name in ["pgha-core", "pgha-wire", "pgha-sim"] {
        let manifest = Manifest::read(&repository().join("crates").join(name));
        let impure: Vec<_> = manifest
            .dependencies
            .iter()
            .filter(|d| IMPURE.contains(&d.as_str()))
            .collect();
        assert!(impure.is_empty(), "{name} is pure and imports {impure:?}");
    }
}

#[test]
fn core_is_no_std() {
    let text = read(&repository().join("crates/pgha-core/src/lib.rs"));
    assert!(
        text.lines().any(|line| line == "#![no_std]"),
        "pgha-core has to be no_std"
    );
    let manifest = Manifest::read(&repository().join("crates/pgha-core"));
    let outside: Vec<_> = manifest
        .dependencies
        .iter()
        .filter(|name| *name != "thiserror")
        .collect();
    assert!(
        outside.is_empty(),
        "pgha-core imports {outside:?}; only thiserror without std is allowed"
    );
}

#[test]
fn nobody_but_the_simulator_can_plant_defects_in_the_rules() {
    const FEATURE: &str = "planted-bugs";
    let lines_with_it = |file: &Path| -> Vec<String> {
        let text = read(file);
        let lines = text
            .lines()
            .map(str::trim)
            .filter(|l| !l.starts_with('#') && l.contains(FEATURE));
        lines.map(str::to_owned).collect()
    };
    let root = repository();
    assert!(lines_with_it(&root.join("Cargo.toml")).is_empty());
    for dir in crate_dirs() {
        let manifest = Manifest::read(&dir);
        // A feature that is on by default, or asked for by a dependency, would be on in every build of the workspace.
        let expected: &[&str] = match manifest.name.as_str() {
            "pgha-core" => &["planted-bugs = []"],
            "pgha-sim" => &["planted-bugs = [\"pgha-core/planted-bugs\"]"],
            _ => &[],
        };
        assert_eq!(lines_with_it(&dir.join("Cargo.toml")), expected, "{}", manifest.name);
    }
}

#[test]
fn every_crate_obeys_the_workspace_lints() {
    for dir in crate_dirs() {
        let text = read(&dir.join("Cargo.toml"));
        assert!(
            text.contains("[lints]\nworkspace = true"),
            "{} does not inherit the lints",
            dir.display()
        );
    }
}

#[test]
fn clocks_are_banned_everywhere() {
    let root = repository();
    // Clippy takes the nearest file alone, so a crate's own file must repeat the ban.
    let mut files = vec![root.join("clippy.toml")];
    files.extend(
        crate_dirs()
            .iter()
            .map(|dir| dir.join("clippy.toml"))
            .filter(|file| file.exists()),
    );
    for file in files {
        let text = read(&file);
        for call in BANNED_CALLS {
            assert!(
                text.contains(&format!("path = \"{call}\"")),
                "{} does not ban {call}",
                file.display()
            );
        }
    }
    let wire = read(&root.join("crates/pgha-wire/clippy.toml"));
    for call in ["std::env::var", "std::fs::read_to_string", "std::net::TcpStream"] {
        assert!(
            wire.contains(&format!("path = \"{call}\"")),
            "pgha-wire's clippy.toml does not ban {call}"
        );
    }
}

struct Manifest {
    name: String,
    /// Of the ordinary, build and target sections. Tests may look from both sides of a border, so theirs do not count.
    dependencies: BTreeSet<String>,
}

impl Manifest {
    fn read(dir: &Path) -> Self {
        let text = read(&dir.join("Cargo.toml"));
        let mut section = "";
        let mut name = String::new();
        let mut dependencies = BTreeSet::new();
        for line in text.lines().map(str::trim) {
            if let Some(header) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                section = header;
                // The long form gives a dependency a section of its own.
                if let Some((kind, dependency)) = header.rsplit_once('.')
                    && is_dependency_section(kind)
                {
                    dependencies.insert(dependency.to_owned());
                }
                continue;
            }
            let Some((key, value)) = line.split_once('=') else {
                continue;
            };
            let key = key.trim().split('.').next().unwrap_or_default().trim_matches('"');
            if section == "package" && key == "name" {
                name = value.trim().trim_matches('"').to_owned();
            } else if is_dependency_section(section) && !key.starts_with('#') {
                dependencies.insert(key.to_owned());
            }
        }
        Self { name, dependencies }
    }
}

fn is_dependency_section(section: &str) -> bool {
    section == "dependencies"
        || section == "build-dependencies"
        || (section.starts_with("target.") && section.ends_with(".dependencies"))
}

fn crate_dirs() -> Vec<PathBuf> {
    let root = repository();
    let mut dirs: Vec<PathBuf> = std::fs::read_dir(root.join("crates"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|dir| dir.join("Cargo.toml").exists())
        .collect();
    dirs.push(root.join("integration"));
    dirs
}

fn read(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}
