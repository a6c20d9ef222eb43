//! The fill: one transfer of a blob, from upstream or the store of hosted content, shared by everybody who wants it.
//!
//! A fill is a task of the process, not of a request: it goes on when its first client leaves. Its
//! bytes go to a file that grows; a watch channel says how far the file is readable; every reader, first
//! or late, fast or slow, reads the file at its own pace. The last part is held back until the digest of
//! the whole agrees, so that nobody ever holds a complete answer with wrong bytes.

use std::collections::HashMap;
use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::core::Core;
use super::integrity::{self, FoundBy};
use super::pace::Pace;
use super::stored::open_whole;
use super::supplier::Supplier;
use super::transfer::Transfer;
use crate::blobs::hosted::HostedError;
use crate::blobs::{BlobError, BlobFile, FillFile, MemoryShare, Parts};
use crate::metadata::{AccessProof, ContentKind, ContentRecord, Segment};
use crate::oci::Digest;
use crate::upstream::{Priority, UpstreamError, Urgency};

pub(super) use super::fill_failure::FillFailure;

/// How many bytes at the end wait for the digest.
pub(super) const HELD_BACK: u64 = 32 * 1024;

/// How many parts from the network may wait for the disk.
const QUEUE: usize = 8;

/// How long a write may make no progress before readers go on without the disk.
const STUCK_AFTER: Duration = Duration::from_secs(3);

/// All running fills, by digest.
#[derive(Default)]
pub(super) struct Fills(Mutex<HashMap<Digest, Arc<Fill>>>);

/// A running fill, as its readers see it.
pub(super) struct Fill {
    /// Who gives the bytes.
    pub(super) supplier: Supplier,
    progress: watch::Receiver<Progress>,
    /// Cancelled when a client waits for it: then it is slowed by nothing.
    hurry: CancellationToken,
}

/// On whose behalf a fill is begun.
#[derive(Clone, Debug)]
pub(super) enum Errand {
    /// A client waits for it.
    Client,
    /// The node has it fetched ahead of time, perhaps not faster than so.
    Ahead(Option<Arc<Pace>>),
}

/// How far a fill has come.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    pub(super) phase: Phase,
    /// The size of the whole blob in bytes, once known.
    pub(super) size_bytes: Option<u64>,
    /// How many bytes are in the file.
    pub(super) written_bytes: u64,
    /// The growing file, once there is one.
    pub(super) file: Option<BlobFile>,
    /// Whether the blob turned out to be stored already: then no supplier has said that it has it.
    pub(super) is_from_store: bool,
}

/// The phase of a fill.
#[derive(Clone, Debug)]
pub(super) enum Phase {
    /// The supplier has been asked and has not answered.
    Asking,
    /// Bytes come.
    Streaming,
    /// All bytes are there and their digest agrees.
    Verified,
    /// It cannot go on.
    Failed(FillFailure),
}

impl Progress {
    /// How many bytes from the beginning may be given to readers.
    pub(super) fn readable_bytes(&self) -> u64 {
        match self.phase {
            Phase::Verified => self.written_bytes,
            _ => self
                .written_bytes
                .min(self.size_bytes.unwrap_or(self.written_bytes).saturating_sub(HELD_BACK)),
        }
    }
}

