//! Pins: images that are kept whatever the eviction policy thinks of them.

use async_trait::async_trait;

use super::{RepositoryId, Result};
use crate::oci::{Digest, Reference};
use crate::runtime::Timestamp;

/// Why an image is pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PinReason {
    /// The administrator said so.
    Order,
    /// Upstream has deleted the tag, and it was asked for here after that.
    Deleted,
}

impl PinReason {
    /// The word in answers, logs and the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Order => "order",
            Self::Deleted => "deleted",
        }
    }
}

/// A pin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinRecord {
    /// The repository.
    pub repository: RepositoryId,
    /// What was named: a tag, which the pin follows, or a digest.
    pub reference: Reference,
    /// The index or manifest that it stands for now.
    pub digest: Digest,
    /// Why.
    pub reason: PinReason,
    /// Since when.
    pub pinned_at: Timestamp,
}

/// A pin, and how much it covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinStatus {
    /// The pin.
    pub record: PinRecord,
    /// How many items it covers, stored or not.
    pub items: u64,
    /// How many of them are stored.
    pub stored: u64,
    /// Their bytes.
    pub stored_bytes: u64,
}

/// The sums of all pins; what several cover counts once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PinnedSums {
    /// How many pins there are.
    pub pins: u64,
    /// How many bytes are stored of what they cover.
    pub bytes: u64,
    /// How many of these are protected ([`Segment::Protected`](super::Segment::Protected)).
    pub protected_bytes: u64,
}

/// Keeps pins. Pinned content is never among the least used.
#[async_trait]
pub trait Pins: Send + Sync {
    /// Records a pin and all that it covers, in place of what an earlier one of the same reference covered. The
    /// time of the earlier one stays, and its reason where that was an order.
    async fn record_pin(&self, pin: &PinRecord, parts: &[Digest]) -> Result<()>;

    /// Removes a pin; `false` where there was none.
    async fn remove_pin(&self, repository: &RepositoryId, reference: &Reference) -> Result<bool>;

    /// Finds a pin.
    async fn find_pin(&self, repository: &RepositoryId, reference: &Reference) -> Result<Option<PinRecord>>;

    /// All that a pin covers, in order of digests. A manifest that is covered and comes later by
    /// [`PullRecords::record_pull`](super::PullRecords::record_pull) has what it lists covered, too.
    async fn list_pin_parts(&self, repository: &RepositoryId, reference: &Reference) -> Result<Vec<Digest>>;

    /// All pins, in order of repositories and references.
    async fn list_pins(&self) -> Result<Vec<PinStatus>>;

    /// All that any pin covers, in order of digests.
    async fn list_pinned_content(&self) -> Result<Vec<Digest>>;

    /// Sums up all pins.
    async fn sum_pinned(&self) -> Result<PinnedSums>;
}
