//! A damaged index is set aside and built anew, at the start and while it is used.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use serde_json::json;

use super::{Node, count};
use crate::cache::{cache, cache_lines};
use crate::disk_faults::shim::Shim;
use crate::harness::{Setup, Tidegate, until};
use crate::upstream::everything;

type Damage = fn(&Path);

fn garbage(path: &Path, from: u64) {
    let length = path.metadata().unwrap().len();
    let file = File::options().write(true).open(path).unwrap();
    file.write_all_at(&vec![0xa5; usize::try_from(length - from).unwrap()], from).unwrap();
}

fn set_aside(tidegate: &Tidegate) -> Vec<String> {
    let entries = fs::read_dir(tidegate.data()).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names
        .filter(|name| name.contains(".damaged-") && !name.ends_with("-wal") && !name.ends_with("-shm"))
        .collect()
}

async fn until_replaced(node: &Node, what: &str) {
    until(what, async || {
        // Any question that the index answers may meet the damage.
        let _ = node.tidegate.admin().get("/api/v1/cache/entries").send().await;
        count(&node.tidegate.metrics().await, "tidegate_index_replaced_total", &[]) == 1
    })
    .await;
}

/// A node whose index is in its file, and not in its log: that is so after a proper end.
async fn folded() -> Node {
    let mut node = Node::start(|setup| setup.with_log("index").with_log("administrator")).await;
    node.stop().await;
    node.tidegate.start_again().await;
    node
}

#[tokio::test]
async fn an_index_that_is_damaged_while_it_is_used_is_replaced_without_anybody_noticing() {
    let damages: [(&str, Damage); 4] = [
        ("garbage", |path| garbage(path, 0)),
        ("garbage below the first page", |path| garbage(path, 4096)),
        ("cut off", |path| File::options().write(true).open(path).unwrap().set_len(8192).unwrap()),
        ("removed", |path| fs::remove_file(path).unwrap()),
    ];
    for (damage, spoil) in damages {
        let mut node = folded().await;
        node.tidegate.pull(&node.image).await;
        let pinned = cache(&node.tidegate, &["pin", "app:1"]).await;
        assert_eq!(pinned.status.code(), Some(0), "{damage}: {pinned:?}");
        node.upstream.forget_requests();
        spoil(&node.tidegate.data().join("index.sqlite3"));
        // Whoever meets the damage first has it looked after; who verifies waits for that.
        let end = cache_lines(&node.tidegate, &["verify"]).await.pop().unwrap();
        assert_eq!((&end["items"], &end["damaged"]), (&json!(4), &json!(0)), "{damage}");
        let metrics = node.tidegate.metrics().await;
        assert_eq!(count(&metrics, "tidegate_index_replaced_total", &[]), 1, "{damage}");
        assert_eq!(set_aside(&node.tidegate).len(), usize::from(damage != "removed"), "{damage}");
        assert_eq!(node.tidegate.admin().get("/health/ready").send().await.status, 200, "{damage}");
        node.tidegate.pull(&node.image).await;
        // Rights and tags that were in memory are in the new index: nothing is asked after a restart, either.
        node.tidegate.restart().await;
        node.tidegate.pull(&node.image).await;
        assert_eq!(node.upstream.count(&everything()), 0, "{damage}");
        assert_eq!(
            cache_lines(&node.tidegate, &["verify"]).await.pop().unwrap()["index"],
            "sound",
            "{damage}"
        );
    }
}

#[tokio::test]
async fn damage_that_a_question_meets_is_looked_after_without_being_told() {
    let node = folded().await;
    garbage(&node.tidegate.data().join("index.sqlite3"), 4096);
    until_replaced(&node, "the index to be replaced").await;
    node.tidegate.pull(&node.image).await;
    assert_eq!(set_aside(&node.tidegate).len(), 1);
}

