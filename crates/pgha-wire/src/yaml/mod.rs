//! YAML as PyYAML's `safe_load` reads it, because that is what existing Patroni files were written for.
//!
//! [`parse()`] turns text into a tree of [`Node`]s. Every node knows its file, line and column, and every scalar keeps
//! the text it was written with beside the value PyYAML makes of it: `0644` is the integer 420 and the text `0644`,
//! `on` is true and the text `on`. [`emit`] writes a JSON value as YAML that reads back as the same value.
//!
//! Invariants: no input panics; depth, size and the number of nodes (aliases expanded) are bounded by the `MAX_`
//! constants of [`mod@parse`]; text of scalars never appears in `Debug` output or in errors, it may be a password.
//!
//! Absent on purpose: comments, writing into an existing file, `!!binary`, `!!set`, `!!omap`, `!!pairs`.

pub mod emit;
pub mod parse;
mod problem;
pub mod resolve;

use std::fmt;

pub use emit::to_yaml;
pub use parse::{Parsed, parse};
pub use problem::{YamlError, YamlProblem};

/// Where a node was written.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Location {
    /// Index into the list of sources that the reader was given.
    pub source: usize,
    /// Line, from 1; 0 where the source has no lines, as an environment variable.
    pub line: usize,
    /// Column, from 1; 0 as above.
    pub column: usize,
}

/// A value and its place.
#[derive(Clone, PartialEq, Debug)]
pub struct Node {
    /// The value.
    pub value: Value,
    /// Where it starts.
    pub at: Location,
}

/// What a node holds.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    /// A single value.
    Scalar(Scalar),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in the order of the file, each key once.
    Map(Vec<Entry>),
}

/// A scalar: the text as written and the value of PyYAML.
#[derive(Clone, PartialEq)]
pub struct Scalar {
    /// The text after removal of quotes and escapes; empty for an absent value.
    pub text: String,
    /// What PyYAML makes of it.
    pub kind: Kind,
}

impl fmt::Debug for Scalar {
    /// Prints the type only, since any scalar may be a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scalar({})", self.kind.name())
    }
}

/// The type PyYAML resolves a scalar to, with its value where the text alone does not give it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Kind {
    /// `~`, `null` or nothing.
    Null,
    /// `yes`, `on`, `true` and their opposites.
    Bool(bool),
    /// Decimal, octal (`0644`), hexadecimal, binary or sexagesimal (`12:30`).
    Int(i128),
    /// A number with a point, `.inf` or `.nan`.
    Float(f64),
    /// `2024-01-01`.
    Date,
    /// `2024-01-01 12:00:00`, with or without time zone.
    DateTime,
    /// Anything else, and everything in quotes.
    Str,
}

impl Kind {
    /// The name of the type for a person.
    pub fn name(&self) -> &'static str {
        match self {
            Kind::Null => "null",
            Kind::Bool(_) => "boolean",
            Kind::Int(_) => "integer",
            Kind::Float(_) => "number",
            Kind::Date => "date",
            Kind::DateTime => "date and time",
            Kind::Str => "string",
        }
    }
}

/// One key and its value.
#[derive(Clone, PartialEq, Debug)]
pub struct Entry {
    /// The key; a scalar, as Python needs a hashable one.
    pub key: Scalar,
    /// Where the key stands.
    pub at: Location,
    /// The value.
    pub value: Node,
}

impl Node {
    /// A string that was not written in a YAML file, such as the value of an environment variable.
    pub fn string(text: impl Into<String>, at: Location) -> Node {
        Node {
            value: Value::Scalar(Scalar {
                text: text.into(),
                kind: Kind::Str,
            }),
            at,
        }
    }

