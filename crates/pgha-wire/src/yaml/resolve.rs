//! The implicit types of plain scalars, exactly as PyYAML 6 assigns them (YAML 1.1 with PyYAML's own deviations).
//!
//! Job: text in, [`Kind`] out. The patterns are PyYAML's regular expressions written as functions; their values follow
//! PyYAML's constructors, including the octal `0644` and the base-60 `12:30`.
//! Absent on purpose: tags, quoting and styles, which [`mod@super::parse`] handles.

use super::Kind;

/// A plain scalar for which PyYAML raises an error instead of giving a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unresolvable {
    /// `=` or `<<` as a value.
    Special,
    /// Looks like an integer and has no digits (`0x_`), or more than 127 bits.
    Integer,
    /// Looks like a date and is none (`2024-13-01`).
    Date,
}

/// The type and value of a plain scalar.
pub fn resolve(text: &str) -> Result<Kind, Unresolvable> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Ok(Kind::Null),
        "=" | "<<" => return Err(Unresolvable::Special),
        _ => {}
    }
    if let Some(value) = bool_value(text) {
        return Ok(Kind::Bool(value));
    }
    match text.as_bytes().first() {
        Some(b'-' | b'+' | b'.' | b'0'..=b'9') => {}
        _ => return Ok(Kind::Str),
    }
    if is_float(text) {
        return Ok(Kind::Float(float_value(text)));
    }
    if is_int(text) {
        return int_value(text).map(Kind::Int).ok_or(Unresolvable::Integer);
    }
    timestamp(text)
}

fn bool_value(text: &str) -> Option<bool> {
    let all_forms = |word: &str| {
        let mut title = word.to_string();
        title[..1].make_ascii_uppercase();
        text == word || text == title || text == word.to_ascii_uppercase()
    };
    if ["yes", "true", "on"].into_iter().any(all_forms) {
        Some(true)
    } else if ["no", "false", "off"].into_iter().any(all_forms) {
        Some(false)
    } else {
        None
    }
}

fn unsigned(text: &str) -> &str {
    text.strip_prefix(['-', '+']).unwrap_or(text)
}

/// Non-empty, and every character is `_` or accepted.
fn all(text: &str, accept: impl Fn(char) -> bool) -> bool {
    !text.is_empty() && text.chars().all(|c| c == '_' || accept(c))
}

/// `[0-9][0-9_]*`
fn is_digits(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit()) && all(text, |c| c.is_ascii_digit())
}

/// `[0-5]?[0-9]`, for each part
fn are_sixtieths<'a>(mut parts: impl Iterator<Item = &'a str>) -> bool {
    parts.all(|part| match part.as_bytes() {
        [units] => units.is_ascii_digit(),
        [tens, units] => (b'0'..=b'5').contains(tens) && units.is_ascii_digit(),
        _ => false,
    })
}

fn is_int(text: &str) -> bool {
    let text = unsigned(text);
    if let Some(rest) = text.strip_prefix("0b") {
        return all(rest, |c| matches!(c, '0' | '1'));
    }
    if let Some(rest) = text.strip_prefix("0x") {
        return all(rest, |c| c.is_ascii_hexdigit());
    }
    if let Some(rest) = text.strip_prefix('0') {
        return rest.is_empty() || all(rest, |c| ('0'..='7').contains(&c));
    }
    match text.split_once(':') {
        None => is_digits(text),
        Some((first, rest)) => is_digits(first) && are_sixtieths(rest.split(':')),
    }
}

fn int_value(text: &str) -> Option<i128> {
    let digits = unsigned(text).replace('_', "");
    let value = if digits == "0" {
        0
    } else if let Some(rest) = digits.strip_prefix("0b") {
        i128::from_str_radix(rest, 2).ok()?
    } else if let Some(rest) = digits.strip_prefix("0x") {
        i128::from_str_radix(rest, 16).ok()?
    } else if let Some(rest) = digits.strip_prefix('0') {
        i128::from_str_radix(rest, 8).ok()?
    } else {
        let mut value: i128 = 0;
        for part in digits.split(':') {
            value = value.checked_mul(60)?.checked_add(part.parse().ok()?)?;
        }
        value
    };
    Some(if text.starts_with('-') { -value } else { value })
}

/// `([eE][-+][0-9]+)?`; PyYAML wants the sign of an exponent, so `1e3` is text.
fn is_exponent(text: &str) -> bool {
    let Some(rest) = text.strip_prefix(['e', 'E']) else {
        return text.is_empty();
    };
    let Some(digits) = rest.strip_prefix(['-', '+']) else {
        return false;
    };
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}

