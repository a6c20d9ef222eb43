//! From an error to what a client is told: status, OCI error JSON, headers.
//!
//! Only what does not exist is a 404; the classes of upstream's faults stay apart (400, 403, 429,
//! 502, 504), because clients treat each in their own way.

use std::borrow::Cow;
use std::time::Duration;

use http::header::{ALLOW, CONTENT_RANGE, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, Response, StatusCode};

use super::body::ResponseBody;
use super::ranges::{self, Refusal};
use super::route::RouteError;
use crate::blobs::BlobError;
use crate::blobs::hosted::HostedError;
use crate::oci::ErrorCode;
use crate::registry::RegistryError;
use crate::upstream::UpstreamError;

/// An error as a client is told it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    pub(super) code: ErrorCode,
    pub(super) message: Cow<'static, str>,
    /// Further headers.
    pub(super) extra: Extra,
    /// The class of the error in the log.
    pub(super) class: &'static str,
    /// What is logged and not told: the chain of causes of a fault of this node.
    pub(super) causes: Option<String>,
}

/// A header that an error has beyond the usual ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Extra {
    None,
    RetryAfter(Duration),
    /// Only GET and HEAD are allowed.
    Allow,
    /// What the client has to show, and where it gets it.
    Challenge(HeaderValue),
    /// The size of content of which no requested range exists.
    UnsatisfiedRange(u64),
    /// Headers as they are.
    Headers(Vec<(HeaderName, HeaderValue)>),
}

/// What the log is told of an answer that is an error; travels with the response.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    pub(super) class: &'static str,
    pub(super) text: Cow<'static, str>,
}

/// Clients wait as long as they are told before they try anything else, so they are told little.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(5);

const SHORTEST_RETRY_AFTER: Duration = Duration::from_secs(1);

impl Problem {
    /// An error of the client's, or of no class of its own.
    pub(super) fn new(
        status: StatusCode,
        code: ErrorCode,
        class: &'static str,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { status, code, message: message.into(), extra: Extra::None, class, causes: None }
    }

    /// That only reading is supported here.
    pub(super) fn read_only() -> Self {
        let message = "this is a cache of upstream registries: it is read-only";
        let problem =
            Self::new(StatusCode::METHOD_NOT_ALLOWED, ErrorCode::Unsupported, "unsupported", message);
        Self { extra: Extra::Allow, ..problem }
    }

    /// That a range request is refused, of content of `size_bytes`.
    pub(super) fn range(refusal: Refusal, size_bytes: u64) -> Self {
        match refusal {
            Refusal::TooMuch => Self::too_many_ranges(),
            Refusal::Unsatisfiable => {
                let message = format!("no requested range lies within the {size_bytes} bytes of the content");
                let status = StatusCode::RANGE_NOT_SATISFIABLE;
                let problem = Self::new(status, ErrorCode::RangeInvalid, "range", message);
                Self { extra: Extra::UnsatisfiedRange(size_bytes), ..problem }
            }
        }
    }

    /// That a request has more ranges than are answered.
    pub(super) fn too_many_ranges() -> Self {
        let message = "too many or overlapping ranges in one request: ask for fewer";
        Self::new(StatusCode::BAD_REQUEST, ErrorCode::RangeInvalid, "range", message)
    }

    /// That this node failed in a way that it did not expect.
    pub(super) fn internal(causes: String) -> Self {
        let message = "this server failed; its log says why";
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Self { causes: Some(causes), ..Self::new(status, ErrorCode::Unknown, "internal", message) }
    }

