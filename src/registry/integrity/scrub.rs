//! The scrub: everything that is stored is read and compared with its digest, now and then and slowly.
//!
//! The index says what was verified when; what has waited longest is next, and pinned content comes first. So a
//! scrub that was interrupted, by a restart or by anything else, goes on where it was, and content that came lately is
//! not read again at once.

use std::collections::HashSet;
use std::io;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::damage::{Damage, FoundBy};
use super::look::{self, Gait, Item, MOST_UNREADABLE, Settled};
use super::{Integrity, heal};
use crate::blobs::BlobError;
use crate::config::ScrubConfig;
use crate::metadata::ContentRecord;
use crate::oci::Digest;
use crate::registry::UpkeepError;
use crate::registry::core::Core;
use crate::registry::pace::Pace;
use crate::runtime::Timestamp;

/// How many items are looked up at once, and recorded together at most.
const BATCH: u32 = 64;

/// How long at most what was verified is not recorded.
const RECORD_AFTER: Duration = Duration::from_secs(1);

/// How many items may be unverifiable before a run gives up for this time.
const MOST_SKIPPED: usize = 1024;

/// How often everything is read, and how fast.
#[derive(Debug)]
pub(super) struct Settings {
    /// Zero is never.
    every: Duration,
    pace: Arc<Pace>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { every: Duration::ZERO, pace: Arc::new(Pace::new(1)) }
    }
}

/// A scrub that runs; cancelled when a verification wants its turn.
pub(super) type Run = CancellationToken;

impl Integrity {
    /// The rate of the scrub.
    pub(super) fn pace(&self) -> Arc<Pace> {
        Arc::clone(&self.settings.load().pace)
    }

    /// Has the scrub that runs give its turn away.
    pub(super) fn interrupt_scrub(&self) {
        if let Some(run) = &*self.lock_run() {
            run.cancel();
        }
    }

    fn lock_run(&self) -> MutexGuard<'_, Option<Run>> {
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes over the configuration; see [`super::Registry::set_scrub`].
pub(super) fn set(core: &Core, config: &ScrubConfig) {
    let pace = Arc::new(Pace::new(config.rate_bytes));
    core.integrity.settings.store(Arc::new(Settings { every: config.every, pace }));
    core.integrity.nudge.notify_one();
}

/// Scrubs what is due; see [`super::Registry::scrub`].
pub(super) async fn run(core: &Arc<Core>) -> Result<(), UpkeepError> {
    let Ok(_turn) = core.integrity.turn.try_acquire() else { return Ok(()) };
    let run = core.tasks.shutdown_token().child_token();
    *core.integrity.lock_run() = Some(run.clone());
    // After this run can be seen: a verification that begins from now on cancels it.
    let scrubbed = if super::verify::is_running(core) {
        None
    } else {
        run.run_until_cancelled(Scrub::new(core).run()).await
    };
    *core.integrity.lock_run() = None;
    scrubbed.unwrap_or(Ok(()))
}

struct Scrub<'a> {
    core: &'a Arc<Core>,
    /// What was last verified then or before is due; `None` where nothing ever is.
    since: Option<Timestamp>,
    /// What is to be recorded as verified.
    verified: Vec<Digest>,
    recorded_at: Instant,
    /// What cannot be verified in this run: it changes, is being removed, or the disk does not give it.
    skipped: HashSet<Digest>,
    /// How many files were taken out of service because they cannot be read.
    unreadable: usize,
    last_error: Option<BlobError>,
}

impl<'a> Scrub<'a> {
    fn new(core: &'a Arc<Core>) -> Self {
        let every = core.integrity.settings.load().every;
        let every_ms = u64::try_from(every.as_millis()).unwrap_or(u64::MAX);
        // Once for the whole run: what it has verified is not due again before it ends.
        let since = Timestamp::from_millis(core.clock.now().as_millis().saturating_sub(every_ms));
        Self {
            core,
            since: (!every.is_zero()).then_some(since),
            verified: Vec::new(),
            recorded_at: Instant::now(),
            skipped: HashSet::new(),
            unreadable: 0,
            last_error: None,
        }
    }

    async fn run(mut self) -> Result<(), UpkeepError> {
        while self.skipped.len() < MOST_SKIPPED {
            let due = self.find_due().await?;
            if due.is_empty() {
                break;
            }
            for record in due {
                self.look_at(record).await?;
                if self.unreadable >= MOST_UNREADABLE {
                    // A whole disk that fails must not empty the cache: what is still there is tried another time.
                    self.record().await?;
                    return Err(BlobError::from_io("read content anew", io::ErrorKind::Other.into()).into());
                }
            }
            self.record().await?;
        }
        self.last_error.map_or(Ok(()), |error| Err(error.into()))
    }

    async fn find_due(&self) -> Result<Vec<ContentRecord>, UpkeepError> {
        let Some(since) = self.since else { return Ok(Vec::new()) };
        let limit = BATCH.saturating_add(u32::try_from(self.skipped.len()).unwrap_or(u32::MAX));
        let mut due = self.core.index.list_unverified(since, limit).await?;
        due.retain(|record| !self.skipped.contains(&record.digest));
        Ok(due)
    }

    async fn look_at(&mut self, record: ContentRecord) -> Result<(), UpkeepError> {
        let digest = record.digest;
        let gait = Gait::Background;
        match look::examine(self.core, &Item::of(&record), &gait, FoundBy::Scrub, |_| {}).await {
            Ok(Settled::Sound) => self.verified.push(digest),
            Ok(Settled::Damaged(damage)) => {
                self.unreadable += usize::from(damage == Damage::Unreadable);
                // Its row may still be there, where the disk did not let its file go.
                self.skipped.insert(digest);
                heal::later(self.core, record).await;
            }
            Ok(Settled::Gone | Settled::Restless) => drop(self.skipped.insert(digest)),
            Err(error) => {
                self.skipped.insert(digest);
                self.last_error = Some(error);
            }
        }
        if self.recorded_at.elapsed() >= RECORD_AFTER {
            self.record().await?;
        }
        Ok(())
    }

    async fn record(&mut self) -> Result<(), UpkeepError> {
        let verified = std::mem::take(&mut self.verified);
        if !verified.is_empty() {
            self.core.index.record_verified(&verified, self.core.clock.now()).await?;
        }
        self.recorded_at = Instant::now();
        Ok(())
    }
}
