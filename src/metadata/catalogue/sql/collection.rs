//! What goes. Candidates are looked for without locks, and looked at again under them.

use async_trait::async_trait;

use super::SqlCatalogue;
use super::session::Session;
use super::values::values;
use crate::metadata::catalogue::{ChangeKind, Collection, CondemnedBlob, Result, Stamp};
use crate::oci::Digest;
use crate::runtime::Timestamp;

#[async_trait]
impl Collection for SqlCatalogue {
    async fn collect_manifests(&self, before: Timestamp, limit: u32, stamp: &Stamp) -> Result<u32> {
        let candidates = self
            .read()
            .await?
            .fetch(
                "SELECT repository_id, name, manifest_link.digest FROM manifest_link
                 JOIN repository ON repository.id = repository_id
                 WHERE manifest_link.deleted_at < $1 AND NOT EXISTS (
                    SELECT 1 FROM manifest_edge JOIN manifest_link AS listing ON listing.digest = parent
                    WHERE child = manifest_link.digest AND kind = 'manifest'
                        AND listing.repository_id = manifest_link.repository_id)
                 ORDER BY manifest_link.deleted_at LIMIT $2",
                values![before, limit],
            )
            .await?;
        let mut collected = 0;
        for row in candidates {
            let mut session = self.begin().await?;
            let digest: Digest = row.parsed("digest")?;
            if remove_manifest(&mut session, row.number("repository_id")?, &digest, before).await? {
                let place = row.text("name")?;
                session.note(ChangeKind::ManifestCollected, &place, None, Some(&digest), stamp);
                session.commit().await?;
                collected += 1;
            }
        }
        Ok(collected)
    }

    async fn collect_links(&self, before: Timestamp, limit: u32) -> Result<u32> {
        let candidates = self
            .read()
            .await?
            .fetch(
                "SELECT repository_id, digest FROM blob_link WHERE linked_at < $1 AND NOT EXISTS (
                    SELECT 1 FROM manifest_edge JOIN manifest_link ON manifest_link.digest = parent
                    WHERE child = blob_link.digest AND kind = 'blob'
                        AND manifest_link.repository_id = blob_link.repository_id)
                 ORDER BY repository_id, digest LIMIT $2",
                values![before, limit],
            )
            .await?;
        let mut collected = 0;
        for row in candidates {
            let mut session = self.begin().await?;
            let (repository, digest) = (row.number("repository_id")?, row.parsed::<Digest>("digest")?);
            lock_repository(&mut session, repository).await?;
            let removed = session
                .execute(
                    "DELETE FROM blob_link WHERE repository_id = $1 AND digest = $2 AND linked_at < $3
                        AND NOT EXISTS (
                            SELECT 1 FROM manifest_edge JOIN manifest_link ON manifest_link.digest = parent
                            WHERE child = $2 AND kind = 'blob' AND manifest_link.repository_id = $1)",
                    values![repository, &digest, before],
                )
                .await?;
            if removed > 0 {
                session.commit().await?;
                collected += 1;
            }
        }
        Ok(collected)
    }

    async fn condemn_blobs(
        &self,
        before: Timestamp,
        limit: u32,
        at: Timestamp,
    ) -> Result<Vec<CondemnedBlob>> {
        let candidates = self
            .read()
            .await?
            .fetch(
                "SELECT digest FROM blob WHERE recorded_at < $1 AND condemned_at IS NULL
                    AND NOT EXISTS (SELECT 1 FROM blob_link WHERE blob_link.digest = blob.digest)
                 ORDER BY digest LIMIT $2",
                values![before, limit],
            )
            .await?;
        let mut condemned = Vec::new();
        for row in candidates {
            let mut session = self.begin().await?;
            let digest: Digest = row.parsed("digest")?;
            // Whoever is linking it has it locked until the link can be seen.
            session.lock("SELECT digest FROM blob WHERE digest = $1 FOR UPDATE", values![&digest]).await?;
            let count = session
                .execute(
                    "UPDATE blob SET condemned_at = $3
                     WHERE digest = $1 AND recorded_at < $2 AND condemned_at IS NULL
                        AND NOT EXISTS (SELECT 1 FROM blob_link WHERE blob_link.digest = $1)",
                    values![&digest, before, at],
                )
                .await?;
            if count > 0 {
                let blob = find_condemned(&mut session, &digest).await?;
                session.commit().await?;
                condemned.extend(blob);
            }
        }
        Ok(condemned)
    }

    async fn list_condemned_blobs(&self, limit: u32) -> Result<Vec<CondemnedBlob>> {
        let mut session = self.read().await?;
        let rows = session
            .fetch(
                "SELECT digest FROM blob WHERE condemned_at IS NOT NULL ORDER BY digest LIMIT $1",
                values![limit],
            )
            .await?;
        let mut blobs = Vec::new();
        for row in rows {
            blobs.extend(find_condemned(&mut session, &row.parsed("digest")?).await?);
        }
        Ok(blobs)
    }

    async fn forget_blob(&self, digest: &Digest) -> Result<()> {
        let mut session = self.begin().await?;
        if find_condemned(&mut session, digest).await?.is_some() {
            session.execute("DELETE FROM blob_location WHERE digest = $1", values![digest]).await?;
            session
                .execute("DELETE FROM blob WHERE digest = $1 AND condemned_at IS NOT NULL", values![digest])
                .await?;
        }
        Ok(session.commit().await?)
    }
}

