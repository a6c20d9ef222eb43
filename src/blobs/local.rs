//! Content on the local disk: one file an item, named by its digest.
//!
//! ```text
//! <path>/lock                       held while a process uses the directory
//! <path>/content/sha256/ab/abcd…    whole and verified, always
//! <path>/incoming/…                 what is being written; worthless after a crash
//! <path>/incoming.stale-…           what a crash left, on its way out
//! ```

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::mpsc;

use super::fill_file::Place;
use super::inspect::FileId;
use super::leftovers::Leftovers;
use super::open_files::OpenFiles;
use super::patience::{Patience, too_slow};
use super::spare::Spare;
use super::{BlobError, BlobFile, Blobs, FillFile, FoundBlob, Inspection, Result, Space};
use crate::oci::{Algorithm, Digest};
use crate::runtime::Tasks;

/// How many found items travel together.
pub(super) const LIST_BATCH: usize = 256;

/// How much is written to try a disk, in bytes: more than some file systems keep inside an inode.
const PROBE_BYTES: usize = 64 * 1024;

/// Content-addressed files under one directory, which one process at a time may use.
#[derive(Debug)]
pub struct LocalBlobs {
    root: PathBuf,
    tasks: Tasks,
    open_files: OpenFiles,
    patience: Patience,
    spare: Spare,
    leftovers: Leftovers,
    /// Locked as long as this value lives.
    _lock: File,
}

