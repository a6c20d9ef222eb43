//! Byte ranges (RFC 9110, section 14).

use std::fmt;
use std::ops::Range;

/// One range as the client wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteRange {
    /// `a-b`: from the first to the last position, both included.
    Closed(u64, u64),
    /// `a-`: from a position to the end.
    From(u64),
    /// `-n`: the last `n` bytes.
    Suffix(u64),
}

impl ByteRange {
    /// Reads an `int-range` or `suffix-range` (RFC 9110, section 14.1.1).
    fn parse(text: &str) -> Option<Self> {
        let (first, last) = text.split_once('-')?;
        if first.is_empty() {
            return Some(Self::Suffix(parse_position(last)?));
        }
        let first = parse_position(first)?;
        if last.is_empty() {
            return Some(Self::From(first));
        }
        let last = parse_position(last)?;
        if last < first { None } else { Some(Self::Closed(first, last)) }
    }

    fn resolve(self, size_bytes: u64) -> Option<Range<u64>> {
        let range = match self {
            Self::Closed(first, last) => first..last.saturating_add(1).min(size_bytes),
            Self::From(first) => first..size_bytes,
            Self::Suffix(length) => size_bytes.saturating_sub(length)..size_bytes,
        };
        if range.is_empty() { None } else { Some(range) }
    }
}

impl fmt::Display for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed(first, last) => write!(f, "{first}-{last}"),
            Self::From(first) => write!(f, "{first}-"),
            Self::Suffix(length) => write!(f, "-{length}"),
        }
    }
}

/// The value of a `Range` header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeSet(Vec<ByteRange>);

/// Why a `Range` header cannot be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// More ranges than allowed: answered 400, on which clients ask for fewer.
    #[error("more than {} ranges in one request", RangeSet::MAX)]
    TooMany,
    /// No range lies within the content: answered 416.
    #[error("no requested range lies within the content")]
    Unsatisfiable,
}

impl RangeSet {
    /// The most ranges that one request may have.
    pub const MAX: usize = 1024;

    /// Reads a `Range` header. `Ok(None)` where it is malformed or of another unit: such a header
    /// is ignored (RFC 9110, section 14.2).
    pub fn parse(value: &str) -> Result<Option<Self>, RangeError> {
        let Some(list) = strip_unit(value).and_then(|rest| rest.strip_prefix('=')) else {
            return Ok(None);
        };
        let mut ranges = Vec::new();
        let mut count = 0;
        // Empty elements of a list do not count (RFC 9110, section 5.6.1.2).
        for element in list.split(',').map(trim_whitespace).filter(|element| !element.is_empty()) {
            let Some(range) = ByteRange::parse(element) else { return Ok(None) };
            count += 1;
            if count <= Self::MAX {
                ranges.push(range);
            }
        }
        match count {
            0 => Ok(None),
            1..=Self::MAX => Ok(Some(Self(ranges))),
            _ => Err(RangeError::TooMany),
        }
    }

    /// The ranges as written, in order.
    pub fn ranges(&self) -> &[ByteRange] {
        &self.0
    }

    /// The positions meant in content of `size_bytes`, in the order asked for, never merged; ends
    /// past the content are clamped, ranges wholly outside are dropped. Never empty, and no range of
    /// it is: of empty content nothing is satisfiable, as `Content-Range` cannot say "no bytes".
    pub fn resolve(&self, size_bytes: u64) -> Result<Vec<Range<u64>>, RangeError> {
        let resolved: Vec<_> = self.0.iter().filter_map(|range| range.resolve(size_bytes)).collect();
        if resolved.is_empty() { Err(RangeError::Unsatisfiable) } else { Ok(resolved) }
    }
}

/// The value of a `Content-Range` header of unit `bytes` (RFC 9110, section 14.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContentRange {
    /// The positions sent, or `None` for `*` (unsatisfied).
    pub range: Option<Range<u64>>,
    /// The size of the whole, or `None` for `*`.
    pub total_bytes: Option<u64>,
}

