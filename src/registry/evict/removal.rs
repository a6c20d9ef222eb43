//! Who removes which item just now, so that nobody takes what is evicted for something that was lost.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::Evictor;
use super::metrics::gauge_value;
use crate::oci::Digest;
use crate::registry::UpkeepError;

/// What is being removed.
#[derive(Default)]
pub(super) struct Removals {
    digests: Mutex<HashSet<Digest>>,
    /// Called when one is over.
    over: Notify,
}

impl Removals {
    fn lock(&self) -> MutexGuard<'_, HashSet<Digest>> {
        self.digests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The removal of an item, file and row, until it is dropped.
pub(in crate::registry) struct Removal<'a> {
    removals: &'a Removals,
    digest: Digest,
}

impl Drop for Removal<'_> {
    fn drop(&mut self) {
        self.removals.lock().remove(&self.digest);
        self.removals.over.notify_waiters();
    }
}

impl Evictor {
    /// Begins to remove an item; `None` where somebody else does.
    pub(in crate::registry) fn begin_removal(&self, digest: &Digest) -> Option<Removal<'_>> {
        let removals = &self.removals;
        removals.lock().insert(*digest).then(|| Removal { removals, digest: *digest })
    }

    /// Begins to remove an item when nobody else does.
    pub(super) async fn begin_removal_in_turn(&self, digest: &Digest) -> Removal<'_> {
        loop {
            // Before the look: what is over after it is heard of.
            let over = self.removals.over.notified();
            if let Some(removal) = self.begin_removal(digest) {
                return removal;
            }
            over.await;
        }
    }

    /// Forgets an item whose file was damaged and is gone, unless it is back.
    pub(in crate::registry) async fn forget_damaged(&self, digest: &Digest) -> Result<(), UpkeepError> {
        let Some(record) = self.parts.index.find_content(digest).await? else { return Ok(()) };
        self.parts.index.remove_content(&[*digest]).await?;
        if !self.keep_if_refilled(&record).await? {
            self.subtract_estimate(record.size_bytes);
            self.metrics.bytes.set(gauge_value(self.estimated_bytes.load(Ordering::Relaxed)));
        }
        Ok(())
    }
}
