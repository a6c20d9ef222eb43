//! The production policy itself: Tidegate's evictor, its log of uses and its index, over a store that
//! keeps no bytes, at the trace's time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tidegate::blobs::{BlobError, BlobFile, Blobs, FillFile, FoundBlob, Inspection, Space};
use tidegate::events::LocalEvents;
use tidegate::metadata::sqlite::SqliteIndex;
use tidegate::metadata::{ContentIndex as _, ContentKind, ContentRecord, Segment};
use tidegate::oci::{Algorithm, Digest};
use tidegate::registry::{CacheMetrics, CacheParts, Evictor, UseLog};
use tidegate::runtime::{Clock, Timestamp};
use tokio::sync::mpsc;

use crate::measure::Hits;
use crate::trace::{Item, Trace};

/// A node's cache: all that decides about eviction.
pub(crate) struct Node {
    index: Arc<SqliteIndex>,
    shelf: Arc<Shelf>,
    clock: Clock,
    uses: UseLog,
    evictor: Evictor,
    next_flush: Timestamp,
    stored_bytes: u64,
    /// What the evictor did.
    pub(crate) work: Work,
}

/// How often the evictor ran, and what it took.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Work {
    /// Runs over the budget.
    pub(crate) runs: u64,
    /// Items evicted.
    pub(crate) items: u64,
}

impl Node {
    /// An empty cache.
    pub(crate) fn new(index: SqliteIndex, capacity_bytes: u64) -> anyhow::Result<Self> {
        let (index, shelf) = (Arc::new(index), Arc::new(Shelf::default()));
        let clock = Clock::manual(START);
        Self::with(index, shelf, clock, capacity_bytes)
    }

    fn with(
        index: Arc<SqliteIndex>,
        shelf: Arc<Shelf>,
        clock: Clock,
        capacity_bytes: u64,
    ) -> anyhow::Result<Self> {
        let parts = CacheParts {
            index: index.clone(),
            blobs: shelf.clone(),
            events: Arc::new(LocalEvents::default()),
            clock: clock.clone(),
        };
        let metrics = CacheMetrics::new(&prometheus::Registry::new())?;
        Ok(Self {
            uses: UseLog::new(index.clone(), clock.clone()),
            evictor: Evictor::new(parts, metrics, capacity_bytes),
            next_flush: clock.now(),
            stored_bytes: 0,
            work: Work::default(),
            index,
            shelf,
            clock,
        })
    }

    /// The node as it starts again with another connection to its index: what was in memory is lost.
    #[cfg(test)]
    pub(crate) fn restarted(self, index: SqliteIndex) -> anyhow::Result<Self> {
        let capacity_bytes = self.evictor.budget_bytes();
        let node = Self::with(Arc::new(index), self.shelf, self.clock, capacity_bytes)?;
        Ok(Self { next_flush: self.next_flush, stored_bytes: self.stored_bytes, work: self.work, ..node })
    }

    /// Ends as a process that is told to does: the last uses are written, the index is closed.
    #[cfg(test)]
    pub(crate) async fn stop(&self) -> anyhow::Result<()> {
        self.uses.flush().await?;
        self.index.close().await;
        Ok(())
    }

    /// Serves the requests of a trace from `from` up to `to`.
    pub(crate) async fn replay(
        &mut self,
        trace: &Trace,
        part: std::ops::Range<usize>,
    ) -> anyhow::Result<Hits> {
        let digests: Vec<_> = (0..trace.items.len()).map(digest_of).collect();
        let mut hits = Hits::default();
        for request in &trace.requests[part] {
            let item = trace.items[request.item];
            let is_hit = self.serve(request.at_ms, &digests[request.item], item).await?;
            hits.count(item, is_hit);
        }
        Ok(hits)
    }

    async fn serve(&mut self, at_ms: u64, digest: &Digest, item: Item) -> anyhow::Result<bool> {
        let now = START.after(Duration::from_millis(at_ms));
        if now >= self.next_flush {
            self.uses.flush().await?;
            self.next_flush = now.after(FLUSH_PERIOD);
        }
        self.clock.advance(now.since(self.clock.now()));
        if self.shelf.holds(digest) {
            self.uses.note_use(digest);
            return Ok(true);
        }
        if item.size_bytes <= self.evictor.budget_bytes() {
            self.store(digest, item).await?;
        }
        Ok(false)
    }

    async fn store(&mut self, digest: &Digest, item: Item) -> anyhow::Result<()> {
        let now = self.clock.now();
        let kind = if item.is_manifest { ContentKind::Manifest } else { ContentKind::Blob };
        let record = ContentRecord {
            digest: *digest,
            kind,
            size_bytes: item.size_bytes,
            media_type: None,
            stored_at: now,
            last_used_at: now,
            segment: Segment::Probation,
        };
        self.shelf.put(digest, item.size_bytes);
        self.index.record_content(&[record]).await?;
        self.evictor.note_stored(item.size_bytes);
        self.stored_bytes += item.size_bytes;
        if self.stored_bytes > self.evictor.budget_bytes() {
            // As the worker does it.
            self.uses.flush().await?;
            let evicted = self.evictor.enforce().await?;
            self.work.runs += 1;
            self.work.items += evicted.items;
            self.stored_bytes -= evicted.bytes;
        }
        Ok(())
    }
}

