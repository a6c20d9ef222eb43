//! Who may use the API: whoever shows the token; where there is none, whoever is on this machine.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use http::header::{AUTHORIZATION, FORWARDED, HOST, HeaderMap, HeaderName, ORIGIN, VIA};
use http::uri::Authority;
use http::{StatusCode, Uri};
use ring::hmac;

use super::api::Refusal;
use crate::config::Secret;

/// Decides who may use the API; every handle is for the same server.
#[derive(Clone, Debug, Default)]
pub struct AdminAccess(Arc<ArcSwapOption<hmac::Tag>>);

impl AdminAccess {
    /// Asks for this token from now on, or for none.
    pub fn set_token(&self, token: Option<&Secret>) {
        let sign = |token: &Secret| Arc::new(hmac::sign(&key_of(token.expose().as_bytes()), MESSAGE));
        self.0.store(token.map(sign));
    }

    /// Fails unless the sender of a request may use the API.
    ///
    /// Without a token, that is who is on this machine and no web page that somebody looks at there: a page
    /// of elsewhere shows in `Origin`, and a name of elsewhere that was made to lead here (DNS rebinding) in
    /// `Host`. What a proxy passed on may come from anywhere.
    pub(super) fn require(&self, headers: &HeaderMap, uri: &Uri, client: SocketAddr) -> Result<(), Refusal> {
        match &*self.0.load() {
            Some(expected) => require_token(headers, expected, client),
            None if is_local(headers, uri, client) => Ok(()),
            None => Err(Refusal(StatusCode::FORBIDDEN, NOT_LOCAL.to_owned())),
        }
    }
}

fn require_token(headers: &HeaderMap, expected: &hmac::Tag, client: SocketAddr) -> Result<(), Refusal> {
    let refuse = |reason: &str| Err(Refusal(StatusCode::UNAUTHORIZED, format!("{reason}: {TOKEN_REMEDY}")));
    let mut lines = headers.get_all(AUTHORIZATION).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else {
        return refuse("a token is needed");
    };
    let token = line.as_bytes().split_at_checked(SCHEME.len());
    let Some((_, token)) = token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case(SCHEME)) else {
        return refuse("a token is needed, and Authorization holds none");
    };
    // Compares in constant time, and tells nothing of the length.
    if hmac::verify(&key_of(token.trim_ascii()), MESSAGE, expected.as_ref()).is_ok() {
        return Ok(());
    }
    tracing::warn!(client.address = %client, "a wrong token was shown to the administrator's API");
    refuse("this is not the token")
}

fn key_of(token: &[u8]) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, token)
}

fn is_local(headers: &HeaderMap, uri: &Uri, client: SocketAddr) -> bool {
    let is_forwarded = [FORWARDED, FORWARDED_FOR, VIA].iter().any(|name| headers.contains_key(name));
    let host = match uri.authority() {
        Some(authority) => Some(authority.as_str()),
        None => headers.get(HOST).and_then(|host| host.to_str().ok()),
    };
    let is_named_here = host.is_some_and(is_loopback_name);
    let is_own_page = |origin: &str| origin.strip_prefix("http://") == host;
    let origins = headers.get_all(ORIGIN).iter();
    let is_foreign = origins.into_iter().any(|origin| !origin.to_str().is_ok_and(is_own_page));
    client.ip().to_canonical().is_loopback() && is_named_here && !is_forwarded && !is_foreign
}

/// Whether a host, perhaps with a port, is always this machine itself.
fn is_loopback_name(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let host = authority.host().trim_matches(['[', ']']);
    let is_address = host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback());
    is_address || host.eq_ignore_ascii_case("localhost")
}

/// What is signed by the token: whoever knows the signature does not know the token.
const MESSAGE: &[u8] = b"tidegate administrator's API";

/// How `Authorization` begins (RFC 6750, section 2.1).
const SCHEME: &[u8] = b"bearer ";

