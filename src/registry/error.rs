//! Why a use case cannot answer. Knows no HTTP: `server` maps it to status and code.

use std::sync::Arc;
use std::time::Duration;

use crate::blobs::BlobError;
use crate::blobs::hosted::HostedError;
use crate::metadata::MetadataError;
use crate::metadata::RepositoryId;
use crate::oci::{Digest, Reference};
use crate::registry::UpkeepError;
use crate::registry::supplier::SupplierError;
use crate::upstream::UpstreamError;

/// Why a use case cannot answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RegistryError {
    /// The registry that the name carries is none of the configured ones.
    #[error("registry {0} is not configured here")]
    UnknownRegistry(String),
    /// The name says no registry, and none is the default.
    #[error("the name says no registry, and no upstream is the default")]
    NoDefaultRegistry,
    /// The repository name breaks the grammar or is too long.
    #[error("{0}")]
    NameInvalid(String),
    /// The upstream's `allow` and `deny` rules exclude the repository.
    #[error("repository {0} is excluded by the rules of its upstream")]
    Excluded(String),
    /// Upstream says that the manifest does not exist.
    #[error("manifest {0} is unknown upstream")]
    ManifestUnknown(String),
    /// Upstream says that the blob does not exist.
    #[error("blob {0} is unknown upstream")]
    BlobUnknown(Digest),
    /// Upstream says that the repository does not exist.
    #[error("repository {0} is unknown upstream")]
    NameUnknown(String),
    /// Upstream refuses.
    #[error("access denied by upstream")]
    Denied(#[source] UpstreamError),
    /// Upstream throttles, and nothing cached can serve.
    #[error("upstream throttles")]
    Throttled {
        /// How long to wait.
        retry_after: Option<Duration>,
        /// What upstream said.
        #[source]
        source: UpstreamError,
    },
    /// Upstream is broken, and nothing cached can serve.
    #[error("upstream is broken")]
    UpstreamBroken(#[source] UpstreamError),
    /// Upstream is unreachable, and nothing cached can serve.
    #[error("upstream is unreachable")]
    UpstreamUnreachable(#[source] UpstreamError),
    /// This node is offline for upstream, and nothing kept can serve.
    #[error("{source}, and {missing} is not kept here")]
    Offline {
        /// What is missing, in words.
        missing: String,
        /// That it was not asked.
        source: UpstreamError,
    },
    /// Not allowed here.
    #[error(transparent)]
    ReadOnly(#[from] crate::auth::policy::ReadOnly),
    /// This node's index failed.
    #[error("metadata")]
    Metadata(#[source] Arc<MetadataError>),
    /// This node's disk failed.
    #[error("blob store")]
    Blobs(#[source] Arc<BlobError>),
    /// The store of hosted content failed.
    #[error("store of hosted content")]
    HostedStore(#[source] Arc<HostedError>),
    /// A shared piece of work of this node panicked.
    #[error("internal fault")]
    Internal,
}

/// Whose fault an error is: also the metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The client's.
    Client,
    /// Upstream's.
    Upstream,
    /// The node's stores'.
    Store,
    /// Ours.
    Internal,
}

impl RegistryError {
    /// Whose fault it is.
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::UnknownRegistry(_)
            | Self::NoDefaultRegistry
            | Self::NameInvalid(_)
            | Self::Excluded(_)
            | Self::ManifestUnknown(_)
            | Self::BlobUnknown(_)
            | Self::NameUnknown(_)
            | Self::ReadOnly(_) => ErrorKind::Client,
            Self::Denied(_)
            | Self::Throttled { .. }
            | Self::UpstreamBroken(_)
            | Self::UpstreamUnreachable(_)
            | Self::Offline { .. } => ErrorKind::Upstream,
            Self::Metadata(_) | Self::Blobs(_) | Self::HostedStore(_) => ErrorKind::Store,
            Self::Internal => ErrorKind::Internal,
        }
    }

    /// Whether trying again may help.
    pub const fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Throttled { .. }
                | Self::UpstreamBroken(_)
                | Self::UpstreamUnreachable(_)
                | Self::Offline { .. }
                | Self::Metadata(_)
                | Self::Blobs(_)
        )
    }

    /// Keeps the class of an upstream's error; what is absent, `unknown` says, and what is missing while
    /// offline, `missing`.
    fn from_upstream(
        error: UpstreamError,
        missing: impl FnOnce() -> String,
        unknown: impl FnOnce() -> Self,
    ) -> Self {
        match &error {
            UpstreamError::Absent { .. } | UpstreamError::Withheld { .. } => unknown(),
            UpstreamError::Forbidden { .. } | UpstreamError::Barred { .. } => Self::Denied(error),
            UpstreamError::Throttled { retry_after, .. } => {
                Self::Throttled { retry_after: *retry_after, source: error }
            }
            UpstreamError::Reserved { retry_after, .. } => {
                Self::Throttled { retry_after: Some(*retry_after), source: error }
            }
            UpstreamError::Broken { .. } => Self::UpstreamBroken(error),
            UpstreamError::Unreachable { .. } => Self::UpstreamUnreachable(error),
            UpstreamError::Offline { .. } => Self::Offline { missing: missing(), source: error },
        }
    }

    /// The error of a request for a blob.
    pub(super) fn from_blob_fetch(error: impl Into<SupplierError>, digest: &Digest) -> Self {
        match error.into() {
            SupplierError::Upstream(error) => {
                Self::from_upstream(error, || format!("blob {digest}"), || Self::BlobUnknown(*digest))
            }
            SupplierError::Store(error) => Self::HostedStore(error),
        }
    }

    /// The error of a request for a manifest.
    pub(super) fn from_manifest_fetch(
        error: UpstreamError,
        repository: &RepositoryId,
        reference: &Reference,
    ) -> Self {
        let missing = || format!("manifest {reference} of {repository}");
        Self::from_upstream(error, missing, || Self::ManifestUnknown(reference.to_string()))
    }

    /// The error of a request for the tags of a repository.
    pub(super) fn from_listing(error: UpstreamError, repository: &RepositoryId) -> Self {
        let missing = || format!("the list of tags of {repository}");
        Self::from_upstream(error, missing, || Self::NameUnknown(repository.to_string()))
    }

    /// The error of a request for the referrers of a manifest.
    pub(super) fn from_referrers(error: UpstreamError, digest: &Digest) -> Self {
        let missing = || format!("the list of referrers of {digest}");
        Self::from_upstream(error, missing, || Self::ManifestUnknown(digest.to_string()))
    }
}

impl From<MetadataError> for RegistryError {
    fn from(error: MetadataError) -> Self {
        Self::Metadata(Arc::new(error))
    }
}

impl From<BlobError> for RegistryError {
    fn from(error: BlobError) -> Self {
        Self::Blobs(Arc::new(error))
    }
}

impl From<UpkeepError> for RegistryError {
    fn from(error: UpkeepError) -> Self {
        match error {
            UpkeepError::Index(error) => error.into(),
            UpkeepError::Blobs(error) => (*error).into(),
        }
    }
}

impl ErrorKind {
    /// The word in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Upstream => "upstream",
            Self::Store => "store",
            Self::Internal => "internal",
        }
    }
}