impl Fills {
    /// The running fill of a digest.
    pub(super) fn find(&self, digest: &Digest) -> Option<Arc<Fill>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(digest).cloned()
    }

    /// Joins the running fill of a digest, or starts one from `supplier`, for a client. Says whether it
    /// started.
    pub(super) fn join_or_start(
        core: &Arc<Core>,
        supplier: &Supplier,
        digest: &Digest,
        size_bytes: Option<u64>,
    ) -> (Arc<Fill>, bool) {
        Self::run_errand(core, supplier, digest, size_bytes, &Errand::Client)
    }

    /// The same on anybody's behalf. A client that joins a fill makes it as fast as it can be.
    pub(super) fn run_errand(
        core: &Arc<Core>,
        supplier: &Supplier,
        digest: &Digest,
        size_bytes: Option<u64>,
        errand: &Errand,
    ) -> (Arc<Fill>, bool) {
        let mut fills = core.fills.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(fill) = fills.get(digest) {
            if matches!(errand, Errand::Client) {
                fill.hurry.cancel();
            }
            return (Arc::clone(fill), false);
        }
        let progress =
            Progress { phase: Phase::Asking, size_bytes, written_bytes: 0, file: None, is_from_store: false };
        let (sender, receiver) = watch::channel(progress);
        let hurry = CancellationToken::new();
        let fill = Arc::new(Fill { supplier: supplier.clone(), progress: receiver, hurry: hurry.clone() });
        fills.insert(*digest, Arc::clone(&fill));
        drop(fills);
        let urgency = match errand {
            Errand::Client => Urgency::CLIENT,
            Errand::Ahead(_) => Urgency::until_hurried(Priority::Ahead, hurry.clone()),
        };
        let run = Run {
            core: Arc::clone(core),
            supplier: supplier.clone(),
            digest: *digest,
            progress: Arc::new(sender),
            pace: match errand {
                Errand::Client => None,
                Errand::Ahead(pace) => pace.clone(),
            },
            hurry,
            urgency,
        };
        let shutdown = core.tasks.shutdown_token().clone();
        core.tasks.spawn(async move {
            let guard = Listed { core: Arc::clone(&run.core), digest: run.digest };
            // At shutdown no client is left to wait for it; dropping it removes the file.
            let _finished = shutdown.run_until_cancelled(run.run(guard)).await;
        });
        (fill, true)
    }
}

impl Fill {
    /// A view of the progress.
    pub(super) fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }

    /// Whether somebody may be served from it whose own supplier has the blob with `own_bytes`. Of another
    /// one's fill, the size must agree: an upstream that states a larger one moves the end, and with it what is
    /// held back.
    pub(super) fn suits(&self, supplier: &Supplier, own_bytes: Option<u64>, progress: &Progress) -> bool {
        let is_verified = matches!(progress.phase, Phase::Verified);
        is_verified || self.supplier.is(supplier) || own_bytes.is_none() || own_bytes == progress.size_bytes
    }

    /// Waits until the supplier has answered: the fill streams, is done, or has failed.
    pub(super) async fn answered(&self) -> Result<Progress, FillFailure> {
        let mut progress = self.progress.clone();
        let seen = progress.wait_for(|progress| !matches!(progress.phase, Phase::Asking)).await;
        let Ok(progress) = seen.map(|progress| progress.clone()) else { return Err(FillFailure::Vanished) };
        match progress.phase {
            Phase::Failed(failure) => Err(failure),
            _ => Ok(progress),
        }
    }
}

impl Fill {
    /// How many bytes the supplier has given so far; `None` where the blob was here already.
    pub(super) fn fetched_bytes(&self) -> Option<u64> {
        let progress = self.progress.borrow();
        (!progress.is_from_store).then_some(progress.written_bytes)
    }

    /// Whether a client waits, or waited, for it.
    pub(super) fn is_in_a_hurry(&self) -> bool {
        self.hurry.is_cancelled()
    }

    /// Waits until the fill has ended: its content is kept, or why it is not. `saw` is told how many bytes have
    /// come.
    pub(super) async fn ended(&self, mut saw: impl FnMut(u64)) -> Result<(), FillFailure> {
        let mut progress = self.progress.clone();
        loop {
            let is_over = progress.changed().await.is_err();
            let now = progress.borrow_and_update().clone();
            saw(now.written_bytes);
            match now.phase {
                Phase::Failed(failure) => return Err(failure),
                // Verified is not yet durable: the task ends when it is.
                Phase::Verified if is_over => return Ok(()),
                _ if is_over => return Err(FillFailure::Vanished),
                _ => {}
            }
        }
    }
}

/// Takes the fill off the list when its task ends, however it ends.
struct Listed {
    core: Arc<Core>,
    digest: Digest,
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.core.fills.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.digest);
    }
}

/// The fill's own side.
struct Run {
    core: Arc<Core>,
    supplier: Supplier,
    digest: Digest,
    progress: Arc<watch::Sender<Progress>>,
    pace: Option<Arc<Pace>>,
    hurry: CancellationToken,
    urgency: Urgency,
}

impl Run {
    async fn run(self, listed: Listed) {
        let gauge = self.core.metrics.fill_started();
        match self.fill().await {
            Ok(None) => {}
            Ok(Some(_share)) => {
                // Readers have it all, but it is not kept: who comes now tries the disk again.
                drop((listed, gauge));
                self.progress.closed().await;
            }
            Err(failure) => {
                self.report(&failure);
                // Off the list first: who comes after the failure is known starts anew.
                drop(listed);
                self.progress.send_modify(|progress| progress.phase = Phase::Failed(failure));
            }
        }
    }

