//! Primaries that are demoted, and servers that cut their connections.

use std::sync::Arc;

use super::server::{Server, settings};
use super::{SqlCatalogue, database};
use crate::metadata::catalogue::contract::{hosted, push_image, stamp, tag};
use crate::metadata::catalogue::{Catalogue, CatalogueError};

/// Eight connections of the pool that are open and idle.
async fn warm(catalogue: &Arc<dyn Catalogue>) {
    let questions = (0..8).map(|_| catalogue.last_change());
    for answer in futures_util::future::join_all(questions).await {
        answer.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_demoted_primary_takes_nothing_and_its_connections_are_thrown_out() {
    let Some(server) = Server::shared() else { return };
    let url = server.create_database().await;
    let name = database(&url);
    let catalogue: Arc<dyn Catalogue> = Arc::new(SqlCatalogue::connect(&settings(&url)).await.unwrap());
    let here = hosted(&catalogue, "a/here").await;
    let image = push_image(&catalogue, &here, "image", &["v1"], 1).await;
    // New connections are to a server that takes no changes.
    server.run("postgres", &format!("ALTER DATABASE {name} SET default_transaction_read_only = on")).await;
    let ended = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'");
    server.run("postgres", &ended).await;
    // The first use of each connection may meet the cut; then reading goes on, and changes are refused for now.
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    while catalogue.find_tag(&here, &tag("v1")).await.ok().flatten() != Some(image) {
        assert!(tokio::time::Instant::now() < deadline);
    }
    warm(&catalogue).await;
    let refused = catalogue.delete_tag(&here, &tag("v1"), &stamp(2)).await;
    assert!(matches!(&refused, Err(error @ CatalogueError::Store(_)) if error.is_transient()), "{refused:?}");
    // Well again: connections that were opened meanwhile still take nothing, and none of them is used for a change.
    server.run("postgres", &format!("ALTER DATABASE {name} RESET default_transaction_read_only")).await;
    for round in 0..20 {
        push_image(&catalogue, &here, &format!("image {round}"), &["v1"], 3 + round).await;
    }
    assert_eq!(catalogue.list_tag_history(&here, &tag("v1"), None, 99).await.unwrap().len(), 21);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_cut_all_connections_is_used_again() {
    let Some(server) = Server::shared() else { return };
    let url = server.create_database().await;
    let catalogue: Arc<dyn Catalogue> = Arc::new(SqlCatalogue::connect(&settings(&url)).await.unwrap());
    let here = hosted(&catalogue, "a/here").await;
    warm(&catalogue).await;
    let name = database(&url);
    let ended = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'");
    server.run("postgres", &ended).await;
    // One question finds out at most, and has the other connections looked at.
    let failed = catalogue.last_change().await;
    assert!(failed.as_ref().err().is_none_or(CatalogueError::is_transient), "{failed:?}");
    for round in 0..20 {
        push_image(&catalogue, &here, "image", &["v1"], round).await;
    }
}
