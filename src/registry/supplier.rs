//! Who gives the bytes of blobs that are not here: the upstream of a repository, or the store of hosted content.
//!
//! Fills, transfers and answers that pass through are the same for both. Rights are not: what an upstream gives
//! shows that its repository has it; what the store gives shows nothing, since the catalogue decided before.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::time::timeout;

use super::fill_failure::FillFailure;
use super::repository::Repository;
use crate::blobs::hosted::{BlobStream, DurableBlobs, HostedError};
use crate::oci::Digest;
use crate::upstream::{BlobTransfer, TransferBody, UpstreamError, Urgency};

/// How long a client waits for the store's answer, as for an upstream's by default.
const STORE_PATIENCE: Duration = Duration::from_secs(4);

/// How long the store has for its answer. Who comes later is not held up by a question that is lost.
const STORE_ANSWERS_IN: Duration = Duration::from_secs(10);

/// How long the store may be silent in mid-transfer, as an upstream by default.
const STORE_SILENCE: Duration = Duration::from_secs(30);

/// What is tried when the store is read.
const READ: &str = "read content";

/// Who gives the bytes of a blob.
#[derive(Clone)]
pub(super) enum Supplier {
    /// The upstream of a repository.
    Upstream(Repository),
    /// The store of hosted content.
    Store(HostedStore),
}

/// The store of hosted content, where that is not on this machine.
#[derive(Clone)]
pub(super) struct HostedStore {
    blobs: Arc<dyn DurableBlobs>,
    label: Arc<str>,
}

/// Bytes on their way.
pub(super) struct Supply {
    /// The position of the first byte that [`Self::body`] gives.
    pub(super) offset: u64,
    /// The size of the whole blob in bytes, where the supplier says.
    pub(super) total_bytes: Option<u64>,
    pub(super) body: SupplyBody,
}

/// The bytes themselves.
pub(super) enum SupplyBody {
    Upstream(TransferBody),
    Store(BlobStream),
}

/// Why a supplier gives nothing.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum SupplierError {
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    #[error(transparent)]
    Store(#[from] Arc<HostedError>),
}

impl Supplier {
    /// What it is called in headers, metrics and logs.
    pub(super) const fn label(&self) -> &Arc<str> {
        match self {
            Self::Upstream(repository) => &repository.id.upstream,
            Self::Store(store) => &store.label,
        }
    }

    /// The repository, where it is an upstream's.
    pub(super) const fn repository(&self) -> Option<&Repository> {
        match self {
            Self::Upstream(repository) => Some(repository),
            Self::Store(_) => None,
        }
    }

    /// Whether both are the same, so that what one gives or refuses is said of the other as well.
    pub(super) fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Upstream(one), Self::Upstream(other)) => one.id == other.id,
            // A node has one, and the catalogue knows content by one size.
            (Self::Store(_), Self::Store(_)) => true,
            _ => false,
        }
    }

    /// Asks for a blob from `position` on; `total_bytes` is its size, where that is known.
    pub(super) async fn open(
        &self,
        urgency: &Urgency,
        digest: &Digest,
        position: u64,
        total_bytes: Option<u64>,
    ) -> Result<Supply, SupplierError> {
        match self {
            Self::Upstream(Repository { upstream, id, .. }) => {
                Ok(upstream.open_blob(urgency, &id.name, digest, position).await?.into())
            }
            Self::Store(store) => store.open(digest, position, total_bytes).await,
        }
    }

    /// Asks for a part of a blob alone.
    pub(super) async fn open_range(
        &self,
        digest: &Digest,
        range: Range<u64>,
    ) -> Result<Supply, SupplierError> {
        match self {
            Self::Upstream(Repository { upstream, id, .. }) => {
                Ok(upstream.open_blob_range(&Urgency::CLIENT, &id.name, digest, range).await?.into())
            }
            Self::Store(store) => {
                let offset = range.start;
                let body = SupplyBody::Store(store.read(digest, range).await?);
                Ok(Supply { offset, total_bytes: None, body })
            }
        }
    }

    /// How long a client waits for it.
    pub(super) fn patience(&self) -> Duration {
        match self {
            Self::Upstream(repository) => repository.upstream.config().timeouts.miss,
            Self::Store(_) => STORE_PATIENCE,
        }
    }

    /// That it did not answer within that.
    pub(super) fn is_late(&self) -> SupplierError {
        match self {
            Self::Upstream(repository) => repository.unanswered(self.patience()).into(),
            Self::Store(_) => HostedError::TimedOut { action: READ }.into(),
        }
    }

    /// That it gives something else than what it was asked for, this time.
    pub(super) fn broken(&self, reason: impl Into<String>) -> SupplierError {
        let reason = reason.into();
        match self {
            Self::Upstream(repository) => {
                let upstream = repository.upstream.config().name.clone();
                UpstreamError::Broken { upstream, reason }.into()
            }
            Self::Store(_) => HostedError::Broken { reason }.into(),
        }
    }

    /// That what it has is not what the digest says.
    pub(super) fn altered(&self, digest: &Digest, reason: impl Into<String>) -> SupplierError {
        match self {
            Self::Upstream(_) => self.broken(reason),
            Self::Store(store) => store.unkept(digest, &reason.into()),
        }
    }
}