/// Replays a trace with an index in memory.
pub(crate) fn replay(trace: &Trace, capacity_bytes: u64) -> anyhow::Result<(Hits, Work)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut node = Node::new(SqliteIndex::in_memory().await?, capacity_bytes)?;
        let hits = node.replay(trace, 0..trace.requests.len()).await?;
        Ok((hits, node.work))
    })
}

fn digest_of(number: usize) -> Digest {
    Digest::of(Algorithm::Sha256, &number.to_be_bytes())
}

/// A store that knows only what is there, and its sizes.
#[derive(Default)]
struct Shelf(Mutex<HashMap<Digest, u64>>);

impl Shelf {
    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn holds(&self, digest: &Digest) -> bool {
        self.lock().contains_key(digest)
    }

    fn put(&self, digest: &Digest, size_bytes: u64) {
        self.lock().insert(*digest, size_bytes);
    }
}

#[async_trait]
impl Blobs for Shelf {
    /// Nobody fetches what is being evicted.
    async fn open(&self, _digest: &Digest) -> Result<Option<BlobFile>, BlobError> {
        Ok(None)
    }

    async fn begin(&self, _digest: &Digest, _size_bytes: Option<u64>) -> Result<FillFile, BlobError> {
        Err(BlobError::Io { action: "begin a fill", source: std::io::ErrorKind::Unsupported.into() })
    }

    fn begin_in_memory(&self, _digest: &Digest, _size_bytes: Option<u64>) -> Result<FillFile, BlobError> {
        Err(BlobError::Io { action: "begin a fill", source: std::io::ErrorKind::Unsupported.into() })
    }

    async fn remove(&self, digest: &Digest) -> Result<bool, BlobError> {
        Ok(self.lock().remove(digest).is_some())
    }

    /// Nobody looks for damage either.
    async fn inspect(&self, _digest: &Digest) -> Result<Option<Inspection>, BlobError> {
        Ok(None)
    }

    async fn condemn(&self, digest: &Digest, _file: Option<&BlobFile>) -> Result<bool, BlobError> {
        self.remove(digest).await
    }

    fn is_condemned(&self, _digest: &Digest) -> bool {
        false
    }

    /// Only the budget limits it.
    async fn space(&self) -> Result<Space, BlobError> {
        Ok(Space { total_bytes: u64::MAX, free_bytes: u64::MAX, free_files: None })
    }

    async fn probe(&self) -> Result<(), BlobError> {
        Ok(())
    }

    async fn list(&self) -> Result<mpsc::Receiver<Result<Vec<FoundBlob>, BlobError>>, BlobError> {
        Ok(mpsc::channel(1).1)
    }
}

/// When every trace begins: an hour of no meaning.
const START: Timestamp = Timestamp::from_millis(1_790_000_000_000);

/// How often the product writes the log of uses.
const FLUSH_PERIOD: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::{Contender, replay as replay_with};
    use crate::policy::Rules;
    use crate::trace::{Model, VARIANTS, make};

    fn small_trace() -> Trace {
        make(&Model { pulls: 250, repositories: 40, ..VARIANTS[0] }, 1)
    }

    /// A tenth of all bytes: enough to evict all the time.
    fn capacity_bytes(trace: &Trace) -> u64 {
        trace.working_set_bytes() / 10
    }

    #[test]
    fn the_model_of_segmented_lru_hits_what_the_evictor_hits() {
        let trace = small_trace();
        let (hits, work) = replay(&trace, capacity_bytes(&trace)).unwrap();
        let modelled = replay_with(&trace, capacity_bytes(&trace), Contender::Segmented(Rules::TIDEGATE));
        assert!(work.runs > 10 && work.items > 100, "{work:?}");
        assert_eq!(hits, modelled);
    }

    #[test]
    fn a_restart_changes_no_decision() {
        let trace = small_trace();
        let undisturbed = replay(&trace, capacity_bytes(&trace)).unwrap().0;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        assert_eq!(runtime.block_on(replay_with_restarts(&trace)), undisturbed);
    }

    async fn replay_with_restarts(trace: &Trace) -> Hits {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(SqliteIndex::FILE_NAME);
        let open = async || SqliteIndex::open(&path, &Clock::system()).await.unwrap();
        let mut node = Node::new(open().await, capacity_bytes(trace)).unwrap();
        let mut hits = Hits::default();
        let third = trace.requests.len() / 3;
        for part in [0..third, third..2 * third, 2 * third..trace.requests.len()] {
            hits += node.replay(trace, part).await.unwrap();
            node.stop().await.unwrap();
            node = node.restarted(open().await).unwrap();
        }
        hits
    }
}
