//! Why a use case of hosted repositories did not do what it was asked.

use super::DeletedTag;
use crate::auth::policy::Refused;
use crate::blobs::hosted::{HostedError, UploadError};
use crate::metadata::catalogue::CatalogueError;
use crate::oci::{Digest, PushedManifestError, RepositoryName, Tag};
use crate::registry::RegistryError;

/// Why a use case of hosted repositories did not do what it was asked. Nothing of it is visible then.
#[derive(Debug, thiserror::Error)]
pub enum HostingError {
    /// The actor may not.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// What was asked for is not there, or contradicts what is, or the catalogue failed.
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
    /// The upload did not go on.
    #[error(transparent)]
    Upload(#[from] UploadError),
    /// The store of content failed.
    #[error("store of hosted content failed")]
    Store(#[from] HostedError),
    /// The cache in front of the store could not give it.
    #[error(transparent)]
    Cache(#[from] RegistryError),
    /// The content is no manifest that is taken.
    #[error(transparent)]
    Manifest(#[from] PushedManifestError),
    /// The manifest is larger than manifests may be.
    #[error("manifest is larger than {limit_bytes} bytes")]
    ManifestTooLarge {
        /// How large it may be.
        limit_bytes: usize,
    },
    /// A blob is listed with another size than it has.
    #[error("manifest says that blob {digest} has {said_bytes} bytes, and it has {found_bytes}")]
    SizeContradicted {
        /// The blob.
        digest: Box<Digest>,
        /// The size in the manifest.
        said_bytes: u64,
        /// The size of the blob.
        found_bytes: u64,
    },
    /// The content has another digest than was announced.
    #[error("content has digest {found}, not {expected}")]
    DigestMismatch {
        /// The digest announced.
        expected: Box<Digest>,
        /// The digest of what came.
        found: Box<Digest>,
    },
    /// The bytes that were announced did not all come, or more did.
    #[error("{announced_bytes} bytes were announced, and {found_bytes} came")]
    LengthContradicted {
        /// What was announced.
        announced_bytes: u64,
        /// What came.
        found_bytes: u64,
    },
    /// The client's body broke off. What came of an upload is kept.
    #[error("body broke off")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The tag points elsewhere, and may not be moved.
    #[error("tag {tag} may not be moved or deleted: the namespace's policy says that it is immutable")]
    Immutable {
        /// The tag.
        tag: String,
    },
    /// The tag was deleted, and can be restored.
    #[error(
        "tag {tag} was deleted by {by} at {}: until {} it can be restored: tidegate tag restore {repository}:{tag}",
        .deleted.at.to_rfc3339(), .deleted.restorable_until.to_rfc3339(), by = .deleted.by
    )]
    Deleted {
        /// The repository.
        repository: RepositoryName,
        /// The tag.
        tag: Tag,
        /// What is known of it.
        deleted: Box<DeletedTag>,
    },
    /// What the tag pointed to was collected: its retention is over.
    #[error("tag {tag} cannot be restored to {digest}: the manifest was collected after its retention")]
    Gone {
        /// The tag.
        tag: String,
        /// The manifest.
        digest: Box<Digest>,
    },
    /// The catalogue has content that the store has not.
    #[error("blob {0} is in the catalogue and not in the store")]
    ContentMissing(Box<Digest>),
    /// A collection did not come to its end.
    #[error("collection failed: {0}")]
    CollectionFailed(String),
    /// What is there already contradicts it, and what would help.
    #[error("{0}")]
    Conflict(String),
    /// Something that the caller said cannot be done, and why.
    #[error("{0}")]
    Invalid(String),
}

/// The result of a use case of hosted repositories.
pub type Result<T, E = HostingError> = std::result::Result<T, E>;
