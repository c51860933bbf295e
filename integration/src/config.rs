//! The configuration file of a node, in Patroni's format.

use std::net::SocketAddrV4;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::secrets::Secrets;

/// What the file of one node is made from.
pub struct NodeConfig<'a> {
    /// Cluster name.
    pub scope: &'a str,
    /// Member name.
    pub name: &'a str,
    /// Where PostgreSQL listens.
    pub postgres: SocketAddrV4,
    /// Where the REST API listens.
    pub rest: SocketAddrV4,
    /// Who may connect to PostgreSQL.
    pub network: &'a str,
    /// The node's directory.
    pub dir: &'a Path,
    /// PostgreSQL's programs.
    pub bin_dir: &'a Path,
    /// etcd's client addresses.
    pub etcd: &'a [SocketAddrV4],
    /// Passwords.
    pub secrets: &'a Secrets,
}

impl NodeConfig<'_> {
    /// The whole file as a value; `dcs` is the initial dynamic configuration.
    pub fn value(&self, dcs: &Value) -> Value {
        let path = |name: &str| self.dir.join(name).display().to_string();
        json!({
            "scope": self.scope,
            "name": self.name,
            "restapi": {"listen": self.rest.to_string(), "connect_address": self.rest.to_string()},
            "etcd3": {"hosts": self.etcd.iter().map(ToString::to_string).collect::<Vec<_>>()},
            "bootstrap": {
                "dcs": dcs,
                "initdb": [{"encoding": "UTF8"}, {"locale": "C"}, "data-checksums"],
            },
            "postgresql": {
                "listen": self.postgres.to_string(),
                "connect_address": self.postgres.to_string(),
                "data_dir": path("data"),
                "bin_dir": self.bin_dir.display().to_string(),
                "pgpass": path("pgpass"),
                "authentication": {
                    "superuser": {"username": "postgres", "password": self.secrets.superuser},
                    "replication": {"username": "replicator", "password": self.secrets.replication},
                    "rewind": {"username": "rewinder", "password": self.secrets.rewind},
                },
                "basebackup": [{"checkpoint": "fast"}],
                "parameters": {
                    "unix_socket_directories": self.dir.display().to_string(),
                    "shared_buffers": "16MB",
                    // In the data directory, so that it goes with it however the server ends.
                    "dynamic_shared_memory_type": "mmap",
                    "logging_collector": "on",
                    "log_directory": path("log"),
                    "log_filename": "postgresql.log",
                    "log_line_prefix": "%m [%p] %q%u@%a ",
                    "log_rotation_age": "0",
                },
                "pg_hba": [
                    "local all all scram-sha-256",
                    format!("host all all {} scram-sha-256", self.network),
                    format!("host replication replicator {} scram-sha-256", self.network),
                ],
            },
            "watchdog": {"mode": "off"},
        })
    }
}

/// Merges `patch` into `base` as RFC 7396 does it: objects merge, `null` removes, everything else replaces.
pub fn merge(base: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *base = patch.clone();
        return;
    };
    if !base.is_object() {
        *base = Value::Object(Map::new());
    }
    if let Value::Object(base) = base {
        for (key, value) in patch {
            if value.is_null() {
                base.remove(key);
            } else {
                merge(base.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
    }
}

/// Writes a value as block-style YAML. Texts are quoted, so none is read as another type.
pub fn render_yaml(value: &Value) -> String {
    let mut out = String::new();
    render(value, 0, &mut out);
    out
}

fn render(value: &Value, depth: usize, out: &mut String) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                out.push_str(&format!("{indent}{key}:"));
                render_nested(value, depth + 1, out);
            }
        }
        Value::Array(list) if !list.is_empty() => {
            for value in list {
                out.push_str(&format!("{indent}-"));
                render_nested(value, depth + 1, out);
            }
        }
        other => out.push_str(&format!("{indent}{other}\n")),
    }
}

fn render_nested(value: &Value, depth: usize, out: &mut String) {
    let is_block = match value {
        Value::Object(map) => !map.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    };
    if is_block {
        out.push('\n');
        render(value, depth, out);
    } else {
        out.push_str(&format!(" {value}\n"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yaml_keeps_texts_apart_from_booleans_and_numbers() {
        let value = json!({"a": {"b": ["on", 5, {"c": true}], "d": {}}, "e": "5"});
        assert_eq!(
            render_yaml(&value),
            "a:\n  b:\n    - \"on\"\n    - 5\n    -\n      c: true\n  d: {}\ne: \"5\"\n"
        );
    }

    #[test]
    fn a_merge_patch_removes_on_null_and_keeps_the_rest() {
        let mut base = json!({"a": {"b": 1, "c": 2}, "d": [1]});
        merge(&mut base, &json!({"a": {"b": null, "e": 3}, "d": [2]}));
        assert_eq!(base, json!({"a": {"c": 2, "e": 3}, "d": [2]}));
    }
}