#[tokio::test]
async fn pins_outlive_an_index_whose_damage_leaves_them_readable() {
    let node = folded().await;
    let pinned = cache(&node.tidegate, &["pin", "app:1"]).await;
    assert_eq!(pinned.status.code(), Some(0), "{pinned:?}");
    // The file is gone; who has it open can still read it.
    fs::remove_file(node.tidegate.data().join("index.sqlite3")).unwrap();
    cache_lines(&node.tidegate, &["verify"]).await;
    let metrics = node.tidegate.metrics().await;
    assert_eq!(count(&metrics, "tidegate_index_replaced_total", &[]), 1);
    let pins = cache_lines(&node.tidegate, &["list", "--pins"]).await;
    assert_eq!((pins.len(), &pins[0]["image"]), (1, &json!("hub.test/library/app:1")));
    assert_eq!((&pins[0]["items"], &pins[0]["stored"]), (&json!(4), &json!(4)));
}

#[tokio::test]
async fn pins_outlive_an_index_that_cannot_be_replaced_at_the_first_try() {
    let shim = Shim::new();
    let expecting = |setup: Setup| setup.with_log("index").with_log("administrator");
    let node = Node::start(|setup| shim.under(expecting(setup))).await;
    let pinned = cache(&node.tidegate, &["pin", "app:1"]).await;
    assert_eq!(pinned.status.code(), Some(0), "{pinned:?}");
    let replaced = async || count(&node.tidegate.metrics().await, "tidegate_index_replaced_total", &[]);
    fs::remove_file(node.tidegate.data().join("index.sqlite3")).unwrap();
    shim.fail(&["rename index.sqlite3 5 0"]);
    let failed = cache(&node.tidegate, &["verify"]).await;
    assert_eq!(replaced().await, 0, "{failed:?}");
    shim.heal();
    until("the index to be replaced", async || {
        cache(&node.tidegate, &["verify"]).await;
        replaced().await == 1
    })
    .await;
    let pins = cache_lines(&node.tidegate, &["list", "--pins"]).await;
    assert_eq!((pins.len(), &pins[0]["image"]), (1, &json!("hub.test/library/app:1")));
}

#[tokio::test]
async fn an_index_that_was_damaged_while_nobody_used_it_is_replaced_at_the_start() {
    let damages: [(&str, Damage); 4] = [
        ("garbage", |path| garbage(path, 0)),
        ("no database", |path| fs::write(path, "this is no database, whatever its name says").unwrap()),
        ("cut off", |path| File::options().write(true).open(path).unwrap().set_len(5000).unwrap()),
        ("one page", |path| {
            let length = path.metadata().unwrap().len();
            garbage(path, (length / 4096 - 1) * 4096);
        }),
    ];
    let mut node = folded().await;
    for (damage, spoil) in damages {
        node.stop().await;
        spoil(&node.tidegate.data().join("index.sqlite3"));
        node.tidegate.start_again().await;
        until_replaced(&node, damage).await;
        node.tidegate.pull(&node.image).await;
        until("all to be listed", async || {
            let stats = node.tidegate.admin().get("/api/v1/cache/stats").send().await.json();
            stats["total"]["bytes"].as_u64().unwrap() > 3_000_000
        })
        .await;
    }
    assert_eq!(set_aside(&node.tidegate).len(), 3, "of four");
}

#[tokio::test]
async fn a_damaged_log_costs_what_was_in_it_and_no_more() {
    let mut node = folded().await;
    let later = node.upstream.make_image("library/later", "1", &[2000]);
    crate::cache::pull(&node.tidegate, &later).await;
    node.tidegate.kill().await;
    garbage(&node.tidegate.data().join("index.sqlite3-wal"), 32);
    node.tidegate.start_again().await;
    node.upstream.forget_requests();
    node.tidegate.pull(&node.image).await;
    assert_eq!(node.upstream.count(&everything()), 0, "what was in the file is known");
    node.tidegate.pull(&later).await;
}
