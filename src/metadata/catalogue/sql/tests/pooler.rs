//! The catalogue behind pgbouncer, which gives each transaction another server connection.

use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::Instant;

use super::server::{Server, as_nobody, folder_of_nobody, settings, skip};
use super::{SqlCatalogue, database};
use crate::metadata::catalogue::Catalogue;
use crate::metadata::catalogue::contract::{changes, hosted, push_image, tag};

/// A running pooler in front of one server.
struct Pooler {
    folder: TempDir,
    process: Child,
}

impl Pooler {
    async fn start(server: &Server) -> Option<Self> {
        if !Path::new(PROGRAM).exists() {
            skip(PROGRAM);
            return None;
        }
        let folder = folder_of_nobody();
        let (here, there) = (folder.path().display(), server.folder().display());
        let settings = format!(
            "[databases]\n* = host={there} user=tidegate\n[pgbouncer]\nlisten_addr =\nunix_socket_dir = {here}\nauth_type = any\n\
             pool_mode = transaction\ndefault_pool_size = 2\n"
        );
        let file = folder.path().join("pgbouncer.ini");
        std::fs::write(&file, settings).unwrap();
        let mut command = as_nobody(Path::new(PROGRAM));
        let process = command.arg(&file).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let pooler = Self { folder, process };
        let deadline = Instant::now() + Duration::from_secs(20);
        while !pooler.folder.path().join(".s.PGSQL.6432").exists() {
            assert!(Instant::now() < deadline, "the pooler does not start");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Some(pooler)
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_works_where_each_transaction_has_another_connection() {
    let Some(server) = Server::shared() else { return };
    let Some(pooler) = Pooler::start(&server).await else { return };
    let direct = server.create_database().await;
    let name = database(&direct);
    let url = format!("postgres://tidegate@localhost:6432/{name}?host={}", pooler.folder.path().display());
    let settings_of_nodes = [settings(&url), settings(&url)];
    let nodes = settings_of_nodes.iter().map(SqlCatalogue::connect);
    for node in futures_util::future::join_all(nodes).await {
        let catalogue: Arc<dyn Catalogue> = Arc::new(node.unwrap());
        let here = hosted(&catalogue, "b/here").await;
        push_image(&catalogue, &here, "image", &["v1"], 1).await;
        assert_eq!(catalogue.list_tags(&here, None, 9).await.unwrap(), [tag("v1")]);
    }
    let fresh = server.create_database().await;
    let url = url.replace(name, database(&fresh));
    let catalogue: Arc<dyn Catalogue> = Arc::new(SqlCatalogue::connect(&settings(&url)).await.unwrap());
    // Eight connections at once, on two of the server's.
    changes::concurrent_changes_get_numbers_without_gaps(&catalogue).await;
}

const PROGRAM: &str = "/usr/sbin/pgbouncer";
