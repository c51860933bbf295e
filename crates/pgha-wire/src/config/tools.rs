//! Options of programs in the configuration: `initdb`, `basebackup` and `rewind`, as a list or as a mapping.

use super::finding::Severity;
use super::section::Section;
use crate::pgconf::options::{Tool, ToolOption, rejection};
use crate::yaml::{Kind, Node, Scalar, Value};

const ALLOWED: &str = "a list of `option` and `option: value`, or a mapping of options to values";
const ONE_ITEM: &str = "`option` or `option: value`, where the value is a single one";

/// Reads the options below `key`. What the agent would not pass on is an error for initdb, which runs once, and a
/// warning for the others, as in Patroni.
pub(super) fn read_options(section: &mut Section<'_>, key: &'static str, tool: Tool) -> Option<Vec<ToolOption>> {
    let node = section.node(key)?;
    let path = section.path_of(key);
    let mut out = Vec::new();
    match &node.value {
        Value::Scalar(_) => {
            section.wrong(key, node, ALLOWED);
            return None;
        }
        Value::Map(entries) => {
            for entry in entries {
                let option = option_of(&entry.key.text, &entry.value);
                take(
                    section,
                    &format!("{path}.{}", entry.key.text),
                    &entry.value,
                    option,
                    tool,
                    &mut out,
                );
            }
        }
        Value::List(items) => {
            for (i, item) in items.iter().enumerate() {
                let option = match &item.value {
                    Value::Scalar(Scalar { text, kind: Kind::Str }) => Read::Option(ToolOption::from_item(text)),
                    Value::Map(entries) => match &entries[..] {
                        [entry] if !entry.value.is_null() => option_of(&entry.key.text, &entry.value),
                        _ => Read::Wrong,
                    },
                    Value::Scalar(_) | Value::List(_) => Read::Wrong,
                };
                take(section, &format!("{path}[{i}]"), item, option, tool, &mut out);
            }
        }
    }
    Some(out)
}

enum Read {
    Option(ToolOption),
    /// `option: false`, or without a value: not passed, as in Patroni.
    Off,
    Wrong,
}

fn option_of(name: &str, value: &Node) -> Read {
    match &value.value {
        Value::Scalar(Scalar {
            kind: Kind::Null | Kind::Bool(false),
            ..
        }) => Read::Off,
        Value::Scalar(Scalar {
            kind: Kind::Bool(true), ..
        }) => Read::Option(ToolOption::from_item(name)),
        Value::Scalar(scalar) => Read::Option(ToolOption::with_value(name, &scalar.text)),
        Value::List(_) | Value::Map(_) => Read::Wrong,
    }
}

fn take(section: &mut Section<'_>, path: &str, node: &Node, option: Read, tool: Tool, out: &mut Vec<ToolOption>) {
    match option {
        Read::Off => {}
        Read::Wrong => section.wrong_at(path.to_string(), node, ONE_ITEM),
        Read::Option(option) => match rejection(tool, &option, None) {
            None => out.push(option),
            Some(reason) => {
                let severity = if tool == Tool::Initdb {
                    Severity::Error
                } else {
                    Severity::Warning
                };
                section.note_at(severity, node.at, path, format!("option `{}` {reason}", option.name));
            }
        },
    }
}
