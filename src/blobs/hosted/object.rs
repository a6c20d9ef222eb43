//! Hosted content in an object store.
//!
//! Content is read from its staged file with its digest compared again, sent in parts that the store verifies as far as
//! it can, and asked for afterwards: what the store has is what counts, not what it answered.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use object_store::path::Path;
use object_store::signer::Method;
use object_store::{GetOptions, ObjectMeta, ObjectStoreExt as _};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinError, JoinHandle};
use tokio::time::timeout;

use super::journal::Journal;
use super::provider::Provider;
use super::staged::StagedReader;
use super::{
    BlobListing, BlobStream, DurableBlobs, HostedBlob, HostedError, Result, StagedBlob, Step, Steps,
};
use crate::blobs::FoundBlob;
use crate::blobs::local::LIST_BATCH;
use crate::config::ObjectStoreConfig;
use crate::oci::{Algorithm, Digest, Hasher};
use crate::runtime::{Tasks, Timestamp};

/// How much of what an object store says about content is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirmation {
    /// Its size is asked for after each put.
    Size,
    /// The content is read back after each put, and its digest compared.
    Content,
}

/// How an object store is used.
#[derive(Clone, Debug)]
pub struct ObjectSettings {
    /// What is believed.
    pub confirmation: Confirmation,
    /// How long one request may take, with all its repetitions.
    pub patience: Duration,
    /// The size of the parts that larger content is sent in, in bytes; stores want 5 MiB at least.
    pub part_bytes: u64,
    /// How many parts are on their way at once, of all content together. With their size, the memory that they take.
    pub parts: usize,
    /// A directory of this node for what must be cleaned up after a crash.
    pub journal: PathBuf,
}

/// What is tried when content is sent.
const SEND: &str = "send content";

/// How many parts of one blob are on their way at once.
const PARTS_AT_ONCE: usize = 4;

/// Keeps content in an object store.
#[derive(Clone, Debug)]
pub struct ObjectBlobs(Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) provider: Provider,
    prefix: Path,
    pub(super) settings: ObjectSettings,
    pub(super) journal: Arc<Journal>,
    /// As many as parts may be in memory.
    pub(super) room: Arc<Semaphore>,
    pub(super) tasks: Tasks,
    steps: Steps,
}

impl ObjectSettings {
    /// What suits most stores: 64 MiB of memory, and sizes believed.
    pub fn new(journal: PathBuf) -> Self {
        Self {
            confirmation: Confirmation::Size,
            patience: Duration::from_mins(3),
            part_bytes: 8 * 1024 * 1024,
            parts: 8,
            journal,
        }
    }

    pub(super) const fn parts_at_once(&self) -> usize {
        if self.parts < PARTS_AT_ONCE { self.parts } else { PARTS_AT_ONCE }
    }
}

impl ObjectBlobs {
    /// Takes the store of a configuration into use. Asks it nothing yet. `tls` names no protocols.
    ///
    /// Blocks; meant for the start of the process.
    pub fn connect(
        config: &ObjectStoreConfig,
        tls: Arc<rustls::ClientConfig>,
        settings: ObjectSettings,
        tasks: &Tasks,
        steps: &Steps,
    ) -> Result<Self> {
        let (provider, prefix) = Provider::connect(config, tls)?;
        Self::over(provider, prefix, settings, tasks, steps)
    }

    pub(super) fn over(
        provider: Provider,
        prefix: Path,
        settings: ObjectSettings,
        tasks: &Tasks,
        steps: &Steps,
    ) -> Result<Self> {
        let journal = Journal::open(&settings.journal);
        let journal = journal.map_err(|source| HostedError::disk("make directory for notes", source))?;
        let room = Arc::new(Semaphore::new(settings.parts));
        let (journal, tasks, steps) = (Arc::new(journal), tasks.clone(), steps.clone());
        Ok(Self(Arc::new(Inner { provider, prefix, settings, journal, room, tasks, steps })))
    }

    /// Aborts the uploads in parts that earlier processes left at the store, and returns how many there were. What
    /// cannot be aborted now is tried again next time.
    pub async fn abort_abandoned(&self) -> Result<u64> {
        self.0.abort_abandoned().await
    }
}

#[async_trait]
impl DurableBlobs for ObjectBlobs {
    fn is_remote(&self) -> bool {
        true
    }

    async fn put(&self, staged: StagedBlob) -> Result<()> {
        let inner = Arc::clone(&self.0);
        // A task of the process: whoever waits may leave, and what was begun at the store is ended all the same.
        let put = self.0.tasks.spawn(async move {
            let put = inner.put(&staged).await;
            if put.as_ref().is_err_and(|error| !error.is_of_disk()) {
                staged.keep();
            }
            put
        });
        put.await.unwrap_or_else(|panicked| Err(crashed("store content", panicked)))
    }

