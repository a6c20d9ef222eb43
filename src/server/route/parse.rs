//! The parser of request lines.

use std::borrow::Cow;

use http::Method;
use percent_encoding::percent_decode_str;

use super::{NS, Operation, Route, RouteError, Target};
use crate::oci::{Digest, NameError, Reference, ReferenceError, RepositoryName, decode_query};

/// The longest name, in bytes, registry included (distribution specification, "Pulling manifests").
const MAX_NAME_LENGTH: usize = 255;

/// The longest id of an upload, in bytes.
const MAX_UPLOAD_ID_LENGTH: usize = 128;

/// Reads a request line: `path` and `query` raw, still percent-encoded.
///
/// Of several `ns` the first that is not empty counts. What the path says is judged before the method.
pub fn parse(method: &Method, path: &str, query: Option<&str>) -> Result<Route, RouteError> {
    let segments = split(path)?;
    let segments: Vec<&str> = segments.iter().map(Cow::as_ref).collect();
    if segments == ["token"] {
        return parse_token(method, query);
    }
    let (prefix, rest) = match segments.as_slice() {
        ["v2", rest @ ..] => (None, rest),
        ["v1", ..] => return Err(RouteError::VersionOne),
        [prefix, "v2", rest @ ..] if is_registry(prefix) => (Some((*prefix).to_owned()), rest),
        other => return Err(explain(other)),
    };
    let target = match rest {
        [] | [""] => Target::Base { registry: None },
        ["_catalog"] => Target::Catalog,
        [registry] | [registry, ""] if is_registry(registry) => {
            Target::Base { registry: Some((*registry).to_owned()) }
        }
        [_] | [_, ""] => return Err(RouteError::NoEndpoint),
        _ => parse_repository(method, rest)?,
    };
    if !matches!(target, Target::Repository { .. }) {
        require_read(method)?;
    }
    let (ns, query): (Vec<_>, Vec<_>) =
        decode_query(query.unwrap_or_default()).into_iter().partition(|(name, _)| name == NS);
    let ns = ns.into_iter().map(|(_, value)| value).find(|value| !value.is_empty());
    Ok(Route { prefix, ns, target, query })
}

fn parse_token(method: &Method, query: Option<&str>) -> Result<Route, RouteError> {
    if !matches!(*method, Method::GET | Method::POST) {
        return Err(RouteError::MethodNotAllowed { allow: "GET, POST" });
    }
    let query = decode_query(query.unwrap_or_default());
    Ok(Route { prefix: None, ns: None, target: Target::Token, query })
}

/// Splits a raw path into its segments, each percent-decoded once. The last is empty where the path
/// ends in a slash; no other is.
fn split(path: &str) -> Result<Vec<Cow<'_, str>>, RouteError> {
    let rest = path.strip_prefix('/').ok_or(RouteError::NoEndpoint)?;
    let segments = rest.split('/').map(decode).collect::<Result<Vec<_>, _>>()?;
    match segments.split_last() {
        Some((_, inner)) if inner.iter().any(|segment| segment.is_empty()) => {
            Err(RouteError::PathMalformed("it has empty segments"))
        }
        _ => Ok(segments),
    }
}

fn decode(segment: &str) -> Result<Cow<'_, str>, RouteError> {
    // Nearly every segment: there is nothing to decode, and nothing to object to.
    let is_plain = segment.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'%' | b'\\'));
    if is_plain && !matches!(segment, "." | "..") {
        return Ok(Cow::Borrowed(segment));
    }
    let Ok(decoded) = percent_decode_str(segment).decode_utf8() else {
        return Err(RouteError::PathMalformed("it is not UTF-8"));
    };
    // Nothing that is served has a percent sign in it: one that is left was escaped twice, or is no
    // escape.
    if decoded.contains('%') {
        return Err(RouteError::PathMalformed("an escape is broken or doubled"));
    }
    if decoded.contains(|character: char| character.is_control() || character == '\\') {
        return Err(RouteError::PathMalformed("it has control characters or backslashes"));
    }
    if decoded.split('/').any(|part| matches!(part, "." | "..")) {
        return Err(RouteError::PathMalformed("it has dot segments"));
    }
    Ok(decoded)
}

/// Why a path outside `/v2/` is not served: a client that is configured without the `/v2` of the API
/// is told so.
fn explain(segments: &[&str]) -> RouteError {
    match segments {
        [registry, .., "manifests" | "blobs" | "referrers", _] | [registry, .., "tags", "list"] => {
            RouteError::NoVersion { registry: (*registry).to_owned() }
        }
        _ => RouteError::NoEndpoint,
    }
}

