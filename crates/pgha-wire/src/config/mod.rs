//! The local configuration: Patroni's YAML file, or a directory of them, under `PATRONI_*` and `PGHA_*` variables.
//!
//! [`load`] reads everything, says everything that is wrong in one go, and either gives a [`LocalConfig`] that needs no
//! further checks of form or only findings. [`effective_postgresql`] puts the file over the dynamic configuration.
//!
//! Invariants: a finding names file, line and path and never a secret; keys without meaning are warnings, wrong types and
//! values are errors; `Debug` output of a configuration shows no password.
//!
//! Absent on purpose: reading files and the environment, checking that directories, programs and ports exist.

mod bootstrap;
mod effective;
mod env;
mod etcd;
mod finding;
mod merge;
mod postgresql;
mod rest;
mod section;
mod small;
mod tools;

use std::cell::RefCell;
use std::collections::BTreeMap;

use pgha_core::sync::names::NOBODY;
use pgha_core::tags::Tags;
use pgha_core::units::MemberName;

pub use bootstrap::Bootstrap;
pub use effective::{EffectivePostgres, effective_postgresql};
pub use etcd::Etcd;
pub use finding::{Finding, Problem, Severity};
pub use postgresql::{Authentication, Callbacks, Postgresql, Tunable};
pub use rest::{BasicAuth, Ctl, RestApi, ServerTokens, VerifyClient};
pub use small::{DEFAULT_FLIGHT_RECORDER_BYTES, Level, Log, Own, Watchdog, WatchdogMode};

use crate::limits::MAX_NAME_BYTES;
use crate::yaml::{Location, Node, Value, parse};
use finding::Report;
use section::Section;

/// Patroni's default for `namespace`.
const DEFAULT_NAMESPACE: &str = "/service";

/// One file, or the content of a variable that stands for one.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// What findings call it: the file's name.
    pub name: &'a str,
    /// Its content.
    pub text: &'a str,
}

/// A configuration that can be used.
#[derive(Clone, PartialEq, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: LocalConfig,
    /// What a person should look at.
    pub warnings: Vec<Finding>,
}

/// Everything that a node reads from its own file and environment.
#[derive(Clone, PartialEq, Debug)]
pub struct LocalConfig {
    /// Name of the cluster.
    pub scope: String,
    /// Path below which clusters live in the DCS: one slash in front, none behind.
    pub namespace: String,
    /// Name of this member.
    pub name: MemberName,
    /// The REST server.
    pub restapi: RestApi,
    /// The REST client.
    pub ctl: Ctl,
    /// How to reach etcd.
    pub etcd: Etcd,
    /// How a new cluster is made.
    pub bootstrap: Bootstrap,
    /// The PostgreSQL of this node.
    pub postgresql: Postgresql,
    /// Tags of this member.
    pub tags: Tags,
    /// Logging.
    pub log: Log,
    /// The watchdog.
    pub watchdog: Watchdog,
    /// pgha's own keys.
    pub pgha: Own,
}

