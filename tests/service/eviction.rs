//! The byte budget of the cache (items 40 and 48).

use crate::content::{Content, Image};
use crate::harness::{Section, Setup, Tidegate, until};
use crate::upstream::{Kind, Upstream, any, blob, manifest};

const MIB: usize = 1 << 20;

async fn with_budget(upstream: &Upstream, budget: &str) -> Tidegate {
    Setup::new().upstream(Section::hub(upstream)).max_size(budget).with_warnings().start().await
}

/// The bytes of all files under a directory.
fn size_of(directory: &std::path::Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
    entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let kind = entry.file_type().ok()?;
            let name = entry.file_name();
            if kind.is_dir() {
                Some(size_of(&entry.path()))
            } else if name.to_string_lossy().starts_with("index.sqlite3") {
                None
            } else {
                Some(entry.metadata().ok()?.len())
            }
        })
        .sum()
}

#[tokio::test]
async fn the_cache_stays_within_its_budget() {
    let upstream = Upstream::start().await;
    let tidegate = with_budget(&upstream, "16MiB").await;
    for number in 0..12 {
        let image = upstream.make_image("library/app", &number.to_string(), &[4 * MIB]);
        tidegate.pull(&image).await;
    }
    until("the cache within its budget", async || {
        let counted_bytes = tidegate.metrics().await.sum("tidegate_cache_bytes", &[]);
        size_of(&tidegate.data()) <= 16 * MIB as u64 && counted_bytes <= 16_777_216.0
    })
    .await;
    let metrics = tidegate.metrics().await;
    assert!(metrics.sum("tidegate_cache_evictions_total", &[]) >= 8.0);
    assert!(metrics.sum("tidegate_cache_evicted_bytes_total", &[]) >= 33_554_432.0);
    let budget = metrics.sum("tidegate_cache_budget_bytes", &[]);
    assert!((budget - 16_777_216.0).abs() < 1.0, "{budget}");
}

#[tokio::test]
async fn item_048_an_evicted_blob_is_fetched_again_without_the_client_noticing() {
    let upstream = Upstream::start().await;
    let tidegate = with_budget(&upstream, "12MiB").await;
    let image = upstream.make_image("library/lazy", "1", &[4 * MIB]);
    let layer = &image.layers[0];
    tidegate.pull(&image).await;
    let mut number = 0;
    until("the layer to be evicted", async || {
        number += 1;
        let other = upstream.make_image("library/other", &number.to_string(), &[4 * MIB]);
        tidegate.pull(&other).await;
        tidegate.pull(&other).await;
        size_of(&tidegate.data()) <= 13 * MIB as u64 && number >= 6
    })
    .await;
    upstream.forget_requests();
    let answer = tidegate.get(&image.layer_path(0)).range("bytes=1048576-1048585").send().await;
    assert_eq!((answer.status, &answer.body), (206, &layer.bytes.slice(MIB..MIB + 10)));
    tidegate.pull(&image).await;
    assert!(upstream.count(&blob(layer)) >= 1, "it had really gone");
}

#[tokio::test]
async fn eviction_of_one_image_leaves_the_blobs_it_shares_servable() {
    let upstream = Upstream::start().await;
    let tidegate = with_budget(&upstream, "20MiB").await;
    let base = Content::blob(5, 4 * MIB);
    let first = Image::of_layers("library/first", "1", vec![base.clone(), Content::blob(6, 4 * MIB)]);
    let second = Image::of_layers("library/second", "1", vec![base.clone()]);
    upstream.add_image(&first);
    upstream.add_image(&second);
    tidegate.pull(&first).await;
    for number in 0..6 {
        let scan = upstream.make_image("library/scan", &number.to_string(), &[4 * MIB]);
        tidegate.pull(&second).await;
        tidegate.pull(&scan).await;
    }
    until("the cache within its budget", async || size_of(&tidegate.data()) <= 20 * MIB as u64).await;
    tidegate.pull(&second).await;
    tidegate.pull(&first).await;
    assert_eq!(tidegate.manifest(&first.tag_path()).await.status, 200);
}

#[tokio::test]
async fn a_scan_of_images_pulled_once_does_not_drive_out_what_is_in_use() {
    let upstream = Upstream::start().await;
    let tidegate = with_budget(&upstream, "24MiB").await;
    let hot = upstream.make_image("library/hot", "1", &[4 * MIB]);
    tidegate.pull(&hot).await;
    for number in 0..12 {
        tidegate.pull(&hot).await;
        let scan = upstream.make_image("library/scan", &number.to_string(), &[4 * MIB]);
        tidegate.pull(&scan).await;
    }
    tidegate.pull(&hot).await;
    assert_eq!(upstream.count(&blob(&hot.layers[0])), 1, "the image in use was fetched once");
}

#[tokio::test]
async fn a_blob_larger_than_the_budget_is_still_served_whole() {
    let upstream = Upstream::start().await;
    let tidegate = with_budget(&upstream, "4MiB").await;
    let image = upstream.make_image("library/large", "1", &[9 * MIB]);
    for _ in 0..2 {
        tidegate.pull(&image).await;
    }
    until("the cache within its budget", async || size_of(&tidegate.data()) <= 4 * MIB as u64).await;
    tidegate.pull(&image).await;
}

#[tokio::test]
async fn a_blob_being_read_is_never_pulled_from_under_its_reader() {
    let upstream = Upstream::start().await;
    let tidegate = with_budget(&upstream, "20MiB").await;
    let image = upstream.make_image("library/read", "1", &[16 * MIB]);
    tidegate.pull(&image).await;
    let mut slow = tidegate.get(&image.layer_path(0)).open().await;
    let read = slow.read_at_least(1).await;
    for number in 0..4 {
        let other = upstream.make_image("library/other", &number.to_string(), &[8 * MIB]);
        tidegate.pull(&other).await;
        tidegate.pull(&other).await;
    }
    assert!(slow.equals(&image.layers[0].bytes[read.len()..]).await);
}

#[tokio::test]
async fn manifests_outlive_their_evicted_blobs() {
    let upstream = Upstream::start().await;
    let tidegate = with_budget(&upstream, "8MiB").await;
    let image = upstream.make_image("library/app", "1", &[3 * MIB]);
    tidegate.pull(&image).await;
    for number in 0..5 {
        tidegate.pull(&upstream.make_image("library/other", &number.to_string(), &[3 * MIB])).await;
    }
    upstream.forget_requests();
    assert_eq!(tidegate.manifest(&image.tag_path()).await.body, image.manifest.bytes);
    assert_eq!(upstream.count(&manifest("1").of("library/app")), 0);
    assert_eq!(upstream.count(&any(Kind::Manifest).of("library/app")), 0);
}
