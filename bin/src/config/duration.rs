//! Durations as Consul's files write them: `1h2m3s`, `1500ms`, `-1s`, `0`.

use std::time::Duration;

const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Nanoseconds; `None` if the text is no duration or exceeds about 292 years.
#[must_use]
pub fn parse(text: &str) -> Option<i64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i64 = 0;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let unit = UNITS.iter().find(|(name, _)| *name == unit)?.1;
        total = total.checked_add(scaled(number, unit)?)?;
        rest = tail;
    }
    Some(sign * total)
}

/// A decimal number times a unit, exactly.
fn scaled(number: &str, unit: u64) -> Option<i64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut nanos = i64::try_from(whole.checked_mul(unit)?).ok()?;
    let mut place = unit;
    for digit in fraction.bytes() {
        place /= 10;
        nanos = nanos.checked_add(i64::try_from(u64::from(digit - b'0') * place).ok()?)?;
    }
    Some(nanos)
}

/// The same as a [`Duration`]; what lies before zero counts as zero.
#[must_use]
pub fn unsigned(nanos: i64) -> Duration {
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
}

/// The form in which agents report durations: `1h2m3s`, `1.5s`, `200ms`, `0s`.
#[must_use]
pub fn format(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let nanos = nanos.unsigned_abs();
    let decimal = |unit: u64, name: &str| {
        let fraction = format!("{:0width$}", nanos % unit, width = unit.ilog10() as usize);
        let fraction = fraction.trim_end_matches('0');
        let dot = if fraction.is_empty() { "" } else { "." };
        format!("{sign}{}{dot}{fraction}{name}", nanos / unit)
    };
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{sign}{nanos}ns"),
        1_000..1_000_000 => decimal(1_000, "µs"),
        1_000_000..1_000_000_000 => decimal(1_000_000, "ms"),
        _ => {
            let minutes = nanos / 60_000_000_000;
            let fraction = format!("{:09}", nanos % 1_000_000_000);
            let fraction = fraction.trim_end_matches('0');
            let dot = if fraction.is_empty() { "" } else { "." };
            let rest = format!("{}{dot}{fraction}s", nanos / 1_000_000_000 % 60);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{sign}{rest}"),
                (0, minutes) => format!("{sign}{minutes}m{rest}"),
                (hours, minutes) => format!("{sign}{hours}h{minutes}m{rest}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_shown() {
        for (text, nanos, shown) in [
            ("0", 0, "0s"),
            ("10s", 10_000_000_000, "10s"),
            ("1h2m3s", 3_723_000_000_000, "1h2m3s"),
            ("1500ms", 1_500_000_000, "1.5s"),
            ("-1s", -1_000_000_000, "-1s"),
            ("1.5h", 5_400_000_000_000, "1h30m0s"),
            ("87600h", 315_360_000_000_000_000, "87600h0m0s"),
            ("200ms", 200_000_000, "200ms"),
            ("1m0.05s", 60_050_000_000, "1m0.05s"),
            ("12us", 12_000, "12µs"),
            (".5s", 500_000_000, "500ms"),
        ] {
            assert_eq!(parse(text), Some(nanos), "{text}");
            assert_eq!(format(nanos), shown, "{text}");
        }
    }

    #[test]
    fn other_texts_are_no_durations() {
        for text in ["", "5", "5 minutes", "abc", "s", "1d", "1.2.3s", "-", "99999999999h", "1s ", "."] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
