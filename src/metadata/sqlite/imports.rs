//! Recording an import: everything in one transaction.

use async_trait::async_trait;
use sqlx::SqliteConnection;

use super::rows::{record_repository, to_column};
use super::{SqliteIndex, content, proofs, tags};
use crate::metadata::{
    ImportRecord, ImportRecords, ImportedRepository, Listing, ListingKind, ObservedTag, Result, Segment,
};

#[async_trait]
impl ImportRecords for SqliteIndex {
    async fn record_import(&self, import: &ImportRecord) -> Result<()> {
        let mut transaction = self.begin().await?;
        for record in &import.content {
            content::upsert(&mut transaction, record).await?;
            // What was known keeps its segment otherwise.
            sqlx::query("UPDATE content SET segment = ? WHERE digest = ?")
                .bind(Segment::Protected.as_str())
                .bind(record.digest.to_string())
                .execute(&mut *transaction)
                .await?;
        }
        for repository in &import.repositories {
            record_one(&mut transaction, repository).await?;
        }
        Ok(transaction.commit().await?)
    }
}

async fn record_one(connection: &mut SqliteConnection, repository: &ImportedRepository) -> Result<()> {
    let id = record_repository(connection, &repository.id).await?;
    for proof in &repository.proofs {
        proofs::upsert(connection, id, proof).await?;
    }
    for (observed, replaces) in &repository.tags {
        if *replaces || !is_known_later(connection, id, observed).await? {
            tags::upsert(connection, id, observed).await?;
        }
    }
    for (kind, key, listing) in &repository.listings {
        record_listing(connection, id, (*kind, key), listing).await?;
    }
    Ok(())
}

/// Whether the tag was seen at a later time than this.
async fn is_known_later(
    connection: &mut SqliteConnection,
    repository_id: i64,
    observed: &ObservedTag,
) -> Result<bool> {
    let later: Option<i64> = sqlx::query_scalar(
        "SELECT 1 FROM tag WHERE repository_id = ? AND tag = ? AND class = ? AND checked_at > ?",
    )
    .bind(repository_id)
    .bind(observed.tag.as_str())
    .bind(observed.class.key())
    .bind(to_column(observed.observation.checked_at.as_millis()))
    .fetch_optional(connection)
    .await?;
    Ok(later.is_some())
}

/// Records a page unless a later one is known. Their number is not bounded here: a bundle names its own.
async fn record_listing(
    connection: &mut SqliteConnection,
    repository_id: i64,
    (kind, key): (ListingKind, &str),
    listing: &Listing,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO listing (repository_id, kind, key, body, fetched_at) VALUES (?, ?, ?, ?, ?)
         ON CONFLICT (repository_id, kind, key) DO UPDATE SET
            body = excluded.body,
            fetched_at = excluded.fetched_at
         WHERE excluded.fetched_at >= fetched_at",
    )
    .bind(repository_id)
    .bind(kind.as_str())
    .bind(key)
    .bind(listing.body.as_slice())
    .bind(to_column(listing.fetched_at.as_millis()))
    .execute(connection)
    .await?;
    Ok(())
}
