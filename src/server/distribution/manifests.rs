//! `/v2/<name>/manifests/<reference>`

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};

use super::{Answer, Call, content_headers, not_modified, set_single_part};
use crate::oci::{AcceptClass, MediaType, RangeSet, Reference};
use crate::registry::{RegistryError, Want};
use crate::server::body::ResponseBody;
use crate::server::conditional::{names_digest, requested_ranges};
use crate::server::metrics::ContentLabel;
use crate::server::ranges::Partial;
use crate::server::respond::Problem;

/// Answers GET and HEAD for a manifest.
pub(in crate::server) async fn answer_manifest(call: &Call<'_>, reference: &Reference) -> Answer {
    let headers = &call.parts.headers;
    // Several lines are one list (RFC 9110, section 5.3); real clients send up to seven.
    let lines = headers.get_all(ACCEPT).iter().filter_map(|line| line.to_str().ok());
    let class = AcceptClass::from_lines(lines);
    let want = if call.is_head() { Want::Head } else { Want::Body };
    let pulled = call.registry.pull_manifest(call.context, call.repository, reference, &class, want).await;
    let manifest = pulled.map_err(|error| Problem::from(as_manifest_unknown(error, reference)))?;
    let response = content_headers(&manifest.digest, ContentLabel::Manifest, &manifest.served);
    if names_digest(headers, &manifest.digest) {
        return Ok(not_modified(response));
    }
    let content_type = type_header(&manifest.media_type)?;
    if call.is_head() {
        return Ok(head_response(response, content_type, manifest.size_bytes));
    }
    let ranges = requested_ranges(&call.parts.method, headers, &manifest.digest)
        .map_err(|_too_many| Problem::too_many_ranges())?;
    let body = manifest
        .body
        .ok_or_else(|| Problem::internal("the registry gave a manifest without its content".into()))?;
    body_response(response, &content_type, body, ranges.as_ref())
}

/// Clients that look for signatures take "the manifest is unknown" for "there are none", and "the
/// repository is unknown" for a fault.
fn as_manifest_unknown(error: RegistryError, reference: &Reference) -> RegistryError {
    match error {
        RegistryError::NameUnknown(_) => RegistryError::ManifestUnknown(reference.to_string()),
        other => other,
    }
}

pub(in crate::server) fn type_header(media_type: &MediaType) -> Result<HeaderValue, Problem> {
    HeaderValue::from_str(media_type.as_str())
        .map_err(|_not_a_value| Problem::internal(format!("media type {media_type} is no header value")))
}

/// The size is announced although there is no body: it is what clients ask for.
pub(in crate::server) fn head_response(
    mut response: Response<ResponseBody>,
    content_type: HeaderValue,
    size_bytes: u64,
) -> Response<ResponseBody> {
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(size_bytes));
    response
}

pub(in crate::server) fn body_response(
    mut response: Response<ResponseBody>,
    content_type: &HeaderValue,
    body: Bytes,
    ranges: Option<&RangeSet>,
) -> Answer {
    response.headers_mut().insert(CONTENT_TYPE, content_type.clone());
    let Some(ranges) = ranges else {
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        return Ok(response.map(|_empty| ResponseBody::whole(body)));
    };
    let size_bytes = body.len() as u64;
    let partial = Partial::plan(ranges, size_bytes, content_type.to_str().unwrap_or_default())
        .map_err(|refusal| Problem::range(refusal, size_bytes))?;
    match partial {
        Partial::Single(range) => {
            set_single_part(&mut response, &range, size_bytes);
            let part = slice(&body, &range);
            Ok(response.map(|_empty| ResponseBody::whole(part)))
        }
        Partial::Multi(multipart) => {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            response.headers_mut().insert(CONTENT_TYPE, multipart.content_type());
            response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(multipart.size_bytes()));
            let mut whole = BytesMut::new();
            let (parts, end) = multipart.into_parts();
            for (head, range) in parts {
                whole.extend_from_slice(&head);
                whole.extend_from_slice(&slice(&body, &range));
            }
            whole.extend_from_slice(&end);
            Ok(response.map(|_empty| ResponseBody::whole(whole)))
        }
    }
}

