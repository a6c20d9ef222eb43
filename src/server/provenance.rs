//! Headers that say how an answer was come by: `Cache-Status` (RFC 9211), `Age`, `Warning`.

use http::header::{AGE, HeaderMap, HeaderName, HeaderValue, WARNING};

use crate::registry::{CacheResult, Served, StaleCause, Staleness};

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
fn cache_status(served: &Served) -> HeaderValue {
    HeaderValue::from_static(match (served.result, served.stored) {
        (CacheResult::Hit, _) => "tidegate; hit",
        (CacheResult::Miss, true) => "tidegate; fwd=uri-miss; stored",
        (CacheResult::Miss, false) => "tidegate; fwd=uri-miss",
        (CacheResult::Collapsed, _) => "tidegate; fwd=uri-miss; collapsed",
        (CacheResult::Stale, _) => match served.staleness.as_ref().map(|staleness| staleness.cause) {
            Some(StaleCause::Deleted { .. }) => "tidegate; hit; detail=stale-deleted",
            Some(StaleCause::Offline) => "tidegate; hit; detail=stale-offline",
            Some(StaleCause::Asking | StaleCause::Trouble(_)) | None => "tidegate; hit; detail=stale",
        },
        (CacheResult::Revalidated, _) => "tidegate; fwd=stale; fwd-status=304",
        (CacheResult::Bypass, _) => "tidegate; fwd=bypass",
    })
}

/// A warning that clients print. None while upstream is just being asked in the background: then
/// nothing is wrong.
fn warning(served: &Served, staleness: &Staleness) -> Option<HeaderValue> {
    let upstream = &served.upstream;
    let mut text = match (staleness.cause, staleness.checked_at) {
        (StaleCause::Asking, _) => return None,
        (StaleCause::Trouble(error), Some(then)) => {
            format!("{upstream} could not be asked since {then} ({error}); this is its answer of then")
        }
        (StaleCause::Trouble(error), None) => {
            format!("{upstream} cannot be asked ({error}); this is what is known here")
        }
        (StaleCause::Deleted { since }, then) => {
            let then = then.map_or_else(String::new, |then| format!(" of {then}"));
            format!("{upstream} has deleted this, as was noticed {since}; this is its last answer{then}")
        }
        (StaleCause::Offline, Some(then)) => {
            format!("this node is offline for {upstream}; this is its answer of {then}")
        }
        (StaleCause::Offline, None) => {
            format!("this node is offline for {upstream}; this is what is known here")
        }
    };
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
            checked_at: Some(Timestamp::from_millis(784_111_777_000)),
            cause: StaleCause::Trouble("unreachable"),
        });
        let mut headers = HeaderMap::new();
        add_provenance(&mut headers, &served);
        assert_eq!(headers[AGE], "61");
        let expected = "299 - \"docker.io could not be asked since Sun, 06 Nov 1994 08:49:37 GMT \
            (unreachable); this is its answer of then\"";
        assert_eq!(headers[WARNING], expected);
    }

    #[test]
    fn an_answer_tells_that_upstream_has_deleted_it_or_that_this_node_is_offline() {
        let mut served = served(CacheResult::Stale, true);
        let checked_at = Some(Timestamp::from_millis(784_111_777_000));
        let since = Timestamp::from_millis(784_111_837_000);
        for (cause, status, warning) in [
            (
                StaleCause::Deleted { since },
                "tidegate; hit; detail=stale-deleted",
                "299 - \"docker.io has deleted this, as was noticed Sun, 06 Nov 1994 08:50:37 GMT; this is its \
                 last answer of Sun, 06 Nov 1994 08:49:37 GMT\"",
            ),
            (
                StaleCause::Offline,
                "tidegate; hit; detail=stale-offline",
                "299 - \"this node is offline for docker.io; this is its answer of Sun, 06 Nov 1994 08:49:37 GMT\"",
            ),
        ] {
            served.staleness = Some(Staleness { checked_at, cause });
            let mut headers = HeaderMap::new();
            add_provenance(&mut headers, &served);
            assert_eq!(headers[CACHE_STATUS], status);
            assert_eq!(headers[WARNING], warning);
        }
    }

    #[test]
    fn a_warning_is_short_and_well_formed_whatever_the_upstream_is_called() {
        let mut served = served(CacheResult::Stale, true);
        served.upstream = format!("\"\r\n\\é{}", "x".repeat(5000)).into();
        let checked_at = Some(Timestamp::from_millis(0));
        served.staleness = Some(Staleness { checked_at, cause: StaleCause::Trouble("broken") });
        let mut headers = HeaderMap::new();
        add_provenance(&mut headers, &served);
        let value = headers[WARNING].to_str().unwrap();
        assert!(value.starts_with("299 - \"xxx") && value.ends_with('"'));
        assert_eq!(value.len(), 4096);

        served.staleness = Some(Staleness { checked_at, cause: StaleCause::Asking });
        let mut headers = HeaderMap::new();
        add_provenance(&mut headers, &served);
        assert!(!headers.contains_key(WARNING), "nothing is wrong while upstream is being asked");
    }
}
