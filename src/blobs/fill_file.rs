//! A file that grows while others read it, and becomes content only when its digest agrees.
//!
//! The order of the last steps is the durability rule: verify, fsync of the file, rename, fsync of the
//! directory. Before the rename nobody can find the content; after it, it is whole.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::{FallocateFlags, fallocate};
use tokio::sync::mpsc;

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
    tasks: Tasks,
}

/// Parts of content on their way to a file, in order.
pub type Parts = mpsc::Receiver<Bytes>;

/// How many bytes come between two messages to readers, where more bytes wait to be written. Each
/// message wakes all readers.
const STEP: u64 = 256 * 1024;

/// Content that is whole and has the right digest, but would not survive a crash yet.
#[derive(Debug)]
pub struct VerifiedFile {
    file: Arc<File>,
    place: Temporary,
    size_bytes: u64,
    tasks: Tasks,
}

/// Where content is written, and where it goes when it is whole.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) temporary: PathBuf,
    pub(super) target: PathBuf,
}

/// Removes the temporary file unless it was renamed.
#[derive(Debug)]
struct Temporary(Option<Place>);

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(place) = self.0.take() {
            // What cannot be removed now is a leftover for the next start.
            let _removed = fs::remove_file(place.temporary);
        }
    }
}

impl FillFile {
    /// Makes the temporary file. Blocks.
    pub(super) fn create(
        digest: Digest,
        size_bytes: Option<u64>,
        place: Place,
        tasks: Tasks,
    ) -> io::Result<Self> {
        let file = File::options().read(true).write(true).create_new(true).open(&place.temporary)?;
        let place = Temporary(Some(place));
        let hasher = Hasher::new(digest.algorithm());
        Ok(Self {
            file: Arc::new(file),
            place,
            digest,
            hasher,
            written_bytes: 0,
            unreserved_bytes: size_bytes,
            tasks,
        })
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
                self.write(&part)?;
                self.hasher.update(&part);
            }
            self.reserve_rest()?;
            Ok(self)
        };
        joined("write content", tasks.spawn_blocking(work).await)
    }

    /// Writes and hashes `first` and whatever else waits in `queue` by then, like [`FillFile::append`],
    /// and tells `publish` how many bytes are in the file: after the first part, in steps of some
    /// size, and at the end.
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
        P: Fn(u64) + Send + 'static,
    {
        let tasks = self.tasks.clone();
        let work = move || -> io::Result<(Self, Parts)> {
            let mut next = Some(first);
            let (mut published_bytes, mut due_bytes) = (self.written_bytes, 0);
            while let Some(part) = next {
                self.write(&part)?;
                // Before it is hashed: the bytes that wait for the digest are not among these.
                if self.written_bytes >= due_bytes || queue.is_empty() {
                    publish(self.written_bytes);
                    published_bytes = self.written_bytes;
                    due_bytes = published_bytes + STEP;
                }
                self.reserve_rest()?;
                self.hasher.update(&part);
                // Before the next part is taken: its memory can carry one that comes.
                drop(part);
                next = queue.try_recv().ok();
            }
            if self.written_bytes > published_bytes {
                publish(self.written_bytes);
            }
            Ok((self, queue))
        };
        joined("write content", tasks.spawn_blocking(work).await)
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
            tasks: self.tasks,
        })
    }
}

impl VerifiedFile {
    /// Makes the content durable and then visible. After an error it is neither, and must not be tried
    /// again on the same file: a failed fsync may have dropped the pages it failed on.
    pub async fn commit(mut self) -> Result<BlobFile> {
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
    let shard = place.target.parent().unwrap_or(Path::new("."));
    match fs::rename(&place.temporary, &place.target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(shard)?;
            for directory in shard.ancestors().skip(1).take(2) {
                File::open(directory)?.sync_all()?;
            }
            fs::rename(&place.temporary, &place.target)?;
        }
        renamed => renamed?,
    }
    File::open(shard).and_then(|shard| shard.sync_all()).inspect_err(|_not_durable| {
        // What is not durable must not be visible either. What cannot be removed is whole all the same.
        let _removed = fs::remove_file(&place.target);
    })
}
