//! What can go wrong with the catalogue.

use crate::metadata::MetadataError;
use crate::oci::{Digest, Tag};

/// The result of an operation of the catalogue.
pub type Result<T> = std::result::Result<T, CatalogueError>;

/// Why the catalogue did not do as it was told. Nothing was changed then.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// There is no such namespace, or it was deleted.
    #[error("namespace is unknown")]
    NamespaceUnknown,
    /// There is no such repository, or it or its namespace was deleted.
    #[error("repository is unknown")]
    RepositoryUnknown,
    /// There is no such account.
    #[error("account is unknown")]
    AccountUnknown,
    /// The repository does not have the manifest.
    #[error("manifest is unknown to the repository")]
    ManifestUnknown,
    /// The repository does not have a blob.
    #[error("blob {0} is unknown to the repository")]
    BlobUnknown(Digest),
    /// The repository does not have a manifest that an index lists.
    #[error("manifest {0} of the index is unknown to the repository")]
    ChildUnknown(Digest),
    /// The repository does not have the tag, or the tag never pointed there.
    #[error("tag is unknown to the repository")]
    TagUnknown,
    /// The tag points to another manifest, and may not be moved.
    #[error("tag {0} may not be moved")]
    TagImmutable(Tag),
    /// The repository does not have the upload: it is finished, cancelled, or never was.
    #[error("upload is unknown to the repository")]
    UploadUnknown,
    /// The upload stands elsewhere.
    #[error("upload stands at {offset_bytes} bytes")]
    UploadElsewhere {
        /// Where.
        offset_bytes: u64,
    },
    /// The blob's bytes are being removed: it can come back when they are gone.
    #[error("blob {0} is being removed")]
    BlobLeaving(Digest),
    /// The content is known with another size: one of the two was never verified.
    #[error("blob {0} is known with another size")]
    SizeContradicted(Digest),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] MetadataError),
}

impl CatalogueError {
    /// Whether trying again may help.
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::Store(error) => error.is_transient(),
            Self::BlobLeaving(_) => true,
            _ => false,
        }
    }
}