    /// That content which was taken in here is not there any more.
    pub(super) fn lost() -> Self {
        let message = "this server has lost the content; its log says more";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, ErrorCode::Unknown, "lost", message)
    }

    pub(super) fn with_causes(self, error: &dyn std::error::Error) -> Self {
        Self { causes: Some(chain_of(error)), ..self }
    }

    /// The response; a client's HEAD has its body taken away by the dispatcher.
    pub(super) fn into_response(self) -> Response<ResponseBody> {
        let body = serde_json::json!({
            "errors": [{ "code": self.code.as_str(), "message": &self.message }]
        });
        let mut response = Response::new(ResponseBody::whole(body.to_string()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        match self.extra {
            Extra::None => {}
            Extra::RetryAfter(pause) => {
                let seconds = pause.clamp(SHORTEST_RETRY_AFTER, LONGEST_RETRY_AFTER).as_secs();
                headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
            }
            Extra::Allow => {
                headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            }
            Extra::Headers(lines) => headers.extend(lines),
            Extra::Challenge(challenge) => {
                headers.insert(WWW_AUTHENTICATE, challenge);
            }
            Extra::UnsatisfiedRange(size_bytes) => {
                headers.insert(CONTENT_RANGE, ranges::unsatisfied_range(size_bytes));
            }
        }
        response.extensions_mut().insert(Fault { class: self.class, text: self.message });
        response
    }
}

impl From<RegistryError> for Problem {
    fn from(error: RegistryError) -> Self {
        use {ErrorCode as Code, StatusCode as Status};
        let client = |status, code, class| Self::new(status, code, class, error.to_string());
        match &error {
            RegistryError::UnknownRegistry(_) | RegistryError::NoDefaultRegistry => {
                client(Status::NOT_FOUND, Code::NameUnknown, "unknown registry")
            }
            RegistryError::NameInvalid(_) => client(Status::BAD_REQUEST, Code::NameInvalid, "name"),
            RegistryError::Excluded(_) => client(Status::FORBIDDEN, Code::Denied, "excluded"),
            RegistryError::ManifestUnknown(_) => client(Status::NOT_FOUND, Code::ManifestUnknown, "absent"),
            RegistryError::BlobUnknown(_) => client(Status::NOT_FOUND, Code::BlobUnknown, "absent"),
            RegistryError::NameUnknown(_) => client(Status::NOT_FOUND, Code::NameUnknown, "absent"),
            RegistryError::ReadOnly(_) => Self::read_only(),
            RegistryError::Denied(source) => of_upstream(Status::FORBIDDEN, Code::Denied, source),
            RegistryError::Throttled { retry_after, source } => Self {
                extra: Extra::RetryAfter(retry_after.unwrap_or(LONGEST_RETRY_AFTER)),
                ..of_upstream(Status::TOO_MANY_REQUESTS, Code::TooManyRequests, source)
            },
            RegistryError::UpstreamBroken(source) => {
                of_upstream(Status::BAD_GATEWAY, Code::Unavailable, source)
            }
            RegistryError::UpstreamUnreachable(source) => {
                of_upstream(Status::GATEWAY_TIMEOUT, Code::Unavailable, source)
            }
            RegistryError::Offline { .. } => client(Status::GATEWAY_TIMEOUT, Code::Unavailable, "offline"),
            RegistryError::Metadata(source) => {
                of_store("metadata", source.is_transient(), "this server's index failed").with_causes(&error)
            }
            RegistryError::Blobs(source) => {
                let is_full = matches!(**source, BlobError::Full { .. });
                of_store("blobs", is_full, "this server's disk failed").with_causes(&error)
            }
            RegistryError::HostedStore(source) if matches!(**source, HostedError::Unkept { .. }) => {
                Self::lost().with_causes(&error)
            }
            RegistryError::HostedStore(source) => {
                of_store("store", source.is_transient(), "this server's object store failed")
                    .with_causes(&error)
            }
            RegistryError::Internal => Self::internal(chain_of(&error)),
        }
    }
}

impl From<RouteError> for Problem {
    fn from(error: RouteError) -> Self {
        let extra = if error.allow().is_some() { Extra::Allow } else { Extra::None };
        Self { extra, ..Self::new(error.status(), error.code(), "route", error.to_string()) }
    }
}

/// Upstream's errors are written to be shown.
fn of_upstream(status: StatusCode, code: ErrorCode, source: &UpstreamError) -> Problem {
    Problem::new(status, code, source.kind(), source.to_string())
}

/// That a store of this server failed, and whether that may pass by itself.
pub(super) fn of_store(class: &'static str, may_pass: bool, message: &'static str) -> Problem {
    if may_pass {
        let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Unavailable, class, message);
        Problem { extra: Extra::RetryAfter(SHORTEST_RETRY_AFTER), ..problem }
    } else {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, ErrorCode::Unknown, class, message)
    }
}

