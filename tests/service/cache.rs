//! `/api/v1/cache` and `tidegate cache`: what is cached, and how it is purged.

use std::process::Output;

use http::Method;
use serde_json::{Value, json};

use crate::admin::{command, text};
use crate::client::Answer;
use crate::content::{Content, Image, OCI_INDEX, index_of};
use crate::harness::{Section, Setup, Tidegate, until};
use crate::upstream::{Kind, Upstream, any, blob, everything};

/// Runs `tidegate cache` against this server.
pub(crate) async fn cache(tidegate: &Tidegate, arguments: &[&str]) -> Output {
    let server = tidegate.admin_url();
    let variables = [("TIDEGATE_SERVER", server.as_str())];
    command(tidegate.directory(), &[&["cache"], arguments].concat(), &variables).await
}

/// The same, which has to succeed: the objects that it prints, one a line.
pub(crate) async fn cache_lines(tidegate: &Tidegate, arguments: &[&str]) -> Vec<Value> {
    let output = cache(tidegate, &[arguments, &["--output", "json"]].concat()).await;
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {output:?}");
    let values = serde_json::Deserializer::from_slice(&output.stdout).into_iter();
    values.collect::<Result<_, _>>().unwrap()
}

pub(crate) async fn post(tidegate: &Tidegate, path: &str, order: &Value) -> Answer {
    let call = tidegate.admin().call(Method::POST, path);
    call.header("content-type", "application/json").body(order.to_string()).send().await
}

