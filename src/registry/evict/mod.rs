//! Keeps cached content within its byte budget, by use.
//!
//! The policy is a segmented LRU. Content enters *probation*; a use at least
//! [`SECOND_USE_AFTER`](crate::metadata::SECOND_USE_AFTER) after it was stored moves it to
//! *protected*. What goes first is the least recently used of probation, so a scan (every image
//! once) only pushes out other content that nobody came back for. Protected has half of the budget;
//! what it overflows with goes back to probation as its most recent, and has a second life there.
//! Both numbers, and the policy, were chosen by simulation: `benches/eviction`, `benches/RESULTS.md`.
//!
//! Manifests go when no blob is left to go: their bytes are next to nothing here, and to fetch one
//! again is what upstreams count as a pull. Eviction takes bytes, never
//! rights: proofs and tag observations stay, so that what comes back needs one fetch and no question.
//!
//! What is pinned stays, also where nothing else is left to go; so does what an import that runs relies on.
//!
//! Beside the budget stands what is to stay free on the disk, whoever else fills it: below that, content is
//! evicted in the same order.
//!
//! The budget can be exceeded for as long as a run takes: content is counted when it is whole.
//! Content that is still being filled is in no danger, because only the index is asked for victims
//! and fills enter it last; nor are readers, whose open file outlives its name.

mod hold;
mod metrics;
mod purge;
mod removal;
#[cfg(test)]
mod tests;
mod use_log;

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, Semaphore};

pub use hold::Hold;
pub use metrics::{CacheMetrics, EvictionReason};
pub use use_log::UseLog;

use crate::blobs::{BlobError, Space};
use crate::config::MinFree;
use crate::events::Event;
use crate::metadata::{ContentKind, ContentRecord, PinnedSums, Segment};
use crate::oci::Digest;
use crate::registry::{CacheParts, UpkeepError};
use hold::Holds;
use metrics::gauge_value;
use removal::Removals;

/// Evicts what the policy gives up.
pub struct Evictor {
    parts: CacheParts,
    metrics: CacheMetrics,
    budget_bytes: AtomicU64,
    /// What the index summed up to when last asked, and what was stored since.
    estimated_bytes: AtomicU64,
    /// How much of the disk is to stay free; [`MinFree`].
    min_free: Mutex<MinFree>,
    nudge: Arc<Notify>,
    removals: Removals,
    /// What an import relies on.
    holds: Holds,
    /// One run at a time: two would each evict what both of them found to be too much.
    turn: Semaphore,
}

/// What is to be evicted at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// How many bytes.
    pub bytes: u64,
    /// How many items.
    pub items: u64,
}

