//! Pins: images that neither eviction nor a purge takes.

use http::Method;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::admin::text;
use crate::cache::{cache, cache_lines, post, pull};
use crate::content::{Content, Image, OCI_INDEX, index_of};
use crate::harness::{Section, Setup, Tidegate, until};
use crate::upstream::{Kind, Upstream, any, everything, status};

const MIB: usize = 1 << 20;

async fn pins(tidegate: &Tidegate) -> Vec<Value> {
    let answer = tidegate.admin().get("/api/v1/cache/pins").send().await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["pins"].as_array().unwrap().clone()
}

async fn pin(tidegate: &Tidegate, image: &str) -> Value {
    let answer = post(tidegate, "/api/v1/cache/pins", &json!({ "image": image })).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

fn bytes_of(contents: &[&Content]) -> u64 {
    contents.iter().map(|content| content.size()).sum()
}

/// Pulls so much that all that is not pinned is evicted.
async fn flood(upstream: &Upstream, tidegate: &Tidegate, name: &str) {
    let unpinned: Image = upstream.make_image(name, "first", &[4 * MIB]);
    tidegate.pull(&unpinned).await;
    let path = tidegate.stored_path(&unpinned.layers[0].digest);
    let mut number = 0;
    until("what is not pinned to be evicted", async || {
        number += 1;
        tidegate.pull(&upstream.make_image(name, &number.to_string(), &[4 * MIB])).await;
        number > 4 && !path.exists()
    })
    .await;
}

#[tokio::test]
async fn a_pinned_image_survives_eviction_and_restarts() {
    let upstream = Upstream::start().await;
    let setup = Setup::new().upstream(Section::hub(&upstream)).max_size("16MiB").with_warnings();
    let mut tidegate = setup.start().await;
    let image = upstream.make_image("library/app", "1", &[4 * MIB, MIB]);
    pull(&tidegate, &image).await;
    let pinned = pin(&tidegate, "app:1").await;
    let parts = [&image.manifest, &image.config, &image.layers[0], &image.layers[1]];
    assert_eq!(pinned["image"], "hub.test/library/app:1");
    assert_eq!((&pinned["digest"], &pinned["reason"]), (&json!(image.manifest.digest), &json!("order")));
    assert_eq!((&pinned["items"], &pinned["stored"]), (&json!(4), &json!(4)));
    assert_eq!(pinned["stored_bytes"], bytes_of(&parts));
    for round in ["library/one", "library/two"] {
        flood(&upstream, &tidegate, round).await;
        upstream.forget_requests();
        tidegate.pull(&image).await;
        assert_eq!(upstream.count(&everything()), 0);
        tidegate.restart().await;
        assert_eq!(pins(&tidegate).await, std::slice::from_ref(&pinned));
    }
    until("what is pinned to be counted", async || {
        let metrics = tidegate.metrics().await;
        (metrics.sum("tidegate_cache_pins", &[]) - 1.0).abs() < 0.5
            && metrics.sum("tidegate_cache_pinned_bytes", &[]) >= 5.0 * 1_048_576.0
    })
    .await;
    let stats = tidegate.admin().get("/api/v1/cache/stats").send().await.json();
    assert_eq!((&stats["pins"], &stats["total"]["pinned_bytes"]), (&json!(1), &pinned["stored_bytes"]));
    let call = tidegate.admin().call(Method::DELETE, "/api/v1/cache/pins?image=hub.test/library/app:1");
    assert_eq!(call.send().await.status, 200);
    assert_eq!(pins(&tidegate).await, [] as [Value; 0]);
    flood(&upstream, &tidegate, "library/three").await;
    until("what was unpinned to be evicted", async || {
        !tidegate.stored_path(&image.layers[0].digest).exists()
    })
    .await;
}

#[tokio::test]
async fn a_pin_covers_what_of_the_image_comes_later() {
    let upstream = Upstream::start().await;
    let [amd64, arm64] = ["amd64", "arm64"].map(|tag| upstream.make_image("library/app", tag, &[1000]));
    let index = index_of(OCI_INDEX, &[&amd64, &arm64]);
    upstream.add_manifest("library/app", &index);
    upstream.tag_manifest("library/app", "1", &index);
    let tidegate = Tidegate::start(&upstream).await;
    tidegate.manifest("/v2/library/app/manifests/1").await;
    let pinned = pin(&tidegate, "app:1").await;
    assert_eq!((&pinned["items"], &pinned["stored"]), (&json!(3), &json!(1)));
    for image in [&amd64, &arm64] {
        tidegate.manifest(&image.digest_path()).await;
        for blob in image.layers.iter().chain([&image.config]) {
            tidegate.fetch(&image.blob_path(blob)).await;
        }
    }
    until("all of it to be covered", async || {
        let pins = pins(&tidegate).await;
        (&pins[0]["items"], &pins[0]["stored"]) == (&json!(7), &json!(7))
    })
    .await;
}

#[tokio::test]
async fn a_pin_by_tag_follows_the_tag_and_one_by_digest_does_not() {
    let upstream = Upstream::start().await;
    let old = upstream.make_image("library/app", "1", &[1000]);
    let tidegate = Setup::new().upstream(Section::hub(&upstream).clocks("0s", "0s", "30d")).start().await;
    pull(&tidegate, &old).await;
    pin(&tidegate, "app:1").await;
    let by_digest = format!("hub.test/library/app@{}", old.manifest.digest);
    pin(&tidegate, &by_digest).await;
    let new = upstream.make_image("library/app", "2", &[2000]);
    upstream.tag_manifest("library/app", "1", &new.manifest);
    assert_eq!(tidegate.manifest(&old.tag_path()).await.body, new.manifest.bytes);
    until("the pin to follow", async || {
        let pins = pins(&tidegate).await;
        pins.len() == 2 && pins[0]["digest"] == new.manifest.digest
    })
    .await;
    let pins = pins(&tidegate).await;
    assert_eq!((&pins[1]["image"], &pins[1]["digest"]), (&json!(by_digest), &json!(old.manifest.digest)));
}

#[tokio::test]
async fn a_purge_leaves_what_is_pinned() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[1000]);
    let other = upstream.make_image("library/app", "2", &[2000]);
    let tidegate = Tidegate::start(&upstream).await;
    pull(&tidegate, &image).await;
    pull(&tidegate, &other).await;
    pin(&tidegate, "app:1").await;
    for arguments in [&["--repository", "app", "--tag", "1"][..], &["--digest", &image.layers[0].digest]] {
        let told = cache_lines(&tidegate, &[&["purge"], arguments].concat()).await;
        assert_eq!(
            (&told[0]["pinned"], &told[0]["bytes"], &told[0]["tags"]),
            (&json!(1), &json!(0), &json!(0))
        );
    }
    let output = cache(&tidegate, &["purge", "--all"]).await;
    assert!(text(&output.stdout).starts_with("purged 1 tags, 1 manifests, 2 blobs: "), "{output:?}");
    assert!(text(&output.stdout).contains("3 items (") && text(&output.stdout).contains("they are pinned"));
    upstream.forget_requests();
    tidegate.pull(&image).await;
    assert_eq!(upstream.count(&everything()), 0);
    tidegate.pull(&other).await;
    assert!(upstream.count(&any(Kind::Manifest)) > 0);
    let listed = cache_lines(&tidegate, &["list", "--repository", "app"]).await;
    let pinned: Vec<_> = listed.iter().filter(|entry| entry["is_pinned"] == true).collect();
    assert_eq!(pinned.len(), 3, "{listed:?}");
    cache_lines(&tidegate, &["unpin", "app:1"]).await;
    let told = cache_lines(&tidegate, &["purge", "--all"]).await;
    assert_eq!((&told[0]["pinned"], &told[0]["manifests"]), (&json!(0), &json!(2)));
    assert!(!tidegate.stored_path(&image.manifest.digest).exists());
}