async fn purge(tidegate: &Tidegate, order: Value) -> Value {
    let answer = post(tidegate, "/api/v1/cache/purge", &order).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// Pulls an image, and waits until all of it is listed.
pub(crate) async fn pull(tidegate: &Tidegate, image: &Image) {
    tidegate.pull(image).await;
    for content in image.layers.iter().chain([&image.config, &image.manifest]) {
        until("the content to be listed", async || {
            !entries(tidegate, &[("digest", &content.digest)]).await.is_empty()
        })
        .await;
    }
}

/// The entries that a query finds, in pages of two.
async fn entries(tidegate: &Tidegate, query: &[(&str, &str)]) -> Vec<Value> {
    let query: Vec<_> = query.iter().map(|(name, value)| format!("&{name}={value}")).collect();
    let (mut found, mut last) = (Vec::new(), String::new());
    loop {
        let path = format!("/api/v1/cache/entries?n=2{}{last}", query.concat());
        let page = tidegate.admin().get(&path).send().await;
        assert_eq!(page.status, 200, "{path}: {page:?}");
        let page = page.json();
        found.extend(page["entries"].as_array().unwrap().iter().cloned());
        let Some(next) = page["next"].as_str() else { return found };
        last = format!("&last={next}");
    }
}

fn numbers(report: &Value, keys: &[&str]) -> Vec<u64> {
    keys.iter().map(|key| report[key].as_u64().unwrap_or_else(|| panic!("{key} in {report}"))).collect()
}

fn is_stored(tidegate: &Tidegate, content: &Content) -> bool {
    tidegate.stored_path(&content.digest).exists()
}

/// Two images that share a layer, in two repositories.
async fn sharing() -> (Upstream, Image, Image, Tidegate) {
    let upstream = Upstream::start().await;
    let base = Content::blob(5, 50_000);
    let first = Image::of_layers("library/first", "1", vec![base.clone(), Content::blob(6, 7000)]);
    let second = Image::of_layers("team/second", "1", vec![base, Content::blob(7, 9000)]);
    upstream.add_image(&first);
    upstream.add_image(&second);
    let tidegate = Tidegate::start(&upstream).await;
    for image in [&first, &second] {
        pull(&tidegate, image).await;
    }
    (upstream, first, second, tidegate)
}

#[tokio::test]
async fn cache_stats_sums_each_content_once() {
    let (_upstream, first, second, tidegate) = sharing().await;
    let all = first.layers.iter().chain(&second.layers[1..]);
    let all = all.chain([&first.config, &first.manifest, &second.config, &second.manifest]);
    let distinct: std::collections::BTreeMap<_, _> =
        all.map(|content| (&content.digest, content.size())).collect();
    let bytes: u64 = distinct.values().sum();
    let blobs = distinct.len() as u64 - 2;
    let stats = tidegate.admin().get("/api/v1/cache/stats").send().await.json();
    let keys = ["tags", "manifests", "blobs", "bytes"];
    assert_eq!(numbers(&stats["total"], &keys), [2, 2, blobs, bytes]);
    assert_eq!(stats["upstreams"][0]["name"], "hub.test");
    assert_eq!(numbers(&stats["upstreams"][0], &keys), [2, 2, blobs, bytes]);
    assert_eq!(stats["budget_bytes"], 50_u64 << 30);
    assert!(stats["free_bytes"].as_u64().unwrap() > 0);
    assert_eq!(cache_lines(&tidegate, &["stats"]).await[0]["total"], stats["total"]);
    let shown = cache(&tidegate, &["stats"]).await;
    let shown = text(&shown.stdout);
    assert!(
        shown.starts_with("UPSTREAM  ") && shown.contains("\nbudget 50.0 GiB, free on the disk "),
        "{shown}"
    );
}

#[tokio::test]
async fn cache_list_finds_content_by_all_that_is_said() {
    let (_upstream, first, second, tidegate) = sharing().await;
    let found = entries(&tidegate, &[("repository", "first"), ("tag", "1")]).await;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0]["repository"], "hub.test/library/first");
    assert_eq!(found[0]["digest"], first.manifest.digest);
    assert_eq!((&found[0]["kind"], &found[0]["tags"]), (&json!("manifest"), &json!(["1"])));
    assert_eq!(found[0]["size_bytes"], first.manifest.size());
    let stored_at = found[0]["stored_at"].as_str().unwrap();
    assert!(stored_at.len() == 20 && stored_at.starts_with("20") && stored_at.ends_with('Z'), "{stored_at}");
    let shared = entries(&tidegate, &[("digest", &first.layers[0].digest)]).await;
    let places: Vec<_> = shared.iter().map(|entry| entry["repository"].as_str().unwrap()).collect();
    assert_eq!(places, ["hub.test/library/first", "hub.test/team/second"]);
    assert_eq!(
        entries(&tidegate, &[("min_size_bytes", "9000"), ("repository", "hub.test/team/second")]).await.len(),
        2
    );
    assert_eq!(entries(&tidegate, &[("unused_for_seconds", "3600")]).await, [] as [Value; 0]);
    assert_eq!(entries(&tidegate, &[("upstream", "hub.test"), ("kind", "manifest")]).await.len(), 2);
    for (query, status, reason) in [
        ("n=0", 400, "write a number from 1"),
        ("last=x", 400, "x ended no page"),
        ("digests=x", 400, "there are upstream"),
        ("upstream=no.test", 404, "no.test is not configured"),
        ("repository=no.test/a", 404, "no.test is not configured"),
        ("repository=A", 400, "grammar"),
    ] {
        let answer = tidegate.admin().get(&format!("/api/v1/cache/entries?{query}")).send().await;
        assert_eq!(answer.status, status, "{query}: {answer:?}");
        assert!(answer.json()["error"].as_str().unwrap().contains(reason), "{query}: {answer:?}");
    }
    let listed =
        cache_lines(&tidegate, &["list", "--repository", "hub.test/team/second", "--kind", "blob"]).await;
    assert_eq!(listed.len(), 3);
    let shown = cache(&tidegate, &["list", "--tag", "1"]).await;
    let lines: Vec<_> = text(&shown.stdout).lines().collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines[0].starts_with("REPOSITORY ") && lines[2].ends_with(&second.manifest.digest), "{lines:?}");
}

#[tokio::test]
async fn cache_list_tells_which_images_are_incomplete() {
    let (_upstream, first, second, tidegate) = sharing().await;
    assert_eq!(cache_lines(&tidegate, &["list", "--incomplete"]).await, [] as [Value; 0]);
    std::fs::remove_file(tidegate.stored_path(&second.layers[1].digest)).unwrap();
    let incomplete = cache_lines(&tidegate, &["list", "--incomplete"]).await;
    assert_eq!(incomplete.len(), 1);
    assert_eq!(incomplete[0]["missing"][0]["digest"], second.layers[1].digest);
    let complete = cache_lines(&tidegate, &["list", "--complete", "--upstream", "hub.test"]).await;
    assert_eq!(complete[0]["digest"], first.manifest.digest);
    let shown = cache(&tidegate, &["list", "--images"]).await;
    assert!(text(&shown.stdout).contains("1 part"), "{shown:?}");
    let wrong = cache(&tidegate, &["list", "--images", "--unused-for", "1d"]).await;
    assert_eq!(wrong.status.code(), Some(2));
    assert!(text(&wrong.stderr).contains("--unused-for is for content"), "{wrong:?}");
}

