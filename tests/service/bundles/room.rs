//! Room for bundles: what goes for them, what does not, and what they are refused for.

use serde_json::{Value, json};

use super::{Sites, assert_done, assert_refused, text};
use crate::content::{Content, Image};
use crate::disk::SmallDisk;
use crate::harness::Tidegate;

const KIB: usize = 1024;

/// What the log says of content that is not what its name says.
const ALTERED: &str = "stored content that a bundle relies on was altered";

/// Imports, and gives the report.
async fn import(sites: &Sites, bundle: &str) -> Value {
    let imported = sites.import(&["--output", "json", bundle]).await;
    assert_done(&imported);
    serde_json::from_slice(&imported.stdout).unwrap()
}

/// Whether all of an image can be pulled from a node, and not a part of it.
async fn is_served(node: &Tidegate, image: &Image) -> bool {
    let mut statuses = vec![node.manifest(&image.tag_path()).await.status];
    for blob in image.layers.iter().chain([&image.config]) {
        statuses.push(node.fetch(&image.blob_path(blob)).await.status);
    }
    statuses.iter().all(|status| *status == 200)
}

#[tokio::test]
async fn import_makes_room_by_eviction_and_says_so() {
    let sites = Sites::start_with(|far| far.max_size("1MiB")).await;
    let [old, used, new] = [("old", 1), ("used", 2), ("new", 3)].map(|(tag, seed)| {
        let image = Image::of_layers("library/app", tag, vec![Content::blob(seed, 400 * KIB)]);
        sites.upstream.add_image(&image);
        image
    });
    for tag in ["old", "used", "new"] {
        sites.export_all(&format!("{tag}.tar"), &[&format!("app:{tag}")]).await;
    }
    assert_eq!(import(&sites, "old.tar").await["evicted_items"], 0);
    assert_eq!(import(&sites, "used.tar").await["evicted_items"], 0);
    let report = import(&sites, "new.tar").await;
    assert!(report["evicted_bytes"].as_u64().unwrap() >= 400 * KIB as u64, "{report}");
    assert!(!is_served(&sites.far, &old).await, "the least used went");
    sites.far.pull(&used).await;
    sites.far.pull(&new).await;
    let metrics = sites.far.metrics().await;
    let evicted = metrics.sum("tidegate_cache_evictions_total", &[("reason", "import")]);
    assert!((evicted - report["evicted_items"].as_f64().unwrap()).abs() < 0.1, "{evicted}");
    assert!(metrics.sum("tidegate_cache_bytes", &[]) <= 1_048_576.0);
    let again = sites.import(&["old.tar"]).await;
    assert_done(&again);
    assert!(text(&again.stdout).contains(" bytes), to make room"), "{again:?}");
    sites.far.pull(&old).await;
}

#[tokio::test]
async fn import_evicts_neither_pins_nor_what_it_relies_on() {
    let sites = Sites::start_with(|far| far.max_size("1MiB")).await;
    let base = Content::blob(1, 400 * KIB);
    let first = Image::of_layers("library/app", "1", vec![base.clone()]);
    let second = Image::of_layers("library/app", "2", vec![base, Content::blob(2, 500 * KIB)]);
    let other = Image::of_layers("library/other", "1", vec![Content::blob(3, 400 * KIB)]);
    for image in [&first, &second, &other] {
        sites.upstream.add_image(image);
    }
    sites.export_all("first.tar", &["app:1"]).await;
    sites.export_all("other.tar", &["other:1"]).await;
    sites.export_all("second.tar", &["app:2", "--since", "first.tar"]).await;
    import(&sites, "first.tar").await;
    import(&sites, "other.tar").await;
    let pins = sites.far.admin().call(http::Method::POST, "/api/v1/cache/pins");
    let pin = json!({ "image": "other:1" }).to_string();
    assert_eq!(pins.header("content-type", "application/json").body(pin).send().await.status, 200);
    // Neither the base, which is least used, may go for the delta, nor what is pinned.
    let refused = sites.import(&["second.tar"]).await;
    assert_refused(&refused, "of which 41");
    assert_refused(&refused, "are pinned otherwise: raise it, unpin something, or split the bundle");
    assert!(is_served(&sites.far, &first).await && is_served(&sites.far, &other).await);
    assert_eq!(sites.far.manifest(&second.tag_path()).await.status, 504);
    let unpin = "/api/v1/cache/pins?image=other:1";
    assert_eq!(sites.far.admin().call(http::Method::DELETE, unpin).send().await.status, 200);
    assert_ne!(import(&sites, "second.tar").await["evicted_items"], 0);
    assert!(!is_served(&sites.far, &other).await);
    sites.far.pull(&second).await;
}

