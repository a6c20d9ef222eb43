//! The index of stored content: what is here, how large, how much used.

use async_trait::async_trait;

use super::Result;
use crate::oci::{Digest, MediaType};
use crate::runtime::Timestamp;

/// What kind of content an item is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ContentKind {
    /// A blob: configuration or layer.
    Blob,
    /// A manifest or an index.
    Manifest,
}

impl ContentKind {
    /// The word in logs, metrics and the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Blob => "blob",
            Self::Manifest => "manifest",
        }
    }
}

/// One stored item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContentRecord {
    /// Its digest, which also names its file.
    pub digest: Digest,
    /// Blob or manifest.
    pub kind: ContentKind,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// A manifest's type; `None` for blobs.
    pub media_type: Option<MediaType>,
    /// When it was stored.
    pub stored_at: Timestamp,
    /// When it was last served.
    pub last_used_at: Timestamp,
    /// Where the eviction policy keeps it.
    pub segment: Segment,
}

/// The two parts of the eviction policy (segmented LRU): what was used once, and what came again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Segment {
    /// Used in one episode only: a scan passes through here and pushes out nothing else.
    Probation,
    /// Used again later.
    Protected,
}

impl Segment {
    /// The word in logs and the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Probation => "probation",
            Self::Protected => "protected",
        }
    }
}

/// One batched use of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentUse {
    /// The item.
    pub digest: Digest,
    /// When it was last used.
    pub used_at: Timestamp,
}

/// Keeps the list of stored content.
#[async_trait]
pub trait ContentIndex: Send + Sync {
    /// Records that items are stored. An item that is known keeps its `stored_at`, and its segment unless it is
    /// recorded as protected; its last use only moves forward, a known media type is never overwritten with `None`, and what
    /// was ever recorded as a manifest stays one (a client may ask for a manifest as a blob).
    async fn record_content(&self, records: &[ContentRecord]) -> Result<()>;

    /// Finds an item.
    async fn find_content(&self, digest: &Digest) -> Result<Option<ContentRecord>>;

    /// Forgets items that are no longer stored; unknown ones are ignored.
    async fn remove_content(&self, digests: &[Digest]) -> Result<()>;

    /// Records uses, many at once. An item on probation moves to protected when it is used at
    /// least [`SECOND_USE_AFTER`] after it was stored: a pull, a rollout or a run of CI is one use. Uses
    /// of unknown items are ignored; one older than the last known use moves nothing back.
    async fn record_uses(&self, uses: &[ContentUse]) -> Result<()>;

    /// The sum of sizes in bytes, by segment: probation, then protected.
    async fn content_bytes(&self) -> Result<(u64, u64)>;

    /// The least recently used items of a kind in a segment, oldest first. What was demoted counts as
    /// used when it was. What is pinned ([`super::Pins`]) is left out.
    async fn list_least_used(
        &self,
        kind: ContentKind,
        segment: Segment,
        limit: u32,
    ) -> Result<Vec<ContentRecord>>;

    /// Moves items from protected to probation, as the most recently used there, in the order
    /// given: protected grew over its share. Others are left as they are.
    async fn demote_content(&self, digests: &[Digest]) -> Result<()>;

    /// All items in digest order, after `after`, for walks.
    async fn list_content(&self, after: Option<&Digest>, limit: u32) -> Result<Vec<ContentRecord>>;

    /// When the index was last compared with all that lies on disk; `None` for a new index, which
    /// may miss anything.
    async fn find_rebuilt_at(&self) -> Result<Option<Timestamp>>;

    /// Records that the index was compared with all that lies on disk.
    async fn record_rebuilt(&self, at: Timestamp) -> Result<()>;
}

/// How long after an item was stored a use counts as the second: longer than most rollouts and runs of CI
/// take, in which many machines pull an image that nobody may want afterwards.
pub const SECOND_USE_AFTER: std::time::Duration = std::time::Duration::from_hours(1);
