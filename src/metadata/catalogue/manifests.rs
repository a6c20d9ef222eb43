//! Manifests of hosted repositories, what they list, and what refers to them.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;

use super::{Result, Stamp};
use crate::oci::{Digest, MediaType, RepositoryName, Tag};
use crate::runtime::Timestamp;

/// A manifest as it is pushed, read by the caller. The payload is a column: a push is one transaction with no second
/// store to agree with, and who has the database has every name and what it means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestPush {
    /// The manifest itself.
    pub manifest: ManifestRecord,
    /// The blobs that it lists and that must be in the repository: all but those that lie elsewhere by their type.
    pub blobs: Vec<Digest>,
    /// The manifests that it lists.
    pub children: Vec<Digest>,
    /// What becomes of a list with manifests that are not in the repository.
    pub missing_children: MissingChildren,
    /// Tags that point to it from now on.
    pub tags: Vec<Tag>,
    /// Those of them that may not be moved from another manifest.
    pub immutable_tags: Vec<Tag>,
    /// When these tags go by themselves.
    pub tags_expire_at: Option<Timestamp>,
}

/// That a client asked a repository for content: a manifest, or a blob that it is about to push otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContentUse {
    /// The repository.
    pub repository: RepositoryName,
    /// The content.
    pub digest: Digest,
    /// When.
    pub used_at: Timestamp,
}

/// A manifest with all that answers need of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestRecord {
    /// Its digest.
    pub digest: Digest,
    /// Its type.
    pub media_type: MediaType,
    /// Its `artifactType`, or the type of its configuration.
    pub artifact_type: Option<String>,
    /// The manifest that it is about, which need not be there.
    pub subject: Option<Digest>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// Its bytes.
    pub payload: Bytes,
}

/// What becomes of an index whose children are not all in the repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissingChildren {
    /// It is refused.
    Refused,
    /// It is taken.
    Allowed,
}

/// A descriptor in the list of what refers to a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Referrer {
    /// The digest of the manifest that refers.
    pub digest: Digest,
    /// Its type.
    pub media_type: MediaType,
    /// Its size.
    pub size_bytes: u64,
    /// Its artifact type.
    pub artifact_type: Option<String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
}

/// Keeps the manifests.
#[async_trait]
pub trait HostedManifests: Send + Sync {
    /// Records a manifest and the tags that it is pushed by. Nothing of it is visible before all of it is.
    async fn push_manifest(
        &self,
        repository: &RepositoryName,
        push: &ManifestPush,
        stamp: &Stamp,
    ) -> Result<()>;

    /// Finds a manifest of a repository.
    async fn find_manifest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<ManifestRecord>>;

    /// Deletes a manifest and all tags that point to it, and says which. Until it is collected it comes back when
    /// a tag is restored to it, or when it is pushed again.
    async fn delete_manifest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        stamp: &Stamp,
    ) -> Result<Vec<Tag>>;

    /// Records many uses at once. Those of unknown repositories, and those before a recorded one, change nothing.
    async fn record_uses(&self, uses: &[ContentUse]) -> Result<()>;

    /// Lists what refers to `subject`, of one artifact type or of all, in the order of the digests.
    async fn list_referrers(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
        artifact_type: Option<&str>,
        after: Option<&Digest>,
        limit: u32,
    ) -> Result<Vec<Referrer>>;
}
