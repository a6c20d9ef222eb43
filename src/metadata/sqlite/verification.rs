//! The column `content.verified_at`.

use async_trait::async_trait;

use super::SqliteIndex;
use super::rows::{read_content, to_column};
use crate::metadata::{ContentRecord, Result, Verifications};
use crate::oci::Digest;
use crate::runtime::Timestamp;

#[async_trait]
impl Verifications for SqliteIndex {
    async fn record_verified(&self, digests: &[Digest], at: Timestamp) -> Result<()> {
        let mut transaction = self.begin().await?;
        for digest in digests {
            sqlx::query("UPDATE content SET verified_at = ?2 WHERE digest = ?1")
                .bind(digest.to_string())
                .bind(to_column(at.as_millis()))
                .execute(&mut *transaction)
                .await?;
        }
        Ok(transaction.commit().await?)
    }

    async fn list_unverified(&self, since: Timestamp, limit: u32) -> Result<Vec<ContentRecord>> {
        let pinned = sqlx::query(
            "SELECT DISTINCT content.digest, kind, size_bytes, media_type, stored_at, last_used_at, segment
             FROM pin_content JOIN content ON content.digest = pin_content.digest
             WHERE verified_at <= ? ORDER BY verified_at, content.digest LIMIT ?",
        )
        .bind(to_column(since.as_millis()))
        .bind(limit)
        .fetch_all(&self.readers)
        .await?;
        let rest = limit.saturating_sub(u32::try_from(pinned.len()).unwrap_or(limit));
        let others = sqlx::query(
            "SELECT digest, kind, size_bytes, media_type, stored_at, last_used_at, segment
             FROM content WHERE verified_at <= ?
               AND NOT EXISTS (SELECT 1 FROM pin_content WHERE pin_content.digest = content.digest)
             ORDER BY verified_at, digest LIMIT ?",
        )
        .bind(to_column(since.as_millis()))
        .bind(rest)
        .fetch_all(&self.readers)
        .await?;
        pinned.iter().chain(&others).map(read_content).collect()
    }
}
