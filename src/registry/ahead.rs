//! Blobs that nobody waits for yet: warmed, prefetched, soon to be exported, or to replace damaged ones, by the same
//! fills as clients' misses.
//!
//! They come after clients: together they take a quarter of what may be asked of an upstream at once, and a
//! client that joins one makes it as fast as it can be.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;

use super::core::Core;
use super::fill::{Errand, FillFailure, Fills};
use super::pace::Pace;
use super::repository::Repository;
use super::supplier::Supplier;
use crate::oci::Descriptor;

/// The share of an upstream's requests at once that clients leave to this.
const SHARE: usize = 4;

/// Who has a blob fetched ahead of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// Somebody ordered the image.
    Warm,
    /// A client pulled the manifest.
    Prefetch,
    /// It was here, and damaged.
    Heal,
    /// A bundle that is being written wants it soon.
    Export,
}

impl Reason {
    /// All of them.
    pub(super) const ALL: [Self; 4] = [Self::Warm, Self::Prefetch, Self::Heal, Self::Export];

    /// The metric label.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Warm => "warm",
            Self::Prefetch => "prefetch",
            Self::Heal => "heal",
            Self::Export => "export",
        }
    }
}

/// The turns of each upstream, by its name and how many they are: a reload may change that.
#[derive(Default)]
pub(super) struct Turns(Mutex<TurnsByUpstream>);

type TurnsByUpstream = HashMap<(Arc<str>, usize), Arc<Semaphore>>;

impl Turns {
    pub(super) fn of(&self, repository: &Repository) -> Arc<Semaphore> {
        let most = (repository.upstream.config().max_concurrent_requests / SHARE).max(1);
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
        Arc::clone(turns.entry((Arc::clone(&repository.id.upstream), most)).or_insert_with(new))
    }
}

/// A blob that was not here, nor on its way for anybody else.
pub(super) struct Fetched {
    /// How much that was, in bytes.
    pub(super) bytes: u64,
    /// Whether a client wanted it before it was all here.
    pub(super) was_joined: bool,
}

/// Fetches a blob that the repository has shown to have, unless it is here (`None`). `saw` is told how many of its
/// bytes are. Dropped at an await point, a fill that runs goes on.
pub(super) async fn fetch(
    core: &Arc<Core>,
    repository: &Repository,
    blob: &Descriptor,
    reason: Reason,
    pace: Option<Arc<Pace>>,
    saw: impl FnMut(u64),
) -> Result<Option<Fetched>, FillFailure> {
    let turns = core.turns.of(repository);
    // Never closed: an error would say so.
    let _turn = turns.acquire().await;
    repository.upstream.require_online().map_err(FillFailure::Upstream)?;
    let errand = Errand::Ahead(pace);
    let supplier = Supplier::Upstream(repository.clone());
    let (fill, started) = Fills::run_errand(core, &supplier, &blob.digest, blob.size_bytes, &errand);
    let ended = fill.ended(saw).await;
    let bytes = fill.fetched_bytes().filter(|_| started);
    if let Some(bytes) = bytes {
        core.metrics.fetched_ahead(reason, bytes);
    }
    ended.map(|()| bytes.map(|bytes| Fetched { bytes, was_joined: fill.is_in_a_hurry() }))
}
