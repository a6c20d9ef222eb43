//! One transaction on either engine, and the changes that it makes.

use std::sync::Arc;

#[cfg(test)]
use sqlx::Row as _;
use sqlx::{Postgres, Sqlite, Transaction};

use super::postgres::{self, Doubt};
use super::values::{Row, Value, values};
use crate::metadata::MetadataError;
use crate::metadata::catalogue::{ChangeKind, Stamp};
use crate::oci::{Digest, Tag};

type Result<T> = std::result::Result<T, MetadataError>;

/// A transaction. Dropped without [`Session::commit`], it did nothing.
#[derive(Debug)]
pub(super) struct Session {
    transaction: Engine,
    changes: Vec<NewChange>,
}

#[derive(Debug)]
enum Engine {
    Sqlite(Transaction<'static, Sqlite>),
    Postgres(Transaction<'static, Postgres>, Arc<Doubt>),
}

/// A change that has no number yet.
#[derive(Debug)]
struct NewChange {
    kind: ChangeKind,
    place: String,
    tag: Option<Tag>,
    digest: Option<Digest>,
    stamp: Stamp,
}

/// Gives the values to a statement of either engine.
macro_rules! bind {
    ($statement:expr, $values:expr) => {{
        let mut query = $statement;
        for value in $values {
            query = match value {
                Value::Number(number) => query.bind(number),
                Value::OptionalNumber(number) => query.bind(number),
                Value::Text(text) => query.bind(text),
                Value::OptionalText(text) => query.bind(text),
                Value::Bytes(bytes) => query.bind(bytes),
            };
        }
        query
    }};
}

impl Session {
    pub(super) fn sqlite(transaction: Transaction<'static, Sqlite>) -> Self {
        Self { transaction: Engine::Sqlite(transaction), changes: Vec::new() }
    }

    pub(super) fn postgres(transaction: Transaction<'static, Postgres>, doubt: Arc<Doubt>) -> Self {
        Self { transaction: Engine::Postgres(transaction, doubt), changes: Vec::new() }
    }

    /// Runs a statement, and says how many rows it changed.
    pub(super) async fn execute(&mut self, statement: &'static str, values: Vec<Value>) -> Result<u64> {
        #[cfg(test)]
        self.explain(statement, &values).await?;
        Ok(match &mut self.transaction {
            Engine::Sqlite(transaction) => {
                bind!(sqlx::query(statement), values).execute(&mut **transaction).await?.rows_affected()
            }
            Engine::Postgres(transaction, doubt) => {
                let running =
                    bind!(sqlx::query(statement).persistent(false), values).execute(&mut **transaction);
                postgres::watch(doubt, running).await?.rows_affected()
            }
        })
    }

    /// Runs a statement, and gives all its rows.
    pub(super) async fn fetch(&mut self, statement: &'static str, values: Vec<Value>) -> Result<Vec<Row>> {
        #[cfg(test)]
        self.explain(statement, &values).await?;
        Ok(match &mut self.transaction {
            Engine::Sqlite(transaction) => {
                let rows = bind!(sqlx::query(statement), values).fetch_all(&mut **transaction).await?;
                rows.into_iter().map(Row::Sqlite).collect()
            }
            Engine::Postgres(transaction, doubt) => {
                let running =
                    bind!(sqlx::query(statement).persistent(false), values).fetch_all(&mut **transaction);
                postgres::watch(doubt, running).await?.into_iter().map(Row::Postgres).collect()
            }
        })
    }

    /// Runs a statement, and gives its first row, if there is one.
    pub(super) async fn find(&mut self, statement: &'static str, values: Vec<Value>) -> Result<Option<Row>> {
        Ok(self.fetch(statement, values).await?.into_iter().next())
    }

    /// Runs the statement of the engine, where the two have no words in common: `SQLite`'s, or `PostgreSQL`'s.
    pub(super) async fn execute_by_engine(
        &mut self,
        [sqlite, postgres]: [&'static str; 2],
        values: Vec<Value>,
    ) -> Result<u64> {
        let is_sqlite = matches!(self.transaction, Engine::Sqlite(_));
        self.execute(if is_sqlite { sqlite } else { postgres }, values).await
    }

    /// Runs the statement where engines lock rows: `SQLite` has one writer, and knows no such statement.
    pub(super) async fn lock(&mut self, statement: &'static str, values: Vec<Value>) -> Result<()> {
        if matches!(self.transaction, Engine::Postgres(..)) {
            self.fetch(statement, values).await?;
        }
        Ok(())
    }

    /// Tells a test that wants to know it how the engine goes about a statement.
    #[cfg(test)]
    async fn explain(&mut self, statement: &'static str, values: &[Value]) -> Result<()> {
        if !super::tests::plans::are_wanted() {
            return Ok(());
        }
        let values = values.to_vec();
        let plan: Vec<String> = match &mut self.transaction {
            Engine::Sqlite(transaction) => {
                let question = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}"));
                let rows = bind!(sqlx::query(question), values).fetch_all(&mut **transaction).await?;
                rows.iter().map(|row| row.try_get("detail")).collect::<std::result::Result<_, _>>()?
            }
            Engine::Postgres(transaction, _) => {
                let question = sqlx::AssertSqlSafe(format!("EXPLAIN (COSTS OFF) {statement}"));
                let query = bind!(sqlx::query(question).persistent(false), values);
                let rows = query.fetch_all(&mut **transaction).await?;
                rows.iter().map(|row| row.try_get(0)).collect::<std::result::Result<_, _>>()?
            }
        };
        super::tests::plans::note(statement, plan);
        Ok(())
    }

    /// Notes a change for the log.
    pub(super) fn note(
        &mut self,
        kind: ChangeKind,
        place: &str,
        tag: Option<&Tag>,
        digest: Option<&Digest>,
        stamp: &Stamp,
    ) {
        self.changes.push(NewChange {
            kind,
            place: place.to_owned(),
            tag: tag.cloned(),
            digest: digest.copied(),
            stamp: stamp.clone(),
        });
    }

    /// Gives the changes their numbers, and commits.
    ///
    /// The counter's row is taken after everything else and held until the end, so that numbers are in the order of
    /// the commits, and no two transactions can wait for each other here.
    pub(super) async fn commit(mut self) -> Result<()> {
        for change in std::mem::take(&mut self.changes) {
            let NewChange { kind, place, tag, digest, stamp } = change;
            self.execute("UPDATE change_counter SET last = last + 1", vec![]).await?;
            self.execute(
                "INSERT INTO change (number, kind, place, tag, digest, changed_at, changed_by)
                 VALUES ((SELECT last FROM change_counter), $1, $2, $3, $4, $5, $6)",
                values![
                    kind.as_str(),
                    place.as_str(),
                    tag.as_ref().map(Tag::as_str),
                    digest.as_ref(),
                    stamp.at,
                    &*stamp.by,
                ],
            )
            .await?;
        }
        #[cfg(test)]
        super::tests::commits::reach();
        match self.transaction {
            Engine::Sqlite(transaction) => Ok(transaction.commit().await?),
            Engine::Postgres(transaction, doubt) => postgres::watch(&doubt, transaction.commit()).await,
        }
    }
}
