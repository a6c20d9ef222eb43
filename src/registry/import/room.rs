//! Room for a bundle: on the disk while it comes, and in the budget when it is whole.

use std::collections::HashSet;

use super::ImportError;
use crate::bundle::{Contents, Item};
use crate::oci::Digest;
use crate::registry::core::Core;
use crate::registry::{Evicted, UpkeepError};

/// What of a bundle is here already.
pub(super) struct Present<'a> {
    pub(super) contents: &'a Contents,
    pub(super) here: HashSet<Digest>,
}

/// Room on the disk, which is made as it is needed: a bundle that turns out to be none has cost little.
pub(super) struct DiskRoom<'a> {
    core: &'a Core,
    /// How much of what was found free is not used up yet, in bytes.
    left_bytes: u64,
    evicted: Evicted,
}

impl Present<'_> {
    /// Fails where the bundle can have no room whatever is evicted: for its images in the budget, or for what it
    /// brings on the disk.
    pub(super) async fn require_room(&self, core: &Core) -> Result<(), ImportError> {
        let (needed_bytes, here_bytes) = (self.sum(|here| !here), self.sum(|here| here));
        let pinned_bytes = self.count_pinned_others(core).await?;
        let budget_bytes = core.evictor.budget_bytes();
        let all_bytes = needed_bytes.saturating_add(here_bytes);
        if all_bytes > budget_bytes.saturating_sub(pinned_bytes) {
            return Err(ImportError::OverBudget { needed_bytes: all_bytes, budget_bytes, pinned_bytes });
        }
        let (probation_bytes, protected_bytes) = core.index.content_bytes().await?;
        let cached_bytes = probation_bytes.saturating_add(protected_bytes);
        let evictable_bytes = cached_bytes.saturating_sub(here_bytes).saturating_sub(pinned_bytes);
        let space = core.blobs.space().await?;
        let (free_bytes, min_free_bytes) = (space.free_bytes, core.evictor.min_free_bytes(Some(space)));
        let most_bytes = free_bytes.saturating_add(evictable_bytes).saturating_sub(min_free_bytes);
        if needed_bytes > most_bytes {
            return Err(ImportError::NoRoom { needed_bytes, free_bytes, evictable_bytes, min_free_bytes });
        }
        Ok(())
    }

    fn sum(&self, wanted: impl Fn(bool) -> bool) -> u64 {
        let items = self.items().filter(|item| wanted(self.here.contains(&item.digest)));
        items.fold(0, |sum, item| sum.saturating_add(item.size_bytes))
    }

    /// How much is pinned of what is stored beside the bundle, in bytes.
    async fn count_pinned_others(&self, core: &Core) -> Result<u64, ImportError> {
        let pinned: HashSet<_> = core.index.list_pinned_content().await?.into_iter().collect();
        let own =
            self.items().filter(|item| self.here.contains(&item.digest) && pinned.contains(&item.digest));
        let own_bytes = own.fold(0_u64, |sum, item| sum.saturating_add(item.size_bytes));
        Ok(core.index.sum_pinned().await?.bytes.saturating_sub(own_bytes))
    }

    fn items(&self) -> impl Iterator<Item = &Item> {
        self.contents.content.iter().chain(&self.contents.from_base)
    }
}

impl<'a> DiskRoom<'a> {
    pub(super) fn new(core: &'a Core) -> Self {
        Self { core, left_bytes: 0, evicted: Evicted::default() }
    }

    /// Takes room for the next item; evicts where there is too little.
    pub(super) async fn take(&mut self, bytes: u64) -> Result<(), ImportError> {
        while self.left_bytes < bytes {
            let space = self.core.blobs.space().await?;
            let (free_bytes, min_free_bytes) =
                (space.free_bytes, self.core.evictor.min_free_bytes(Some(space)));
            self.left_bytes = free_bytes.saturating_sub(min_free_bytes);
            if self.left_bytes >= bytes {
                break;
            }
            let wanted_bytes = bytes.saturating_add(min_free_bytes).saturating_sub(free_bytes);
            let evicted = self.core.evictor.make_disk_room(wanted_bytes).await?;
            if evicted.items == 0 {
                let (needed_bytes, evictable_bytes) = (bytes, 0);
                return Err(ImportError::NoRoom {
                    needed_bytes,
                    free_bytes,
                    evictable_bytes,
                    min_free_bytes,
                });
            }
            self.evicted = sum(self.evicted, evicted);
        }
        self.left_bytes -= bytes;
        Ok(())
    }

    /// What had to go.
    pub(super) const fn evicted(&self) -> Evicted {
        self.evicted
    }
}

/// Makes room in the budget for what a bundle brings, which is verified by now; says what had to go.
pub(super) async fn make_in_budget(core: &Core, bytes: u64) -> Result<Evicted, ImportError> {
    let (evicted, fits) = core.evictor.make_budget_room(bytes).await?;
    if fits {
        return Ok(evicted);
    }
    let pinned_bytes = core.index.sum_pinned().await?.bytes;
    let budget_bytes = core.evictor.budget_bytes();
    Err(ImportError::OverBudget { needed_bytes: bytes, budget_bytes, pinned_bytes })
}

/// Both together.
pub(super) const fn sum(one: Evicted, other: Evicted) -> Evicted {
    Evicted { items: one.items + other.items, bytes: one.bytes.saturating_add(other.bytes) }
}

impl From<UpkeepError> for ImportError {
    fn from(error: UpkeepError) -> Self {
        match error {
            UpkeepError::Index(error) => Self::Index(error),
            UpkeepError::Blobs(error) => Self::Store(*error),
        }
    }
}
