//! Reading stored content to compare it with the digest that it is named by.
//!
//! It is read anew by its name, whatever is kept open, and leaves the page cache as it was: what was not in it
//! before is dropped from it again, so that looking at everything once pushes out nothing that is in use.

use std::fs::{File, Metadata};
use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{Advice, fadvise};
use tokio::time::Instant;

use super::{BlobError, BlobFile, Result, patience, slice};
use crate::oci::{Digest, Hasher};

/// How much is read and hashed at once, in bytes.
const PART: usize = 1024 * 1024;

/// How finely it is told apart what was in the page cache before, in bytes.
const PIECE: usize = 64 * 1024;

/// A stored file that is being compared with its digest.
#[derive(Debug)]
pub struct Inspection {
    file: BlobFile,
    expected: Digest,
    begun_as: Stamp,
    /// `None` only while a thread has it, or where that was given up.
    work: Option<Work>,
}

/// What is read so far, and where to.
#[derive(Debug)]
struct Work {
    hasher: Hasher,
    position: u64,
    buffer: Vec<u8>,
}

/// A part that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadPart {
    /// Its bytes; none at the end of the file.
    pub bytes: usize,
    /// How long the disk took for what was not in the page cache.
    pub waited: Duration,
}

/// What comparing a file with its digest told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inspected {
    /// It is what its name says.
    Sound,
    /// It is something else.
    Altered,
    /// It was changed, replaced or removed while it was read: what was read says nothing.
    Changed,
}

/// What changes when a file does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    id: FileId,
    size_bytes: u64,
    /// Also changes when the name is removed. Nobody can set it back, as they can the time of the last write.
    changed_at: (i64, i64),
}

/// Which file it is, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}

impl Stamp {
    fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        let changed_at = (metadata.ctime(), metadata.ctime_nsec());
        Ok(Self { id: FileId::of(&metadata), size_bytes: metadata.len(), changed_at })
    }
}

impl Inspection {
    /// Begins to inspect an open file that nobody else reads by. Blocks.
    pub(crate) fn begin(expected: Digest, file: Arc<File>) -> io::Result<Self> {
        let begun_as = Stamp::of(&file)?;
        // Advice: else the system reads ahead, and what it read would look as if it had been in use.
        let _taken = fadvise(&*file, 0, None, Advice::Random);
        let size_bytes = begun_as.size_bytes;
        let length = usize::try_from(size_bytes).unwrap_or(PART).clamp(1, PART);
        let work = Work { hasher: Hasher::new(expected.algorithm()), position: 0, buffer: vec![0; length] };
        Ok(Self { file: BlobFile { file, size_bytes }, expected, begun_as, work: Some(work) })
    }

    /// The file.
    pub const fn file(&self) -> &BlobFile {
        &self.file
    }

    /// How much is read at most before the next pause makes sense, in bytes.
    pub const fn part_bytes() -> usize {
        PART
    }

    /// Reads and hashes the next part, on a thread where that may block.
    ///
    /// A disk that does not answer in time is [`io::ErrorKind::TimedOut`]. After an error, and where this is dropped
    /// at its await point, there is nothing to go on with.
    pub async fn read_next(&mut self) -> Result<ReadPart> {
        const ACTION: &str = "read content anew";
        let given_up = || BlobError::from_io(ACTION, io::Error::other("the read before failed"));
        let mut work = self.work.take().ok_or_else(given_up)?;
        let file = Arc::clone(&self.file.file);
        // Untracked: a read ends by itself and leaves nothing behind that shutdown should wait for.
        let read = tokio::task::spawn_blocking(move || work.read_part(&file).map(|part| (work, part)));
        match tokio::time::timeout(patience::READ, read).await {
            Ok(Ok(Ok((work, part)))) => {
                self.work = Some(work);
                Ok(part)
            }
            Ok(Ok(Err(source))) => Err(BlobError::from_io(ACTION, source)),
            Ok(Err(panicked)) => Err(BlobError::from_io(ACTION, io::Error::other(panicked))),
            Err(_elapsed) => Err(patience::too_slow(ACTION)),
        }
    }

    /// Says what the file is, all of which was read.
    pub fn judge(self) -> (Inspected, BlobFile) {
        let is_as_begun = Stamp::of(&self.file.file).is_ok_and(|now| now == self.begun_as);
        let found = self.work.map(|work| work.hasher.finish());
        let inspected = match found {
            Some(found) if is_as_begun && found == self.expected => Inspected::Sound,
            Some(_) if is_as_begun => Inspected::Altered,
            _ => Inspected::Changed,
        };
        (inspected, self.file)
    }
}

impl Work {
    fn read_part(&mut self, file: &File) -> io::Result<ReadPart> {
        let (mut bytes, mut waited) = (0, Duration::ZERO);
        while bytes < self.buffer.len() {
            let end = self.buffer.len().min(bytes + PIECE);
            let piece = &mut self.buffer[bytes..end];
            let offset = self.position + bytes as u64;
            let resident = slice::read_resident(file, piece, offset);
            let begun = Instant::now();
            let read = resident + read_at_most(file, &mut piece[resident..], offset + resident as u64)?;
            if read > resident {
                waited += begun.elapsed();
                let length = NonZeroU64::new((read - resident) as u64);
                let _taken = fadvise(file, offset + resident as u64, length, Advice::DontNeed);
            }
            bytes += read;
            if read < end - (bytes - read) {
                break;
            }
        }
        self.hasher.update(&self.buffer[..bytes]);
        self.position += bytes as u64;
        Ok(ReadPart { bytes, waited })
    }
}

/// Fills the buffer, or less where the file ends.
fn read_at_most(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut have = 0;
    while have < buffer.len() {
        match file.read_at(&mut buffer[have..], offset + have as u64) {
            Ok(0) => break,
            Ok(count) => have += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(have)
}
