//! Tags of hosted repositories, with everything that they ever pointed to.

use async_trait::async_trait;

use super::{Result, Stamp};
use crate::oci::{Digest, RepositoryName, Tag};
use crate::runtime::Timestamp;

/// A row of a tag's history: what it pointed to from then on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagChange {
    /// The row's number: later rows of a tag have larger ones.
    pub number: u64,
    /// The manifest; `None` where the tag was deleted.
    pub digest: Option<Digest>,
    /// When it came to be so, never before the row before it, whatever the clocks said; and by whom.
    pub stamp: Stamp,
}

/// Keeps tags as append-only history: the last row is what a tag is now.
///
/// A row says when a tag began to point somewhere. A push of what it points to already changes nothing and adds none,
/// so that a repeated push and a lost answer look the same, and a nightly rebuild of the same bytes is no news.
#[async_trait]
pub trait HostedTags: Send + Sync {
    /// Points a tag to a manifest of the repository.
    async fn put_tag(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        digest: &Digest,
        stamp: &Stamp,
    ) -> Result<()>;

    /// Finds what a tag points to.
    async fn find_tag(&self, repository: &RepositoryName, tag: &Tag) -> Result<Option<Digest>>;

    /// Finds what a tag pointed to at a moment.
    async fn find_tag_at(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        at: Timestamp,
    ) -> Result<Option<Digest>>;

    /// Lists the tags that point somewhere, in lexical order, from behind `last`.
    async fn list_tags(
        &self,
        repository: &RepositoryName,
        last: Option<&Tag>,
        limit: u32,
    ) -> Result<Vec<Tag>>;

    /// Lists a tag's history, the last row first, from before the row `before`.
    async fn list_tag_history(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<TagChange>>;

    /// Deletes a tag. Fails where it points nowhere.
    async fn delete_tag(&self, repository: &RepositoryName, tag: &Tag, stamp: &Stamp) -> Result<()>;

    /// Points a tag to what it pointed to once, which is a new row, and restores the manifest if that was deleted.
    /// Fails with `TagUnknown` where it never pointed there, with `ManifestUnknown` where that was collected.
    async fn restore_tag(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        digest: &Digest,
        stamp: &Stamp,
    ) -> Result<()>;
}
