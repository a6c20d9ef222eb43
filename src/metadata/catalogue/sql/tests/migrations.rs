//! Nodes that bring the schema up to date at once, and those that die while they do.

use sqlx::Connection as _;
use tempfile::TempDir;

use super::server::{Server, settings};
use super::{SqlCatalogue, database};
use crate::metadata::catalogue::{ChangeLog as _, Result};
use crate::runtime::Tasks;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_start_at_once_wait_for_each_other_on_postgres() {
    let Some(server) = Server::shared() else { return };
    let url = server.create_database().await;
    start_at_once(move || {
        let settings = settings(&url);
        async move { SqlCatalogue::connect(&settings).await }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_start_at_once_wait_for_each_other_on_sqlite() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join(SqlCatalogue::FILE_NAME);
    start_at_once(move || {
        let path = path.clone();
        async move { SqlCatalogue::open(&path).await }
    })
    .await;
}

/// Opens one empty database several times side by side.
async fn start_at_once<F>(open: impl Fn() -> F)
where
    F: Future<Output = Result<SqlCatalogue>> + Send + 'static,
{
    let tasks = Tasks::new();
    let nodes: Vec<_> = (0..6).map(|_| tasks.spawn(open())).collect();
    for node in nodes {
        let catalogue = node.await.unwrap().unwrap();
        assert_eq!(catalogue.last_change().await.unwrap(), 0);
        catalogue.close().await;
    }
}

#[tokio::test]
async fn a_node_that_dies_in_a_migration_has_done_nothing_and_holds_nobody_up() {
    let Some(server) = Server::shared() else { return };
    let url = server.create_database().await;
    // What a node does until it dies: the lock, the list of migrations, and half of the first one.
    let mut dying = server.connect(database(&url)).await;
    sqlx::raw_sql(
        "BEGIN; SELECT pg_advisory_xact_lock(8388346167643173989);
         CREATE TABLE _sqlx_migrations (version BIGINT PRIMARY KEY); CREATE TABLE namespace (name TEXT)",
    )
    .execute(&mut dying)
    .await
    .unwrap();
    let tasks = Tasks::new();
    let waiting = tasks.spawn({
        let settings = settings(&url);
        async move { SqlCatalogue::connect(&settings).await }
    });
    server.wait_for_a_blocked_one(database(&url)).await;
    assert!(!waiting.is_finished());
    // As the end of a process closes it: without a word.
    dying.close_hard().await.unwrap();
    let catalogue = waiting.await.unwrap().unwrap();
    assert_eq!(catalogue.last_change().await.unwrap(), 0);
}
