//! What pulls notice: everything but what was altered in a large file and kept its size.

use super::{Item, Node, Spoil};
use crate::harness::until;
use crate::upstream::everything;

#[tokio::test]
async fn a_pull_notices_damage_and_heals_it_by_one_transfer() {
    let mut node = Node::start(|setup| setup).await;
    for item in Item::ALL {
        for spoil in [Spoil::Remove, Spoil::Cut, Spoil::Lengthen, Spoil::Flip, Spoil::Swap] {
            if item == Item::Big && matches!(spoil, Spoil::Flip | Spoil::Swap) {
                continue;
            }
            let what = format!("{spoil:?} {item:?}");
            node.spoil_cold(item, spoil).await;
            node.tidegate.pull(&node.image).await;
            node.check_healed(item, &what).await;
            node.check_counted(item, spoil.cause(), "pull", &what).await;
        }
    }
}

#[tokio::test]
async fn a_pull_goes_around_a_file_that_cannot_be_opened_and_replaces_it() {
    let mut node = Node::start(|setup| setup).await;
    for item in Item::ALL {
        node.spoil_cold(item, Spoil::Block).await;
        node.tidegate.pull(&node.image).await;
        node.check_healed(item, &format!("{item:?}")).await;
    }
}

#[tokio::test]
async fn head_promises_no_size_that_a_damaged_file_has() {
    let mut node = Node::start(|setup| setup).await;
    node.spoil_cold(Item::Big, Spoil::Cut).await;
    let head = node.tidegate.head(&node.image.layer_path(1)).send().await;
    assert_eq!(head.header("content-length"), Some(node.image.layers[1].size().to_string().as_str()));
}

#[tokio::test]
async fn what_is_in_memory_is_served_whatever_its_file_is() {
    let node = Node::start(|setup| setup).await;
    // The first pull from the disk brings it there.
    node.tidegate.pull(&node.image).await;
    for item in [Item::Manifest, Item::Small] {
        Spoil::Flip.apply(&node.tidegate.stored_path(&item.of(&node.image).digest));
    }
    node.tidegate.pull(&node.image).await;
    assert_eq!(node.upstream.count(&everything()), 0);
}

#[tokio::test]
async fn a_truncated_blob_is_noticed_although_the_index_was_lost_with_its_size() {
    let mut node = Node::start(|setup| setup).await;
    node.stop().await;
    Spoil::Cut.apply(&node.tidegate.stored_path(&node.image.layers[1].digest));
    for end in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(node.tidegate.data().join(format!("index.sqlite3{end}")));
    }
    node.tidegate.start_again().await;
    until("the index to be rebuilt", async || {
        node.tidegate.metrics().await.sum("tidegate_cache_bytes", &[]) > 3_000_000.0
    })
    .await;
    // The manifest says how large it is, the new index only what it found.
    node.tidegate.pull(&node.image).await;
    node.until_healed(Item::Big).await;
    let transfers = node.upstream.count(&Item::Big.transfers(&node.image));
    node.tidegate.pull(&node.image).await;
    assert_eq!(node.upstream.count(&Item::Big.transfers(&node.image)), transfers, "it is kept again");
}