impl fmt::Display for Supplier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Upstream(repository) => repository.id.fmt(f),
            Self::Store(store) => f.write_str(&store.label),
        }
    }
}

impl HostedStore {
    /// What it is called in headers, metrics and logs.
    const LABEL: &str = "hosted";

    /// `None` where its content is on this machine anyway.
    pub(super) fn remote(blobs: &Arc<dyn DurableBlobs>) -> Option<Self> {
        blobs.is_remote().then(|| Self { blobs: Arc::clone(blobs), label: Self::LABEL.into() })
    }

    async fn open(
        &self,
        digest: &Digest,
        position: u64,
        total_bytes: Option<u64>,
    ) -> Result<Supply, SupplierError> {
        let total_bytes = match total_bytes {
            Some(total_bytes) if position == 0 => total_bytes,
            // What was read may have ended early because there is no more.
            expected_bytes => self.find_size(digest, expected_bytes).await?,
        };
        let stream = self.read(digest, position..total_bytes).await?;
        Ok(Supply { offset: position, total_bytes: Some(total_bytes), body: SupplyBody::Store(stream) })
    }

    async fn find_size(&self, digest: &Digest, expected_bytes: Option<u64>) -> Result<u64, SupplierError> {
        let Some(found) = in_time(self.blobs.find(digest)).await? else { return Err(self.lost(digest)) };
        match expected_bytes {
            Some(expected) if expected != found.size_bytes => {
                let reason = format!("it has {} bytes of {expected}", found.size_bytes);
                Err(self.unkept(digest, &reason))
            }
            _ => Ok(found.size_bytes),
        }
    }

    async fn read(&self, digest: &Digest, range: Range<u64>) -> Result<BlobStream, SupplierError> {
        in_time(self.blobs.read(digest, range)).await?.ok_or_else(|| self.lost(digest))
    }

    fn lost(&self, digest: &Digest) -> SupplierError {
        self.unkept(digest, "it does not have it")
    }

    /// That it does not have what it took. Nobody but people can mend that.
    fn unkept(&self, digest: &Digest, reason: &str) -> SupplierError {
        tracing::error!(blob.digest = %digest, store = ?self.blobs, reason, "the object store has lost hosted content");
        HostedError::Unkept { digest: Box::new(*digest) }.into()
    }
}

/// Waits for the store as long as it is given.
async fn in_time<T>(asked: impl Future<Output = Result<T, HostedError>>) -> Result<T, SupplierError> {
    match timeout(STORE_ANSWERS_IN, asked).await {
        Ok(answer) => answer.map_err(SupplierError::from),
        Err(_elapsed) => Err(HostedError::TimedOut { action: READ }.into()),
    }
}

impl SupplyBody {
    /// The next bytes; `None` at the end.
    pub(super) async fn next(&mut self) -> Option<Result<Bytes, SupplierError>> {
        match self {
            Self::Upstream(body) => body.next().await.map(|part| part.map_err(SupplierError::from)),
            Self::Store(stream) => match timeout(STORE_SILENCE, stream.next()).await {
                Ok(part) => part.map(|part| part.map_err(SupplierError::from)),
                Err(_elapsed) => Some(Err(HostedError::TimedOut { action: READ }.into())),
            },
        }
    }
}

impl From<BlobTransfer> for Supply {
    fn from(transfer: BlobTransfer) -> Self {
        let BlobTransfer { offset, total_bytes, body } = transfer;
        Self { offset, total_bytes, body: SupplyBody::Upstream(body) }
    }
}

impl SupplierError {
    /// Whether it says nothing about the content, so that the same may be had soon.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Upstream(error) => error.is_transient(),
            Self::Store(error) => error.is_transient(),
        }
    }
}

impl From<HostedError> for SupplierError {
    fn from(error: HostedError) -> Self {
        Self::Store(Arc::new(error))
    }
}

impl From<SupplierError> for FillFailure {
    fn from(error: SupplierError) -> Self {
        match error {
            SupplierError::Upstream(error) => Self::Upstream(error),
            SupplierError::Store(error) => Self::Store(error),
        }
    }
}
