//! Hosted content in a local directory: one file an item, named by its digest.
//!
//! ```text
//! <path>/sha256/ab/abcd…    whole, verified and durable
//! ```
//!
//! The order is the durability rule: the file was made durable as a [`StagedBlob`]; rename, fsync of the directory, and
//! only then it is acknowledged. All directories are there and durable from the start: were they made when needed, a put
//! could return before the directory that another one has just made is durable.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{StreamExt as _, stream};
use tokio::sync::mpsc;

use super::{
    BlobListing, BlobStream, DurableBlobs, HostedBlob, HostedError, Result, StagedBlob, Step, Steps,
};
use crate::blobs::local::{LIST_BATCH, entries, found};
use crate::blobs::open_files::OpenFiles;
use crate::blobs::patience::Patience;
use crate::blobs::{BlobFile, FoundBlob};
use crate::oci::{Algorithm, Digest};
use crate::runtime::Tasks;

/// How much is read at once for a stream, in bytes.
const READ_BYTES: u64 = 256 * 1024;

/// Content-addressed files under one directory, on the file system of the uploads.
#[derive(Debug)]
pub struct BlobDirectory {
    root: PathBuf,
    tasks: Tasks,
    steps: Steps,
    open_files: OpenFiles,
    patience: Patience,
}

impl BlobDirectory {
    /// Takes a directory into use, making it where it is missing.
    ///
    /// Blocks; meant for the start of the process.
    pub fn open(root: &Path, tasks: &Tasks, steps: &Steps) -> Result<Self> {
        make_directories(root).map_err(|source| HostedError::disk("make directories for content", source))?;
        Ok(Self {
            root: root.to_owned(),
            tasks: tasks.clone(),
            steps: steps.clone(),
            open_files: OpenFiles::default(),
            patience: Patience::default(),
        })
    }

    fn path_of(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.root.join(digest.algorithm().as_str()).join(&hex[..2]).join(hex)
    }

    async fn open_file(&self, digest: &Digest) -> Result<Option<BlobFile>> {
        if let Some(file) = self.open_files.find(digest) {
            return Ok(Some(file));
        }
        let path = self.path_of(digest);
        let opened = self.looking("open content", move || {
            let Some(file) = if_found(File::open(path))? else { return Ok(None) };
            let size_bytes = file.metadata()?.len();
            Ok(Some(BlobFile { file: Arc::new(file), size_bytes }))
        });
        let file = opened.await?;
        Ok(file.filter(|file| self.open_files.keep(digest, file)))
    }

    /// Runs file work where it may block, and waits for it a little. Untracked: what a stuck disk holds must not hold up
    /// the end of the process.
    async fn looking<T, F>(&self, action: &'static str, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce() -> io::Result<T> + Send + 'static,
    {
        self.patience.require(action)?;
        Ok(self.patience.wait(action, tokio::task::spawn_blocking(work)).await?)
    }
}

#[async_trait]
impl DurableBlobs for BlobDirectory {
    fn is_remote(&self) -> bool {
        false
    }

    async fn put(&self, mut staged: StagedBlob) -> Result<()> {
        let (target, steps) = (self.path_of(staged.digest()), self.steps.clone());
        let work = move || -> io::Result<()> {
            steps.reach(Step::Rename)?;
            // In the place of what is there already: that may be damaged, or not durable yet.
            staged.rename_to(&target)?;
            steps.reach(Step::SyncDirectory)?;
            // Where this fails, the content stays: what had the name before may have been acknowledged.
            File::open(target.parent().unwrap_or(Path::new(".")))?.sync_all()?;
            steps.reach(Step::Acknowledge)
        };
        let done = self.tasks.spawn_blocking(work).await;
        done.unwrap_or_else(|panicked| Err(io::Error::other(panicked)))
            .map_err(|source| HostedError::disk("store content", source))
    }

