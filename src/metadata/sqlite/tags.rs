//! The table `tag`.

use async_trait::async_trait;
use sqlx::SqliteConnection;

use super::SqliteIndex;
use super::rows::{
    read_media_type, read_number, read_optional_timestamp, read_parsed, read_timestamp, record_repository,
    to_column,
};
use crate::metadata::{MetadataError, ObservedTag, RepositoryId, Result, TagObservation, TagObservations};
use crate::oci::{AcceptClass, Tag};

#[async_trait]
impl TagObservations for SqliteIndex {
    async fn record_tag(
        &self,
        repository: &RepositoryId,
        tag: &Tag,
        class: &AcceptClass,
        observation: &TagObservation,
    ) -> Result<()> {
        let mut transaction = self.begin().await?;
        let id = record_repository(&mut transaction, repository).await?;
        let observed =
            ObservedTag { tag: tag.clone(), class: class.clone(), observation: observation.clone() };
        upsert(&mut transaction, id, &observed).await?;
        Ok(transaction.commit().await?)
    }

    async fn find_tag(
        &self,
        repository: &RepositoryId,
        tag: &Tag,
        class: &AcceptClass,
    ) -> Result<Option<TagObservation>> {
        let row = sqlx::query(
            "SELECT digest, media_type, size_bytes, checked_at, missing_since FROM tag
             WHERE repository_id = (SELECT id FROM repository WHERE upstream = ? AND name = ?)
               AND tag = ? AND class = ?",
        )
        .bind(&*repository.upstream)
        .bind(repository.name.as_str())
        .bind(tag.as_str())
        .bind(class.key())
        .fetch_optional(&self.readers)
        .await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(TagObservation {
            digest: read_parsed(&row, "digest")?,
            media_type: read_media_type(&row)?.ok_or(MetadataError::Unreadable { column: "media_type" })?,
            size_bytes: read_number(&row, "size_bytes")?,
            checked_at: read_timestamp(&row, "checked_at")?,
            missing_since: read_optional_timestamp(&row, "missing_since")?,
        }))
    }

    async fn remove_tag(&self, repository: &RepositoryId, tag: &Tag) -> Result<()> {
        self.write(
            sqlx::query(
                "DELETE FROM tag
             WHERE repository_id = (SELECT id FROM repository WHERE upstream = ? AND name = ?)
               AND tag = ?",
            )
            .bind(&*repository.upstream)
            .bind(repository.name.as_str())
            .bind(tag.as_str()),
        )
        .await?;
        Ok(())
    }

    async fn list_tags(&self, repository: &RepositoryId) -> Result<Vec<Tag>> {
        let rows = sqlx::query(
            "SELECT DISTINCT tag FROM tag
             WHERE repository_id = (SELECT id FROM repository WHERE upstream = ? AND name = ?)
             ORDER BY tag",
        )
        .bind(&*repository.upstream)
        .bind(repository.name.as_str())
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(|row| read_parsed(row, "tag")).collect()
    }
}

/// Records an observation within a transaction.
pub(super) async fn upsert(
    connection: &mut SqliteConnection,
    repository_id: i64,
    observed: &ObservedTag,
) -> Result<()> {
    let ObservedTag { tag, class, observation } = observed;
    sqlx::query(
        "INSERT INTO tag (repository_id, tag, class, digest, media_type, size_bytes, checked_at, missing_since)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (repository_id, tag, class) DO UPDATE SET
            digest = excluded.digest,
            media_type = excluded.media_type,
            size_bytes = excluded.size_bytes,
            checked_at = excluded.checked_at,
            missing_since = excluded.missing_since",
    )
    .bind(repository_id)
    .bind(tag.as_str())
    .bind(class.key())
    .bind(observation.digest.to_string())
    .bind(observation.media_type.as_str())
    .bind(to_column(observation.size_bytes))
    .bind(to_column(observation.checked_at.as_millis()))
    .bind(observation.missing_since.map(|since| to_column(since.as_millis())))
    .execute(connection)
    .await?;
    Ok(())
}
