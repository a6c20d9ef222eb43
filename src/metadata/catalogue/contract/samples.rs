//! Values that the suite records.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::metadata::catalogue::{
    BlobRecord, Catalogue, ManifestPush, ManifestRecord, MissingChildren, Namespace, Result, Stamp,
};
use crate::oci::{Algorithm, Digest, MediaType, RepositoryName, Tag};
use crate::runtime::Timestamp;

/// A moment some seconds after a fixed one.
pub(in crate::metadata::catalogue) fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(1_790_000_000_000).after(Duration::from_secs(seconds))
}

/// Somebody's deed at that moment.
pub(in crate::metadata::catalogue) fn stamp(seconds: u64) -> Stamp {
    Stamp { at: at(seconds), by: Arc::from("somebody") }
}

/// The digest of a text.
pub(in crate::metadata::catalogue) fn digest(text: &str) -> Digest {
    Digest::of(Algorithm::Sha256, text.as_bytes())
}

/// A repository's name.
pub(in crate::metadata::catalogue) fn name(text: &str) -> RepositoryName {
    text.parse().unwrap()
}

/// A tag.
pub(in crate::metadata::catalogue) fn tag(text: &str) -> Tag {
    text.parse().unwrap()
}

/// A blob in one store.
pub(in crate::metadata::catalogue) fn blob(text: &str) -> BlobRecord {
    BlobRecord {
        digest: digest(text),
        size_bytes: text.len() as u64,
        locations: vec![format!("store/{}", digest(text))],
    }
}

/// A manifest whose bytes are the text.
pub(in crate::metadata::catalogue) fn manifest(text: &str) -> ManifestRecord {
    ManifestRecord {
        digest: digest(text),
        media_type: MediaType::OCI_MANIFEST,
        artifact_type: Some("application/vnd.example".to_owned()),
        subject: None,
        annotations: BTreeMap::from([("made.of".to_owned(), text.to_owned())]),
        payload: Bytes::copy_from_slice(text.as_bytes()),
    }
}

/// A push of a manifest that lists blobs.
pub(in crate::metadata::catalogue) fn push(text: &str, blobs: &[&str], tags: &[&str]) -> ManifestPush {
    ManifestPush {
        manifest: manifest(text),
        blobs: blobs.iter().map(|blob| digest(blob)).collect(),
        children: Vec::new(),
        missing_children: MissingChildren::Refused,
        tags: tags.iter().map(|text| tag(text)).collect(),
        immutable_tags: Vec::new(),
        tags_expire_at: None,
    }
}

/// Creates a repository, and its namespace.
pub(in crate::metadata::catalogue) async fn hosted(
    catalogue: &Arc<dyn Catalogue>,
    text: &str,
) -> RepositoryName {
    let repository = name(text);
    catalogue.create_namespace(&Namespace::of(&repository), &stamp(0)).await.unwrap();
    catalogue.create_repository(&repository, &stamp(0)).await.unwrap();
    repository
}

/// Announces and records a blob, as a push does.
pub(in crate::metadata::catalogue) async fn record_blob(
    catalogue: &Arc<dyn Catalogue>,
    repository: &RepositoryName,
    blob: &BlobRecord,
    upload: Option<&str>,
    stamp: &Stamp,
) -> Result<()> {
    catalogue.announce_blob(&blob.digest, stamp.at).await?;
    catalogue.record_blob(repository, blob, upload, stamp).await
}

/// Has what is deleted in a namespace come back for so many seconds.
pub(in crate::metadata::catalogue) async fn keep_for(
    catalogue: &Arc<dyn Catalogue>,
    namespace: &str,
    seconds: u64,
) {
    let policy = format!(r#"{{"restore_for_ms":{}}}"#, seconds * 1000);
    catalogue.set_namespace_policy(&namespace.parse().unwrap(), &policy, &stamp(0)).await.unwrap();
}

/// Pushes an image of one layer, which is called as the image is.
pub(in crate::metadata::catalogue) async fn push_image(
    catalogue: &Arc<dyn Catalogue>,
    repository: &RepositoryName,
    text: &str,
    tags: &[&str],
    seconds: u64,
) -> Digest {
    let layer = format!("layer of {text}");
    record_blob(catalogue, repository, &blob(&layer), None, &stamp(seconds)).await.unwrap();
    catalogue.push_manifest(repository, &push(text, &[&layer], tags), &stamp(seconds)).await.unwrap();
    digest(text)
}
