//! From parser events to a tree of nodes, with PyYAML's rules for tags, merge keys, duplicates and aliases.
//!
//! Job: one document in, one tree out, with every fault that can be found in one pass. Syntax faults end the pass;
//! faults of single values (a wrong date, an unknown tag) are collected.
//! Invariants: the tree is at most [`MAX_DEPTH`] deep and has at most [`MAX_NODES`] nodes after aliases are expanded, so
//! it can be walked recursively; problems never quote a value.

use std::collections::BTreeMap;

use granit_parser::{Event, Parser, ScalarStyle, Span, Tag, options};

use super::problem::{YamlError, YamlProblem};
use super::resolve::{Unresolvable, resolve};
use super::{Entry, Kind, Location, Node, Scalar, Value};

/// Longest accepted document in bytes.
pub const MAX_BYTES: usize = 1 << 20;
/// Deepest accepted nesting.
pub const MAX_DEPTH: usize = 64;
/// Most nodes in a document, with every use of an alias counted in full.
pub const MAX_NODES: usize = 100_000;

/// A document and what was odd in it.
#[derive(Clone, PartialEq, Debug)]
pub struct Parsed {
    /// The value; `None` for a document without content.
    pub root: Option<Node>,
    /// Oddities that PyYAML accepts in silence: duplicate keys.
    pub warnings: Vec<YamlError>,
}

/// Reads one document. `source` is noted in every [`Location`].
pub fn parse(text: &str, source: usize) -> Result<Parsed, Vec<YamlError>> {
    let mut builder = Builder {
        source,
        ..Builder::default()
    };
    match builder.read(text) {
        Err(fatal) => {
            builder.errors.push(fatal);
            Err(builder.errors)
        }
        Ok(()) if !builder.errors.is_empty() => Err(builder.errors),
        Ok(()) => Ok(Parsed {
            root: builder.root,
            warnings: builder.warnings,
        }),
    }
}

/// PyYAML's set of printable characters, except for three that are line breaks in YAML 1.1 and none in YAML 1.2: what
/// readers disagree about has no place in a configuration.
fn is_allowed(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='~' | '\u{A0}'..='\u{D7FF}' | '\u{E000}'..='\u{FFFD}' | '\u{10000}'..)
        && !matches!(c, '\u{2028}' | '\u{2029}')
}

/// A key as the place of its mapping needs it.
struct Key {
    scalar: Scalar,
    at: Location,
    /// A plain `<<`.
    merge: bool,
}

/// An open collection.
enum Open {
    List(Vec<Node>),
    Map { pairs: Vec<(Key, Node)>, key: Option<Key> },
}

struct Frame {
    open: Open,
    at: Location,
    anchor: usize,
    /// Levels below this one so far.
    height: usize,
    /// Nodes created before this one, to know its size at the end.
    nodes_before: usize,
}

/// A finished anchored node.
struct Anchored {
    node: Node,
    merge: bool,
    height: usize,
    size: usize,
}

#[derive(Default)]
struct Builder {
    source: usize,
    stack: Vec<Frame>,
    anchors: BTreeMap<usize, Anchored>,
    nodes: usize,
    root: Option<Node>,
    documents: usize,
    errors: Vec<YamlError>,
    warnings: Vec<YamlError>,
}

impl Builder {
    fn read(&mut self, text: &str) -> Result<(), YamlError> {
        let start = Location {
            source: self.source,
            line: 1,
            column: 1,
        };
        if text.len() > MAX_BYTES {
            return Err(YamlError {
                at: start,
                problem: YamlProblem::TooLong,
            });
        }
        self.check_characters(text)?;
        let limits = options! { emit_comments: false, flow_nesting_limit: MAX_DEPTH, block_nesting_limit: MAX_DEPTH };
        for next in Parser::new_from_str_with_options(text, limits) {
            let (event, span) = next.map_err(|error| {
                let mark = error.marker();
                let at = Location {
                    source: self.source,
                    line: mark.line().max(1),
                    column: mark.col() + 1,
                };
                let problem = match error.kind() {
                    granit_parser::ErrorKind::UnknownAnchor => YamlProblem::UnknownAlias,
                    granit_parser::ErrorKind::RecursionLimitExceeded => YamlProblem::TooDeep,
                    _ => YamlProblem::Syntax(error.info()),
                };
                YamlError { at, problem }
            })?;
            self.handle(event, span)?;
        }
        Ok(())
    }

    fn check_characters(&self, text: &str) -> Result<(), YamlError> {
        for (line, content) in text.strip_prefix('\u{FEFF}').unwrap_or(text).split('\n').enumerate() {
            if let Some((column, c)) = content.chars().enumerate().find(|(_, c)| !is_allowed(*c)) {
                let at = Location {
                    source: self.source,
                    line: line + 1,
                    column: column + 1,
                };
                return Err(YamlError {
                    at,
                    problem: YamlProblem::Character(u32::from(c)),
                });
            }
        }
        Ok(())
    }

