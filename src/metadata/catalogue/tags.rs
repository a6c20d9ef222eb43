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
    /// When the tag was to go by itself while this was its last row.
    pub expires_at: Option<Timestamp>,
    /// Whether the repository still has the manifest, deleted or not: the tag can be restored to it.
    pub is_restorable: bool,
}

/// What a tag is now, with all that rules about it may ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagState {
    /// The tag.
    pub tag: Tag,
    /// The manifest that it points to.
    pub digest: Digest,
    /// The number of the last row of its history.
    pub number: u64,
    /// Since when it points there, and by whom.
    pub since: Stamp,
    /// When it goes by itself.
    pub expires_at: Option<Timestamp>,
    /// When a client last asked the repository for the manifest, as far as that was recorded.
    pub used_at: Option<Timestamp>,
}

/// A tag whose time is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueTag {
    /// Its repository.
    pub repository: RepositoryName,
    /// The tag.
    pub tag: Tag,
}

/// What must still be true of a tag under its lock for it to be retracted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TagCondition {
    /// Its last row has this number.
    Unmoved(u64),
    /// Its time is over at this moment.
    Due(Timestamp),
}

/// Keeps tags as append-only history: the last row is what a tag is now.
///
/// A row says when a tag began to point somewhere. A push of what it points to already changes nothing and adds none,
/// so that a repeated push and a lost answer look the same, and a nightly rebuild of the same bytes is no news.
#[async_trait]
pub trait HostedTags: Send + Sync {
    /// Points a tag to a manifest of the repository. The tag does not expire.
    async fn put_tag(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        digest: &Digest,
        stamp: &Stamp,
    ) -> Result<()>;

    /// Finds what a tag points to.
    async fn find_tag(&self, repository: &RepositoryName, tag: &Tag) -> Result<Option<Digest>>;

    /// Finds all about what a tag is now.
    async fn find_tag_state(&self, repository: &RepositoryName, tag: &Tag) -> Result<Option<TagState>>;

    /// Lists the tags that point somewhere with all about them, in lexical order, from behind `last`.
    async fn list_tag_states(
        &self,
        repository: &RepositoryName,
        last: Option<&Tag>,
        limit: u32,
    ) -> Result<Vec<TagState>>;

    /// Says when a tag goes by itself; `None` says never. Fails where it points nowhere.
    async fn set_tag_expiry(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        expires_at: Option<Timestamp>,
        stamp: &Stamp,
    ) -> Result<()>;

    /// Lists up to `limit` tags whose time is over, the longest due first.
    async fn list_due_tags(&self, now: Timestamp, limit: u32) -> Result<Vec<DueTag>>;

    /// Deletes a tag of which something is still true, and says whether it did.
    async fn retract_tag(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        condition: TagCondition,
        stamp: &Stamp,
    ) -> Result<bool>;

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
    /// It expires when it was to expire then, if that is yet to come. Fails with `TagUnknown` where it never pointed
    /// there, with `ManifestUnknown` where that was collected.
    async fn restore_tag(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        digest: &Digest,
        stamp: &Stamp,
    ) -> Result<()>;
}