#[tokio::test]
async fn what_upstream_deletes_is_pinned_where_the_policy_says_so() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[1000]);
    let section = Section::hub(&upstream).clocks("0s", "0s", "30d").text("negative_for", "0s");
    let section = section.text("keep_deleted", "0s").raw_value("pin_deleted", "true");
    let mut tidegate = Setup::new().upstream(section).with_warnings().start().await;
    pull(&tidegate, &image).await;
    let gone = || status(404).body("{}").header("content-type", "application/json");
    upstream.rule(any(Kind::Manifest), gone());
    for _ in 0..2 {
        let answer = tidegate.manifest(&image.tag_path()).await;
        assert_eq!((answer.status, answer.cache_status()), (200, "tidegate; hit; detail=stale-deleted"));
        let pinned = pins(&tidegate).await;
        assert_eq!(pinned.len(), 1);
        assert_eq!((&pinned[0]["reason"], &pinned[0]["stored"]), (&json!("deleted"), &json!(3)));
        tidegate.restart().await;
    }
    upstream.heal();
    assert_eq!(tidegate.manifest(&image.tag_path()).await.header("warning"), None);
    until("the pin to be over", async || pins(&tidegate).await.is_empty()).await;
    upstream.rule(any(Kind::Manifest), gone());
    tidegate.manifest(&image.tag_path()).await;
    // Who unpins it lets it go.
    cache_lines(&tidegate, &["unpin", "hub.test/library/app:1"]).await;
    until("the tag to be gone", async || tidegate.manifest(&image.tag_path()).await.status == 404).await;
    assert_eq!(pins(&tidegate).await, [] as [Value; 0]);
}

