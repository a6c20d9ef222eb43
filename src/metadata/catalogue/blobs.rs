//! Blobs of hosted repositories: which are known, where they lie, and who may give them out.

use async_trait::async_trait;

use super::{Result, Stamp};
use crate::oci::{Digest, RepositoryName};
use crate::runtime::Timestamp;

/// A blob that lies in a store, whole and verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobRecord {
    /// Its digest.
    pub digest: Digest,
    /// Its size.
    pub size_bytes: u64,
    /// What stores call it, in lexical order: one location for each store that has it.
    pub locations: Vec<String>,
}

/// Keeps the blobs, and their links to repositories.
#[async_trait]
pub trait HostedBlobs: Send + Sync {
    /// Says that a blob is about to be put into a store, whether it is known or not: for the grace time from now on,
    /// nobody removes its bytes. Fails while they are being removed.
    async fn announce_blob(&self, digest: &Digest, at: Timestamp) -> Result<()>;

    /// Records a blob that was put into a store, links it to the repository, and ends the upload that brought it.
    ///
    /// Fails with `BlobLeaving` where the blob was neither known nor announced, or where its bytes were removed since
    /// it was announced, however long ago: what was put may be gone.
    ///
    /// An upload that is not there (any more) is no fault: the answer to the first attempt was lost.
    async fn record_blob(
        &self,
        repository: &RepositoryName,
        blob: &BlobRecord,
        upload: Option<&str>,
        stamp: &Stamp,
    ) -> Result<()>;

    /// Links a blob of the repository `from` to another one (a mount). Whoever asks has the right to read `from`.
    async fn mount_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        from: &RepositoryName,
        stamp: &Stamp,
    ) -> Result<()>;

    /// Finds a blob of a repository.
    async fn find_blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<Option<BlobRecord>>;

    /// Lists up to `limit` repositories that are there and have a blob, in the order of their names.
    async fn list_repositories_with_blob(&self, digest: &Digest, limit: u32) -> Result<Vec<RepositoryName>>;

    /// Takes a blob from a repository. Fails where it is not there, and leaves the bytes to the collection.
    async fn delete_blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<()>;
}
