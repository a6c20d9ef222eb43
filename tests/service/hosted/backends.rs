//! Where hosted content is kept: a database that nodes share, an object store, and what happens while they are away.

use std::net::SocketAddr;

use serde_json::json;

use super::registry::Hosted;
use crate::content::Image;
use crate::harness::{ObjectStore, Postgres, Section, Setup, Tidegate, until};
use crate::upstream::{Upstream, everything};

/// What a configuration says of a database.
fn metadata(database: &Postgres) -> String {
    format!("[metadata]\nurl = \"{}\"\n", database.url())
}

fn image() -> Image {
    Image::oci("acme/app", "1", &[300_000, 20])
}

/// Where a redirect leads, on the store's own address.
fn path_at(store: SocketAddr, location: &str) -> &str {
    location.strip_prefix(&format!("http://{store}")).unwrap_or_else(|| panic!("elsewhere: {location}"))
}

#[tokio::test]
async fn what_is_pushed_lies_in_the_database_and_in_the_object_store_and_is_cached_when_it_was_read() {
    let (Some(database), Some(mut store)) = (Postgres::start(), ObjectStore::start().await) else { return };
    let mut hosted =
        Hosted::start_with(|setup| setup.storage(&store.line("")).with_warnings().more(&metadata(&database)))
            .await;
    let (image, administrator) = (image(), hosted.administrator());
    administrator.push_image(&image).await;
    hosted.anonymous().pull_image(&image).await;
    let keys = store.keys().await;
    for blob in image.layers.iter().chain([&image.config]) {
        let hexadecimal = blob.digest.split_once(':').unwrap().1;
        assert!(keys.iter().any(|key| key.starts_with("hosted/") && key.ends_with(hexadecimal)), "{keys:?}");
        assert_eq!(hosted.files_of(&blob.digest), Vec::<std::path::PathBuf>::new());
    }
    hosted.tidegate.restart().await;
    let answer = hosted.anonymous().get(&image.layer_path(0)).send().await;
    assert_eq!(answer.header("cache-status"), Some("tidegate; hit"));
    assert!(!hosted.tidegate.data().join("catalogue.sqlite3").exists());
    store.stop();
    hosted.anonymous().pull_image(&image).await;
    let secret = hosted.tidegate.log_lines("hidden-from-all");
    assert_eq!(secret, Vec::<String>::new());
}

#[tokio::test]
async fn clients_are_sent_to_the_store_where_that_is_configured_and_only_where_they_may_pull() {
    let Some(store) = ObjectStore::start().await else { return };
    let hosted = Hosted::start_with(|setup| setup.storage(&store.line(", redirect = true"))).await;
    let image = Image::oci("secret/app", "1", &[300_000]);
    let administrator = hosted.administrator();
    administrator.push_image(&image).await;
    let path = image.layer_path(0);
    let answer = administrator.get(&path).send().await;
    assert_eq!(answer.status, 307, "{answer:?}");
    let location = answer.header("location").unwrap().to_owned();
    let content = store.get(path_at(store.address(), &location)).await;
    assert_eq!(content.status, 200);
    assert!(content.body == image.layers[0].bytes);
    let head = administrator.head(&path).send().await;
    assert_eq!((head.status, head.header("location")), (200, None), "what can be told here is told here");
    let refused = hosted.anonymous().get(&path).send().await;
    assert_eq!((refused.status, refused.header("location")), (401, None));
}