#[tokio::test]
async fn import_that_is_refused_at_its_end_has_evicted_nothing() {
    let sites = Sites::start_with(|far| far.max_size("1MiB")).await;
    let [one, two] = [("1", 1), ("2", 2)].map(|(tag, seed)| {
        let image = Image::of_layers("library/app", tag, vec![Content::blob(seed, 700 * KIB)]);
        sites.upstream.add_image(&image);
        image
    });
    sites.export_all("one.tar", &["app:1"]).await;
    sites.export_all("two.tar", &["app:2"]).await;
    import(&sites, "one.tar").await;
    let mut bytes = std::fs::read(sites.path("two.tar")).unwrap();
    let last = bytes.len() - 1;
    bytes[last] = 1;
    std::fs::write(sites.path("bad.tar"), bytes).unwrap();
    assert_refused(&sites.import(&["bad.tar"]).await, "is not imported");
    sites.far.pull(&one).await;
    assert_ne!(import(&sites, "two.tar").await["evicted_items"], 0);
    sites.far.pull(&two).await;
}

#[tokio::test]
async fn import_heals_what_was_altered_at_rest() {
    let mut sites = Sites::start_with(|far| far.with_log(ALTERED)).await;
    let image = sites.upstream.make_image("library/app", "1", &[200 * KIB, 100 * KIB]);
    sites.export_all("one.tar", &["app:1"]).await;
    import(&sites, "one.tar").await;
    let stored = sites.far.stored_path(&image.layers[0].digest);
    alter(&stored);
    sites.far.restart().await;
    let report = import(&sites, "one.tar").await;
    assert_eq!(report["new_items"], 1, "{report}");
    assert_eq!(std::fs::read(&stored).unwrap(), image.layers[0].bytes);
    sites.far.pull(&image).await;
    let metrics = sites.far.metrics().await;
    assert!(metrics.sum("tidegate_integrity_failures_total", &[("where", "store")]) >= 1.0);
    assert_eq!(import(&sites, "one.tar").await["new_items"], 0, "nothing is altered any more");
}

#[tokio::test]
async fn delta_is_refused_where_its_base_was_altered_at_rest_and_names_what() {
    let mut sites = Sites::start_with(|far| far.with_log(ALTERED)).await;
    let layer = Content::blob(1, 300 * KIB);
    let first = Image::of_layers("library/app", "1", vec![layer.clone()]);
    let second = Image::of_layers("library/app", "2", vec![layer.clone(), Content::blob(2, 1000)]);
    for image in [&first, &second] {
        sites.upstream.add_image(image);
    }
    sites.export_all("first.tar", &["app:1"]).await;
    sites.export_all("second.tar", &["app:2", "--since", "first.tar"]).await;
    import(&sites, "first.tar").await;
    alter(&sites.far.stored_path(&layer.digest));
    sites.far.restart().await;
    let altered = format!("of which {} was altered on this node's disk", layer.digest);
    assert_refused(&sites.import(&["second.tar"]).await, &altered);
    assert_eq!(sites.far.manifest(&second.tag_path()).await.status, 504);
    // It is removed, and so is missing from now on.
    let missing = format!("of which 1 parts are not here, such as {}", layer.digest);
    assert_refused(&sites.import(&["second.tar"]).await, &missing);
    assert_eq!(import(&sites, "first.tar").await["new_items"], 1);
    import(&sites, "second.tar").await;
    sites.far.pull(&first).await;
    sites.far.pull(&second).await;
}

/// Changes a byte in the middle of a file.
fn alter(path: &std::path::Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn import_makes_room_on_a_disk_that_is_smaller_than_the_budget() {
    let Some(disk) = SmallDisk::mount("16m") else { return };
    let sites = Sites::start_with(|far| far.data(disk.path()).storage("min_free = \"1MiB\"")).await;
    let [one, two] = [("1", 1), ("2", 2)].map(|(tag, seed)| {
        let image = Image::of_layers("library/app", tag, vec![Content::blob(seed, 9 * KIB * KIB)]);
        sites.upstream.add_image(&image);
        image
    });
    let large = sites.upstream.make_image("library/large", "1", &[17 * KIB * KIB]);
    for (file, image) in [("one.tar", "app:1"), ("two.tar", "app:2"), ("large.tar", "large:1")] {
        sites.export_all(file, &[image]).await;
    }
    assert_eq!(import(&sites, "one.tar").await["evicted_items"], 0);
    let refused = sites.import(&["large.tar"]).await;
    assert_refused(&refused, "are to stay so (storage.min_free), and 943");
    sites.far.pull(&one).await;
    assert_ne!(import(&sites, "two.tar").await["evicted_items"], 0);
    assert!(!is_served(&sites.far, &one).await);
    assert_eq!(sites.far.manifest(&large.tag_path()).await.status, 504);
    sites.far.pull(&two).await;
}