/// Resolved ranges lie within the content, so nothing is cut off here.
fn slice(body: &Bytes, range: &std::ops::Range<u64>) -> Bytes {
    let position = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(body.len());
    body.slice(position(range.start)..position(range.end))
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::oci::{Algorithm, Digest};
    use crate::registry::{CacheResult, PulledManifest, Served};

    fn manifest(body: &'static str) -> (Response<ResponseBody>, HeaderValue, PulledManifest) {
        let served = Served {
            result: CacheResult::Hit,
            upstream: "docker.io".into(),
            age: None,
            staleness: None,
            stored: true,
        };
        let digest = Digest::of(Algorithm::Sha256, body.as_bytes());
        let response = content_headers(&digest, ContentLabel::Manifest, &served);
        let manifest = PulledManifest {
            digest,
            media_type: MediaType::OCI_INDEX,
            size_bytes: body.len() as u64,
            body: Some(Bytes::from_static(body.as_bytes())),
            served,
        };
        (response, type_header(&MediaType::OCI_INDEX).unwrap(), manifest)
    }

    #[tokio::test]
    async fn a_whole_manifest_has_its_exact_type_and_names() {
        let (response, content_type, manifest) = manifest("{\"a\":1}");
        let digest = manifest.digest;
        let response = body_response(response, &content_type, manifest.body.unwrap(), None).unwrap();
        let headers = response.headers();
        assert_eq!(headers["content-type"], "application/vnd.oci.image.index.v1+json");
        assert_eq!(headers["content-length"], "7");
        assert_eq!(headers["docker-content-digest"], digest.to_string().as_str());
        assert_eq!(headers["etag"], format!("\"{digest}\"").as_str());
        assert_eq!(headers["cache-status"], "tidegate; hit");
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "{\"a\":1}");
    }

    #[tokio::test]
    async fn a_range_from_zero_is_a_206_with_content_range() {
        let (response, content_type, manifest) = manifest("0123456789");
        let ranges = RangeSet::parse("bytes=0-").unwrap().unwrap();
        let response = body_response(response, &content_type, manifest.body.unwrap(), Some(&ranges)).unwrap();
        assert_eq!(response.status(), 206);
        assert_eq!(response.headers()["content-range"], "bytes 0-9/10");
        assert_eq!(response.headers()["content-length"], "10");
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "0123456789");
    }

    #[tokio::test]
    async fn several_ranges_come_as_parts_of_the_announced_length() {
        let (response, content_type, manifest) = manifest("0123456789");
        let ranges = RangeSet::parse("bytes=-2,0-0").unwrap().unwrap();
        let response = body_response(response, &content_type, manifest.body.unwrap(), Some(&ranges)).unwrap();
        assert_eq!(response.status(), 206);
        let announced = response.headers()["content-length"].to_str().unwrap().parse::<usize>().unwrap();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body.len(), announced);
        let text = String::from_utf8(body.to_vec()).unwrap();
        let (first, second) = (text.find("bytes 8-9/10\r\n\r\n89"), text.find("bytes 0-0/10\r\n\r\n0"));
        assert!(first.unwrap() < second.unwrap(), "{text}");
    }

    #[test]
    fn a_head_announces_the_size_of_what_it_does_not_send() {
        let (response, content_type, _) = manifest("0123456789");
        let response = head_response(response, content_type, 10);
        assert_eq!(response.headers()["content-length"], "10");
        assert_eq!(response.body().size_bytes(), Some(0));
    }

    #[test]
    fn an_unknown_repository_is_an_unknown_manifest() {
        let reference = "sha256-abc.sig".parse().unwrap();
        let error = as_manifest_unknown(RegistryError::NameUnknown("a/b".into()), &reference);
        assert_eq!(error.to_string(), "manifest sha256-abc.sig is unknown upstream");
    }
}
