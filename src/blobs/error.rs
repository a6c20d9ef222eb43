//! What can go wrong with the disk.

use std::io;

/// The result of an operation on stored content.
pub type Result<T> = std::result::Result<T, BlobError>;

/// Why content could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// No space, no inodes or no quota left.
    #[error("disk is full: {action}")]
    Full {
        /// What was tried: "write blob".
        action: &'static str,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// Any other failure of the disk or its file system.
    #[error("disk failed: {action}")]
    Io {
        /// What was tried: "open blob".
        action: &'static str,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// Another process uses the directory.
    #[error("storage directory {} is in use by another process", path.display())]
    InUse {
        /// The directory.
        path: std::path::PathBuf,
    },
    /// The content that came does not have the digest that it was to have.
    #[error("content has digest {found}, not {expected}")]
    DigestMismatch {
        /// The digest asked for.
        expected: Box<crate::oci::Digest>,
        /// The digest of what came.
        found: Box<crate::oci::Digest>,
    },
}

impl BlobError {
    /// Sorts a system error.
    pub(crate) fn from_io(action: &'static str, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { action, source },
            _ => Self::Io { action, source },
        }
    }
}