    async fn find(&self, digest: &Digest) -> Result<Option<FoundBlob>> {
        let found = self.0.look(&self.0.key(digest)).await?;
        Ok(found.map(|meta| found_blob(*digest, &meta)))
    }

    async fn open(&self, digest: &Digest) -> Result<Option<HostedBlob>> {
        let found = self.0.look(&self.0.key(digest)).await?;
        Ok(found.map(|meta| HostedBlob::Remote { size_bytes: meta.size }))
    }

    async fn read(&self, digest: &Digest, range: Range<u64>) -> Result<Option<BlobStream>> {
        let key = self.0.key(digest);
        if range.is_empty() {
            // There is no way to ask for no bytes.
            return Ok(self.0.look(&key).await?.map(|_found| stream::empty().boxed()));
        }
        self.0.read(&key, Some(range)).await
    }

    async fn delete(&self, digest: &Digest) -> Result<()> {
        let key = self.0.key(digest);
        if_found(self.0.ask("delete content", self.0.provider.objects.delete(&key)).await).map(|_gone| ())
    }

    async fn list(&self, after: Option<&Digest>) -> Result<BlobListing> {
        let (sender, receiver) = mpsc::channel(4);
        let (inner, after) = (Arc::clone(&self.0), after.copied());
        let _listing = self.0.tasks.spawn(async move {
            if let Err(error) = inner.list(after, &sender).await {
                // Nobody may be listening any more; then nobody wants to know either.
                let _sent = sender.send(Err(error)).await;
            }
        });
        Ok(receiver)
    }

    async fn presign(&self, digest: &Digest, valid_for: Duration) -> Result<Option<String>> {
        let Some(signer) = &self.0.provider.signer else { return Ok(None) };
        let key = self.0.key(digest);
        let signed = self.0.ask("sign a URL", signer.signed_url(Method::GET, &key, valid_for)).await;
        signed.map(|url| Some(url.to_string()))
    }
}

impl Inner {
    async fn put(&self, staged: &StagedBlob) -> Result<()> {
        let key = self.key(staged.digest());
        // What is there already is not sent again: that is what most pushes of base layers are.
        if !self.holds(&key, staged).await? {
            let sent = if staged.size_bytes() <= self.settings.part_bytes {
                self.put_whole(&key, staged).await
            } else {
                self.put_parts(&key, staged).await
            };
            if sent.as_ref().is_err_and(HostedError::is_of_disk) {
                return sent;
            }
            self.reach(Step::Confirm)?;
            match (self.holds(&key, staged).await, sent) {
                // Also where sending failed: of those who send the same content at the same time, Azure takes it from
                // one, and forgets the parts of the others.
                (Ok(true), _) => {}
                (_, Err(error)) | (Err(error), Ok(())) => return Err(error),
                (Ok(false), Ok(())) => {
                    return Err(HostedError::Unkept { digest: Box::new(*staged.digest()) });
                }
            }
        }
        self.reach(Step::Acknowledge)
    }

    async fn put_whole(&self, key: &Path, staged: &StagedBlob) -> Result<()> {
        let _room = self.room.acquire().await;
        let (_reader, content) = self.read_staged(staged.reader()).await?;
        self.reach(Step::SendPart)?;
        let (objects, key) = (Arc::clone(&self.provider.objects), key.clone());
        let sending = self.send(async move { objects.put(&key, content.into()).await });
        joined(sending.await).map(|_put| ())
    }

    /// Whether the store has the content, as far as it is to be looked at.
    async fn holds(&self, key: &Path, staged: &StagedBlob) -> Result<bool> {
        let has_size = self.look(key).await?.is_some_and(|meta| meta.size == staged.size_bytes());
        if !has_size || self.settings.confirmation == Confirmation::Size || staged.size_bytes() == 0 {
            return Ok(has_size);
        }
        let Some(mut content) = self.read(key, None).await? else { return Ok(false) };
        let mut hasher = Hasher::new(staged.digest().algorithm());
        while let Some(part) = content.try_next().await? {
            let hash = self.tasks.spawn_blocking(move || {
                hasher.update(&part);
                hasher
            });
            hasher = hash.await.map_err(|panicked| crashed("read content back", panicked))?;
        }
        Ok(hasher.finish() == *staged.digest())
    }

    /// Reads the next part of staged content.
    pub(super) async fn read_staged(&self, reader: StagedReader) -> Result<(StagedReader, Bytes)> {
        let part_bytes = self.settings.part_bytes;
        let read = self.tasks.spawn_blocking(move || reader.read_next(part_bytes)).await;
        read.unwrap_or_else(|panicked| Err(crashed("read staged content", panicked)))
    }

