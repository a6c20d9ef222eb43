//! The table `listing`.

use async_trait::async_trait;

use super::SqliteIndex;
use super::rows::{read, read_timestamp, record_repository, to_column};
use crate::metadata::{Listing, ListingKind, Listings, MAX_PAGES, RepositoryId, Result};
use crate::runtime::Timestamp;

#[async_trait]
impl Listings for SqliteIndex {
    async fn record_listing(
        &self,
        repository: &RepositoryId,
        kind: ListingKind,
        key: &str,
        listing: &Listing,
    ) -> Result<()> {
        let mut transaction = self.begin().await?;
        let id = record_repository(&mut transaction, repository).await?;
        sqlx::query(
            "INSERT INTO listing (repository_id, kind, key, body, fetched_at) VALUES (?, ?, ?, ?, ?)
             ON CONFLICT (repository_id, kind, key) DO UPDATE SET
                body = excluded.body,
                fetched_at = excluded.fetched_at",
        )
        .bind(id)
        .bind(kind.as_str())
        .bind(key)
        .bind(listing.body.as_slice())
        .bind(to_column(listing.fetched_at.as_millis()))
        .execute(&mut *transaction)
        .await?;
        sqlx::query(
            "DELETE FROM listing WHERE rowid IN (
                SELECT rowid FROM listing WHERE repository_id = ? AND kind = ?
                ORDER BY fetched_at DESC, rowid DESC LIMIT -1 OFFSET ?)",
        )
        .bind(id)
        .bind(kind.as_str())
        .bind(MAX_PAGES)
        .execute(&mut *transaction)
        .await?;
        Ok(transaction.commit().await?)
    }

    async fn find_listing(
        &self,
        repository: &RepositoryId,
        kind: ListingKind,
        key: &str,
    ) -> Result<Option<Listing>> {
        let row = sqlx::query(
            "SELECT body, fetched_at FROM listing
             WHERE repository_id = (SELECT id FROM repository WHERE upstream = ? AND name = ?)
               AND kind = ? AND key = ?",
        )
        .bind(&*repository.upstream)
        .bind(repository.name.as_str())
        .bind(kind.as_str())
        .bind(key)
        .fetch_optional(&self.readers)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let fetched_at = read_timestamp(&row, "fetched_at")?;
        Ok(Some(Listing { body: read(&row, "body")?, fetched_at }))
    }

    async fn remove_listing(&self, repository: &RepositoryId, kind: ListingKind, key: &str) -> Result<()> {
        self.write(
            sqlx::query(
                "DELETE FROM listing
             WHERE repository_id = (SELECT id FROM repository WHERE upstream = ? AND name = ?)
               AND kind = ? AND key = ?",
            )
            .bind(&*repository.upstream)
            .bind(repository.name.as_str())
            .bind(kind.as_str())
            .bind(key),
        )
        .await?;
        Ok(())
    }

    async fn remove_listings_before(&self, before: Timestamp, limit: u32) -> Result<u64> {
        let removed = self
            .write(
                sqlx::query(
                    "DELETE FROM listing WHERE rowid IN
                (SELECT rowid FROM listing WHERE fetched_at < ? ORDER BY fetched_at LIMIT ?)",
                )
                .bind(to_column(before.as_millis()))
                .bind(limit),
            )
            .await?;
        Ok(removed)
    }
}
