//! What the scrub finds in the background: everything.

use rustix::process::Signal;

use super::{Item, Node, Spoil, count, damaged};
use crate::harness::until;
use crate::upstream::everything;

/// Everything is due at once.
const ALWAYS: &str = "scrub_every = \"1ms\"";

#[tokio::test]
async fn the_scrub_notices_all_damage_and_heals_it_by_one_transfer() {
    let mut node = Node::start(|setup| setup.storage(ALWAYS)).await;
    for item in Item::ALL {
        for spoil in [Spoil::Remove, Spoil::Cut, Spoil::Lengthen, Spoil::Flip, Spoil::Swap, Spoil::Block] {
            let what = format!("{spoil:?} {item:?}");
            node.spoil_cold(item, spoil).await;
            until("the scrub to have it healed", async || {
                let metrics = node.tidegate.metrics().await;
                count(&metrics, "tidegate_content_heals_total", &[("outcome", "upstream")]) == 1
            })
            .await;
            node.check_healed(item, &what).await;
            node.check_counted(item, spoil.cause(), "scrub", &what).await;
        }
    }
}

#[tokio::test]
async fn the_scrub_runs_only_when_it_is_to_and_a_reload_says_so() {
    let mut node = Node::start(|setup| setup.storage("scrub_every = \"0s\"")).await;
    let path = node.tidegate.stored_path(&node.image.layers[1].digest);
    Spoil::Flip.apply(&path);
    node.tidegate.reconfigure(|setup| setup.storage("scrub_rate = \"1GiB\""));
    node.tidegate.signal(Signal::HUP);
    node.tidegate.wait_for_log("configuration was reloaded").await;
    let metrics = node.tidegate.metrics().await;
    assert_eq!(count(&metrics, "tidegate_content_verified_bytes_total", &[("by", "scrub")]), 0);
    assert_eq!(damaged(&metrics, &[]), 0);
    node.tidegate.reconfigure(|setup| setup.without_storage().storage(ALWAYS));
    node.tidegate.signal(Signal::HUP);
    node.until_healed(Item::Big).await;
    let metrics = node.tidegate.metrics().await;
    assert_eq!(damaged(&metrics, &[("cause", "altered"), ("found_by", "scrub")]), 1);
}

#[tokio::test]
async fn the_scrub_leaves_the_answers_that_run_alone_and_serves_no_damage_after_them() {
    let mut node = Node::start(|setup| setup.storage("scrub_every = \"0s\"")).await;
    let mut reading = node.tidegate.get(&node.image.layer_path(1)).open().await;
    let beginning = reading.read_at_least(1).await;
    // Behind what was sent: the rest of this answer is right, and is sent from the file that was removed.
    let path = node.tidegate.stored_path(&node.image.layers[1].digest);
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"!", 0).unwrap();
    node.tidegate.reconfigure(|setup| setup.without_storage().storage(ALWAYS));
    node.tidegate.signal(Signal::HUP);
    node.until_healed(Item::Big).await;
    assert!(reading.equals(&node.image.layers[1].bytes[beginning.len()..]).await);
    node.upstream.forget_requests();
    node.tidegate.pull(&node.image).await;
    assert_eq!(node.upstream.count(&everything()), 0);
}
