//! Collection: what nobody needs any more goes, beside pushes, mounts, pulls and restores.
//!
//! A run goes from names to bytes, in bounded steps, each a transaction that looks again at what it removes:
//!
//! 1. Namespaces and repositories whose retention is past are sealed (out of reach, their names free) and emptied.
//! 2. Manifests that were deleted, or lost all that held them, longer ago than the retention go, with what only they
//!    held.
//! 3. Links to blobs that no manifest of the repository lists, and that are older than the grace time, go.
//! 4. Blobs without links are condemned; their bytes are removed; they are forgotten.
//! 5. Content of the store that the catalogue does not know goes the same way: it is condemned first, too.
//! 6. Uploads that nothing came for go, and announcements of pushes that never came to their end.
//!
//! **Why nothing goes that is needed.** The grace time spares clients a second push; that nothing acknowledged is lost
//! does not depend on it, nor on any clock:
//!
//! - *Push of a manifest, mount, restore against steps 2 and 3.* Each takes the repository's lock, and the collector
//!   looks again under the same lock. Either the push comes first, and the collector sees that the manifest or link is
//!   needed; or the collector does, and the push finds that a blob is missing, says so, and acknowledges nothing.
//! - *Mount against step 4.* A mount holds the blob's row while it adds its link; to condemn takes the same row. Either the
//!   link is seen, or the mount is told that the blob is leaving.
//! - *Push of a blob against steps 4 and 5.* A push announces the blob before it puts the bytes, and records it
//!   afterwards. To condemn takes the announcement's row, leaves the blob alone where the announcement is of the grace
//!   time, and removes the announcement where it is older. To record a blob that is not in the catalogue needs the
//!   announcement. So whoever announced before the blob was condemned finds, when it records, either the condemned
//!   blob or no announcement; and whoever announces while it is condemned is refused. In both cases the client is told to
//!   try again: bytes that may have been removed between put and record are never acknowledged. Bytes are removed only
//!   while the blob is condemned, so that nobody who announced after it was forgotten has them removed.
//! - *Content that the catalogue does not know* may be of a push that is not over: it has to be older than the grace time in
//!   the store, its announcement is looked at as above, and it is looked at once more after it was condemned; what was
//!   put since stays.
//! - *Pulls.* What is unlinked is not found any more; who has a file open reads on. A manifest without a tag that clients
//!   ask for by digest stays for the retention after that.
//! - *Two collectors.* Bytes must not be removed by one after the other forgot the blob and a client pushed it again: a
//!   lease in the catalogue lets one node at a time do it, and is renewed before each step.
//! - *A crash.* Condemned blobs are where the next run begins. Bytes that a power cut brought back are content that the
//!   catalogue does not know.

mod metrics;
mod run;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

pub use metrics::CollectionMetrics;
pub(super) use metrics::Rule;

use super::{Hosting, HostingError, Result};
use crate::auth::{RequestContext, policy};
use crate::metadata::catalogue::Horizon;
use crate::runtime::Timestamp;

/// What a collection removed, or would.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removals {
    /// Repositories that were deleted longer ago than their retention.
    pub repositories: u64,
    /// Manifests, each as often as repositories lost it.
    pub manifests: u64,
    /// Links between repositories and blobs.
    pub links: u64,
    /// Blobs.
    pub blobs: u64,
    /// Their bytes.
    pub blob_bytes: u64,
    /// Content of the store that the catalogue did not know.
    pub strays: u64,
    /// Its bytes.
    pub stray_bytes: u64,
    /// Uploads that were given up.
    pub uploads: u64,
    /// Their bytes.
    pub upload_bytes: u64,
}

impl Removals {
    /// All bytes that are free again.
    pub const fn freed_bytes(&self) -> u64 {
        self.blob_bytes + self.stray_bytes + self.upload_bytes
    }
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CollectionOutcome {
    /// It came to its end.
    Complete,
    /// The process was told to end; the next run goes on.
    Cut,
    /// Something failed; the next run goes on.
    Failed,
}

impl CollectionOutcome {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Complete, Self::Cut, Self::Failed];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Cut => "cut",
            Self::Failed => "failed",
        }
    }
}

/// A run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectionRun {
    /// Its number since the start of the process.
    pub number: u64,
    /// When it began.
    pub started_at: Timestamp,
    /// When and how it ended; `None` while it runs.
    pub ended: Option<(Timestamp, CollectionOutcome)>,
    /// What failed.
    pub error: Option<String>,
    /// What it has removed so far.
    pub removed: Removals,
}

