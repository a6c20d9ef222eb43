//! Use case: an administrator has content compared with its digests, at once.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use futures_util::StreamExt as _;
use tokio_util::sync::CancellationToken;

use super::damage::{Damage, FoundBy};
use super::heal::{self, Healed};
use super::index::{self, IndexFound};
use super::look::{self, Gait, Item, MOST_UNREADABLE, Settled};
use crate::auth::{RequestContext, policy};
use crate::metadata::{ContentKind, ContentRecord, HoldingFilter, RepositoryId};
use crate::oci::Digest;
use crate::registry::core::Core;
use crate::registry::pace::Pace;
use crate::registry::{HoldingQuery, RegistryError, holdings};
use crate::runtime::Timestamp;

/// How many rows are read at once.
const PAGE: u32 = 1000;

/// How many items are looked at, or fetched again, at once where no rate is given.
const MOST_AT_ONCE: usize = 4;

/// How many findings are told in full.
const MOST_FINDINGS: usize = 1000;

/// What is to be verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyOrder {
    /// Which content; all of it, and the index, where it says nothing.
    pub query: HoldingQuery,
    /// Whether what is damaged is fetched again at once, and not when it is next asked for.
    pub heals: bool,
    /// The most bytes a second.
    pub rate_bytes: Option<u64>,
}

/// Why a verification was not begun.
#[derive(Clone, Debug, thiserror::Error)]
pub enum VerifyError {
    /// A name of the order means nothing, or the index fails.
    #[error(transparent)]
    Registry(RegistryError),
    /// Another order is being done.
    #[error("verification {0} runs, of another order: wait for its end, or stop it by DELETE")]
    Busy(String),
}

/// How a verification does.
#[derive(Clone, Debug)]
pub struct VerifyStatus {
    /// Its name.
    pub id: String,
    /// How far it is.
    pub state: VerifyState,
    /// Why it failed.
    pub reason: Option<String>,
    /// When it was begun.
    pub begun_at: Timestamp,
    /// How many items it is about; none before they were looked up.
    pub items: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How many of them are done.
    pub checked_items: u64,
    /// How many bytes of them were read.
    pub checked_bytes: u64,
    /// How many were found damaged.
    pub damaged: u64,
    /// How many of these are back.
    pub healed: u64,
    /// How many could not be looked at: they change, or the disk does not give them.
    pub unchecked: u64,
    /// What looking through the index told, where that belongs to it.
    pub index: Option<IndexFound>,
    /// What was found; of very many, the first.
    pub findings: Vec<VerifyFinding>,
}

/// How far a verification is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerifyState {
    /// It runs.
    Running,
    /// Everything was looked at.
    Done,
    /// Somebody stopped it.
    Cancelled,
    /// It could not go on.
    Failed,
}

/// An item that is not sound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyFinding {
    /// Its digest.
    pub digest: Digest,
    /// Blob or manifest.
    pub kind: ContentKind,
    /// The size that it should have, in bytes.
    pub size_bytes: u64,
    /// What is wrong with it; `None` where it could not be looked at.
    pub damage: Option<Damage>,
    /// What became of it.
    pub state: FindingState,
    /// Why it is not back, or could not be looked at.
    pub reason: Option<String>,
}

/// What became of an item that is not sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FindingState {
    /// It is being fetched again.
    Healing,
    /// It is back.
    Healed,
    /// It is not: the next pull fetches it.
    Removed,
    /// It is as it was: it could not be looked at.
    Unchecked,
}

impl VerifyState {
    /// The word in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Done => "done",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
        }
    }
}

impl FindingState {
    /// The word in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Healing => "healing",
            Self::Healed => "healed",
            Self::Removed => "removed",
            Self::Unchecked => "unchecked",
        }
    }
}

/// A verification that runs or is over.
pub(super) struct Verification {
    order: VerifyOrder,
    filter: HoldingFilter,
    cancel: CancellationToken,
    /// How many files were taken out of service because they cannot be read.
    unreadable: AtomicUsize,
    status: Mutex<VerifyStatus>,
}

impl Verification {
    fn lock(&self) -> MutexGuard<'_, VerifyStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_over(&self) -> bool {
        self.lock().state != VerifyState::Running
    }
}

