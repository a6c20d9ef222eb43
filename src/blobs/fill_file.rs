//! A file that grows while others read it, and becomes content only when its digest agrees.
//!
//! The order of the last steps is the durability rule: verify, fsync of the file, rename, fsync of the
//! directory. Before the rename nobody can find the content; after it, it is whole.
//!
//! Where the disk takes no more, what is there moves to memory, if that has room, and the rest follows: whoever
//! reads goes on, and upstream is asked no second time. What is in memory is never committed.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::{FallocateFlags, fallocate};
use tokio::sync::mpsc;

use super::leftovers::Leftovers;
use super::spare::{Share, Spare};
use super::{BlobError, BlobFile, Result};
use crate::oci::{Digest, Hasher};
use crate::runtime::Tasks;

/// Content that is still coming. Dropping it leaves nothing behind on the disk; who reads it already
/// reads on.
#[derive(Debug)]
pub struct FillFile {
    file: Arc<File>,
    place: Temporary,
    digest: Digest,
    hasher: Hasher,
    written_bytes: u64,
    /// The size of the whole, until its space is reserved.
    unreserved_bytes: Option<u64>,
    /// The size of the whole, as far as anybody said.
    size_bytes: Option<u64>,
    spare: Spare,
    memory: Option<Memory>,
    tasks: Tasks,
}

/// What stands in for the disk.
#[derive(Debug)]
struct Memory {
    share: Arc<Share>,
    /// Why the disk could not take the content.
    cause: BlobError,
}

/// Keeps the memory of content accounted for that the disk did not take, as long as it is read.
#[derive(Debug)]
pub struct MemoryShare(#[expect(dead_code, reason = "gives the memory back when dropped")] Arc<Share>);

/// Parts of content on their way to a file, in order.
pub type Parts = mpsc::Receiver<Bytes>;

/// How many bytes come between two messages to readers, where more bytes wait to be written. Each
/// message wakes all readers.
const STEP: u64 = 256 * 1024;

/// How much is copied at once from the disk to memory.
const COPY_BYTES: usize = 128 * 1024;

/// Content that is whole and has the right digest, but would not survive a crash yet.
#[derive(Debug)]
pub struct VerifiedFile {
    file: Arc<File>,
    place: Temporary,
    size_bytes: u64,
    memory: Option<Memory>,
    tasks: Tasks,
}

/// Where content is written, and where it goes when it is whole.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) temporary: PathBuf,
    pub(super) target: PathBuf,
    /// Where the temporary file goes if it cannot be removed.
    pub(super) leftovers: Leftovers,
}

/// Removes the temporary file unless it was renamed.
#[derive(Debug)]
struct Temporary(Option<Place>);

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(place) = self.0.take() {
            let _removed = place.leftovers.remove(&place.temporary);
        }
    }
}

impl FillFile {
    /// Makes the temporary file. Blocks.
    pub(super) fn create(
        digest: Digest,
        size_bytes: Option<u64>,
        place: Place,
        spare: Spare,
        tasks: Tasks,
    ) -> io::Result<Self> {
        let file = File::options().read(true).write(true).create_new(true).open(&place.temporary)?;
        let mut fill = Self::over(file, digest, size_bytes, spare, tasks);
        fill.place = Temporary(Some(place));
        fill.unreserved_bytes = size_bytes;
        Ok(fill)
    }

    /// Begins in memory, since the disk failed with `cause`; which is the error where there is no room.
    pub(super) fn create_in_memory(
        digest: Digest,
        size_bytes: Option<u64>,
        cause: BlobError,
        spare: Spare,
        tasks: Tasks,
    ) -> Result<Self> {
        let Some(Ok(Some((file, share)))) = size_bytes.map(|bytes| spare.begin(bytes)) else {
            return Err(cause);
        };
        let mut fill = Self::over(file, digest, size_bytes, spare, tasks);
        fill.memory = Some(Memory { share: Arc::new(share), cause });
        Ok(fill)
    }

    fn over(file: File, digest: Digest, size_bytes: Option<u64>, spare: Spare, tasks: Tasks) -> Self {
        Self {
            file: Arc::new(file),
            place: Temporary(None),
            digest,
            hasher: Hasher::new(digest.algorithm()),
            written_bytes: 0,
            unreserved_bytes: None,
            size_bytes,
            spare,
            memory: None,
            tasks,
        }
    }

    /// How many bytes were written.
    pub const fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// The growing file, for readers; its size is what they are told otherwise.
    pub fn reader(&self) -> BlobFile {
        BlobFile { file: Arc::clone(&self.file), size_bytes: 0 }
    }