    fn handle(&mut self, event: Event<'_>, span: Span) -> Result<(), YamlError> {
        let start = span.tag_start().unwrap_or(span.start);
        let at = Location {
            source: self.source,
            line: start.line().max(1),
            column: start.col() + 1,
        };
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(YamlError {
                        at,
                        problem: YamlProblem::SecondDocument,
                    });
                }
            }
            Event::Scalar(text, style, anchor, tag) => {
                // The parser reports an absent value as `~`; only its empty span tells it from a written one.
                let text = if style == ScalarStyle::Plain && span.is_empty() {
                    ""
                } else {
                    text.as_ref()
                };
                let is_key = matches!(
                    self.stack.last(),
                    Some(Frame {
                        open: Open::Map { key: None, .. },
                        ..
                    })
                );
                let merge = is_key && text == "<<" && style == ScalarStyle::Plain && tag.is_none();
                let kind = if merge || (is_key && text == "=" && style == ScalarStyle::Plain && tag.is_none()) {
                    Kind::Str
                } else {
                    self.kind_of(text, style, tag.as_deref(), at)
                };
                let node = Node {
                    value: Value::Scalar(Scalar {
                        text: text.to_string(),
                        kind,
                    }),
                    at,
                };
                self.count(1, at)?;
                self.keep_anchor(anchor, &node, merge, 0, 1, at)?;
                self.place(node, merge, 0)?;
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.open(Open::List(Vec::new()), "seq", anchor, tag.as_deref(), at)?
            }
            Event::MappingStart(_, anchor, tag) => {
                self.open(
                    Open::Map {
                        pairs: Vec::new(),
                        key: None,
                    },
                    "map",
                    anchor,
                    tag.as_deref(),
                    at,
                )?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.close()?,
            Event::Alias(anchor) => {
                let Some(anchored) = self.anchors.get(&anchor) else {
                    return Err(YamlError {
                        at,
                        problem: YamlProblem::RecursiveAlias,
                    });
                };
                let (size, height, merge) = (anchored.size, anchored.height, anchored.merge);
                // The budget is checked before the copy is made.
                self.count(size, at)?;
                if self.stack.len() + height > MAX_DEPTH {
                    return Err(YamlError {
                        at,
                        problem: YamlProblem::TooDeep,
                    });
                }
                let Some(anchored) = self.anchors.get(&anchor) else {
                    return Ok(());
                };
                let node = Node {
                    value: anchored.node.value.clone(),
                    at,
                };
                self.place(node, merge, height)?;
            }
            // Everything else carries no data.
            _ => {}
        }
        Ok(())
    }

    fn count(&mut self, nodes: usize, at: Location) -> Result<(), YamlError> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > MAX_NODES {
            Err(YamlError {
                at,
                problem: YamlProblem::TooManyNodes,
            })
        } else {
            Ok(())
        }
    }

    /// Notes a fault of one value; the pass goes on with whatever stands in for it.
    fn fault(&mut self, at: Location, problem: YamlProblem) {
        self.errors.push(YamlError { at, problem });
    }

    fn kind_of(&mut self, text: &str, style: ScalarStyle, tag: Option<&Tag>, at: Location) -> Kind {
        let resolved = match tag {
            // A lone `!` asks PyYAML to look at the text, even at a quoted one.
            tag if tag.map_or(style == ScalarStyle::Plain, is_non_specific) => {
                resolve(text).map_err(|reason| match reason {
                    Unresolvable::Special => YamlProblem::SpecialValue,
                    Unresolvable::Integer => YamlProblem::WrongInteger,
                    Unresolvable::Date => YamlProblem::WrongDate,
                })
            }
            None => Ok(Kind::Str),
            Some(tag) => tagged(text, tag),
        };
        resolved.unwrap_or_else(|problem| {
            self.fault(at, problem);
            Kind::Str
        })
    }

    fn open(
        &mut self,
        open: Open,
        core: &str,
        anchor: usize,
        tag: Option<&Tag>,
        at: Location,
    ) -> Result<(), YamlError> {
        if self.stack.len() >= MAX_DEPTH {
            return Err(YamlError {
                at,
                problem: YamlProblem::TooDeep,
            });
        }
        if tag.is_some_and(|tag| !is_non_specific(tag) && !tag.is_yaml_core_schema_tag(core)) {
            self.fault(at, YamlProblem::UnknownTag);
        }
        let nodes_before = self.nodes;
        self.count(1, at)?;
        self.stack.push(Frame {
            open,
            at,
            anchor,
            height: 0,
            nodes_before,
        });
        Ok(())
    }

    fn close(&mut self) -> Result<(), YamlError> {
        let Some(frame) = self.stack.pop() else { return Ok(()) };
        let value = match frame.open {
            Open::List(items) => Value::List(items),
            Open::Map { pairs, .. } => Value::Map(self.finish_map(pairs)),
        };
        let node = Node { value, at: frame.at };
        let height = frame.height + 1;
        let size = self.nodes - frame.nodes_before;
        self.keep_anchor(frame.anchor, &node, false, height, size, frame.at)?;
        self.place(node, false, height)
    }

    fn keep_anchor(
        &mut self,
        anchor: usize,
        node: &Node,
        merge: bool,
        height: usize,
        size: usize,
        at: Location,
    ) -> Result<(), YamlError> {
        if anchor != 0 {
            // The kept copy costs memory as well, so it counts.
            self.count(size, at)?;
            self.anchors.insert(
                anchor,
                Anchored {
                    node: node.clone(),
                    merge,
                    height,
                    size,
                },
            );
        }
        Ok(())
    }

    /// Puts a finished node where it belongs: into the open collection, or as the root.
    fn place(&mut self, node: Node, merge: bool, height: usize) -> Result<(), YamlError> {
        let Some(frame) = self.stack.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        frame.height = frame.height.max(height);
        match &mut frame.open {
            Open::List(items) => items.push(node),
            Open::Map { pairs, key } => match key.take() {
                Some(key) => pairs.push((key, node)),
                None => match node.value {
                    Value::Scalar(scalar) => {
                        *key = Some(Key {
                            scalar,
                            at: node.at,
                            merge,
                        })
                    }
                    Value::List(_) | Value::Map(_) => {
                        return Err(YamlError {
                            at: node.at,
                            problem: YamlProblem::CollectionKey,
                        });
                    }
                },
            },
        }
        Ok(())
    }

    /// Merge keys first, own keys over them; among equal own keys the last one wins and a warning is kept.
    fn finish_map(&mut self, pairs: Vec<(Key, Node)>) -> Vec<Entry> {
        let mut entries = MapBuilder::default();
        let (merges, own): (Vec<_>, Vec<_>) = pairs.into_iter().partition(|(key, _)| key.merge);
        for (key, node) in merges {
            // In a list of mappings the earlier one wins, hence the reversal.
            let maps = match node.value {
                Value::List(items) => items.into_iter().rev().collect(),
                Value::Map(_) | Value::Scalar(_) => vec![node],
            };
            for map in maps {
                match map.value {
                    Value::Map(merged) => merged.into_iter().for_each(|entry| {
                        entries.put(entry);
                    }),
                    Value::Scalar(_) | Value::List(_) => self.fault(key.at, YamlProblem::WrongMerge),
                }
            }
        }
        let mut seen = MapBuilder::default();
        for (key, value) in own {
            let entry = Entry {
                key: key.scalar,
                at: key.at,
                value,
            };
            if seen.note(&entry.key) {
                self.warnings.push(YamlError {
                    at: key.at,
                    problem: YamlProblem::DuplicateKey(entry.key.text.clone()),
                });
            }
            entries.put(entry);
        }
        entries.entries
    }
}