    /// Gives the share of the memory that the content is in, where the disk did not take it.
    async fn fill(&self) -> Result<Option<MemoryShare>, FillFailure> {
        let expected = self.progress.borrow().size_bytes;
        if let Some(file) = self.find_stored(expected).await {
            // Committed between the look-up of the one who started this and now.
            self.publish_stored(file);
            return Ok(None);
        }
        // Before what comes is listed: an item that is listed and has no file has lost it.
        let (transfer, _was_lost) = tokio::join!(
            Transfer::open(self.urgency.clone(), &self.supplier, &self.digest, 0, expected),
            self.core.condemn_missing(&self.digest, FoundBy::Pull),
        );
        let transfer = transfer?;
        let size_bytes = transfer.total_bytes();
        if size_bytes.is_some_and(|size_bytes| size_bytes > self.core.evictor.budget_bytes()) {
            return Err(FillFailure::TooLarge);
        }
        let file = if self.core.disk.is_slow() {
            self.core.blobs.begin_in_memory(&self.digest, size_bytes)
        } else {
            self.core.blobs.begin(&self.digest, size_bytes).await
        };
        let file = file.map_err(disk)?;
        self.progress.send_modify(|progress| {
            progress.phase = Phase::Streaming;
            progress.size_bytes = size_bytes;
            progress.file = Some(file.reader());
        });
        let (sender, receiver) = mpsc::channel(QUEUE);
        let (fetched, written) = tokio::join!(self.fetch(transfer, sender), self.write(file, receiver));
        // A disk that fails ends the fetch too; then the disk is the cause.
        let file = written?;
        fetched?;
        self.finish(file).await
    }

    async fn find_stored(&self, expected_bytes: Option<u64>) -> Option<BlobFile> {
        let file = open_whole(&self.core, &self.digest).await.ok().flatten()?;
        let is_as_expected = expected_bytes.is_none_or(|bytes| bytes == file.size_bytes());
        (is_as_expected || integrity::is_sound(&self.core, &self.digest).await).then_some(file)
    }

    /// Network to queue. Ends early, without error, when the writer is gone.
    async fn fetch(&self, mut transfer: Transfer, queue: mpsc::Sender<Bytes>) -> Result<(), FillFailure> {
        let limit_bytes = transfer.total_bytes().is_none().then(|| self.core.evictor.budget_bytes());
        let mut fetched_bytes = 0;
        loop {
            // A disk that fails is told to readers at once, also while the supplier is silent.
            let part = tokio::select! {
                part = transfer.next() => part,
                () = queue.closed() => return Ok(()),
            };
            let Some(part) = part else { return Ok(()) };
            let part = part?;
            fetched_bytes += part.len() as u64;
            if limit_bytes.is_some_and(|limit| fetched_bytes > limit) {
                return Err(FillFailure::TooLarge);
            }
            let part_bytes = part.len();
            if queue.send(part).await.is_err() {
                return Ok(());
            }
            if let Some(pace) = &self.pace {
                self.hurry.run_until_cancelled(pace.take(part_bytes)).await;
            }
        }
    }

    /// Queue to file, on a blocking thread while there is something to write.
    async fn write(&self, mut file: FillFile, mut queue: Parts) -> Result<FillFile, FillFailure> {
        while let Some(first) = queue.recv().await {
            let progress = self.progress.clone();
            let published = move |file, written_bytes| {
                progress.send_modify(|progress| {
                    progress.file = Some(file);
                    progress.written_bytes = written_bytes;
                });
            };
            let appended = file.append_queued(first, queue, published);
            (file, queue) = self.in_time(appended).await?.map_err(disk)?;
        }
        Ok(file)
    }

    /// Waits for the disk as long as it makes progress. Readers must not wait for one that is stuck.
    async fn in_time<T>(&self, append: impl Future<Output = T>) -> Result<T, FillFailure> {
        let mut append = pin!(append);
        loop {
            let written_bytes = self.progress.borrow().written_bytes;
            match tokio::time::timeout(STUCK_AFTER, &mut append).await {
                Ok(appended) => return Ok(appended),
                Err(_elapsed) if self.progress.borrow().written_bytes > written_bytes => {}
                Err(_elapsed) => {
                    return Err(disk(BlobError::from_io("write content", io::ErrorKind::TimedOut.into())));
                }
            }
        }
    }

