//! A pool of connections that can be replaced while it is used, and that tells of damage.

use std::sync::Arc;

use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt as _, StreamExt as _, TryFutureExt as _, TryStreamExt as _};
use sqlx::sqlite::{SqlitePool, SqliteQueryResult, SqliteRow, SqliteStatement, SqliteTypeInfo};
use sqlx::{Describe, Either, Error, Execute, Executor, Pool, SqlStr, Sqlite, Transaction};
use tokio::sync::Notify;

use crate::metadata::error::is_damage;

/// A pool; cloning gives another handle. Used as a pool is.
#[derive(Clone, Debug)]
pub(super) struct Connections {
    pool: Arc<ArcSwap<SqlitePool>>,
    doubt: Arc<Notify>,
}

impl Connections {
    /// A pool that calls `doubt` when a statement finds damage.
    pub(super) fn new(pool: SqlitePool, doubt: &Arc<Notify>) -> Self {
        Self { pool: Arc::new(ArcSwap::from_pointee(pool)), doubt: Arc::clone(doubt) }
    }

    /// Uses another pool from now on; gives the one of before.
    pub(super) fn replace(&self, pool: SqlitePool) -> Arc<SqlitePool> {
        self.pool.swap(Arc::new(pool))
    }

    pub(super) fn pool(&self) -> Arc<SqlitePool> {
        self.pool.load_full()
    }

    /// Waits for running statements and closes all connections; every further statement fails.
    pub(super) async fn close(&self) {
        self.pool().close().await;
    }

    pub(super) fn is_closed(&self) -> bool {
        self.pool.load().is_closed()
    }

    pub(super) async fn begin_with(
        &self,
        statement: &'static str,
    ) -> Result<Transaction<'static, Sqlite>, Error> {
        let begun = self.pool().begin_with(statement).await;
        begun.inspect_err(|error| tell(&self.doubt, error))
    }
}

/// Has the index looked at, where an error says that it is damaged.
fn tell(doubt: &Notify, error: &Error) {
    if is_damage(error) {
        doubt.notify_one();
    }
}

impl<'c> Executor<'c> for &'_ Connections {
    type Database = Sqlite;

    fn fetch_many<'e, 'q: 'e, E>(
        self,
        query: E,
    ) -> BoxStream<'e, Result<Either<SqliteQueryResult, SqliteRow>, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Sqlite>,
    {
        let (pool, doubt): (Pool<Sqlite>, _) = ((*self.pool()).clone(), Arc::clone(&self.doubt));
        pool.fetch_many(query).inspect_err(move |error| tell(&doubt, error)).boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<SqliteRow>, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Sqlite>,
    {
        let (pool, doubt): (Pool<Sqlite>, _) = ((*self.pool()).clone(), Arc::clone(&self.doubt));
        pool.fetch_optional(query).inspect_err(move |error| tell(&doubt, error)).boxed()
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [SqliteTypeInfo],
    ) -> BoxFuture<'e, Result<SqliteStatement, Error>>
    where
        'c: 'e,
    {
        let pool: Pool<Sqlite> = (*self.pool()).clone();
        async move { pool.prepare_with(sql, parameters).await }.boxed()
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<Describe<Sqlite>, Error>>
    where
        'c: 'e,
    {
        let pool: Pool<Sqlite> = (*self.pool()).clone();
        async move { pool.describe(sql).await }.boxed()
    }
}