/// What a run evicted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evicted {
    /// How many items.
    pub items: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Evictor {
    /// An evictor that holds to a budget. Nothing is counted before the first
    /// [`Self::enforce`].
    pub fn new(parts: CacheParts, metrics: CacheMetrics, budget_bytes: u64) -> Self {
        metrics.budget_bytes.set(gauge_value(budget_bytes));
        Self {
            parts,
            metrics,
            budget_bytes: budget_bytes.into(),
            estimated_bytes: AtomicU64::new(0),
            min_free: Mutex::new(MinFree::Bytes(0)),
            nudge: Arc::default(),
            removals: Removals::default(),
            holds: Holds::default(),
            turn: Semaphore::new(1),
        }
    }

    /// The signal that a run is wanted: what runs [`Self::enforce`] waits for it.
    pub fn nudge_signal(&self) -> Arc<Notify> {
        Arc::clone(&self.nudge)
    }

    /// Notes that content was stored; wants a run when that is over the budget. Costs no I/O.
    pub fn note_stored(&self, bytes: u64) {
        let before = self.estimated_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.nudge_if_over(before.saturating_add(bytes));
    }

    /// The budget.
    pub fn budget_bytes(&self) -> u64 {
        self.budget_bytes.load(Ordering::Relaxed)
    }

    /// Changes the budget; wants a run when the cache is over the new one.
    pub fn set_budget(&self, bytes: u64) {
        self.budget_bytes.store(bytes, Ordering::Relaxed);
        self.metrics.budget_bytes.set(gauge_value(bytes));
        self.nudge_if_over(self.estimated_bytes.load(Ordering::Relaxed));
    }

    /// Changes how much of the disk is to stay free; wants a run. Nothing has to before this is called.
    pub fn set_min_free(&self, min_free: MinFree) {
        *self.min_free.lock().unwrap_or_else(PoisonError::into_inner) = min_free;
        self.nudge();
    }

    /// How many bytes of the disk are to stay free.
    pub fn min_free_bytes(&self, space: Option<Space>) -> u64 {
        let min_free = *self.min_free.lock().unwrap_or_else(PoisonError::into_inner);
        min_free.of(space.map_or(0, |space| space.total_bytes))
    }

    /// The bytes of cached content, as far as that is known without asking.
    pub fn estimated_bytes(&self) -> u64 {
        self.estimated_bytes.load(Ordering::Relaxed)
    }

    /// Wants a run.
    pub fn nudge(&self) {
        self.nudge.notify_one();
    }

    /// Demotes what protected overflows with and, over the budget, evicts down to 2 % below it: one
    /// run for many stores, not one for each.
    ///
    /// Goes around items that cannot be removed, and fails with the last error if the budget could
    /// not be reached so. Dropped at an await point, it leaves at most rows without files, which
    /// the next run removes.
    pub async fn enforce(&self) -> Result<Evicted, UpkeepError> {
        let _turn = self.turn.acquire().await;
        let budget_bytes = self.budget_bytes();
        let Counted { bytes, protected_bytes, pinned } = self.count().await?;
        // What is pinned stays in its segment: the rest of the budget is shared as if it were the whole.
        let protected_limit = part_of(budget_bytes.saturating_sub(pinned.bytes), PROTECTED_PERCENT);
        let protected_bytes = protected_bytes.saturating_sub(pinned.protected_bytes);
        self.demote(protected_bytes.saturating_sub(protected_limit)).await?;
        let evicted = if bytes > budget_bytes {
            let wanted_bytes = bytes - part_of(budget_bytes, 100 - HYSTERESIS_PERCENT);
            let wanted = Room { bytes: wanted_bytes, items: 0 };
            let evicted = self.evict(wanted, EvictionReason::Budget).await?;
            self.tell_of_budget(evicted, budget_bytes);
            evicted
        } else {
            Evicted::default()
        };
        let kept_free = self.keep_free().await?;
        Ok(Evicted { items: evicted.items + kept_free.items, bytes: evicted.bytes + kept_free.bytes })
    }

    fn tell_of_budget(&self, evicted: Evicted, budget_bytes: u64) {
        let pinned_bytes = self.metrics.pinned_bytes.get();
        if pinned_bytes > gauge_value(budget_bytes) {
            tracing::warn!(
                cache.pinned_bytes = pinned_bytes,
                cache.budget_bytes = budget_bytes,
                "pinned content alone is over the budget: raise storage.max_size or unpin something",
            );
        }
        if evicted.items > 0 {
            tracing::info!(
                evicted.items = evicted.items,
                evicted.bytes = evicted.bytes,
                cache.budget_bytes = budget_bytes,
                "evicted content to stay within the budget",
            );
        }
    }

    /// Evicts until as much of the disk is free as is to be, whoever filled it.
    async fn keep_free(&self) -> Result<Evicted, UpkeepError> {
        // A disk that does not say what is left is no reason to evict.
        let Ok(space) = self.parts.blobs.space().await else { return Ok(Evicted::default()) };
        let min_free_bytes = self.min_free_bytes(Some(space));
        if space.free_bytes >= min_free_bytes {
            return Ok(Evicted::default());
        }
        let reserve_bytes = part_of(min_free_bytes, RESERVE_PERCENT);
        let wanted = Room { bytes: min_free_bytes + reserve_bytes - space.free_bytes, items: 0 };
        let evicted = self.evict(wanted, EvictionReason::DiskLow).await?;
        if evicted.items > 0 {
            tracing::info!(
                evicted.items = evicted.items,
                evicted.bytes = evicted.bytes,
                disk.free_bytes = space.free_bytes,
                disk.min_free_bytes = min_free_bytes,
                "evicted content to keep space on the disk free",
            );
        }
        Ok(evicted)
    }

    /// Evicts at least so much, whatever the budget says: the disk is full. Less where the
    /// cache holds no more. Otherwise as [`Self::enforce`].
    pub async fn make_room(&self, room: Room) -> Result<Evicted, UpkeepError> {
        let _turn = self.turn.acquire().await;
        self.count().await?;
        let evicted = self.evict(room, EvictionReason::DiskFull).await?;
        if evicted.items > 0 {
            tracing::warn!(
                evicted.items = evicted.items,
                evicted.bytes = evicted.bytes,
                "evicted content because the disk is full; the budget is larger than the disk allows",
            );
        }
        Ok(evicted)
    }

    fn nudge_if_over(&self, bytes: u64) {
        self.metrics.bytes.set(gauge_value(bytes));
        if bytes > self.budget_bytes() {
            self.nudge.notify_one();
        }
    }

    async fn count(&self) -> Result<Counted, UpkeepError> {
        let (probation_bytes, protected_bytes) = self.parts.index.content_bytes().await?;
        let bytes = probation_bytes.saturating_add(protected_bytes);
        self.estimated_bytes.store(bytes, Ordering::Relaxed);
        self.metrics.bytes.set(gauge_value(bytes));
        let pinned = self.parts.index.sum_pinned().await?;
        self.metrics.pins.set(gauge_value(pinned.pins));
        self.metrics.pinned_bytes.set(gauge_value(pinned.bytes));
        Ok(Counted { bytes, protected_bytes, pinned })
    }

    async fn demote(&self, mut overflow_bytes: u64) -> Result<(), UpkeepError> {
        while overflow_bytes > 0 {
            let index = &self.parts.index;
            let records = index.list_least_used(ContentKind::Blob, Segment::Protected, BATCH).await?;
            if records.is_empty() {
                break;
            }
            let records = take_until(records, overflow_bytes);
            overflow_bytes = overflow_bytes.saturating_sub(sum_bytes(&records));
            self.parts.index.demote_content(&digests_of(&records)).await?;
        }
        Ok(())
    }

    async fn evict(&self, wanted: Room, reason: EvictionReason) -> Result<Evicted, UpkeepError> {
        let mut run =
            Run { reason, forgotten_bytes: 0, evicted: Evicted::default(), stuck: Stuck::default() };
        let held = self.holds.now();
        for (kind, segment) in ORDER {
            while !run.has_freed(wanted) {
                // Items that are stuck or held stay in front: the list is long enough to see past them.
                let limit = BATCH.saturating_add(run.stuck.count()).saturating_add(held.count());
                let mut victims = self.parts.index.list_least_used(kind, segment, limit).await?;
                let is_free = |digest: &Digest| !run.stuck.digests.contains(digest) && !held.contains(digest);
                victims.retain(|record| is_free(&record.digest));
                if victims.is_empty() {
                    break;
                }
                // Where items are wanted and no bytes, all that were looked at go.
                let victims = match wanted.bytes.saturating_sub(run.freed_bytes()) {
                    0 => victims,
                    bytes => take_until(victims, bytes),
                };
                self.remove(victims, &mut run).await?;
            }
        }
        match run.stuck.last_error {
            Some(error) if !run.has_freed(wanted) => Err(error.into()),
            _ => Ok(run.evicted),
        }
    }

    /// Removes files, then their rows.
    ///
    /// In this order, because a crash between the two leaves a row without a file: it stays the
    /// policy's next victim, and a look-up that finds the file gone fetches the content anew. The
    /// other way round it would leave a file without a row: bytes on disk that no budget counts
    /// until a sweep comes by.
    async fn remove(&self, victims: Vec<ContentRecord>, run: &mut Run) -> Result<(), UpkeepError> {
        let mut gone = Vec::with_capacity(victims.len());
        let mut removals = Vec::with_capacity(victims.len());
        for record in victims {
            removals.push(self.begin_removal_in_turn(&record.digest).await);
            match self.parts.blobs.remove(&record.digest).await {
                Ok(was_stored) => {
                    if was_stored {
                        self.note_evicted(&record, run);
                    }
                    gone.push(record);
                }
                Err(error) => {
                    let cause: &dyn std::error::Error = &error;
                    tracing::debug!(blob.digest = %record.digest, error = cause, "an item cannot be evicted");
                    run.stuck.digests.insert(record.digest);
                    run.stuck.last_error = Some(error);
                    if run.stuck.digests.len() > MOST_STUCK {
                        break;
                    }
                }
            }
        }
        self.parts.index.remove_content(&digests_of(&gone)).await?;
        for record in &gone {
            self.parts.events.publish(Event::ContentRemoved { digest: record.digest }).await;
        }
        for record in &gone {
            if !self.keep_if_refilled(record).await? {
                run.forgotten_bytes = run.forgotten_bytes.saturating_add(record.size_bytes);
                self.subtract_estimate(record.size_bytes);
            }
        }
        self.metrics.bytes.set(gauge_value(self.estimated_bytes.load(Ordering::Relaxed)));
        match run.stuck.last_error.take() {
            Some(error) if run.stuck.digests.len() > MOST_STUCK => Err(error.into()),
            last_error => {
                run.stuck.last_error = last_error;
                Ok(())
            }
        }
    }

    fn subtract_estimate(&self, bytes: u64) {
        let subtract = |estimate: u64| Some(estimate.saturating_sub(bytes));
        // It never fails: the closure always gives a value.
        let _before = self.estimated_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, subtract);
    }

    fn note_evicted(&self, record: &ContentRecord, run: &mut Run) {
        run.evicted.items += 1;
        run.evicted.bytes = run.evicted.bytes.saturating_add(record.size_bytes);
        self.metrics.evictions.with_label_values(&[run.reason.as_str()]).inc();
        self.metrics.evicted_bytes.inc_by(record.size_bytes);
    }

    /// Records an item again whose file is back: somebody fetched it between the removal of its file
    /// and of its row, and the row removed may have been the new one. A fill that ends later than this
    /// look records itself.
    async fn keep_if_refilled(&self, removed: &ContentRecord) -> Result<bool, UpkeepError> {
        // What cannot be opened serves nobody: a fill that wants it there reports the fault.
        if !matches!(self.parts.blobs.open(&removed.digest).await, Ok(Some(_))) {
            return Ok(false);
        }
        let now = self.parts.clock.now();
        let record = ContentRecord {
            stored_at: now,
            last_used_at: now,
            segment: Segment::Probation,
            ..removed.clone()
        };
        self.parts.index.record_content(&[record]).await?;
        Ok(true)
    }
}

