//! `/v2/<name>/tags/list`, `/v2/<name>/referrers/<digest>`, `/v2/_catalog`

use http::{HeaderName, HeaderValue, StatusCode};
use serde_json::json;

use super::Call;
use crate::oci::{Digest, ErrorCode, MediaType, Tag};
use crate::server::distribution::{Answer, add_next_link, json_response, limit_of, set_json};
use crate::server::respond::Problem;

/// Answers GET and HEAD for the tags, in lexical order.
pub(super) async fn tags(call: &Call<'_>) -> Answer {
    let limit = limit_of(call.route).map_or(MAX_TAGS, |limit| u32::try_from(limit).unwrap_or(MAX_TAGS));
    let limit = limit.min(MAX_TAGS);
    let last = call.route.parameter("last").filter(|last| !last.is_empty()).map(str::parse::<Tag>);
    let last = last.transpose().map_err(|error| bad(ErrorCode::TagInvalid, format!("last: {error}")))?;
    let page = call.hosting.list_tags(call.context, call.repository, last.as_ref(), limit).await;
    let page = page.map_err(|error| call.problem(error))?;
    let tags: Vec<&str> = page.items.iter().map(Tag::as_str).collect();
    let mut response = json_response(json!({ "name": call.repository.as_str(), "tags": tags }).to_string());
    if let (true, Some(last)) = (page.has_more && limit > 0, tags.last()) {
        let next = [("last", (*last).to_owned()), ("n", limit.to_string())];
        add_next_link(
            response.headers_mut(),
            call.route,
            &next.map(|(name, value)| (name.to_owned(), value)),
        );
    }
    Ok(response)
}

/// Answers GET and HEAD for what refers to a manifest: an image index.
pub(super) async fn referrers(call: &Call<'_>, subject: &Digest) -> Answer {
    let artifact_type = call.route.parameter("artifactType").filter(|text| !text.is_empty());
    let after = call.route.parameter("last").filter(|last| !last.is_empty()).map(str::parse::<Digest>);
    let after = after.transpose().map_err(|error| bad(ErrorCode::DigestInvalid, format!("last: {error}")))?;
    let limit = limit_of(call.route).and_then(|limit| u32::try_from(limit).ok()).filter(|limit| *limit > 0);
    let limit = limit.unwrap_or(MAX_REFERRERS).min(MAX_REFERRERS);
    let hosting = call.hosting;
    let page = hosting
        .list_referrers(call.context, call.repository, subject, artifact_type, after.as_ref(), limit)
        .await;
    let page = page.map_err(|error| call.problem(error))?;
    // Clients take no larger index than a manifest may be.
    let (mut manifests, mut size_bytes, mut has_more) = (Vec::new(), 0, page.has_more);
    for referrer in &page.items {
        let mut descriptor = json!({
            "mediaType": referrer.media_type.as_str(),
            "digest": referrer.digest.to_string(),
            "size": referrer.size_bytes,
        });
        if let Some(artifact_type) = &referrer.artifact_type {
            descriptor["artifactType"] = json!(artifact_type);
        }
        if !referrer.annotations.is_empty() {
            descriptor["annotations"] = json!(referrer.annotations);
        }
        size_bytes += descriptor.to_string().len() + 1;
        if size_bytes > MAX_INDEX_BYTES && !manifests.is_empty() {
            has_more = true;
            break;
        }
        manifests.push(descriptor);
    }
    let shown = manifests.len();
    let index =
        json!({ "schemaVersion": 2, "mediaType": MediaType::OCI_INDEX.as_str(), "manifests": manifests });
    let mut response = json_response(index.to_string());
    let headers = response.headers_mut();
    set_json(headers, "application/vnd.oci.image.index.v1+json");
    if artifact_type.is_some() {
        headers.insert(FILTERS_APPLIED, HeaderValue::from_static("artifactType"));
    }
    if let (true, Some(last)) = (has_more, page.items.get(shown.wrapping_sub(1))) {
        let mut next =
            vec![("last".to_owned(), last.digest.to_string()), ("n".to_owned(), limit.to_string())];
        next.extend(artifact_type.map(|text| ("artifactType".to_owned(), text.to_owned())));
        add_next_link(headers, call.route, &next);
    }
    Ok(response)
}

fn bad(code: ErrorCode, message: String) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, code, "list", message)
}

/// Tags on a page at most: some clients ask for all at once.
const MAX_TAGS: u32 = 10_000;

/// Referrers on a page at most.
const MAX_REFERRERS: u32 = 1000;

/// The size of a page of referrers, at which it ends.
const MAX_INDEX_BYTES: usize = 3 * 1024 * 1024;

/// `OCI-Filters-Applied`
const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");
