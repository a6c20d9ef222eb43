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
    tasks: Tasks,
}

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
    /// Makes the temporary file and reserves its space. Blocks.
    pub(super) fn create(
        digest: Digest,
        size_bytes: Option<u64>,
        place: Place,
        tasks: Tasks,
    ) -> io::Result<Self> {
        let file = File::options().read(true).write(true).create_new(true).open(&place.temporary)?;
        let place = Temporary(Some(place));
        if let Some(size_bytes @ 1..) = size_bytes {
            reserve(&file, size_bytes)?;
        }
        let hasher = Hasher::new(digest.algorithm());
        Ok(Self { file: Arc::new(file), place, digest, hasher, written_bytes: 0, tasks })
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
                self.file.write_all_at(&part, self.written_bytes)?;
                self.hasher.update(&part);
                self.written_bytes += part.len() as u64;
            }
            Ok(self)
        };
        joined("write content", tasks.spawn_blocking(work).await)
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

/// Reserves space without changing the file's size: a disk that cannot take the content says so before
/// the first byte, and the file lies in one piece.
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