const TOKEN_REMEDY: &str = "send the one of server.admin_token or server.admin_token_file as \"Authorization: \
    Bearer TOKEN\" (command line: --token-file, TIDEGATE_TOKEN_FILE or TIDEGATE_TOKEN)";

const NOT_LOCAL: &str = "without a token, this API answers the server's own machine only: over the loopback \
    interface, by a loopback name or address in Host, without a proxy, and no foreign web page. Set \
    server.admin_token_file, and show the token, to use it otherwise";

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
    }

    fn ask(access: &AdminAccess, lines: &[(&'static str, &'static str)], client: &str) -> Option<StatusCode> {
        let uri = Uri::from_static("/api/v1/offline");
        access.require(&headers(lines), &uri, client.parse().unwrap()).err().map(|refusal| refusal.0)
    }

    #[test]
    fn without_a_token_only_the_own_machine_may_ask() {
        let access = AdminAccess::default();
        for (client, may) in [
            ("127.0.0.1:1", true),
            ("127.9.9.9:1", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("10.0.0.1:1", false),
            ("[::ffff:10.0.0.1]:1", false),
            ("[fe80::1]:1", false),
        ] {
            let refused = ask(&access, &[("host", "localhost:5001")], client);
            assert_eq!(refused, (!may).then_some(StatusCode::FORBIDDEN), "{client}");
        }
    }

    #[test]
    fn without_a_token_no_foreign_page_name_or_proxy_may_ask() {
        let access = AdminAccess::default();
        for host in ["127.0.0.1:5001", "LOCALHOST", "[::1]:5001", "127.0.0.2"] {
            assert_eq!(ask(&access, &[("host", host)], "127.0.0.1:1"), None, "{host}");
        }
        for host in ["evil.test:5001", "localhost.evil.test", "10.0.0.1", "", "127.0.0.1.evil.test", "a b"] {
            assert!(ask(&access, &[("host", host)], "127.0.0.1:1").is_some(), "{host}");
        }
        assert!(ask(&access, &[], "127.0.0.1:1").is_some(), "no host at all");
        let own = [("host", "localhost:5001"), ("origin", "http://localhost:5001")];
        assert_eq!(ask(&access, &own, "127.0.0.1:1"), None);
        for (name, value) in [
            ("x-forwarded-for", "127.0.0.1"),
            ("forwarded", "for=127.0.0.1"),
            ("via", "1.1 proxy"),
            ("origin", "http://evil.test"),
            ("origin", "http://localhost:8080"),
            ("origin", "null"),
        ] {
            let lines = [("host", "localhost:5001"), (name, value)];
            assert!(ask(&access, &lines, "127.0.0.1:1").is_some(), "{name}: {value}");
        }
    }

    #[test]
    fn a_token_opens_from_everywhere_and_nothing_else_does() {
        let access = AdminAccess::default();
        access.set_token(Some(&Secret::new("0123456789abcdef")));
        for good in ["Bearer 0123456789abcdef", "bearer  0123456789abcdef "] {
            let lines = [("authorization", good), ("host", "far.test"), ("via", "1.1 proxy")];
            assert_eq!(ask(&access, &lines, "10.0.0.1:1"), None, "{good}");
        }
        for bad in
            ["Bearer 0123456789abcdeg", "Bearer ", "Bearer", "Basic 0123456789abcdef", "0123456789abcdef"]
        {
            let lines = [("authorization", bad), ("host", "localhost")];
            assert_eq!(ask(&access, &lines, "127.0.0.1:1"), Some(StatusCode::UNAUTHORIZED), "{bad}");
        }
        let twice = [("authorization", "Bearer 0123456789abcdef"), ("authorization", "Bearer x")];
        assert_eq!(ask(&access, &twice, "127.0.0.1:1"), Some(StatusCode::UNAUTHORIZED));
        assert_eq!(ask(&access, &[("host", "localhost")], "127.0.0.1:1"), Some(StatusCode::UNAUTHORIZED));
        access.set_token(None);
        assert_eq!(ask(&access, &[("host", "localhost")], "127.0.0.1:1"), None);
    }
}