    /// Writes and hashes the next parts, on a thread where that may block.
    ///
    /// Takes the file and gives it back: after an error there is no file to go on with, since what a
    /// failed write left is unknown. Dropped at its await point, the file is removed.
    pub async fn append(mut self, parts: Vec<Bytes>) -> Result<Self> {
        let tasks = self.tasks.clone();
        let work = move || -> io::Result<Self> {
            for part in parts {
                self.write_or_spill(&part)?;
                self.hasher.update(&part);
            }
            self.reserve_or_spill()?;
            Ok(self)
        };
        joined("write content", tasks.spawn_blocking(work).await)
    }

    /// Writes and hashes `first` and whatever else waits in `queue` by then, like [`FillFile::append`],
    /// and tells `publish` how many bytes are in which file: after the first part, in steps of some
    /// size, and at the end. The file is another one from where the disk took no more.
    ///
    /// Holds its thread as long as parts come as fast as they are written, and none while the queue is
    /// empty: an upstream that is silent costs no thread.
    pub async fn append_queued<P>(
        mut self,
        first: Bytes,
        mut queue: Parts,
        publish: P,
    ) -> Result<(Self, Parts)>
    where
        P: Fn(BlobFile, u64) + Send + 'static,
    {
        let tasks = self.tasks.clone();
        let work = move || -> io::Result<(Self, Parts)> {
            let mut next = Some(first);
            let (mut published_bytes, mut due_bytes) = (self.written_bytes, 0);
            while let Some(part) = next {
                self.write_or_spill(&part)?;
                // Before it is hashed: the bytes that wait for the digest are not among these.
                if self.written_bytes >= due_bytes || queue.is_empty() {
                    publish(self.reader(), self.written_bytes);
                    published_bytes = self.written_bytes;
                    due_bytes = published_bytes + STEP;
                }
                self.hasher.update(&part);
                self.reserve_or_spill()?;
                // Before the next part is taken: its memory can carry one that comes.
                drop(part);
                next = queue.try_recv().ok();
            }
            if self.written_bytes > published_bytes {
                publish(self.reader(), self.written_bytes);
            }
            Ok((self, queue))
        };
        joined("write content", tasks.spawn_blocking(work).await)
    }

    fn write_or_spill(&mut self, part: &[u8]) -> io::Result<()> {
        self.write(part).or_else(|error| {
            self.spill(error)?;
            self.write(part)
        })
    }

    fn reserve_or_spill(&mut self) -> io::Result<()> {
        self.reserve_rest().or_else(|error| self.spill(error))
    }

    /// Moves what is there from the disk, which failed with `cause`, to memory.
    fn spill(&mut self, cause: io::Error) -> io::Result<()> {
        if self.memory.is_some() {
            return Err(cause);
        }
        let size_bytes = self.size_bytes.filter(|bytes| *bytes >= self.written_bytes);
        let Some(Ok(Some((file, share)))) = size_bytes.map(|bytes| self.spare.begin(bytes)) else {
            return Err(cause);
        };
        // Hashed anew: what a bad disk gives back is what readers get.
        let mut hasher = Hasher::new(self.digest.algorithm());
        let mut buffer = vec![0; COPY_BYTES];
        let mut copied_bytes = 0;
        while copied_bytes < self.written_bytes {
            let rest = usize::try_from(self.written_bytes - copied_bytes).unwrap_or(COPY_BYTES);
            let part = &mut buffer[..rest.min(COPY_BYTES)];
            self.file.read_exact_at(part, copied_bytes)?;
            hasher.update(part);
            file.write_all_at(part, copied_bytes)?;
            copied_bytes += part.len() as u64;
        }
        self.hasher = hasher;
        self.file = Arc::new(file);
        // Removes the file on the disk; who reads it reads on.
        self.place = Temporary(None);
        self.unreserved_bytes = None;
        self.memory =
            Some(Memory { share: Arc::new(share), cause: BlobError::from_io("write content", cause) });
        Ok(())
    }

    fn write(&mut self, part: &[u8]) -> io::Result<()> {
        self.file.write_all_at(part, self.written_bytes)?;
        self.written_bytes += part.len() as u64;
        Ok(())
    }

    /// Reserves the space of what is still to come, once: a disk that cannot take the content says so
    /// early, and the file lies in one piece. Not before the first bytes are readable: to reserve a GiB
    /// takes milliseconds, which the first client would wait for.
    fn reserve_rest(&mut self) -> io::Result<()> {
        match self.unreserved_bytes.take() {
            Some(size_bytes) if size_bytes > self.written_bytes => reserve(&self.file, size_bytes),
            _ => Ok(()),
        }
    }

