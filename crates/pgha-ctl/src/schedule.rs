//! When something shall happen, as a person writes it.
//!
//! A time without a zone is local time, as for `patronictl`; the body of a request always carries the offset.

use jiff::Zoned;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use pgha_core::units::Wall;
use pgha_wire::error::WireError;
use pgha_wire::isotime::parse_iso;

use crate::error::CtlError;

/// A moment with the zone that it is shown in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Moment(Zoned);

impl Moment {
    /// `2026-01-01T13:00:00+01:00`.
    pub fn iso(&self) -> String {
        self.0.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
    }

    /// `2026-01-01 13:00:00+01:00`.
    pub fn spaced(&self) -> String {
        self.0.strftime("%Y-%m-%d %H:%M:%S%:z").to_string()
    }
}

/// Reads a time; `None` is now. `what` names what is planned, in the error.
///
/// # Errors
/// [`CtlError::Refused`] when it is no time, or lies in the past.
pub fn parse_moment(text: &str, now: &Zoned, what: &str) -> Result<Option<Moment>, CtlError> {
    let text = text.trim();
    if text.is_empty() || text.eq_ignore_ascii_case("now") {
        return Ok(None);
    }
    let unparsable = || {
        CtlError::refused(format!(
            "Unable to parse scheduled timestamp ({text}). It should be in an unambiguous format (e.g. ISO 8601)"
        ))
    };
    let moment = match parse_iso(text) {
        Ok(wall) => at(wall, now.time_zone()).ok_or_else(unparsable)?,
        Err(WireError::TimeWithoutZone { .. }) => {
            let local: DateTime = text.parse().map_err(|_| unparsable())?;
            local.to_zoned(now.time_zone().clone()).map_err(|_| unparsable())?
        }
        Err(_) => return Err(unparsable()),
    };
    if moment.timestamp() <= now.timestamp() {
        return Err(CtlError::refused(format!("Cannot schedule {what} in the past")));
    }
    Ok(Some(Moment(moment)))
}

fn at(wall: Wall, zone: &TimeZone) -> Option<Zoned> {
    jiff::Timestamp::from_microsecond(wall.0)
        .ok()
        .map(|timestamp| timestamp.to_zoned(zone.clone()))
}

/// Now as core counts it.
pub fn wall(now: &Zoned) -> Wall {
    Wall(now.timestamp().as_microsecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Option<String>, String> {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        let now = DateTime::constant(2026, 1, 1, 12, 0, 0, 0)
            .to_zoned(zone)
            .expect("a fixed offset has no gaps");
        parse_moment(text, &now, "restart")
            .map(|m| m.map(|m| m.iso()))
            .map_err(|e| e.to_string())
    }

    #[test]
    fn a_time_without_zone_is_local() {
        assert_eq!(
            parse("2026-01-01T13:00"),
            Ok(Some("2026-01-01T13:00:00+02:00".to_owned()))
        );
        assert_eq!(
            parse("2026-01-01 13:00:30"),
            Ok(Some("2026-01-01T13:00:30+02:00".to_owned()))
        );
        assert_eq!(
            parse("2026-01-01T13:00:00Z"),
            Ok(Some("2026-01-01T15:00:00+02:00".to_owned()))
        );
    }

    #[test]
    fn now_and_nothing_mean_at_once() {
        assert_eq!(parse("now"), Ok(None));
        assert_eq!(parse(" "), Ok(None));
    }

    #[test]
    fn nonsense_and_the_past_are_refused() {
        for text in [
            "tomorrow",
            "13:00",
            "2026-01-01",
            "2026-13-01T00:00",
            "2026-02-30 10:00",
        ] {
            assert!(
                parse(text).is_err_and(|e| e.contains("Unable to parse") && e.contains(text)),
                "{text}"
            );
        }
        assert_eq!(
            parse("2026-01-01T11:59"),
            Err("Cannot schedule restart in the past".to_owned())
        );
    }
}
