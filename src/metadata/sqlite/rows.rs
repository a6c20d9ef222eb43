//! Between rows and values. Nothing that a row holds can panic us.

use std::str::FromStr;
use std::sync::Arc;

use sqlx::sqlite::SqliteRow;
use sqlx::{Decode, Row, Sqlite, SqliteConnection, Type};

use crate::metadata::{ContentKind, ContentRecord, MetadataError, RepositoryId, Result, Segment};
use crate::oci::MediaType;
use crate::runtime::Timestamp;

/// A number for a column. `SQLite`'s integers end at 2^63 - 1; no content is that large and no
/// moment that late, so what claims to be is kept as the largest.
pub(super) fn to_column(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Reads a column.
pub(super) fn read<'r, T>(row: &'r SqliteRow, column: &'static str) -> Result<T>
where
    T: Decode<'r, Sqlite> + Type<Sqlite>,
{
    // The source would only repeat the column's name.
    row.try_get(column).ok().ok_or(MetadataError::Unreadable { column })
}

/// Reads a column of text that has a grammar.
pub(super) fn read_parsed<T: FromStr>(row: &SqliteRow, column: &'static str) -> Result<T> {
    read::<&str>(row, column)?.parse().ok().ok_or(MetadataError::Unreadable { column })
}

/// Reads a number that is never negative.
pub(super) fn read_number(row: &SqliteRow, column: &'static str) -> Result<u64> {
    u64::try_from(read::<i64>(row, column)?).ok().ok_or(MetadataError::Unreadable { column })
}

/// Reads a number that may be missing.
pub(super) fn read_optional_number(row: &SqliteRow, column: &'static str) -> Result<Option<u64>> {
    match read::<Option<i64>>(row, column)? {
        None => Ok(None),
        Some(number) => u64::try_from(number).ok().map(Some).ok_or(MetadataError::Unreadable { column }),
    }
}

/// Reads a moment.
pub(super) fn read_timestamp(row: &SqliteRow, column: &'static str) -> Result<Timestamp> {
    read_number(row, column).map(Timestamp::from_millis)
}

/// Reads a moment that may be missing.
pub(super) fn read_optional_timestamp(row: &SqliteRow, column: &'static str) -> Result<Option<Timestamp>> {
    Ok(read_optional_number(row, column)?.map(Timestamp::from_millis))
}

/// Reads a media type that may be missing.
pub(super) fn read_media_type(row: &SqliteRow) -> Result<Option<MediaType>> {
    const COLUMN: &str = "media_type";
    match read::<Option<&str>>(row, COLUMN)? {
        None => Ok(None),
        Some(text) => MediaType::parse(text).map(Some).ok_or(MetadataError::Unreadable { column: COLUMN }),
    }
}

/// Reads a whole row of `content`.
pub(super) fn read_content(row: &SqliteRow) -> Result<ContentRecord> {
    Ok(ContentRecord {
        digest: read_parsed(row, "digest")?,
        kind: read_kind(row)?,
        size_bytes: read_number(row, "size_bytes")?,
        media_type: read_media_type(row)?,
        stored_at: read_timestamp(row, "stored_at")?,
        last_used_at: read_timestamp(row, "last_used_at")?,
        segment: read_segment(row)?,
    })
}

/// Reads a repository.
pub(super) fn read_repository(row: &SqliteRow) -> Result<RepositoryId> {
    Ok(RepositoryId { upstream: Arc::from(read::<&str>(row, "upstream")?), name: read_parsed(row, "name")? })
}

/// Reads the kind of content.
pub(super) fn read_kind(row: &SqliteRow) -> Result<ContentKind> {
    read_word(row, "kind", [ContentKind::Blob, ContentKind::Manifest], ContentKind::as_str)
}

/// Reads the segment of content.
pub(super) fn read_segment(row: &SqliteRow) -> Result<Segment> {
    read_word(row, "segment", [Segment::Probation, Segment::Protected], Segment::as_str)
}

/// Reads a word of a closed set.
pub(super) fn read_word<T: Copy, const N: usize>(
    row: &SqliteRow,
    column: &'static str,
    set: [T; N],
    as_str: impl Fn(T) -> &'static str,
) -> Result<T> {
    let word = read::<&str>(row, column)?;
    set.into_iter().find(|value| as_str(*value) == word).ok_or(MetadataError::Unreadable { column })
}

/// Finds the number that stands for a repository, or gives it one. Needs the write lock.
pub(super) async fn record_repository(
    connection: &mut SqliteConnection,
    repository: &RepositoryId,
) -> Result<i64> {
    let known = sqlx::query_scalar("SELECT id FROM repository WHERE upstream = ? AND name = ?")
        .bind(&*repository.upstream)
        .bind(repository.name.as_str())
        .fetch_optional(&mut *connection)
        .await?;
    if let Some(id) = known {
        return Ok(id);
    }
    let id = sqlx::query_scalar("INSERT INTO repository (upstream, name) VALUES (?, ?) RETURNING id")
        .bind(&*repository.upstream)
        .bind(repository.name.as_str())
        .fetch_one(connection)
        .await?;
    Ok(id)
}
