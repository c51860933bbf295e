//! The text of PostgreSQL's `synchronous_standby_names`: written as Patroni writes it, read as PostgreSQL reads it.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::units::MemberName;

/// The name no standby has. With it alone in the list nothing is acknowledged. Patroni's own, so that a name that Patroni
/// forbids is the only one that a member cannot have.
pub const NOBODY: &str = "__patroni_strict_sync_replica_placeholder__";
/// Longest text that is read, in bytes.
const MAX_BYTES: usize = 256 * 1024;

/// How standbys are chosen from the list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method {
    /// `FIRST N (..)`, `N (..)` or a bare list: by order.
    Priority,
    /// `ANY N (..)`.
    Quorum,
}

/// A text that was understood.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Names {
    /// Method.
    pub method: Method,
    /// How many standbys a commit waits for; 0 when the text is empty.
    pub num: usize,
    /// All names in their order, [`NOBODY`] included, `*` not.
    pub list: Vec<MemberName>,
    /// `*` is listed: any standby counts.
    pub has_star: bool,
}

impl Names {
    /// Names that a standby can have.
    pub fn real(&self) -> impl Iterator<Item = &MemberName> {
        self.list.iter().filter(|n| n.as_str() != NOBODY)
    }
    /// More standbys are waited for than there can be.
    pub fn acknowledges_nothing(&self) -> bool {
        !self.has_star && self.num > self.real().count()
    }
    /// Each acknowledged commit is on this many of [`Names::real`], whichever those are: by quorum the fastest, by priority
    /// the first that were connected.
    pub fn certain(&self) -> usize {
        if self.has_star { 0 } else { self.num }
    }
    /// The `sync_priority` that a wal sender of this name shows once it has read the text.
    pub fn priority_of(&self, application_name: &str) -> i32 {
        let found = self
            .list
            .iter()
            .position(|n| n.as_str().eq_ignore_ascii_case(application_name));
        match (found, self.method) {
            (None, _) => i32::from(self.has_star),
            (Some(_), Method::Quorum) => 1,
            (Some(at), Method::Priority) => i32::try_from(at + 1).unwrap_or(i32::MAX),
        }
    }
}

/// Writes a value; `lead` puts [`NOBODY`] first, which changes each priority and, as long as nobody has that name, not
/// the meaning of a list whose number is that of its other names. Names are sorted. Empty without names.
pub fn render(method: Method, num: usize, names: &[MemberName], lead: bool) -> String {
    let mut sorted: Vec<&str> = names.iter().map(MemberName::as_str).collect();
    sorted.sort_unstable();
    sorted.dedup();
    let leading = lead.then(|| NOBODY.to_string());
    let quoted: Vec<String> = leading.into_iter().chain(sorted.iter().map(|n| quote(n))).collect();
    let list = quoted.join(",");
    match (method, quoted.len()) {
        (_, 0) => String::new(),
        (Method::Quorum, _) => format!("ANY {num} ({list})"),
        (Method::Priority, 1) => list,
        (Method::Priority, _) => format!("{num} ({list})"),
    }
}

/// A name stays bare if PostgreSQL's lexer takes it for an identifier, else it is quoted.
fn quote(name: &str) -> String {
    let bare = name.starts_with(is_start) && name.chars().all(is_part);
    let keyword = name.eq_ignore_ascii_case("first") || name.eq_ignore_ascii_case("any");
    if bare && !keyword {
        name.to_string()
    } else {
        format!("\"{}\"", name.replace('"', "\"\""))
    }
}

fn is_start(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_'
}

fn is_part(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '$')
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Token {
    Word(String),
    Quoted(String),
    Number(usize),
    Star,
    Comma,
    Open,
    Close,
}

/// Reads a value. `None` when this reader does not understand it, which is as good as a text that promises nothing.
pub fn parse(text: &str) -> Option<Names> {
    if text.len() > MAX_BYTES {
        return None;
    }
    let tokens = tokens(text)?;
    let (method, num, list) = match tokens.as_slice() {
        [] => return Some(empty()),
        [Token::Word(w), Token::Number(n), Token::Open, list @ .., Token::Close] => (method(w)?, *n, list),
        [Token::Number(n), Token::Open, list @ .., Token::Close] => (Method::Priority, *n, list),
        list => (Method::Priority, 1, list),
    };
    let mut names = Names { method, num, ..empty() };
    // Names stand between commas, and there is at least one.
    for item in list.split(|t| *t == Token::Comma) {
        match item {
            [Token::Word(name) | Token::Quoted(name)] => names.list.push(MemberName::new(name.as_str())),
            [Token::Star] => names.has_star = true,
            _ => return None,
        }
    }
    (num > 0).then_some(names)
}

fn empty() -> Names {
    Names {
        method: Method::Priority,
        num: 0,
        list: Vec::new(),
        has_star: false,
    }
}

fn method(word: &str) -> Option<Method> {
    if word.eq_ignore_ascii_case("first") {
        Some(Method::Priority)
    } else {
        word.eq_ignore_ascii_case("any").then_some(Method::Quorum)
    }
}

