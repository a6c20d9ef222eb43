//! Prefetch: after a manifest, its blobs come before the client asks for them.

use crate::content::{OCI_INDEX, index_of};
use crate::harness::{Section, Setup, Tidegate, until};
use crate::upstream::{Gate, Kind, Upstream, any, blob, serve};

async fn start(upstream: &Upstream) -> Tidegate {
    Setup::new().upstream(Section::hub(upstream).text("prefetch", "layers")).start().await
}

/// Waits until a counter of bytes has grown so far.
async fn until_counted(tidegate: &Tidegate, name: &str, bytes: u64) {
    until(&format!("{name} to be {bytes}"), async || {
        tidegate.metrics().await.sum(name, &[]).to_string() == bytes.to_string()
    })
    .await;
}

#[tokio::test]
async fn prefetch_brings_the_layers_of_the_platform_asked_for_and_counts_what_is_used() {
    let upstream = Upstream::start().await;
    let amd64 = upstream.make_image("library/app", "amd64", &[100_000, 70_000, 10]);
    let arm64 = upstream.make_image("library/app", "arm64", &[60_000]);
    let index = index_of(OCI_INDEX, &[&amd64, &arm64]);
    upstream.add_manifest("library/app", &index);
    upstream.tag_manifest("library/app", "1", &index);
    let tidegate = start(&upstream).await;
    tidegate.manifest("/v2/library/app/manifests/1").await;
    tidegate.manifest(&amd64.digest_path()).await;
    let blobs: Vec<_> = amd64.layers.iter().chain([&amd64.config]).collect();
    for blob in &blobs {
        let path = tidegate.stored_path(&blob.digest);
        until("the blob to be here", async || path.exists()).await;
    }
    let all = blobs.iter().map(|blob| blob.size()).sum();
    until_counted(&tidegate, "tidegate_ahead_bytes_total", all).await;
    until_counted(&tidegate, "tidegate_prefetch_used_bytes_total", 0).await;
    assert_eq!(upstream.count(&any(Kind::Blob)), blobs.len(), "each once, and none of the other platform");
    tidegate.fetch(&amd64.layer_path(0)).await;
    until_counted(&tidegate, "tidegate_prefetch_used_bytes_total", amd64.layers[0].size()).await;
    tidegate.pull(&amd64).await;
    until_counted(&tidegate, "tidegate_prefetch_used_bytes_total", all).await;
    assert_eq!(upstream.count(&any(Kind::Blob)), blobs.len());
}

#[tokio::test]
async fn prefetch_shares_the_transfer_with_the_client_and_delays_no_answer() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[1 << 20]);
    let gate = Gate::closed();
    upstream.rule(any(Kind::Blob), serve().hold_body(&gate));
    let tidegate = start(&upstream).await;
    let manifest = tidegate.manifest(&image.tag_path()).await;
    assert_eq!(manifest.body, image.manifest.bytes, "while no blob can come");
    until("the layer to be asked for", async || upstream.count(&blob(&image.layers[0])) > 0).await;
    let mut answer = tidegate.get(&image.layer_path(0)).open().await;
    gate.open();
    assert!(answer.equals(&image.layers[0].bytes).await);
    assert_eq!(upstream.count(&blob(&image.layers[0])), 1);
    until("its use to be counted", async || {
        tidegate.metrics().await.sum("tidegate_prefetch_used_bytes_total", &[]) > 1_000_000.0
    })
    .await;
}

#[tokio::test]
async fn prefetch_leaves_clients_the_most_of_what_upstream_takes_at_once() {
    let upstream = Upstream::start().await;
    let images =
        ["a", "b", "c"].map(|name| upstream.make_image(&format!("library/{name}"), "1", &[10, 20, 30]));
    let gate = Gate::closed();
    upstream.rule(any(Kind::Blob), serve().hold_body(&gate));
    let section = Section::hub(&upstream).text("prefetch", "layers");
    let tidegate = Setup::new().upstream(section.raw_value("max_concurrent_requests", "8")).start().await;
    for image in &images {
        tidegate.manifest(&image.tag_path()).await;
    }
    until("two to be asked for", async || upstream.count(&any(Kind::Blob)) == 2).await;
    let other = upstream.make_image("library/other", "1", &[40]);
    assert_eq!(tidegate.manifest(&other.tag_path()).await.status, 200, "there is room for clients");
    assert_eq!(upstream.count(&any(Kind::Blob)), 2, "a quarter of eight");
    gate.open();
    for image in &images {
        tidegate.pull(image).await;
    }
}

#[tokio::test]
async fn prefetch_is_off_where_nothing_is_said() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[100, 200]);
    let tidegate = Tidegate::start(&upstream).await;
    tidegate.manifest(&image.tag_path()).await;
    tidegate.fetch(&image.layer_path(0)).await;
    assert_eq!(upstream.count(&any(Kind::Blob)), 1);
}