    /// Verifies, releases the held-back part, and only then makes the content durable: no client waits
    /// for the disk.
    async fn finish(&self, file: FillFile) -> Result<Option<MemoryShare>, FillFailure> {
        let size_bytes = file.written_bytes();
        let verified = file.verify().map_err(|error| match error {
            BlobError::DigestMismatch { .. } => {
                self.core.metrics.integrity_failure("fill");
                self.supplier.altered(&self.digest, error.to_string()).into()
            }
            other => disk(other),
        })?;
        self.progress.send_modify(|progress| {
            progress.phase = Phase::Verified;
            progress.size_bytes = Some(size_bytes);
        });
        // Before the file can be found by those who need a proof for it. That the store of hosted content has it
        // gives nobody a right.
        if let Supplier::Upstream(repository) = &self.supplier {
            let (digest, size_bytes) = (self.digest, Some(size_bytes));
            let proof = AccessProof { digest, kind: ContentKind::Blob, size_bytes, media_type: None };
            self.core.record_proofs(&repository.id, vec![proof]).await;
        }
        let share = verified.memory_share();
        match verified.commit().await {
            Ok(_file) => self.record(size_bytes).await,
            Err(error) => self.core.report_unkept(&error, size_bytes),
        }
        Ok(share)
    }

    /// Lists the content in the index. What the index misses is listed when it works again.
    async fn record(&self, size_bytes: u64) {
        let now = self.core.clock.now();
        let content = ContentRecord {
            digest: self.digest,
            kind: ContentKind::Blob,
            size_bytes,
            media_type: None,
            stored_at: now,
            last_used_at: now,
            segment: Segment::Probation,
        };
        if let Err(error) = self.core.index.record_content(&[content]).await {
            self.core.report_metadata(&error);
            self.core.disk.note_unlisted();
        }
        self.core.evictor.note_stored(size_bytes);
        self.core.images.note_change();
    }

    fn publish_stored(&self, file: BlobFile) {
        self.progress.send_modify(|progress| {
            progress.phase = Phase::Verified;
            progress.size_bytes = Some(file.size_bytes());
            progress.written_bytes = file.size_bytes();
            progress.file = Some(file);
            progress.is_from_store = true;
        });
    }

    fn report(&self, failure: &FillFailure) {
        let (repository, digest) = (&self.supplier, &self.digest);
        match failure {
            FillFailure::Upstream(error @ UpstreamError::Offline { .. }) => {
                tracing::debug!(repository.name = %repository, blob.digest = %digest, error = %error, "fill ends");
            }
            // Told when upstream asked for it, and not with each question that is not asked.
            FillFailure::Upstream(
                error @ (UpstreamError::Throttled { .. } | UpstreamError::Reserved { .. }),
            ) => {
                tracing::debug!(repository.name = %repository, blob.digest = %digest, error = %error, "fill waits for upstream's limit");
            }
            FillFailure::Upstream(error) if error.is_transient() => {
                tracing::warn!(repository.name = %repository, blob.digest = %digest, error = %error, "fill failed");
            }
            FillFailure::Upstream(error) => {
                tracing::debug!(repository.name = %repository, blob.digest = %digest, error = %error, "fill refused");
            }
            // What is lost was told when that was noticed.
            FillFailure::Store(error) if matches!(**error, HostedError::Unkept { .. }) => {}
            FillFailure::Store(error) => {
                let error = &**error as &dyn std::error::Error;
                tracing::warn!(blob.digest = %digest, error, "fill from the store of hosted content failed");
            }
            FillFailure::Disk(error) => {
                let size_bytes = self.progress.borrow().size_bytes;
                self.core.report_unkept(error, size_bytes.unwrap_or_default());
            }
            FillFailure::TooLarge => {
                tracing::info!(repository.name = %repository, blob.digest = %digest, "blob is larger than storage.max_size, it passes through");
            }
            FillFailure::Vanished => {}
        }
    }
}

fn disk(error: BlobError) -> FillFailure {
    FillFailure::Disk(Arc::new(error))
}
