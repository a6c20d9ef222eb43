//! Redirects: which are followed, and where to (RFC 9110, section 15.4; RFC 3986, section 5).
//!
//! Pure. Whether the target's address may be connected to is the guard's to say.

use http::{StatusCode, Uri};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::origin::Origin;

/// The most redirects followed for one request.
pub(super) const MAX_REDIRECTS: usize = 5;

/// Why a redirect is not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    /// There is no `Location`, or it is no URL of `http` or `https`.
    #[error("it redirects to nowhere that can be asked")]
    Malformed,
    /// From https to http.
    #[error("it redirects from https to http")]
    Downgrade,
    /// More than [`MAX_REDIRECTS`] in a row.
    #[error("it redirects more than {MAX_REDIRECTS} times")]
    TooMany,
}

/// Whether the status asks to look elsewhere.
pub(super) fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Where a redirect leads from `current`, the one after `followed` others.
pub(super) fn resolve(current: &Uri, location: Option<&str>, followed: usize) -> Result<Uri, Refused> {
    if followed >= MAX_REDIRECTS {
        return Err(Refused::TooMany);
    }
    let target = location.and_then(|location| join(current, location)).ok_or(Refused::Malformed)?;
    let from = Origin::of(current).ok_or(Refused::Malformed)?;
    let to = Origin::of(&target).ok_or(Refused::Malformed)?;
    if from.secure && !to.secure { Err(Refused::Downgrade) } else { Ok(target) }
}

/// Resolves a reference against the URL that it was found at.
fn join(base: &Uri, reference: &str) -> Option<Uri> {
    let reference = reference.trim();
    let reference = reference.split_once('#').map_or(reference, |(before, _)| before);
    let reference = utf8_percent_encode(reference, NOT_IN_A_URL).to_string();
    let scheme = base.scheme_str()?;
    let authority = base.authority()?;
    if has_scheme(&reference) {
        return reference.parse().ok();
    }
    if reference.starts_with("//") {
        return format!("{scheme}:{reference}").parse().ok();
    }
    let (path, query) = match reference.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (reference.as_str(), None),
    };
    let (path, query) = if path.is_empty() {
        (base.path().to_owned(), query.or_else(|| base.query()))
    } else if path.starts_with('/') {
        (without_dots(path), query)
    } else {
        let folder = base.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        (without_dots(&format!("{folder}/{path}")), query)
    };
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    format!("{scheme}://{authority}{path}{query}").parse().ok()
}

/// Whether a reference begins with `scheme:` (RFC 3986, section 3.1).
fn has_scheme(reference: &str) -> bool {
    reference.split_once(':').is_some_and(|(scheme, _)| {
        scheme.starts_with(|letter: char| letter.is_ascii_alphabetic())
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
    })
}

/// Removes `.` and `..` segments (RFC 3986, section 5.2.4).
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                if is_last {
                    kept.push("");
                }
            }
            _ => kept.push(segment),
        }
    }
    format!("/{}", kept.join("/"))
}

/// Bytes that no URL has; servers send them nevertheless. A `%` stays: what is signed stays as it is.
const NOT_IN_A_URL: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'<')
    .add(b'>')
    .add(b'\\')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: &str = "https://registry.example.com/v2/a/blobs/sha256:1?x=y";

    #[test]
    fn targets_are_resolved_like_any_reference() {
        for (location, expected) in [
            ("https://cdn.example.net/b?sig=a%2Fb%3D", "https://cdn.example.net/b?sig=a%2Fb%3D"),
            ("//cdn.example.net/b", "https://cdn.example.net/b"),
            ("/artifacts-downloads/n/x?y=1", "https://registry.example.com/artifacts-downloads/n/x?y=1"),
            ("other", "https://registry.example.com/v2/a/blobs/other"),
            ("../../b/./c/..", "https://registry.example.com/v2/b/"),
            ("../../../../../etc", "https://registry.example.com/etc"),
            ("?z=1", "https://registry.example.com/v2/a/blobs/sha256:1?z=1"),
            ("/a b#fragment", "https://registry.example.com/a%20b"),
            ("/ä", "https://registry.example.com/%C3%A4"),
            ("https://registry.example.com:8443/", "https://registry.example.com:8443/"),
        ] {
            let target = resolve(&HERE.parse().unwrap(), Some(location), 0);
            assert_eq!(target.map(|target| target.to_string()), Ok(expected.to_owned()), "{location}");
        }
    }

    #[test]
    fn what_is_not_followed_says_why() {
        let cases = [
            (HERE, Some("http://registry.example.com/"), 0, Refused::Downgrade),
            (HERE, Some("/again"), MAX_REDIRECTS, Refused::TooMany),
            (HERE, None, 0, Refused::Malformed),
            (HERE, Some("ftp://host/x"), 0, Refused::Malformed),
            (HERE, Some("file:///etc/passwd"), 0, Refused::Malformed),
            (HERE, Some("javascript:alert(1)"), 0, Refused::Malformed),
            (HERE, Some("https://user:pass@host/"), 0, Refused::Malformed),
            (HERE, Some("https://"), 0, Refused::Malformed),
        ];
        for (current, location, followed, expected) in cases {
            assert_eq!(resolve(&current.parse().unwrap(), location, followed), Err(expected), "{location:?}");
        }
        let upgrade = resolve(&"http://host/".parse().unwrap(), Some("https://host/"), MAX_REDIRECTS - 1);
        assert!(upgrade.is_ok());
    }

    #[test]
    fn only_redirects_with_a_target_are_redirects() {
        for status in [301, 302, 303, 307, 308] {
            assert!(is_redirect(StatusCode::from_u16(status).unwrap()));
        }
        for status in [200, 300, 304, 305, 306, 401, 404] {
            assert!(!is_redirect(StatusCode::from_u16(status).unwrap()));
        }
    }

    #[test]
    fn no_location_makes_the_parser_panic_or_leave_the_web() {
        let here: Uri = HERE.parse().unwrap();
        bolero::check!().for_each(|input: &[u8]| {
            let location = String::from_utf8_lossy(input);
            if let Ok(target) = resolve(&here, Some(&location), 0) {
                assert_eq!(target.scheme_str(), Some("https"));
                assert!(!target.authority().unwrap().as_str().contains('@'));
            }
        });
    }
}