    /// Is this `null` or an absent value?
    pub fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar(s) if s.kind == Kind::Null)
    }

    /// The entries of a mapping; `None` for anything else.
    pub fn entries(&self) -> Option<&[Entry]> {
        match &self.value {
            Value::Map(entries) => Some(entries),
            Value::Scalar(_) | Value::List(_) => None,
        }
    }

    /// The value below a string key of a mapping.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entries()?
            .iter()
            .find(|e| e.key.kind == Kind::Str && e.key.text == key)
            .map(|e| &e.value)
    }

    /// The same value as JSON. Dates become strings. The error is the place of a number that JSON cannot carry
    /// (`.inf`, `.nan`, or more than 64 bits).
    pub fn to_json(&self) -> Result<serde_json::Value, Location> {
        use serde_json::Value as Json;
        Ok(match &self.value {
            Value::List(items) => Json::Array(items.iter().map(Node::to_json).collect::<Result<_, _>>()?),
            Value::Map(entries) => {
                let mut map = serde_json::Map::new();
                for entry in entries {
                    map.insert(entry.key.as_json_key(), entry.value.to_json()?);
                }
                Json::Object(map)
            }
            Value::Scalar(scalar) => match scalar.kind {
                Kind::Null => Json::Null,
                Kind::Bool(b) => Json::Bool(b),
                Kind::Int(i) => {
                    let number = i64::try_from(i)
                        .map(Json::from)
                        .or_else(|_| u64::try_from(i).map(Json::from));
                    number.map_err(|_| self.at)?
                }
                Kind::Float(f) => serde_json::Number::from_f64(f).map(Json::Number).ok_or(self.at)?,
                Kind::Date | Kind::DateTime | Kind::Str => Json::String(scalar.text.clone()),
            },
        })
    }

    /// A tree of JSON values, all at one place. This lets dynamic configuration pass through the readers of the file.
    pub fn from_json(json: &serde_json::Value, at: Location) -> Node {
        use serde_json::Value as Json;
        let scalar = |text: String, kind| Value::Scalar(Scalar { text, kind });
        let value = match json {
            Json::Null => scalar(String::new(), Kind::Null),
            Json::Bool(b) => scalar(if *b { "on" } else { "off" }.to_string(), Kind::Bool(*b)),
            Json::Number(n) => {
                let int = n.as_i64().map(i128::from).or_else(|| n.as_u64().map(i128::from));
                let kind = int.map_or_else(|| Kind::Float(n.as_f64().unwrap_or(f64::NAN)), Kind::Int);
                scalar(n.to_string(), kind)
            }
            Json::String(s) => scalar(s.clone(), Kind::Str),
            Json::Array(items) => Value::List(items.iter().map(|item| Node::from_json(item, at)).collect()),
            Json::Object(map) => {
                let entry = |(key, item): (&String, &Json)| Entry {
                    key: Scalar {
                        text: key.clone(),
                        kind: Kind::Str,
                    },
                    at,
                    value: Node::from_json(item, at),
                };
                Value::Map(map.iter().map(entry).collect())
            }
        };
        Node { value, at }
    }
}

impl Scalar {
    /// The text that Python's `json.dumps` gives a key of this kind.
    fn as_json_key(&self) -> String {
        match self.kind {
            Kind::Null => "null".to_string(),
            Kind::Bool(b) => b.to_string(),
            Kind::Int(i) => i.to_string(),
            Kind::Float(_) | Kind::Date | Kind::DateTime | Kind::Str => self.text.clone(),
        }
    }

    /// The text PostgreSQL shall read: as written, except what only YAML understands. Digit separators are removed
    /// and binary numbers become decimal; octal, hexadecimal and boolean spellings PostgreSQL knows itself.
    /// `None` for null.
    pub fn guc_text(&self) -> Option<String> {
        match self.kind {
            Kind::Null => None,
            Kind::Int(i) if self.text.contains("0b") => Some(i.to_string()),
            Kind::Int(_) | Kind::Float(_) => Some(self.text.replace('_', "")),
            Kind::Bool(_) | Kind::Date | Kind::DateTime | Kind::Str => Some(self.text.clone()),
        }
    }
}
