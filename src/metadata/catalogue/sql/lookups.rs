//! What most methods ask first.

use super::session::Session;
use super::values::values;
use crate::metadata::catalogue::{CatalogueError, Result};
use crate::oci::{Digest, RepositoryName};

/// Finds the number that stands for a repository that is there.
pub(super) async fn find_repository(session: &mut Session, name: &RepositoryName) -> Result<Option<u64>> {
    let row = session
        .find(
            "SELECT repository.id FROM repository JOIN namespace ON namespace.name = repository.namespace
             WHERE repository.name = $1 AND repository.deleted_at IS NULL AND namespace.deleted_at IS NULL",
            values![name],
        )
        .await?;
    Ok(row.map(|row| row.number("id")).transpose()?)
}

/// The same for those who need one.
pub(super) async fn require_repository(session: &mut Session, name: &RepositoryName) -> Result<u64> {
    find_repository(session, name).await?.ok_or(CatalogueError::RepositoryUnknown)
}

/// The same, and whoever changes the repository's manifests, tags or links otherwise waits until this transaction ends.
pub(super) async fn lock_repository(session: &mut Session, name: &RepositoryName) -> Result<u64> {
    session.lock("SELECT id FROM repository WHERE name = $1 FOR NO KEY UPDATE", values![name]).await?;
    require_repository(session, name).await
}

/// Whether the repository has a manifest that is not deleted.
pub(super) async fn has_manifest(session: &mut Session, repository: u64, digest: &Digest) -> Result<bool> {
    let row = session
        .find(
            "SELECT digest FROM manifest_link WHERE repository_id = $1 AND digest = $2 AND deleted_at IS NULL",
            values![repository, digest],
        )
        .await?;
    Ok(row.is_some())
}
