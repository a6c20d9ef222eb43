//! How much more a disk can take.

use std::io;
use std::path::Path;

use rustix::fs::statvfs;

/// What is left of a disk for the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// The size of the whole file system in bytes.
    pub total_bytes: u64,
    /// How many bytes this process may still write.
    pub free_bytes: u64,
    /// How many files it may still make; `None` where the file system has no such limit.
    pub free_files: Option<u64>,
}

impl Space {
    /// Asks the file system. Blocks.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let told = statvfs(path)?;
        Ok(Self {
            total_bytes: told.f_blocks.saturating_mul(told.f_frsize),
            free_bytes: told.f_bavail.saturating_mul(told.f_frsize),
            // btrfs and others make inodes as they need them, and say that they have none at all.
            free_files: (told.f_files > 0).then_some(told.f_favail),
        })
    }

    /// Whether there is space and yet no file can be made.
    pub fn lacks_files(&self) -> bool {
        self.free_files == Some(0)
    }
}
