//! `edit-config` without the editor and without etcd: from what the user gave to the new text of `/config`.

use pgha_wire::pyjson::render_compact;
use pgha_wire::rest::patch::patch_config;
use pgha_wire::settings::parse_settings;
use pgha_wire::yaml::emit::{KeyOrder, to_yaml};
use pgha_wire::yaml::{YamlError, parse};
use serde_json::{Map, Value};
use similar::TextDiff;

use crate::error::CtlError;

/// Below this path the rest of a key is one name: PostgreSQL's parameters have dots in them.
const PARAMETERS: [&str; 2] = ["postgresql", "parameters"];
/// Lines around a change in the difference.
const CONTEXT_LINES: usize = 3;
/// Deepest key that is accepted.
const MAX_KEY_PARTS: usize = 32;

/// One `KEY=VALUE`.
#[derive(Clone, PartialEq, Debug)]
pub struct Assignment {
    path: Vec<String>,
    value: Value,
}

/// Reads `-s KEY=VALUE`; the value is YAML as PyYAML reads it, so `on` is true.
///
/// # Errors
/// [`CtlError::Refused`] when it is no assignment, or the value is no YAML.
pub fn parse_assignment(text: &str) -> Result<Assignment, CtlError> {
    let invalid = || CtlError::refused(format!("Invalid parameter setting {text}"));
    let (key, value) = text.split_once('=').ok_or_else(invalid)?;
    let value =
        parse_yaml(value).map_err(|reason| CtlError::refused(format!("Invalid parameter setting {text}: {reason}")))?;
    let mut path: Vec<String> = key.trim().split('.').map(str::to_owned).collect();
    if path.len() > PARAMETERS.len() && path.iter().zip(PARAMETERS).all(|(part, fixed)| part == fixed) {
        let name = path.split_off(PARAMETERS.len()).join(".");
        path.push(name);
    }
    if path.iter().any(String::is_empty) || path.len() > MAX_KEY_PARTS {
        return Err(invalid());
    }
    Ok(Assignment { path, value })
}

/// Reads `-p NAME=VALUE`, which is short for `-s postgresql.parameters.NAME=VALUE`.
///
/// # Errors
/// As [`parse_assignment`].
pub fn parse_parameter(text: &str) -> Result<Assignment, CtlError> {
    parse_assignment(&format!("{}.{text}", PARAMETERS.join(".")))
}

/// Puts a value in its place; null removes it, and mappings that become empty go with it.
pub fn assign(config: &mut Map<String, Value>, assignment: &Assignment) {
    set(config, &assignment.path, &assignment.value);
}

fn set(map: &mut Map<String, Value>, path: &[String], value: &Value) {
    let Some((first, rest)) = path.split_first() else {
        return;
    };
    if rest.is_empty() {
        if value.is_null() {
            map.shift_remove(first);
        } else {
            map.insert(first.clone(), value.clone());
        }
        return;
    }
    let below = map.entry(first.clone()).or_insert_with(|| Value::Object(Map::new()));
    if !below.is_object() {
        *below = Value::Object(Map::new());
    }
    if let Value::Object(inner) = below {
        set(inner, rest, value);
        if inner.is_empty() {
            map.shift_remove(first);
        }
    }
}

/// Merges a YAML mapping into the configuration; null removes.
///
/// # Errors
/// [`CtlError::Refused`] when it is no mapping, or the result is too large for etcd.
pub fn apply_yaml(config: &Map<String, Value>, text: &str, name: &str) -> Result<Map<String, Value>, CtlError> {
    let patch = parse_mapping(text, name)?;
    let change = patch_config(config, &patch).map_err(|_| too_large())?;
    match serde_json::from_str(&change.text) {
        Ok(Value::Object(merged)) => Ok(merged),
        // The text was made of an object a moment ago.
        Ok(_) | Err(_) => Err(too_large()),
    }
}

/// Reads a YAML mapping; `name` says in errors where it comes from.
///
/// # Errors
/// [`CtlError::Refused`] with the place of what is wrong.
pub fn parse_mapping(text: &str, name: &str) -> Result<Map<String, Value>, CtlError> {
    match parse_yaml(text) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(CtlError::refused(format!(
            "{name}: a mapping of keys to values is expected"
        ))),
        Err(reason) => Err(CtlError::refused(format!("{name}: {reason}"))),
    }
}

fn parse_yaml(text: &str) -> Result<Value, String> {
    let root = parse(text, 0).map_err(|errors| {
        errors
            .iter()
            .map(YamlError::to_string)
            .collect::<Vec<String>>()
            .join("; ")
    })?;
    let Some(root) = root.root else { return Ok(Value::Null) };
    root.to_json()
        .map_err(|at| format!("line {}, column {}: JSON cannot hold this number", at.line, at.column))
}

/// The text for `/config`.
///
/// # Errors
/// [`CtlError::Refused`] when members could not read it again.
pub fn config_text(config: &Map<String, Value>) -> Result<String, CtlError> {
    let text = render_compact(&Value::Object(config.clone()));
    if text.len() > pgha_wire::limits::MAX_CONFIG_BYTES {
        Err(too_large())
    } else {
        Ok(text)
    }
}

