//! How Patroni reads a loosely typed value: truth, number, number with a unit; and how Python prints one.
//!
//! Dynamic configuration is written by hand and by programs, so `5`, `"5"`, `"on"` and `"30min"` all occur.

use serde_json::Value;

/// A unit of memory or time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// 1024^4 bytes.
    Tb,
    /// 1024^3 bytes.
    Gb,
    /// 1024^2 bytes.
    Mb,
    /// 1024 bytes.
    Kb,
    /// One byte.
    B,
    /// Day.
    D,
    /// Hour.
    H,
    /// Minute.
    Min,
    /// Second.
    S,
    /// Millisecond.
    Ms,
    /// Microsecond.
    Us,
}

/// Unit, spelling (case matters), size in bytes or microseconds, whether it is a unit of time. Larger ones first.
const UNITS: [(Unit, &str, f64, bool); 11] = [
    (Unit::Tb, "TB", 1_099_511_627_776.0, false),
    (Unit::Gb, "GB", 1_073_741_824.0, false),
    (Unit::Mb, "MB", 1_048_576.0, false),
    (Unit::Kb, "kB", 1024.0, false),
    (Unit::B, "B", 1.0, false),
    (Unit::D, "d", 86_400_000_000.0, true),
    (Unit::H, "h", 3_600_000_000.0, true),
    (Unit::Min, "min", 60_000_000.0, true),
    (Unit::S, "s", 1_000_000.0, true),
    (Unit::Ms, "ms", 1000.0, true),
    (Unit::Us, "us", 1.0, true),
];

/// `on`, `true`, `yes`, `1` and `off`, `false`, `no`, `0` in any case; also JSON's booleans and the numbers 0 and 1.
pub fn parse_bool(value: &Value) -> Option<bool> {
    match python_str(value).to_lowercase().as_str() {
        "on" | "true" | "yes" | "1" => Some(true),
        "off" | "false" | "no" | "0" => Some(false),
        _ => None,
    }
}

/// Python's truth of a value: everything but null, false, zero and empty.
pub fn is_truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(b) => *b,
        Value::Number(n) => n.as_f64() != Some(0.0),
        Value::String(s) => !s.is_empty(),
        Value::Array(a) => !a.is_empty(),
        Value::Object(o) => !o.is_empty(),
    }
}

/// An integer as PostgreSQL reads one, from a JSON number or text; see [`parse_int_text`].
pub fn parse_int(value: &Value, base: Option<Unit>) -> Option<i64> {
    match value {
        Value::Number(_) | Value::String(_) => parse_int_text(&python_str(value), base),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Decimal, octal (leading `0`), hexadecimal (`0x`) or a decimal fraction, with an optional unit behind it.
///
/// A value with a unit needs `base` and is converted to it; as in PostgreSQL it is rounded to the next smaller unit
/// first. Without a unit the number is taken to be in `base` already. Saturates at the ends of `i64`.
pub fn parse_int_text(text: &str, base: Option<Unit>) -> Option<i64> {
    let text = text.trim();
    let (integer, rest) = take_integer(text);
    let (number, rest) = match rest.as_bytes().first() {
        Some(b'e' | b'E') => take_fraction(text),
        Some(b'.') if integer.is_some() || text.starts_with('.') => take_fraction(text),
        _ => (integer.map(Number::Whole), rest),
    };
    let number = number?;
    let unit = rest.trim();
    if unit.is_empty() {
        return Some(number.round());
    }
    convert(number.as_f64(), unit, base?)
}

/// `str()` of Python for a value that came from JSON. Two values with equal text are equal to Patroni.
pub fn python_str(value: &Value) -> String {
    match value {
        Value::String(s) => s.clone(),
        other => python_repr(other),
    }
}

fn python_repr(value: &Value) -> String {
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Number(n) => n.to_string(),
        Value::String(s) => format!("'{}'", s.replace('\\', "\\\\").replace('\'', "\\'")),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(python_repr).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(map) => {
            let items: Vec<String> = map
                .iter()
                .map(|(k, v)| format!("{}: {}", python_repr(&Value::String(k.clone())), python_repr(v)))
                .collect();
            format!("{{{}}}", items.join(", "))
        }
    }
}

#[derive(Clone, Copy)]
enum Number {
    Whole(i64),
    Fraction(f64),
}

impl Number {
    fn round(self) -> i64 {
        match self {
            Number::Whole(n) => n,
            Number::Fraction(f) => saturate(f.round_ties_even()),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "Patroni converts units in doubles too")]
    fn as_f64(self) -> f64 {
        match self {
            Number::Whole(n) => n as f64,
            Number::Fraction(f) => f,
        }
    }
}

/// A float to the nearest i64; `as` saturates, which is wanted here.
#[expect(clippy::cast_possible_truncation, reason = "saturation is the documented behaviour")]
fn saturate(f: f64) -> i64 {
    f as i64
}

/// C's strtol with base 0, on trimmed text.
fn take_integer(text: &str) -> (Option<i64>, &str) {
    let (negative, digits) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x', h, ..] if h.is_ascii_hexdigit() => (16, &digits[2..]),
        [b'0', ..] => (8, digits),
        [b'1'..=b'9', ..] => (10, digits),
        _ => return (None, text),
    };
    let length = digits.bytes().take_while(|b| char::from(*b).is_digit(radix)).count();
    let (digits, rest) = digits.split_at(length);
    let limit = if negative { i64::MIN } else { i64::MAX };
    let number = i128::from_str_radix(digits, radix)
        .ok()
        .and_then(|n| i64::try_from(if negative { -n } else { n }).ok())
        .unwrap_or(limit);
    (Some(number), rest)
}

