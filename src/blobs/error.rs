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

/// What ails the disk, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DiskCause {
    /// No space or no quota left.
    Full,
    /// Space is left, but no more files can be made.
    Inodes,
    /// The file system is mounted read-only.
    ReadOnly,
    /// The process has as many files open as it may.
    Descriptors,
    /// It does not answer in time.
    Slow,
    /// Anything else, above all bad sectors.
    Io,
}

impl DiskCause {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Full, Self::Inodes, Self::ReadOnly, Self::Descriptors, Self::Slow, Self::Io];

    /// The word in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Inodes => "inodes",
            Self::ReadOnly => "read_only",
            Self::Descriptors => "descriptors",
            Self::Slow => "slow",
            Self::Io => "io",
        }
    }
}

impl BlobError {
    /// What ails the disk. The system has one error for no space and no inodes: both are
    /// [`DiskCause::Full`] here, and [`super::Space`] tells them apart.
    pub fn cause(&self) -> DiskCause {
        // EMFILE and ENFILE have no kind of their own.
        const NO_DESCRIPTORS: [rustix::io::Errno; 2] = [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE];
        match self {
            Self::Full { .. } => DiskCause::Full,
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::ReadOnlyFilesystem => DiskCause::ReadOnly,
                io::ErrorKind::TimedOut => DiskCause::Slow,
                _ if NO_DESCRIPTORS
                    .iter()
                    .any(|errno| source.raw_os_error() == Some(errno.raw_os_error())) =>
                {
                    DiskCause::Descriptors
                }
                _ => DiskCause::Io,
            },
            Self::InUse { .. } | Self::DigestMismatch { .. } => DiskCause::Io,
        }
    }

    /// Sorts a system error.
    pub(crate) fn from_io(action: &'static str, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { action, source },
            _ => Self::Io { action, source },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_of_a_disk_has_its_cause() {
        for (errno, cause) in [
            (rustix::io::Errno::NOSPC, DiskCause::Full),
            (rustix::io::Errno::DQUOT, DiskCause::Full),
            (rustix::io::Errno::ROFS, DiskCause::ReadOnly),
            (rustix::io::Errno::MFILE, DiskCause::Descriptors),
            (rustix::io::Errno::NFILE, DiskCause::Descriptors),
            (rustix::io::Errno::TIMEDOUT, DiskCause::Slow),
            (rustix::io::Errno::IO, DiskCause::Io),
        ] {
            assert_eq!(BlobError::from_io("write content", errno.into()).cause(), cause, "{errno:?}");
        }
    }
}
