//! The table `content`.

use async_trait::async_trait;
use sqlx::SqliteConnection;

use super::SqliteIndex;
use super::rows::{read_content, read_number, read_segment, read_timestamp, to_column};
use crate::metadata::{
    ContentIndex, ContentKind, ContentRecord, ContentUse, Result, SECOND_USE_AFTER, Segment,
};
use crate::oci::Digest;
use crate::runtime::Timestamp;

#[async_trait]
impl ContentIndex for SqliteIndex {
    async fn record_content(&self, records: &[ContentRecord]) -> Result<()> {
        let mut transaction = self.begin().await?;
        for record in records {
            upsert(&mut transaction, record).await?;
        }
        Ok(transaction.commit().await?)
    }

    async fn find_content(&self, digest: &Digest) -> Result<Option<ContentRecord>> {
        let row = sqlx::query(
            "SELECT digest, kind, size_bytes, media_type, stored_at, last_used_at, segment
             FROM content WHERE digest = ?",
        )
        .bind(digest.to_string())
        .fetch_optional(&self.readers)
        .await?;
        row.as_ref().map(read_content).transpose()
    }

    async fn remove_content(&self, digests: &[Digest]) -> Result<()> {
        let mut transaction = self.begin().await?;
        for digest in digests {
            sqlx::query("DELETE FROM content WHERE digest = ?")
                .bind(digest.to_string())
                .execute(&mut *transaction)
                .await?;
        }
        Ok(transaction.commit().await?)
    }

    async fn record_uses(&self, uses: &[ContentUse]) -> Result<()> {
        let mut transaction = self.begin().await?;
        for item in uses {
            sqlx::query(
                "UPDATE content SET
                    last_used_at = max(last_used_at, ?2),
                    ordered_at = max(ordered_at, ?2),
                    segment = CASE WHEN ?2 - stored_at >= ?3 THEN ?4 ELSE segment END
                 WHERE digest = ?1",
            )
            .bind(item.digest.to_string())
            .bind(to_column(item.used_at.as_millis()))
            .bind(to_column(u64::try_from(SECOND_USE_AFTER.as_millis()).unwrap_or(u64::MAX)))
            .bind(Segment::Protected.as_str())
            .execute(&mut *transaction)
            .await?;
        }
        Ok(transaction.commit().await?)
    }

    async fn content_bytes(&self) -> Result<(u64, u64)> {
        let rows = sqlx::query("SELECT segment, sum(size_bytes) AS size_bytes FROM content GROUP BY segment")
            .fetch_all(&self.readers)
            .await?;
        let mut sums = (0, 0);
        for row in &rows {
            let bytes = read_number(row, "size_bytes")?;
            match read_segment(row)? {
                Segment::Probation => sums.0 = bytes,
                Segment::Protected => sums.1 = bytes,
            }
        }
        Ok(sums)
    }

    async fn list_least_used(
        &self,
        kind: ContentKind,
        segment: Segment,
        limit: u32,
    ) -> Result<Vec<ContentRecord>> {
        let rows = sqlx::query(
            "SELECT digest, kind, size_bytes, media_type, stored_at, last_used_at, segment
             FROM content WHERE kind = ? AND segment = ?
               AND NOT EXISTS (SELECT 1 FROM pin_content WHERE pin_content.digest = content.digest)
             ORDER BY ordered_at, digest LIMIT ?",
        )
        .bind(kind.as_str())
        .bind(segment.as_str())
        .bind(limit)
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(read_content).collect()
    }

    async fn demote_content(&self, digests: &[Digest]) -> Result<()> {
        let mut transaction = self.begin().await?;
        for digest in digests {
            sqlx::query(
                "UPDATE content SET
                    segment = ?2,
                    ordered_at = max(ordered_at, coalesce(1 + (SELECT last.ordered_at
                        FROM content AS last WHERE last.kind = content.kind AND last.segment = ?2
                        ORDER BY last.ordered_at DESC LIMIT 1), 0))
                 WHERE digest = ?1 AND segment = ?3",
            )
            .bind(digest.to_string())
            .bind(Segment::Probation.as_str())
            .bind(Segment::Protected.as_str())
            .execute(&mut *transaction)
            .await?;
        }
        Ok(transaction.commit().await?)
    }

    async fn list_content(&self, after: Option<&Digest>, limit: u32) -> Result<Vec<ContentRecord>> {
        let rows = sqlx::query(
            "SELECT digest, kind, size_bytes, media_type, stored_at, last_used_at, segment
             FROM content WHERE digest > ? ORDER BY digest LIMIT ?",
        )
        .bind(after.map(Digest::to_string).unwrap_or_default())
        .bind(limit)
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(read_content).collect()
    }

    async fn find_rebuilt_at(&self) -> Result<Option<Timestamp>> {
        let row = sqlx::query("SELECT rebuilt_at FROM rebuild").fetch_optional(&self.readers).await?;
        row.map(|row| read_timestamp(&row, "rebuilt_at")).transpose()
    }

    async fn record_rebuilt(&self, at: Timestamp) -> Result<()> {
        self.write(
            sqlx::query(
                "INSERT INTO rebuild (id, rebuilt_at) VALUES (1, ?)
             ON CONFLICT (id) DO UPDATE SET rebuilt_at = excluded.rebuilt_at",
            )
            .bind(to_column(at.as_millis())),
        )
        .await?;
        Ok(())
    }
}

/// Records an item within a transaction.
pub(super) async fn upsert(connection: &mut SqliteConnection, record: &ContentRecord) -> Result<()> {
    sqlx::query(
        "INSERT INTO content
            (digest, kind, size_bytes, media_type, stored_at, last_used_at, ordered_at, segment, verified_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6, ?7, ?5)
         ON CONFLICT (digest) DO UPDATE SET
            kind = CASE WHEN kind = ?8 THEN kind ELSE excluded.kind END,
            size_bytes = excluded.size_bytes,
            media_type = coalesce(excluded.media_type, media_type),
            last_used_at = max(last_used_at, excluded.last_used_at),
            ordered_at = max(ordered_at, excluded.ordered_at),
            verified_at = max(verified_at, excluded.verified_at),
            segment = CASE WHEN excluded.segment = ?9 THEN excluded.segment ELSE segment END",
    )
    .bind(record.digest.to_string())
    .bind(record.kind.as_str())
    .bind(to_column(record.size_bytes))
    .bind(record.media_type.as_ref().map(crate::oci::MediaType::as_str))
    .bind(to_column(record.stored_at.as_millis()))
    .bind(to_column(record.last_used_at.as_millis()))
    .bind(record.segment.as_str())
    .bind(ContentKind::Manifest.as_str())
    .bind(Segment::Protected.as_str())
    .execute(connection)
    .await?;
    Ok(())
}
