//! Between rows and values, for both engines. Nothing that a row holds can panic us.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;

use sqlx::Row as _;
use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;

use crate::metadata::MetadataError;
use crate::metadata::catalogue::Stamp;
use crate::oci::{Digest, MediaType, RepositoryName, Tag};
use crate::runtime::Timestamp;

type Result<T> = std::result::Result<T, MetadataError>;

/// A value for a place `$n` of a statement.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Number(i64),
    OptionalNumber(Option<i64>),
    Text(String),
    OptionalText(Option<String>),
    Bytes(Vec<u8>),
}

/// A list of values for a statement.
macro_rules! values {
    ($($value:expr),* $(,)?) => {
        vec![$(crate::metadata::catalogue::sql::values::Value::from($value)),*]
    };
}
pub(super) use values;

/// Columns of numbers end at 2^63 - 1 in both engines; no content is that large and no moment that late.
fn to_column(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(to_column(number))
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}

impl From<Option<u64>> for Value {
    fn from(number: Option<u64>) -> Self {
        Self::OptionalNumber(number.map(to_column))
    }
}

impl From<Timestamp> for Value {
    fn from(moment: Timestamp) -> Self {
        moment.as_millis().into()
    }
}

impl From<Option<Timestamp>> for Value {
    fn from(moment: Option<Timestamp>) -> Self {
        moment.map(Timestamp::as_millis).into()
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<Option<&str>> for Value {
    fn from(text: Option<&str>) -> Self {
        Self::OptionalText(text.map(str::to_owned))
    }
}

impl From<&Digest> for Value {
    fn from(digest: &Digest) -> Self {
        Self::Text(digest.to_string())
    }
}

impl From<Option<&Digest>> for Value {
    fn from(digest: Option<&Digest>) -> Self {
        Self::OptionalText(digest.map(Digest::to_string))
    }
}

impl From<&RepositoryName> for Value {
    fn from(name: &RepositoryName) -> Self {
        name.as_str().into()
    }
}

impl From<&Tag> for Value {
    fn from(tag: &Tag) -> Self {
        tag.as_str().into()
    }
}

impl From<&[u8]> for Value {
    fn from(bytes: &[u8]) -> Self {
        Self::Bytes(bytes.to_vec())
    }
}

/// A row of an answer.
#[derive(Debug)]
pub(super) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

/// Reads a column as one type from either kind of row; the source of an error would only repeat the column's name.
macro_rules! read {
    ($row:expr, $column:expr) => {
        match $row {
            Row::Sqlite(row) => row.try_get($column).ok(),
            Row::Postgres(row) => row.try_get($column).ok(),
        }
        .ok_or(MetadataError::Unreadable { column: $column })
    };
}

impl Row {
    pub(super) fn optional_text(&self, column: &'static str) -> Result<Option<String>> {
        read!(self, column)
    }

    pub(super) fn text(&self, column: &'static str) -> Result<String> {
        read!(self, column)
    }

    pub(super) fn bytes(&self, column: &'static str) -> Result<Vec<u8>> {
        read!(self, column)
    }

    /// A number that is never negative.
    pub(super) fn number(&self, column: &'static str) -> Result<u64> {
        let number: i64 = read!(self, column)?;
        u64::try_from(number).ok().ok_or(MetadataError::Unreadable { column })
    }

    pub(super) fn optional_number(&self, column: &'static str) -> Result<Option<u64>> {
        let number: Option<i64> = read!(self, column)?;
        let number = number.map(u64::try_from).transpose();
        number.ok().ok_or(MetadataError::Unreadable { column })
    }

    pub(super) fn timestamp(&self, column: &'static str) -> Result<Timestamp> {
        self.number(column).map(Timestamp::from_millis)
    }

    pub(super) fn optional_timestamp(&self, column: &'static str) -> Result<Option<Timestamp>> {
        Ok(self.optional_number(column)?.map(Timestamp::from_millis))
    }

    /// A truth value, which `SQLite` has as a number.
    pub(super) fn flag(&self, column: &'static str) -> Result<bool> {
        read!(self, column)
    }

    /// A text that has a grammar.
    pub(super) fn parsed<T: FromStr>(&self, column: &'static str) -> Result<T> {
        self.text(column)?.parse().ok().ok_or(MetadataError::Unreadable { column })
    }

    /// A text that has a grammar and may be missing.
    pub(super) fn optional<T: FromStr>(&self, column: &'static str) -> Result<Option<T>> {
        let Some(text) = self.optional_text(column)? else { return Ok(None) };
        text.parse().ok().map(Some).ok_or(MetadataError::Unreadable { column })
    }

    pub(super) fn media_type(&self) -> Result<MediaType> {
        const COLUMN: &str = "media_type";
        MediaType::parse(&self.text(COLUMN)?).ok_or(MetadataError::Unreadable { column: COLUMN })
    }

    pub(super) fn annotations(&self) -> Result<BTreeMap<String, String>> {
        const COLUMN: &str = "annotations";
        let text = self.text(COLUMN)?;
        serde_json::from_str(&text).ok().ok_or(MetadataError::Unreadable { column: COLUMN })
    }

    pub(super) fn stamp(&self, at: &'static str, by: &'static str) -> Result<Stamp> {
        Ok(Stamp { at: self.timestamp(at)?, by: Arc::from(self.text(by)?) })
    }

    pub(super) fn optional_stamp(&self, at: &'static str, by: &'static str) -> Result<Option<Stamp>> {
        let (Some(at), Some(by)) = (self.optional_number(at)?, self.optional_text(by)?) else {
            return Ok(None);
        };
        Ok(Some(Stamp { at: Timestamp::from_millis(at), by: Arc::from(by) }))
    }
}
