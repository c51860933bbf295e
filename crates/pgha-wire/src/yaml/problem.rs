//! What can be wrong with a YAML text.
//!
//! Invariant: no message repeats a value, since any value may be a password. Keys are repeated.

use super::Location;
use super::parse::{MAX_BYTES, MAX_DEPTH, MAX_NODES};

/// A problem and its place.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("line {}, column {}: {problem}", at.line, at.column)]
pub struct YamlError {
    /// Where.
    pub at: Location,
    /// What.
    pub problem: YamlProblem,
}

/// What can be wrong with a YAML text.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum YamlProblem {
    /// Not YAML.
    #[error("not valid YAML: {0}")]
    Syntax(String),
    /// A character that YAML does not allow, as its code point.
    #[error("the character U+{0:04X} is not allowed in YAML")]
    Character(u32),
    /// Longer than [`MAX_BYTES`].
    #[error("longer than {MAX_BYTES} bytes")]
    TooLong,
    /// Deeper than [`MAX_DEPTH`].
    #[error("nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// More than [`MAX_NODES`], for instance by aliases of aliases.
    #[error("more than {MAX_NODES} values, aliases counted in full")]
    TooManyNodes,
    /// A second document.
    #[error("a second YAML document begins here; only one is allowed")]
    SecondDocument,
    /// A tag without meaning to PyYAML's safe loader.
    #[error("the tag (the word with `!`) is not known; put the value in quotes if `!` belongs to it")]
    UnknownTag,
    /// A tag that does not fit its value.
    #[error("the value does not fit its tag")]
    WrongTag,
    /// An alias without an anchor.
    #[error("`*` refers to a name that no `&` has defined above; put the value in quotes if `*` belongs to it")]
    UnknownAlias,
    /// An alias inside its own anchor.
    #[error("`*` refers to the value it stands in")]
    RecursiveAlias,
    /// A mapping or sequence as key.
    #[error("a key must be a single value; put it in quotes if it begins with `{{` or `[`")]
    CollectionKey,
    /// `<<` with something that is no mapping.
    #[error("`<<` needs a mapping or a list of mappings")]
    WrongMerge,
    /// `=` or `<<` as a value.
    #[error("`=` and `<<` have a special meaning; put the value in quotes")]
    SpecialValue,
    /// No digits, or too many.
    #[error("looks like an integer but is none or is too large; put it in quotes to have it as text")]
    WrongInteger,
    /// No such day or time.
    #[error("looks like a date but there is no such date or time; put it in quotes to have it as text")]
    WrongDate,
    /// The same key twice in one mapping (a warning).
    #[error("the key `{0}` stands here a second time; the last one counts")]
    DuplicateKey(String),
}