fn too_large() -> CtlError {
    CtlError::refused(format!(
        "the configuration would be larger than {} bytes",
        pgha_wire::limits::MAX_CONFIG_BYTES
    ))
}

/// The configuration as a person edits it.
pub fn config_yaml(config: &Map<String, Value>) -> String {
    to_yaml(&Value::Object(config.clone()), KeyOrder::Sorted)
}

/// The difference of two configurations as unified diff; empty when there is none.
pub fn config_diff(old: &Map<String, Value>, new: &Map<String, Value>) -> String {
    let (old, new) = (config_yaml(old), config_yaml(new));
    TextDiff::from_lines(&old, &new)
        .unified_diff()
        .context_radius(CONTEXT_LINES)
        .header("", "")
        .to_string()
}

/// Values that the agents will not take as written and that were not there before.
pub fn new_problems(old: &Map<String, Value>, new: &Map<String, Value>) -> Vec<String> {
    let (_, before) = parse_settings(&Value::Object(old.clone()));
    let (_, after) = parse_settings(&Value::Object(new.clone()));
    after
        .iter()
        .filter(|problem| !before.contains(problem))
        .map(ToString::to_string)
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn map(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(map) => map,
            _ => Map::new(),
        }
    }

    fn after(start: Value, assignments: &[&str]) -> Value {
        let mut config = map(start);
        for text in assignments {
            assign(&mut config, &parse_assignment(text).expect("an assignment"));
        }
        Value::Object(config)
    }

    #[test]
    fn values_are_yaml_as_patroni_reads_it() {
        let result = after(
            json!({}),
            &["a=on", "b=5", "c='5'", "d=[1, x]", "e=12:30", "f=a=b", "g=", "h=0x10"],
        );
        assert_eq!(
            result,
            json!({"a": true, "b": 5, "c": "5", "d": [1, "x"], "e": 750, "f": "a=b", "h": 16})
        );
    }

    #[test]
    fn parameters_keep_their_dots_and_other_keys_become_levels() {
        let result = after(
            json!({}),
            &["postgresql.parameters.pg_stat.x=1", "standby_cluster.host=h"],
        );
        assert_eq!(
            result,
            json!({"postgresql": {"parameters": {"pg_stat.x": 1}}, "standby_cluster": {"host": "h"}})
        );
        let short = parse_parameter("pg_stat.x=1").expect("an assignment");
        assert_eq!(
            short,
            parse_assignment("postgresql.parameters.pg_stat.x=1").expect("an assignment")
        );
    }

    #[test]
    fn null_removes_and_empty_mappings_go_with_it() {
        let start = json!({"ttl": 30, "postgresql": {"parameters": {"a": 1}}, "x": {"y": {"z": 1}, "w": 2}});
        assert_eq!(
            after(start, &["postgresql.parameters.a=null", "x.y.z=", "nothing.there=null"]),
            json!({"ttl": 30, "x": {"w": 2}})
        );
        assert_eq!(after(json!({"a": 5}), &["a.b=1"]), json!({"a": {"b": 1}}));
    }

    #[test]
    fn what_is_no_assignment_is_refused() {
        for text in ["ttl", "", "=5", "a..b=1", ".a=1", "a=[", "a=!!x y"] {
            assert!(
                parse_assignment(text).is_err_and(|e| e.to_string().contains("Invalid parameter setting")),
                "{text}"
            );
        }
        assert!(parse_assignment(&format!("{}a=1", "a.".repeat(40))).is_err());
    }

    #[test]
    fn a_patch_merges_and_null_deletes() {
        let config = map(json!({"ttl": 30, "postgresql": {"use_slots": true}}));
        let merged = apply_yaml(&config, "ttl: null\npostgresql:\n  use_pg_rewind: yes\n", "patch.yml").expect("valid");
        assert_eq!(
            Value::Object(merged),
            json!({"postgresql": {"use_slots": true, "use_pg_rewind": true}})
        );
    }

    #[test]
    fn broken_yaml_is_refused_with_its_place() {
        for (text, part) in [
            ("a: [\n", "x.yml: line"),
            ("- a\n", "x.yml: a mapping"),
            ("a: .inf\n", "line 1, column 4"),
            ("", "a mapping"),
        ] {
            let error = parse_mapping(text, "x.yml").expect_err("broken").to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn the_difference_looks_like_that_of_patronictl() {
        let (old, new) = (
            map(json!({"ttl": 30, "loop_wait": 10})),
            map(json!({"ttl": 40, "loop_wait": 10})),
        );
        assert_eq!(
            config_diff(&old, &new),
            "--- \n+++ \n@@ -1,2 +1,2 @@\n loop_wait: 10\n-ttl: 30\n+ttl: 40\n"
        );
        assert_eq!(config_diff(&old, &old), "");
    }

    #[test]
    fn only_new_problems_are_told() {
        let old = map(json!({"ttl": "soon"}));
        let mut new = old.clone();
        new.insert("loop_wait".to_owned(), json!("later"));
        let problems = new_problems(&old, &new);
        assert!(problems.iter().any(|p| p.contains("loop_wait")), "{problems:?}");
        assert!(
            !problems.iter().any(|p| p.starts_with("ttl: found \"soon\"")),
            "{problems:?}"
        );
        assert!(new_problems(&old, &old).is_empty());
    }
}
