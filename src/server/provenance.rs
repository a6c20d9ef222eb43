//! Headers that say how an answer was come by: `Cache-Status` (RFC 9211), `Age`, `Warning`.

use http::header::{AGE, HeaderMap, HeaderName, HeaderValue, WARNING};

use crate::registry::{CacheResult, Served, Staleness};

/// `Cache-Status`
pub(super) const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// Clients read no more of all warnings together (OCI distribution specification, "Warnings").
const MAX_WARNING_BYTES: usize = 4096;

/// Adds what is known of how the answer was come by.
pub(super) fn add_provenance(headers: &mut HeaderMap, served: &Served) {
    headers.insert(CACHE_STATUS, cache_status(served));
    if let Some(age) = served.age {
        headers.insert(AGE, HeaderValue::from(age.as_secs()));
    }
    if let Some(warning) = served.staleness.as_ref().and_then(|staleness| warning(served, staleness)) {
        headers.insert(WARNING, warning);
    }
}

/// The terms are those of RFC 9211, section 2. A confirmation by upstream is `fwd=stale;
/// fwd-status=304` there, whichever request it took.
const fn cache_status(served: &Served) -> HeaderValue {
    HeaderValue::from_static(match (served.result, served.stored) {
        (CacheResult::Hit, _) => "tidegate; hit",
        (CacheResult::Miss, true) => "tidegate; fwd=uri-miss; stored",
        (CacheResult::Miss, false) => "tidegate; fwd=uri-miss",
        (CacheResult::Collapsed, _) => "tidegate; fwd=uri-miss; collapsed",
        (CacheResult::Stale, _) => "tidegate; hit; detail=stale",
        (CacheResult::Revalidated, _) => "tidegate; fwd=stale; fwd-status=304",
        (CacheResult::Bypass, _) => "tidegate; fwd=bypass",
    })
}

/// A warning that clients print. None while upstream is just being asked in the background: then
/// nothing is wrong.
fn warning(served: &Served, staleness: &Staleness) -> Option<HeaderValue> {
    let error = staleness.error?;
    let mut text = format!(
        "{} could not be asked since {} ({error}); this is its answer of then",
        served.upstream, staleness.checked_at,
    );
    // The text stands in quotes; names of upstreams are configured and might hold anything.
    text.retain(|character| matches!(character, ' '..='~') && !matches!(character, '"' | '\\'));
    text.truncate(MAX_WARNING_BYTES - r#"299 - """#.len());
    HeaderValue::from_str(&format!("299 - \"{text}\"")).ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::runtime::Timestamp;

    fn served(result: CacheResult, stored: bool) -> Served {
        Served { result, upstream: "docker.io".into(), age: None, staleness: None, stored }
    }

    #[test]
    fn cache_status_speaks_the_terms_of_the_rfc() {
        let cases = [
            (CacheResult::Hit, true, "tidegate; hit"),
            (CacheResult::Miss, true, "tidegate; fwd=uri-miss; stored"),
            (CacheResult::Miss, false, "tidegate; fwd=uri-miss"),
            (CacheResult::Collapsed, true, "tidegate; fwd=uri-miss; collapsed"),
            (CacheResult::Stale, true, "tidegate; hit; detail=stale"),
            (CacheResult::Revalidated, true, "tidegate; fwd=stale; fwd-status=304"),
            (CacheResult::Bypass, false, "tidegate; fwd=bypass"),
        ];
        for (result, stored, expected) in cases {
            let mut headers = HeaderMap::new();
            add_provenance(&mut headers, &served(result, stored));
            assert_eq!(headers[CACHE_STATUS], expected);
            assert!(!headers.contains_key(AGE) && !headers.contains_key(WARNING));
        }
    }

    #[test]
    fn a_stale_answer_says_since_when_upstream_could_not_be_asked() {
        let mut served = served(CacheResult::Stale, true);
        served.age = Some(Duration::from_millis(61_500));
        served.staleness = Some(Staleness {
            checked_at: Timestamp::from_millis(784_111_777_000),
            error: Some("unreachable"),
        });
        let mut headers = HeaderMap::new();
        add_provenance(&mut headers, &served);
        assert_eq!(headers[AGE], "61");
        let expected = "299 - \"docker.io could not be asked since Sun, 06 Nov 1994 08:49:37 GMT \
            (unreachable); this is its answer of then\"";
        assert_eq!(headers[WARNING], expected);
    }

    #[test]
    fn a_warning_is_short_and_well_formed_whatever_the_upstream_is_called() {
        let mut served = served(CacheResult::Stale, true);
        served.upstream = format!("\"\r\n\\é{}", "x".repeat(5000)).into();
        let checked_at = Timestamp::from_millis(0);
        served.staleness = Some(Staleness { checked_at, error: Some("broken") });
        let mut headers = HeaderMap::new();
        add_provenance(&mut headers, &served);
        let value = headers[WARNING].to_str().unwrap();
        assert!(value.starts_with("299 - \"xxx") && value.ends_with('"'));
        assert_eq!(value.len(), 4096);

        served.staleness = Some(Staleness { checked_at, error: None });
        let mut headers = HeaderMap::new();
        add_provenance(&mut headers, &served);
        assert!(!headers.contains_key(WARNING), "nothing is wrong while upstream is being asked");
    }
}
