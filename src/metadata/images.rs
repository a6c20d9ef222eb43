//! What an index knows of whole images: tags, manifests that are here, lists of referrers, platforms pulled.

use async_trait::async_trait;

use super::{Listing, ListingKind, RepositoryId, Result};
use crate::oci::{Digest, Tag};

/// Tells what belongs to the images of a repository.
#[async_trait]
pub trait ImageRecords: Send + Sync {
    /// Every tag with the manifest that it was last seen at, one row for each manifest of a tag that has
    /// several (by accept class); in order of tags.
    async fn list_tagged(&self, repository: &RepositoryId) -> Result<Vec<(Tag, Digest)>>;

    /// Manifests that are stored and that the repository has shown to have, in order of digests.
    async fn list_stored_manifests(&self, repository: &RepositoryId) -> Result<Vec<Digest>>;

    /// All kept pages of a kind, with their keys.
    async fn list_listings(
        &self,
        repository: &RepositoryId,
        kind: ListingKind,
    ) -> Result<Vec<(String, Listing)>>;

    /// Records that manifests of an index are here. What is known stays known when they go.
    async fn record_children(&self, index: &Digest, children: &[Digest]) -> Result<()>;

    /// Manifests of an index that are, or once were, here.
    async fn list_children(&self, index: &Digest) -> Result<Vec<Digest>>;

    /// Forgets the children of every index that no tag points to and that is not stored.
    async fn remove_orphaned_children(&self) -> Result<()>;
}
