//! Content at rest that is not what it should be: found, taken out of service, and fetched again.
//!
//! It is found by pulls (the size of every file that is opened, and the digest of what goes through memory), by
//! the scrub, which reads everything now and then in the background, and by verification, which does at once and
//! as fast as it can. What is bad is never given out again, is counted and logged once, and comes back from memory
//! or from an upstream whose repository has shown to have it; where that cannot be, the next pull fetches it.
//!
//! What nobody notices in time: a large file that was altered and kept its size is sent as it is until the scrub or
//! a verification comes by, since hits are not hashed. Clients compare digests themselves.

mod damage;
mod heal;
mod index;
mod look;
mod metrics;
mod scrub;
#[cfg(test)]
mod tests;
mod verify;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, Semaphore};

pub use damage::{Damage, FoundBy};
pub use index::IndexFound;
pub(super) use metrics::IntegrityMetrics;
pub use verify::{FindingState, VerifyError, VerifyFinding, VerifyOrder, VerifyState, VerifyStatus};

use self::look::{Gait, Item};
use self::scrub::{Run, Settings};
use self::verify::Verification;
use super::core::Core;
use super::{Registry, RegistryError, UpkeepError};
use crate::auth::RequestContext;
use crate::blobs::BlobError;
use crate::config::ScrubConfig;
use crate::oci::Digest;

/// How many items are fetched again at once for the scrub and for pulls.
const HEALS: usize = 2;

/// How many files are looked at because reading them failed; further ones wait for the scrub.
const MOST_SUSPECTS: usize = 64;

/// What the parts of this share.
pub(super) struct Integrity {
    /// Whose turn it is to read everything.
    turn: Semaphore,
    settings: ArcSwap<Settings>,
    /// The scrub that runs.
    run: Mutex<Option<Run>>,
    /// Calls for a scrub.
    nudge: Arc<Notify>,
    /// The verification that runs, or was the last to.
    verification: Mutex<Option<Arc<Verification>>>,
    heals: Arc<Semaphore>,
    suspects: Mutex<HashSet<Digest>>,
    /// Whose turn it is to look after the index.
    index_turn: Semaphore,
    /// What keeps a damaged index from being replaced, in words for the operator.
    index_condition: Mutex<Option<String>>,
    /// What was read from a damaged index that could not be replaced yet.
    saved: Mutex<Option<index::Saved>>,
}

impl Default for Integrity {
    fn default() -> Self {
        Self {
            turn: Semaphore::new(1),
            settings: ArcSwap::from_pointee(Settings::default()),
            run: Mutex::default(),
            nudge: Arc::default(),
            verification: Mutex::default(),
            heals: Arc::new(Semaphore::new(HEALS)),
            suspects: Mutex::default(),
            index_turn: Semaphore::new(1),
            index_condition: Mutex::default(),
            saved: Mutex::default(),
        }
    }
}

impl Registry {
    /// Changes how often everything is read, and how fast.
    pub fn set_scrub(&self, config: &ScrubConfig) {
        scrub::set(&self.0, config);
    }

    /// Reads what is due and compares it with its digest; ends early when a verification begins, or at shutdown.
    pub async fn scrub(&self) -> Result<(), UpkeepError> {
        scrub::run(&self.0).await
    }

    /// The signal that a scrub is wanted before its time.
    pub fn scrub_signal(&self) -> Arc<Notify> {
        Arc::clone(&self.0.integrity.nudge)
    }

    /// Begins to compare content with its digests, at once; joins a verification of the same order that runs. Says
    /// how it is called, and whether it ran before.
    pub async fn verify(
        &self,
        context: &RequestContext,
        order: VerifyOrder,
    ) -> Result<(String, bool), VerifyError> {
        verify::start(&self.0, context, order).await
    }

    /// How the verification does that runs, or was the last to.
    pub fn find_verification(&self) -> Option<VerifyStatus> {
        verify::find(&self.0)
    }

    /// Stops the verification that runs; gives its name. What it found stays found.
    pub fn cancel_verification(&self) -> Option<String> {
        verify::cancel(&self.0)
    }

    /// Looks through the index; a damaged one is set aside, and another one built from what lies on the disk.
    pub async fn look_after_index(&self) -> Result<IndexFound, UpkeepError> {
        index::look_after(&self.0).await
    }

    /// The signal that the index is to be looked at.
    pub fn index_signal(&self) -> Arc<Notify> {
        self.0.index.doubt_signal()
    }

    /// Counts a damaged index that was set aside before the node served.
    pub fn note_index_replaced(&self) {
        self.0.metrics.integrity.index_replaced();
    }

    /// Why a damaged index is still in use, in words for the operator.
    pub fn index_condition(&self) -> Option<String> {
        self.0.integrity.index_condition.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Core {
    /// Has a stored file looked at that could not be read by somebody who was sent it.
    pub(super) fn suspect(self: &Arc<Self>, digest: &Digest) {
        let digest = *digest;
        {
            let mut suspects = self.integrity.suspects.lock().unwrap_or_else(PoisonError::into_inner);
            if suspects.len() >= MOST_SUSPECTS || !suspects.insert(digest) {
                return;
            }
        }
        let (core, shutdown) = (Arc::clone(self), self.tasks.shutdown_token().clone());
        self.tasks.spawn(async move {
            let _done = shutdown.run_until_cancelled(examine(&core, &digest)).await;
            core.integrity.suspects.lock().unwrap_or_else(PoisonError::into_inner).remove(&digest);
        });
    }
}

async fn examine(core: &Arc<Core>, digest: &Digest) {
    let Some(record) = core.or_nothing(core.index.find_content(digest).await) else { return };
    match look::examine(core, &Item::of(&record), &Gait::Full, FoundBy::Pull, |_| {}).await {
        Ok(look::Settled::Damaged(_)) => heal::later(core, record).await,
        Ok(_) => {}
        Err(error) => {
            tracing::debug!(content.digest = %digest, error = %error, "a suspect cannot be looked at");
        }
    }
}

/// Whether stored content is what its name says although somebody said that it has another size; hashes all of
/// it. What is not is taken out of service. A disk in trouble is not waited for.
pub(super) async fn is_sound(core: &Arc<Core>, digest: &Digest) -> bool {
    if core.disk.is_troubled() {
        return false;
    }
    let item = Item { digest: *digest, size_bytes: None };
    let looked = look::examine(core, &item, &Gait::Full, FoundBy::Pull, |_| {}).await;
    matches!(looked, Ok(look::Settled::Sound))
}

/// Whether stored content has this size and its digest; hashes all of it. What has not is taken out of service.
///
/// Fails where the disk says nothing about the content.
pub(super) async fn is_whole(
    core: &Arc<Core>,
    digest: &Digest,
    size_bytes: u64,
    found_by: FoundBy,
) -> Result<bool, BlobError> {
    let item = Item { digest: *digest, size_bytes: Some(size_bytes) };
    let settled = look::examine(core, &item, &Gait::Full, found_by, |_| {}).await?;
    Ok(settled == look::Settled::Sound)
}

impl From<RegistryError> for VerifyError {
    fn from(error: RegistryError) -> Self {
        Self::Registry(error)
    }
}