impl ContentRange {
    /// Reads a `Content-Range` header; `None` where it is malformed or of another unit.
    pub fn parse(value: &str) -> Option<Self> {
        let rest = strip_unit(value)?.strip_prefix(' ')?;
        let (range, total) = rest.trim().split_once('/')?;
        let total_bytes = if total == "*" { None } else { Some(parse_exact(total)?) };
        if range == "*" {
            // `*/*` says nothing at all and is outside the grammar.
            return total_bytes.map(|_| Self { range: None, total_bytes });
        }
        let (first, last) = range.split_once('-')?;
        let (first, last) = (parse_exact(first)?, parse_exact(last)?);
        let range = first..last.checked_add(1)?;
        if range.is_empty() || total_bytes.is_some_and(|total| total < range.end) {
            return None;
        }
        Some(Self { range: Some(range), total_bytes })
    }
}

impl fmt::Display for ContentRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes ")?;
        match &self.range {
            Some(range) => write!(f, "{}-{}/", range.start, range.end.saturating_sub(1))?,
            None => f.write_str("*/")?,
        }
        match self.total_bytes {
            Some(total) => write!(f, "{total}"),
            None => f.write_str("*"),
        }
    }
}

/// What follows the unit `bytes`, in any case (RFC 9110, section 14.1).
fn strip_unit(value: &str) -> Option<&str> {
    let (unit, rest) = trim_whitespace(value).split_at_checked(5)?;
    unit.eq_ignore_ascii_case("bytes").then_some(rest)
}

/// Takes off what the grammar calls `OWS`.
fn trim_whitespace(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

/// Reads `1*DIGIT`; a number that no content reaches stands for the greatest one.
fn parse_position(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(u64::MAX))
}