    /// Begins to send a part, on a thread that may block: what is sent is hashed to be signed.
    pub(super) fn send<T, F>(&self, request: F) -> JoinHandle<Result<T>>
    where
        T: Send + 'static,
        F: Future<Output = object_store::Result<T>> + Send + 'static,
    {
        let (patience, runtime) = (self.settings.patience, Handle::current());
        self.tasks.spawn_blocking(move || {
            match runtime.block_on(async { timeout(patience, request).await }) {
                Ok(sent) => sent.map_err(|source| HostedError::store(SEND, source)),
                Err(_elapsed) => Err(HostedError::TimedOut { action: SEND }),
            }
        })
    }

    /// Asks the store something that takes no long computing.
    pub(super) async fn ask<T>(
        &self,
        action: &'static str,
        request: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T> {
        match timeout(self.settings.patience, request).await {
            Ok(answer) => answer.map_err(|source| HostedError::store(action, source)),
            Err(_elapsed) => Err(HostedError::TimedOut { action }),
        }
    }

    async fn look(&self, key: &Path) -> Result<Option<ObjectMeta>> {
        if_found(self.ask("look at content", self.provider.objects.head(key)).await)
    }

    async fn read(&self, key: &Path, range: Option<Range<u64>>) -> Result<Option<BlobStream>> {
        const ACTION: &str = "read content";
        let options = GetOptions::new().with_range(range);
        let got = self.ask(ACTION, self.provider.objects.get_opts(key, options)).await;
        let Some(got) = if_found(got)? else { return Ok(None) };
        let patience = self.settings.patience;
        let content = stream::try_unfold(got.into_stream(), move |mut content| async move {
            match timeout(patience, content.try_next()).await {
                Ok(Ok(part)) => Ok(part.map(|part| (part, content))),
                Ok(Err(source)) => Err(HostedError::store(ACTION, source)),
                Err(_elapsed) => Err(HostedError::TimedOut { action: ACTION }),
            }
        });
        Ok(Some(content.boxed()))
    }

    async fn list(&self, after: Option<Digest>, sender: &mpsc::Sender<Result<Vec<FoundBlob>>>) -> Result<()> {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let folder = self.prefix.clone().join(algorithm.as_str());
            let objects = &self.provider.objects;
            let mut listing = match after {
                Some(after) if after.algorithm() > algorithm => continue,
                Some(after) if after.algorithm() == algorithm => {
                    objects.list_with_offset(Some(&folder), &self.key(&after))
                }
                _ => objects.list(Some(&folder)),
            };
            let mut batch = Vec::new();
            while let Some(meta) = self.ask("list content", listing.try_next()).await? {
                // Compared again: not everything that speaks like a store takes an offset.
                let digest = digest_of(algorithm, &meta).filter(|digest| Some(*digest) > after);
                batch.extend(digest.map(|digest| found_blob(digest, &meta)));
                if batch.len() == LIST_BATCH && sender.send(Ok(std::mem::take(&mut batch))).await.is_err() {
                    return Ok(());
                }
            }
            if !batch.is_empty() && sender.send(Ok(batch)).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Where content is. The shards are for stores that keep objects as files.
    pub(super) fn key(&self, digest: &Digest) -> Path {
        let hex = digest.hex();
        self.prefix.clone().join(digest.algorithm().as_str()).join(&hex[..2]).join(hex.as_str())
    }

    pub(super) fn reach(&self, step: Step) -> Result<()> {
        self.steps.reach(step).map_err(|source| HostedError::disk(step.as_str(), source))
    }
}

/// `None` where the store has no such object.
pub(super) fn if_found<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(HostedError::Refused { source: object_store::Error::NotFound { .. }, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A task that came to no end: an error of this machine.
pub(super) fn crashed(action: &'static str, panicked: JoinError) -> HostedError {
    HostedError::disk(action, std::io::Error::other(panicked))
}

/// What came of sending.
pub(super) fn joined<T>(sent: std::result::Result<Result<T>, JoinError>) -> Result<T> {
    sent.unwrap_or_else(|panicked| Err(crashed(SEND, panicked)))
}

/// The digest that an object is named by, if it is one of ours.
fn digest_of(algorithm: Algorithm, meta: &ObjectMeta) -> Option<Digest> {
    format!("{}:{}", algorithm.as_str(), meta.location.filename()?).parse().ok()
}

fn found_blob(digest: Digest, meta: &ObjectMeta) -> FoundBlob {
    let modified_ms = u64::try_from(meta.last_modified.timestamp_millis()).unwrap_or(0);
    FoundBlob { digest, size_bytes: meta.size, modified_at: Timestamp::from_millis(modified_ms) }
}
