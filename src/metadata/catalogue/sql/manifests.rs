//! The tables `manifest`, `manifest_link` and `manifest_edge`.

use async_trait::async_trait;

use super::SqlCatalogue;
use super::lookups::{find_repository, has_manifest, lock_repository};
use super::session::Session;
use super::tags::{Target, move_tag, require_unmoved};
use super::values::{Row, values};
use crate::metadata::MetadataError;
use crate::metadata::catalogue::{
    CatalogueError, ChangeKind, ContentUse, HostedManifests, ManifestPush, ManifestRecord, MissingChildren,
    Referrer, Result, Stamp,
};
use crate::oci::{Digest, RepositoryName, Tag};

#[async_trait]
impl HostedManifests for SqlCatalogue {
    async fn push_manifest(
        &self,
        repository: &RepositoryName,
        push: &ManifestPush,
        stamp: &Stamp,
    ) -> Result<()> {
        let mut session = self.begin().await?;
        let id = lock_repository(&mut session, repository).await?;
        let digest = &push.manifest.digest;
        record(&mut session, push, stamp).await?;
        require_blobs(&mut session, id, digest).await?;
        if push.missing_children == MissingChildren::Refused {
            require_children(&mut session, id, digest).await?;
        }
        if !has_manifest(&mut session, id, digest).await? {
            session
                .execute(
                    "INSERT INTO manifest_link (repository_id, digest, subject, pushed_at, pushed_by)
                     VALUES ($1, $2, $3, $4, $5)
                     ON CONFLICT (repository_id, digest) DO UPDATE SET
                        pushed_at = excluded.pushed_at, pushed_by = excluded.pushed_by,
                        deleted_at = NULL, deleted_by = NULL, loose_since = NULL",
                    values![id, digest, push.manifest.subject.as_ref(), stamp.at, &*stamp.by],
                )
                .await?;
            session.note(ChangeKind::ManifestPushed, repository.as_str(), None, Some(digest), stamp);
        }
        // Who pushes it wants it, with a tag or without.
        hold(&mut session, id, digest).await?;
        let target = Target::Manifest { digest, expires_at: push.tags_expire_at };
        for tag in &push.tags {
            if push.immutable_tags.contains(tag) {
                require_unmoved(&mut session, id, tag, digest).await?;
            }
            move_tag(&mut session, (id, repository), tag, target, stamp).await?;
        }
        Ok(session.commit().await?)
    }

    async fn find_manifest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<ManifestRecord>> {
        let mut session = self.read().await?;
        let Some(id) = find_repository(&mut session, repository).await? else { return Ok(None) };
        let row = session
            .find(
                "SELECT media_type, artifact_type, manifest.subject, annotations, payload FROM manifest
                 JOIN manifest_link ON manifest_link.digest = manifest.digest
                 WHERE manifest.digest = $1 AND repository_id = $2 AND deleted_at IS NULL",
                values![digest, id],
            )
            .await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(ManifestRecord {
            digest: *digest,
            media_type: row.media_type()?,
            artifact_type: row.optional_text("artifact_type")?,
            subject: row.optional("subject")?,
            annotations: row.annotations()?,
            payload: row.bytes("payload")?.into(),
        }))
    }

    async fn delete_manifest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        stamp: &Stamp,
    ) -> Result<Vec<Tag>> {
        let mut session = self.begin().await?;
        let id = lock_repository(&mut session, repository).await?;
        let deleted = session
            .execute(
                "UPDATE manifest_link SET deleted_at = $3, deleted_by = $4
                 WHERE repository_id = $1 AND digest = $2 AND deleted_at IS NULL",
                values![id, digest, stamp.at, &*stamp.by],
            )
            .await?;
        if deleted == 0 {
            return Err(CatalogueError::ManifestUnknown);
        }
        let rows = session
            .fetch(
                "SELECT tag FROM tag WHERE repository_id = $1 AND digest = $2 ORDER BY tag",
                values![id, digest],
            )
            .await?;
        let tags: Vec<Tag> =
            rows.iter().map(|row| row.parsed("tag")).collect::<std::result::Result<_, _>>()?;
        for tag in &tags {
            move_tag(&mut session, (id, repository), tag, Target::Nothing, stamp).await?;
        }
        session.note(ChangeKind::ManifestDeleted, repository.as_str(), None, Some(digest), stamp);
        session.commit().await?;
        Ok(tags)
    }

    async fn record_uses(&self, uses: &[ContentUse]) -> Result<()> {
        let mut uses: Vec<_> = uses.iter().collect();
        // In one order everywhere: two nodes that do this do not wait for each other in a circle.
        uses.sort_by(|one, other| (&one.repository, &one.digest).cmp(&(&other.repository, &other.digest)));
        let mut session = self.begin().await?;
        for ContentUse { repository, digest, used_at } in uses {
            session
                .execute(
                    "INSERT INTO content_use (repository_id, digest, used_at)
                     SELECT repository.id, $2, $3 FROM repository WHERE name = $1
                     ON CONFLICT (repository_id, digest) DO UPDATE SET used_at = excluded.used_at
                        WHERE content_use.used_at < excluded.used_at",
                    values![repository, digest, *used_at],
                )
                .await?;
        }
        Ok(session.commit().await?)
    }

    async fn list_referrers(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
        artifact_type: Option<&str>,
        after: Option<&Digest>,
        limit: u32,
    ) -> Result<Vec<Referrer>> {
        let mut session = self.read().await?;
        let Some(id) = find_repository(&mut session, repository).await? else { return Ok(Vec::new()) };
        let after = after.map(Digest::to_string).unwrap_or_default();
        let rows = session
            .fetch(
                "SELECT manifest.digest, media_type, size_bytes, artifact_type, annotations FROM manifest_link
                 JOIN manifest ON manifest.digest = manifest_link.digest
                 WHERE repository_id = $1 AND manifest_link.subject = $2 AND manifest_link.digest > $3
                    AND deleted_at IS NULL AND ($4 IS NULL OR artifact_type = $4)
                 ORDER BY manifest_link.digest LIMIT $5",
                values![id, subject, after.as_str(), artifact_type, limit],
            )
            .await?;
        rows.iter().map(read_referrer).collect()
    }
}

