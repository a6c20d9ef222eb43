//! Answers to range requests (RFC 9110, sections 14 and 15.3.7).
//!
//! One part for each range asked for, in the order asked for, never merged: clients of partly
//! pulled layers count the parts.

use std::fmt::Write as _;
use std::ops::Range;

use bytes::Bytes;
use http::HeaderValue;

use crate::oci::{RangeError, RangeSet};

/// What is sent for a range request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Partial {
    /// One part, as the body itself.
    Single(Range<u64>),
    /// Several parts, with heads between them.
    Multi(Multipart),
}

/// A `multipart/byteranges` body that is laid out, but not read yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Multipart {
    boundary: String,
    /// The head that goes before each part, and the part's position.
    parts: Vec<(Bytes, Range<u64>)>,
    end: Bytes,
}

/// Why a range request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// 400: clients then ask for fewer ranges.
    TooMuch,
    /// 416.
    Unsatisfiable,
}

/// Ranges may overlap, but not so far that the answer is much larger than the content (RFC 9110,
/// section 14.2 lets servers refuse that).
const MAX_OVERLAP: u64 = 2;

/// Answers may always be this large, whatever the content's size.
const ALWAYS_ALLOWED_BYTES: u64 = 1024 * 1024;

impl Partial {
    /// Lays out the answer to `requested` from content of `size_bytes`.
    pub(super) fn plan(requested: &RangeSet, size_bytes: u64, content_type: &str) -> Result<Self, Refusal> {
        let ranges = requested.resolve(size_bytes).map_err(|error| match error {
            RangeError::TooMany => Refusal::TooMuch,
            RangeError::Unsatisfiable => Refusal::Unsatisfiable,
        })?;
        let sum = ranges.iter().map(|range| range.end - range.start).fold(0, u64::saturating_add);
        if sum > size_bytes.saturating_mul(MAX_OVERLAP).max(ALWAYS_ALLOWED_BYTES) {
            return Err(Refusal::TooMuch);
        }
        match (requested.ranges().len(), ranges.as_slice()) {
            (_, []) => Err(Refusal::Unsatisfiable),
            (1, [range]) => Ok(Self::Single(range.clone())),
            _ => Ok(Self::Multi(Multipart::new(ranges, size_bytes, content_type, random_boundary()))),
        }
    }
}

impl Multipart {
    fn new(ranges: Vec<Range<u64>>, size_bytes: u64, content_type: &str, boundary: String) -> Self {
        let mut before = "";
        let mut heads = Vec::with_capacity(ranges.len());
        for range in ranges {
            let mut head = String::with_capacity(boundary.len() + content_type.len() + 96);
            let _ = write!(
                head,
                "{before}--{boundary}\r\nContent-Type: {content_type}\r\nContent-Range: {}\r\n\r\n",
                ContentRangeText(&range, size_bytes),
            );
            before = "\r\n";
            heads.push((Bytes::from(head), range));
        }
        let end = Bytes::from(format!("\r\n--{boundary}--\r\n"));
        Self { boundary, parts: heads, end }
    }

    /// The value of the answer's `Content-Type`.
    pub(super) fn content_type(&self) -> HeaderValue {
        let value = format!("multipart/byteranges; boundary={}", self.boundary);
        HeaderValue::from_str(&value).expect("a boundary of letters and digits is a header value")
    }

    /// The size of the whole body in bytes.
    pub(super) fn size_bytes(&self) -> u64 {
        let parts = self.parts.iter().map(|(head, range)| head.len() as u64 + (range.end - range.start));
        parts.sum::<u64>() + self.end.len() as u64
    }

    /// The heads with the positions of what follows them, and what closes the body.
    pub(super) fn into_parts(self) -> (Vec<(Bytes, Range<u64>)>, Bytes) {
        (self.parts, self.end)
    }
}

/// The value of `Content-Range` for a part.
pub(super) fn content_range(range: &Range<u64>, size_bytes: u64) -> HeaderValue {
    let value = ContentRangeText(range, size_bytes).to_string();
    HeaderValue::from_str(&value).expect("digits are a header value")
}