/// What the index sums up to.
struct Counted {
    bytes: u64,
    protected_bytes: u64,
    pinned: PinnedSums,
}

/// How far a run has come.
struct Run {
    reason: EvictionReason,
    /// What the index counts less.
    forgotten_bytes: u64,
    evicted: Evicted,
    stuck: Stuck,
}

impl Run {
    /// What counts for the reason of the run: a row whose file was gone already takes bytes off the
    /// budget and none off the disk.
    const fn freed_bytes(&self) -> u64 {
        match self.reason {
            EvictionReason::Budget | EvictionReason::Import => self.forgotten_bytes,
            EvictionReason::DiskFull | EvictionReason::DiskLow | EvictionReason::Purge => self.evicted.bytes,
        }
    }

    const fn has_freed(&self, wanted: Room) -> bool {
        self.freed_bytes() >= wanted.bytes && self.evicted.items >= wanted.items
    }
}

/// Items that could not be removed in this run.
#[derive(Default)]
struct Stuck {
    digests: HashSet<Digest>,
    last_error: Option<BlobError>,
}

impl Stuck {
    fn count(&self) -> u32 {
        u32::try_from(self.digests.len()).unwrap_or(u32::MAX)
    }
}

/// The first records that together have `bytes`, or all.
fn take_until(mut records: Vec<ContentRecord>, bytes: u64) -> Vec<ContentRecord> {
    let mut sum_bytes = 0_u64;
    let enough = records.iter().position(|record| {
        sum_bytes = sum_bytes.saturating_add(record.size_bytes);
        sum_bytes >= bytes
    });
    records.truncate(enough.map_or(records.len(), |position| position + 1));
    records
}