/// Has a manifest held by somebody again: whatever it lost before counts no more.
async fn hold(session: &mut Session, repository: u64, digest: &Digest) -> Result<()> {
    session
        .execute(
            "UPDATE manifest_link SET loose_since = NULL
             WHERE repository_id = $1 AND digest = $2 AND loose_since IS NOT NULL",
            values![repository, digest],
        )
        .await?;
    Ok(())
}

/// Brings back a deleted manifest with all that it lists, as far as that was not collected.
pub(super) async fn revive(
    session: &mut Session,
    (id, repository): (u64, &RepositoryName),
    digest: &Digest,
    stamp: &Stamp,
) -> Result<()> {
    let rows = session
        .fetch(
            "WITH RECURSIVE needed (digest) AS (
                SELECT digest FROM manifest WHERE digest = $2
                UNION
                SELECT child FROM manifest_edge JOIN needed ON parent = needed.digest WHERE kind = 'manifest'
             )
             UPDATE manifest_link SET deleted_at = NULL, deleted_by = NULL
             WHERE repository_id = $1 AND deleted_at IS NOT NULL AND digest IN (SELECT digest FROM needed)
             RETURNING digest",
            values![id, digest],
        )
        .await?;
    for row in rows {
        let revived: Digest = row.parsed("digest")?;
        session.note(ChangeKind::ManifestRestored, repository.as_str(), None, Some(&revived), stamp);
    }
    Ok(())
}

/// Records what the manifest says. Its row is locked by that: whoever collects it waits.
async fn record(session: &mut Session, push: &ManifestPush, stamp: &Stamp) -> Result<()> {
    let ManifestRecord { digest, media_type, artifact_type, subject, annotations, payload } = &push.manifest;
    session
        .execute(
            "INSERT INTO manifest (digest, media_type, artifact_type, subject, annotations, size_bytes,
                recorded_at, payload)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
             ON CONFLICT (digest) DO UPDATE SET recorded_at = excluded.recorded_at",
            values![
                digest,
                media_type.as_str(),
                artifact_type.as_deref(),
                subject.as_ref(),
                to_json(annotations)?.as_str(),
                payload.len() as u64,
                stamp.at,
                &payload[..],
            ],
        )
        .await?;
    for (kind, listed) in [("blob", &push.blobs), ("manifest", &push.children)] {
        let listed: Vec<String> = listed.iter().map(Digest::to_string).collect();
        if !listed.is_empty() {
            session.execute_by_engine(EDGES, values![digest, kind, to_json(&listed)?.as_str()]).await?;
        }
    }
    Ok(())
}

/// Fails with the first blob that the manifest lists and the repository does not have.
async fn require_blobs(session: &mut Session, repository: u64, digest: &Digest) -> Result<()> {
    let missing = session
        .find(
            "SELECT child FROM manifest_edge WHERE parent = $2 AND kind = 'blob' AND NOT EXISTS (
                SELECT 1 FROM blob_link WHERE repository_id = $1 AND blob_link.digest = child)
             ORDER BY child LIMIT 1",
            values![repository, digest],
        )
        .await?;
    match missing {
        Some(row) => Err(CatalogueError::BlobUnknown(row.parsed("child")?)),
        None => Ok(()),
    }
}

/// Fails with the first manifest that the index lists and the repository does not have.
async fn require_children(session: &mut Session, repository: u64, digest: &Digest) -> Result<()> {
    let missing = session
        .find(
            "SELECT child FROM manifest_edge WHERE parent = $2 AND kind = 'manifest' AND NOT EXISTS (
                SELECT 1 FROM manifest_link
                WHERE repository_id = $1 AND manifest_link.digest = child AND deleted_at IS NULL)
             ORDER BY child LIMIT 1",
            values![repository, digest],
        )
        .await?;
    match missing {
        Some(row) => Err(CatalogueError::ChildUnknown(row.parsed("child")?)),
        None => Ok(()),
    }
}

fn read_referrer(row: &Row) -> Result<Referrer> {
    Ok(Referrer {
        digest: row.parsed("digest")?,
        media_type: row.media_type()?,
        size_bytes: row.number("size_bytes")?,
        artifact_type: row.optional_text("artifact_type")?,
        annotations: row.annotations()?,
    })
}

fn to_json<T: serde::Serialize>(value: &T) -> Result<String> {
    let text = serde_json::to_string(value);
    Ok(text.ok().ok_or(MetadataError::Unreadable { column: "annotations" })?)
}

/// All edges of one kind in one statement, however many there are: for `SQLite`, and for `PostgreSQL`.
const EDGES: [&str; 2] = [
    "INSERT INTO manifest_edge (parent, kind, child) SELECT $1, $2, value FROM json_each($3) WHERE TRUE
     ON CONFLICT (parent, kind, child) DO NOTHING",
    "INSERT INTO manifest_edge (parent, kind, child)
     SELECT $1, $2, listed FROM json_array_elements_text($3::json) AS listed
     ON CONFLICT (parent, kind, child) DO NOTHING",
];
