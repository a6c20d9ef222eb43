//! The tables `blob`, `blob_location` and `blob_link`.

use async_trait::async_trait;

use super::SqlCatalogue;
use super::lookups::{find_repository, lock_repository, require_repository};
use super::session::Session;
use super::values::values;
use crate::metadata::catalogue::{BlobRecord, CatalogueError, HostedBlobs, Result, Stamp};
use crate::oci::{Digest, RepositoryName};
use crate::runtime::Timestamp;

#[async_trait]
impl HostedBlobs for SqlCatalogue {
    async fn announce_blob(&self, digest: &Digest, at: Timestamp) -> Result<()> {
        let mut session = self.begin().await?;
        session
            .execute(
                "INSERT INTO blob_announcement (digest, announced_at) VALUES ($1, $2)
                 ON CONFLICT (digest) DO UPDATE SET announced_at = excluded.announced_at
                    WHERE blob_announcement.announced_at < excluded.announced_at",
                values![digest, at],
            )
            .await?;
        // After the row is locked: whoever condemned it before can be seen by now.
        let known = session.find("SELECT condemned_at FROM blob WHERE digest = $1", values![digest]).await?;
        if let Some(known) = known
            && known.optional_number("condemned_at")?.is_some()
        {
            return Err(CatalogueError::BlobLeaving(*digest));
        }
        Ok(session.commit().await?)
    }

    async fn record_blob(
        &self,
        repository: &RepositoryName,
        blob: &BlobRecord,
        upload: Option<&str>,
        stamp: &Stamp,
    ) -> Result<()> {
        let mut session = self.begin().await?;
        let id = require_repository(&mut session, repository).await?;
        record(&mut session, blob, stamp.at).await?;
        link(&mut session, id, &blob.digest, stamp.at).await?;
        if let Some(upload) = upload {
            session
                .execute("DELETE FROM upload WHERE id = $1 AND repository_id = $2", values![upload, id])
                .await?;
        }
        Ok(session.commit().await?)
    }

    async fn mount_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        from: &RepositoryName,
        stamp: &Stamp,
    ) -> Result<()> {
        let mut session = self.begin().await?;
        let id = require_repository(&mut session, repository).await?;
        let from = find_repository(&mut session, from).await?.ok_or(CatalogueError::BlobUnknown(*digest))?;
        // Whoever wants to condemn the blob waits, and then sees the link.
        session.lock("SELECT digest FROM blob WHERE digest = $1 FOR SHARE", values![digest]).await?;
        let linked = session
            .find(
                "SELECT condemned_at FROM blob JOIN blob_link ON blob_link.digest = blob.digest
                 WHERE blob.digest = $1 AND repository_id = $2",
                values![digest, from],
            )
            .await?;
        let linked = linked.ok_or(CatalogueError::BlobUnknown(*digest))?;
        if linked.optional_number("condemned_at")?.is_some() {
            return Err(CatalogueError::BlobLeaving(*digest));
        }
        link(&mut session, id, digest, stamp.at).await?;
        Ok(session.commit().await?)
    }

    async fn find_blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<Option<BlobRecord>> {
        let mut session = self.read().await?;
        let Some(id) = find_repository(&mut session, repository).await? else { return Ok(None) };
        let rows = session
            .fetch(
                "SELECT size_bytes, location FROM blob
                 JOIN blob_link ON blob_link.digest = blob.digest
                 JOIN blob_location ON blob_location.digest = blob.digest
                 WHERE blob.digest = $1 AND repository_id = $2 ORDER BY location",
                values![digest, id],
            )
            .await?;
        let Some(first) = rows.first() else { return Ok(None) };
        let size_bytes = first.number("size_bytes")?;
        let locations = rows.iter().map(|row| row.text("location")).collect::<std::result::Result<_, _>>()?;
        Ok(Some(BlobRecord { digest: *digest, size_bytes, locations }))
    }

    async fn list_repositories_with_blob(&self, digest: &Digest, limit: u32) -> Result<Vec<RepositoryName>> {
        let mut session = self.read().await?;
        let rows = session
            .fetch(
                "SELECT repository.name FROM blob_link
                 JOIN repository ON repository.id = blob_link.repository_id
                 JOIN namespace ON namespace.name = repository.namespace
                 WHERE blob_link.digest = $1 AND repository.deleted_at IS NULL AND namespace.deleted_at IS NULL
                 ORDER BY repository.name LIMIT $2",
                values![digest, limit],
            )
            .await?;
        rows.iter().map(|row| Ok(row.parsed("name")?)).collect()
    }

    async fn delete_blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<()> {
        let mut session = self.begin().await?;
        let id = lock_repository(&mut session, repository).await?;
        let deleted = session
            .execute("DELETE FROM blob_link WHERE repository_id = $1 AND digest = $2", values![id, digest])
            .await?;
        if deleted == 0 {
            return Err(CatalogueError::BlobUnknown(*digest));
        }
        Ok(session.commit().await?)
    }
}

/// Records a blob and where it lies. Its row is locked by that: whoever wants to condemn it waits.
async fn record(session: &mut Session, blob: &BlobRecord, at: Timestamp) -> Result<()> {
    let announced =
        session.execute("DELETE FROM blob_announcement WHERE digest = $1", values![&blob.digest]).await?;
    let created = session
        .execute(
            "INSERT INTO blob (digest, size_bytes, recorded_at) VALUES ($1, $2, $3)
             ON CONFLICT (digest) DO NOTHING",
            values![&blob.digest, blob.size_bytes, at],
        )
        .await?;
    if created > 0 && announced == 0 {
        // Nobody said that they put it, or its bytes were removed since: they may be gone.
        return Err(CatalogueError::BlobLeaving(blob.digest));
    }
    let known = session
        .find(
            "UPDATE blob SET recorded_at = $2 WHERE digest = $1 RETURNING size_bytes, condemned_at",
            values![&blob.digest, at],
        )
        .await?;
    if let Some(known) = known {
        if known.optional_number("condemned_at")?.is_some() {
            return Err(CatalogueError::BlobLeaving(blob.digest));
        }
        if known.number("size_bytes")? != blob.size_bytes {
            return Err(CatalogueError::SizeContradicted(blob.digest));
        }
    }
    for location in &blob.locations {
        session
            .execute(
                "INSERT INTO blob_location (digest, location, recorded_at) VALUES ($1, $2, $3)
                 ON CONFLICT (digest, location) DO NOTHING",
                values![&blob.digest, location.as_str(), at],
            )
            .await?;
    }
    Ok(())
}

/// Links a blob to a repository; a link that is there begins its grace time again.
async fn link(session: &mut Session, repository: u64, digest: &Digest, at: Timestamp) -> Result<()> {
    session
        .execute(
            "INSERT INTO blob_link (repository_id, digest, linked_at) VALUES ($1, $2, $3)
             ON CONFLICT (repository_id, digest) DO UPDATE SET linked_at = excluded.linked_at",
            values![repository, digest, at],
        )
        .await?;
    Ok(())
}
