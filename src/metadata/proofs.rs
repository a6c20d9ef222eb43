//! Proofs of access: which repository has shown that it has which content.

use async_trait::async_trait;

use super::{ContentKind, RepositoryId, Result};
use crate::oci::{Digest, MediaType};

/// That a repository has some content: a manifest there lists it, or upstream confirmed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessProof {
    /// The content.
    pub digest: Digest,
    /// Blob or manifest.
    pub kind: ContentKind,
    /// Its size in bytes, where the proof says.
    pub size_bytes: Option<u64>,
    /// Its type, where the proof says.
    pub media_type: Option<MediaType>,
}

/// Keeps proofs of access.
#[async_trait]
pub trait AccessProofs: Send + Sync {
    /// Records proofs; a known one gains what the new one knows (`None` never overwrites a value).
    async fn record_proofs(&self, repository: &RepositoryId, proofs: &[AccessProof]) -> Result<()>;

    /// Finds the proof that `repository` has `digest` as content of `kind`.
    async fn find_proof(
        &self,
        repository: &RepositoryId,
        kind: ContentKind,
        digest: &Digest,
    ) -> Result<Option<AccessProof>>;

    /// Withdraws a proof: upstream said that the content is not, or no longer, there.
    async fn remove_proof(&self, repository: &RepositoryId, kind: ContentKind, digest: &Digest)
    -> Result<()>;

    /// Upstreams whose repository of that name has the blob. For clients that do not say which
    /// registry they mean.
    async fn list_upstreams_with_blob(
        &self,
        name: &crate::oci::RepositoryName,
        digest: &Digest,
    ) -> Result<Vec<String>>;

    /// Who has shown to have an item, in order of (upstream, name).
    async fn list_holders(&self, digest: &Digest) -> Result<Vec<(RepositoryId, AccessProof)>>;

    /// Repositories with any proof, in order of (upstream, name), after `after`.
    async fn list_repositories(&self, after: Option<&RepositoryId>, limit: u32) -> Result<Vec<RepositoryId>>;
}