#[tokio::test]
async fn a_purge_is_exact_and_the_next_pull_asks_upstream() {
    let (upstream, first, second, tidegate) = sharing().await;
    let order = json!({ "repository": "hub.test/library/first", "tag": "1", "dry_run": true });
    let told = purge(&tidegate, order).await;
    let own = [&first.manifest, &first.config, &first.layers[1]];
    let own_bytes: u64 = own.iter().map(|content| content.size()).sum();
    // The configuration is of a few bytes and may be the same in both.
    let config_is_shared = first.config.digest == second.config.digest;
    assert!(!config_is_shared, "the images differ");
    let keys = ["entries", "tags", "manifests", "blobs", "bytes", "shared", "shared_bytes", "stuck"];
    let expected = [4, 1, 1, 2, own_bytes, 1, 50_000, 0];
    assert_eq!((numbers(&told, &keys), &told["dry_run"]), (expected.to_vec(), &json!(true)));
    upstream.forget_requests();
    tidegate.pull(&first).await;
    assert_eq!(upstream.count(&everything()), 0, "a dry run changes nothing");
    let output = cache(&tidegate, &["purge", "--repository", "first", "--tag", "1"]).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let shown = text(&output.stdout);
    assert!(shown.starts_with("purged 1 tags, 1 manifests, 2 blobs: "), "{shown}");
    assert!(shown.contains("1 items (48.8 KiB) stay on the disk"), "{shown}");
    for content in own {
        assert!(!is_stored(&tidegate, content), "{}", content.digest);
    }
    assert!(is_stored(&tidegate, &first.layers[0]), "the other repository has it, too");
    tidegate.pull(&second).await;
    assert_eq!(upstream.count(&everything()), 0, "who shares does not notice");
    // Nothing in memory answers: neither by tag nor by digest, and no right is left over.
    tidegate.fetch(&first.layer_path(0)).await;
    assert!(upstream.count(&blob(&first.layers[0])) >= 1, "the right to the shared layer has gone");
    assert_eq!(tidegate.manifest(&first.digest_path()).await.status, 200);
    tidegate.manifest(&first.tag_path()).await;
    assert!(upstream.count(&any(Kind::Manifest)) >= 2);
    tidegate.pull(&first).await;
    assert_eq!(upstream.count(&blob(&first.layers[1]).get()), 1);
    let metrics = tidegate.metrics().await;
    let counted = metrics.sum("tidegate_cache_evictions_total", &[("reason", "purge")]);
    assert!((counted - 3.0).abs() < 0.5, "{counted}");
}

#[tokio::test]
async fn a_purge_of_a_tag_leaves_what_other_tags_and_indexes_use() {
    let upstream = Upstream::start().await;
    let amd64 = upstream.make_image("library/app", "amd64", &[5000]);
    let arm64 = upstream.make_image("library/app", "arm64", &[6000]);
    let index = index_of(OCI_INDEX, &[&amd64, &arm64]);
    upstream.add_manifest("library/app", &index);
    upstream.tag_manifest("library/app", "1", &index);
    upstream.tag_manifest("library/app", "latest", &index);
    let tidegate = Tidegate::start(&upstream).await;
    for tag in ["1", "latest"] {
        tidegate.manifest(&format!("/v2/library/app/manifests/{tag}")).await;
    }
    // One platform has a tag of its own, the other is a part of the index alone.
    pull(&tidegate, &amd64).await;
    tidegate.manifest(&arm64.digest_path()).await;
    tidegate.fetch(&arm64.layer_path(0)).await;
    until("the layer to be listed", async || {
        !entries(&tidegate, &[("digest", &arm64.layers[0].digest)]).await.is_empty()
    })
    .await;
    // Of a platform that an index lists, only the tag goes.
    let told = purge(&tidegate, json!({ "repository": "app", "tag": "amd64" })).await;
    assert_eq!(numbers(&told, &["entries", "tags", "manifests", "blobs", "shared"]), [0, 1, 0, 0, 1]);
    upstream.forget_requests();
    tidegate.pull(&amd64).await;
    assert!(upstream.count(&everything()) > 0, "the tag is asked for anew");
    let told = purge(&tidegate, json!({ "repository": "app", "tag": "1" })).await;
    assert_eq!(numbers(&told, &["tags", "manifests", "blobs", "shared"]), [1, 0, 0, 1]);
    assert!(is_stored(&tidegate, &index));
    let told = purge(&tidegate, json!({ "repository": "app", "tag": "latest" })).await;
    assert_eq!(numbers(&told, &["tags", "manifests", "blobs"]), [1, 2, 1], "index, arm64 and its layer");
    assert!(!is_stored(&tidegate, &index) && !is_stored(&tidegate, &arm64.layers[0]));
    assert!(is_stored(&tidegate, &amd64.manifest) && is_stored(&tidegate, &amd64.layers[0]));
    upstream.forget_requests();
    tidegate.pull(&amd64).await;
    assert_eq!(upstream.count(&everything()), 0);
}

