//! `/v2/<name>/blobs/<digest>`

use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use http::{HeaderValue, StatusCode};

use super::{Call, empty, named};
use crate::oci::Digest;
use crate::server::body::{ResponseBody, hosted_pieces};
use crate::server::conditional::{names_digest, requested_ranges};
use crate::server::distribution::{Answer, BLOB_TYPE, answer_ranges, content_headers, not_modified};
use crate::server::metrics::ContentLabel;
use crate::server::respond::Problem;
use crate::server::transmit::Outbox;

/// Answers GET and HEAD.
pub(super) async fn pull(call: &Call<'_>, digest: &Digest) -> Answer {
    let headers = &call.parts.headers;
    let is_known = names_digest(headers, digest);
    if is_known || call.is_head() {
        let found = call.hosting.stat_blob(call.context, call.repository, digest).await;
        let found = found.map_err(|error| call.problem(error))?;
        let mut response = named(digest);
        if is_known {
            return Ok(not_modified(response));
        }
        response.headers_mut().insert(CONTENT_TYPE, BLOB_TYPE);
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(found.size_bytes));
        return Ok(response);
    }
    let redirect = call.hosting.find_redirect(call.context, call.repository, digest).await;
    if let Some(url) = redirect.map_err(|error| call.problem(error))? {
        return redirect_to(&url, digest);
    }
    let ranges = requested_ranges(&call.parts.method, headers, digest)
        .map_err(|_too_many| Problem::too_many_ranges())?;
    let content = call.hosting.open_blob(call.context, call.repository, digest, ranges.as_ref()).await;
    let content = content.map_err(|error| call.problem(error))?;
    let size_bytes = content.size_bytes();
    let mut response = match content.served() {
        Some(served) => content_headers(digest, ContentLabel::Blob, served),
        None => named(digest),
    };
    response.headers_mut().insert(CONTENT_TYPE, BLOB_TYPE);
    let outbox = call.parts.extensions.get::<Outbox>().cloned();
    let read = move |range| {
        let (content, outbox) = (content.clone(), outbox.clone());
        async move { Ok(hosted_pieces(content.read(range).await?, outbox)) }
    };
    if let Some(ranges) = ranges {
        return answer_ranges(response, read, &ranges, size_bytes).await;
    }
    let pieces = read(0..size_bytes).await?;
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(size_bytes));
    Ok(response.map(|_empty| ResponseBody::stream(pieces, Some(size_bytes))))
}

/// Sends the client to the store. The URL is for this client and for a short time: nobody may keep it.
fn redirect_to(url: &str, digest: &Digest) -> Answer {
    let mut response = named(digest);
    *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    let url = HeaderValue::try_from(url)
        .map_err(|_impossible| Problem::internal("the store's URL is no header".into()))?;
    let headers = response.headers_mut();
    headers.insert(LOCATION, url);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    Ok(response)
}

/// Answers DELETE.
pub(super) async fn delete(call: &Call<'_>, digest: &Digest) -> Answer {
    let deleted = call.hosting.delete_blob(call.context, call.repository, digest).await;
    deleted.map_err(|error| call.problem(error))?;
    Ok(empty(StatusCode::ACCEPTED))
}