impl LocalBlobs {
    /// Takes a directory into use, making it where it is missing. What a crash left half-written is
    /// put aside at once and removed in the background.
    ///
    /// Blocks; meant for the start of the process.
    pub fn open(path: &Path, tasks: &Tasks) -> Result<Self> {
        let open = |action| move |source| BlobError::from_io(action, source);
        fs::create_dir_all(path.join("content")).map_err(open("make storage directory"))?;
        let lock = File::create(path.join("lock")).map_err(open("make lock file"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(BlobError::InUse { path: path.to_owned() }),
            Err(fs::TryLockError::Error(source)) => {
                return Err(BlobError::from_io("lock storage directory", source));
            }
        }
        set_leftovers_aside(path).map_err(open("make directory for incoming content"))?;
        let store = Self {
            root: path.to_owned(),
            tasks: tasks.clone(),
            open_files: OpenFiles::default(),
            patience: Patience::default(),
            spare: Spare::default(),
            leftovers: Leftovers::default(),
            _lock: lock,
        };
        let root = store.root.clone();
        let _removal = tasks.spawn_blocking(move || remove_leftovers(&root));
        Ok(store)
    }

    fn path_of(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.root.join("content").join(digest.algorithm().as_str()).join(&hex[..2]).join(hex)
    }

    /// Runs file work where it may block, and waits for it a little. Untracked: what a stuck disk holds must
    /// not hold up the end of the process.
    async fn blocking<T, F>(&self, action: &'static str, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce() -> io::Result<T> + Send + 'static,
    {
        self.patience.require(action)?;
        self.patience.wait(action, tokio::task::spawn_blocking(work)).await
    }
}

#[async_trait]
impl Blobs for LocalBlobs {
    async fn open(&self, digest: &Digest) -> Result<Option<BlobFile>> {
        if let Some(file) = self.open_files.find(digest) {
            return Ok(Some(file));
        }
        let path = self.path_of(digest);
        let opened = self.blocking("open content", move || match File::open(path) {
            Ok(file) => {
                let size_bytes = file.metadata()?.len();
                Ok(Some(BlobFile { file: Arc::new(file), size_bytes }))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        });
        let file = opened.await?;
        Ok(file.filter(|file| self.open_files.keep(digest, file)))
    }

    async fn find_size(&self, digest: &Digest) -> Result<Option<u64>> {
        let path = self.path_of(digest);
        let condemned = self.open_files.find_condemned(digest);
        let looked = self.blocking("look at content", move || match fs::metadata(path) {
            Ok(metadata) if condemned == Some(FileId::of(&metadata)) => Ok(None),
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        });
        looked.await
    }

    async fn begin(&self, digest: &Digest, size_bytes: Option<u64>) -> Result<FillFile> {
        let temporary =
            self.root.join("incoming").join(format!("{}-{:016x}", digest.hex(), fastrand::u64(..)));
        let place = Place { temporary, target: self.path_of(digest), leftovers: self.leftovers.clone() };
        let digest = *digest;
        let (spare, tasks) = (self.spare.clone(), self.tasks.clone());
        let create = move || FillFile::create(digest, size_bytes, place, spare, tasks);
        self.blocking("begin content", create).await.or_else(|cause| {
            let (spare, tasks) = (self.spare.clone(), self.tasks.clone());
            FillFile::create_in_memory(digest, size_bytes, cause, spare, tasks)
        })
    }

    fn begin_in_memory(&self, digest: &Digest, size_bytes: Option<u64>) -> Result<FillFile> {
        let (spare, tasks) = (self.spare.clone(), self.tasks.clone());
        FillFile::create_in_memory(*digest, size_bytes, too_slow("begin content"), spare, tasks)
    }

    async fn remove(&self, digest: &Digest) -> Result<bool> {
        let path = self.path_of(digest);
        let removed = self.blocking("remove content", move || match fs::remove_file(path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        });
        let removed = removed.await;
        // Afterwards: whoever opens it meanwhile would keep it. An open file keeps its space on the disk.
        self.open_files.forget(digest);
        removed
    }

    async fn inspect(&self, digest: &Digest) -> Result<Option<Inspection>> {
        let (path, digest) = (self.path_of(digest), *digest);
        let condemned = self.open_files.find_condemned(&digest);
        self.blocking("open content", move || match File::open(path) {
            Ok(file) if condemned == Some(FileId::of(&file.metadata()?)) => Ok(None),
            Ok(file) => Inspection::begin(digest, Arc::new(file)).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        })
        .await
    }

    async fn condemn(&self, digest: &Digest, file: Option<&BlobFile>) -> Result<bool> {
        let path = self.path_of(digest);
        let aside = self.root.join("incoming").join(format!("condemned-{:016x}", fastrand::u64(..)));
        let bad = file.and_then(|file| file.file.metadata().ok()).map(|metadata| FileId::of(&metadata));
        let leftovers = self.leftovers.clone();
        let remove = move || remove_file(&path, &aside, bad, &leftovers);
        let removed = self.blocking("remove damaged content", remove).await;
        match bad.filter(|_| removed.is_err()) {
            Some(bad) => self.open_files.condemn(digest, bad),
            None => self.open_files.forget(digest),
        }
        removed
    }

    fn is_condemned(&self, digest: &Digest) -> bool {
        self.open_files.find_condemned(digest).is_some()
    }

    async fn space(&self) -> Result<Space> {
        let (root, leftovers) = (self.root.clone(), self.leftovers.clone());
        let look = move || {
            leftovers.try_again();
            Space::of(&root)
        };
        self.blocking("look at free space", look).await
    }

    async fn probe(&self) -> Result<()> {
        let path = self.root.join("incoming").join(format!("probe-{:016x}", fastrand::u64(..)));
        let leftovers = self.leftovers.clone();
        self.blocking("try to write", move || {
            let written = fs::write(&path, vec![0; PROBE_BYTES]).and_then(|()| File::open(&path)?.sync_all());
            written.and(leftovers.remove(&path))
        })
        .await
    }

    async fn list(&self) -> Result<mpsc::Receiver<Result<Vec<FoundBlob>>>> {
        let (sender, receiver) = mpsc::channel(4);
        let content = self.root.join("content");
        let _walk = self.tasks.spawn_blocking(move || {
            if let Err(source) = walk(&content, &sender) {
                // Nobody may be listening any more; then nobody wants to know either.
                let _sent = sender.blocking_send(Err(BlobError::from_io("list content", source)));
            }
        });
        Ok(receiver)
    }
}

/// Renames the directory of incoming content, so that a start costs the same whatever lies there.
fn set_leftovers_aside(path: &Path) -> io::Result<()> {
    let incoming = path.join("incoming");
    let aside = path.join(format!("incoming.stale-{:016x}", fastrand::u64(..)));
    match fs::rename(&incoming, aside) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    fs::create_dir(incoming)
}

fn remove_leftovers(path: &Path) {
    let Ok(entries) = fs::read_dir(path) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with("incoming.stale-")
            && let Err(error) = fs::remove_dir_all(entry.path())
        {
            tracing::warn!(error = %error, path = %entry.path().display(), "leftovers of an earlier run cannot be removed");
        }
    }
}

/// Removes the file `bad` and no other that has come in its place: by its name alone, the system would remove
/// whatever has that by then.
fn remove_file(path: &Path, aside: &Path, bad: Option<FileId>, leftovers: &Leftovers) -> io::Result<bool> {
    match fs::rename(path, aside) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    }
    let is_other = |bad: FileId| fs::symlink_metadata(aside).is_ok_and(|found| FileId::of(&found) != bad);
    if bad.is_some_and(is_other) {
        // Who looked for it meanwhile fetches it again, at worst.
        return fs::rename(aside, path).map(|()| false);
    }
    // What stays is found by nobody.
    let _removed = leftovers.remove(aside);
    Ok(true)
}

/// Sends all content found; stops early when nobody listens.
fn walk(content: &Path, sender: &mpsc::Sender<Result<Vec<FoundBlob>>>) -> io::Result<()> {
    let mut batch = Vec::with_capacity(LIST_BATCH);
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        for shard in entries(&content.join(algorithm.as_str()))? {
            for entry in entries(&shard?.path())? {
                batch.extend(found(algorithm, &entry?));
                if batch.len() == LIST_BATCH && sender.blocking_send(Ok(std::mem::take(&mut batch))).is_err()
                {
                    return Ok(());
                }
            }
        }
    }
    if !batch.is_empty() {
        let _sent = sender.blocking_send(Ok(batch));
    }
    Ok(())
}

/// The entries of a directory; a missing one has none.
pub(super) fn entries(path: &Path) -> io::Result<impl Iterator<Item = io::Result<fs::DirEntry>>> {
    match fs::read_dir(path) {
        Ok(entries) => Ok(Some(entries).into_iter().flatten()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None.into_iter().flatten()),
        Err(error) => Err(error),
    }
}

/// What a file is, if it is one of ours and still there.
pub(super) fn found(algorithm: Algorithm, entry: &fs::DirEntry) -> Option<FoundBlob> {
    let name = entry.file_name();
    let digest = format!("{}:{}", algorithm.as_str(), name.to_str()?).parse().ok()?;
    FoundBlob::of(digest, &entry.metadata().ok()?).ok()
}