fn is_float(text: &str) -> bool {
    if matches!(text, ".nan" | ".NaN" | ".NAN") || matches!(unsigned(text), ".inf" | ".Inf" | ".INF") {
        return true;
    }
    let Some((before, after)) = unsigned(text).split_once('.') else {
        return false;
    };
    let fraction_end = after
        .find(|c: char| c != '_' && !c.is_ascii_digit())
        .unwrap_or(after.len());
    let (fraction, exponent) = after.split_at(fraction_end);
    if before.is_empty() {
        // Without digits before the point PyYAML allows no sign.
        return !text.starts_with(['-', '+']) && is_digits(fraction) && is_exponent(exponent);
    }
    match before.split_once(':') {
        None => is_digits(before) && is_exponent(exponent),
        Some((first, rest)) => is_digits(first) && are_sixtieths(rest.split(':')) && exponent.is_empty(),
    }
}

fn float_value(text: &str) -> f64 {
    let digits = unsigned(text).replace('_', "").to_ascii_lowercase();
    let value = match digits.as_str() {
        ".inf" => f64::INFINITY,
        ".nan" => f64::NAN,
        // The pattern has been checked, so each part parses; NaN would only show a mistake there.
        _ => digits
            .split(':')
            .fold(0.0, |sum, part| sum * 60.0 + part.parse::<f64>().unwrap_or(f64::NAN)),
    };
    if text.starts_with('-') { -value } else { value }
}

/// Splits off between `min` and `max` leading digits.
fn take_digits(text: &str, min: usize, max: usize) -> Option<(u32, &str)> {
    let count = text.bytes().take(max).take_while(u8::is_ascii_digit).count();
    if count < min {
        return None;
    }
    let (digits, rest) = text.split_at(count);
    Some((digits.parse().ok()?, rest))
}

fn timestamp(text: &str) -> Result<Kind, Unresolvable> {
    match timestamp_parts(text) {
        None => Ok(Kind::Str),
        Some(parts) if !parts.are_real() => Err(Unresolvable::Date),
        Some(parts) if parts.has_time => Ok(Kind::DateTime),
        Some(_) => Ok(Kind::Date),
    }
}

#[derive(Default)]
struct Timestamp {
    year: u32,
    month: u32,
    day: u32,
    has_time: bool,
    hour: u32,
    minute: u32,
    second: u32,
    zone_hour: u32,
    zone_minute: u32,
}

impl Timestamp {
    /// Would Python's `datetime` take these numbers?
    fn are_real(&self) -> bool {
        let date = match (
            i16::try_from(self.year),
            i8::try_from(self.month),
            i8::try_from(self.day),
        ) {
            (Ok(year), Ok(month), Ok(day)) => year >= 1 && jiff::civil::Date::new(year, month, day).is_ok(),
            _ => false,
        };
        date && self.hour < 24
            && self.minute < 60
            && self.second < 60
            && self.zone_hour * 60 + self.zone_minute < 24 * 60
    }
}

/// The numbers of a text that matches PyYAML's timestamp pattern.
fn timestamp_parts(text: &str) -> Option<Timestamp> {
    let mut parts = Timestamp::default();
    let rest;
    (parts.year, rest) = take_digits(text, 4, 4)?;
    (parts.month, _) = take_digits(rest.strip_prefix('-')?, 1, 2)?;
    let (_, rest) = take_digits(rest.strip_prefix('-')?, 1, 2)?;
    let rest = rest.strip_prefix('-')?;
    let (day, rest) = take_digits(rest, 1, 2)?;
    parts.day = day;
    if rest.is_empty() {
        // A date alone needs two digits for month and day.
        return (text.len() == "2024-01-01".len()).then_some(parts);
    }
    parts.has_time = true;
    let rest = match rest.strip_prefix(['T', 't']) {
        Some(rest) => rest,
        None => {
            let trimmed = rest.trim_start_matches([' ', '\t']);
            if trimmed.len() == rest.len() {
                return None;
            }
            trimmed
        }
    };
    let rest_after;
    (parts.hour, rest_after) = take_digits(rest, 1, 2)?;
    let (minute, rest) = take_digits(rest_after.strip_prefix(':')?, 2, 2)?;
    let (second, mut rest) = take_digits(rest.strip_prefix(':')?, 2, 2)?;
    (parts.minute, parts.second) = (minute, second);
    if let Some(fraction) = rest.strip_prefix('.') {
        rest = fraction.trim_start_matches(|c: char| c.is_ascii_digit());
    }
    let zone = rest.trim_start_matches([' ', '\t']);
    if rest.is_empty() || zone == "Z" {
        return Some(parts);
    }
    let (hour, rest) = take_digits(zone.strip_prefix(['-', '+'])?, 1, 2)?;
    parts.zone_hour = hour;
    if rest.is_empty() {
        return Some(parts);
    }
    let (minute, rest) = take_digits(rest.strip_prefix(':')?, 2, 2)?;
    parts.zone_minute = minute;
    rest.is_empty().then_some(parts)
}
