//! Durations as people write them in requests and configuration files: Go's notation, `1h30m`, `1.5s`, `300ms`.
//!
//! Source: the documentation of Go's package `time`, `ParseDuration` and `Duration.String`.

use core::time::Duration;

/// Reads Go's notation into signed nanoseconds. `None` for anything else, also for what does not fit 64 bits.
#[must_use]
pub fn parse(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total = 0i128;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let whole = if digits == 0 { 0 } else { rest[..digits].parse::<i64>().ok()? };
        rest = &rest[digits..];
        let mut fraction = "";
        if let Some(after) = rest.strip_prefix('.') {
            let count = after.bytes().take_while(u8::is_ascii_digit).count();
            fraction = &after[..count];
            rest = &after[count..];
        }
        if digits == 0 && fraction.is_empty() {
            return None;
        }
        let end = rest.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(rest.len());
        let unit: i128 = match &rest[..end] {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        rest = &rest[end..];
        total += i128::from(whole) * unit;
        let mut scale = unit;
        for digit in fraction.bytes() {
            scale /= 10;
            total += i128::from(digit - b'0') * scale;
        }
        if total > i128::from(i64::MAX) {
            return None;
        }
    }
    i64::try_from(if negative { -total } else { total }).ok()
}

/// Writes a duration as Go prints it: `10s`, `1m0s`, `1.5s`, `300ms`, `0s`.
#[must_use]
pub fn format(duration: Duration) -> String {
    use core::fmt::Write as _;

    let nanos = duration.as_nanos();
    let fraction = |value: u128, unit: u128| {
        let mut text = (value / unit).to_string();
        let mut rest = value % unit;
        if rest > 0 {
            text.push('.');
            let mut scale = unit / 10;
            while rest > 0 {
                write!(text, "{}", rest / scale).expect("writing to a string cannot fail");
                rest %= scale;
                scale /= 10;
            }
        }
        text
    };
    match nanos {
        0 => "0s".into(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => fraction(nanos, 1_000) + "µs",
        1_000_000..1_000_000_000 => fraction(nanos, 1_000_000) + "ms",
        _ => {
            let (minutes, rest) = (nanos / 60_000_000_000, nanos % 60_000_000_000);
            let seconds = fraction(rest, 1_000_000_000) + "s";
            match (minutes / 60, minutes % 60) {
                (0, 0) => seconds,
                (0, minutes) => format!("{minutes}m{seconds}"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_in_go() {
        let cases = [
            ("10s", Some(10_000_000_000)),
            ("1h30m", Some(5_400_000_000_000)),
            ("1.5s", Some(1_500_000_000)),
            (".5s", Some(500_000_000)),
            ("1.s", Some(1_000_000_000)),
            ("-2ms", Some(-2_000_000)),
            ("+2us", Some(2_000)),
            ("3µs", Some(3_000)),
            ("0", Some(0)),
            ("-0", Some(0)),
            ("", None),
            ("-", None),
            ("10", None),
            ("s", None),
            (".s", None),
            ("1x", None),
            ("1 s", None),
            ("soon", None),
            ("9999999h", None),
            ("99999999999999999999s", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text), expected, "{text}");
        }
    }

    #[test]
    fn durations_print_as_in_go() {
        let cases = [
            (0, "0s"),
            (15, "15ns"),
            (1_500, "1.5µs"),
            (300_000_000, "300ms"),
            (10_000_000_000, "10s"),
            (60_000_000_000, "1m0s"),
            (5_400_000_000_000, "1h30m0s"),
            (1_001_000_000, "1.001s"),
        ];
        for (nanos, expected) in cases {
            assert_eq!(format(Duration::from_nanos(nanos)), expected);
        }
    }
}