#[tokio::test]
async fn a_node_starts_and_serves_its_cache_without_the_database_and_finds_it_again() {
    let Some(mut database) = Postgres::start() else { return };
    let mut hosted = Hosted::start_with(|setup| {
        setup
            .with_warnings()
            .with_log("accounts cannot be read")
            .with_log("catalogue")
            .more(&metadata(&database))
    })
    .await;
    let hosted_image = image();
    hosted.administrator().push_image(&hosted_image).await;
    let cached = Image::oci("team/cached", "1", &[1000]);
    hosted.upstream.add_image(&cached);
    hosted.tidegate.pull(&cached).await;
    database.stop();
    hosted.tidegate.restart().await;
    hosted.tidegate.pull(&cached).await;
    // Its clients begin with this, and nobody could log in.
    assert_eq!(hosted.tidegate.fetch("/v2/").await.status, 200);
    let health = hosted.tidegate.admin().get("/health/ready").send().await;
    assert_eq!((health.status, &health.json()["checks"]["catalogue"]["status"]), (200, &json!("degraded")));
    // The namespace is known from before: the name goes to no upstream.
    let before = hosted.upstream.count(&everything());
    let answer = hosted.administrator().manifest("acme/app", "1").await;
    assert_eq!(answer.status, 503, "{answer:?}");
    assert_eq!(hosted.upstream.count(&everything()), before);
    database.start_again();
    until("the image", async || hosted.administrator().manifest("acme/app", "1").await.status == 200).await;
    hosted.anonymous().pull_image(&hosted_image).await;
    until("a login", async || hosted.tidegate.fetch("/v2/").await.status == 401).await;
}

#[tokio::test]
async fn a_node_that_never_reached_its_database_sends_no_name_to_an_upstream_by_guess() {
    let upstream = Upstream::start().await;
    let image = Image::oci("acme/app", "1", &[1000]);
    upstream.add_image(&image);
    let nowhere = "[metadata]\nurl = \"postgres://tidegate@127.0.0.1:1/none\"\n";
    let setup = Setup::new().upstream(Section::hub(&upstream)).with_warnings().more(nowhere);
    let tidegate: Tidegate = setup.start().await;
    let answer = tidegate.manifest(&image.tag_path()).await;
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(String::from_utf8_lossy(&answer.body).contains("catalogue"), "{answer:?}");
    assert_eq!(upstream.count(&everything()), 0);
    let named = tidegate.manifest("/v2/hub.test/acme/app/manifests/1").await;
    assert_eq!(named.status, 200, "{named:?}");
}

#[tokio::test]
async fn two_nodes_over_one_database_and_one_store_are_one_registry() {
    let (Some(database), Some(store)) = (Postgres::start(), ObjectStore::start().await) else { return };
    let configured = |setup: Setup| setup.storage(&store.line("")).with_warnings().more(&metadata(&database));
    let first = Hosted::start_with(configured).await;
    let second = configured(Setup::new().upstream(Section::hub(&first.upstream))).start().await;
    assert!(!second.data().join("initial-administrator-password").exists(), "there is one first account");
    let second =
        Hosted { tidegate: second, upstream: Upstream::start().await, password: first.password.clone() };
    let image = image();
    first.administrator().push_image(&image).await;
    second.anonymous().pull_image(&image).await;
    second.create_namespace(&json!({ "name": "later", "anonymous_pull": true })).await;
    let later = Image::oci("later/app", "1", &[1000]);
    second.administrator().push_image(&later).await;
    until("the namespace", async || first.anonymous().manifest("later/app", "1").await.status == 200).await;
    first.anonymous().pull_image(&later).await;
    let deleted = first.administrator().delete("/v2/acme/app/manifests/1").send().await;
    assert_eq!(deleted.status, 202, "{deleted:?}");
    assert_eq!(second.anonymous().manifest("acme/app", "1").await.status, 404);
}

#[tokio::test]
async fn a_push_fails_while_the_store_is_away_and_nothing_is_acknowledged() {
    let Some(mut store) = ObjectStore::start().await else { return };
    let hosted = Hosted::start_with(|setup| {
        setup
            .storage(&store.line(""))
            .with_warnings()
            .with_log("object store")
            .with_log("store of hosted content")
    })
    .await;
    let (image, administrator) = (image(), hosted.administrator());
    let location = administrator.start_upload("acme/app").await;
    store.stop();
    let layer = &image.layers[0];
    let answer = administrator.close_upload(&location, &layer.digest, &layer.bytes).await;
    assert_eq!(answer.status, 503, "{answer:?}");
    let head = administrator.head(&image.blob_path(layer)).send().await;
    assert_eq!(head.status, 404);
    let refused = administrator.put_manifest("acme/app", "1", &image.manifest).await;
    assert_eq!(refused.status, 400, "{refused:?}");
}
