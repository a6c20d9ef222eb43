//! The catalogue on both engines.

mod accounts;
mod blobs;
mod changes;
mod collection;
mod foresight;
mod lookups;
mod manifests;
mod postgres;
mod purge;
mod repositories;
mod session;
mod sqlite;
mod tags;
#[cfg(test)]
mod tests;
mod uploads;
mod values;

use std::path::Path;

pub use postgres::PostgresSettings;
#[cfg(test)]
pub(crate) use tests::commits;

use self::postgres::PostgresEngine;
use self::session::Session;
use self::sqlite::SqliteEngine;
use super::Result;

/// The catalogue in one `SQLite` file, or in a `PostgreSQL` database. Cloning gives another handle.
#[derive(Clone, Debug)]
pub struct SqlCatalogue {
    engine: Engine,
}

/// Where the statements run.
#[derive(Clone, Debug)]
enum Engine {
    Sqlite(SqliteEngine),
    Postgres(PostgresEngine),
}

impl SqlCatalogue {
    /// The file's usual name under the storage path. It holds what was acknowledged: a damaged one is never replaced.
    pub const FILE_NAME: &'static str = "catalogue.sqlite3";

    /// Opens the catalogue in the file `path`, or begins one there, and brings its schema up to date.
    pub async fn open(path: &Path) -> Result<Self> {
        Ok(Self { engine: Engine::Sqlite(SqliteEngine::open(path).await?) })
    }

    /// The catalogue in a `PostgreSQL` database, which need not be there yet: whatever is called first brings the schema
    /// up to date, or fails as everything fails while a database is away. Nodes that do so at once wait for each other.
    pub fn in_database(settings: &PostgresSettings) -> Self {
        Self { engine: Engine::Postgres(PostgresEngine::new(settings)) }
    }

    /// The same, with the schema up to date.
    pub async fn connect(settings: &PostgresSettings) -> Result<Self> {
        let engine = PostgresEngine::new(settings);
        engine.prepare().await?;
        Ok(Self { engine: Engine::Postgres(engine) })
    }

    /// Waits for running transactions, and closes all connections; later calls of any method fail.
    pub async fn close(&self) {
        match &self.engine {
            Engine::Sqlite(engine) => engine.close().await,
            Engine::Postgres(engine) => engine.close().await,
        }
    }

    /// Begins a transaction that changes something.
    async fn begin(&self) -> Result<Session> {
        Ok(match &self.engine {
            Engine::Sqlite(engine) => engine.begin().await?,
            Engine::Postgres(engine) => engine.begin().await?,
        })
    }

    /// Begins a transaction that sees one moment and changes nothing.
    async fn read(&self) -> Result<Session> {
        Ok(match &self.engine {
            Engine::Sqlite(engine) => engine.read().await?,
            Engine::Postgres(engine) => engine.read().await?,
        })
    }
}
