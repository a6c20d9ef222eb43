//! The distribution API of repositories that are hosted here: one file a subject.
//!
//! Handlers turn a request into calls of the use cases, and what these return into headers and bodies.

mod blobs;
mod lists;
mod manifests;
mod problem;
mod uploads;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::header::{ACCEPT_RANGES, CONTENT_LENGTH, ETAG, LOCATION};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use http_body::Body;
use http_body_util::BodyStream;

pub(super) use problem::problem_of;

use super::body::ResponseBody;
use super::conditional::names_of;
use super::distribution::{Answer, CONTENT_DIGEST};
use super::gate::Gate;
use super::respond::Problem;
use super::route::{Operation, Route};
use crate::auth::RequestContext;
use crate::oci::{Digest, RepositoryName};
use crate::registry::hosted::{self, Hosting};

/// A request for something in a hosted repository.
pub(super) struct Call<'a> {
    pub(super) hosting: &'a Hosting,
    pub(super) gate: &'a Gate,
    pub(super) context: &'a RequestContext,
    pub(super) repository: &'a RepositoryName,
    pub(super) route: &'a Route,
    pub(super) parts: &'a Parts,
}

impl Call<'_> {
    fn is_head(&self) -> bool {
        self.parts.method == Method::HEAD
    }

    /// What was announced of the body's length, where it was.
    fn body_length(&self) -> Option<u64> {
        self.parts.headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
    }

    /// Where another operation on the repository is, as the client spells it.
    fn location(&self, operation: &Operation) -> Result<HeaderValue, Problem> {
        let path = self.route.location(operation).unwrap_or_default();
        HeaderValue::try_from(path).map_err(|_impossible| Problem::internal("a location is no header".into()))
    }
}

/// Answers a request for a hosted repository.
pub(super) async fn answer<B>(call: &Call<'_>, operation: &Operation, body: &mut B) -> Answer
where
    B: Body<Data = Bytes> + Send + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    match operation {
        Operation::PullManifest(reference) => manifests::pull(call, reference).await,
        Operation::PushManifest(reference) => manifests::push(call, reference, body).await,
        Operation::DeleteManifest(reference) => manifests::delete(call, reference).await,
        Operation::PullBlob(digest) => blobs::pull(call, digest).await,
        Operation::DeleteBlob(digest) => blobs::delete(call, digest).await,
        Operation::ListTags => lists::tags(call).await,
        Operation::ListReferrers(digest) => lists::referrers(call, digest).await,
        Operation::StartUpload => uploads::start(call, stream_of(body)).await,
        Operation::StatUpload(id) => uploads::stat(call, id).await,
        Operation::AppendUpload(id) => uploads::append(call, id, stream_of(body)).await,
        Operation::FinishUpload(id) => uploads::finish(call, id, stream_of(body)).await,
        Operation::CancelUpload(id) => uploads::cancel(call, id).await,
    }
}

/// What a client sends, without trailers.
fn stream_of<B>(body: &mut B) -> hosted::Body<'_>
where
    B: Body<Data = Bytes> + Send + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    BodyStream::new(body)
        .filter_map(|frame| {
            std::future::ready(match frame {
                Ok(frame) => frame.into_data().ok().map(Ok),
                Err(error) => Some(Err(error.into())),
            })
        })
        .boxed()
}

/// An answer without content.
fn empty(status: StatusCode) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::empty());
    *response.status_mut() = status;
    if status != StatusCode::NO_CONTENT {
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    response
}

/// The headers that name content.
fn named(digest: &Digest) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::empty());
    let (name, etag) = names_of(digest);
    let headers = response.headers_mut();
    headers.insert(CONTENT_DIGEST, name);
    headers.insert(ETAG, etag);
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    response
}

/// That content was taken in, and where it is.
fn created(call: &Call<'_>, digest: &Digest, at: &Operation) -> Answer {
    let mut response = empty(StatusCode::CREATED);
    response.headers_mut().insert(LOCATION, call.location(at)?);
    response.headers_mut().insert(CONTENT_DIGEST, names_of(digest).0);
    Ok(response)
}
