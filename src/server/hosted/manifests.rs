//! `/v2/<name>/manifests/<reference>`

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderValue, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use super::{Call, created, empty, named};
use crate::oci::{ErrorCode, MediaType, Reference, Tag};
use crate::registry::hosted::{HostingError, MAX_MANIFEST_BYTES, ManifestBody};
use crate::server::conditional::{names_digest, requested_ranges};
use crate::server::distribution::{Answer, body_response, head_response, not_modified, type_header};
use crate::server::respond::Problem;
use crate::server::route::Operation;

/// Answers GET and HEAD.
pub(super) async fn pull(call: &Call<'_>, reference: &Reference) -> Answer {
    let headers = &call.parts.headers;
    let manifest = call.hosting.pull_manifest(call.context, call.repository, reference).await;
    let manifest = manifest.map_err(|error| call.problem(error))?;
    let response = named(&manifest.digest);
    if names_digest(headers, &manifest.digest) {
        return Ok(not_modified(response));
    }
    let content_type = type_header(&manifest.media_type)?;
    if call.is_head() {
        return Ok(head_response(response, content_type, manifest.payload.len() as u64));
    }
    let ranges = requested_ranges(&call.parts.method, headers, &manifest.digest)
        .map_err(|_too_many| Problem::too_many_ranges())?;
    body_response(response, &content_type, manifest.payload, ranges.as_ref())
}

/// Answers PUT. The tags of a manifest that is pushed by digest are parameters: `?tag=1&tag=1.2`.
pub(super) async fn push<B>(call: &Call<'_>, reference: &Reference, body: &mut B) -> Answer
where
    B: Body<Data = Bytes> + Send + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let tags = call.route.query.iter().filter(|(name, _)| name == "tag").map(|(_, tag)| tag.parse());
    let tags = tags.collect::<Result<Vec<Tag>, _>>().map_err(|error| {
        Problem::new(StatusCode::BAD_REQUEST, ErrorCode::TagInvalid, "tag", format!("{error}"))
    })?;
    let further: Vec<Tag> = tags.clone();
    let payload = read_manifest(call, body).await.map_err(|error| call.problem(error))?;
    let media_type = call.parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let body = ManifestBody { media_type: media_type.and_then(MediaType::parse), payload };
    let pushed = call.hosting.push_manifest(call.context, call.repository, reference, further, body).await;
    let pushed = pushed.map_err(|error| call.problem(error))?;
    let at = Operation::PullManifest(Reference::Digest(pushed.digest));
    let mut response = created(call, &pushed.digest, &at)?;
    if let Some(subject) = pushed.subject.and_then(|subject| HeaderValue::try_from(subject.to_string()).ok())
    {
        response.headers_mut().insert(OCI_SUBJECT, subject);
    }
    for tag in &tags {
        if let Ok(tag) = HeaderValue::from_str(tag.as_str()) {
            response.headers_mut().append(OCI_TAG, tag);
        }
    }
    Ok(response)
}

/// Answers DELETE: of a tag, or of a manifest with its tags.
pub(super) async fn delete(call: &Call<'_>, reference: &Reference) -> Answer {
    let deleted = call.hosting.delete_manifest(call.context, call.repository, reference).await;
    deleted.map_err(|error| call.problem(error))?;
    Ok(empty(StatusCode::ACCEPTED))
}

/// Reads a whole manifest, and no more than one may be. Whether the actor may push at all is asked before.
async fn read_manifest<B>(call: &Call<'_>, body: &mut B) -> Result<Bytes, HostingError>
where
    B: Body<Data = Bytes> + Send + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    call.hosting.require_push(call.context, call.repository)?;
    let too_large = || HostingError::ManifestTooLarge { limit_bytes: MAX_MANIFEST_BYTES };
    if call.body_length().is_some_and(|length| length > MAX_MANIFEST_BYTES as u64) {
        return Err(too_large());
    }
    match Limited::new(body, MAX_MANIFEST_BYTES).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large()),
        Err(error) => Err(HostingError::Body(error)),
    }
}

/// `OCI-Subject`: the manifest is listed as a referrer of that one.
const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");

/// `OCI-Tag`: one line for each tag that was asked for by parameter.
const OCI_TAG: HeaderName = HeaderName::from_static("oci-tag");
