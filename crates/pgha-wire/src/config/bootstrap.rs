//! The section `bootstrap`: how the first node of a new cluster is made.

use std::cell::RefCell;

use serde_json::Value as Json;

use super::finding::{Problem, Report, Severity, describe};
use super::postgresql::read_tunable;
use super::section::Section;
use super::tools::read_options;
use crate::pgconf::options::{Tool, ToolOption};
use crate::settings::{parse_settings, unknown_keys};
use crate::values::parse_int;
use crate::yaml::{Location, Node};

/// The section `bootstrap`.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Bootstrap {
    /// The section is there. A node without it never founds a cluster.
    pub given: bool,
    /// The dynamic configuration that a new cluster starts with; an empty object when absent.
    pub dcs: Json,
    /// Options of initdb.
    pub initdb: Vec<ToolOption>,
    /// Command to run once after a new cluster is up.
    pub post_bootstrap: Option<String>,
    /// Lines to append to the pg_hba.conf that initdb made.
    pub pg_hba: Vec<String>,
}

/// Reads `bootstrap`.
pub(super) fn read_bootstrap(mut section: Section<'_>, report: &RefCell<Report>) -> Bootstrap {
    let given = section.is_given();
    let dcs_node = section.node("dcs");
    let dcs = section.json("dcs");
    if let (Some(node), Some(dcs)) = (dcs_node, &dcs) {
        check_dcs(&section.path_of("dcs"), node, dcs, report);
    }
    if section.text("method").is_some_and(|method| method != "initdb") {
        section.note(
            Severity::Error,
            "method",
            "a method other than `initdb` is not supported yet by this version",
        );
    }
    if section.node("users").is_some() {
        section.note(
            Severity::Error,
            "users",
            "is no longer supported since Patroni 4; create users in `post_bootstrap`",
        );
    }
    let post_init = section.text("post_init");
    let bootstrap = Bootstrap {
        given,
        dcs: dcs
            .filter(Json::is_object)
            .unwrap_or_else(|| Json::Object(serde_json::Map::new())),
        initdb: read_options(&mut section, "initdb", Tool::Initdb).unwrap_or_default(),
        post_bootstrap: section.text("post_bootstrap").or(post_init),
        pg_hba: section.strings("pg_hba").unwrap_or_default(),
    };
    section.finish();
    bootstrap
}

/// The settings that decisions depend on must be right before they become those of a whole cluster.
fn check_dcs(path: &str, node: &Node, dcs: &Json, report: &RefCell<Report>) {
    let add = |severity: Severity, at: Location, below: &str, problem: Problem| {
        report
            .borrow_mut()
            .add(severity, at, &format!("{path}.{below}"), problem)
    };
    if !dcs.is_object() {
        let problem = Problem::Wrong {
            found: describe(node, false),
            allowed: "a mapping".to_string(),
        };
        report.borrow_mut().add(Severity::Error, node.at, path, problem);
        return;
    }
    let mut postgresql = Section::new(report, &format!("{path}.postgresql"), node.get("postgresql"), false);
    read_tunable(&mut postgresql);
    for problem in parse_settings(dcs).1 {
        let at = place_of(node, &problem.path);
        let value = problem.path.split('.').try_fold(dcs, |json, key| json.get(key));
        match problem.path.as_str() {
            // Has been read above, `use_slots` excepted, which only exists here.
            path if path.starts_with("postgresql") && path != "postgresql.use_slots" => {}
            // The rule that binds the three times is repaired at run time, as Patroni does.
            "loop_wait" | "retry_timeout" if value.is_none_or(|v| parse_int(v, None).is_some_and(|n| n >= 1)) => {
                let text = format!(
                    "found {}, allowed: {}; {} is used",
                    problem.found, problem.allowed, problem.used
                );
                add(Severity::Warning, at, &problem.path, Problem::Note(text));
            }
            _ => {
                let found = find(node, &problem.path).map_or(problem.found, |node| describe(node, false));
                add(
                    Severity::Error,
                    at,
                    &problem.path,
                    Problem::Wrong {
                        found,
                        allowed: problem.allowed,
                    },
                );
            }
        }
    }
    for key in unknown_keys(dcs) {
        add(Severity::Warning, place_of(node, &key), &key, Problem::Unknown);
    }
}

/// The node at a dotted path.
fn find<'n>(node: &'n Node, path: &str) -> Option<&'n Node> {
    path.split('.').try_fold(node, |node, key| node.get(key))
}

/// Its place, or that of the whole when it is absent.
fn place_of(node: &Node, path: &str) -> Location {
    find(node, path).map_or(node.at, |found| found.at)
}
