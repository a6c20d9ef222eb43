//! Room for content that comes as a whole, and content that has to stay for it: imports.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::{Evicted, EvictionReason, Evictor, Room};
use crate::oci::Digest;
use crate::registry::UpkeepError;

/// Content that no eviction takes as long as this lives. A purge does.
pub struct Hold(
    #[expect(dead_code, reason = "is looked at by who holds a weak reference")] Arc<HashSet<Digest>>,
);

/// All that is held.
#[derive(Default)]
pub(super) struct Holds(Mutex<Vec<Weak<HashSet<Digest>>>>);

/// What is held while a run goes on.
pub(super) struct Held(Vec<Arc<HashSet<Digest>>>);

impl Holds {
    fn add(&self, digests: HashSet<Digest>) -> Hold {
        let digests = Arc::new(digests);
        let mut holds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        holds.retain(|hold| hold.strong_count() > 0);
        holds.push(Arc::downgrade(&digests));
        Hold(digests)
    }

    pub(super) fn now(&self) -> Held {
        let holds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Held(holds.iter().filter_map(Weak::upgrade).collect())
    }
}

impl Held {
    pub(super) fn contains(&self, digest: &Digest) -> bool {
        self.0.iter().any(|hold| hold.contains(digest))
    }

    pub(super) fn count(&self) -> u32 {
        u32::try_from(self.0.iter().map(|hold| hold.len()).sum::<usize>()).unwrap_or(u32::MAX)
    }
}

impl Evictor {
    /// Keeps content from being evicted, stored or not, as long as what this gives lives.
    pub async fn hold(&self, digests: HashSet<Digest>) -> Hold {
        // A run that has begun would not know of it.
        let _turn = self.turn.acquire().await;
        self.holds.add(digests)
    }

    /// Evicts so that content of `bytes` more fits into the budget; says what was evicted, and whether it fits.
    /// Otherwise as [`Self::enforce`].
    pub async fn make_budget_room(&self, bytes: u64) -> Result<(Evicted, bool), UpkeepError> {
        let _turn = self.turn.acquire().await;
        let over = |counted: u64| counted.saturating_add(bytes).saturating_sub(self.budget_bytes());
        let wanted_bytes = over(self.count().await?.bytes);
        if wanted_bytes == 0 {
            return Ok((Evicted::default(), true));
        }
        let evicted = self.evict_for_import(wanted_bytes).await?;
        Ok((evicted, over(self.count().await?.bytes) == 0))
    }

    /// Evicts content of `bytes` to have them on the disk, whatever the budget says. Less where no more can go.
    /// Otherwise as [`Self::enforce`].
    pub async fn make_disk_room(&self, bytes: u64) -> Result<Evicted, UpkeepError> {
        let _turn = self.turn.acquire().await;
        self.count().await?;
        self.evict_for_import(bytes).await
    }

    async fn evict_for_import(&self, bytes: u64) -> Result<Evicted, UpkeepError> {
        let evicted = self.evict(Room { bytes, items: 0 }, EvictionReason::Import).await?;
        if evicted.items > 0 {
            tracing::info!(
                evicted.items = evicted.items,
                evicted.bytes = evicted.bytes,
                "evicted content to make room for a bundle",
            );
        }
        Ok(evicted)
    }
}
