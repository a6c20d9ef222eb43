//! Content that is whole, verified and durable, and that nobody can find yet.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::sessions::Lease;
use super::{HostedError, Result};
use crate::blobs::BlobError;
use crate::oci::{Digest, Hasher};
use crate::runtime::Tasks;

/// An upload that is complete, on its way into the store. Dropping it removes what is left of it.
#[derive(Debug)]
pub struct StagedBlob {
    pub(super) file: Arc<File>,
    pub(super) digest: Digest,
    pub(super) size_bytes: u64,
    pub(super) tasks: Tasks,
    /// The file, where it is to be removed.
    pub(super) leftover: Option<PathBuf>,
    /// Held until the file was removed.
    pub(super) lease: Arc<Lease>,
}

impl StagedBlob {
    /// The digest, which agrees with the content.
    pub const fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The size of the content in bytes.
    pub const fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Gives the file the name of content. Blocks.
    pub(super) fn rename_to(&mut self, target: &Path) -> io::Result<()> {
        if let Some(path) = &self.leftover {
            fs::rename(path, target)?;
        }
        self.leftover = None;
        Ok(())
    }

    /// Leaves the upload as it is, to be completed again.
    pub(super) fn keep(mut self) {
        self.leftover = None;
    }

    /// Reads it from the front, comparing the digest once more.
    pub(super) fn reader(&self) -> StagedReader {
        StagedReader {
            file: Arc::clone(&self.file),
            hasher: Hasher::new(self.digest.algorithm()),
            offset_bytes: 0,
            size_bytes: self.size_bytes,
            digest: self.digest,
        }
    }
}

impl Drop for StagedBlob {
    fn drop(&mut self) {
        let Some(path) = self.leftover.take() else { return };
        let lease = Arc::clone(&self.lease);
        // To remove a large file may take long.
        let _removal = self.tasks.spawn_blocking(move || {
            // What cannot be removed now is an abandoned upload.
            let _removed = fs::remove_file(path);
            drop(lease);
        });
    }
}

/// Reads staged content in parts.
#[derive(Debug)]
pub(super) struct StagedReader {
    file: Arc<File>,
    hasher: Hasher,
    offset_bytes: u64,
    size_bytes: u64,
    digest: Digest,
}

impl StagedReader {
    /// Whether all of it was read.
    pub(super) const fn is_at_end(&self) -> bool {
        self.offset_bytes == self.size_bytes
    }

    /// Reads and hashes the next part, of `part_bytes` where that makes not too many. The last one is given out only if the digest of the whole agrees: a disk that
    /// gives back other bytes than it was given must not get them into the store. Blocks.
    pub(super) fn read_next(mut self, part_bytes: u64) -> Result<(Self, Bytes)> {
        const ACTION: &str = "read staged content";
        let length = part_bytes_of(self.size_bytes, part_bytes).min(self.size_bytes - self.offset_bytes);
        let mut part = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
        let read = self.file.read_exact_at(&mut part, self.offset_bytes);
        read.map_err(|source| HostedError::disk(ACTION, source))?;
        self.hasher.update(&part);
        self.offset_bytes += length;
        if self.is_at_end() {
            let found = self.hasher.clone().finish();
            if found != self.digest {
                let expected = Box::new(self.digest);
                return Err(BlobError::DigestMismatch { expected, found: Box::new(found) }.into());
            }
        }
        Ok((self, Bytes::from(part)))
    }
}

/// How many parts an object may have at most: S3 takes 10,000, and the others no fewer.
const MOST_PARTS: u64 = 10_000;

/// The size of the parts of content of `size_bytes`: all the same, since some stores take no others.
fn part_bytes_of(size_bytes: u64, wanted: u64) -> u64 {
    wanted.max(size_bytes.div_ceil(MOST_PARTS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn huge_content_has_larger_parts_and_not_more_of_them() {
        const MIB: u64 = 1024 * 1024;
        assert_eq!(part_bytes_of(0, 8 * MIB), 8 * MIB);
        assert_eq!(part_bytes_of(80_000 * MIB, 8 * MIB), 8 * MIB);
        let part_bytes = part_bytes_of(80_000 * MIB + 1, 8 * MIB);
        assert_eq!(part_bytes, 8 * MIB + 1);
        assert!((80_000 * MIB + 1).div_ceil(part_bytes) <= MOST_PARTS);
    }
}