fn tokens(text: &str) -> Option<Vec<Token>> {
    let mut out = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let (token, length) = match first {
            ',' => (Token::Comma, 1),
            '(' => (Token::Open, 1),
            ')' => (Token::Close, 1),
            '*' => (Token::Star, 1),
            '"' => quoted(rest)?,
            '0'..='9' => {
                let length = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
                let number = rest.get(..length)?.parse::<u32>().ok()?;
                (Token::Number(usize::try_from(number).ok()?), length)
            }
            c if is_start(c) => {
                let length = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
                (Token::Word(rest.get(..length)?.to_string()), length)
            }
            _ => return None,
        };
        out.push(token);
        rest = rest.get(length..)?.trim_start();
    }
    Some(out)
}

/// A name in double quotes, where two of them stand for one.
fn quoted(text: &str) -> Option<(Token, usize)> {
    let mut name = String::new();
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c != '"' {
            name.push(c);
        } else if chars.next_if(|(_, c)| *c == '"').is_some() {
            name.push('"');
        } else {
            return Some((Token::Quoted(name), at + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(names: &[&str]) -> Vec<MemberName> {
        names.iter().map(|n| (*n).into()).collect()
    }

    #[test]
    fn values_are_written_as_patroni_writes_them() {
        use Method::{Priority, Quorum};
        let cases: [(Method, usize, &[&str], &str); 9] = [
            (Priority, 0, &[], ""),
            (Priority, 1, &["a"], "a"),
            (Priority, 2, &["b", "a"], "2 (a,b)"),
            (
                Priority,
                2,
                &["pg-node-3", "pg-node-2"],
                "2 (\"pg-node-2\",\"pg-node-3\")",
            ),
            (Priority, 1, &["first"], "\"first\""),
            (Priority, 1, &["ANY"], "\"ANY\""),
            (Priority, 1, &["a\"b"], "\"a\"\"b\""),
            (Quorum, 1, &["a"], "ANY 1 (a)"),
            (Quorum, 1, &["b", "A"], "ANY 1 (A,b)"),
        ];
        for (method, num, names, expected) in cases {
            assert_eq!(render(method, num, &members(names), false), expected);
        }
        let led = render(Priority, 1, &members(&["b"]), true);
        assert_eq!(led, "1 (__patroni_strict_sync_replica_placeholder__,b)");
    }

    #[test]
    fn every_form_of_postgresql_is_read() {
        use Method::{Priority, Quorum};
        let case = |text: &str| {
            let n = parse(text)?;
            let list: Vec<&str> = n.list.iter().map(MemberName::as_str).collect();
            Some((n.method, n.num, list.join("|"), n.has_star))
        };
        assert_eq!(case("  "), Some((Priority, 0, String::new(), false)));
        assert_eq!(case(" a , b "), Some((Priority, 1, "a|b".into(), false)));
        assert_eq!(case("2(a,\"b c\")"), Some((Priority, 2, "a|b c".into(), false)));
        assert_eq!(case("first 2 (a, b)"), Some((Priority, 2, "a|b".into(), false)));
        assert_eq!(case("FiRsT"), Some((Priority, 1, "FiRsT".into(), false)));
        assert_eq!(case("ANY 4(\"a\",*,b)"), Some((Quorum, 4, "a|b".into(), true)));
        assert_eq!(case("any, \"x\"\"y\""), Some((Priority, 1, "any|x\"y".into(), false)));
    }

    #[test]
    fn what_postgresql_refuses_is_not_understood() {
        for bad in [
            "1",
            "a,",
            ",",
            "ANY 4(\"a\" b)",
            "FIRST 4(a,)",
            "2 (,)",
            "2 (a",
            "2 a",
            "\"a",
            "ü",
            "ANY (a)",
            "99999999999 (a)",
            "0 (a)",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_is_written_is_read_as_the_same_set() {
        for method in [Method::Priority, Method::Quorum] {
            for lead in [false, true] {
                let names = members(&["First", "any", "b-1", "x\"y", "ü", "*", " "]);
                let read = parse(&render(method, 7, &names, lead));
                let mut real: Vec<MemberName> = read.iter().flat_map(|n| n.real().cloned()).collect();
                real.sort();
                let mut expected = names.clone();
                expected.sort();
                assert_eq!(real, expected);
                assert_eq!(
                    read.map(|n| (n.method, n.has_star, n.certain())),
                    Some((method, false, 7))
                );
            }
        }
    }

    #[test]
    fn a_text_promises_so_many_of_its_names_and_nothing_of_others() {
        let certain = |text: &str| parse(text).map(|n| n.certain());
        assert_eq!(certain(""), Some(0));
        assert_eq!(certain("2 (a,b)"), Some(2));
        assert_eq!(certain("1 (a,b)"), Some(1));
        assert_eq!(certain("a,b"), Some(1));
        assert_eq!(certain("ANY 1 (a,b)"), Some(1));
        assert_eq!(certain("ANY 1 (a,*)"), Some(0));
        assert_eq!(certain("*"), Some(0));
        assert!(parse(NOBODY).is_some_and(|n| n.acknowledges_nothing()));
        assert!(parse("2 (b,__patroni_strict_sync_replica_placeholder__)").is_some_and(|n| n.acknowledges_nothing()));
        assert!(!parse("*").is_some_and(|n| n.acknowledges_nothing()));
    }
}
