//! The table `change`, which `Session::commit` writes.

use async_trait::async_trait;

use super::SqlCatalogue;
use super::values::{Row, values};
use crate::metadata::MetadataError;
use crate::metadata::catalogue::{Change, ChangeKind, ChangeLog, Result};

#[async_trait]
impl ChangeLog for SqlCatalogue {
    async fn list_changes(&self, after: u64, limit: u32) -> Result<Vec<Change>> {
        let mut session = self.read().await?;
        let rows = session
            .fetch(
                "SELECT number, kind, place, tag, digest, changed_at, changed_by FROM change
                 WHERE number > $1 ORDER BY number LIMIT $2",
                values![after, limit],
            )
            .await?;
        rows.iter().map(read_change).collect()
    }

    async fn last_change(&self) -> Result<u64> {
        let mut session = self.read().await?;
        let row = session.find("SELECT last FROM change_counter", vec![]).await?;
        Ok(row.map(|row| row.number("last")).transpose()?.unwrap_or_default())
    }
}

fn read_change(row: &Row) -> Result<Change> {
    let word = row.text("kind")?;
    let kind = ChangeKind::ALL.into_iter().find(|kind| kind.as_str() == word);
    Ok(Change {
        number: row.number("number")?,
        kind: kind.ok_or(MetadataError::Unreadable { column: "kind" })?,
        place: row.text("place")?,
        tag: row.optional("tag")?,
        digest: row.optional("digest")?,
        stamp: row.stamp("changed_at", "changed_by")?,
    })
}
