//! The text of PostgreSQL's `synchronous_standby_names`: written as Patroni writes it, read as PostgreSQL reads it.

use winnow::ascii::{digit1, multispace0};
use winnow::combinator::{alt, delimited, dispatch, eof, fail, opt, peek, preceded, repeat, separated, terminated};
use winnow::error::{ContextError, ErrMode};
use winnow::prelude::*;
use winnow::token::{any, one_of, take_while};

use crate::error::WireError;
use crate::limits::{MAX_SYNC_NAMES_BYTES, quoted};

/// The name no standby has: with it in the list nothing is acknowledged. Used by strict mode while no standby is there.
pub const STRICT_PLACEHOLDER: &str = "__patroni_strict_sync_replica_placeholder__";

/// How standbys are chosen from the list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SyncMethod {
    /// Nobody is waited for.
    Off,
    /// `FIRST N (..)`, `N (..)` or a bare list: by order.
    Priority,
    /// `ANY N (..)`.
    Quorum,
}

/// A parsed `synchronous_standby_names`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SyncStandbyNames {
    /// Method.
    pub method: SyncMethod,
    /// How many standbys a commit waits for; 0 when off.
    pub num: u32,
    /// Names in their order, without `*` and without [`STRICT_PLACEHOLDER`].
    pub names: Vec<String>,
    /// `*` is listed: any standby counts.
    pub has_star: bool,
}

/// Writes the value for a mode. Names are sorted; `num` is how many of them a commit waits for.
///
/// `None` means: remove the parameter. With no name and `num` above zero it is the placeholder, so that commits wait.
pub fn render_sync_names<'a>(method: SyncMethod, num: u32, names: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let mut sorted: Vec<&str> = names.into_iter().collect();
    sorted.sort_unstable();
    sorted.dedup();
    if sorted.is_empty() && num > 0 {
        sorted.push(STRICT_PLACEHOLDER);
    }
    let num = usize::try_from(num).unwrap_or(usize::MAX).clamp(1, sorted.len().max(1));
    let list = sorted.iter().map(|n| quote(n)).collect::<Vec<String>>().join(",");
    match (method, sorted.len()) {
        (SyncMethod::Off, _) | (_, 0) => None,
        (SyncMethod::Quorum, _) => Some(format!("ANY {num} ({list})")),
        (SyncMethod::Priority, 1) => Some(list),
        (SyncMethod::Priority, _) => Some(format!("{num} ({list})")),
    }
}

/// Reads any value PostgreSQL accepts.
///
/// # Errors
/// [`WireError::SyncNames`] when PostgreSQL would not accept it either.
pub fn parse_sync_names(text: &str) -> Result<SyncStandbyNames, WireError> {
    let wrong = |reason: &str| WireError::SyncNames {
        found: quoted(text),
        reason: reason.to_owned(),
    };
    if text.len() > MAX_SYNC_NAMES_BYTES {
        return Err(wrong("it is too long"));
    }
    if text.trim().is_empty() {
        return Ok(SyncStandbyNames {
            method: SyncMethod::Off,
            num: 0,
            names: Vec::new(),
            has_star: false,
        });
    }
    let (method, num, list) = terminated(value, eof)
        .parse(text)
        .map_err(|_| wrong("expected names, N (names), FIRST N (names) or ANY N (names)"))?;
    let has_star = list.contains(&Name::Star);
    let names = list.into_iter().filter_map(|name| match name {
        Name::Star => None,
        Name::Text(name) => (name != STRICT_PLACEHOLDER).then_some(name),
    });
    Ok(SyncStandbyNames {
        method,
        num,
        names: names.collect(),
        has_star,
    })
}

/// A name stays bare if PostgreSQL's lexer takes it for an identifier, else it is quoted.
fn quote(name: &str) -> String {
    let mut chars = name.chars();
    let bare = chars.next().is_some_and(is_start) && chars.all(is_part);
    let keyword = name.eq_ignore_ascii_case("first") || name.eq_ignore_ascii_case("any");
    // The only `*` that comes here is the wish for anybody, which is never expressed by a name.
    if bare && !keyword {
        name.to_owned()
    } else {
        format!("\"{}\"", name.replace('"', "\"\""))
    }
}

#[derive(Clone, PartialEq, Eq)]
enum Name {
    Star,
    Text(String),
}

type Parsed<T> = Result<T, ErrMode<ContextError>>;