#[tokio::test]
async fn an_order_to_pin_that_makes_no_sense_is_refused() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[1000]);
    let large = upstream.make_image("library/large", "1", &[2 * MIB]);
    let setup = Setup::new().upstream(Section::hub(&upstream)).max_size("1MiB").with_warnings();
    let tidegate = setup.start().await;
    for image in [&image, &large] {
        tidegate.manifest(&image.tag_path()).await;
    }
    for (name, status, reason) in [
        ("app:2", 404, "pull or warm it first"),
        ("app:*", 400, "name one"),
        ("app@sha256:1", 400, "digest"),
        ("no.test/app:1", 404, "no.test is not configured"),
        ("large:1", 409, "raise that, or unpin something"),
    ] {
        let answer = post(&tidegate, "/api/v1/cache/pins", &json!({ "image": name })).await;
        assert_eq!(answer.status, status, "{name}: {answer:?}");
        assert!(answer.json()["error"].as_str().unwrap().contains(reason), "{name}: {answer:?}");
    }
    let pinned = cache(&tidegate, &["pin", "app:1"]).await;
    assert!(text(&pinned.stdout).starts_with("pinned hub.test/library/app:1 (1 items here, "), "{pinned:?}");
    let listed = cache(&tidegate, &["list", "--pins"]).await;
    assert!(
        text(&listed.stdout).contains("  order  ") && text(&listed.stdout).contains("  1 of 3  "),
        "{listed:?}"
    );
    let unknown = cache(&tidegate, &["unpin", "app:2"]).await;
    assert_eq!(unknown.status.code(), Some(1));
    assert!(text(&unknown.stderr).contains("app:2 is not pinned"), "{unknown:?}");
    for path in ["/api/v1/cache/pins", "/api/v1/cache/pins?tag=1"] {
        assert_eq!(tidegate.admin().call(Method::DELETE, path).send().await.status, 400, "{path}");
    }
}

#[tokio::test]
async fn what_is_pinned_stays_also_where_the_budget_becomes_too_small_for_it() {
    let upstream = Upstream::start().await;
    let setup = Setup::new().upstream(Section::hub(&upstream)).max_size("20MiB").with_warnings();
    let mut tidegate = setup.start().await;
    let images = ["1", "2"].map(|tag| upstream.make_image("library/app", tag, &[4 * MIB]));
    for image in &images {
        pull(&tidegate, image).await;
        pin(&tidegate, &format!("app:{}", image.tag)).await;
    }
    tidegate.reconfigure(|setup| setup.without_storage().max_size("5MiB"));
    tidegate.signal(Signal::HUP);
    tidegate.wait_for_log("pinned content alone is over the budget").await;
    upstream.forget_requests();
    for image in &images {
        tidegate.pull(image).await;
    }
    assert_eq!(upstream.count(&everything()), 0);
}
