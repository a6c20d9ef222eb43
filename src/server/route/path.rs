//! Paths of the API, written so that they are read back as they were meant.

use std::fmt::Write as _;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::Operation;

/// What is not written as itself: all but what names, hosts, tags and digests are made of. Clients
/// compare paths as text, so `:` stays bare, as they write it.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'/')
    .remove(b':')
    .remove(b'=');

/// The path of the base, or of the base of one registry.
pub(super) fn of_base(prefix: Option<&str>, registry: Option<&str>) -> String {
    let mut path = root(prefix);
    if let Some(registry) = registry {
        path.extend(utf8_percent_encode(registry, ESCAPED));
        path.push('/');
    }
    path
}

/// The path of the catalogue.
pub(super) fn of_catalog(prefix: Option<&str>) -> String {
    root(prefix) + "_catalog"
}

/// The path of an operation on a repository.
pub(super) fn of_repository(prefix: Option<&str>, name: &str, operation: &Operation) -> String {
    let mut path = root(prefix);
    path.extend(utf8_percent_encode(name, ESCAPED));
    let written = match operation {
        Operation::PullManifest(reference)
        | Operation::PushManifest(reference)
        | Operation::DeleteManifest(reference) => write!(path, "/manifests/{reference}"),
        Operation::PullBlob(digest) | Operation::DeleteBlob(digest) => write!(path, "/blobs/{digest}"),
        Operation::ListTags => write!(path, "/tags/list"),
        Operation::ListReferrers(digest) => write!(path, "/referrers/{digest}"),
        Operation::StartUpload => write!(path, "/blobs/uploads/"),
        Operation::StatUpload(id)
        | Operation::AppendUpload(id)
        | Operation::FinishUpload(id)
        | Operation::CancelUpload(id) => write!(path, "/blobs/uploads/{id}"),
    };
    written.expect("a string takes all that is written");
    path
}

fn root(prefix: Option<&str>) -> String {
    let mut path = String::from("/");
    if let Some(prefix) = prefix {
        path.extend(utf8_percent_encode(prefix, ESCAPED));
        path.push('/');
    }
    path.push_str("v2/");
    path
}
