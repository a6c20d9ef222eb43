//! Notes which content is used, without any I/O on the hit path.

use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::metadata::{ContentUse, NodeIndex, Result};
use crate::oci::Digest;
use crate::runtime::{Clock, Timestamp};

type Shard = HashMap<Digest, Timestamp>;

/// The uses since the last flush, one for each item.
///
/// What is lost of it (a crash, a flush that is dropped half-way, more different items at once than
/// it holds) only makes the order of eviction a little less exact.
pub struct UseLog {
    index: Arc<dyn NodeIndex>,
    clock: Clock,
    shards: [Mutex<Shard>; SHARDS],
    hasher: RandomState,
    nudge: Arc<Notify>,
    /// Whose first use somebody wants to hear of.
    watched: Mutex<HashMap<Digest, OnUse>>,
}

/// What is done at the first use of an item.
pub(in crate::registry) type OnUse = Box<dyn FnOnce() + Send>;

impl UseLog {
    /// An empty log of content in `index`.
    pub fn new(index: Arc<dyn NodeIndex>, clock: Clock) -> Self {
        Self {
            index,
            clock,
            shards: Default::default(),
            hasher: RandomState::new(),
            nudge: Arc::default(),
            watched: Mutex::default(),
        }
    }

    /// The signal that a flush is wanted before its time: the log fills up.
    pub fn nudge_signal(&self) -> Arc<Notify> {
        Arc::clone(&self.nudge)
    }

    /// Notes that an item is used now. Waits for nothing but a few instructions of other callers.
    pub fn note_use(&self, digest: &Digest) {
        let used_at = self.clock.now();
        let mut shard = lock(self.shard_of(digest));
        insert(&mut shard, *digest, used_at);
        let is_filling_up = shard.len() == SHARD_ITEMS / 2;
        drop(shard);
        if is_filling_up {
            self.nudge.notify_one();
        }
    }

    /// Has something done when an item is next used, as the flush after that finds it. When too many are
    /// watched, it is not done.
    pub(in crate::registry) fn watch(&self, digest: &Digest, on_use: OnUse) {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        if watched.len() < MOST_WATCHED {
            watched.insert(*digest, on_use);
        }
    }

    fn tell_of(&self, uses: &[ContentUse]) {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        if watched.is_empty() {
            return;
        }
        for on_use in uses.iter().filter_map(|used| watched.remove(&used.digest)) {
            on_use();
        }
    }

    /// Writes all noted uses to the index; returns how many. Uses that could not be written are
    /// noted again. Dropped at an await point, it may lose the uses of one shard.
    pub async fn flush(&self) -> Result<u64> {
        let mut written = 0;
        for shard in &self.shards {
            let taken = std::mem::take(&mut *lock(shard));
            let uses: Vec<_> =
                taken.into_iter().map(|(digest, used_at)| ContentUse { digest, used_at }).collect();
            self.tell_of(&uses);
            for (position, batch) in uses.chunks(BATCH).enumerate() {
                if let Err(error) = self.index.record_uses(batch).await {
                    put_back(shard, &uses[position * BATCH..]);
                    return Err(error);
                }
                written += batch.len() as u64;
            }
        }
        Ok(written)
    }

    fn shard_of(&self, digest: &Digest) -> &Mutex<Shard> {
        let hash = self.hasher.hash_one(digest);
        &self.shards[usize::try_from(hash % SHARDS as u64).unwrap_or(0)]
    }
}

fn put_back(shard: &Mutex<Shard>, uses: &[ContentUse]) {
    let mut shard = lock(shard);
    for item in uses {
        insert(&mut shard, item.digest, item.used_at);
    }
}

fn insert(shard: &mut Shard, digest: Digest, used_at: Timestamp) {
    let is_full = shard.len() >= SHARD_ITEMS;
    match shard.entry(digest) {
        Entry::Occupied(mut known) => {
            let latest = used_at.max(*known.get());
            known.insert(latest);
        }
        Entry::Vacant(_) if is_full => {}
        Entry::Vacant(place) => {
            place.insert(used_at);
        }
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Callers on different cores rarely meet in one of these.
const SHARDS: usize = 16;

/// The most items a shard notes: about 1.5 MiB for all shards together.
const SHARD_ITEMS: usize = 1024;

/// The most items whose first use is waited for: half a megabyte.
const MOST_WATCHED: usize = 4096;

/// How many uses are written in one transaction: it holds up other writers for some milliseconds.
const BATCH: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::sqlite::SqliteIndex;
    use crate::oci::Algorithm;

    #[tokio::test]
    async fn uses_that_could_not_be_written_are_noted_again() {
        let index = Arc::new(SqliteIndex::in_memory().await.unwrap());
        let log = UseLog::new(index.clone(), Clock::manual(Timestamp::default()));
        for number in 0..100_u32 {
            log.note_use(&Digest::of(Algorithm::Sha256, &number.to_le_bytes()));
        }
        index.close().await;
        for _ in 0..2 {
            assert!(log.flush().await.is_err());
        }
        let index = Arc::new(SqliteIndex::in_memory().await.unwrap());
        assert_eq!(UseLog { index, ..log }.flush().await.unwrap(), 100);
    }
}
