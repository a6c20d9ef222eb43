//! The tables `pin` and `pin_content`.

use std::sync::Arc;

use async_trait::async_trait;
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use super::SqliteIndex;
use super::rows::{read, read_number, read_parsed, read_timestamp, read_word, record_repository, to_column};
use crate::metadata::{
    PinReason, PinRecord, PinStatus, PinnedSums, Pins, PullRecord, RepositoryId, Result, Segment,
};
use crate::oci::{Digest, Reference};

#[async_trait]
impl Pins for SqliteIndex {
    async fn record_pin(&self, pin: &PinRecord, parts: &[Digest]) -> Result<()> {
        let mut transaction = self.begin().await?;
        let repository_id = record_repository(&mut transaction, &pin.repository).await?;
        let id: i64 = sqlx::query_scalar(
            "INSERT INTO pin (repository_id, reference, digest, reason, pinned_at) VALUES (?, ?, ?, ?, ?)
             ON CONFLICT (repository_id, reference) DO UPDATE SET
                digest = excluded.digest,
                reason = CASE WHEN reason = ? THEN reason ELSE excluded.reason END
             RETURNING id",
        )
        .bind(repository_id)
        .bind(pin.reference.to_string())
        .bind(pin.digest.to_string())
        .bind(pin.reason.as_str())
        .bind(to_column(pin.pinned_at.as_millis()))
        .bind(PinReason::Order.as_str())
        .fetch_one(&mut *transaction)
        .await?;
        sqlx::query("DELETE FROM pin_content WHERE pin_id = ?").bind(id).execute(&mut *transaction).await?;
        for digest in parts.iter().chain([&pin.digest]) {
            cover(&mut transaction, digest, id).await?;
        }
        Ok(transaction.commit().await?)
    }

    async fn remove_pin(&self, repository: &RepositoryId, reference: &Reference) -> Result<bool> {
        let mut transaction = self.begin().await?;
        let id: Option<i64> = sqlx::query_scalar(
            "DELETE FROM pin
             WHERE repository_id = (SELECT id FROM repository WHERE upstream = ? AND name = ?) AND reference = ?
             RETURNING id",
        )
        .bind(&*repository.upstream)
        .bind(repository.name.as_str())
        .bind(reference.to_string())
        .fetch_optional(&mut *transaction)
        .await?;
        sqlx::query("DELETE FROM pin_content WHERE pin_id = ?").bind(id).execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(id.is_some())
    }

    async fn find_pin(&self, repository: &RepositoryId, reference: &Reference) -> Result<Option<PinRecord>> {
        let row = sqlx::query(
            "SELECT upstream, name, reference, digest, reason, pinned_at
             FROM pin JOIN repository ON repository.id = repository_id
             WHERE repository_id = (SELECT id FROM repository WHERE upstream = ? AND name = ?) AND reference = ?",
        )
        .bind(&*repository.upstream)
        .bind(repository.name.as_str())
        .bind(reference.to_string())
        .fetch_optional(&self.readers)
        .await?;
        row.as_ref().map(read_pin).transpose()
    }

    async fn list_pin_parts(&self, repository: &RepositoryId, reference: &Reference) -> Result<Vec<Digest>> {
        let rows = sqlx::query(
            "SELECT pin_content.digest FROM pin JOIN pin_content ON pin_id = pin.id
             WHERE repository_id = (SELECT id FROM repository WHERE upstream = ? AND name = ?) AND reference = ?
             ORDER BY pin_content.digest",
        )
        .bind(&*repository.upstream)
        .bind(repository.name.as_str())
        .bind(reference.to_string())
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(|row| read_parsed(row, "digest")).collect()
    }

    async fn list_pins(&self) -> Result<Vec<PinStatus>> {
        let rows = sqlx::query(
            "SELECT upstream, name, reference, pin.digest, reason, pinned_at,
                count(*) AS items, count(content.digest) AS stored,
                coalesce(sum(content.size_bytes), 0) AS stored_bytes
             FROM pin JOIN repository ON repository.id = repository_id
             JOIN pin_content ON pin_id = pin.id
             LEFT JOIN content ON content.digest = pin_content.digest
             GROUP BY pin.id ORDER BY upstream, name, reference",
        )
        .fetch_all(&self.readers)
        .await?;
        let read_status = |row: &SqliteRow| {
            Ok(PinStatus {
                record: read_pin(row)?,
                items: read_number(row, "items")?,
                stored: read_number(row, "stored")?,
                stored_bytes: read_number(row, "stored_bytes")?,
            })
        };
        rows.iter().map(read_status).collect()
    }

    async fn list_pinned_content(&self) -> Result<Vec<Digest>> {
        let rows = sqlx::query("SELECT DISTINCT digest FROM pin_content ORDER BY digest")
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(|row| read_parsed(row, "digest")).collect()
    }

    async fn sum_pinned(&self) -> Result<PinnedSums> {
        let row = sqlx::query(
            "SELECT (SELECT count(*) FROM pin) AS pins, coalesce(sum(size_bytes), 0) AS bytes,
                coalesce(sum(CASE WHEN segment = ? THEN size_bytes END), 0) AS protected_bytes
             FROM (SELECT DISTINCT digest FROM pin_content) JOIN content USING (digest)",
        )
        .bind(Segment::Protected.as_str())
        .fetch_one(&self.readers)
        .await?;
        Ok(PinnedSums {
            pins: read_number(&row, "pins")?,
            bytes: read_number(&row, "bytes")?,
            protected_bytes: read_number(&row, "protected_bytes")?,
        })
    }
}

/// Covers what a manifest lists that is covered itself, within a transaction.
pub(super) async fn extend(connection: &mut SqliteConnection, pull: &PullRecord) -> Result<()> {
    let pins: Vec<i64> = sqlx::query_scalar("SELECT pin_id FROM pin_content WHERE digest = ?")
        .bind(pull.content.digest.to_string())
        .fetch_all(&mut *connection)
        .await?;
    for id in pins {
        for proof in &pull.proofs {
            cover(connection, &proof.digest, id).await?;
        }
    }
    Ok(())
}

async fn cover(connection: &mut SqliteConnection, digest: &Digest, id: i64) -> Result<()> {
    sqlx::query("INSERT INTO pin_content (digest, pin_id) VALUES (?, ?) ON CONFLICT DO NOTHING")
        .bind(digest.to_string())
        .bind(id)
        .execute(connection)
        .await?;
    Ok(())
}

fn read_pin(row: &SqliteRow) -> Result<PinRecord> {
    let upstream = Arc::from(read::<&str>(row, "upstream")?);
    Ok(PinRecord {
        repository: RepositoryId { upstream, name: read_parsed(row, "name")? },
        reference: read_parsed(row, "reference")?,
        digest: read_parsed(row, "digest")?,
        reason: read_word(row, "reason", [PinReason::Order, PinReason::Deleted], PinReason::as_str)?,
        pinned_at: read_timestamp(row, "pinned_at")?,
    })
}
