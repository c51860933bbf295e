//! Typed access to one mapping of the configuration.
//!
//! Each reader gives the value, or `None` when the key is absent, null or wrong; wrong ones are in the report then, so
//! that reading goes on and all errors come out at once. [`Section::finish`] warns of keys that nobody asked for.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use super::finding::{Problem, Report, Severity, describe};
use crate::pgconf::credentials::Secret;
use crate::values::{Unit, parse_bool, parse_int_text};
use crate::yaml::{Entry, Kind, Location, Node, Scalar, Value};

const A_STRING: &str = "a string (in quotes if it looks like a number, a date or on/off)";
const A_BOOLEAN: &str = "true or false (also on, off, yes, no)";

/// One mapping, its path, and which of its keys have been asked for.
pub(super) struct Section<'n> {
    report: &'n RefCell<Report>,
    path: String,
    entries: &'n [Entry],
    at: Location,
    asked: BTreeMap<&'static str, ()>,
    secret: bool,
}

impl<'n> Section<'n> {
    /// The mapping `node`, or an empty one when it is none (then the report says so).
    pub(super) fn new(report: &'n RefCell<Report>, path: &str, node: Option<&'n Node>, secret: bool) -> Section<'n> {
        let at = node.map(|node| node.at).unwrap_or_default();
        let mut section = Section {
            report,
            path: path.to_string(),
            entries: &[],
            at,
            asked: BTreeMap::new(),
            secret,
        };
        match node.map(|node| (node, node.entries())) {
            Some((_, Some(entries))) => section.entries = entries,
            Some((node, None)) if !node.is_null() => section.wrong_at(path.to_string(), node, "a mapping"),
            Some((_, None)) | None => {}
        }
        section
    }

    pub(super) fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_string()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    /// Does the section hold anything?
    pub(super) fn is_given(&self) -> bool {
        !self.entries.is_empty()
    }

    /// The value of a key, whatever it is; `None` for null and absent ones.
    pub(super) fn node(&mut self, key: &'static str) -> Option<&'n Node> {
        self.asked.insert(key, ());
        self.entries
            .iter()
            .find(|entry| entry.key.kind == Kind::Str && entry.key.text == key)
            .map(|entry| &entry.value)
            .filter(|node| !node.is_null())
    }

    /// The section below a key; an empty one when there is none.
    pub(super) fn section(&mut self, key: &'static str) -> Section<'n> {
        self.sub_section(key, self.secret)
    }

    /// Like [`Section::section`], for values that must not be shown.
    pub(super) fn secret_section(&mut self, key: &'static str) -> Section<'n> {
        self.sub_section(key, true)
    }

    fn sub_section(&mut self, key: &'static str, secret: bool) -> Section<'n> {
        let node = self.node(key);
        let mut section = Section::new(self.report, &self.path_of(key), node, secret);
        if node.is_none() {
            // A key missing in a missing section is reported where the section should stand.
            section.at = Location { column: 0, ..self.at };
        }
        section
    }

    /// Has any key that is not null?
    pub(super) fn is_empty(&self) -> bool {
        self.entries.iter().all(|entry| entry.value.is_null())
    }

    pub(super) fn text(&mut self, key: &'static str) -> Option<String> {
        self.text_allowing(key, A_STRING)
    }

    /// A string that is not empty; Patroni treats an empty one like an absent one.
    pub(super) fn text_allowing(&mut self, key: &'static str, allowed: &str) -> Option<String> {
        let node = self.node(key)?;
        match &node.value {
            Value::Scalar(Scalar { text, kind: Kind::Str }) => Some(text.clone()).filter(|text| !text.is_empty()),
            Value::Scalar(_) | Value::List(_) | Value::Map(_) => {
                self.wrong(key, node, allowed);
                None
            }
        }
    }

    /// A string that `parse` accepts.
    pub(super) fn parsed<T, E: std::fmt::Display>(
        &mut self,
        key: &'static str,
        allowed: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let text = self.text_allowing(key, allowed)?;
        parse(&text).map_err(|_| self.wrong_key(key, allowed)).ok()
    }

    /// One of several words, in any case.
    pub(super) fn word<T: Copy>(&mut self, key: &'static str, words: &[(&str, T)]) -> Option<T> {
        let allowed = words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
        self.parsed(key, &allowed, |text| {
            words
                .iter()
                .find(|(word, _)| word.eq_ignore_ascii_case(text))
                .map(|(_, t)| *t)
                .ok_or("")
        })
    }

    /// Like [`Section::word`], for words that are only passed on.
    pub(super) fn word_text(&mut self, key: &'static str, words: &[&str]) -> Option<String> {
        self.parsed(key, &words.join(", "), |text| {
            words.contains(&text).then(|| text.to_string()).ok_or("")
        })
    }

    pub(super) fn file(&mut self, key: &'static str) -> Option<PathBuf> {
        self.text_allowing(key, "a path").map(PathBuf::from)
    }

    pub(super) fn flag(&mut self, key: &'static str) -> Option<bool> {
        let node = self.node(key)?;
        let value = match &node.value {
            Value::Scalar(Scalar {
                kind: Kind::Bool(b), ..
            }) => Some(*b),
            // Environment variables and quoted words.
            Value::Scalar(scalar) => parse_bool(&serde_json::Value::String(scalar.text.clone())),
            Value::List(_) | Value::Map(_) => None,
        };
        if value.is_none() {
            self.wrong(key, node, A_BOOLEAN);
        }
        value
    }

    /// An integer in `range`; with `unit`, also a text such as `64kB`, converted to it.
    pub(super) fn int(&mut self, key: &'static str, range: RangeInclusive<i64>, unit: Option<Unit>) -> Option<i64> {
        let node = self.node(key)?;
        let value = match &node.value {
            Value::Scalar(Scalar { kind: Kind::Int(i), .. }) => i64::try_from(*i).ok(),
            Value::Scalar(Scalar { kind: Kind::Str, text }) => parse_int_text(text, unit),
            Value::Scalar(_) | Value::List(_) | Value::Map(_) => None,
        };
        let value = value.filter(|value| range.contains(value));
        if value.is_none() {
            let (min, max) = (range.start(), range.end());
            let bounds = if *max == i64::MAX {
                format!("of at least {min}")
            } else {
                format!("from {min} to {max}")
            };
            self.wrong(key, node, &format!("an integer {bounds}"));
        }
        value
    }

    /// A password or the like. An integer is taken when Patroni would see the same digits.
    pub(super) fn secret(&mut self, key: &'static str) -> Option<Secret> {
        self.loose_text(key, true).map(Secret::new)
    }

    /// A name that people write without quotes although it may be a number.
    pub(super) fn loose_text(&mut self, key: &'static str, secret: bool) -> Option<String> {
        let node = self.node(key)?;
        match &node.value {
            Value::Scalar(Scalar { text, kind: Kind::Str }) => Some(text.clone()).filter(|text| !text.is_empty()),
            Value::Scalar(Scalar {
                text,
                kind: Kind::Int(i),
            }) if i.to_string() == *text => Some(text.clone()),
            Value::Scalar(_) | Value::List(_) | Value::Map(_) => {
                self.report_wrong(self.path_of(key), node, A_STRING, self.secret || secret);
                None
            }
        }
    }

    /// A list of strings. Numbers are taken by their text.
    pub(super) fn strings(&mut self, key: &'static str) -> Option<Vec<String>> {
        let node = self.node(key)?;
        let Value::List(items) = &node.value else {
            self.wrong(key, node, "a list of strings");
            return None;
        };
        let mut out = Vec::with_capacity(items.len());
        for (i, item) in items.iter().enumerate() {
            match &item.value {
                Value::Scalar(scalar) if scalar.kind != Kind::Null => out.push(scalar.text.clone()),
                Value::Scalar(_) | Value::List(_) | Value::Map(_) => {
                    self.wrong_at(format!("{}[{i}]", self.path_of(key)), item, A_STRING);
                }
            }
        }
        Some(out)
    }

    /// A mapping of single values, each by the text PostgreSQL shall read; nulls are left out.
    pub(super) fn text_map(&mut self, key: &'static str) -> Option<BTreeMap<String, String>> {
        let node = self.node(key)?;
        let Some(entries) = node.entries() else {
            self.wrong(key, node, "a mapping of names to single values");
            return None;
        };
        let mut out = BTreeMap::new();
        for entry in entries {
            match &entry.value.value {
                Value::Scalar(scalar) => {
                    if let Some(text) = scalar.guc_text() {
                        out.insert(entry.key.text.clone(), text);
                    }
                }
                Value::List(_) | Value::Map(_) => {
                    self.wrong_at(
                        format!("{}.{}", self.path_of(key), entry.key.text),
                        &entry.value,
                        "a single value",
                    );
                }
            }
        }
        Some(out)
    }

    /// Any value as JSON.
    pub(super) fn json(&mut self, key: &'static str) -> Option<serde_json::Value> {
        let node = self.node(key)?;
        match node.to_json() {
            Ok(json) => Some(json),
            Err(at) => {
                let text = "holds a number that JSON cannot carry; put it in quotes".to_string();
                self.report
                    .borrow_mut()
                    .add(Severity::Error, at, &self.path_of(key), Problem::Note(text));
                None
            }
        }
    }

    /// These keys are Patroni's and mean nothing here; they are no reason for a warning.
    pub(super) fn accept(&mut self, keys: &[&'static str]) {
        self.asked.extend(keys.iter().map(|key| (*key, ())));
    }

    /// A value of the wrong type or out of range.
    pub(super) fn wrong(&self, key: &str, node: &Node, allowed: &str) {
        self.wrong_at(self.path_of(key), node, allowed);
    }

    /// The same for a value that is not directly below a key of this section.
    pub(super) fn wrong_at(&self, path: String, node: &Node, allowed: &str) {
        self.report_wrong(path, node, allowed, self.secret);
    }

    fn report_wrong(&self, path: String, node: &Node, allowed: &str, secret: bool) {
        let problem = Problem::Wrong {
            found: describe(node, secret),
            allowed: allowed.to_string(),
        };
        self.report.borrow_mut().add(Severity::Error, node.at, &path, problem);
    }

    /// Like [`Section::wrong`] for a key whose value has been read already.
    pub(super) fn wrong_key(&mut self, key: &'static str, allowed: &str) {
        if let Some(node) = self.node(key) {
            self.wrong(key, node, allowed);
        }
    }

    /// A required key is absent.
    pub(super) fn missing(&mut self, key: &'static str, allowed: &str) {
        // A null stands somewhere; an absent key only has the place of its section.
        let null = self
            .entries
            .iter()
            .find(|entry| entry.key.text == key)
            .map(|entry| entry.at);
        let problem = Problem::Missing {
            allowed: allowed.to_string(),
        };
        self.report
            .borrow_mut()
            .add(Severity::Error, null.unwrap_or(self.at), &self.path_of(key), problem);
    }

    /// A required value: reports when it is absent, but not when it was wrong, which has been reported.
    pub(super) fn required<T>(&mut self, key: &'static str, allowed: &str, value: Option<T>) -> Option<T> {
        let is_empty_text = |node: &Node| matches!(&node.value, Value::Scalar(s) if s.text.is_empty());
        if value.is_none() && self.node(key).is_none_or(is_empty_text) {
            self.missing(key, allowed);
        }
        value
    }

    /// A sentence about a key, at its place.
    pub(super) fn note(&self, severity: Severity, key: &str, text: impl Into<String>) {
        let at = self
            .entries
            .iter()
            .find(|entry| entry.key.text == key)
            .map_or(self.at, |entry| entry.value.at);
        self.note_at(severity, at, &self.path_of(key), text);
    }

    /// A sentence about a place.
    pub(super) fn note_at(&self, severity: Severity, at: Location, path: &str, text: impl Into<String>) {
        self.report
            .borrow_mut()
            .add(severity, at, path, Problem::Note(text.into()));
    }

    /// Warns of every key that nobody has asked for.
    pub(super) fn finish(self) {
        for entry in self.entries {
            if entry.key.kind != Kind::Str || !self.asked.contains_key(entry.key.text.as_str()) {
                self.report.borrow_mut().add(
                    Severity::Warning,
                    entry.at,
                    &self.path_of(&entry.key.text),
                    Problem::Unknown,
                );
            }
        }
    }
}
