//! Conditional requests (RFC 9110, section 13): content is named by its digest, so is its `ETag`.

use std::fmt::Write as _;

use bytes::Bytes;
use http::header::{GetAll, HeaderMap, IF_NONE_MATCH, IF_RANGE};
use http::{HeaderValue, Method, header};

use crate::oci::{Digest, RangeError, RangeSet};

/// The names of content as headers: its digest, and its `ETag`, which is the digest in quotes, strong.
/// Both are of one piece of memory.
pub(super) fn names_of(digest: &Digest) -> (HeaderValue, HeaderValue) {
    let mut text = String::with_capacity(QUOTED_DIGEST_BYTES);
    write!(text, "\"{digest}\"").expect("a string takes all that is written");
    let quoted = Bytes::from(text);
    let value = |text| HeaderValue::from_maybe_shared(text).expect("a digest is a header value");
    (value(quoted.slice(1..quoted.len() - 1)), value(quoted))
}

/// The `ETag` of content.
pub(super) fn etag(digest: &Digest) -> HeaderValue {
    names_of(digest).1
}

/// The length of a SHA-256 digest as text, in quotes; others are rare.
const QUOTED_DIGEST_BYTES: usize = 7 + 64 + 2;

/// Whether `If-None-Match` names `digest`, so that the client has it already.
///
/// Takes lists, `*`, weak tags (the comparison is weak) and, as real clients write them, tags without
/// quotes.
pub(super) fn names_digest(headers: &HeaderMap, digest: &Digest) -> bool {
    headers.contains_key(IF_NONE_MATCH) && names(&headers.get_all(IF_NONE_MATCH), &digest.to_string())
}

fn names(lines: &GetAll<'_, HeaderValue>, digest: &str) -> bool {
    lines.iter().filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(',')).any(|entry| {
        let entry = entry.trim();
        let tag = entry.strip_prefix("W/").unwrap_or(entry);
        let tag = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).unwrap_or(tag);
        entry == "*" || tag == digest
    })
}

/// The ranges that a request asks for. `None` where it asks for all: no `Range`, or one that has to
/// be ignored.
pub(super) fn requested_ranges(
    method: &Method,
    headers: &HeaderMap,
    digest: &Digest,
) -> Result<Option<RangeSet>, RangeError> {
    let mut lines = headers.get_all(header::RANGE).iter();
    // `Range` is for GET alone (section 14.2), and two lines of it are malformed.
    let (Some(line), None, &Method::GET) = (lines.next(), lines.next(), method) else { return Ok(None) };
    let Ok(value) = line.to_str() else { return Ok(None) };
    // The comparison is strong (section 13.1.5); a date never matches, as no date is sent.
    let applies = headers.get(IF_RANGE).is_none_or(|validator| *validator == etag(digest));
    if applies { RangeSet::parse(value) } else { Ok(None) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Algorithm;

    #[test]
    fn if_none_match_is_read_as_clients_write_it() {
        let digest = Digest::of(Algorithm::Sha256, b"x");
        let other = Digest::of(Algorithm::Sha256, b"y");
        let cases = [
            (vec![format!("\"{digest}\"")], true),
            (vec![format!("W/\"{digest}\"")], true),
            (vec![digest.to_string()], true),
            (vec![format!("\"{other}\" , W/\"{digest}\"")], true),
            (vec![format!("\"{other}\""), format!("\"{digest}\"")], true),
            (vec!["*".to_owned()], true),
            (vec![format!("\"{other}\"")], false),
            (vec![String::new()], false),
            (vec![], false),
        ];
        for (lines, expected) in cases {
            let mut headers = HeaderMap::new();
            for line in &lines {
                headers.append(IF_NONE_MATCH, line.parse().unwrap());
            }
            assert_eq!(names_digest(&headers, &digest), expected, "{lines:?}");
        }
    }

    #[test]
    fn a_range_is_ignored_where_the_rules_say_so() {
        let digest = Digest::of(Algorithm::Sha256, b"x");
        let mut two_lines = HeaderMap::new();
        two_lines.append(header::RANGE, HeaderValue::from_static("bytes=0-1"));
        two_lines.append(header::RANGE, HeaderValue::from_static("bytes=2-3"));
        assert_eq!(requested_ranges(&Method::GET, &two_lines, &digest), Ok(None));

        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, HeaderValue::from_static("bytes=0-1"));
        assert_eq!(requested_ranges(&Method::HEAD, &headers, &digest), Ok(None));

        for validator in ["\"sha256:00\"", "Tue, 15 Nov 1994 12:45:26 GMT"] {
            headers.insert(IF_RANGE, HeaderValue::from_static(validator));
            assert_eq!(requested_ranges(&Method::GET, &headers, &digest), Ok(None));
        }
        headers.insert(IF_RANGE, etag(&digest));
        assert!(requested_ranges(&Method::GET, &headers, &digest).unwrap().is_some());
        let weak = format!("W/{}", etag(&digest).to_str().unwrap());
        headers.insert(IF_RANGE, weak.parse().unwrap());
        assert_eq!(requested_ranges(&Method::GET, &headers, &digest), Ok(None));
    }
}
