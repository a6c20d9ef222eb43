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

/// The moments that a collection compares with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Horizon {
    /// What was deleted longer ago than its namespace's retention is past at this moment.
    pub now: Timestamp,
    /// What came, or was asked for, since this moment is left alone: a push may be at it.
    pub grace_since: Timestamp,
}

/// Content that a store has and the catalogue does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StrayBlob {
    /// Its digest.
    pub digest: Digest,
    /// Its size.
    pub size_bytes: u64,
    /// What the store is called.
    pub location: String,
}

/// A link between repository and blob, as a place to go on from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkPlace {
    /// The number that stands for the repository.
    pub repository: u64,
    /// The blob.
    pub digest: Digest,
}

/// What came of a look at some links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkSweep {
    /// How many links went.
    pub collected: u32,
    /// Where to go on; `None` at the end.
    pub next: Option<LinkPlace>,
}

/// What came of a look at some blobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobSweep {
    /// Those that are condemned now.
    pub condemned: Vec<CondemnedBlob>,
    /// Where to go on; `None` at the end.
    pub next: Option<Digest>,
}

/// What was removed with places that were deleted long ago.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    /// Repositories that are gone altogether.
    pub repositories: u64,
    /// Manifests that they had.
    pub manifests: u64,
    /// Links to blobs that they had.
    pub links: u64,
    /// Whether there is more to do.
    pub is_unfinished: bool,
}

/// What a whole collection would remove if nothing changed meanwhile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prospect {
    /// Repositories.
    pub repositories: u64,
    /// Manifests, each as often as repositories lose it.
    pub manifests: u64,
    /// Links to blobs.
    pub links: u64,
    /// Blobs.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Removes what is not needed: places that were deleted long ago, then manifests that were deleted or lost all that held
/// them, then links to blobs that no manifest lists, then blobs without links.
///
/// A blob goes in two steps, because its bytes and its row cannot go at once: it is condemned, from when on nobody can
/// link it; its bytes are removed; it is forgotten. A collector that dies in between goes on with
/// [`Collection::list_condemned_blobs`].
#[async_trait]
pub trait Collection: Send + Sync {
    /// Seals up to `limit` namespaces and as many repositories whose retention is past: from then on they cannot be
    /// restored, and their names are free. Says how many.
    async fn seal_due_places(&self, now: Timestamp, limit: u32, stamp: &Stamp) -> Result<u32>;

    /// Removes up to `limit` rows of a sealed repository, and at last itself and its sealed namespace.
    async fn purge_sealed(&self, limit: u32) -> Result<Purged>;

    /// Removes up to `limit` manifests from repositories where their time is over, and says how many went. Those are
    /// the deleted ones; and, unless the namespace's policy keeps them, those that once had a tag, or were listed by an
    /// index, or had their subject in the repository, and have had none of it for as long as what is deleted is kept,
    /// and that nobody asked for meanwhile. What another manifest of the repository lists, deleted or not, stays until
    /// that is gone, so that it can come back whole.
    async fn collect_manifests(&self, horizon: Horizon, limit: u32, stamp: &Stamp) -> Result<u32>;

    /// Looks at the next `limit` links, and removes those that were made before the grace time and that no manifest of
    /// their repository lists. A deleted manifest counts until it is collected.
    async fn collect_links(
        &self,
        grace_since: Timestamp,
        after: Option<LinkPlace>,
        limit: u32,
    ) -> Result<LinkSweep>;

    /// Looks at the next `limit` blobs, and condemns those without links that were neither recorded nor announced
    /// since the grace time began.
    async fn condemn_blobs(
        &self,
        grace_since: Timestamp,
        after: Option<&Digest>,
        limit: u32,
        at: Timestamp,
    ) -> Result<BlobSweep>;

    /// Gives those of these blobs that the catalogue does not know, and that nobody announced since the grace time began.
    async fn find_unknown_blobs(&self, digests: &[Digest], grace_since: Timestamp) -> Result<Vec<Digest>>;

    /// Condemns content of a store that the catalogue does not know, and says whether it did: not where it is known by
    /// now, nor where somebody announced since the grace time began that they put it.
    async fn condemn_stray(&self, stray: &StrayBlob, grace_since: Timestamp, at: Timestamp) -> Result<bool>;

    /// Lists up to `limit` condemned blobs.
    async fn list_condemned_blobs(&self, limit: u32) -> Result<Vec<CondemnedBlob>>;

    /// Forgets a condemned blob, whose bytes are gone. Of another one it changes nothing.
    async fn forget_blob(&self, digest: &Digest) -> Result<()>;

    /// Forgets up to `limit` announcements from before the grace time: nothing came of them.
    async fn forget_announcements(&self, grace_since: Timestamp, limit: u32) -> Result<u32>;

    /// Tells what a whole collection would remove. Changes nothing; takes memory for what it finds.
    async fn foresee_collection(&self, horizon: Horizon) -> Result<Prospect>;

    /// Takes what only one node at a time does, until `until` or again until later; says whether nobody else has it.
    async fn take_lease(&self, name: &str, holder: &str, now: Timestamp, until: Timestamp) -> Result<bool>;

    /// Gives it back.
    async fn end_lease(&self, name: &str, holder: &str) -> Result<()>;
}
