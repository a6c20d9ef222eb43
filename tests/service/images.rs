//! Whole images: which are complete, and what is missing of the others.

use serde_json::{Value, json};

use crate::content::{Content, Image, OCI_INDEX, artifact_about, index_of};
use crate::harness::{Section, Setup, Tidegate, until};
use crate::upstream::Upstream;

/// An index of two platforms.
struct Multi {
    index: Content,
    amd64: Image,
    arm64: Image,
}

impl Multi {
    fn add(upstream: &Upstream) -> Self {
        let amd64 = upstream.make_image("library/app", "amd64", &[50_000, 70_000]);
        let arm64 = upstream.make_image("library/app", "arm64", &[60_000]);
        let index = index_of(OCI_INDEX, &[&amd64, &arm64]);
        upstream.add_manifest("library/app", &index);
        upstream.tag_manifest("library/app", "1", &index);
        Self { index, amd64, arm64 }
    }

    /// Pulls one platform, as clients do.
    async fn pull(&self, tidegate: &Tidegate, image: &Image) {
        assert_eq!(tidegate.manifest("/v2/library/app/manifests/1").await.body, self.index.bytes);
        assert_eq!(tidegate.manifest(&image.digest_path()).await.status, 200);
        for blob in image.layers.iter().chain([&image.config]) {
            assert_eq!(tidegate.fetch(&image.blob_path(blob)).await.body, blob.bytes);
            let path = tidegate.stored_path(&blob.digest);
            until("the blob to be kept", async || path.exists()).await;
        }
    }
}

/// The images that a query finds.
async fn images(tidegate: &Tidegate, query: &str) -> Vec<Value> {
    let answer = tidegate.admin().get(&format!("/api/v1/cache/images?{query}")).send().await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["images"].as_array().unwrap().clone()
}

/// The part and digest of all that is missing of the only image.
async fn missing(tidegate: &Tidegate) -> Vec<(String, String)> {
    let found = images(tidegate, "").await;
    assert_eq!(found.len(), 1, "{found:?}");
    let is_complete = found[0]["missing"].as_array().unwrap().is_empty();
    assert_eq!(found[0]["state"], if is_complete { "complete" } else { "incomplete" });
    let mut missing: Vec<_> = found[0]["missing"]
        .as_array()
        .unwrap()
        .iter()
        .map(|part| (part["part"].as_str().unwrap().to_owned(), part["digest"].as_str().unwrap().to_owned()))
        .collect();
    missing.sort();
    missing
}

/// Waits until the metrics say how many images are complete, and how many not.
async fn until_counted(tidegate: &Tidegate, complete: f64, incomplete: f64) {
    until(&format!("{complete} complete and {incomplete} incomplete images"), async || {
        let metrics = tidegate.metrics().await;
        let count = |state| metrics.sum("tidegate_images", &[("state", state)]);
        (count("complete") - complete).abs() < 0.5 && (count("incomplete") - incomplete).abs() < 0.5
    })
    .await;
}

fn blob_of(content: &Content) -> (String, String) {
    ("blob".to_owned(), content.digest.clone())
}

#[tokio::test]
async fn images_are_complete_for_the_platforms_that_were_pulled() {
    let upstream = Upstream::start().await;
    let multi = Multi::add(&upstream);
    let tidegate = Tidegate::start(&upstream).await;
    multi.pull(&tidegate, &multi.amd64).await;
    let found = images(&tidegate, "complete").await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0]["repository"], "hub.test/library/app");
    assert_eq!(found[0]["tags"], json!(["1"]));
    assert_eq!(found[0]["digest"], multi.index.digest);
    assert_eq!(found[0]["platforms"], json!(["linux/amd64"]));
    let parts = multi.amd64.layers.iter().chain([&multi.amd64.config, &multi.amd64.manifest, &multi.index]);
    assert_eq!(found[0]["stored_bytes"], parts.map(Content::size).sum::<u64>());
    until_counted(&tidegate, 1.0, 0.0).await;
    // The manifest of the other platform alone makes that platform wanted.
    tidegate.manifest(&multi.arm64.digest_path()).await;
    let mut expected = vec![blob_of(&multi.arm64.config), blob_of(&multi.arm64.layers[0])];
    expected.sort();
    assert_eq!(missing(&tidegate).await, expected);
    let found = images(&tidegate, "incomplete").await;
    assert_eq!(found[0]["missing"][0]["platform"], "linux/arm64");
    assert_eq!(found[0]["missing_bytes"], multi.arm64.config.size() + multi.arm64.layers[0].size());
    until_counted(&tidegate, 0.0, 1.0).await;
    multi.pull(&tidegate, &multi.arm64).await;
    assert_eq!(missing(&tidegate).await, []);
    until_counted(&tidegate, 1.0, 0.0).await;
}