/// Reads `1*DIGIT` that must be exact.
fn parse_exact(text: &str) -> Option<u64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(value: &str, size_bytes: u64) -> Result<Vec<Range<u64>>, RangeError> {
        RangeSet::parse(value).unwrap().unwrap().resolve(size_bytes)
    }

    #[test]
    fn ranges_are_read_as_written() {
        use ByteRange::{Closed, From, Suffix};
        let cases: [(&str, &[ByteRange]); 7] = [
            ("bytes=0-", &[From(0)]),
            ("bytes=0-1", &[Closed(0, 1)]),
            ("bytes=-5", &[Suffix(5)]),
            ("Bytes=7-7,0-0,3-", &[Closed(7, 7), Closed(0, 0), From(3)]),
            (" BYTES=1-2 ,\t3-4,, -0 ", &[Closed(1, 2), Closed(3, 4), Suffix(0)]),
            ("bytes=0-99999999999999999999999", &[Closed(0, u64::MAX)]),
            ("bytes=99999999999999999999999-", &[From(u64::MAX)]),
        ];
        for (value, ranges) in cases {
            assert_eq!(RangeSet::parse(value).unwrap().unwrap().ranges(), ranges, "{value}");
        }
    }

    #[test]
    fn malformed_ranges_and_other_units_are_ignored() {
        // 35: the answer is then the whole content.
        for value in [
            "",
            "bytes",
            "bytes=",
            "bytes=,",
            "bytes=-",
            "bytes=a-b",
            "bytes=2-1",
            "bytes=1",
            "bytes 0-1",
            "items=0-1",
            "bytes=0-1;2-3",
            "bytes=0-1,x",
            "bytes=+1-2",
            "bytes=1-2-3",
            "bytes=\u{661}-",
            "byte\u{e9}=0-1",
            "bytes=0 - 1",
            "bytes = 0-1",
        ] {
            assert_eq!(RangeSet::parse(value), Ok(None), "{value}");
        }
    }

    #[test]
    fn up_to_1024_ranges_are_accepted() {
        // 37
        let many = |count: usize| format!("bytes={}", vec!["0-0"; count].join(","));
        assert_eq!(RangeSet::parse(&many(1024)).unwrap().unwrap().ranges().len(), 1024);
        assert_eq!(RangeSet::parse(&many(1025)), Err(RangeError::TooMany));
        assert_eq!(RangeSet::parse(&(many(1025) + ",x")), Ok(None));
    }

    #[test]
    fn ranges_are_clamped_to_the_content_and_keep_their_order() {
        // 32 to 36: open, closed, suffix, off by one, several; one part a range, never merged.
        for (value, size_bytes, expected) in [
            ("bytes=0-", 10, &[(0, 10)][..]),
            ("bytes=4-", 10, &[(4, 10)]),
            ("bytes=0-1", 10, &[(0, 2)]),
            ("bytes=-5", 10, &[(5, 10)]),
            ("bytes=-50", 10, &[(0, 10)]),
            ("bytes=4-10", 10, &[(4, 10)]),
            ("bytes=0-18446744073709551615", 10, &[(0, 10)]),
            ("bytes=0-18446744073709551615", u64::MAX, &[(0, u64::MAX)]),
            ("bytes=2-3,0-1,2-5,4-4", 10, &[(2, 4), (0, 2), (2, 6), (4, 5)]),
            ("bytes=0-0,10-,9-", 10, &[(0, 1), (9, 10)]),
            ("bytes=-0,1-1", 10, &[(1, 2)]),
            ("bytes=0-0", 1, &[(0, 1)]),
        ] {
            let expected: Vec<_> = expected.iter().map(|(start, end)| *start..*end).collect();
            assert_eq!(resolve(value, size_bytes), Ok(expected), "{value} of {size_bytes}");
        }
    }

    #[test]
    fn ranges_outside_the_content_are_unsatisfiable() {
        // 35, and 52 for empty content.
        for (value, size_bytes) in [
            ("bytes=10-", 10),
            ("bytes=10-20,11-", 10),
            ("bytes=-0", 10),
            ("bytes=0-", 0),
            ("bytes=0-0", 0),
            ("bytes=-5", 0),
        ] {
            assert_eq!(resolve(value, size_bytes), Err(RangeError::Unsatisfiable), "{value} of {size_bytes}");
        }
    }

    #[test]
    fn resolved_ranges_are_what_was_asked_for_within_the_content() {
        bolero::check!().with_type::<(Vec<(u8, u64, u64)>, u64)>().for_each(|(specs, size_bytes)| {
            let ranges: Vec<_> = specs
                .iter()
                .take(RangeSet::MAX)
                .map(|(kind, one, other)| match kind % 3 {
                    0 => ByteRange::Closed(*one.min(other), *one.max(other)),
                    1 => ByteRange::From(*one),
                    _ => ByteRange::Suffix(*one),
                })
                .collect();
            let text: Vec<_> = ranges.iter().map(ToString::to_string).collect();
            let Some(parsed) = RangeSet::parse(&format!("bytes={}", text.join(","))).unwrap() else {
                return assert!(ranges.is_empty());
            };
            assert_eq!(parsed.ranges(), ranges);
            let each: Vec<_> = ranges.iter().filter_map(|range| range.resolve(*size_bytes)).collect();
            assert!(each.iter().all(|range| range.start < range.end && range.end <= *size_bytes));
            assert_eq!(parsed.resolve(*size_bytes).unwrap_or_default(), each);
        });
    }

    #[test]
    fn content_ranges_are_read_only_where_they_make_sense() {
        let some = |range, total_bytes| Some(ContentRange { range, total_bytes });
        for (value, expected) in [
            ("bytes 0-9/100", some(Some(0..10), Some(100))),
            ("Bytes 90-99/100", some(Some(90..100), Some(100))),
            ("bytes 0-9/*", some(Some(0..10), None)),
            ("bytes */100", some(None, Some(100))),
            ("bytes */*", None),
            ("bytes 0-100/100", None),
            ("bytes 9-0/100", None),
            ("bytes 0-18446744073709551615/*", None),
            ("bytes 0-9", None),
            ("bytes=0-9/100", None),
            ("bytes -9/100", None),
            ("bytes +0-9/100", None),
            ("items 0-9/100", None),
            ("", None),
        ] {
            assert_eq!(ContentRange::parse(value), expected, "{value}");
            if let Some(range) = expected {
                assert_eq!(ContentRange::parse(&range.to_string()), Some(range));
            }
        }
    }
}
