//! The OCI distribution API, `/v2/`: one file an endpoint.
//!
//! Handlers turn a request into calls of the registry's use cases, and what these return into
//! headers and bodies. GET and HEAD take the same path, so that their headers agree.

mod base;
mod blobs;
mod catalog;
mod manifests;
mod referrers;
mod tags;
mod unsupported;

use std::ops::Range;

use bytes::Bytes;
use http::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap, LINK};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Response, StatusCode};

pub(super) use base::answer_base;
pub(super) use blobs::{BLOB_TYPE, answer_blob, answer_ranges};
pub(super) use catalog::answer_catalog;
pub(super) use manifests::{answer_manifest, body_response, head_response, type_header};
pub(super) use referrers::answer_referrers;
pub(super) use tags::answer_tags;
pub(super) use unsupported::drain;

use super::body::ResponseBody;
use super::conditional::names_of;
use super::exchange::Outcome;
use super::metrics::ContentLabel;
use super::provenance::add_provenance;
use super::respond::Problem;
use super::route::Route;
use crate::auth::RequestContext;
use crate::oci::Digest;
use crate::registry::{Registry, Repository, Served};

/// What a handler comes back with.
pub(super) type Answer = Result<Response<ResponseBody>, Problem>;

/// A request for something in a repository.
pub(super) struct Call<'a> {
    pub(super) registry: &'a Registry,
    pub(super) context: &'a RequestContext,
    pub(super) repository: &'a Repository,
    /// The repository's name as the client spelled it, percent-decoded.
    pub(super) name: &'a str,
    pub(super) route: &'a Route,
    pub(super) parts: &'a Parts,
}

impl Call<'_> {
    fn is_head(&self) -> bool {
        self.parts.method == Method::HEAD
    }
}

/// `Docker-Content-Digest`
pub(super) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// As many headers as an answer with content usually has: the map grows once.
const USUAL_HEADERS: usize = 12;

/// The headers that name content: its digest, twice, and how it was come by.
pub(super) fn content_headers(
    digest: &Digest,
    kind: ContentLabel,
    served: &Served,
) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::empty());
    let headers = response.headers_mut();
    headers.reserve(USUAL_HEADERS);
    let (name, etag) = names_of(digest);
    headers.insert(CONTENT_DIGEST, name);
    headers.insert(ETAG, etag);
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    add_provenance(headers, served);
    response.extensions_mut().insert(Outcome::new(kind, served));
    response
}

/// That the client has the content already (RFC 9110, section 15.4.5).
pub(super) fn not_modified(mut response: Response<ResponseBody>) -> Response<ResponseBody> {
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    response.headers_mut().remove(ACCEPT_RANGES);
    response
}

/// Makes a response a 206 with one part.
fn set_single_part(response: &mut Response<ResponseBody>, range: &Range<u64>, size_bytes: u64) {
    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    let headers = response.headers_mut();
    headers.insert(CONTENT_RANGE, super::ranges::content_range(range, size_bytes));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(range.end - range.start));
}

pub(super) fn set_json(headers: &mut HeaderMap, json: &'static str) {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(json));
}

/// A JSON answer that is at hand.
pub(super) fn json_response(json: impl Into<Bytes>) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::whole(json));
    set_json(response.headers_mut(), "application/json");
    response
}

/// Adds the link to the next page (RFC 8288), in the client's own spelling of this one.
pub(super) fn add_next_link(headers: &mut HeaderMap, route: &Route, next: &[(String, String)]) {
    let link = format!("<{}>; rel=\"next\"", route.link(next));
    // The link is percent-encoded, so it always is a header value.
    if let Ok(value) = HeaderValue::try_from(link) {
        headers.insert(LINK, value);
    }
}

/// The value of `n`, where it is a number.
pub(super) fn limit_of(route: &Route) -> Option<u64> {
    route.parameter("n")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(path: &str, query: &str) -> Route {
        crate::server::route::parse(&Method::GET, path, Some(query)).unwrap()
    }

    #[test]
    fn the_link_keeps_the_clients_spelling() {
        let next = [("last", "v 1"), ("n", "2")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        let mut headers = HeaderMap::new();
        add_next_link(&mut headers, &route("/docker.io/v2/a/b/tags/list", "n=2&ns=reg%3A5000"), &next);
        let expected = "</docker.io/v2/a/b/tags/list?last=v%201&n=2&ns=reg:5000>; rel=\"next\"";
        assert_eq!(headers[LINK], expected);
    }

    #[test]
    fn a_limit_is_a_number_or_nothing() {
        for (query, expected) in [("n=10000", Some(10_000)), ("n=0", Some(0)), ("n=-1", None), ("x", None)] {
            assert_eq!(limit_of(&route("/v2/a/tags/list", query)), expected);
        }
    }
}
