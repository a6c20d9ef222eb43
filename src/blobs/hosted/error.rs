//! What can go wrong with hosted content and with uploads.

use std::io;

use crate::blobs::BlobError;
use crate::oci::Digest;

/// The result of an operation on hosted content.
pub type Result<T, E = HostedError> = std::result::Result<T, E>;

/// Why hosted content could not be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum HostedError {
    /// The disk of this machine failed, or what it gave back is not what was written.
    #[error(transparent)]
    Disk(#[from] BlobError),
    /// The object store did not do it, and may do it later.
    #[error("object store is not available: {action}")]
    Unavailable {
        /// What was tried: "send content".
        action: &'static str,
        /// The store's answer.
        #[source]
        source: object_store::Error,
    },
    /// The object store did not answer in time.
    #[error("object store did not answer in time: {action}")]
    TimedOut {
        /// What was tried.
        action: &'static str,
    },
    /// The object store does not do it until somebody changes credentials, rights or settings.
    #[error("object store refused: {action}")]
    Refused {
        /// What was tried.
        action: &'static str,
        /// The store's answer.
        #[source]
        source: object_store::Error,
    },
    /// The object store said that it has taken content, and has not, or has something else.
    #[error("object store has not kept what it said it took: {digest}")]
    Unkept {
        /// The content.
        digest: Box<Digest>,
    },
    /// The object store gives something else than what it was asked for.
    #[error("object store is broken: {reason}")]
    Broken {
        /// What is wrong.
        reason: String,
    },
    /// The settings make no store.
    #[error("object store cannot be used: {reason}")]
    Setup {
        /// What is wrong with them.
        reason: String,
    },
}

impl HostedError {
    /// Whether the same may succeed soon, without anybody doing anything.
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::TimedOut { .. } | Self::Broken { .. })
    }

    /// Whether it is this machine's disk that failed, and not the store behind it.
    pub(super) const fn is_of_disk(&self) -> bool {
        matches!(self, Self::Disk(_))
    }

    /// Sorts an error of the disk.
    pub(super) fn disk(action: &'static str, source: io::Error) -> Self {
        Self::Disk(BlobError::from_io(action, source))
    }

    /// Sorts an error of an object store. A missing object is not for this: what is missing here is the bucket.
    pub(super) fn store(action: &'static str, source: object_store::Error) -> Self {
        use object_store::Error;
        match source {
            Error::NotFound { .. }
            | Error::InvalidPath { .. }
            | Error::NotSupported { .. }
            | Error::NotImplemented { .. }
            | Error::PermissionDenied { .. }
            | Error::Unauthenticated { .. }
            | Error::UnknownConfigurationKey { .. } => Self::Refused { action, source },
            _ => Self::Unavailable { action, source },
        }
    }
}

/// Why an upload did not go on.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// There is no such upload: never begun, completed, cancelled, or given up.
    #[error("no such upload")]
    Unknown,
    /// Another request is at it.
    #[error("upload is in use by another request")]
    Busy,
    /// The bytes are not those that come next.
    #[error("bytes do not begin where the upload ends, at {offset_bytes}")]
    OutOfOrder {
        /// Where the upload ends.
        offset_bytes: u64,
    },
    /// The content is larger than content may be. The upload is given up.
    #[error("content is larger than {limit_bytes} bytes")]
    TooLarge {
        /// How large it may be.
        limit_bytes: u64,
    },
    /// What came is not what was announced. The upload is given up.
    #[error("content has digest {found}, not {expected}")]
    DigestMismatch {
        /// The digest announced.
        expected: Box<Digest>,
        /// The digest of what came.
        found: Box<Digest>,
    },
    /// The disk failed. The upload is given up, unless it was not begun or not found.
    #[error(transparent)]
    Disk(#[from] BlobError),
}

impl UploadError {
    /// Whether the same may succeed soon, without anybody doing anything.
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Busy)
    }

    pub(super) fn disk(action: &'static str, source: io::Error) -> Self {
        Self::Disk(BlobError::from_io(action, source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_passes_by_itself_and_a_refusal_does_not() {
        let outage = object_store::Error::Generic { store: "S3", source: "503".into() };
        assert!(HostedError::store("send content", outage).is_transient());
        let refusal =
            object_store::Error::PermissionDenied { path: "content".to_owned(), source: "403".into() };
        let refused = HostedError::store("send content", refusal);
        assert!(!refused.is_transient() && !refused.is_of_disk(), "{refused}");
        assert!(HostedError::disk("send content", io::ErrorKind::StorageFull.into()).is_of_disk());
    }
}
