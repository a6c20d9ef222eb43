//! What a client is told that may not do what it asked for: status, error, and the challenge that leads it to a token.
//!
//! Clients are particular about challenges. One line, `Bearer` alone, all values quoted; no `error` where no token was
//! shown, `invalid_token` where a new one helps, `insufficient_scope` where one for more does: without that, some repeat
//! the request for ever, and others give up. The realm has the scheme, host and port by which the client came.

use http::header::HOST;
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderValue, StatusCode, Uri};

use super::respond::{Extra, Problem, chain_of};
use super::route::TOKEN_PATH;
use crate::auth::policy::{Action, Refused};
use crate::auth::{AuthenticationError, SERVICE};
use crate::oci::ErrorCode;

/// How a request came to this server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    /// In clear text.
    Clear,
    /// In TLS.
    Tls,
}

/// The URL under which a client reaches this server, without a slash at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origin(String);

impl Origin {
    /// Finds out how the client of a request reaches this server: as `external_url` says; else by the host that it named,
    /// with the scheme that a proxy says it saw. `None` where the client named no host.
    pub(super) fn of(parts: &Parts, external_url: Option<&Uri>, transport: Transport) -> Option<Self> {
        if let Some(url) = external_url {
            return Some(Self(url.to_string().trim_end_matches('/').to_owned()));
        }
        let host = match parts.uri.authority() {
            Some(authority) => authority.as_str(),
            None => parts.headers.get(HOST)?.to_str().ok()?,
        };
        // What is no host, or more than one, does not get into the header.
        let authority = host.parse::<Authority>().ok()?;
        if authority.as_str().contains('@') {
            return None;
        }
        let told = parts.headers.get("x-forwarded-proto").and_then(|value| value.to_str().ok());
        let first = told.and_then(|told| told.split(',').next()).map(str::trim);
        let scheme = match (first, transport) {
            (Some(scheme), _) if scheme.eq_ignore_ascii_case("https") => "https",
            (Some(scheme), _) if scheme.eq_ignore_ascii_case("http") => "http",
            (_, Transport::Tls) => "https",
            (_, Transport::Clear) => "http",
        };
        Some(Self(format!("{scheme}://{authority}")))
    }
}

/// The scope for an action on a repository, by the name as the client spells it.
pub(super) fn scope_of(name: &str, action: Action) -> String {
    let actions = match action {
        Action::Pull | Action::List => "pull",
        Action::Push => "pull,push",
        Action::Delete => "pull,delete",
    };
    format!("repository:{name}:{actions}")
}

/// What a client is told that was refused, with the scope that its request needs where it is about a repository.
pub(super) fn refuse(refused: Refused, origin: Option<&Origin>, scope: Option<&str>) -> Problem {
    let text = refused.to_string();
    let unauthorized = |error: Option<&str>| Problem {
        extra: Extra::Challenge(bearer(origin, scope, error)),
        ..Problem::new(StatusCode::UNAUTHORIZED, ErrorCode::Unauthorized, "unauthorized", text.clone())
    };
    match refused {
        Refused::Unauthenticated | Refused::WrongCredentials => unauthorized(None),
        Refused::InvalidToken => unauthorized(Some("invalid_token")),
        Refused::InsufficientScope => unauthorized(Some("insufficient_scope")),
        Refused::Denied => Problem::new(StatusCode::FORBIDDEN, ErrorCode::Denied, "denied", text),
        Refused::TooManyAttempts { wait } => Problem {
            extra: Extra::RetryAfter(wait),
            ..Problem::new(StatusCode::TOO_MANY_REQUESTS, ErrorCode::TooManyRequests, "attempts", text)
        },
    }
}

/// The same where it is not known who the client is.
pub(super) fn fail(error: &AuthenticationError, origin: Option<&Origin>, scope: Option<&str>) -> Problem {
    match error {
        AuthenticationError::Refused(refused) => refuse(*refused, origin, scope),
        AuthenticationError::Accounts(_) | AuthenticationError::Password(_) if error.is_transient() => {
            let message = "this server cannot read its accounts just now: try again";
            let status = StatusCode::SERVICE_UNAVAILABLE;
            let problem = Problem::new(status, ErrorCode::Unavailable, "accounts", message);
            Problem { extra: Extra::RetryAfter(RETRY_AFTER), causes: Some(chain_of(error)), ..problem }
        }
        AuthenticationError::Accounts(_) | AuthenticationError::Password(_) => {
            Problem::internal(chain_of(error))
        }
    }
}

/// The value of `WWW-Authenticate` (RFC 6750, section 3, and distribution's token specification).
fn bearer(origin: Option<&Origin>, scope: Option<&str>, error: Option<&str>) -> HeaderValue {
    // Who named no host can still show a password.
    let Some(Origin(origin)) = origin else { return BASIC };
    let realm = format!("{origin}{TOKEN_PATH}");
    let values =
        [("realm", Some(realm.as_str())), ("service", Some(SERVICE)), ("scope", scope), ("error", error)];
    let given = values.into_iter().filter_map(|(name, value)| Some((name, value?)));
    // A name that would end the quotes is none of a repository.
    let good = given.filter(|(_, value)| !value.contains(['"', '\\']));
    let quoted: Vec<_> = good.map(|(name, value)| format!("{name}=\"{value}\"")).collect();
    let text = format!("Bearer {}", quoted.join(","));
    HeaderValue::try_from(text).unwrap_or(BASIC)
}