/// The value of `Content-Range` where no part can be sent.
pub(super) fn unsatisfied_range(size_bytes: u64) -> HeaderValue {
    HeaderValue::from_str(&format!("bytes */{size_bytes}")).expect("digits are a header value")
}

struct ContentRangeText<'a>(&'a Range<u64>, u64);

impl std::fmt::Display for ContentRangeText<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Positions are inclusive; ranges that were resolved are never empty.
        write!(f, "bytes {}-{}/{}", self.0.start, self.0.end.saturating_sub(1), self.1)
    }
}

/// Long enough that no content holds it by chance.
fn random_boundary() -> String {
    format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_keep_their_order_and_are_never_merged() {
        let ranges = vec![5..7, 0..2, 2..4];
        let multipart = Multipart::new(ranges, 10, "application/octet-stream", "b0".into());
        assert_eq!(multipart.content_type(), "multipart/byteranges; boundary=b0");
        let announced = multipart.size_bytes();
        let content = b"0123456789";
        let (parts, end) = multipart.into_parts();
        let position = |at: u64| usize::try_from(at).unwrap();
        let mut body = Vec::new();
        for (head, range) in parts {
            body.extend_from_slice(&head);
            body.extend_from_slice(&content[position(range.start)..position(range.end)]);
        }
        body.extend_from_slice(&end);
        assert_eq!(body.len() as u64, announced);
        let expected = "--b0\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes 5-6/10\r\n\r\n56\
            \r\n--b0\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes 0-1/10\r\n\r\n01\
            \r\n--b0\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes 2-3/10\r\n\r\n23\
            \r\n--b0--\r\n";
        assert_eq!(String::from_utf8(body).unwrap(), expected);
    }

    #[test]
    fn the_form_of_the_answer_follows_the_request() {
        let plan = |value: &str, size_bytes| {
            Partial::plan(&RangeSet::parse(value).unwrap().unwrap(), size_bytes, "a/b")
        };
        for (value, range) in [
            ("bytes=0-", 0..10),
            ("bytes=0-1", 0..2),
            ("bytes=-5", 5..10),
            ("bytes=4-10", 4..10),
            ("bytes=9-99", 9..10),
        ] {
            assert_eq!(plan(value, 10), Ok(Partial::Single(range)), "{value}");
        }
        assert_eq!(plan("bytes=10-", 10), Err(Refusal::Unsatisfiable));
        assert_eq!(plan("bytes=0-", 0), Err(Refusal::Unsatisfiable));
        // Of two ranges one lies outside: the other is still a part, as several were asked for.
        let Ok(Partial::Multi(multipart)) = plan("bytes=0-1,20-", 10) else { panic!("several") };
        assert_eq!(multipart.into_parts().0.len(), 1);
    }

    #[test]
    fn ranges_that_add_up_to_far_more_than_the_content_are_refused() {
        let size_bytes = 10 * 1024 * 1024;
        let ask = |count: usize| {
            let ranges = RangeSet::parse(&format!("bytes=0-{}", ",0-".repeat(count - 1))).unwrap().unwrap();
            Partial::plan(&ranges, size_bytes, "a/b")
        };
        assert!(ask(2).is_ok());
        assert_eq!(ask(3), Err(Refusal::TooMuch));
        let many = (0..1024).map(|n| format!("{n}-{n}")).collect::<Vec<_>>().join(",");
        let many = RangeSet::parse(&format!("bytes={many}")).unwrap().unwrap();
        let Ok(Partial::Multi(multipart)) = Partial::plan(&many, 2000, "a/b") else { panic!("many") };
        assert_eq!(multipart.into_parts().0.len(), 1024);
    }

    #[test]
    fn content_range_has_inclusive_positions_and_the_total() {
        assert_eq!(content_range(&(5..10), 10), "bytes 5-9/10");
        assert_eq!(unsatisfied_range(10), "bytes */10");
    }
}