#[tokio::test]
async fn a_purge_by_size_takes_single_items_and_leaves_their_image() {
    let (upstream, first, second, tidegate) = sharing().await;
    let told = purge(&tidegate, json!({ "min_size_bytes": 50_000 })).await;
    assert_eq!(numbers(&told, &["entries", "manifests", "blobs", "bytes"]), [2, 0, 1, 50_000]);
    assert!(!is_stored(&tidegate, &first.layers[0]));
    upstream.forget_requests();
    for image in [&first, &second] {
        tidegate.pull(image).await;
    }
    assert_eq!(upstream.count(&blob(&first.layers[0]).get()), 1, "fetched anew, once");
    assert_eq!(upstream.count(&everything()), 1, "without a question for the right to it");
}

#[tokio::test]
async fn a_purge_of_everything_leaves_nothing_and_needs_to_be_said() {
    let (upstream, first, second, mut tidegate) = sharing().await;
    let tags = tidegate.fetch("/v2/library/first/tags/list").await;
    assert_eq!(tags.status, 200);
    for bad in [json!({}), json!({ "all": true, "tag": "1" }), json!({ "dry_run": true })] {
        assert_eq!(post(&tidegate, "/api/v1/cache/purge", &bad).await.status, 400, "{bad}");
    }
    for arguments in [&["purge"][..], &["purge", "--all", "--tag", "1"], &["purge", "--unused-for", "soon"]] {
        assert_eq!(cache(&tidegate, arguments).await.status.code(), Some(2), "{arguments:?}");
    }
    assert!(is_stored(&tidegate, &first.manifest));
    let told = cache_lines(&tidegate, &["purge", "--all"]).await;
    assert_eq!(numbers(&told[0], &["tags", "manifests", "shared", "stuck"]), [2, 2, 0, 0]);
    let stats = tidegate.admin().get("/api/v1/cache/stats").send().await.json();
    assert_eq!(numbers(&stats["total"], &["tags", "manifests", "blobs", "bytes"]), [0; 4]);
    for content in first.layers.iter().chain([&first.config, &first.manifest, &second.manifest]) {
        assert!(!is_stored(&tidegate, content));
    }
    tidegate.restart().await;
    upstream.stop().await;
    tidegate.reconfigure(Setup::with_warnings);
    for path in [first.tag_path(), second.digest_path(), "/v2/library/first/tags/list".to_owned()] {
        assert_eq!(tidegate.manifest(&path).await.status, 504, "{path}");
    }
}

#[tokio::test]
async fn a_purge_of_one_upstream_leaves_the_others() {
    let (near, far) = (Upstream::start().await, Upstream::start().await);
    let image = near.make_image("team/app", "1", &[1000]);
    far.add_image(&image);
    let setup = Setup::new().upstream(Section::hub(&far)).upstream(Section::new("near.test", &near));
    let tidegate = setup.start().await;
    pull(&tidegate, &image).await;
    let there = "/v2/near.test/team/app/manifests/1";
    assert_eq!(tidegate.manifest(there).await.status, 200);
    for content in image.layers.iter().chain([&image.config]) {
        tidegate.fetch(&format!("/v2/near.test/team/app/blobs/{}", content.digest)).await;
    }
    let told = purge(&tidegate, json!({ "upstream": "hub.test" })).await;
    assert_eq!(numbers(&told, &["tags", "manifests", "blobs", "shared"]), [1, 0, 0, 3]);
    let (asked_near, asked_far) = (near.count(&everything()), far.count(&everything()));
    assert_eq!(tidegate.manifest(there).await.body, image.manifest.bytes);
    assert_eq!(near.count(&everything()), asked_near);
    tidegate.pull(&image).await;
    assert!(far.count(&everything()) > asked_far);
}
