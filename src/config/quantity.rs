//! Sizes and durations as people write them: `10GiB`, `500MB`, `30s`, `1h30m`.

use std::fmt::Write as _;
use std::time::Duration;

use super::fault::Problem;

/// Units of sizes, largest first within each family; the binary family comes first so that
/// [`format_size`] prefers it.
const SIZE_UNITS: [(&str, u64); 11] = [
    ("PiB", 1 << 50),
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("PB", 1_000_000_000_000_000),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

/// Units of durations in milliseconds, largest first.
const DURATION_UNITS: [(&str, u64); 6] = [
    ("w", 7 * 24 * 3_600_000),
    ("d", 24 * 3_600_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// No clock of this program runs longer; it also keeps sums of moments far from overflow.
const LONGEST: Duration = Duration::from_hours(3650 * 24);

/// Parses a size in bytes.
pub(super) fn parse_size(text: &str) -> Result<u64, Problem> {
    const REMEDY: &str = "write a number and a unit, such as \"10GiB\" or \"500MB\"";
    let trimmed = text.trim();
    let split = trimmed.find(|c: char| c != '.' && !c.is_ascii_digit()).unwrap_or(trimmed.len());
    let (number, unit) = (&trimmed[..split], trimmed[split..].trim_start());
    if number.is_empty() {
        return Err(Problem::new(format!("\"{text}\" is not a size"), REMEDY));
    }
    if unit.is_empty() {
        return Err(Problem::new(format!("\"{text}\" has no unit"), REMEDY));
    }
    let Some((_, factor)) = SIZE_UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)) else {
        return Err(Problem::new(
            format!("\"{unit}\" is not a unit of size"),
            "the units are B, kB, MB, GB, TB, PB (powers of 1000) and KiB, MiB, GiB, TiB, PiB (powers of 1024)",
        ));
    };
    scale(number, *factor).ok_or_else(|| Problem::new(format!("\"{text}\" is not a size"), REMEDY))
}

/// `number` (digits with at most one point) times `factor`, exactly, rounded down.
fn scale(number: &str, factor: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if number.ends_with('.') || fraction.contains('.') || fraction.len() > 9 {
        return None;
    }
    let whole = whole.parse::<u64>().ok()?.checked_mul(factor)?;
    let mut part = 0_u128;
    if !fraction.is_empty() {
        let digits = u32::try_from(fraction.len()).ok()?;
        part = u128::from(fraction.parse::<u64>().ok()?) * u128::from(factor) / 10_u128.pow(digits);
    }
    whole.checked_add(u64::try_from(part).ok()?)
}

/// Writes a size in the largest unit that needs no fraction.
pub(super) fn format_size(bytes: u64) -> String {
    let exact = |(_, factor): &&(&str, u64)| bytes >= *factor && bytes.is_multiple_of(*factor);
    match SIZE_UNITS.iter().find(exact) {
        Some((unit, factor)) => format!("{}{unit}", bytes / factor),
        None => format!("{bytes}B"),
    }
}

/// Parses a duration: numbers with units, from the largest unit to the smallest.
pub(super) fn parse_duration(text: &str) -> Result<Duration, Problem> {
    const REMEDY: &str =
        "write numbers with the units ms, s, m, h, d or w, such as \"30s\", \"7d\" or \"1h30m\"";
    let fault = |reason: String| Problem::new(reason, REMEDY);
    let mut rest = text.trim();
    let mut total_ms = 0_u64;
    let mut last_factor = u64::MAX;
    if rest.is_empty() {
        return Err(fault(format!("\"{text}\" is not a duration")));
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let unit_end =
            rest[digits..].find(|c: char| !c.is_ascii_alphabetic()).map_or(rest.len(), |at| digits + at);
        let (number, unit) = (&rest[..digits], &rest[digits..unit_end]);
        if unit.is_empty() && digits == rest.len() {
            return Err(fault(format!("\"{text}\" has no unit")));
        }
        let known = DURATION_UNITS.iter().find(|(name, _)| *name == unit);
        let (Ok(number), Some((_, factor))) = (number.parse::<u64>(), known) else {
            return Err(fault(format!("\"{text}\" is not a duration")));
        };
        if *factor >= last_factor {
            return Err(fault(format!("the units of \"{text}\" do not go from large to small")));
        }
        last_factor = *factor;
        total_ms = total_ms.saturating_add(number.saturating_mul(*factor));
        rest = &rest[unit_end..];
    }
    let duration = Duration::from_millis(total_ms);
    if duration > LONGEST {
        return Err(Problem::new(format!("\"{text}\" is longer than 3650d"), "write at most \"3650d\""));
    }
    Ok(duration)
}

/// Writes a duration the way [`parse_duration`] reads it; days are the largest unit.
pub(super) fn format_duration(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (unit, factor) in &DURATION_UNITS[1..] {
        if rest >= *factor {
            // Writing to a `String` cannot fail.
            let _ = write!(text, "{}{unit}", rest / factor);
            rest %= factor;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_exact_in_both_families() {
        for (text, bytes, canonical) in [
            ("0B", 0, "0B"),
            ("10GiB", 10 << 30, "10GiB"),
            ("500MB", 500_000_000, "500MB"),
            ("500 mb", 500_000_000, "500MB"),
            ("1.5GiB", 3 << 29, "1536MiB"),
            ("0.1kB", 100, "100B"),
            ("1024KiB", 1 << 20, "1MiB"),
            ("16383PiB", 16_383 << 50, "16383PiB"),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
            assert_eq!(format_size(bytes), canonical);
            assert_eq!(parse_size(canonical), Ok(bytes));
        }
    }

    #[test]
    fn bad_sizes_say_what_is_missing() {
        for (text, reason) in [
            ("10", "\"10\" has no unit"),
            ("", "\"\" is not a size"),
            ("GiB", "\"GiB\" is not a size"),
            ("-1GiB", "\"-1GiB\" is not a size"),
            ("10G", "\"G\" is not a unit of size"),
            ("1..5GB", "\"1..5GB\" is not a size"),
            ("1.GB", "\"1.GB\" is not a size"),
            ("20000000PiB", "\"20000000PiB\" is not a size"),
        ] {
            assert_eq!(parse_size(text).unwrap_err().reason, reason);
        }
    }

    #[test]
    fn durations_add_up_from_large_to_small() {
        for (text, ms, canonical) in [
            ("0s", 0, "0s"),
            ("30s", 30_000, "30s"),
            ("5m", 300_000, "5m"),
            ("7d", 7 * 86_400_000, "7d"),
            ("1w", 7 * 86_400_000, "7d"),
            ("1h30m", 5_400_000, "1h30m"),
            ("90m", 5_400_000, "1h30m"),
            ("1s500ms", 1_500, "1s500ms"),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
            assert_eq!(format_duration(Duration::from_millis(ms)), canonical);
        }
    }

    #[test]
    fn bad_durations_say_what_is_wrong() {
        for (text, reason) in [
            ("", "\"\" is not a duration"),
            ("90", "\"90\" has no unit"),
            ("1h30", "\"1h30\" has no unit"),
            ("s", "\"s\" is not a duration"),
            ("1.5s", "\"1.5s\" is not a duration"),
            ("-1s", "\"-1s\" is not a duration"),
            ("1y", "\"1y\" is not a duration"),
            ("1é", "\"1é\" is not a duration"),
            ("1m1h", "the units of \"1m1h\" do not go from large to small"),
            ("1m1m", "the units of \"1m1m\" do not go from large to small"),
            ("99999999999999999999w", "\"99999999999999999999w\" is not a duration"),
            ("4000d", "\"4000d\" is longer than 3650d"),
        ] {
            assert_eq!(parse_duration(text).unwrap_err().reason, reason);
        }
    }
}
