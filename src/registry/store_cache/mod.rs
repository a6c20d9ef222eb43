//! The node's cache in front of a store of hosted content that is elsewhere.
//!
//! What was read once is on this node's disk, or in its memory, as any other content: found without a question to
//! the store, evicted by the same policy. Who may have what is decided before: nothing here asks.

#[cfg(test)]
mod remote;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::core::Core;
use super::supplier::HostedStore;
use super::{OpenBlob, Registry, RegistryError, UpkeepError, pull_blob};
use crate::blobs::hosted::DurableBlobs;
use crate::oci::{Digest, RangeSet};

/// The node's cache in front of a store.
pub(super) struct StoreCache {
    core: Arc<Core>,
    store: HostedStore,
}

impl StoreCache {
    /// `None` where the store is on this machine: then its content is not stored twice.
    pub(super) fn in_front_of(store: &Arc<dyn DurableBlobs>, registry: &Registry) -> Option<Self> {
        let store = HostedStore::remote(store)?;
        Some(Self { core: Arc::clone(&registry.0), store })
    }

    /// Opens a blob that the catalogue says is in the store, with that size: from the cache, else from the one fill
    /// of it. `ranges` is what the client will read of it; `None` is all.
    pub(super) async fn open(
        &self,
        digest: &Digest,
        size_bytes: u64,
        ranges: Option<&RangeSet>,
    ) -> Result<OpenBlob, RegistryError> {
        pull_blob::open_hosted(&self.core, &self.store, digest, size_bytes, ranges).await
    }

    /// Removes the copy of a blob that the store has no more, unless an upstream's repository has shown to have it,
    /// too.
    pub(super) async fn forget(&self, digest: &Digest) -> Result<(), UpkeepError> {
        let Some(record) = self.core.index.find_content(digest).await? else { return Ok(()) };
        if self.core.index.list_holders(digest).await?.is_empty() {
            self.core.evictor.purge(vec![record]).await?;
        }
        Ok(())
    }
}
