//! `PATRONI_*` and `PGHA_*` environment variables as a patch over the files. `PGHA_*` wins over `PATRONI_*`.
//!
//! Values are text: no YAML types are guessed, `PATRONI_SUPERUSER_PASSWORD=0644` is the text `0644`. Lists and
//! mappings are YAML flow collections whose outer brackets may be left out. An empty value is no value.
//! Absent on purpose: reading the environment, and removing the variables from it, which is the daemon's business.

use std::collections::BTreeMap;

use super::finding::{Problem, Report, Severity};
use super::merge::patch;
use crate::yaml::{Entry, Kind, Location, Node, Scalar, Value, parse};

/// How the text of a variable is read.
#[derive(Clone, Copy, PartialEq)]
enum Shape {
    Text,
    List,
    Map,
    /// A text with `%(name)s` in it, else a list.
    Format,
}

/// Sections of DCS that this agent does not speak. Their variables are warned of.
const UNSUPPORTED: [&str; 6] = ["CITUS_", "CONSUL_", "EXHIBITOR_", "KUBERNETES_", "RAFT_", "ZOOKEEPER_"];

/// Plain names and sections: variable prefix, path, keys. The variable is prefix + key in upper case.
const SECTIONS: &[(&str, &str, &[&str])] = &[
    (
        "",
        "",
        &["name", "namespace", "scope", "thread_pool_size", "thread_stack_size"],
    ),
    (
        "LOG_",
        "log",
        &[
            "type",
            "level",
            "traceback_level",
            "format",
            "dateformat",
            "static_fields",
            "max_queue_size",
            "dir",
            "mode",
            "file_size",
            "file_num",
            "loggers",
            "deduplicate_heartbeat_logs",
        ],
    ),
    (
        "RESTAPI_",
        "restapi",
        &[
            "listen",
            "connect_address",
            "certfile",
            "keyfile",
            "keyfile_password",
            "cafile",
            "ciphers",
            "verify_client",
            "http_extra_headers",
            "https_extra_headers",
            "allowlist",
            "allowlist_include_members",
            "request_queue_size",
            "server_tokens",
        ],
    ),
    ("RESTAPI_", "restapi.authentication", &["username", "password"]),
    (
        "CTL_",
        "ctl",
        &["insecure", "cacert", "certfile", "keyfile", "keyfile_password"],
    ),
    ("CTL_", "ctl.authentication", &["username", "password"]),
    (
        "POSTGRESQL_",
        "postgresql",
        &[
            "listen",
            "connect_address",
            "proxy_address",
            "config_dir",
            "data_dir",
            "pgpass",
            "bin_dir",
        ],
    ),
    (
        "POSTGRESQL_BIN_",
        "postgresql.bin_name",
        &[
            "pg_ctl",
            "initdb",
            "pg_controldata",
            "pg_basebackup",
            "postgres",
            "pg_isready",
            "pg_rewind",
        ],
    ),
    ("REPLICATION_", "postgresql.authentication.replication", AUTHENTICATION),
    ("SUPERUSER_", "postgresql.authentication.superuser", AUTHENTICATION),
    ("REWIND_", "postgresql.authentication.rewind", AUTHENTICATION),
    ("ETCD_", "etcd", ETCD),
    ("ETCD3_", "etcd3", ETCD),
];

const AUTHENTICATION: &[&str] = &[
    "username",
    "password",
    "sslmode",
    "sslcert",
    "sslkey",
    "sslpassword",
    "sslrootcert",
    "sslcrl",
    "sslcrldir",
    "gssencmode",
    "channel_binding",
    "sslnegotiation",
];

const ETCD: &[&str] = &[
    "host",
    "hosts",
    "port",
    "use_proxies",
    "protocol",
    "srv",
    "srv_suffix",
    "url",
    "proxy",
    "cacert",
    "cert",
    "key",
    "username",
    "password",
];

/// pgha's own section; only with the prefix `PGHA_`.
const OWN: (&str, &str, &[&str]) = ("", "pgha", &["state_dir", "fence", "flight_recorder"]);

/// Old names of Patroni.
const RENAMED: [(&str, &str); 3] = [
    ("LOGLEVEL", "LOG_LEVEL"),
    ("LOGFORMAT", "LOG_FORMAT"),
    ("LOG_DATEFMT", "LOG_DATEFORMAT"),
];

/// Read by whoever starts the agent, as it stands for the whole file.
const WHOLE_FILE: &str = "CONFIGURATION";

