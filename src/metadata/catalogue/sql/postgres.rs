//! The catalogue in `PostgreSQL` 13 or later, directly or behind a pooler that hands out servers by the transaction.
//!
//! So nothing outlives a transaction: no prepared statement has a name, no setting and no lock is the session's. Even
//! single statements are transactions, because the client library prepares and runs them in two steps.
//!
//! A database that is away is found again by the next call. What fails for want of a good connection is
//! [`MetadataError::Busy`].

use std::future::Future;
use std::str::FromStr as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions as _, Connection as _, Executor as _, Row as _};
use tokio::time::{Instant, timeout};

use super::session::Session;
use crate::metadata::MetadataError;

type Result<T> = std::result::Result<T, MetadataError>;

/// Where the database is, and how many connections it lends.
#[derive(Clone)]
pub struct PostgresSettings {
    options: PgConnectOptions,
    max_connections: u32,
}

impl PostgresSettings {
    /// Reads `postgres://user:password@host:port/database?sslmode=verify-full`; `host` may be a parameter with the
    /// folder of a socket. `None` where the text is no such address; no error repeats its password.
    pub fn parse(url: &str, max_connections: u32) -> Option<Self> {
        let options = PgConnectOptions::from_str(url).ok()?;
        // Poolers know no such setting, and nothing here is a float.
        let options =
            options.statement_cache_capacity(0).extra_float_digits(None).disable_statement_logging();
        Some(Self { options, max_connections: max_connections.max(1) })
    }
}

impl std::fmt::Debug for PostgresSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresSettings")
            .field("max_connections", &self.max_connections)
            .finish_non_exhaustive()
    }
}

/// The database's connections.
#[derive(Clone, Debug)]
pub(super) struct PostgresEngine {
    pool: PgPool,
    doubt: Arc<Doubt>,
    schema: Arc<Schema>,
}

/// Whether this process has seen the schema up to date.
#[derive(Debug, Default)]
struct Schema {
    is_current: AtomicBool,
    /// Whose turn it is to see to it.
    turn: tokio::sync::Mutex<()>,
}

impl PostgresEngine {
    /// Connects to nothing yet.
    pub(super) fn new(settings: &PostgresSettings) -> Self {
        let doubt: Arc<Doubt> = Arc::default();
        let pool = pool_options(settings.max_connections, &doubt).connect_lazy_with(settings.options.clone());
        Self { pool, doubt, schema: Arc::default() }
    }

