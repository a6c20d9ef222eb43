//! What nobody needs any more, and how it goes. Everything is looked at again in the transaction that removes it.

use async_trait::async_trait;

use super::{Result, Stamp};
use crate::oci::Digest;
use crate::runtime::Timestamp;

/// A blob whose bytes may be removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CondemnedBlob {
    /// Its digest.
    pub digest: Digest,
    /// Its size.
    pub size_bytes: u64,
    /// Where its bytes lie.
    pub locations: Vec<String>,
}

/// Removes what is not needed: first manifests that were deleted, then links to blobs that no manifest lists, then
/// blobs without links.
///
/// A blob goes in two steps, because its bytes and its row cannot go at once: it is condemned, from when on nobody can
/// link it; its bytes are removed; it is forgotten. A collector that dies in between goes on with
/// [`Collection::list_condemned_blobs`].
#[async_trait]
pub trait Collection: Send + Sync {
    /// Removes up to `limit` manifests from repositories that deleted them before `before`, and says how many
    /// went. What another manifest of the repository lists, deleted or not, stays until that is gone, so that it
    /// can come back whole.
    async fn collect_manifests(&self, before: Timestamp, limit: u32, stamp: &Stamp) -> Result<u32>;

    /// Removes up to `limit` links to blobs that were made before `before` and that no manifest of their repository
    /// lists, and says how many went. A deleted manifest counts until it is collected.
    async fn collect_links(&self, before: Timestamp, limit: u32) -> Result<u32>;

    /// Condemns up to `limit` blobs that were recorded before `before` and have no links, and gives all that are
    /// condemned.
    async fn condemn_blobs(&self, before: Timestamp, limit: u32, at: Timestamp)
    -> Result<Vec<CondemnedBlob>>;

    /// Lists up to `limit` condemned blobs.
    async fn list_condemned_blobs(&self, limit: u32) -> Result<Vec<CondemnedBlob>>;

    /// Forgets a condemned blob, whose bytes are gone. Of another one it changes nothing.
    async fn forget_blob(&self, digest: &Digest) -> Result<()>;
}
