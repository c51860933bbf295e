//! The machine formats: rows of JSON values as tab-separated text, JSON or YAML, as `patronictl -f` writes them.
//!
//! Absent on purpose: the drawn table, which is in [`crate::table`].

use pgha_wire::pyjson::render_spaced;
use pgha_wire::yaml::emit::{KeyOrder, to_yaml};
use serde_json::{Map, Value};

/// How a result is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum Format {
    /// A drawn table.
    #[default]
    Pretty,
    /// Tab-separated, with a header line.
    Tsv,
    /// One line of JSON.
    Json,
    /// YAML with sorted keys.
    #[value(alias = "yml")]
    Yaml,
}

/// Tab-separated lines, the headers first. Tags and the like become flow YAML.
pub fn render_tsv(headers: &[&str], rows: &[Vec<Value>]) -> String {
    let mut out = headers.join("\t");
    out.push('\n');
    for row in rows {
        let cells: Vec<String> = row.iter().map(flow_text).collect();
        out.push_str(&cells.join("\t"));
        out.push('\n');
    }
    out
}

/// One line of JSON: an array of objects.
pub fn render_json(objects: Vec<Map<String, Value>>) -> String {
    format!("{}\n", render_spaced(&as_array(objects)))
}

/// A block-style YAML list, followed by an empty line.
pub fn render_yaml(objects: Vec<Map<String, Value>>) -> String {
    render_yaml_document(&as_array(objects))
}

/// Any value as block-style YAML with sorted keys, followed by an empty line.
pub fn render_yaml_document(value: &Value) -> String {
    format!("{}\n", to_yaml(value, KeyOrder::Sorted))
}

/// A cell in one line: text as it is, collections as flow YAML `{a: b, c: [1, 2]}` with sorted keys, null as a blank.
pub fn flow_text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => flow(value),
    }
}

fn flow(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<(&String, &Value)> = map.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            let parts: Vec<String> = entries
                .into_iter()
                .map(|(key, item)| format!("{}: {}", scalar(&Value::from(key.as_str())), flow(item)))
                .collect();
            format!("{{{}}}", parts.join(", "))
        }
        Value::Array(items) => {
            let parts: Vec<String> = items.iter().map(flow).collect();
            format!("[{}]", parts.join(", "))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => scalar(value),
    }
}

/// A scalar is written alike in block and flow style: what flow style could misread is quoted in both.
fn scalar(value: &Value) -> String {
    to_yaml(value, KeyOrder::AsGiven).trim_end_matches('\n').to_owned()
}

fn as_array(objects: Vec<Map<String, Value>>) -> Value {
    Value::Array(objects.into_iter().map(Value::Object).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn collections_become_flow_yaml_with_sorted_keys() {
        let tags =
            json!({"x": {"z": [1, "on", null]}, "nofailover": true, "name with space": "a: b", "e": {}, "l": []});
        assert_eq!(
            flow_text(&tags),
            "{e: {}, l: [], name with space: 'a: b', nofailover: true, x: {z: [1, 'on', null]}}"
        );
        assert_eq!(flow_text(&json!("a: b")), "a: b");
        assert_eq!(flow_text(&Value::Null), "");
        assert_eq!(flow_text(&json!({"a": "b, c", "d": "[e]"})), "{a: 'b, c', d: '[e]'}");
    }
}
