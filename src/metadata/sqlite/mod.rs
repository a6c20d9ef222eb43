//! The metadata traits on `SQLite`: one file, one writer, a few readers.
//!
//! What a method acknowledged survives a power cut (WAL with `synchronous=FULL`). All writes of the
//! process queue for one connection, so they never fail for each other; other processes are waited
//! for. Opening takes milliseconds: nothing is scanned. A damaged file is set aside and a new index
//! begun, also while it is used; filling that again is left to the use cases (`registry::Rebuild`).

mod aside;
mod care;
mod connections;
mod content;
mod holdings;
mod images;
mod imports;
mod listings;
mod pins;
mod proofs;
mod pulls;
mod rows;
mod tags;
#[cfg(test)]
mod tests;
mod verification;
mod warm;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sqlx::query::Query;
use sqlx::sqlite::{
    SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection as _, Sqlite, Transaction};
use tokio::sync::Notify;
use tokio::time::Instant;

use self::aside::FileId;
use self::connections::Connections;
use super::error::is_read_only;
use super::{MetadataError, Result};
use crate::runtime::Clock;

/// The index of a node in one `SQLite` file.
#[derive(Clone, Debug)]
pub struct SqliteIndex {
    writer: Connections,
    readers: Connections,
    /// `None` for an index in memory.
    home: Option<Arc<Home>>,
    doubt: Arc<Notify>,
    start: Start,
}

/// Where an index lies.
#[derive(Debug)]
struct Home {
    path: PathBuf,
    clock: Clock,
    /// The file that is open; another one under the name is not the index that is used.
    file: Mutex<Option<FileId>>,
    /// Whose turn it is to replace the connections, and when that was last.
    replaced_at: tokio::sync::Mutex<Option<Instant>>,
}

/// What [`SqliteIndex::open`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// The index of before.
    Known,
    /// None.
    New,
    /// A damaged one, which it set aside.
    Anew,
}

impl SqliteIndex {
    /// The file's usual name under the storage path.
    pub const FILE_NAME: &'static str = "index.sqlite3";

    /// Opens the index in the file `path`, or begins a new one there.
    ///
    /// A file that is damaged or no database is renamed to `<path>.damaged-<milliseconds>` first.
    /// A file that cannot be opened for another reason (rights, disk full) is an error: it may be
    /// whole. Dropped at an await point, the file is as good as before.
    pub async fn open(path: &Path, clock: &Clock) -> Result<Self> {
        aside::create_parent(path).await?;
        let mut is_anew = aside::is_irregular(path).await?;
        if is_anew {
            aside::set_aside(path, clock).await?;
        }
        let is_empty = !aside::has_content(path).await?;
        let opened = match open_file(path).await {
            Err(error) if error.is_damage() => {
                let kept = aside::set_aside(path, clock).await?;
                tracing::warn!(
                    index.file = %path.display(),
                    index.kept_as = %kept.display(),
                    error = &error as &dyn std::error::Error,
                    "the index is damaged and was set aside; a new one is begun",
                );
                is_anew = true;
                open_file(path).await
            }
            opened => opened,
        };
        let (writer, readers) = opened?;
        let doubt = Arc::default();
        let file = Mutex::new(aside::find_id(path).await?);
        Ok(Self {
            writer: Connections::new(writer, &doubt),
            readers: Connections::new(readers, &doubt),
            home: Some(Arc::new(Home {
                path: path.to_owned(),
                clock: clock.clone(),
                file,
                replaced_at: tokio::sync::Mutex::default(),
            })),
            doubt,
            start: match (is_anew, is_empty) {
                (true, _) => Start::Anew,
                (false, true) => Start::New,
                (false, false) => Start::Known,
            },
        })
    }

    /// An index that lives as long as its value, for tests.
    pub async fn in_memory() -> Result<Self> {
        // Every connection to `:memory:` is a database of its own: there can be only one, and it
        // must not be closed for being idle.
        let options = SqliteConnectOptions::new().in_memory(true).disable_statement_logging();
        let only = pool_options(1).connect_with(options).await?;
        migrate(&only).await?;
        let doubt = Arc::default();
        let only = Connections::new(only, &doubt);
        Ok(Self { writer: only.clone(), readers: only, home: None, doubt, start: Start::New })
    }

    /// What [`Self::open`] found.
    pub const fn start(&self) -> Start {
        self.start
    }

    /// Whether [`Self::open`] found no index that it could use, and began one.
    pub fn is_new(&self) -> bool {
        self.start != Start::Known
    }

    /// Waits for running statements and closes the file; later calls of any method fail.
    pub async fn close(&self) {
        self.readers.close().await;
        // Last, because the last connection folds the log into the file.
        self.writer.close().await;
    }