fn value(input: &mut &str) -> Parsed<(SyncMethod, u32, Vec<Name>)> {
    alt((counted, list.map(|names| (SyncMethod::Priority, 1, names)))).parse_next(input)
}

fn counted(input: &mut &str) -> Parsed<(SyncMethod, u32, Vec<Name>)> {
    let method = opt(spaced(word)).verify_map(|w| match w {
        None => Some(SyncMethod::Priority),
        Some(w) if w.eq_ignore_ascii_case("first") => Some(SyncMethod::Priority),
        Some(w) if w.eq_ignore_ascii_case("any") => Some(SyncMethod::Quorum),
        Some(_) => None,
    });
    (
        method,
        spaced(digit1.parse_to()),
        delimited(spaced('('), list, spaced(')')),
    )
        .parse_next(input)
}

fn list(input: &mut &str) -> Parsed<Vec<Name>> {
    separated(1.., spaced(name), ',').parse_next(input)
}

fn name(input: &mut &str) -> Parsed<Name> {
    dispatch! {peek(any);
        '*' => any.value(Name::Star),
        '"' => quoted_name.map(Name::Text),
        '0'..='9' => fail,
        _ => word.map(|w: &str| Name::Text(w.to_owned())),
    }
    .parse_next(input)
}

fn quoted_name(input: &mut &str) -> Parsed<String> {
    let part = alt((take_while(1.., |c| c != '"'), "\"\"".value("\"")));
    delimited('"', repeat(0.., part).fold(String::new, |all, part| all + part), '"').parse_next(input)
}

fn word<'a>(input: &mut &'a str) -> Parsed<&'a str> {
    (one_of(is_start), take_while(0.., is_part)).take().parse_next(input)
}

fn spaced<'a, O>(
    inner: impl Parser<&'a str, O, ErrMode<ContextError>>,
) -> impl Parser<&'a str, O, ErrMode<ContextError>> {
    preceded(multispace0, terminated(inner, multispace0))
}

fn is_start(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_'
}

fn is_part(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '$')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn values_are_written_as_patroni_writes_them() {
        use SyncMethod::{Off, Priority, Quorum};
        let cases: [(SyncMethod, u32, &[&str], Option<&str>); 11] = [
            (Priority, 0, &[], None),
            (Priority, 1, &["a"], Some("a")),
            (Priority, 2, &["b", "a"], Some("2 (a,b)")),
            (Priority, 1, &[], Some(STRICT_PLACEHOLDER)),
            (Priority, 1, &["first"], Some("\"first\"")),
            (Priority, 1, &["node-1"], Some("\"node-1\"")),
            (Priority, 1, &["a\"b"], Some("\"a\"\"b\"")),
            (Quorum, 1, &["a"], Some("ANY 1 (a)")),
            (Quorum, 1, &["b", "a"], Some("ANY 1 (a,b)")),
            (
                Quorum,
                1,
                &[],
                Some("ANY 1 (__patroni_strict_sync_replica_placeholder__)"),
            ),
            (Off, 1, &["a"], None),
        ];
        for (method, num, names, expected) in cases {
            assert_eq!(
                render_sync_names(method, num, names.iter().copied()).as_deref(),
                expected
            );
        }
    }

    #[test]
    fn every_form_of_postgresql_is_read() {
        let case = |text: &str| {
            let parsed = parse_sync_names(text).unwrap();
            (parsed.method, parsed.num, parsed.names.join("|"), parsed.has_star)
        };
        use SyncMethod::{Off, Priority, Quorum};
        assert_eq!(case("  "), (Off, 0, String::new(), false));
        assert_eq!(case(" a , b "), (Priority, 1, "a|b".into(), false));
        assert_eq!(case("2(a,\"b c\")"), (Priority, 2, "a|b c".into(), false));
        assert_eq!(case("first 2 (a, b)"), (Priority, 2, "a|b".into(), false));
        assert_eq!(case("FiRsT"), (Priority, 1, "FiRsT".into(), false));
        assert_eq!(case("ANY 4(\"a\",*,b)"), (Quorum, 4, "a|b".into(), true));
        assert_eq!(case("any, \"x\"\"y\""), (Priority, 1, "any|x\"y".into(), false));
        assert_eq!(case(STRICT_PLACEHOLDER), (Priority, 1, String::new(), false));
    }

    #[test]
    fn what_postgresql_refuses_is_an_error() {
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
        ] {
            assert!(parse_sync_names(bad).is_err(), "{bad}");
        }
    }
}