/// The error and its causes in one line.
pub(super) fn chain_of(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http_body_util::BodyExt as _;

    use super::*;

    fn upstream(name: &str) -> UpstreamError {
        UpstreamError::Broken { upstream: name.into(), reason: "502".into() }
    }

    fn throttled(seconds: Option<u64>) -> RegistryError {
        let retry_after = seconds.map(Duration::from_secs);
        let source = UpstreamError::Throttled { upstream: "docker.io".into(), retry_after };
        RegistryError::Throttled { retry_after, source }
    }

    #[test]
    fn each_class_of_error_has_its_own_status_and_code() {
        let digest = crate::oci::Digest::of(crate::oci::Algorithm::Sha256, b"");
        let context = crate::auth::RequestContext::anonymous(crate::auth::RequestId::random());
        let read_only =
            crate::auth::policy::require(&context, crate::auth::policy::Action::Push).unwrap_err();
        let full = BlobError::Full { action: "write blob", source: std::io::Error::other("x") };
        let io = BlobError::Io { action: "open blob", source: std::io::Error::other("x") };
        let unreadable = crate::metadata::MetadataError::Unreadable { column: "digest" };
        let cases = [
            (RegistryError::UnknownRegistry("x.test".into()), 404, "NAME_UNKNOWN"),
            (RegistryError::NoDefaultRegistry, 404, "NAME_UNKNOWN"),
            (RegistryError::NameInvalid("bad".into()), 400, "NAME_INVALID"),
            (RegistryError::Excluded("a/b".into()), 403, "DENIED"),
            (RegistryError::ManifestUnknown("latest".into()), 404, "MANIFEST_UNKNOWN"),
            (RegistryError::BlobUnknown(digest), 404, "BLOB_UNKNOWN"),
            (RegistryError::NameUnknown("a".into()), 404, "NAME_UNKNOWN"),
            (RegistryError::Denied(upstream("a")), 403, "DENIED"),
            (throttled(None), 429, "TOOMANYREQUESTS"),
            (RegistryError::UpstreamBroken(upstream("a")), 502, "UNAVAILABLE"),
            (RegistryError::UpstreamUnreachable(upstream("a")), 504, "UNAVAILABLE"),
            (
                RegistryError::Offline {
                    missing: "blob x".into(),
                    source: UpstreamError::Offline { upstream: "a".into() },
                },
                504,
                "UNAVAILABLE",
            ),
            (RegistryError::ReadOnly(read_only), 405, "UNSUPPORTED"),
            (RegistryError::Metadata(Arc::new(unreadable)), 500, "UNKNOWN"),
            (RegistryError::Blobs(Arc::new(full)), 503, "UNAVAILABLE"),
            (RegistryError::Blobs(Arc::new(io)), 500, "UNKNOWN"),
            (RegistryError::HostedStore(Arc::new(HostedError::TimedOut { action: "x" })), 503, "UNAVAILABLE"),
            (
                RegistryError::HostedStore(Arc::new(HostedError::Unkept { digest: Box::new(digest) })),
                500,
                "UNKNOWN",
            ),
            (RegistryError::Internal, 500, "UNKNOWN"),
        ];
        for (error, status, code) in cases {
            let text = error.to_string();
            let problem = Problem::from(error);
            assert_eq!((problem.status.as_u16(), problem.code.as_str()), (status, code), "{text}");
        }
    }

    #[tokio::test]
    async fn the_body_is_oci_error_json() {
        let response = Problem::from(RegistryError::ManifestUnknown("3\"x".into())).into_response();
        assert_eq!(response.headers()["content-type"], "application/json");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let expected =
            r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest 3\"x is unknown upstream"}]}"#;
        assert_eq!(body, expected);
    }

    #[test]
    fn clients_are_never_told_to_wait_long() {
        for (told, expected) in [(None, "5"), (Some(0), "1"), (Some(3), "3"), (Some(3600), "5")] {
            let response = Problem::from(throttled(told)).into_response();
            assert_eq!(response.headers()["retry-after"], expected);
        }
    }

    #[test]
    fn what_a_store_says_is_logged_and_not_told() {
        let io = BlobError::Io { action: "open blob", source: std::io::Error::other("/secret/path") };
        let problem = Problem::from(RegistryError::Blobs(Arc::new(io)));
        assert!(!problem.message.contains("secret"));
        assert!(problem.causes.unwrap().contains("/secret/path"));
    }

    #[test]
    fn refused_methods_and_ranges_name_what_is_possible() {
        assert_eq!(Problem::read_only().into_response().headers()["allow"], "GET, HEAD");
        let response = Problem::range(Refusal::Unsatisfiable, 7).into_response();
        assert_eq!(response.status(), 416);
        assert_eq!(response.headers()["content-range"], "bytes */7");
        assert_eq!(Problem::range(Refusal::TooMuch, 7).status, 400);
    }
}
