//! Points in time as ISO 8601 text with an offset from UTC: what stands in `scheduled_at`, `schedule` and `/history`.
//!
//! Local time zones are absent on purpose: a schedule without an offset means different moments on different nodes.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::fmt::temporal::Pieces;
use jiff::tz::{Offset, TimeZone};
use pgha_core::units::Wall;

use crate::error::WireError;
use crate::limits::quoted;

/// Longest text that is looked at.
const MAX_TIME_BYTES: usize = 64;

/// Reads a point in time, e.g. `2026-01-01T13:00:00+01:00`, `2026-01-01 13:00Z`, `2026-01-01 12:00 UTC`.
///
/// # Errors
/// [`WireError::TimeWithoutZone`] when only the offset is missing, [`WireError::TimeUnparsable`] for all else.
pub fn parse_iso(text: &str) -> Result<Wall, WireError> {
    let unparsable = || WireError::TimeUnparsable { found: quoted(text) };
    let trimmed = text.trim();
    // A date alone would mean midnight to a lenient reader; nobody schedules a switchover by accident here.
    if trimmed.len() > MAX_TIME_BYTES || !trimmed.contains(':') {
        return Err(unparsable());
    }
    let normal = join_offset(trimmed);
    let pieces = Pieces::parse(&normal).map_err(|_| unparsable())?;
    if pieces.time_zone_annotation().is_some() {
        return Err(unparsable());
    }
    let time = pieces.time().ok_or_else(unparsable)?;
    let Some(offset) = pieces.to_numeric_offset() else {
        return Err(WireError::TimeWithoutZone { found: quoted(text) });
    };
    let when = DateTime::from_parts(pieces.date(), time)
        .to_zoned(TimeZone::fixed(offset))
        .map_err(|_| unparsable())?;
    Ok(Wall(when.timestamp().as_microsecond()))
}

/// Writes a point in time as Python's `isoformat()` does for UTC: `2026-01-01T13:00:00+00:00`, with six digits of
/// fraction only if there is one. Points outside of what the calendar holds (the years 1 to 9999) become its nearest end.
pub fn render_iso(wall: Wall) -> String {
    let civil = civil(wall);
    let fraction = civil.subsec_nanosecond() / 1000;
    if fraction == 0 {
        civil.strftime("%Y-%m-%dT%H:%M:%S+00:00").to_string()
    } else {
        format!("{}.{fraction:06}+00:00", civil.strftime("%Y-%m-%dT%H:%M:%S"))
    }
}

/// Seconds since 1970 of one of PostgreSQL's timestamp texts, e.g. `2026-01-01 13:00:00.123456+00`; for `/metrics`.
#[expect(clippy::cast_precision_loss, reason = "microseconds of our time fit into 53 bits")]
pub(crate) fn epoch_seconds(text: &str) -> Option<f64> {
    parse_iso(text).ok().map(|w| w.0 as f64 / 1e6)
}

fn civil(wall: Wall) -> DateTime {
    let beyond = if wall.0 < 0 { Timestamp::MIN } else { Timestamp::MAX };
    let timestamp = Timestamp::from_microsecond(wall.0).unwrap_or(beyond);
    Offset::UTC
        .to_datetime(timestamp)
        .max(DateTime::constant(1, 1, 1, 0, 0, 0, 0))
}

/// Patroni's reader takes a blank before the offset and the names UTC and GMT; ISO 8601 does not.
fn join_offset(text: &str) -> String {
    for name in [" UTC", " GMT", "UTC", "GMT"] {
        if let Some(head) = text.strip_suffix(name) {
            return format!("{}Z", head.trim_end());
        }
    }
    match text.rsplit_once(' ') {
        Some((head, tail)) if tail.starts_with(['+', '-', 'Z', 'z']) => format!("{}{tail}", head.trim_end()),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn one_moment_has_many_spellings() {
        for text in [
            "2026-01-01T13:00:00+00:00",
            "2026-01-01T13:00+00:00",
            "2026-01-01 13:00:00+00",
            "2026-01-01T14:00:00.000+01:00",
            "2026-01-01T13:00:00Z",
            " 2026-01-01 13:00 UTC ",
            "2026-01-01 13:00:00 +0000",
            "2026-01-01 08:00:00 -05:00",
        ] {
            assert_eq!(parse_iso(text), Ok(Wall(1_767_272_400_000_000)), "{text}");
        }
    }

    #[test]
    fn a_missing_zone_is_told_from_nonsense() {
        for text in ["2026-01-01T13:00:00", "2026-01-01 13:00"] {
            assert!(
                matches!(parse_iso(text), Err(WireError::TimeWithoutZone { .. })),
                "{text}"
            );
        }
        for text in [
            "",
            "tomorrow",
            "2026-13-01T00:00:00Z",
            "2026-01-01",
            "13:00Z",
            "2026-01-01T25:00:00Z",
            "12:00",
            &":".repeat(99),
        ] {
            assert!(
                matches!(parse_iso(text), Err(WireError::TimeUnparsable { .. })),
                "{text}"
            );
        }
    }

    #[test]
    fn texts_are_those_of_python() {
        assert_eq!(render_iso(Wall(1_767_272_400_000_000)), "2026-01-01T13:00:00+00:00");
        assert_eq!(
            render_iso(Wall(1_767_272_400_000_120)),
            "2026-01-01T13:00:00.000120+00:00"
        );
        assert_eq!(render_iso(Wall(-1)), "1969-12-31T23:59:59.999999+00:00");
    }

    #[test]
    fn the_ends_of_time_are_written_as_the_nearest_date() {
        for end in [i64::MIN, i64::MAX] {
            let text = render_iso(Wall(end));
            assert_eq!(render_iso(parse_iso(&text).unwrap()), text);
        }
    }

    #[test]
    fn postgresql_texts_become_seconds() {
        assert_eq!(epoch_seconds("2026-01-01 13:00:00.5+00:00"), Some(1_767_272_400.5));
        assert_eq!(epoch_seconds("infinity"), None);
    }
}
