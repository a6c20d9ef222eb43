//! The contract on both engines, and what only one of them can suffer.

pub(crate) mod commits;
mod failover;
mod migrations;
mod ordering;
pub(super) mod plans;
mod pooler;
mod server;
mod sqlite;

use std::sync::Arc;

use tempfile::TempDir;

use self::server::{Server, settings};
use super::SqlCatalogue;
use crate::metadata::catalogue::contract::{Subject, catalogue_contract};

mod on_sqlite {
    use super::*;

    async fn open() -> Option<Subject> {
        let folder = TempDir::new().unwrap();
        let catalogue = SqlCatalogue::open(&folder.path().join(SqlCatalogue::FILE_NAME)).await.unwrap();
        Some(Subject { catalogue: Arc::new(catalogue), _keep: Box::new(folder) })
    }

    catalogue_contract!(open);
}

mod on_postgres {
    use super::*;

    async fn open() -> Option<Subject> {
        let (catalogue, server, _) = connected().await?;
        Some(Subject { catalogue: Arc::new(catalogue), _keep: Box::new(server) })
    }

    catalogue_contract!(open);
}

/// A catalogue in a database of its own, and that database's address.
async fn connected() -> Option<(SqlCatalogue, Arc<Server>, String)> {
    let server = Server::shared()?;
    let url = server.create_database().await;
    Some((SqlCatalogue::connect(&settings(&url)).await.unwrap(), server, url))
}

/// The database in an address of the server's.
fn database(url: &str) -> &str {
    let path = url.split('?').next().unwrap_or_default();
    path.rsplit('/').next().unwrap_or_default()
}