fn sum_bytes(records: &[ContentRecord]) -> u64 {
    records.iter().fold(0, |sum, record| sum.saturating_add(record.size_bytes))
}

fn digests_of(records: &[ContentRecord]) -> Vec<Digest> {
    records.iter().map(|record| record.digest).collect()
}

const fn part_of(bytes: u64, percent: u64) -> u64 {
    // Divided first for the whole hundreds: budgets near the type's end must not overflow.
    bytes / 100 * percent + bytes % 100 * percent / 100
}

/// What goes first.
const ORDER: [(ContentKind, Segment); 4] = [
    (ContentKind::Blob, Segment::Probation),
    (ContentKind::Blob, Segment::Protected),
    (ContentKind::Manifest, Segment::Probation),
    (ContentKind::Manifest, Segment::Protected),
];

/// The share of the budget that protected content may take.
///
/// Protected gives nothing up while it does not overflow, so that layers of replaced versions stay in what
/// is too large a share, and new content has too little room to come into use again.
const PROTECTED_PERCENT: u64 = 50;

/// How far below the budget a run evicts.
const HYSTERESIS_PERCENT: u64 = 2;

/// How much more than is to be free a run frees, as a share of that.
const RESERVE_PERCENT: u64 = 10;

/// How many items are looked at together.
const BATCH: u32 = 64;

/// How many items may be impossible to remove before a run gives up: the disk is read-only or broken.
const MOST_STUCK: usize = 64;