/// Reads what stands behind `/v2/`, from its right end.
fn parse_repository(method: &Method, segments: &[&str]) -> Result<Target, RouteError> {
    let (name, operation) = match segments {
        [name @ .., "blobs", "uploads"] | [name @ .., "blobs", "uploads", ""] => {
            (parse_name(name)?, parse_start_upload(method)?)
        }
        [name @ .., "manifests", reference] if !reference.is_empty() => {
            (parse_name(name)?, parse_manifest(method, reference)?)
        }
        [name @ .., "blobs", digest] if !digest.is_empty() => {
            (parse_name(name)?, parse_blob(method, digest)?)
        }
        [name @ .., "tags", "list"] => {
            let name = parse_name(name)?;
            require_read(method)?;
            (name, Operation::ListTags)
        }
        [name @ .., "referrers", digest] if !digest.is_empty() => {
            let (name, digest) = (parse_name(name)?, parse_digest(digest)?);
            require_read(method)?;
            (name, Operation::ListReferrers(digest))
        }
        [name @ .., "blobs", "uploads", id] => (parse_name(name)?, parse_upload(method, id)?),
        _ => return Err(RouteError::NoEndpoint),
    };
    Ok(Target::Repository { name, operation })
}

fn parse_name(segments: &[&str]) -> Result<String, RouteError> {
    if segments.is_empty() {
        return Err(RouteError::NoEndpoint);
    }
    let name = segments.join("/");
    if name.len() > MAX_NAME_LENGTH {
        return Err(NameError::TooLong.into());
    }
    // A host is more than a component may be: upper case, a port.
    let grammatical = match name.split_once('/') {
        Some((first, rest)) if is_host(first) => rest,
        _ => &name,
    };
    RepositoryName::check(grammatical)?;
    Ok(name)
}

/// Whether a single component can name a registry: as a host, or as an alias, which has the grammar
/// of a component.
fn is_registry(component: &str) -> bool {
    component.len() <= MAX_NAME_LENGTH
        && !component.contains('/')
        && (is_host(component) || RepositoryName::check(component).is_ok())
}

/// Whether a component is a host: `localhost`, or with a dot or a port in it.
fn is_host(component: &str) -> bool {
    (component.contains(['.', ':']) || component.eq_ignore_ascii_case("localhost"))
        && component.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '[')
        && component.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte))
}

fn parse_manifest(method: &Method, reference: &str) -> Result<Operation, RouteError> {
    if reference.contains('@') {
        return Err(RouteError::TagAndDigest);
    }
    let is_read = matches!(*method, Method::GET | Method::HEAD);
    let reference = reference.parse::<Reference>().map_err(|error| match error {
        ReferenceError::Digest(error) => RouteError::DigestInvalid(error),
        // The conformance tests ask for `.INVALID_MANIFEST_NAME` and take nothing but a 404.
        ReferenceError::Tag(error) if is_read => RouteError::TagUnknown(error),
        ReferenceError::Tag(error) => RouteError::TagInvalid(error),
    })?;
    match *method {
        Method::GET | Method::HEAD => Ok(Operation::PullManifest(reference)),
        Method::PUT => Ok(Operation::PushManifest(reference)),
        Method::DELETE => Ok(Operation::DeleteManifest(reference)),
        _ => Err(RouteError::MethodNotAllowed { allow: "GET, HEAD, PUT, DELETE" }),
    }
}

fn parse_blob(method: &Method, digest: &str) -> Result<Operation, RouteError> {
    let digest = parse_digest(digest)?;
    match *method {
        Method::GET | Method::HEAD => Ok(Operation::PullBlob(digest)),
        Method::DELETE => Ok(Operation::DeleteBlob(digest)),
        _ => Err(RouteError::MethodNotAllowed { allow: "GET, HEAD, DELETE" }),
    }
}

fn parse_digest(digest: &str) -> Result<Digest, RouteError> {
    Ok(digest.parse()?)
}

fn parse_start_upload(method: &Method) -> Result<Operation, RouteError> {
    match *method {
        Method::POST => Ok(Operation::StartUpload),
        _ => Err(RouteError::MethodNotAllowed { allow: "POST" }),
    }
}

fn parse_upload(method: &Method, id: &str) -> Result<Operation, RouteError> {
    let is_id = id.len() <= MAX_UPLOAD_ID_LENGTH
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~=".contains(&byte));
    if !is_id {
        return Err(RouteError::NoEndpoint);
    }
    let id = id.to_owned();
    match *method {
        Method::GET | Method::HEAD => Ok(Operation::StatUpload(id)),
        Method::PATCH => Ok(Operation::AppendUpload(id)),
        Method::PUT => Ok(Operation::FinishUpload(id)),
        Method::DELETE => Ok(Operation::CancelUpload(id)),
        _ => Err(RouteError::MethodNotAllowed { allow: "GET, HEAD, PATCH, PUT, DELETE" }),
    }
}

fn require_read(method: &Method) -> Result<(), RouteError> {
    if matches!(*method, Method::GET | Method::HEAD) {
        Ok(())
    } else {
        Err(RouteError::MethodNotAllowed { allow: "GET, HEAD" })
    }
}
