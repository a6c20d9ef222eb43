//! Whole images: over `tag`, `proof`, `content` and `listing`, and the table `image_child`.

use async_trait::async_trait;

use super::SqliteIndex;
use super::rows::{read, read_parsed, read_timestamp};
use crate::metadata::{ContentKind, ImageRecords, Listing, ListingKind, RepositoryId, Result};
use crate::oci::{Digest, Tag};

#[async_trait]
impl ImageRecords for SqliteIndex {
    async fn list_tagged(&self, repository: &RepositoryId) -> Result<Vec<(Tag, Digest)>> {
        let rows = sqlx::query(
            "SELECT DISTINCT tag, digest FROM tag
             WHERE repository_id = (SELECT id FROM repository WHERE upstream = ? AND name = ?)
             ORDER BY tag, digest",
        )
        .bind(&*repository.upstream)
        .bind(repository.name.as_str())
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(|row| Ok((read_parsed(row, "tag")?, read_parsed(row, "digest")?))).collect()
    }

    async fn list_stored_manifests(&self, repository: &RepositoryId) -> Result<Vec<Digest>> {
        let rows = sqlx::query(
            "SELECT proof.digest FROM proof JOIN content USING (digest)
             WHERE repository_id = (SELECT id FROM repository WHERE upstream = ? AND name = ?)
               AND proof.kind = ? AND content.kind = ?
             ORDER BY proof.digest",
        )
        .bind(&*repository.upstream)
        .bind(repository.name.as_str())
        .bind(ContentKind::Manifest.as_str())
        .bind(ContentKind::Manifest.as_str())
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(|row| read_parsed(row, "digest")).collect()
    }

    async fn list_listings(
        &self,
        repository: &RepositoryId,
        kind: ListingKind,
    ) -> Result<Vec<(String, Listing)>> {
        let rows = sqlx::query(
            "SELECT key, body, fetched_at FROM listing
             WHERE repository_id = (SELECT id FROM repository WHERE upstream = ? AND name = ?)
               AND kind = ?",
        )
        .bind(&*repository.upstream)
        .bind(repository.name.as_str())
        .bind(kind.as_str())
        .fetch_all(&self.readers)
        .await?;
        rows.iter()
            .map(|row| {
                let fetched_at = read_timestamp(row, "fetched_at")?;
                Ok((read(row, "key")?, Listing { body: read(row, "body")?, fetched_at }))
            })
            .collect()
    }

    async fn record_children(&self, index: &Digest, children: &[Digest]) -> Result<()> {
        let mut transaction = self.begin().await?;
        for child in children {
            sqlx::query(
                "INSERT INTO image_child (index_digest, manifest_digest) VALUES (?, ?) ON CONFLICT DO NOTHING",
            )
            .bind(index.to_string())
            .bind(child.to_string())
            .execute(&mut *transaction)
            .await?;
        }
        Ok(transaction.commit().await?)
    }

    async fn list_children(&self, index: &Digest) -> Result<Vec<Digest>> {
        let rows = sqlx::query("SELECT manifest_digest FROM image_child WHERE index_digest = ?")
            .bind(index.to_string())
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(|row| read_parsed(row, "manifest_digest")).collect()
    }

    async fn remove_orphaned_children(&self) -> Result<()> {
        self.write(sqlx::query(
            "DELETE FROM image_child
             WHERE index_digest NOT IN (SELECT digest FROM tag)
               AND index_digest NOT IN (SELECT digest FROM content)",
        ))
        .await?;
        Ok(())
    }
}