/// Reads the sources as one configuration, later ones as patches over earlier ones (`null` deletes), and the variables
/// over them. Variables without one of the two prefixes are not looked at; `PATRONI_CONFIGURATION` is the caller's to
/// pass as a source.
///
/// The error holds every finding, warnings included, with at least one error among them.
pub fn load(sources: &[Source<'_>], env: &BTreeMap<String, String>) -> Result<Loaded, Vec<Finding>> {
    let mut names: Vec<String> = sources.iter().map(|source| source.name.to_string()).collect();
    if names.is_empty() {
        names.push("configuration".to_string());
    }
    let mut report = Report::new(names);
    let mut entries = Vec::new();
    for (i, source) in sources.iter().enumerate() {
        if let Some(root) = read_source(&mut report, i, source.text) {
            match root.value {
                Value::Map(map) => merge::patch(&mut entries, map),
                Value::Scalar(_) | Value::List(_) => {
                    let found = finding::describe(&root, true);
                    report.add(
                        Severity::Error,
                        root.at,
                        "",
                        Problem::Wrong {
                            found,
                            allowed: "a mapping".to_string(),
                        },
                    );
                }
            }
        }
    }
    let broken = report.has_errors();
    env::apply(&mut report, &mut entries, env);
    if broken {
        // With a part of the text unread everything else would look missing.
        return Err(report.into_findings());
    }
    let start = Location {
        source: 0,
        line: usize::from(!sources.is_empty()),
        column: 0,
    };
    if entries.is_empty() {
        report.add(
            Severity::Error,
            start,
            "",
            Problem::Note("the configuration is empty".to_string()),
        );
        return Err(report.into_findings());
    }
    let report = RefCell::new(report);
    let root = Node {
        value: Value::Map(entries),
        at: start,
    };
    let config = read_config(Section::new(&report, "", Some(&root), false), &report);
    let report = report.into_inner();
    match config {
        Some(config) if !report.has_errors() => Ok(Loaded {
            config,
            warnings: report.into_findings(),
        }),
        Some(_) | None => Err(report.into_findings()),
    }
}

/// The tree of one source; what is wrong with it as YAML goes to the report.
fn read_source(report: &mut Report, index: usize, text: &str) -> Option<Node> {
    let note = |report: &mut Report, severity, error: crate::yaml::YamlError| {
        report.add(severity, error.at, "", Problem::Note(error.problem.to_string()));
    };
    match parse(text, index) {
        Ok(parsed) => {
            parsed
                .warnings
                .into_iter()
                .for_each(|warning| note(report, Severity::Warning, warning));
            if parsed.root.is_none() {
                let at = Location {
                    source: index,
                    line: 1,
                    column: 1,
                };
                report.add(
                    Severity::Error,
                    at,
                    "",
                    Problem::Note("the file is empty; allowed: a mapping".to_string()),
                );
            }
            parsed.root
        }
        Err(errors) => {
            errors
                .into_iter()
                .for_each(|error| note(report, Severity::Error, error));
            None
        }
    }
}

fn read_config(mut root: Section<'_>, report: &RefCell<Report>) -> Option<LocalConfig> {
    let scope = read_name(&mut root, "scope");
    let name = read_name(&mut root, "name");
    let namespace = root.text("namespace").unwrap_or_else(|| DEFAULT_NAMESPACE.to_string());
    let restapi = rest::read_restapi(root.section("restapi"));
    let ctl = rest::read_ctl(root.section("ctl"));
    let etcd = etcd::read_etcd(&mut root);
    let bootstrap = bootstrap::read_bootstrap(root.section("bootstrap"), report);
    let postgresql = postgresql::read_postgresql(root.section("postgresql"));
    let tags = small::read_tags(&mut root);
    let log = small::read_log(root.section("log"));
    let watchdog = small::read_watchdog(root.section("watchdog"));
    let pgha = small::read_own(root.section("pgha"));
    if root.node("citus").is_some() {
        root.note(Severity::Error, "citus", "Citus is not supported yet by this version");
    }
    root.accept(&["thread_pool_size", "thread_stack_size"]);
    root.finish();
    Some(LocalConfig {
        scope: scope?,
        namespace: format!("/{}", namespace.trim_matches('/')),
        name: MemberName::new(name?),
        restapi: restapi?,
        ctl,
        etcd: etcd?,
        bootstrap,
        postgresql: postgresql?,
        tags,
        log,
        watchdog,
        pgha,
    })
}

/// `scope` or `name`: a part of a key in the DCS.
fn read_name(root: &mut Section<'_>, key: &'static str) -> Option<String> {
    const ALLOWED: &str = "a string without `/`, line breaks and the like";
    let text = root.text(key);
    let text = root.required(key, ALLOWED, text)?;
    if text.contains('/') || text.chars().any(char::is_control) || text.len() > MAX_NAME_BYTES {
        root.wrong_key(key, ALLOWED);
        return None;
    }
    // A member of this name could not be told from the stand-in for nobody.
    if text == NOBODY {
        root.note(
            Severity::Error,
            key,
            format!("cannot be {NOBODY}, which stands for nobody in strict synchronous mode"),
        );
        return None;
    }
    Some(text)
}