/// A mapping under construction that finds equal keys as a Python dictionary does.
#[derive(Default)]
struct MapBuilder {
    entries: Vec<Entry>,
    index: BTreeMap<String, usize>,
}

impl MapBuilder {
    /// Text that is equal for keys which Python holds to be equal: `1`, `0x1` and `true` are one key.
    fn identity(key: &Scalar) -> String {
        match key.kind {
            Kind::Null => "null".to_string(),
            Kind::Bool(b) => format!("n{}", i32::from(b)),
            Kind::Int(i) => format!("n{i}"),
            Kind::Float(f) => format!("n{f}"),
            Kind::Date | Kind::DateTime => format!("d{}", key.text),
            Kind::Str => format!("s{}", key.text),
        }
    }
    /// Remembers the key; true when it was there before.
    fn note(&mut self, key: &Scalar) -> bool {
        self.index.insert(Self::identity(key), 0).is_some()
    }
    fn put(&mut self, entry: Entry) {
        match self.index.get(&Self::identity(&entry.key)) {
            Some(&i) => self.entries[i] = entry,
            None => {
                self.index.insert(Self::identity(&entry.key), self.entries.len());
                self.entries.push(entry);
            }
        }
    }
}

/// A lone `!`, which names no type.
fn is_non_specific(tag: &Tag) -> bool {
    tag.original() == "!"
}

fn tagged(text: &str, tag: &Tag) -> Result<Kind, YamlProblem> {
    let kind = resolve(text).ok();
    let fits = match tag.suffix_in_namespace("tag:yaml.org,2002:").as_deref() {
        Some("str") => return Ok(Kind::Str),
        Some("null") => return Ok(Kind::Null),
        Some("bool") => kind.filter(|k| matches!(k, Kind::Bool(_))),
        Some("int") => kind.filter(|k| matches!(k, Kind::Int(_))),
        Some("float") => kind.and_then(|k| match k {
            Kind::Float(f) => Some(Kind::Float(f)),
            // Converting an integer to the nearest double is what Python does as well.
            Kind::Int(i) => Some(Kind::Float(i as f64)),
            Kind::Null | Kind::Bool(_) | Kind::Date | Kind::DateTime | Kind::Str => None,
        }),
        Some("timestamp") => kind.filter(|k| matches!(k, Kind::Date | Kind::DateTime)),
        Some(_) | None => return Err(YamlProblem::UnknownTag),
    };
    fits.ok_or(YamlProblem::WrongTag)
}