/// How collection does on this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CollectionState {
    /// The run that is on.
    pub running: Option<CollectionRun>,
    /// The last one that ended.
    pub last: Option<CollectionRun>,
}

/// What a node remembers of its collections.
#[derive(Debug)]
pub(super) struct Collector {
    /// Who this is among the nodes.
    holder: String,
    grace_ms: AtomicU64,
    state: Mutex<CollectionState>,
    pub(super) metrics: CollectionMetrics,
}

impl Collector {
    pub(super) fn new(metrics: CollectionMetrics) -> Self {
        Self {
            holder: format!("{:016x}", fastrand::u64(..)),
            grace_ms: AtomicU64::new(GRACE_MS),
            state: Mutex::default(),
            metrics,
        }
    }

    fn with_state<T>(&self, change: impl FnOnce(&mut CollectionState) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Hosting {
    /// For how long what just came is left alone, even where nothing needs it: a push may be at it.
    pub fn set_collection_grace(&self, grace: Duration) {
        let millis = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        self.0.collector.grace_ms.store(millis, Ordering::Relaxed);
    }

    /// How collection does on this node.
    pub fn collection_state(&self, context: &RequestContext) -> Result<CollectionState> {
        policy::require_administrator(context)?;
        Ok(self.0.collector.with_state(|state| state.clone()))
    }

    /// Begins a run in the background, and says how it stands.
    pub fn start_collection(&self, context: &RequestContext) -> Result<CollectionRun> {
        policy::require_administrator(context)?;
        let begun = self.begin_run()?;
        let (hosting, run) = (self.clone(), begun.clone());
        self.tasks.spawn(async move { hosting.run_collection(run).await });
        Ok(begun)
    }

    /// Runs a collection to its end.
    pub async fn collect(&self, context: &RequestContext) -> Result<CollectionRun> {
        policy::require_administrator(context)?;
        let begun = self.begin_run()?;
        // A task of the process: what was begun is ended, whoever waits.
        let hosting = self.clone();
        let run = self.tasks.spawn(async move { hosting.run_collection(begun).await });
        run.await.map_err(|panicked| HostingError::Conflict(format!("the collection broke off: {panicked}")))
    }

    /// Runs a collection, unless one is running here or elsewhere.
    pub async fn collect_in_background(&self) -> Result<()> {
        let run = match self.collect(&RequestContext::system()).await {
            Err(HostingError::Conflict(_)) => return Ok(()),
            run => run?,
        };
        match run.error {
            Some(error) if run.ended.is_some_and(|(_, outcome)| outcome == CollectionOutcome::Failed) => {
                Err(HostingError::CollectionFailed(error))
            }
            _ => Ok(()),
        }
    }

    /// Tells what a collection would remove now. Changes nothing.
    pub async fn foresee_collection(&self, context: &RequestContext) -> Result<Removals> {
        policy::require_administrator(context)?;
        self.flush_uses().await?;
        let horizon = self.horizon();
        let prospect = self.catalogue.foresee_collection(horizon).await?;
        let mut removed = Removals {
            repositories: prospect.repositories,
            manifests: prospect.manifests,
            links: prospect.links,
            blobs: prospect.blobs,
            blob_bytes: prospect.bytes,
            ..Removals::default()
        };
        self.foresee_strays(horizon, &mut removed).await?;
        let abandoned = self.uploads.find_abandoned(horizon.grace_since).await?;
        (removed.uploads, removed.upload_bytes) = (abandoned.uploads, abandoned.bytes);
        Ok(removed)
    }

    fn horizon(&self) -> Horizon {
        let now = self.clock.now();
        let grace_ms = self.0.collector.grace_ms.load(Ordering::Relaxed);
        Horizon { now, grace_since: Timestamp::from_millis(now.as_millis().saturating_sub(grace_ms)) }
    }

    fn begin_run(&self) -> Result<CollectionRun> {
        let started_at = self.clock.now();
        self.0.collector.with_state(|state| {
            if state.running.is_some() {
                return Err(HostingError::Conflict("a collection is running".to_owned()));
            }
            let number = state.last.as_ref().map_or(1, |last| last.number + 1);
            let removed = Removals::default();
            let run = CollectionRun { number, started_at, ended: None, error: None, removed };
            state.running = Some(run.clone());
            Ok(run)
        })
    }
}

/// The grace time where nothing is said: a day.
const GRACE_MS: u64 = 24 * 3600 * 1000;