    /// Compares the digest of all that was written with the one that was asked for.
    pub fn verify(self) -> Result<VerifiedFile> {
        let found = self.hasher.finish();
        if found != self.digest {
            return Err(BlobError::DigestMismatch {
                expected: Box::new(self.digest),
                found: Box::new(found),
            });
        }
        Ok(VerifiedFile {
            file: self.file,
            place: self.place,
            size_bytes: self.written_bytes,
            memory: self.memory,
            tasks: self.tasks,
        })
    }
}

impl VerifiedFile {
    /// Keeps the memory of content that the disk did not take accounted for. `None` where it did.
    pub fn memory_share(&self) -> Option<MemoryShare> {
        self.memory.as_ref().map(|memory| MemoryShare(Arc::clone(&memory.share)))
    }

    /// Makes the content durable and then visible. After an error it is neither, and must not be tried
    /// again on the same file: a failed fsync may have dropped the pages it failed on.
    pub async fn commit(mut self) -> Result<BlobFile> {
        if let Some(memory) = self.memory.take() {
            return Err(memory.cause);
        }
        let tasks = self.tasks.clone();
        let work = move || -> io::Result<BlobFile> {
            self.file.sync_data()?;
            if let Some(place) = &self.place.0 {
                rename_durably(place)?;
            }
            self.place.0 = None;
            Ok(BlobFile { file: Arc::clone(&self.file), size_bytes: self.size_bytes })
        };
        joined("commit content", tasks.spawn_blocking(work).await)
    }
}

/// Content that is whole, verified and durable, and that nobody can find yet. Dropping it removes it.
#[derive(Debug)]
pub struct StagedFiles {
    places: Vec<Temporary>,
    tasks: Tasks,
}

impl StagedFiles {
    /// None yet; work that may block runs on `tasks`.
    pub const fn new(tasks: Tasks) -> Self {
        Self { places: Vec::new(), tasks }
    }

    /// Makes content durable under its temporary name, and adds it. After an error it is gone.
    pub async fn add(&mut self, mut file: VerifiedFile) -> Result<()> {
        if let Some(memory) = file.memory.take() {
            return Err(memory.cause);
        }
        let work = move || file.file.sync_data().map(|()| file.place);
        let place = joined("keep content", self.tasks.spawn_blocking(work).await)?;
        self.places.push(place);
        Ok(())
    }

    /// Makes all of it visible, and durable under its names. After an error a part may be visible: each file
    /// is whole by itself.
    pub async fn commit(mut self) -> Result<()> {
        let places = std::mem::take(&mut self.places);
        let work = move || -> io::Result<()> {
            let mut shards = BTreeSet::new();
            for mut place in places {
                if let Some(place) = &place.0 {
                    rename(place)?;
                    shards.extend(place.target.parent().map(Path::to_owned));
                }
                place.0 = None;
            }
            // Once a directory, and not once a file.
            shards.iter().try_for_each(|shard| File::open(shard)?.sync_all())
        };
        joined("commit content", self.tasks.spawn_blocking(work).await)
    }
}

impl Drop for StagedFiles {
    fn drop(&mut self) {
        let places = std::mem::take(&mut self.places);
        if !places.is_empty() {
            // There may be thousands, and removing each may block.
            let _removal = self.tasks.spawn_blocking(move || drop(places));
        }
    }
}

fn joined<T>(
    action: &'static str,
    result: std::result::Result<io::Result<T>, tokio::task::JoinError>,
) -> Result<T> {
    match result {
        Ok(result) => result.map_err(|source| BlobError::from_io(action, source)),
        Err(panicked) => Err(BlobError::from_io(action, io::Error::other(panicked))),
    }
}

/// Reserves space without changing the file's size.
fn reserve(file: &File, size_bytes: u64) -> io::Result<()> {
    match fallocate(file, FallocateFlags::KEEP_SIZE, 0, size_bytes) {
        Ok(()) | Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS | rustix::io::Errno::INVAL) => {
            Ok(())
        }
        Err(errno) => Err(errno.into()),
    }
}

fn rename_durably(place: &Place) -> io::Result<()> {
    rename(place)?;
    let shard = place.target.parent().unwrap_or(Path::new("."));
    File::open(shard).and_then(|shard| shard.sync_all()).inspect_err(|_not_durable| {
        // What is not durable must not be visible either. What cannot be removed is whole all the same.
        let _removed = fs::remove_file(&place.target);
    })
}

/// Renames into place, making the directory where it is missing.
fn rename(place: &Place) -> io::Result<()> {
    match fs::rename(&place.temporary, &place.target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let shard = place.target.parent().unwrap_or(Path::new("."));
            fs::create_dir_all(shard)?;
            for directory in shard.ancestors().skip(1).take(2) {
                File::open(directory)?.sync_all()?;
            }
            fs::rename(&place.temporary, &place.target)
        }
        renamed => renamed,
    }
}
