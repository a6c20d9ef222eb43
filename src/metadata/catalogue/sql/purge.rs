//! Places that were deleted long ago go for good: first out of reach, then row by row.

use super::SqlCatalogue;
use super::collection::forget_manifest;
use super::session::Session;
use super::values::values;
use crate::metadata::catalogue::{ChangeKind, Purged, Result, Stamp};
use crate::oci::Digest;
use crate::runtime::Timestamp;

/// Takes namespaces and repositories out of reach. From then on they only wait to be removed: nobody finds them by their
/// names, which are free.
pub(super) async fn seal_due_places(
    catalogue: &SqlCatalogue,
    now: Timestamp,
    limit: u32,
    stamp: &Stamp,
) -> Result<u32> {
    let namespaces = catalogue
        .read()
        .await?
        .fetch(
            "SELECT name FROM namespace WHERE deleted_at IS NOT NULL AND purged_at IS NULL
                AND deleted_at + restore_for_ms < $1 ORDER BY name LIMIT $2",
            values![now, limit],
        )
        .await?;
    let mut sealed = 0;
    for row in namespaces {
        let name = row.text("name")?;
        let mut session = catalogue.begin().await?;
        let is_due = session
            .execute(
                "UPDATE namespace SET purged_at = $2 WHERE name = $1 AND deleted_at IS NOT NULL
                    AND purged_at IS NULL AND deleted_at + restore_for_ms < $2",
                values![name.as_str(), now],
            )
            .await?;
        if is_due > 0 {
            session
                .execute(
                    "UPDATE repository SET name = name || '#' || CAST(id AS TEXT), purged_at = $2,
                        deleted_at = $2, deleted_by = $3
                     WHERE namespace = $1 AND purged_at IS NULL",
                    values![name.as_str(), now, &*stamp.by],
                )
                .await?;
            session.note(ChangeKind::NamespacePurged, &name, None, None, stamp);
            session.commit().await?;
            sealed += 1;
        }
    }
    Ok(sealed + seal_repositories(catalogue, now, limit, stamp).await?)
}

async fn seal_repositories(
    catalogue: &SqlCatalogue,
    now: Timestamp,
    limit: u32,
    stamp: &Stamp,
) -> Result<u32> {
    let repositories = catalogue
        .read()
        .await?
        .fetch(
            "SELECT id, repository.name FROM repository JOIN namespace ON namespace.name = repository.namespace
             WHERE repository.deleted_at < $1 AND repository.purged_at IS NULL
                AND repository.deleted_at + restore_for_ms < $1
             ORDER BY repository.deleted_at LIMIT $2",
            values![now, limit],
        )
        .await?;
    let mut sealed = 0;
    for row in repositories {
        let mut session = catalogue.begin().await?;
        let is_due = session
            .execute(
                "UPDATE repository SET name = name || '#' || CAST(id AS TEXT), purged_at = $2
                 WHERE id = $1 AND deleted_at IS NOT NULL AND purged_at IS NULL
                    AND deleted_at + (SELECT restore_for_ms FROM namespace
                        WHERE namespace.name = repository.namespace) < $2",
                values![row.number("id")?, now],
            )
            .await?;
        if is_due > 0 {
            session.note(ChangeKind::RepositoryPurged, &row.text("name")?, None, None, stamp);
            session.commit().await?;
            sealed += 1;
        }
    }
    Ok(sealed)
}

/// Removes some rows of one repository that is out of reach.
pub(super) async fn purge_sealed(catalogue: &SqlCatalogue, limit: u32) -> Result<Purged> {
    let mut session = catalogue.begin().await?;
    let found = session
        .find("SELECT id FROM repository WHERE purged_at IS NOT NULL ORDER BY id LIMIT 1", vec![])
        .await?;
    let Some(found) = found else {
        let removed = session.execute(EMPTY_NAMESPACES, vec![]).await?;
        if removed > 0 {
            session.commit().await?;
        }
        return Ok(Purged::default());
    };
    let repository = found.number("id")?;
    let mut purged = Purged { is_unfinished: true, ..Purged::default() };
    for statement in ROWS {
        if session.execute(statement, values![repository, limit]).await? > 0 {
            session.commit().await?;
            return Ok(purged);
        }
    }
    purged.links = session.execute(LINKS, values![repository, limit]).await?;
    if purged.links == 0 {
        purged.manifests = remove_manifests(&mut session, repository, limit).await?;
    }
    if purged.links == 0 && purged.manifests == 0 {
        purged.repositories =
            session.execute("DELETE FROM repository WHERE id = $1", values![repository]).await?;
    }
    session.commit().await?;
    Ok(purged)
}

async fn remove_manifests(session: &mut Session, repository: u64, limit: u32) -> Result<u64> {
    let rows = session
        .fetch(
            "DELETE FROM manifest_link WHERE repository_id = $1 AND digest IN (
                SELECT digest FROM manifest_link WHERE repository_id = $1 ORDER BY digest LIMIT $2)
             RETURNING digest",
            values![repository, limit],
        )
        .await?;
    let mut digests =
        rows.iter().map(|row| row.parsed("digest")).collect::<std::result::Result<Vec<Digest>, _>>()?;
    // In one order everywhere: two that remove the same manifests do not wait for each other in a circle.
    digests.sort_unstable();
    for digest in &digests {
        forget_manifest(session, digest).await?;
    }
    Ok(digests.len() as u64)
}

/// Rows of a repository that nothing else is counted by, in the order in which they refer to each other.
const ROWS: [&str; 4] = [
    "DELETE FROM tag WHERE repository_id = $1 AND tag IN (
        SELECT tag FROM tag WHERE repository_id = $1 ORDER BY tag LIMIT $2)",
    "DELETE FROM tag_history WHERE id IN (
        SELECT id FROM tag_history WHERE repository_id = $1 ORDER BY repository_id, tag, id LIMIT $2)",
    "DELETE FROM content_use WHERE repository_id = $1 AND digest IN (
        SELECT digest FROM content_use WHERE repository_id = $1 ORDER BY digest LIMIT $2)",
    "DELETE FROM upload WHERE id IN (SELECT id FROM upload WHERE repository_id = $1 ORDER BY id LIMIT $2)",
];

const LINKS: &str = "DELETE FROM blob_link WHERE repository_id = $1 AND digest IN (
    SELECT digest FROM blob_link WHERE repository_id = $1 ORDER BY digest LIMIT $2)";

const EMPTY_NAMESPACES: &str = "DELETE FROM namespace WHERE purged_at IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM repository WHERE repository.namespace = namespace.name)";