/// Begins a verification, or joins the one that runs; see [`super::Registry::verify`].
pub(super) async fn start(
    core: &Arc<Core>,
    context: &RequestContext,
    order: VerifyOrder,
) -> Result<(String, bool), VerifyError> {
    // What is damaged is removed.
    policy::require(context, policy::Action::Delete).map_err(RegistryError::from)?;
    let filter = holdings::resolve(core, &order.query).await?;
    let id = format!("{:016x}", fastrand::u64(..));
    let status = VerifyStatus {
        id: id.clone(),
        state: VerifyState::Running,
        reason: None,
        begun_at: core.clock.now(),
        items: 0,
        bytes: 0,
        checked_items: 0,
        checked_bytes: 0,
        damaged: 0,
        healed: 0,
        unchecked: 0,
        index: None,
        findings: Vec::new(),
    };
    let verification = Arc::new(Verification {
        order,
        filter,
        cancel: CancellationToken::new(),
        unreadable: AtomicUsize::new(0),
        status: Mutex::new(status),
    });
    {
        let mut latest = lock(core);
        if let Some(running) = latest.as_ref().filter(|running| !running.is_over()) {
            let id = running.lock().id.clone();
            return if running.order == verification.order {
                Ok((id, true))
            } else {
                Err(VerifyError::Busy(id))
            };
        }
        *latest = Some(Arc::clone(&verification));
    }
    // After it can be seen: a scrub that begins from now on gives way.
    core.integrity.interrupt_scrub();
    let (task_core, shutdown) = (Arc::clone(core), core.tasks.shutdown_token().clone());
    core.tasks.spawn(async move {
        let _done = shutdown.run_until_cancelled(Box::pin(run(&task_core, &verification))).await;
    });
    Ok((id, false))
}

/// Whether a verification runs.
pub(super) fn is_running(core: &Core) -> bool {
    lock(core).as_ref().is_some_and(|verification| !verification.is_over())
}

/// How the latest verification does.
pub(super) fn find(core: &Core) -> Option<VerifyStatus> {
    lock(core).as_ref().map(|verification| verification.lock().clone())
}

/// Stops the verification that runs.
pub(super) fn cancel(core: &Core) -> Option<String> {
    let latest = lock(core);
    let running = latest.as_ref().filter(|verification| !verification.is_over())?;
    running.cancel.cancel();
    let mut status = running.lock();
    // At once: another one may begin, and waits for the turn of this one.
    status.state = VerifyState::Cancelled;
    Some(status.id.clone())
}

fn lock(core: &Core) -> MutexGuard<'_, Option<Arc<Verification>>> {
    core.integrity.verification.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn run(core: &Arc<Core>, verification: &Arc<Verification>) {
    let ended = verification.cancel.run_until_cancelled(verify(core, verification)).await;
    let status = {
        let mut status = verification.lock();
        (status.state, status.reason) = match ended {
            None => (VerifyState::Cancelled, None),
            Some(Ok(())) => (VerifyState::Done, None),
            Some(Err(reason)) => (VerifyState::Failed, Some(reason)),
        };
        status.clone()
    };
    tracing::info!(
        verification.id = status.id,
        state = status.state.as_str(),
        reason = status.reason,
        items = status.checked_items,
        bytes = status.checked_bytes,
        damaged = status.damaged,
        healed = status.healed,
        "verification ended"
    );
    // It may have interrupted a scrub.
    core.integrity.nudge.notify_one();
}

async fn verify(core: &Arc<Core>, verification: &Arc<Verification>) -> Result<(), String> {
    // Never closed: an error would say so.
    let _turn = core.integrity.turn.acquire().await;
    if verification.filter == HoldingFilter::default() {
        let found = index::look_after(core).await.map_err(|error| error.to_string())?;
        verification.lock().index = Some(found);
    }
    let targets = list(core, &verification.filter).await.map_err(|error| error.to_string())?;
    {
        let mut status = verification.lock();
        status.items = targets.len() as u64;
        status.bytes = targets.iter().fold(0, |sum, target| sum.saturating_add(target.size_bytes));
    }
    let (gait, at_once) = match verification.order.rate_bytes {
        Some(bytes) => (Gait::Paced(Arc::new(Pace::new(bytes))), 1),
        // Some processors are left to those who are served.
        None => (Gait::Full, (processors() / 2).clamp(1, MOST_AT_ONCE)),
    };
    let looks = futures_util::stream::iter(targets);
    looks.for_each_concurrent(at_once, |target| look_at(core, verification, target, &gait)).await;
    Ok(())
}

