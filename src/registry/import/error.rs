//! Why a bundle is not taken in.

use std::io;

use crate::blobs::BlobError;
use crate::bundle::BundleError;
use crate::metadata::MetadataError;
use crate::oci::Digest;
use crate::registry::RegistryError;

/// Why a bundle is not taken in. Nothing of it is visible then.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// Another one is being taken in.
    #[error("another bundle is being imported: wait for its end")]
    Busy,
    /// The file cannot be believed.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// It stopped coming.
    #[error("the bundle stopped coming")]
    Source(#[source] io::Error),
    /// No byte came for some time.
    #[error("no byte of the bundle came for {seconds} s")]
    Silent {
        /// How long it was waited for.
        seconds: u64,
    },
    /// A name in it means nothing here.
    #[error(
        "{image} cannot be served here: {reason}; configure its registry as [[upstream]], or export without it"
    )]
    Name {
        /// The image.
        image: String,
        /// Why.
        reason: RegistryError,
    },
    /// It is more than the cache may hold.
    #[error(
        "the images need {needed_bytes} bytes, and storage.max_size is {budget_bytes}{}",
        remedy(*pinned_bytes)
    )]
    OverBudget {
        /// What the images need, in bytes.
        needed_bytes: u64,
        /// The budget, in bytes.
        budget_bytes: u64,
        /// What is pinned beside them, in bytes.
        pinned_bytes: u64,
    },
    /// The disk has no room for it.
    #[error(
        "the bundle needs {needed_bytes} bytes that are not here, and the disk has {free_bytes} free, of which {min_free_bytes} are to stay so (storage.min_free), and {evictable_bytes} to evict: make room"
    )]
    NoRoom {
        /// What it brings, in bytes.
        needed_bytes: u64,
        /// What is free, in bytes.
        free_bytes: u64,
        /// What could be evicted, in bytes.
        evictable_bytes: u64,
        /// What has to stay free, in bytes.
        min_free_bytes: u64,
    },
    /// Content is missing that its base has.
    #[error(
        "the bundle goes on from {file} ({id}), of which {count} parts are not here, such as {first}: import that first"
    )]
    BaseMissing {
        /// The name of the base's file.
        file: String,
        /// The base.
        id: Box<Digest>,
        /// How many parts are missing.
        count: usize,
        /// The first of them.
        first: String,
    },
    /// Content that its base has is here, and is not what its name says.
    #[error(
        "the bundle goes on from {file} ({id}), of which {digest} was altered on this node's disk, and is removed: import that first, again"
    )]
    BaseAltered {
        /// The name of the base's file.
        file: String,
        /// The base.
        id: Box<Digest>,
        /// The content.
        digest: Box<Digest>,
    },
    /// Its manifests need what it does not have.
    #[error("the bundle is not complete: manifest {manifest} lists {digest}, which it does not hold")]
    Incomplete {
        /// The manifest.
        manifest: Box<Digest>,
        /// What it lists.
        digest: Box<Digest>,
    },
    /// It holds what nothing needs.
    #[error("the bundle holds {0}, which belongs to none of its images")]
    Stray(Box<Digest>),
    /// Its manifests are more than any bundle's.
    #[error(
        "the bundle's manifests have {size_bytes} bytes, more than the {limit_bytes} that are read: split it"
    )]
    TooManyManifests {
        /// Their size in bytes.
        size_bytes: u64,
        /// The limit, in bytes.
        limit_bytes: u64,
    },
    /// Its manifests list, or its repositories have, more than any bundle's.
    #[error(
        "the bundle's manifests list, or its repositories have, more than {limit} parts, which is the most that is read: split it"
    )]
    TooManyParts {
        /// The limit.
        limit: usize,
    },
    /// Something that was here went while the bundle came.
    #[error("{0} was here when the import began and is not any more: import the bundle again")]
    Gone(Box<Digest>),
    /// This node's disk failed.
    #[error("the disk cannot take it")]
    Store(#[from] BlobError),
    /// This node's index failed.
    #[error("the index cannot take it")]
    Index(#[from] MetadataError),
    /// A fault of ours.
    #[error("internal fault")]
    Internal,
}

/// What to do where the budget is too small.
fn remedy(pinned_bytes: u64) -> String {
    match pinned_bytes {
        0 => ": raise it, or split the bundle".to_owned(),
        bytes => {
            format!(", of which {bytes} are pinned otherwise: raise it, unpin something, or split the bundle")
        }
    }
}
