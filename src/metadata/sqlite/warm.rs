//! The table `warm_job`.

use async_trait::async_trait;
use sqlx::sqlite::SqliteRow;

use super::SqliteIndex;
use super::rows::{read, read_optional_timestamp, read_timestamp, to_column};
use crate::metadata::{Result, WarmRecord, WarmRecords};

#[async_trait]
impl WarmRecords for SqliteIndex {
    async fn record_warm(&self, record: &WarmRecord) -> Result<()> {
        self.write(
            sqlx::query(
                "INSERT INTO warm_job (id, body, begun_at, finished_at) VALUES (?, ?, ?, ?)
             ON CONFLICT (id) DO UPDATE SET
                body = excluded.body, begun_at = excluded.begun_at, finished_at = excluded.finished_at",
            )
            .bind(&record.id)
            .bind(&record.body)
            .bind(to_column(record.begun_at.as_millis()))
            .bind(record.finished_at.map(|at| to_column(at.as_millis()))),
        )
        .await?;
        Ok(())
    }

    async fn find_warm(&self, id: &str) -> Result<Option<WarmRecord>> {
        let row = sqlx::query("SELECT id, body, begun_at, finished_at FROM warm_job WHERE id = ?")
            .bind(id)
            .fetch_optional(&self.readers)
            .await?;
        row.as_ref().map(read_record).transpose()
    }

    async fn list_unfinished_warm(&self) -> Result<Vec<WarmRecord>> {
        let rows = sqlx::query(
            "SELECT id, body, begun_at, finished_at FROM warm_job WHERE finished_at IS NULL ORDER BY begun_at, id",
        )
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(read_record).collect()
    }

    async fn remove_warm(&self, id: &str) -> Result<()> {
        self.write(sqlx::query("DELETE FROM warm_job WHERE id = ?").bind(id)).await?;
        Ok(())
    }
}

fn read_record(row: &SqliteRow) -> Result<WarmRecord> {
    Ok(WarmRecord {
        id: read(row, "id")?,
        body: read(row, "body")?,
        begun_at: read_timestamp(row, "begun_at")?,
        finished_at: read_optional_timestamp(row, "finished_at")?,
    })
}
