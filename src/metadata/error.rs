//! What can go wrong with metadata.

/// The result of a metadata operation.
pub type Result<T> = std::result::Result<T, MetadataError>;

/// Why metadata could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum MetadataError {
    /// The database is locked, unreachable or short of connections: trying again may help.
    #[error("metadata store is busy or away")]
    Busy(#[source] sqlx::Error),
    /// The database failed: disk, corruption, or a fault of ours.
    #[error("metadata store failed")]
    Failed(#[source] sqlx::Error),
    /// A row holds what cannot be read back: written by a newer version, or damaged.
    #[error("metadata row is unreadable: {column}")]
    Unreadable {
        /// The column that holds it.
        column: &'static str,
    },
    /// The schema could not be brought up to date.
    #[error("metadata schema cannot be migrated")]
    Migration(#[source] sqlx::migrate::MigrateError),
    /// The database's file could not be made, looked at or set aside.
    #[error("metadata file: {action}")]
    File {
        /// What was tried: "set damaged index aside".
        action: &'static str,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
}

impl MetadataError {
    /// Whether trying again may help.
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Busy(_))
    }

    /// Whether the database's file is damaged or no database: trying again never helps.
    pub fn is_damage(&self) -> bool {
        use sqlx::migrate::MigrateError;
        let (Self::Busy(error)
        | Self::Failed(error)
        | Self::Migration(MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _))) = self
        else {
            return false;
        };
        is_damage(error)
    }
}

/// Whether the database says that its file is damaged or no database.
pub(super) fn is_damage(error: &sqlx::Error) -> bool {
    // SQLITE_CORRUPT is 11, SQLITE_NOTADB is 26.
    matches!(primary_code(error), Some(11 | 26))
}

/// Whether the database says that it was opened for reading only.
pub(super) fn is_read_only(error: &sqlx::Error) -> bool {
    // SQLITE_READONLY is 8.
    primary_code(error) == Some(8)
}

/// The primary result code of `SQLite`: extended codes keep it in the low byte.
fn primary_code(error: &sqlx::Error) -> Option<u32> {
    let sqlx::Error::Database(database) = error else { return None };
    database.code()?.parse::<u32>().ok().map(|code| code & 0xff)
}

impl From<sqlx::Error> for MetadataError {
    fn from(error: sqlx::Error) -> Self {
        // SQLITE_BUSY is 5, SQLITE_LOCKED is 6.
        let is_busy =
            matches!(error, sqlx::Error::PoolTimedOut) || matches!(primary_code(&error), Some(5 | 6));
        if is_busy { Self::Busy(error) } else { Self::Failed(error) }
    }
}