/// Removes a deleted manifest from a repository that nothing there lists, and its content where it was the last one's.
async fn remove_manifest(
    session: &mut Session,
    repository: u64,
    digest: &Digest,
    before: Timestamp,
) -> Result<bool> {
    lock_repository(session, repository).await?;
    let removed = session
        .execute(
            "DELETE FROM manifest_link WHERE repository_id = $1 AND digest = $2 AND deleted_at < $3
                AND NOT EXISTS (SELECT 1 FROM tag WHERE tag.repository_id = $1 AND tag.digest = $2)
                AND NOT EXISTS (
                    SELECT 1 FROM manifest_edge JOIN manifest_link AS listing ON listing.digest = parent
                    WHERE child = $2 AND kind = 'manifest' AND listing.repository_id = $1)",
            values![repository, digest, before],
        )
        .await?;
    if removed == 0 {
        return Ok(false);
    }
    // Whoever is linking it has it locked until the link can be seen.
    session.lock("SELECT digest FROM manifest WHERE digest = $1 FOR UPDATE", values![digest]).await?;
    let rest = session.find("SELECT digest FROM manifest_link WHERE digest = $1 LIMIT 1", values![digest]);
    if rest.await?.is_none() {
        session.execute("DELETE FROM manifest_edge WHERE parent = $1", values![digest]).await?;
        session.execute("DELETE FROM manifest WHERE digest = $1", values![digest]).await?;
    }
    Ok(true)
}

async fn lock_repository(session: &mut Session, repository: u64) -> Result<()> {
    session.lock("SELECT id FROM repository WHERE id = $1 FOR NO KEY UPDATE", values![repository]).await?;
    Ok(())
}

async fn find_condemned(session: &mut Session, digest: &Digest) -> Result<Option<CondemnedBlob>> {
    let rows = session
        .fetch(
            "SELECT size_bytes, location FROM blob LEFT JOIN blob_location ON blob_location.digest = blob.digest
             WHERE blob.digest = $1 AND condemned_at IS NOT NULL ORDER BY location",
            values![digest],
        )
        .await?;
    let Some(first) = rows.first() else { return Ok(None) };
    let size_bytes = first.number("size_bytes")?;
    let mut locations = Vec::new();
    for row in &rows {
        locations.extend(row.optional_text("location")?);
    }
    Ok(Some(CondemnedBlob { digest: *digest, size_bytes, locations }))
}