/// C's strtod without its words, on trimmed text: digits, a dot, an exponent.
fn take_fraction(text: &str) -> (Option<Number>, &str) {
    let bytes = text.as_bytes();
    let mut at = usize::from(matches!(bytes.first(), Some(b'-' | b'+')));
    let digits = |from: usize| bytes[from..].iter().take_while(|b| b.is_ascii_digit()).count();
    let whole = digits(at);
    at += whole;
    let fraction = if bytes.get(at) == Some(&b'.') {
        digits(at + 1)
    } else {
        0
    };
    if fraction > 0 {
        at += 1 + fraction;
    } else if whole == 0 {
        return (None, text);
    }
    if let Some(b'e' | b'E') = bytes.get(at) {
        let sign = usize::from(matches!(bytes.get(at + 1), Some(b'-' | b'+')));
        let exponent = digits((at + 1 + sign).min(bytes.len()));
        if exponent > 0 {
            at += 1 + sign + exponent;
        }
    }
    (text[..at].parse().ok().map(Number::Fraction), &text[at..])
}

fn convert(number: f64, unit: &str, base: Unit) -> Option<i64> {
    let at = UNITS.iter().position(|(_, text, _, _)| *text == unit)?;
    let (_, _, size, is_time) = UNITS[at];
    let (_, _, base_size, base_is_time) = UNITS.iter().find(|(u, _, _, _)| *u == base)?;
    if is_time != *base_is_time {
        return None;
    }
    let mut value = number * size / base_size;
    if let Some((_, _, smaller, _)) = UNITS.get(at + 1).filter(|u| u.3 == is_time) {
        let step = smaller / base_size;
        value = (value / step).round_ties_even() * step;
    }
    Some(saturate(value.round_ties_even()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn booleans_are_words_numbers_and_json() {
        for yes in [
            json!(true),
            json!("On"),
            json!("TRUE"),
            json!("yes"),
            json!(1),
            json!("1"),
        ] {
            assert_eq!(parse_bool(&yes), Some(true), "{yes}");
        }
        for no in [
            json!(false),
            json!("off"),
            json!("False"),
            json!("NO"),
            json!(0),
            json!("0"),
        ] {
            assert_eq!(parse_bool(&no), Some(false), "{no}");
        }
        for neither in [
            json!(null),
            json!("maybe"),
            json!(2),
            json!([]),
            json!({"a": 1}),
            json!(""),
        ] {
            assert_eq!(parse_bool(&neither), None, "{neither}");
        }
    }

    #[test]
    fn integers_are_read_like_strtol_does() {
        for (text, expected) in [
            ("1", Some(1)),
            (" +0x400 ", Some(1024)),
            ("-070", Some(-56)),
            ("0", Some(0)),
            ("08", None),
            ("1.5", Some(2)),
            ("2.5", Some(2)),
            ("0.5", Some(0)),
            (".7", Some(1)),
            ("1e3", Some(1000)),
            ("1E-1", Some(0)),
            ("1e", None),
            ("5.", None),
            (".", None),
            ("", None),
            ("-", None),
            ("abc", None),
            ("10 MB", None),
            ("99999999999999999999999999999999999999999999", Some(i64::MAX)),
            ("-99999999999999999999", Some(i64::MIN)),
            ("1e999", Some(i64::MAX)),
        ] {
            assert_eq!(parse_int_text(text, None), expected, "{text}");
        }
    }

    #[test]
    fn units_are_converted_and_rounded_to_the_next_smaller_one() {
        for (text, base, expected) in [
            ("1MB", Unit::Kb, Some(1024)),
            ("1000 ms", Unit::S, Some(1)),
            ("4097.4kB", Unit::Kb, Some(4097)),
            ("4097.5kB", Unit::Kb, Some(4098)),
            ("30min", Unit::S, Some(1800)),
            ("1d", Unit::S, Some(86_400)),
            ("16MB", Unit::B, Some(16_777_216)),
            ("0x10MB", Unit::B, Some(16_777_216)),
            ("1.5kB", Unit::B, Some(1536)),
            ("1 mb", Unit::B, None),
            ("1s", Unit::B, None),
            ("1TB", Unit::S, None),
            ("500ms", Unit::S, Some(0)),
            ("1700ms", Unit::S, Some(2)),
        ] {
            assert_eq!(parse_int_text(text, Some(base)), expected, "{text}");
        }
    }

    #[test]
    fn only_numbers_and_texts_are_numbers() {
        assert_eq!(parse_int(&json!(7), None), Some(7));
        assert_eq!(parse_int(&json!("7"), None), Some(7));
        assert_eq!(parse_int(&json!(7.0), None), Some(7));
        for other in [json!(true), json!(null), json!([7]), json!({"a": 7})] {
            assert_eq!(parse_int(&other, None), None, "{other}");
        }
    }

    #[test]
    fn values_print_as_python_prints_them() {
        assert_eq!(python_str(&json!("x")), "x");
        assert_eq!(
            python_str(&json!([1, "x", true, null, {"k": 1.0}])),
            "[1, 'x', True, None, {'k': 1.0}]"
        );
    }
}
