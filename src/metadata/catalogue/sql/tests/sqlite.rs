//! What a file can suffer.

use std::sync::Arc;

use tempfile::TempDir;

use crate::metadata::MetadataError;
use crate::metadata::catalogue::contract::{at, digest, hosted, push_image, tag};
use crate::metadata::catalogue::{Catalogue, CatalogueError, HostedTags as _, SqlCatalogue, Uploads as _};

#[tokio::test]
async fn what_was_acknowledged_outlives_a_killed_process() {
    let (folder, copy) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let catalogue = SqlCatalogue::open(&folder.path().join(SqlCatalogue::FILE_NAME)).await.unwrap();
    let catalogue: Arc<dyn Catalogue> = Arc::new(catalogue);
    let here = hosted(&catalogue, "a/here").await;
    push_image(&catalogue, &here, "image", &["v1"], 1).await;
    // As a killed process leaves it: while it is open, with its log.
    for suffix in ["", "-wal"] {
        let name = format!("{}{suffix}", SqlCatalogue::FILE_NAME);
        std::fs::copy(folder.path().join(&name), copy.path().join(&name)).unwrap();
    }
    let after = SqlCatalogue::open(&copy.path().join(SqlCatalogue::FILE_NAME)).await.unwrap();
    assert_eq!(after.find_tag(&here, &tag("v1")).await.unwrap(), Some(digest("image")));
}

#[tokio::test]
async fn a_damaged_file_is_an_error_and_stays_as_it_is() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join(SqlCatalogue::FILE_NAME);
    let bytes = b"this is no database, whatever its name says".repeat(100);
    std::fs::write(&path, &bytes).unwrap();
    match SqlCatalogue::open(&path).await {
        Err(CatalogueError::Store(error)) => assert!(error.is_damage() && !error.is_transient(), "{error:?}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn a_closed_catalogue_answers_nothing_and_a_second_opening_finds_all() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join(SqlCatalogue::FILE_NAME);
    let first = SqlCatalogue::open(&path).await.unwrap();
    // Two processes may have it open: one is about to end.
    let second = SqlCatalogue::open(&path).await.unwrap();
    let seen: Arc<dyn Catalogue> = Arc::new(first.clone());
    let here = hosted(&seen, "a/here").await;
    push_image(&seen, &here, "image", &["v1"], 1).await;
    first.close().await;
    let failed = first.list_silent_uploads(at(9), 9).await;
    assert!(matches!(failed, Err(CatalogueError::Store(MetadataError::Failed(_)))), "{failed:?}");
    assert_eq!(second.find_tag(&here, &tag("v1")).await.unwrap(), Some(digest("image")));
}
