//! What the head of an answer means: pure judgements on status and headers.

use std::ops::Range;
use std::time::Duration;

use http::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderName, RETRY_AFTER,
};
use http::{StatusCode, response};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::error::Fault;
use super::hold::LONGEST;
use crate::oci::ContentRange;
use crate::runtime::Timestamp;

/// The part of a body that an answer carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    /// Where the body begins within the whole.
    pub(super) offset: u64,
    /// The length of the body, where it is told.
    pub(super) length_bytes: Option<u64>,
    /// The length of the whole, where it is told.
    pub(super) total_bytes: Option<u64>,
}

/// The bytes that were asked for: from a position, up to an end or all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WantedRange {
    pub(super) start: u64,
    /// One past the last byte; `None` for all.
    pub(super) end: Option<u64>,
}

impl WantedRange {
    /// The value of the `Range` header.
    pub(super) fn to_header_value(self) -> String {
        match self.end {
            Some(end) => format!("bytes={}-{}", self.start, end.saturating_sub(1)),
            None => format!("bytes={}-", self.start),
        }
    }
}

/// The fault that a status other than 200 and 206 means.
pub(super) fn fault_of(status: StatusCode, headers: &HeaderMap, now: Timestamp) -> Fault {
    match status.as_u16() {
        404 | 410 => Fault::Absent,
        401 | 402 | 403 | 451 => Fault::Forbidden(format!("it answers {}", status.as_u16())),
        429 => Fault::Throttled(retry_after(headers, now)),
        code => Fault::Status(code),
    }
}

/// Refuses bodies that cannot be what was asked for: compressed ones, and web pages.
pub(super) fn check_content(headers: &HeaderMap) -> Result<(), Fault> {
    for line in headers.get_all(CONTENT_ENCODING) {
        let plain = line.to_str().is_ok_and(|line| {
            line.split(',')
                .all(|coding| matches!(coding.trim().to_ascii_lowercase().as_str(), "" | "identity"))
        });
        if !plain {
            return Err(Fault::broken("it sends compressed content, which nobody asked for"));
        }
    }
    if is_web_page(headers) { Err(Fault::broken("it sends a web page")) } else { Ok(()) }
}

/// Whether the body is HTML: of a portal, a load balancer, or a site for people.
pub(super) fn is_web_page(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).map(|value| value.as_bytes().to_ascii_lowercase());
    content_type
        .is_some_and(|value| value.starts_with(b"text/html") || value.starts_with(b"application/xhtml"))
}

/// Checks that a 200 or 206 carries what was asked for, and says which part it is.
///
/// A 200 in place of a part is the whole, which is no fault here: ranges may be ignored (RFC 9110,
/// section 14.2).
pub(super) fn find_extent(head: &response::Parts, wanted: Option<WantedRange>) -> Result<Extent, Fault> {
    let announced = content_length(&head.headers);
    if head.status == StatusCode::OK {
        return Ok(Extent { offset: 0, length_bytes: announced, total_bytes: announced });
    }
    let wanted = wanted.ok_or_else(|| Fault::broken("it sends a part where the whole was asked for"))?;
    let unusable = || Fault::broken("it sends another part than asked for");
    let line = single(&head.headers, &CONTENT_RANGE).ok_or_else(unusable)?;
    let range = ContentRange::parse(line).ok_or_else(unusable)?;
    let total_bytes = range.total_bytes;
    let part: Range<u64> = range.range.filter(|part| part.start < part.end).ok_or_else(unusable)?;
    let length = part.end - part.start;
    // It may end early only where the whole ends.
    let end = match (wanted.end, total_bytes) {
        (Some(end), Some(total)) => Some(end.min(total)),
        (end, total) => end.or(total),
    };
    let is_as_asked = part.start == wanted.start && end.is_none_or(|end| part.end == end);
    if !is_as_asked || announced.is_some_and(|announced| announced != length) {
        return Err(unusable());
    }
    Ok(Extent { offset: part.start, length_bytes: Some(length), total_bytes })
}

/// `Content-Length`, where it is a number.
pub(super) fn content_length(headers: &HeaderMap) -> Option<u64> {
    single(headers, &CONTENT_LENGTH)?.trim().parse().ok()
}

/// The value of a header that is there once and is text.
pub(super) fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut lines = headers.get_all(name).iter();
    let line = lines.next()?;
    if lines.next().is_some() { None } else { line.to_str().ok() }
}

/// `Retry-After` in seconds or as a date (RFC 9110, section 10.2.3); what is neither says nothing.
pub(super) fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let value = single(headers, &RETRY_AFTER)?.trim();
    let wait = if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        Duration::from_secs(value.parse().unwrap_or(u64::MAX))
    } else {
        let date = httpdate::parse_http_date(value).ok()?;
        date.duration_since(now.to_system_time()).unwrap_or_default()
    };
    Some(wait.min(LONGEST))
}