    async fn find(&self, digest: &Digest) -> Result<Option<FoundBlob>> {
        let (path, digest) = (self.path_of(digest), *digest);
        self.looking("look at content", move || {
            let metadata = if_found(fs::metadata(path))?;
            metadata.map(|metadata| FoundBlob::of(digest, &metadata)).transpose()
        })
        .await
    }

    async fn open(&self, digest: &Digest) -> Result<Option<HostedBlob>> {
        Ok(self.open_file(digest).await?.map(HostedBlob::File))
    }

    async fn read(&self, digest: &Digest, range: Range<u64>) -> Result<Option<BlobStream>> {
        Ok(self.open_file(digest).await?.map(|file| stream_file(file, range)))
    }

    async fn delete(&self, digest: &Digest) -> Result<()> {
        let path = self.path_of(digest);
        let removed = self.looking("remove content", move || if_found(fs::remove_file(path))).await;
        // Afterwards: whoever opens it meanwhile would keep it. An open file keeps its space on the disk.
        self.open_files.forget(digest);
        removed.map(|_was_there| ())
    }

    async fn list(&self, after: Option<&Digest>) -> Result<BlobListing> {
        let (sender, receiver) = mpsc::channel(4);
        let (root, after) = (self.root.clone(), after.copied());
        let _walk = self.tasks.spawn_blocking(move || {
            if let Err(source) = walk(&root, after, &sender) {
                // Nobody may be listening any more; then nobody wants to know either.
                let _sent = sender.blocking_send(Err(HostedError::disk("list content", source)));
            }
        });
        Ok(receiver)
    }

    async fn presign(&self, _: &Digest, _: Duration) -> Result<Option<String>> {
        Ok(None)
    }
}

/// Makes the directory and all that content may be in.
fn make_directories(root: &Path) -> io::Result<()> {
    fs::create_dir_all(root)?;
    for algorithm in ALGORITHMS {
        let directory = root.join(algorithm.as_str());
        make_directory(&directory)?;
        for shard in SHARDS {
            make_directory(&directory.join(format!("{shard:02x}")))?;
        }
        File::open(&directory)?.sync_all()?;
    }
    root.ancestors().take(2).filter(|directory| !directory.as_os_str().is_empty()).try_for_each(|directory| {
        // Durable by its own name, too.
        File::open(directory)?.sync_all()
    })
}

fn make_directory(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

/// Sends all that comes after a digest, in order; stops early when nobody listens.
fn walk(root: &Path, after: Option<Digest>, sender: &mpsc::Sender<Result<Vec<FoundBlob>>>) -> io::Result<()> {
    for algorithm in ALGORITHMS {
        for shard in SHARDS {
            let directory = root.join(algorithm.as_str()).join(format!("{shard:02x}"));
            let mut items = Vec::new();
            for entry in entries(&directory)? {
                items.extend(found(algorithm, &entry?).filter(|found| Some(found.digest) > after));
            }
            items.sort_unstable_by_key(|found| found.digest);
            let mut rest = items.into_iter();
            loop {
                let batch: Vec<_> = rest.by_ref().take(LIST_BATCH).collect();
                if batch.is_empty() {
                    break;
                }
                if sender.blocking_send(Ok(batch)).is_err() {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

fn stream_file(file: BlobFile, range: Range<u64>) -> BlobStream {
    stream::try_unfold((file, range), |(file, range)| async move {
        if range.is_empty() {
            return Ok::<_, HostedError>(None);
        }
        let length = READ_BYTES.min(range.end - range.start);
        let part = file.read_exact_at(range.start, usize::try_from(length).unwrap_or(usize::MAX)).await?;
        Ok(Some((part, (file, range.start + length..range.end))))
    })
    .boxed()
}

/// `None` where there is no such file.
fn if_found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// In the order of digests.
const ALGORITHMS: [Algorithm; 2] = [Algorithm::Sha256, Algorithm::Sha512];

/// The first bytes of digests.
const SHARDS: std::ops::RangeInclusive<u8> = 0..=255;
