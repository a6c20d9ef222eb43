//! `/v2/<name>/blobs/uploads/…`: every dialect in which clients push blobs.

use http::header::{CONTENT_LENGTH, CONTENT_RANGE, LOCATION, RANGE};
use http::{HeaderName, HeaderValue, Response, StatusCode};

use super::{Call, created, empty};
use crate::oci::{Algorithm, Digest, ErrorCode, RepositoryName};
use crate::registry::hosted::{Announced, Body, Mounted, UploadStatus};
use crate::server::body::ResponseBody;
use crate::server::distribution::Answer;
use crate::server::respond::Problem;
use crate::server::route::Operation;

/// Answers POST: a mount, a whole blob, or the beginning of an upload.
pub(super) async fn start(call: &Call<'_>, body: Body<'_>) -> Answer {
    if let Some(mount) = call.route.parameter("mount") {
        let digest = parse_digest(mount)?;
        if mount_from(call, &digest).await? {
            return created(call, &digest, &Operation::PullBlob(digest));
        }
    } else if let Some(digest) = call.route.parameter("digest") {
        let digest = parse_digest(digest)?;
        // Some ask whether that is possible by sending nothing.
        let is_empty = call.body_length() == Some(0) && digest != Digest::of(digest.algorithm(), b"");
        if !is_empty {
            let pushed = call.hosting.push_blob(call.context, call.repository, &digest, body).await;
            pushed.map_err(|error| call.problem(error))?;
            return created(call, &digest, &Operation::PullBlob(digest));
        }
    }
    let algorithm = match call.route.parameter("digest-algorithm") {
        None | Some("sha256") => Algorithm::Sha256,
        Some("sha512") => Algorithm::Sha512,
        Some(_) => return Err(bad_digest("digest-algorithm is neither sha256 nor sha512")),
    };
    let started = call.hosting.start_upload(call.context, call.repository, algorithm).await;
    let status = started.map_err(|error| call.problem(error))?;
    upload_response(call, StatusCode::ACCEPTED, &status)
}

/// Whether the mount that is asked for was made. One that names no repository that could be is as one that finds
/// nothing.
async fn mount_from(call: &Call<'_>, digest: &Digest) -> Result<bool, Problem> {
    let from = match call.route.parameter("from") {
        None | Some("") => None,
        Some(from) => match from.parse::<RepositoryName>() {
            Ok(from) => Some(from),
            Err(_no_name) => return Ok(false),
        },
    };
    let mounted = call.hosting.mount_blob(call.context, call.repository, digest, from.as_ref()).await;
    Ok(mounted.map_err(|error| call.problem(error))? == Mounted::Done)
}

/// Answers GET and HEAD: how far an upload is.
pub(super) async fn stat(call: &Call<'_>, id: &str) -> Answer {
    let status = call.hosting.stat_upload(call.context, call.repository, id).await;
    let status = status.map_err(|error| call.problem(error))?;
    upload_response(call, StatusCode::NO_CONTENT, &status)
}

/// Answers PATCH: the next bytes.
pub(super) async fn append(call: &Call<'_>, id: &str, body: Body<'_>) -> Answer {
    let announced = announced(call)?;
    let status = call.hosting.append_upload(call.context, call.repository, id, announced, body).await;
    let status = status.map_err(|error| call.problem(error))?;
    upload_response(call, StatusCode::ACCEPTED, &status)
}

/// Answers PUT: the last bytes, or none, and the digest of all.
pub(super) async fn finish(call: &Call<'_>, id: &str, body: Body<'_>) -> Answer {
    let digest = call.route.parameter("digest");
    let digest =
        digest.ok_or_else(|| bad_digest("the parameter digest is missing: PUT …?digest=sha256:…"))?;
    let digest = parse_digest(digest)?;
    let announced = announced(call)?;
    let finished =
        call.hosting.finish_upload(call.context, call.repository, id, &digest, announced, body).await;
    finished.map_err(|error| call.problem(error))?;
    created(call, &digest, &Operation::PullBlob(digest))
}

/// Answers DELETE: the upload is given up.
pub(super) async fn cancel(call: &Call<'_>, id: &str) -> Answer {
    let cancelled = call.hosting.cancel_upload(call.context, call.repository, id).await;
    cancelled.map_err(|error| call.problem(error))?;
    Ok(empty(StatusCode::NO_CONTENT))
}

/// How far an upload is, and where it goes on.
fn upload_response(call: &Call<'_>, status: StatusCode, upload: &UploadStatus) -> Answer {
    let id = upload.id.to_string();
    let mut response: Response<ResponseBody> = empty(status);
    let headers = response.headers_mut();
    headers.insert(LOCATION, call.location(&Operation::AppendUpload(id.clone()))?);
    headers.insert(RANGE, upload_range(upload.offset_bytes));
    if let Ok(id) = HeaderValue::try_from(id) {
        headers.insert(UPLOAD_UUID, id);
    }
    Ok(response)
}

/// What has come, first and last byte. Of nothing, clients expect the same as of one byte.
pub(super) fn upload_range(offset_bytes: u64) -> HeaderValue {
    HeaderValue::try_from(format!("0-{}", offset_bytes.saturating_sub(1)))
        .unwrap_or(HeaderValue::from_static("0-0"))
}

/// What the request says of its body: `Content-Range: 0-1023`, as the specification has it, or as RFC 9110 has it:
/// `bytes 0-1023/*`.
fn announced(call: &Call<'_>) -> Result<Announced, Problem> {
    let Some(line) = call.parts.headers.get(CONTENT_RANGE) else { return Ok(Announced::default()) };
    let malformed = || {
        let message = "Content-Range is not of the form <first>-<last>";
        Problem::new(StatusCode::BAD_REQUEST, ErrorCode::BlobUploadInvalid, "upload", message)
    };
    let text = line.to_str().map_err(|_not_text| malformed())?.trim();
    let text = text.strip_prefix("bytes").map_or(text, str::trim_start);
    let text = text.split('/').next().unwrap_or_default();
    let (first, last) = text.split_once('-').ok_or_else(malformed)?;
    let number = |text: &str| {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| text.parse::<u64>().ok()).flatten().ok_or_else(malformed)
    };
    let (first, last) = (number(first)?, number(last)?);
    let length_bytes = last.checked_sub(first).and_then(|rest| rest.checked_add(1)).ok_or_else(malformed)?;
    if call.parts.headers.contains_key(CONTENT_LENGTH) && call.body_length() != Some(length_bytes) {
        let message = format!("Content-Range has {length_bytes} bytes, and Content-Length says otherwise");
        return Err(Problem::new(StatusCode::BAD_REQUEST, ErrorCode::SizeInvalid, "upload", message));
    }
    Ok(Announced { start: Some(first), length_bytes: Some(length_bytes) })
}

fn parse_digest(text: &str) -> Result<Digest, Problem> {
    text.parse().map_err(|error| bad_digest(format!("{error}")))
}

fn bad_digest(message: impl Into<std::borrow::Cow<'static, str>>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, ErrorCode::DigestInvalid, "digest", message)
}

/// `Docker-Upload-UUID`
pub(super) const UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");