/// The time until a limit starts anew: some say in how many seconds, some at which second or millisecond of Unix time.
pub(super) fn time_until_reset(number: u64, now: Timestamp) -> Duration {
    const FIRST_SECOND: u64 = 1_000_000_000;
    match number {
        ..FIRST_SECOND => Duration::from_secs(number),
        FIRST_SECOND..1_000_000_000_000 => Timestamp::from_millis(number * 1000).since(now),
        _ => Timestamp::from_millis(number).since(now),
    }
}

/// Percent-encodes a text for a query, so that it stays one value.
pub(super) fn encode(text: &str) -> String {
    utf8_percent_encode(text, QUERY_VALUE).to_string()
}

/// What a value in a query may hold as it is; `:`, `/` and `,` are in every scope.
const QUERY_VALUE: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b':')
    .remove(b'/')
    .remove(b',');

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn statuses_keep_their_class() {
        let now = Timestamp::from_millis(0);
        let class = |code: u16| {
            let status = StatusCode::from_u16(code).unwrap();
            fault_of(status, &HeaderMap::new(), now).at("up").kind()
        };
        for (codes, kind) in [
            (vec![404, 410], "absent"),
            (vec![401, 403, 451], "forbidden"),
            (vec![429], "throttled"),
            (vec![204, 300, 304, 400, 405, 416, 418, 500, 502, 503, 508, 599], "broken"),
        ] {
            for code in codes {
                assert_eq!(class(code), kind, "{code}");
            }
        }
    }

    #[test]
    fn retry_after_is_read_in_both_forms_and_capped() {
        let now = Timestamp::from_millis(784_111_777_000); // Sun, 06 Nov 1994 08:49:37 GMT
        for (value, expected) in [
            ("0", Some(0)),
            ("120", Some(120)),
            ("99999999999999999999999", Some(900)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("Fri, 31 Dec 9999 23:59:59 GMT", Some(900)),
            ("soon", None),
            ("-1", None),
            ("", None),
        ] {
            let wait = retry_after(&headers(&[("retry-after", value)]), now);
            assert_eq!(wait.map(|wait| wait.as_secs()), expected, "{value}");
        }
    }

    #[test]
    fn compressed_content_and_web_pages_are_refused() {
        for (name, value, good) in [
            ("content-encoding", "gzip", false),
            ("content-encoding", "identity, br", false),
            ("content-encoding", "Identity", true),
            ("content-type", "text/html; charset=utf-8", false),
            ("content-type", "Text/HTML", false),
            ("content-type", "text/plain", true),
            ("content-type", "application/octet-stream", true),
        ] {
            assert_eq!(check_content(&headers(&[(name, value)])).is_ok(), good, "{name}: {value}");
        }
    }

    #[test]
    fn a_part_must_be_the_part_that_was_asked_for() {
        let extent = |status: u16, lines: &[(&'static str, &str)], wanted: Option<(u64, Option<u64>)>| {
            let mut head = response::Response::new(()).into_parts().0;
            head.status = StatusCode::from_u16(status).unwrap();
            head.headers = headers(lines);
            let wanted = wanted.map(|(start, end)| WantedRange { start, end });
            find_extent(&head, wanted)
                .ok()
                .map(|extent| (extent.offset, extent.length_bytes, extent.total_bytes))
        };
        let range = |value: &'static str| [("content-range", value)];
        assert_eq!(extent(200, &[("content-length", "9")], None), Some((0, Some(9), Some(9))));
        assert_eq!(extent(200, &[], Some((5, None))), Some((0, None, None)));
        assert_eq!(extent(206, &range("bytes 0-8/9"), None), None, "not asked for");
        assert_eq!(extent(206, &[], Some((5, None))), None, "no Content-Range");
        for (value, wanted, expected) in [
            ("bytes 5-8/9", (5, None), Some((5, Some(4), Some(9)))),
            ("bytes 5-8/*", (5, None), Some((5, Some(4), None))),
            ("bytes 5-7/9", (5, None), None),
            ("bytes 4-8/9", (5, None), None),
            ("bytes 5-6/9", (5, Some(7)), Some((5, Some(2), Some(9)))),
            ("bytes 5-8/9", (5, Some(100)), Some((5, Some(4), Some(9)))),
            ("bytes 5-7/9", (5, Some(7)), None),
            ("bytes */9", (5, None), None),
            ("nonsense", (5, None), None),
        ] {
            assert_eq!(extent(206, &range(value), Some(wanted)), expected, "{value} for {wanted:?}");
        }
        let lines = [("content-range", "bytes 5-8/9"), ("content-length", "5")];
        assert_eq!(extent(206, &lines, Some((5, None))), None, "two lengths");
    }

    #[test]
    fn a_reset_is_a_span_or_a_moment() {
        let now = Timestamp::from_millis(1_800_000_000_000);
        for (number, seconds) in
            [(0, 0), (90, 90), (1_800_000_007, 7), (1_800_000_007_000, 7), (1_700_000_000, 0)]
        {
            assert_eq!(time_until_reset(number, now).as_secs(), seconds, "{number}");
        }
    }
}
