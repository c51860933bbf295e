//! Wall time as the ISO 8601 text of `/history`, in UTC. Core has no time zone database and needs none.

use alloc::format;
use alloc::string::String;

use crate::units::Wall;

/// `YYYY-MM-DDTHH:MM:SS.ffffff+00:00`.
pub fn render(wall: Wall) -> String {
    let (secs, micros) = (wall.0.div_euclid(1_000_000), wall.0.rem_euclid(1_000_000));
    let (days, of_day) = (secs.div_euclid(86_400), secs.rem_euclid(86_400));
    let (y, m, d) = civil(days);
    format!(
        "{y:04}-{m:02}-{d:02}T{:02}:{:02}:{:02}.{micros:06}+00:00",
        of_day / 3600,
        of_day / 60 % 60,
        of_day % 60
    )
}

/// Proleptic Gregorian date of a day number since 1970-01-01 (the era arithmetic counts years from March).
fn civil(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + i64::from(month <= 2);
    (year, month, doy - (153 * mp + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::render;
    use crate::units::Wall;

    #[test]
    fn wall_time_is_rendered_in_utc() {
        assert_eq!(render(Wall(0)), "1970-01-01T00:00:00.000000+00:00");
        assert_eq!(render(Wall(1_709_210_096_123_456)), "2024-02-29T12:34:56.123456+00:00");
        assert_eq!(render(Wall(-1)), "1969-12-31T23:59:59.999999+00:00");
    }
}