/// What leads to no token: for the endpoint that issues them.
pub(super) const BASIC: HeaderValue = HeaderValue::from_static("Basic realm=\"tidegate\"");

/// How long a database that is away may be.
const RETRY_AFTER: std::time::Duration = std::time::Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::Request;

    use super::*;

    /// A request to `uri`, with headers.
    fn parts(uri: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn origin(uri: &str, headers: &[(&str, &str)], transport: Transport) -> Option<String> {
        Origin::of(&parts(uri, headers), None, transport).map(|origin| origin.0)
    }

    #[test]
    fn the_realm_is_where_the_client_came_to() {
        use Transport::{Clear, Tls};
        let host = ("host", "reg.example:5000");
        for (uri, headers, transport, expected) in [
            ("/v2/", &[host][..], Clear, Some("http://reg.example:5000")),
            ("/v2/", &[host], Tls, Some("https://reg.example:5000")),
            ("/v2/", &[host, ("x-forwarded-proto", "https")], Clear, Some("https://reg.example:5000")),
            ("/v2/", &[host, ("x-forwarded-proto", "HTTPS, http")], Clear, Some("https://reg.example:5000")),
            ("/v2/", &[host, ("x-forwarded-proto", "ftp")], Tls, Some("https://reg.example:5000")),
            ("/v2/", &[("host", "[::1]:5000")], Clear, Some("http://[::1]:5000")),
            ("http://other.example/v2/", &[host], Clear, Some("http://other.example")),
            ("/v2/", &[], Clear, None),
            ("/v2/", &[("host", "a\",error=\"x")], Clear, None),
            ("/v2/", &[("host", "evil@reg.example")], Clear, None),
        ] {
            assert_eq!(origin(uri, headers, transport).as_deref(), expected, "{uri} {headers:?}");
        }
        let url: Uri = "https://reg.example/base/".parse().unwrap();
        let external = Origin::of(&parts("/v2/", &[host]), Some(&url), Clear).unwrap();
        assert_eq!(external.0, "https://reg.example/base");
    }

    #[test]
    fn each_refusal_has_its_status_and_challenge() {
        let origin = Origin("https://reg.example".to_owned());
        let wait = Duration::from_secs(3);
        let base = "Bearer realm=\"https://reg.example/token\",service=\"tidegate\"";
        let scope = "scope=\"repository:reg.example/team/app:pull,push\"";
        for (refused, status, challenge) in [
            (Refused::Unauthenticated, 401, Some(format!("{base},{scope}"))),
            (Refused::WrongCredentials, 401, Some(format!("{base},{scope}"))),
            (Refused::InvalidToken, 401, Some(format!("{base},{scope},error=\"invalid_token\""))),
            (Refused::InsufficientScope, 401, Some(format!("{base},{scope},error=\"insufficient_scope\""))),
            (Refused::Denied, 403, None),
            (Refused::TooManyAttempts { wait }, 429, None),
        ] {
            let needed = scope_of("reg.example/team/app", Action::Push);
            let response = refuse(refused, Some(&origin), Some(&needed)).into_response();
            assert_eq!(response.status(), status, "{refused:?}");
            let found = response.headers().get("www-authenticate").map(|value| value.to_str().unwrap());
            assert_eq!(found, challenge.as_deref(), "{refused:?}");
            let retry_after = response.headers().get("retry-after");
            assert_eq!(retry_after.is_some(), status == 429, "{refused:?}");
        }
        let ping = refuse(Refused::Unauthenticated, Some(&origin), None).into_response();
        assert_eq!(ping.headers()["www-authenticate"], base);
        let lost = refuse(Refused::Unauthenticated, None, None).into_response();
        assert_eq!(lost.headers()["www-authenticate"], "Basic realm=\"tidegate\"");
    }

    #[test]
    fn a_name_cannot_end_the_quotes() {
        let origin = Origin("https://reg.example".to_owned());
        let scope = scope_of("a\",error=\"x", Action::Pull);
        let response = refuse(Refused::Unauthenticated, Some(&origin), Some(&scope)).into_response();
        let challenge = response.headers()["www-authenticate"].to_str().unwrap();
        assert_eq!(challenge, "Bearer realm=\"https://reg.example/token\",service=\"tidegate\"");
    }

    #[test]
    fn accounts_that_cannot_be_read_are_no_401() {
        let error = crate::auth::PasswordError::Unreadable;
        let problem = fail(&AuthenticationError::Password(error), None, None);
        assert_eq!((problem.status.as_u16(), problem.causes.is_some()), (500, true));
    }
}
