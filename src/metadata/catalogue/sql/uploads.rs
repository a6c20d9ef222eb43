//! The table `upload`.

use async_trait::async_trait;

use super::SqlCatalogue;
use super::lookups::{find_repository, require_repository};
use super::session::Session;
use super::values::{Row, values};
use crate::metadata::catalogue::{CatalogueError, Result, Stamp, UploadRecord, UploadStep, Uploads};
use crate::oci::RepositoryName;
use crate::runtime::Timestamp;

#[async_trait]
impl Uploads for SqlCatalogue {
    async fn start_upload(&self, repository: &RepositoryName, id: &str, stamp: &Stamp) -> Result<()> {
        let mut session = self.begin().await?;
        let repository = require_repository(&mut session, repository).await?;
        session
            .execute(
                "INSERT INTO upload (id, repository_id, offset_bytes, hash_state, started_at, started_by, touched_at)
                 VALUES ($1, $2, 0, $3, $4, $5, $4) ON CONFLICT (id) DO NOTHING",
                values![id, repository, &[0_u8; 0][..], stamp.at, &*stamp.by],
            )
            .await?;
        Ok(session.commit().await?)
    }

    async fn find_upload(&self, repository: &RepositoryName, id: &str) -> Result<Option<UploadRecord>> {
        let mut session = self.read().await?;
        let Some(repository) = find_repository(&mut session, repository).await? else { return Ok(None) };
        find(&mut session, repository, id).await
    }

    async fn advance_upload(&self, repository: &RepositoryName, id: &str, step: &UploadStep) -> Result<()> {
        let UploadStep { from_bytes, to_bytes, hash_state, at } = step;
        let mut session = self.begin().await?;
        let repository = require_repository(&mut session, repository).await?;
        let moved = session
            .execute(
                "UPDATE upload SET offset_bytes = $4, hash_state = $5, touched_at = $6
                 WHERE id = $1 AND repository_id = $2 AND offset_bytes = $3",
                values![id, repository, *from_bytes, *to_bytes, &hash_state[..], *at],
            )
            .await?;
        if moved == 0 {
            let upload = find(&mut session, repository, id).await?.ok_or(CatalogueError::UploadUnknown)?;
            let is_again = upload.offset_bytes == *to_bytes && upload.hash_state == *hash_state;
            if !is_again {
                return Err(CatalogueError::UploadElsewhere { offset_bytes: upload.offset_bytes });
            }
        }
        Ok(session.commit().await?)
    }

    async fn remove_silent_upload(&self, id: &str, before: Timestamp) -> Result<bool> {
        let mut session = self.begin().await?;
        let removed = session
            .execute("DELETE FROM upload WHERE id = $1 AND touched_at < $2", values![id, before])
            .await?;
        session.commit().await?;
        Ok(removed > 0)
    }

    async fn remove_upload(&self, repository: &RepositoryName, id: &str) -> Result<()> {
        let mut session = self.begin().await?;
        let repository = require_repository(&mut session, repository).await?;
        let removed = session
            .execute("DELETE FROM upload WHERE id = $1 AND repository_id = $2", values![id, repository])
            .await?;
        if removed == 0 {
            return Err(CatalogueError::UploadUnknown);
        }
        Ok(session.commit().await?)
    }

    async fn list_silent_uploads(
        &self,
        before: Timestamp,
        limit: u32,
    ) -> Result<Vec<(RepositoryName, UploadRecord)>> {
        let mut session = self.read().await?;
        let rows = session
            .fetch(
                "SELECT upload.id, name, offset_bytes, hash_state, started_at, started_by, touched_at FROM upload
                 JOIN repository ON repository.id = repository_id
                 WHERE touched_at < $1 AND repository.purged_at IS NULL
                 ORDER BY touched_at, upload.id LIMIT $2",
                values![before, limit],
            )
            .await?;
        rows.iter().map(|row| Ok((row.parsed("name")?, read_upload(row)?))).collect()
    }
}

async fn find(session: &mut Session, repository: u64, id: &str) -> Result<Option<UploadRecord>> {
    let row = session
        .find(
            "SELECT id, offset_bytes, hash_state, started_at, started_by, touched_at FROM upload
             WHERE id = $1 AND repository_id = $2",
            values![id, repository],
        )
        .await?;
    row.as_ref().map(read_upload).transpose()
}

fn read_upload(row: &Row) -> Result<UploadRecord> {
    Ok(UploadRecord {
        id: row.text("id")?,
        offset_bytes: row.number("offset_bytes")?,
        hash_state: row.bytes("hash_state")?,
        started: row.stamp("started_at", "started_by")?,
        touched_at: row.timestamp("touched_at")?,
    })
}
