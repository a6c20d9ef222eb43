//! Imports that are killed, or whose disk fails, at every step.

use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::{Sites, assert_done, assert_refused, one_image, run, text};
use crate::disk_faults::shim::Shim;
use crate::harness::{Tidegate, files_in, until};

/// Sends the beginning of a bundle, and leaves the connection open: the server has what came, and waits.
pub(super) async fn begin_import(node: &Tidegate, whole: &[u8], length: usize) -> TcpStream {
    let mut stream = TcpStream::connect(node.admin_url().replace("http://", "")).await.unwrap();
    let size = whole.len();
    let head = "POST /api/v1/import HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/x-tar\r\n";
    let head = format!("{head}content-length: {size}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&whole[..length]).await.unwrap();
    let incoming = node.data().join("incoming");
    until("content to come", async || !files_in(&incoming).is_empty()).await;
    stream
}

#[tokio::test]
async fn import_that_is_killed_leaves_nothing_and_can_be_done_again() {
    let mut sites = Sites::start().await;
    let (image, whole) = one_image(&sites).await;
    for length in [whole.len() / 2, whole.len() - 600] {
        let stream = begin_import(&sites.far, &whole, length).await;
        assert_refused(&sites.import(&["whole.tar"]).await, "another bundle is being imported");
        sites.far.kill().await;
        drop(stream);
        sites.far.start_again().await;
        sites.assert_nothing_visible(&image).await;
    }
    // Who only hangs up leaves nothing either, and nobody waits for a turn that is not over.
    drop(begin_import(&sites.far, &whole, whole.len() - 600).await);
    let incoming = sites.far.data().join("incoming");
    until("it to be removed", async || files_in(&incoming).is_empty()).await;
    sites.assert_nothing_visible(&image).await;
    assert_done(&sites.import(&["whole.tar"]).await);
    sites.far.pull(&image).await;
}

#[tokio::test]
async fn import_on_a_disk_that_fails_is_refused_and_works_when_it_is_mended() {
    let shim = Shim::new();
    let sites =
        Sites::start_with(|far| shim.under(far.with_log("disk").with_log("index").with_log("content"))).await;
    let (image, _) = one_image(&sites).await;
    for fault in
        ["write /incoming/ 28 0", "sync /incoming/ 5 0", "rename /content/ 5 1", "write index.sqlite3 28 0"]
    {
        shim.fail(&[fault]);
        let refused = sites.import(&["whole.tar"]).await;
        assert_eq!(refused.status.code(), Some(1), "{fault}: {refused:?}");
        assert!(text(&refused.stderr).contains("cannot take it"), "{fault}: {refused:?}");
        shim.heal();
        assert_eq!(sites.far.manifest(&image.tag_path()).await.status, 504, "{fault}");
        assert_eq!(sites.far.fetch(&image.layer_path(0)).await.status, 504, "{fault}");
    }
    assert_done(&sites.import(&["whole.tar"]).await);
    sites.far.pull(&image).await;
}

#[tokio::test]
async fn import_that_is_killed_while_it_becomes_visible_can_be_done_again() {
    let shim = Shim::new();
    let mut sites = Sites::start_with(|far| shim.under(far)).await;
    let (image, _) = one_image(&sites).await;
    // Held, so that the kill comes between two renames, and between the last and the record.
    // The first rename makes the directory, and is tried twice.
    for (fault, files) in [("rename /content/ 0 2", 1), ("write index.sqlite3 0 0", 4)] {
        shim.fail(&[fault]);
        let server = sites.far.admin_url();
        let road = sites.road.path().to_owned();
        let import = tokio::spawn(async move { run(&road, &server, &["import", "whole.tar"]).await });
        let content = sites.far.data().join("content");
        until("content to be in place", async || files_in(&content).len() == files).await;
        sites.far.kill().await;
        assert_eq!(import.await.unwrap().status.code(), Some(1));
        shim.heal();
        sites.far.start_again().await;
        assert_eq!(sites.far.manifest(&image.tag_path()).await.status, 504);
        assert_eq!(sites.far.manifest(&image.digest_path()).await.status, 504);
        for blob in image.layers.iter().chain([&image.config]) {
            assert_eq!(sites.far.fetch(&image.blob_path(blob)).await.status, 504);
        }
        assert_eq!(sites.far.fetch("/v2/_catalog").await.json(), json!({ "repositories": [] }));
    }
    assert_done(&sites.import(&["whole.tar"]).await);
    sites.far.pull(&image).await;
}
