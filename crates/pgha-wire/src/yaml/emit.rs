//! Writes a JSON value as block-style YAML that PyYAML, and [`super::parse()`], read back as the same value.
//!
//! Invariant: `parse(to_yaml(v)).to_json() == v` for every value of at most [`super::parse::MAX_DEPTH`] levels. Every
//! string that a YAML reader could take for something else (`on`, `0644`, `12:30`, `2024-01-01`) is quoted.
//! Absent on purpose: comments, anchors, block scalars, line folding.

use serde_json::Value;

use super::Kind;
use super::resolve::resolve;

/// In which order the keys of a mapping are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyOrder {
    /// As they stand in the value.
    AsGiven,
    /// By code points.
    Sorted,
}

/// YAML does not look further than this for the `:` of a key without `?`. Quotes and escapes have to fit as well.
const MAX_SIMPLE_KEY: usize = 128;

/// The value as YAML text, ending in a newline.
pub fn to_yaml(value: &Value, order: KeyOrder) -> String {
    let mut out = String::new();
    write_block(&mut out, value, 0, order);
    out
}

/// Writes `value` at the current position; further lines are indented by `indent`.
fn write_block(out: &mut String, value: &Value, indent: usize, order: KeyOrder) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            let mut entries: Vec<(&String, &Value)> = map.iter().collect();
            if order == KeyOrder::Sorted {
                entries.sort_by_key(|(key, _)| *key);
            }
            for (i, (key, item)) in entries.into_iter().enumerate() {
                if i > 0 {
                    pad(out, indent);
                }
                let key = string(key);
                if key.len() > MAX_SIMPLE_KEY {
                    out.push_str("? ");
                    out.push_str(&key);
                    out.push('\n');
                    pad(out, indent);
                } else {
                    out.push_str(&key);
                }
                out.push(':');
                write_value_of_key(out, item, indent, order);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    pad(out, indent);
                }
                out.push_str("- ");
                write_block(out, item, indent + 2, order);
            }
        }
        Value::Object(_) => out.push_str("{}\n"),
        Value::Array(_) => out.push_str("[]\n"),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            out.push_str(&scalar(value));
            out.push('\n');
        }
    }
}

fn write_value_of_key(out: &mut String, item: &Value, indent: usize, order: KeyOrder) {
    // A list stands under its key without indentation, as PyYAML writes it.
    let inner = match item {
        Value::Object(map) if !map.is_empty() => indent + 2,
        Value::Array(items) if !items.is_empty() => indent,
        Value::Null => {
            out.push_str(" null\n");
            return;
        }
        Value::Object(_) | Value::Array(_) | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            out.push(' ');
            write_block(out, item, indent, order);
            return;
        }
    };
    out.push('\n');
    pad(out, inner);
    write_block(out, item, inner, order);
}

fn pad(out: &mut String, indent: usize) {
    out.extend(std::iter::repeat_n(' ', indent));
}

fn scalar(value: &Value) -> String {
    match value {
        Value::Bool(b) => b.to_string(),
        Value::Number(n) if n.is_f64() => float(n.as_f64().unwrap_or(0.0)),
        Value::Number(n) => n.to_string(),
        Value::String(s) => string(s),
        Value::Null | Value::Array(_) | Value::Object(_) => "null".to_string(),
    }
}

/// A finite double with the point and the signed exponent that YAML 1.1 needs to see a number.
fn float(value: f64) -> String {
    let text = format!("{value:?}");
    let Some((mantissa, exponent)) = text.split_once('e') else {
        return text;
    };
    let point = if mantissa.contains('.') { "" } else { ".0" };
    let sign = if exponent.starts_with('-') { "" } else { "+" };
    format!("{mantissa}{point}e{sign}{exponent}")
}

/// A string in the plainest form that reads back as this string.
pub(crate) fn string(text: &str) -> String {
    if is_safe_plain(text) {
        text.to_string()
    } else if text
        .chars()
        .all(|c| matches!(c, ' '..='~' | '\u{A1}'..='\u{D7FF}') && !matches!(c, '\u{2028}' | '\u{2029}'))
    {
        format!("'{}'", text.replace('\'', "''"))
    } else {
        double_quoted(text)
    }
}

/// Needs no quotes in any YAML reader. The rule is much narrower than YAML's own, so that nobody has to think about it.
fn is_safe_plain(text: &str) -> bool {
    let first = text.chars().next();
    let harmless = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '/' | '.' | '-' | '+' | '%' | '@' | ' ');
    first.is_some_and(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '/'))
        && text.chars().all(harmless)
        && !text.ends_with(' ')
        && resolve(text) == Ok(Kind::Str)
        && !is_retyped_elsewhere(text)
}

/// Words that other YAML readers take for a boolean or a number, though PyYAML does not.
fn is_retyped_elsewhere(text: &str) -> bool {
    matches!(text, "y" | "Y" | "n" | "N")
        || text.starts_with("0o")
        || (text.starts_with(|c: char| c.is_ascii_digit()) && text.parse::<f64>().is_ok())
}

fn double_quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            ' '..='~' => out.push(c),
            '\u{A1}'..='\u{D7FF}' if !matches!(c, '\u{2028}' | '\u{2029}') => out.push(c),
            _ if u32::from(c) <= 0xFFFF => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            _ => out.push_str(&format!("\\U{:08X}", u32::from(c))),
        }
    }
    out.push('"');
    out
}