    /// Brings the schema up to date, once in a process. Comes before everything else, and is tried again by whoever comes
    /// next: the database may be away when the process starts.
    pub(super) async fn prepare(&self) -> Result<()> {
        if self.schema.is_current.load(Ordering::Acquire) {
            return Ok(());
        }
        // Who waits for others does not wait for all of them to fail one after the other.
        let turn = timeout(ACQUIRE_TIMEOUT, self.schema.turn.lock()).await;
        let _turn = turn.map_err(|_elapsed| classify(sqlx::Error::PoolTimedOut))?;
        if !self.schema.is_current.load(Ordering::Acquire) {
            self.migrate().await?;
            self.schema.is_current.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// Begins a transaction on a server that takes changes. A connection to one that does not (any more) is closed,
    /// and another one is tried, so that nothing fails half-way because a primary was demoted a while ago.
    pub(super) async fn begin(&self) -> Result<Session> {
        let mut session = self.start(BEGIN).await?;
        for _ in 0..FURTHER_TRIES {
            match session.execute(PROBE, vec![]).await {
                Err(error) if is_read_only(&error) => {
                    drop(session);
                    session = self.start(BEGIN).await?;
                }
                Err(error) => return Err(error),
                Ok(_) => return Ok(session),
            }
        }
        session.execute(PROBE, vec![]).await?;
        Ok(session)
    }

    pub(super) async fn read(&self) -> Result<Session> {
        self.start(READ).await
    }

    pub(super) async fn close(&self) {
        self.pool.close().await;
    }

    async fn start(&self, statement: &'static str) -> Result<Session> {
        self.prepare().await?;
        let transaction = watch(&self.doubt, self.pool.begin_with(statement)).await?;
        Ok(Session::postgres(transaction, Arc::clone(&self.doubt)))
    }

    /// All migrations are one transaction, under a lock that ends with it: nodes that start at once wait for each
    /// other, and one that dies in between has done nothing.
    async fn migrate(&self) -> Result<()> {
        let mut migrator = sqlx::migrate!("src/metadata/migrations/catalogue-postgres");
        migrator.set_locking(false);
        // Migrations expand first and contract a release later: the release before runs on the schema of the next.
        migrator.set_ignore_missing(true);
        let begun = self.pool.begin_with("BEGIN; SET LOCAL lock_timeout = '60s'");
        let mut transaction = watch(&self.doubt, begun).await?;
        let lock = sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(MIGRATION_LOCK).persistent(false);
        lock.execute(&mut *transaction).await.map_err(classify)?;
        // The library names its statements here, whatever it is told: behind a pooler the next one who gets this server
        // would find the names taken, by this node, or by one that died.
        transaction.execute(FORGET_STATEMENTS).await.map_err(classify)?;
        migrator.run_direct(None, &mut *transaction, false).await.map_err(MetadataError::Migration)?;
        transaction.execute(FORGET_STATEMENTS).await.map_err(classify)?;
        watch(&self.doubt, transaction.commit()).await
    }
}

/// Since when connections are looked at before they are used again: something failed on one of them, and what broke
/// it (a demotion, a lost server, a cut wire) has probably broken others.
#[derive(Debug, Default)]
pub(super) struct Doubt(Mutex<Option<Instant>>);

impl Doubt {
    fn raise(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn covers(&self, age: Duration) -> bool {
        let raised = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        raised.is_some_and(|raised| raised.elapsed() <= age)
    }
}

/// Waits for a statement, but not for ever, and has connections looked at where it fails for want of a good one.
pub(super) async fn watch<T>(
    doubt: &Doubt,
    running: impl Future<Output = std::result::Result<T, sqlx::Error>>,
) -> Result<T> {
    let answer = timeout(ANSWER_TIMEOUT, running).await.unwrap_or(Err(sqlx::Error::PoolTimedOut));
    let error = match answer {
        Ok(value) => return Ok(value),
        Err(error) => classify(error),
    };
    if error.is_transient() {
        doubt.raise();
    }
    Err(error)
}

fn pool_options(max_connections: u32, doubt: &Arc<Doubt>) -> PgPoolOptions {
    let (at_release, at_use) = (Arc::clone(doubt), Arc::clone(doubt));
    PgPoolOptions::new()
        .max_connections(max_connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .idle_timeout(IDLE_TIMEOUT)
        .max_lifetime(MAX_LIFETIME)
        .test_before_acquire(false)
        .after_release(move |connection, about| {
            let doubt = Arc::clone(&at_release);
            Box::pin(async move {
                if doubt.covers(about.age) { takes_changes(connection).await } else { Ok(true) }
            })
        })
        .before_acquire(move |connection, about| {
            let doubt = Arc::clone(&at_use);
            Box::pin(async move {
                if doubt.covers(about.age) {
                    takes_changes(connection).await
                } else if about.idle_for > TRUSTED_FOR {
                    in_time(connection.ping()).await.map(|()| true)
                } else {
                    Ok(true)
                }
            })
        })
}

/// Whether the server behind a connection answers, and takes changes.
async fn takes_changes(connection: &mut PgConnection) -> std::result::Result<bool, sqlx::Error> {
    // What an unfinished transaction left is rolled back before. In one message, for a pooler's sake.
    let row = in_time(connection.fetch_one("SHOW transaction_read_only")).await?;
    Ok(row.try_get::<&str, _>(0)? == "off")
}

/// Waits for what a good connection does at once.
async fn in_time<T>(
    running: impl Future<Output = std::result::Result<T, sqlx::Error>>,
) -> std::result::Result<T, sqlx::Error> {
    timeout(PROBE_TIMEOUT, running).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
}

/// What went wrong, by the SQLSTATE: `PostgreSQL`'s codes are not `SQLite`'s.
fn classify(error: sqlx::Error) -> MetadataError {
    let is_transient = match &error {
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::Protocol(_) => true,
        sqlx::Error::Database(database) => database.code().is_some_and(|code| is_transient_state(&code)),
        _ => false,
    };
    if is_transient { MetadataError::Busy(error) } else { MetadataError::Failed(error) }
}

/// Connections that broke (08), resources that are short (53), servers that stop or start (57P), serialization and
/// deadlocks (40), locks and statements that took too long (55P03, 57014), transactions ended for idling (25P03), and
/// servers that take no changes (25006).
fn is_transient_state(code: &str) -> bool {
    ["08", "53", "57P", "40"].iter().any(|class| code.starts_with(class))
        || matches!(code, "55P03" | "57014" | "25P03" | READ_ONLY)
}

fn is_read_only(error: &MetadataError) -> bool {
    let MetadataError::Busy(sqlx::Error::Database(database)) = error else { return false };
    database.code().is_some_and(|code| code == READ_ONLY)
}

/// `read_only_sql_transaction`.
const READ_ONLY: &str = "25006";

/// Settings are the transaction's: poolers take none with the connection.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = '5s';
     SET LOCAL statement_timeout = '10s'; SET LOCAL idle_in_transaction_session_timeout = '15s';
     SET LOCAL synchronous_commit = on";

/// One moment for all statements.
const READ: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY; SET LOCAL statement_timeout = '10s';
     SET LOCAL idle_in_transaction_session_timeout = '15s'";

/// Changes nothing, and fails where nothing can be changed.
const PROBE: &str = "DELETE FROM change WHERE FALSE";

/// How many further connections are tried for one that takes changes.
const FURTHER_TRIES: usize = 2;

const FORGET_STATEMENTS: &str = "DEALLOCATE ALL";

/// Names the lock of the migrations: "tidegate", as a number.
const MIGRATION_LOCK: i64 = 0x7469_6465_6761_7465;

/// How long a call waits for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a statement may take, where the server no longer says so itself.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(12);

/// How long a connection may take to show that it is good.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// For how long an idle connection is taken for good.
const TRUSTED_FOR: Duration = Duration::from_secs(1);

/// After what time of rest a connection is closed.
const IDLE_TIMEOUT: Duration = Duration::from_mins(5);

/// After what time a connection is replaced, so that nodes follow names that move.
const MAX_LIFETIME: Duration = Duration::from_mins(30);