#[tokio::test]
async fn images_that_lose_a_part_are_incomplete_at_once() {
    let upstream = Upstream::start().await;
    let multi = Multi::add(&upstream);
    let setup = Setup::new().upstream(Section::hub(&upstream)).with_log("stored content is damaged");
    let mut tidegate = setup.start().await;
    // Both: one of them is this machine's own, which is wanted in any case.
    multi.pull(&tidegate, &multi.amd64).await;
    multi.pull(&tidegate, &multi.arm64).await;
    assert_eq!(missing(&tidegate).await, []);
    assert_eq!(images(&tidegate, "incomplete").await, [] as [Value; 0]);
    let layer = &multi.amd64.layers[1];
    std::fs::remove_file(tidegate.stored_path(&layer.digest)).unwrap();
    assert_eq!(missing(&tidegate).await, [blob_of(layer)]);
    let short = &multi.amd64.layers[0];
    std::fs::write(tidegate.stored_path(&short.digest), b"short").unwrap();
    assert_eq!(missing(&tidegate).await.len(), 2);
    // Also platforms whose manifests are damaged stay wanted, over a restart.
    for image in [&multi.amd64, &multi.arm64] {
        std::fs::write(tidegate.stored_path(&image.manifest.digest), b"{}").unwrap();
    }
    tidegate.restart().await;
    let manifest = |image: &Image| ("manifest".to_owned(), image.manifest.digest.clone());
    let mut expected = [manifest(&multi.amd64), manifest(&multi.arm64)];
    expected.sort();
    for _ in 0..2 {
        assert_eq!(missing(&tidegate).await, expected);
    }
    until_counted(&tidegate, 0.0, 1.0).await;
    // Pulls bring all of it back.
    multi.pull(&tidegate, &multi.amd64).await;
    multi.pull(&tidegate, &multi.arm64).await;
    until("everything to be kept", async || missing(&tidegate).await.is_empty()).await;
    std::fs::remove_file(tidegate.stored_path(&multi.index.digest)).unwrap();
    // Without it, nobody knows that the platforms are parts of it.
    let incomplete = images(&tidegate, "incomplete").await;
    assert_eq!(incomplete.len(), 1, "{incomplete:?}");
    assert_eq!(incomplete[0]["missing"][0]["digest"], multi.index.digest);
}

#[tokio::test]
async fn images_are_complete_for_the_platforms_that_are_configured() {
    let upstream = Upstream::start().await;
    let multi = Multi::add(&upstream);
    let setup = Setup::new().site(r#"platforms = ["linux/arm64/v8", "linux/riscv64"]"#);
    let tidegate = setup.upstream(Section::hub(&upstream)).start().await;
    multi.pull(&tidegate, &multi.amd64).await;
    let arm64 = ("manifest".to_owned(), multi.arm64.manifest.digest.clone());
    assert_eq!(missing(&tidegate).await, [arm64], "and what the image is not made for does not count");
    multi.pull(&tidegate, &multi.arm64).await;
    assert_eq!(missing(&tidegate).await, []);
}

#[tokio::test]
async fn images_need_the_referrers_that_were_seen() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[1000]);
    let signature = artifact_about(&image.manifest, "application/x.signature");
    upstream.add_manifest("library/app", &signature);
    let [empty, note] = ["{}".to_owned(), format!("about {}", image.manifest.digest)]
        .map(|text| Content::of("text/plain", text));
    for blob in [&empty, &note] {
        upstream.add_blob("library/app", blob);
    }
    let tidegate = Tidegate::start(&upstream).await;
    tidegate.pull(&image).await;
    let config = tidegate.stored_path(&image.config.digest);
    until("the blobs to be kept", async || config.exists()).await;
    until("the image to be whole", async || missing(&tidegate).await.is_empty()).await;
    let list = tidegate.fetch(&format!("/v2/library/app/referrers/{}", image.manifest.digest)).await;
    assert_eq!(list.json()["manifests"][0]["digest"], signature.digest);
    assert_eq!(missing(&tidegate).await, [("referrer".to_owned(), signature.digest.clone())]);
    tidegate.manifest(&format!("/v2/library/app/manifests/{}", signature.digest)).await;
    let mut expected = vec![blob_of(&empty), blob_of(&note)];
    expected.sort();
    assert_eq!(missing(&tidegate).await, expected);
    for blob in [&empty, &note] {
        tidegate.fetch(&image.blob_path(blob)).await;
    }
    until("the image to be whole", async || missing(&tidegate).await.is_empty()).await;
}

#[tokio::test]
async fn images_are_asked_for_by_repository_and_in_pages() {
    let upstream = Upstream::start().await;
    let tidegate = Tidegate::start(&upstream).await;
    for name in ["library/a", "library/b", "team/c"] {
        tidegate.manifest(&upstream.make_image(name, "1", &[10]).tag_path()).await;
    }
    assert_eq!(images(&tidegate, "upstream=hub.test&incomplete").await.len(), 3);
    assert_eq!(images(&tidegate, "repository=hub.test/team/c").await[0]["tags"], json!(["1"]));
    let mut path = "/api/v1/cache/images?n=1".to_owned();
    let mut names = Vec::new();
    for _ in 0..4 {
        let page = tidegate.admin().get(&path).send().await.json();
        names.extend(page["images"].as_array().unwrap().iter().map(|image| image["repository"].clone()));
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/api/v1/cache/images?n=1&last={next}");
    }
    assert_eq!(names, ["hub.test/library/a", "hub.test/library/b", "hub.test/team/c"]);
    for (query, status, reason) in [
        ("n=0", 400, "write a number"),
        ("incompleet", 400, "unknown parameter"),
        ("upstream=no.test", 404, "no.test"),
    ] {
        let answer = tidegate.admin().get(&format!("/api/v1/cache/images?{query}")).send().await;
        assert_eq!(answer.status, status, "{query}");
        assert!(answer.json()["error"].as_str().unwrap().contains(reason), "{query}");
    }
}
