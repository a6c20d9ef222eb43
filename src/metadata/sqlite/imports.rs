//! Recording an import: everything in one transaction.

use async_trait::async_trait;
use sqlx::SqliteConnection;

use super::rows::{read_parsed, read_timestamp, record_repository, to_column};
use super::{SqliteIndex, content, proofs, tags};
use crate::metadata::{
    ImportRecord, ImportRecords, ImportedRepository, Listing, ListingKind, ObservedTag, Result, TagFate,
    TagObservation, TagRule,
};
use crate::oci::Digest;
use crate::runtime::Timestamp;

#[async_trait]
impl ImportRecords for SqliteIndex {
    async fn record_import(&self, import: &ImportRecord) -> Result<Vec<Vec<TagFate>>> {
        let mut transaction = self.begin().await?;
        for record in &import.content {
            content::upsert(&mut transaction, record).await?;
        }
        let mut fates = Vec::with_capacity(import.repositories.len());
        for repository in &import.repositories {
            fates.push(record_one(&mut transaction, repository, import.rule).await?);
        }
        transaction.commit().await?;
        Ok(fates)
    }
}

async fn record_one(
    connection: &mut SqliteConnection,
    repository: &ImportedRepository,
    rule: TagRule,
) -> Result<Vec<TagFate>> {
    let id = record_repository(connection, &repository.id).await?;
    for proof in &repository.proofs {
        proofs::upsert(connection, id, proof).await?;
    }
    let mut fates = Vec::with_capacity(repository.tags.len());
    for observed in &repository.tags {
        fates.push(record_tag(connection, id, observed, rule).await?);
    }
    for (kind, key, listing) in &repository.listings {
        record_listing(connection, id, (*kind, key), listing).await?;
    }
    Ok(fates)
}

/// Records a tag unless what is known of it stays.
async fn record_tag(
    connection: &mut SqliteConnection,
    repository_id: i64,
    observed: &ObservedTag,
    rule: TagRule,
) -> Result<TagFate> {
    let TagObservation { digest: new, checked_at, .. } = observed.observation;
    let fate = match find_latest(connection, repository_id, observed).await? {
        None => TagFate::New,
        Some((known, _)) if known == new => TagFate::Same,
        Some((known, at)) if at > checked_at && rule == TagRule::Later => {
            return Ok(TagFate::Kept { at: known });
        }
        Some((known, _)) => TagFate::Moved { from: known },
    };
    // What points there already, and was looked at later, is not made older.
    if fate != TagFate::Same || !is_seen_later(connection, repository_id, observed).await? {
        tags::upsert(connection, repository_id, observed).await?;
    }
    Ok(fate)
}

/// Whether the tag was seen at a later time than this by the same accept class.
async fn is_seen_later(
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

/// Where the tag was seen last, by whatever accept class: clients of one are served what another has seen.
async fn find_latest(
    connection: &mut SqliteConnection,
    repository_id: i64,
    observed: &ObservedTag,
) -> Result<Option<(Digest, Timestamp)>> {
    let row = sqlx::query(
        "SELECT digest, checked_at FROM tag WHERE repository_id = ? AND tag = ?
         ORDER BY checked_at DESC, digest = ? DESC LIMIT 1",
    )
    .bind(repository_id)
    .bind(observed.tag.as_str())
    .bind(observed.observation.digest.to_string())
    .fetch_optional(connection)
    .await?;
    row.map(|row| Ok((read_parsed(&row, "digest")?, read_timestamp(&row, "checked_at")?))).transpose()
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
