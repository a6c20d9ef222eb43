//! What ails this node's disk: noticed where it fails, told to people, and gone as soon as it works again.
//!
//! A disk that fails is tried again by everybody who could use it: nothing here keeps anybody from it. A pull
//! that the disk fails passes through; that is said once a minute at most, however many there are.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::core::Core;
use super::evict::Room;
use super::{CacheParts, Rebuild};
use crate::blobs::{BlobError, DiskCause, Space};
use crate::metadata::MetadataError;

/// How long the same trouble is not logged again.
const QUIET: Duration = Duration::from_mins(1);

/// How long after the index refused files again they are offered next.
const LIST_AGAIN: Duration = Duration::from_secs(5);

/// What content needs on a disk beside its bytes: directories, the index, whole blocks.
const OVERHEAD_BYTES: u64 = 1024 * 1024;

/// How many items are evicted at once where no more files can be made.
const ROOM_FILES: u64 = 256;

/// How the disk does.
#[derive(Default)]
pub(super) struct DiskState(Mutex<State>);

#[derive(Default)]
struct State {
    trouble: Option<Trouble>,
    /// What is left is less than is to be left, in words.
    shortage: Option<String>,
    /// Since when each cause is kept quiet about, and how often it came since.
    quiet: Vec<(&'static str, Instant, u64)>,
    /// Whether the index misses files that were stored while it failed; not before when it is compared again.
    unlisted: Option<Instant>,
}

struct Trouble {
    cause: DiskCause,
    since: Instant,
    reason: String,
}

impl DiskState {
    /// What ails the disk, in words for the operator.
    pub(super) fn condition(&self) -> Option<String> {
        self.with(|state| {
            let trouble = state.trouble.as_ref().map(|trouble| {
                format!("{}: {}; content passes through", trouble.cause.as_str(), trouble.reason)
            });
            trouble.or_else(|| state.shortage.clone())
        })
    }

    /// Notes that the index misses files which lie on the disk.
    pub(super) fn note_unlisted(&self) {
        self.with(|state| {
            state.unlisted.get_or_insert_with(Instant::now);
        });
    }

    /// Whether something is to be logged now; then also how often it was kept quiet about before.
    pub(super) fn is_news(&self, what: &'static str) -> Option<u64> {
        self.with(|state| {
            let now = Instant::now();
            let Some(known) = state.quiet.iter_mut().find(|(known, ..)| *known == what) else {
                state.quiet.push((what, now, 0));
                return Some(0);
            };
            if known.1.elapsed() < QUIET {
                known.2 += 1;
                return None;
            }
            known.1 = now;
            Some(std::mem::take(&mut known.2))
        })
    }

    /// Whether the disk did not answer in time when it was last tried: nobody waits for it until it does.
    pub(super) fn is_slow(&self) -> bool {
        self.with(|state| state.trouble.as_ref().is_some_and(|trouble| trouble.cause == DiskCause::Slow))
    }

    /// Whether the disk failed when it was last tried.
    pub(super) fn is_troubled(&self) -> bool {
        self.with(|state| state.trouble.is_some())
    }

    /// The cause of a failure, told from what is known of the disk: the system says of a disk without inodes
    /// that it is full, and only [`watch`] asks which of both it is.
    fn tell_apart(&self, cause: DiskCause) -> DiskCause {
        let lacks_files = || {
            self.with(|state| {
                state.trouble.as_ref().is_some_and(|trouble| trouble.cause == DiskCause::Inodes)
            })
        };
        if cause == DiskCause::Full && lacks_files() { DiskCause::Inodes } else { cause }
    }

    /// Notes a trouble, or what it turned into; gives the cause that it was known by before.
    fn note(&self, cause: DiskCause, reason: String) -> Option<DiskCause> {
        self.with(|state| {
            let known = state.trouble.as_ref().map(|trouble| (trouble.cause, trouble.since));
            let since = known.map_or_else(Instant::now, |(_, since)| since);
            state.trouble = Some(Trouble { cause, since, reason });
            known.map(|(cause, _)| cause)
        })
    }

    fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Core {
    /// Counts and logs that the disk failed; what was to be kept passes through.
    pub(super) fn report_disk(&self, error: &BlobError) {
        self.report_unkept(error, 0);
    }

    /// Like [`Core::report_disk`], of content of `size_bytes` that was to be kept. A full disk is given
    /// room for it by eviction, so that what comes next can be kept again.
    pub(super) fn report_unkept(&self, error: &BlobError, size_bytes: u64) {
        let cause = self.disk.tell_apart(error.cause());
        self.metrics.disk_failed(cause);
        let reason = describe(error);
        if let Some(unlogged) = self.disk.is_news(cause.as_str()) {
            tracing::error!(
                disk.cause = cause.as_str(),
                error = reason,
                unlogged,
                "disk cannot keep content, it passes through"
            );
        }
        self.note_trouble(cause, reason);
        let is_full = matches!(cause, DiskCause::Full | DiskCause::Inodes);
        if is_full && !self.makes_room.swap(true, Ordering::Relaxed) {
            let (evictor, makes_room) = (Arc::clone(&self.evictor), Arc::clone(&self.makes_room));
            let blobs = Arc::clone(&self.blobs);
            self.tasks.spawn(async move {
                let space = blobs.space().await.ok();
                let room =
                    room_for(size_bytes, evictor.min_free_bytes(space), space, evictor.estimated_bytes());
                if let Err(error) = evictor.make_room(room).await {
                    tracing::warn!(error = %error, "disk is full and nothing can be evicted");
                }
                makes_room.store(false, Ordering::Relaxed);
            });
        }
    }

    /// Counts and logs that the index failed; what it does not know will be asked for again.
    pub(super) fn report_metadata(&self, error: &MetadataError) {
        self.metrics.index_failed();
        if error.is_damage() {
            self.index.doubt_signal().notify_one();
        }
        if let Some(unlogged) = self.disk.is_news("index") {
            tracing::error!(error = describe(error), unlogged, "index failed, upstream is asked instead");
        }
    }

    fn note_trouble(&self, cause: DiskCause, reason: String) {
        if let Some(known) = self.disk.note(cause, reason)
            && known != cause
        {
            self.metrics.disk_trouble(known, 0);
        }
        self.metrics.disk_trouble(cause, 1);
    }
}

/// Looks after the disk, every few seconds: tries a troubled one, tells what is left, and has content
/// evicted before nothing is.
pub(super) async fn watch(core: &Core) {
    let probed = if core.disk.is_troubled() { Some(core.blobs.probe().await) } else { None };
    // Not before it was tried: what was free then may have been taken since.
    let space = core.blobs.space().await;
    match probed {
        Some(Ok(())) => recover(core),
        Some(Err(error)) => {
            let lacks_files = space.as_ref().is_ok_and(Space::lacks_files);
            let cause = match error.cause() {
                DiskCause::Full if lacks_files => DiskCause::Inodes,
                cause => cause,
            };
            core.note_trouble(cause, describe(&error));
        }
        None => {}
    }
    match space {
        Ok(space) => watch_space(core, space),
        Err(error) => core.report_disk(&error),
    }
    if !core.disk.is_troubled() {
        list_unlisted(core).await;
    }
}

fn recover(core: &Core) {
    let Some(trouble) = core.disk.with(|state| state.trouble.take()) else { return };
    core.metrics.disk_trouble(trouble.cause, 0);
    tracing::info!(
        disk.cause = trouble.cause.as_str(),
        duration_ms = u64::try_from(trouble.since.elapsed().as_millis()).unwrap_or(u64::MAX),
        "disk takes content again"
    );
}

fn watch_space(core: &Core, space: Space) {
    let min_free_bytes = core.evictor.min_free_bytes(Some(space));
    core.metrics.disk_space(space.free_bytes, min_free_bytes);
    let is_short = space.free_bytes < min_free_bytes;
    if is_short {
        core.evictor.nudge();
    }
    let shortage = is_short.then(|| {
        let free_bytes = space.free_bytes;
        format!("{free_bytes} bytes are free on the disk, storage.min_free asks for {min_free_bytes}")
    });
    let was_short = core.disk.with(|state| std::mem::replace(&mut state.shortage, shortage).is_some());
    if is_short && !was_short && core.disk.is_news("shortage").is_some() {
        tracing::warn!(
            disk.free_bytes = space.free_bytes,
            disk.min_free_bytes = min_free_bytes,
            "less than storage.min_free is left on the disk, content is evicted"
        );
    }
}

/// Brings files into the index that it did not take while it failed: no budget counts them before.
async fn list_unlisted(core: &Core) {
    let is_due = core.disk.with(|state| state.unlisted.take_if(|due| *due <= Instant::now()).is_some());
    if !is_due {
        return;
    }
    let parts = CacheParts {
        index: Arc::clone(&core.index),
        blobs: Arc::clone(&core.blobs),
        events: Arc::clone(&core.events),
        clock: core.clock.clone(),
    };
    match Rebuild::new(parts, core.tasks.clone()).sweep().await {
        Ok(rebuilt) => {
            tracing::info!(recorded = rebuilt.recorded, "the index takes content again");
            core.evictor.nudge();
        }
        Err(_still_failing) => core.disk.with(|state| state.unlisted = Some(Instant::now() + LIST_AGAIN)),
    }
}

/// What is to be evicted so that content of `size_bytes` fits. Nothing where it would not fit whatever goes: a
/// blob larger than the disk must not empty the cache.
fn room_for(size_bytes: u64, min_free_bytes: u64, space: Option<Space>, cached_bytes: u64) -> Room {
    let needed_bytes = size_bytes.saturating_add(OVERHEAD_BYTES);
    let Some(space) = space else { return Room { bytes: needed_bytes, items: 0 } };
    let items = if space.lacks_files() { ROOM_FILES } else { 0 };
    if needed_bytes > space.free_bytes.saturating_add(cached_bytes) {
        return Room { bytes: 0, items };
    }
    let wanted_bytes = needed_bytes.saturating_add(min_free_bytes);
    Room { bytes: wanted_bytes.saturating_sub(space.free_bytes), items }
}

/// An error and all that caused it, in one line.
fn describe(error: &(dyn std::error::Error + 'static)) -> String {
    let chain = std::iter::successors(Some(error), |error| error.source());
    chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn space(free_bytes: u64, free_files: u64) -> Space {
        Space { total_bytes: 100 * MIB, free_bytes, free_files: Some(free_files) }
    }

    #[test]
    fn room_is_made_for_what_can_fit_and_for_nothing_else() {
        let room = |bytes, items| Room { bytes, items };
        assert_eq!(room_for(10 * MIB, 2 * MIB, Some(space(MIB, 9)), 50 * MIB), room(12 * MIB, 0));
        assert_eq!(
            room_for(10 * MIB, 2 * MIB, Some(space(60 * MIB, 9)), 30 * MIB),
            room(0, 0),
            "it is there"
        );
        assert_eq!(room_for(90 * MIB, 2 * MIB, Some(space(MIB, 9)), 50 * MIB), room(0, 0), "it never fits");
        assert_eq!(room_for(MIB, 0, Some(space(60 * MIB, 0)), 30 * MIB), room(0, ROOM_FILES));
        assert_eq!(room_for(MIB, 0, None, 30 * MIB), room(2 * MIB, 0));
    }

    #[test]
    fn a_disk_without_inodes_is_not_called_full_by_the_next_failure() {
        let disk = DiskState::default();
        assert_eq!(disk.tell_apart(DiskCause::Full), DiskCause::Full, "nothing is known yet");
        disk.note(DiskCause::Inodes, String::from("no more files"));
        assert_eq!(disk.tell_apart(DiskCause::Full), DiskCause::Inodes);
        assert_eq!(disk.tell_apart(DiskCause::Io), DiskCause::Io);
        disk.note(DiskCause::Full, String::from("asked again"));
        assert_eq!(disk.tell_apart(DiskCause::Full), DiskCause::Full);
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_trouble_is_news_once_a_minute() {
        let disk = DiskState::default();
        assert_eq!(disk.is_news("full"), Some(0));
        for _ in 0..5 {
            assert_eq!(disk.is_news("full"), None);
        }
        assert_eq!(disk.is_news("io"), Some(0));
        tokio::time::advance(QUIET).await;
        assert_eq!(disk.is_news("full"), Some(5));
        assert_eq!(disk.is_news("full"), None);
    }
}
