//! The catalogue in one `SQLite` file: one writer, a few readers, WAL with `synchronous=FULL`.

use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions as _, Connection as _};

use super::session::Session;
use crate::metadata::MetadataError;

type Result<T> = std::result::Result<T, MetadataError>;

/// The file's connections.
#[derive(Clone, Debug)]
pub(super) struct SqliteEngine {
    writer: SqlitePool,
    readers: SqlitePool,
}

impl SqliteEngine {
    /// Opens the file, or begins it, and brings its schema up to date. A damaged file is an error and stays as it is.
    pub(super) async fn open(path: &Path) -> Result<Self> {
        let options = options(path);
        let writer = pool_options(1)
            // A transaction that the engine itself rolled back (the disk was full) leaves the client library counting.
            .after_release(|connection, _| Box::pin(std::future::ready(Ok(!connection.is_in_transaction()))))
            .connect_with(options.clone())
            .await?;
        if let Err(error) = migrate(&writer).await {
            writer.close().await;
            return Err(error);
        }
        let readers = pool_options(READERS).connect_lazy_with(options.pragma("query_only", "ON"));
        Ok(Self { writer, readers })
    }

    /// `IMMEDIATE`, because a transaction that first reads and then finds another process writing fails at once.
    pub(super) async fn begin(&self) -> Result<Session> {
        Ok(Session::sqlite(self.writer.begin_with("BEGIN IMMEDIATE").await?))
    }

    pub(super) async fn read(&self) -> Result<Session> {
        Ok(Session::sqlite(self.readers.begin_with("BEGIN").await?))
    }

    pub(super) async fn close(&self) {
        self.readers.close().await;
        // Last, because the last connection folds the log into the file.
        self.writer.close().await;
    }
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(BUSY_TIMEOUT)
        .foreign_keys(true)
        .pragma("journal_size_limit", "67108864")
        .disable_statement_logging()
}

fn pool_options(connections: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .test_before_acquire(false)
        .idle_timeout(None)
        .max_lifetime(None)
}

/// All migrations are one transaction: a process that dies in between has done nothing, and others wait.
async fn migrate(writer: &SqlitePool) -> Result<()> {
    let mut migrator = sqlx::migrate!("src/metadata/migrations/catalogue-sqlite");
    // Migrations expand first and contract a release later: the release before runs on the schema of the next.
    migrator.set_ignore_missing(true);
    let mut transaction = writer.begin_with("BEGIN IMMEDIATE").await?;
    migrator.run_direct(None, &mut *transaction, false).await.map_err(MetadataError::Migration)?;
    Ok(transaction.commit().await?)
}

/// How long another process may hold the write lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a call waits for a connection: longer than [`BUSY_TIMEOUT`], which delays the queue.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// More connections are more threads.
const READERS: u32 = 4;
