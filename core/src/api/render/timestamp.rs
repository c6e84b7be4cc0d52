//! Points of wall-clock time as text.

use time::UtcDateTime;

use crate::time::Wall;

/// RFC 3339 in UTC with whole seconds, such as `2026-11-21T05:06:16Z`.
pub(crate) fn rfc3339(wall: Wall) -> String {
    // What is beyond the calendar (the year 9999) is a clock that is wrong: it shows as the epoch.
    let seconds = i64::try_from(wall.0 / 1_000).ok();
    let at = seconds.and_then(|seconds| UtcDateTime::from_unix_timestamp(seconds).ok());
    let at = at.unwrap_or(UtcDateTime::UNIX_EPOCH);
    let (year, month, day) = (at.year(), u8::from(at.month()), at.day());
    let (hour, minute, second) = at.as_hms();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_as_in_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_078_012_800, "2004-02-29T00:00:00Z"),
            (1_795_237_576, "2026-11-21T05:06:16Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(Wall(seconds * 1_000 + 999)), expected);
        }
    }
}
