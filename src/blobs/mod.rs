//! Content on the node's disk, addressed by digest.
//!
//! What is visible is whole and verified. A [`FillFile`] is content that is still coming.

mod error;
mod fill_file;
pub mod hosted;
mod inspect;
mod leftovers;
mod local;
mod open_files;
mod patience;
mod read_buffers;
mod slice;
mod space;
mod spare;
#[cfg(test)]
mod tests;

use std::os::unix::fs::FileExt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};

pub use error::{BlobError, DiskCause, Result};
pub use fill_file::{FillFile, MemoryShare, Parts, StagedFiles, VerifiedFile};
pub use inspect::{Inspected, Inspection, ReadPart};
pub use local::LocalBlobs;
pub use read_buffers::ReadBuffers;
pub use slice::{FileSlice, is_socket_error};
pub use space::Space;

use crate::oci::Digest;
use crate::runtime::Timestamp;

/// An open file of stored content; stays readable when the content is removed.
#[derive(Clone, Debug)]
pub struct BlobFile {
    file: Arc<std::fs::File>,
    size_bytes: u64,
}

impl BlobFile {
    /// Wraps an open file of whole content, for test doubles.
    #[cfg(test)]
    pub(crate) const fn new(file: Arc<std::fs::File>, size_bytes: u64) -> Self {
        Self { file, size_bytes }
    }

    /// The open file, for test doubles.
    #[cfg(test)]
    pub(crate) fn into_file(self) -> Arc<std::fs::File> {
        self.file
    }

    /// The size of stored content in bytes; of content that is still coming, 0.
    pub const fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// A part of the file to be sent. `None` where the file does not reach that far: somebody else cut it.
    pub fn slice(&self, range: std::ops::Range<u64>) -> Option<FileSlice> {
        let found_bytes = self.file.metadata().ok()?.len();
        (range.end <= found_bytes).then(|| FileSlice::new(Arc::clone(&self.file), range))
    }

    /// Reads `length` bytes from `offset` on: at once what the page cache has, and the rest on a thread
    /// where that may block. A file that ends before is [`std::io::ErrorKind::UnexpectedEof`], a disk that does
    /// not answer in time [`std::io::ErrorKind::TimedOut`].
    pub async fn read_exact_at(&self, offset: u64, length: usize) -> Result<Bytes> {
        self.fill_exact_at(offset, BytesMut::zeroed(length)).await
    }

    /// The same into memory that is at hand, as much as its length.
    async fn fill_exact_at(&self, offset: u64, mut buffer: BytesMut) -> Result<Bytes> {
        let have = slice::read_resident(&self.file, &mut buffer, offset);
        if have == buffer.len() {
            return Ok(buffer.freeze());
        }
        let file = Arc::clone(&self.file);
        // Untracked: a read ends by itself and leaves nothing behind that shutdown should wait for.
        let read = tokio::task::spawn_blocking(move || {
            file.read_exact_at(&mut buffer[have..], offset + have as u64)?;
            Ok(buffer.freeze())
        });
        match tokio::time::timeout(patience::READ, read).await {
            Ok(Ok(result)) => result.map_err(|source| BlobError::from_io("read content", source)),
            Ok(Err(panicked)) => Err(BlobError::from_io("read content", std::io::Error::other(panicked))),
            Err(_elapsed) => Err(patience::too_slow("read content")),
        }
    }
}

/// What lies in the store, as found by looking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundBlob {
    /// The digest that its file is named by.
    pub digest: Digest,
    /// The file's size in bytes.
    pub size_bytes: u64,
    /// When the file was last modified.
    pub modified_at: Timestamp,
}

impl FoundBlob {
    /// What a file of stored content is.
    fn of(digest: Digest, metadata: &std::fs::Metadata) -> std::io::Result<Self> {
        Ok(Self { digest, size_bytes: metadata.len(), modified_at: modified_at(metadata)? })
    }
}

/// When a file was last written to; before 1970 counts as then.
fn modified_at(metadata: &std::fs::Metadata) -> std::io::Result<Timestamp> {
    let since = metadata.modified()?.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Ok(Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(0)))
}

/// Stores content by digest.
#[async_trait]
pub trait Blobs: Send + Sync {
    /// Opens content; `None` where it is not stored.
    async fn open(&self, digest: &Digest) -> Result<Option<BlobFile>>;

    /// The size of stored content in bytes, without opening it for use; `None` where it is not stored.
    async fn find_size(&self, digest: &Digest) -> Result<Option<u64>> {
        Ok(self.open(digest).await?.map(|file| file.size_bytes()))
    }

    /// Begins to store content. Dropping the file without committing it leaves nothing behind.
    ///
    /// Where the disk cannot take content of known, moderate size, it begins all the same, in memory: readers
    /// share it like any other, and only [`VerifiedFile::commit`] fails, with the disk's error.
    async fn begin(&self, digest: &Digest, size_bytes: Option<u64>) -> Result<FillFile>;

    /// Begins content in memory, as [`Blobs::begin`] does for a disk that is known not to answer in time.
    fn begin_in_memory(&self, digest: &Digest, size_bytes: Option<u64>) -> Result<FillFile>;

    /// Removes content; who has it open reads on. `false` where it was not stored.
    async fn remove(&self, digest: &Digest) -> Result<bool>;

    /// Opens stored content to compare it with its digest: by its name, whatever is kept open. `None` where it is
    /// not stored.
    async fn inspect(&self, digest: &Digest) -> Result<Option<Inspection>>;

    /// Removes content that turned out to be damaged: `file`, or whatever has its name where that cannot be opened.
    /// `false` where it was gone already, or other content has taken its place.
    ///
    /// What cannot be removed is an error, and is not given out any more until other content is in its place.
    async fn condemn(&self, digest: &Digest, file: Option<&BlobFile>) -> Result<bool>;

    /// Whether content is on the disk that was condemned and could not be removed.
    fn is_condemned(&self, digest: &Digest) -> bool;

    /// Tells how much more could be stored, once what could not be removed before is.
    async fn space(&self) -> Result<Space>;

    /// Tries whether content can be stored: writes a little, makes it durable and removes it.
    async fn probe(&self) -> Result<()>;

    /// Lists all stored content, in no order, in parts of bounded size.
    async fn list(&self) -> Result<tokio::sync::mpsc::Receiver<Result<Vec<FoundBlob>>>>;
}
