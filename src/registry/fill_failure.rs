//! Why a fill cannot go on, and what that means to its readers.

use std::sync::Arc;

use super::RegistryError;
use crate::blobs::BlobError;
use crate::blobs::hosted::HostedError;
use crate::oci::Digest;
use crate::upstream::UpstreamError;

/// Why a fill cannot go on.
#[derive(Clone, Debug)]
pub(super) enum FillFailure {
    /// Upstream gives no more, or gave something else.
    Upstream(UpstreamError),
    /// The store of hosted content gives no more, or gave something else.
    Store(Arc<HostedError>),
    /// The disk cannot take it: readers go on without it.
    Disk(Arc<BlobError>),
    /// It is larger than the whole cache may be: readers go on without the disk.
    TooLarge,
    /// The fill's task is gone: the process shuts down, or a fault of ours.
    Vanished,
}

impl FillFailure {
    /// The error for a reader that cannot go on.
    pub(super) fn into_error(self, digest: &Digest) -> RegistryError {
        match self {
            Self::Upstream(error) => RegistryError::from_blob_fetch(error, digest),
            Self::Store(error) => RegistryError::HostedStore(error),
            Self::Disk(error) => RegistryError::Blobs(error),
            Self::TooLarge | Self::Vanished => RegistryError::Internal,
        }
    }

    /// Whether it says nothing against who gives the bytes, so that readers can go on without the disk.
    pub(super) const fn leaves_supplier(&self) -> bool {
        matches!(self, Self::Disk(_) | Self::TooLarge) || self.was_spared()
    }

    /// Whether upstream was not asked, for the sake of those who are more urgent, such as clients.
    pub(super) const fn was_spared(&self) -> bool {
        matches!(self, Self::Upstream(UpstreamError::Reserved { .. }))
    }
}