    /// Begins a transaction that writes. Where the file was opened while the disk was read-only, opens it again.
    ///
    /// `IMMEDIATE`, because a transaction that first reads and then finds another process writing
    /// fails at once, without the busy time-out.
    async fn begin(&self) -> Result<Transaction<'static, Sqlite>> {
        match self.writer.begin_with(BEGIN).await {
            Err(error) if is_read_only(&error) => {
                self.open_again().await;
                Ok(self.writer.begin_with(BEGIN).await?)
            }
            begun => Ok(begun?),
        }
    }

    /// One statement that writes; gives the number of rows that it changed.
    async fn write(&self, statement: Query<'_, Sqlite, SqliteArguments>) -> Result<u64> {
        let mut transaction = self.begin().await?;
        let done = statement.execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(done.rows_affected())
    }

    /// Replaces all connections, once a second at most.
    ///
    /// `SQLite` opens for reading what it cannot open for writing, and the memory that the connections of a process
    /// share stays so until the last of them is closed. What runs ends; what waits for a connection fails.
    async fn open_again(&self) {
        let Some(home) = &self.home else { return };
        let mut replaced_at = home.replaced_at.lock().await;
        if replaced_at.is_some_and(|at| at.elapsed() < REST) {
            return;
        }
        let options = options(&home.path).create_if_missing(false);
        let writer = self.writer.replace(writer_options().connect_lazy_with(options.clone()));
        let readers = self.readers.replace(reader_pool(options));
        let closed = async {
            readers.close().await;
            writer.close().await;
        };
        // What hangs on the disk is not waited for: the next caller tries again.
        let _in_time = tokio::time::timeout(ACQUIRE_TIMEOUT, closed).await;
        *replaced_at = Some(Instant::now());
    }
}

/// Opens the file for one writer and some readers.
async fn open_file(path: &Path) -> Result<(SqlitePool, SqlitePool)> {
    let options = options(path).create_if_missing(true);
    let writer = writer_options().connect_with(options.clone()).await?;
    if let Err(error) = prepare(&writer).await {
        // The file may be renamed next: nothing may have it open then.
        writer.close().await;
        return Err(error);
    }
    Ok((writer, reader_pool(options)))
}

fn reader_pool(options: SqliteConnectOptions) -> SqlitePool {
    pool_options(READERS).connect_lazy_with(options.pragma("query_only", "ON"))
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(BUSY_TIMEOUT)
        // Repositories are never deleted, and the other tables do not refer to each other.
        .foreign_keys(false)
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

/// One connection, replaced when a transaction on it did not end.
///
/// `SQLite` rolls a transaction back by itself where the disk is full or fails; the client library then
/// cannot roll it back again, goes on counting it, and refuses every further one.
fn writer_options() -> SqlitePoolOptions {
    pool_options(1).after_release(|connection, _| {
        let is_at_rest = !connection.is_in_transaction();
        Box::pin(std::future::ready(Ok(is_at_rest)))
    })
}

async fn prepare(writer: &SqlitePool) -> Result<()> {
    migrate(writer).await?;
    // Touches the root of every table: a file that was cut off or overwritten shows it here.
    sqlx::query(
        "SELECT (SELECT 1 FROM repository LIMIT 1), (SELECT 1 FROM content LIMIT 1),
                (SELECT 1 FROM proof LIMIT 1), (SELECT 1 FROM tag LIMIT 1),
                (SELECT 1 FROM listing LIMIT 1), (SELECT 1 FROM rebuild LIMIT 1),
                (SELECT 1 FROM pin LIMIT 1), (SELECT 1 FROM pin_content LIMIT 1),
                (SELECT 1 FROM image_child LIMIT 1), (SELECT 1 FROM warm_job LIMIT 1),
                (SELECT ordered_at FROM content ORDER BY kind, segment, ordered_at LIMIT 1),
                (SELECT verified_at FROM content ORDER BY verified_at LIMIT 1),
                (SELECT 1 FROM proof WHERE digest = '')",
    )
    .execute(writer)
    .await?;
    Ok(())
}

async fn migrate(writer: &SqlitePool) -> Result<()> {
    let mut migrator = sqlx::migrate!("src/metadata/migrations/sqlite");
    // Migrations expand first and contract a release later: the release before can run on a schema
    // that it does not know all of, so going back one release keeps the index.
    migrator.set_ignore_missing(true);
    migrator.run(writer).await.map_err(MetadataError::Migration)
}

const BEGIN: &str = "BEGIN IMMEDIATE";

/// How long connections are kept that turned out to be for reading only, after others were.
const REST: Duration = Duration::from_secs(1);

/// How long another process may hold the write lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a call waits for a connection: longer than [`BUSY_TIMEOUT`], which delays the queue.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// Reads are short and mostly answered from memory above: more connections are more threads.
const READERS: u32 = 4;