/// Puts the variables over the entries of the files.
pub(super) fn apply(report: &mut Report, base: &mut Vec<Entry>, env: &BTreeMap<String, String>) {
    for (prefix, own) in [("PATRONI_", None), ("PGHA_", Some(&OWN))] {
        for (variable, text) in env
            .range(prefix.to_string()..)
            .take_while(|(name, _)| name.starts_with(prefix))
        {
            let name = &variable[prefix.len()..];
            if text.is_empty() || name == WHOLE_FILE {
                continue;
            }
            let name = RENAMED
                .iter()
                .find(|(old, _)| *old == name)
                .map_or(name, |(_, new)| *new);
            let at = Location {
                source: report.add_source(format!("environment variable {variable}")),
                line: 0,
                column: 0,
            };
            let Some((path, key)) = place_of(name, own) else {
                let text = match UNSUPPORTED.iter().find(|unsupported| name.starts_with(**unsupported)) {
                    Some(_) => "belongs to a part of Patroni that is not supported, and has no effect",
                    None => "is not a known variable and has no effect",
                };
                report.add(Severity::Warning, at, "", Problem::Note(text.to_string()));
                continue;
            };
            let full_path = if path.is_empty() {
                key.to_string()
            } else {
                format!("{path}.{key}")
            };
            match read(text, shape_of(key), at) {
                Ok(node) => patch(base, vec![nest(path, key, node)]),
                Err(allowed) => {
                    let found = "a text that cannot be read as one".to_string();
                    report.add(
                        Severity::Error,
                        at,
                        &full_path,
                        Problem::Wrong {
                            found,
                            allowed: allowed.to_string(),
                        },
                    );
                }
            }
        }
    }
}

/// Section path and key for a name without its prefix.
fn place_of(
    name: &str,
    own: Option<&(&'static str, &'static str, &'static [&'static str])>,
) -> Option<(&'static str, &'static str)> {
    SECTIONS.iter().chain(own).find_map(|(prefix, path, keys)| {
        let rest = name.strip_prefix(prefix)?;
        keys.iter()
            .find(|key| key.to_ascii_uppercase() == rest)
            .map(|key| (*path, *key))
    })
}

fn shape_of(key: &str) -> Shape {
    match key {
        "allowlist" | "hosts" => Shape::List,
        "http_extra_headers" | "https_extra_headers" | "static_fields" | "loggers" => Shape::Map,
        "format" => Shape::Format,
        _ => Shape::Text,
    }
}

fn read(text: &str, shape: Shape, at: Location) -> Result<Node, &'static str> {
    let trimmed = text.trim();
    match shape {
        Shape::List => {
            let is_list = trimmed.starts_with('-') || trimmed.contains('[');
            let allowed = "a list such as a, b";
            collection(
                if is_list {
                    trimmed.to_string()
                } else {
                    format!("[{trimmed}]")
                },
                at,
            )
            .ok_or(allowed)
        }
        Shape::Map => {
            let allowed = "a mapping such as a: b, c: d";
            collection(
                if trimmed.starts_with('{') {
                    trimmed.to_string()
                } else {
                    format!("{{{trimmed}}}")
                },
                at,
            )
            .ok_or(allowed)
        }
        Shape::Format if !text.contains("%(") => read(text, Shape::List, at),
        Shape::Text | Shape::Format => Ok(Node::string(text, at)),
    }
}

fn collection(yaml: String, at: Location) -> Option<Node> {
    let mut node = parse(&yaml, at.source).ok()?.root?;
    relocate(&mut node, at);
    matches!(node.value, Value::List(_) | Value::Map(_)).then_some(node)
}

/// Lines within a variable mean nothing to anybody.
fn relocate(node: &mut Node, at: Location) {
    node.at = at;
    match &mut node.value {
        Value::Scalar(_) => {}
        Value::List(items) => items.iter_mut().for_each(|item| relocate(item, at)),
        Value::Map(entries) => entries.iter_mut().for_each(|entry| {
            entry.at = at;
            relocate(&mut entry.value, at);
        }),
    }
}

/// `key: value` below the sections of a dotted path.
fn nest(path: &str, key: &str, value: Node) -> Entry {
    let at = value.at;
    let entry = |key: &str, value: Node| Entry {
        key: Scalar {
            text: key.to_string(),
            kind: Kind::Str,
        },
        at,
        value,
    };
    path.rsplit('.')
        .filter(|section| !section.is_empty())
        .fold(entry(key, value), |inner, section| {
            entry(
                section,
                Node {
                    value: Value::Map(vec![inner]),
                    at,
                },
            )
        })
}