fn processors() -> usize {
    thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Finds all that is meant, each item once: what is pinned, and then the rest, in order of digests.
async fn list(core: &Core, filter: &HoldingFilter) -> Result<Vec<ContentRecord>, RegistryError> {
    let mut targets = Vec::new();
    if *filter == HoldingFilter::default() {
        // Also what no repository has shown to have.
        let mut after = None;
        loop {
            let page = core.index.list_content(after.as_ref(), PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.digest);
            targets.extend(page);
        }
    } else {
        let mut last: Option<(RepositoryId, Digest)> = None;
        loop {
            let after = last.as_ref().map(|(id, digest)| (id, digest));
            let page = core.index.list_holdings(filter, after, PAGE).await?;
            let Some(end) = page.last() else { break };
            last = Some((end.repository.clone(), end.content.digest));
            targets.extend(page.into_iter().map(|holding| holding.content));
        }
    }
    let pinned: std::collections::HashSet<_> = core.index.list_pinned_content().await?.into_iter().collect();
    targets.sort_by_key(|target| (!pinned.contains(&target.digest), target.digest));
    targets.dedup_by_key(|target| target.digest);
    Ok(targets)
}

async fn look_at(core: &Arc<Core>, verification: &Verification, target: ContentRecord, gait: &Gait) {
    if verification.unreadable.load(Ordering::Relaxed) >= MOST_UNREADABLE {
        // A whole disk that fails must not empty the cache.
        return verification
            .note_unchecked(&target, "too many files cannot be read: see to the disk".to_owned());
    }
    let saw = |bytes| verification.lock().checked_bytes += bytes;
    let settled = look::examine(core, &Item::of(&target), gait, FoundBy::Verify, saw).await;
    match settled {
        Ok(Settled::Sound) => {
            let recorded = core.index.record_verified(&[target.digest], core.clock.now()).await;
            core.or_nothing(recorded);
        }
        Ok(Settled::Gone) => {}
        Ok(Settled::Damaged(damage)) => {
            let is_unreadable = usize::from(damage == Damage::Unreadable);
            verification.unreadable.fetch_add(is_unreadable, Ordering::Relaxed);
            heal_and_tell(core, verification, target, damage).await;
        }
        Ok(Settled::Restless) => {
            verification.note_unchecked(&target, "it changed whenever it was looked at".to_owned());
        }
        Err(error) => verification.note_unchecked(&target, error.to_string()),
    }
    verification.lock().checked_items += 1;
}

async fn heal_and_tell(core: &Arc<Core>, verification: &Verification, target: ContentRecord, damage: Damage) {
    let heals = verification.order.heals;
    let state = if heals { FindingState::Healing } else { FindingState::Removed };
    let place =
        verification.note(VerifyFinding { damage: Some(damage), state, ..VerifyFinding::of(&target) });
    if !heals {
        return;
    }
    let healed = heal::heal(core, &target).await;
    let mut status = verification.lock();
    let (state, reason) = match healed {
        Healed::Memory | Healed::Upstream => (FindingState::Healed, None),
        Healed::Unavailable(reason) | Healed::Failed(reason) => (FindingState::Removed, Some(reason)),
    };
    status.healed += u64::from(state == FindingState::Healed);
    if let Some(finding) = place.and_then(|place| status.findings.get_mut(place)) {
        (finding.state, finding.reason) = (state, reason);
    }
}

impl Verification {
    /// Notes a finding; gives its place, where there is still one.
    fn note(&self, finding: VerifyFinding) -> Option<usize> {
        let mut status = self.lock();
        if finding.damage.is_some() {
            status.damaged += 1;
        } else {
            status.unchecked += 1;
        }
        let place = status.findings.len();
        (place < MOST_FINDINGS).then(|| {
            status.findings.push(finding);
            place
        })
    }

    fn note_unchecked(&self, target: &ContentRecord, reason: String) {
        let _place = self.note(VerifyFinding { reason: Some(reason), ..VerifyFinding::of(target) });
    }
}

impl VerifyFinding {
    fn of(record: &ContentRecord) -> Self {
        Self {
            digest: record.digest,
            kind: record.kind,
            size_bytes: record.size_bytes,
            damage: None,
            state: FindingState::Unchecked,
            reason: None,
        }
    }
}
