//! What is wrong or odd in a configuration, told so that its author finds the place and knows what to write.
//!
//! Invariant: a finding never repeats a value that may be a secret.

use std::fmt;

use crate::limits::quoted;
use crate::yaml::{Kind, Location, Node, Value};

/// Does the agent start with it?
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Severity {
    /// It starts; a person should look.
    Warning,
    /// It does not start.
    Error,
}

/// One thing that was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// File name, or `environment variable X`.
    pub source: String,
    /// Line, from 1; 0 where there are no lines.
    pub line: usize,
    /// Column, from 1; 0 as above.
    pub column: usize,
    /// Dotted path of the key, `postgresql.listen`; empty for the file as a whole.
    pub path: String,
    /// What it is.
    pub problem: Problem,
}

/// The kinds of findings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Problem {
    /// A wrong type or value.
    Wrong {
        /// What stands there, with its type; no secrets.
        found: String,
        /// What may stand there.
        allowed: String,
    },
    /// A required key is absent.
    Missing {
        /// What may stand there.
        allowed: String,
    },
    /// A key without meaning.
    Unknown,
    /// Anything else, as a sentence part behind the path.
    Note(String),
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        f.write_str(": ")?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        match &self.problem {
            Problem::Wrong { found, allowed } => write!(f, "found {found}, allowed: {allowed}"),
            Problem::Missing { allowed } => write!(f, "is missing, allowed: {allowed}"),
            Problem::Unknown => f.write_str("is not a known key and has no effect"),
            Problem::Note(text) => f.write_str(text),
        }
    }
}

/// Collects findings while a configuration is read.
#[derive(Debug)]
pub(crate) struct Report {
    /// Names of the sources, by [`Location::source`].
    names: Vec<String>,
    findings: Vec<Finding>,
}

impl Report {
    pub(crate) fn new(names: Vec<String>) -> Report {
        Report {
            names,
            findings: Vec::new(),
        }
    }

    /// Names a further source and gives its index.
    pub(crate) fn add_source(&mut self, name: String) -> usize {
        self.names.push(name);
        self.names.len() - 1
    }

    pub(crate) fn add(&mut self, severity: Severity, at: Location, path: &str, problem: Problem) {
        let source = self
            .names
            .get(at.source)
            .cloned()
            .unwrap_or_else(|| "configuration".to_string());
        self.findings.push(Finding {
            severity,
            source,
            line: at.line,
            column: at.column,
            path: path.to_string(),
            problem,
        });
    }

    pub(crate) fn has_errors(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity == Severity::Error)
    }

    /// All findings in the order they were made.
    pub(crate) fn into_findings(self) -> Vec<Finding> {
        self.findings
    }
}

/// A value with its type, for a person; without the value when it may be a secret.
pub(super) fn describe(node: &Node, secret: bool) -> String {
    let scalar = match &node.value {
        Value::List(_) => return "a list".to_string(),
        Value::Map(_) => return "a mapping".to_string(),
        Value::Scalar(scalar) => scalar,
    };
    let kind = scalar.kind.name();
    match scalar.kind {
        Kind::Null => "nothing".to_string(),
        _ if secret => format!("a value that is not shown ({kind})"),
        Kind::Str => format!("\"{}\" ({kind})", quoted(&scalar.text)),
        Kind::Bool(_) | Kind::Int(_) | Kind::Float(_) | Kind::Date | Kind::DateTime => {
            format!("{} ({kind})", quoted(&scalar.text))
        }
    }
}
