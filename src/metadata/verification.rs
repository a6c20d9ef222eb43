//! When stored content was last compared with its digest.

use async_trait::async_trait;

use super::{ContentRecord, Result};
use crate::oci::Digest;
use crate::runtime::Timestamp;

/// Keeps when content was verified. Content counts as verified when
/// [`ContentIndex::record_content`](super::ContentIndex::record_content) says that it was stored.
#[async_trait]
pub trait Verifications: Send + Sync {
    /// Records when items were verified, also that it is longer ago than was known; unknown ones are ignored.
    async fn record_verified(&self, digests: &[Digest], at: Timestamp) -> Result<()>;

    /// Items that were last verified then or before: what is pinned first, and then what has waited longest; in
    /// order of digests where they are equal.
    async fn list_unverified(&self, since: Timestamp, limit: u32) -> Result<Vec<ContentRecord>>;
}
