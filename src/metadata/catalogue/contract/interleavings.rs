//! Every order of the steps of those who need content and of the collector, one after the other and side by side.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use super::{at, blob, digest, hosted, keep_for, push, push_image, stamp, tag};
use crate::metadata::catalogue::{Catalogue, CatalogueError, Horizon, Result, StrayBlob};
use crate::oci::{Digest, RepositoryName};
use crate::runtime::Tasks;

type Subject = Arc<dyn Catalogue>;

/// A store that takes nothing that it has already.
type Store = Mutex<HashSet<Digest>>;

/// What is there of a blob when both begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    /// Nothing.
    Absent,
    /// Bytes that nobody knows.
    Stray,
    /// A blob without links.
    Unlinked,
}

/// One push and one collection of the same blob.
struct Race<'a> {
    catalogue: &'a Subject,
    store: &'a Store,
    repository: &'a RepositoryName,
    text: &'a str,
    /// Since when announcements count.
    grace_since: u64,
    is_condemned: bool,
    is_refused: bool,
}

impl Race<'_> {
    /// The steps of a push, which ends when it is refused.
    async fn push(&mut self, step: usize) {
        let blob = blob(self.text);
        let done = match step {
            _ if self.is_refused => return,
            0 => self.catalogue.announce_blob(&blob.digest, at(500)).await,
            1 => {
                self.store.lock().unwrap().insert(blob.digest);
                Ok(())
            }
            _ => self.catalogue.record_blob(self.repository, &blob, None, &stamp(500)).await,
        };
        if let Err(error) = done {
            assert!(matches!(error, CatalogueError::BlobLeaving(_)) && error.is_transient(), "{error:?}");
            self.is_refused = true;
        }
    }

    /// The steps of a collection.
    async fn collect(&mut self, step: usize) {
        match step {
            0 => self.is_condemned = condemn(self.catalogue, self.text, self.grace_since).await,
            1 if self.is_condemned => drop(self.store.lock().unwrap().remove(&digest(self.text))),
            2 if self.is_condemned => self.catalogue.forget_blob(&digest(self.text)).await.unwrap(),
            _ => {}
        }
    }
}

/// Condemns a blob, whether it is known or not, if it may go.
async fn condemn(catalogue: &Subject, text: &str, grace_since: u64) -> bool {
    let stray = StrayBlob { digest: digest(text), size_bytes: text.len() as u64, location: "store".into() };
    if catalogue.condemn_stray(&stray, at(grace_since), at(600)).await.unwrap() {
        return true;
    }
    let swept = catalogue.condemn_blobs(at(grace_since), None, 9999, at(600)).await.unwrap();
    swept.condemned.iter().any(|blob| blob.digest == digest(text))
}

pub(in crate::metadata::catalogue) async fn no_order_of_push_and_collection_loses_what_was_acknowledged(
    catalogue: &Subject,
) {
    let here = hosted(catalogue, "a/here").await;
    let store = Store::default();
    for before in [Before::Absent, Before::Stray, Before::Unlinked] {
        // Announcements count, or are so old that they do not.
        for grace_since in [400, 550] {
            for order in (0..64_u32).filter(|order| order.count_ones() == 3) {
                let text = format!("{before:?} {grace_since} {order}");
                set_up(catalogue, &store, &here, before, &text).await;
                let mut race = Race {
                    catalogue,
                    store: &store,
                    repository: &here,
                    text: &text,
                    grace_since,
                    is_condemned: false,
                    is_refused: false,
                };
                let (mut pushed, mut collected) = (0, 0);
                for turn in 0..6 {
                    if order >> turn & 1 == 1 {
                        race.push(pushed).await;
                        pushed += 1;
                    } else {
                        race.collect(collected).await;
                        collected += 1;
                    }
                }
                let is_spared = grace_since == 400 && order & 1 == 1;
                assert!(!(race.is_refused && is_spared), "{text}: the grace time did not help");
                assert_eq!(is_whole(catalogue, &store, &here, &text).await, !race.is_refused, "{text}");
                // And the client, told to try again, does.
                race.is_refused = false;
                for step in 0..3 {
                    race.push(step).await;
                }
                assert!(!race.is_refused && is_whole(catalogue, &store, &here, &text).await, "{text}");
            }
        }
    }
}

async fn set_up(catalogue: &Subject, store: &Store, here: &RepositoryName, before: Before, text: &str) {
    if before != Before::Absent {
        store.lock().unwrap().insert(digest(text));
    }
    if before == Before::Unlinked {
        catalogue.announce_blob(&digest(text), at(1)).await.unwrap();
        catalogue.record_blob(here, &blob(text), None, &stamp(1)).await.unwrap();
        catalogue.delete_blob(here, &digest(text)).await.unwrap();
    }
}

/// Whether the repository has a blob, with its bytes. One without the other is a loss.
async fn is_whole(catalogue: &Subject, store: &Store, here: &RepositoryName, text: &str) -> bool {
    let is_known = catalogue.find_blob(here, &digest(text)).await.unwrap().is_some();
    let has_bytes = store.lock().unwrap().contains(&digest(text));
    assert!(has_bytes || !is_known, "{text} was acknowledged and is lost");
    is_known
}

/// What needs content that is about to go.
#[derive(Clone, Copy, Debug)]
enum Need {
    Mount,
    Manifest,
    Restore,
}

pub(in crate::metadata::catalogue) async fn whatever_needs_content_gets_it_or_is_told_that_it_is_gone(
    catalogue: &Subject,
) {
    let (here, there) = (hosted(catalogue, "a/here").await, hosted(catalogue, "a/there").await);
    keep_for(catalogue, "a", 0).await;
    for need in [Need::Mount, Need::Manifest, Need::Restore] {
        let mut done = Vec::new();
        for turn in 0..=STEPS {
            let text = format!("{need:?} {turn}");
            let layer = format!("layer of {text}");
            let image = push_image(catalogue, &here, &text, &["v1"], 1).await;
            catalogue.delete_manifest(&here, &image, &stamp(2)).await.unwrap();
            let store = Store::default();
            store.lock().unwrap().insert(digest(&layer));
            let mut condemned = false;
            let mut said = None;
            for step in 0..=STEPS {
                if step == turn {
                    said = Some(ask(catalogue, &here, &there, need, &text).await);
                }
                match step {
                    0 => drop(catalogue.collect_manifests(HORIZON, 99, &stamp(600)).await.unwrap()),
                    1 => drop(catalogue.collect_links(HORIZON.grace_since, None, 9999).await.unwrap()),
                    2 => condemned = condemn_known(catalogue, &layer).await,
                    3 if condemned => drop(store.lock().unwrap().remove(&digest(&layer))),
                    4 if condemned => catalogue.forget_blob(&digest(&layer)).await.unwrap(),
                    _ => {}
                }
            }
            let repository = if matches!(need, Need::Mount) { &there } else { &here };
            let is_done = said.unwrap().is_ok();
            assert_eq!(is_whole(catalogue, &store, repository, &layer).await, is_done, "{text}");
            done.push(is_done);
            // For the next one, nothing is left.
            if let (Need::Mount, true) = (need, is_done) {
                catalogue.delete_blob(&there, &digest(&layer)).await.unwrap();
            }
        }
        // Early enough, and too late: both happen, and there is one moment between them.
        assert!(
            done[0] && !done[STEPS] && done.is_sorted_by(|early, late| early >= late),
            "{need:?}: {done:?}"
        );
    }
}

async fn ask(
    catalogue: &Subject,
    here: &RepositoryName,
    there: &RepositoryName,
    need: Need,
    text: &str,
) -> Result<()> {
    let layer = format!("layer of {text}");
    match need {
        Need::Mount => catalogue.mount_blob(there, &digest(&layer), here, &stamp(700)).await,
        Need::Manifest => {
            let other = format!("other {text}");
            catalogue.push_manifest(here, &push(&other, &[&layer], &["v2"]), &stamp(700)).await
        }
        Need::Restore => catalogue.restore_tag(here, &tag("v1"), &digest(text), &stamp(700)).await,
    }
}

async fn condemn_known(catalogue: &Subject, layer: &str) -> bool {
    let swept = catalogue.condemn_blobs(HORIZON.grace_since, None, 9999, HORIZON.now).await.unwrap();
    swept.condemned.iter().any(|blob| blob.digest == digest(layer))
}

pub(in crate::metadata::catalogue) async fn pushes_beside_a_collector_without_mercy_lose_nothing(
    catalogue: &Subject,
) {
    let (tasks, store) = (Tasks::new(), Arc::new(Store::default()));
    let collected = Arc::new(AtomicU32::new(0));
    let mut pushers = Vec::new();
    for number in 0..2 {
        let here = hosted(catalogue, &format!("a/r{number}")).await;
        let (catalogue, store, collected) =
            (Arc::clone(catalogue), Arc::clone(&store), Arc::clone(&collected));
        pushers.push(tasks.spawn(async move {
            let mut acknowledged = 0;
            // Refused pushes are quick: all of them might be over before anything is collected.
            for round in 0..MOST_ROUNDS {
                if round >= ROUNDS && acknowledged > 0 && collected.load(Ordering::Relaxed) > 0 {
                    break;
                }
                let text = format!("shared {}", round % 2);
                let blob = blob(&text);
                if catalogue.announce_blob(&blob.digest, at(1)).await.is_err() {
                    continue;
                }
                store.lock().unwrap().insert(blob.digest);
                if catalogue.record_blob(&here, &blob, None, &stamp(1)).await.is_ok() {
                    acknowledged += 1;
                    assert!(is_whole(&catalogue, &store, &here, &text).await);
                    catalogue.delete_blob(&here, &blob.digest).await.unwrap();
                }
            }
            acknowledged
        }));
    }
    while !pushers.iter().all(tokio::task::JoinHandle::is_finished) {
        for text in ["shared 0", "shared 1"] {
            if store.lock().unwrap().contains(&digest(text)) && condemn(catalogue, text, 10).await {
                store.lock().unwrap().remove(&digest(text));
                catalogue.forget_blob(&digest(text)).await.unwrap();
                collected.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
    for pusher in pushers {
        assert!(pusher.await.unwrap() > 0, "nothing was pushed");
    }
    assert!(collected.load(Ordering::Relaxed) > 0, "nothing was collected");
}

/// The steps of a collection of one image.
const STEPS: usize = 5;
const ROUNDS: u32 = 60;
const MOST_ROUNDS: u32 = 20_000;
const HORIZON: Horizon = Horizon { now: LATER, grace_since: LATER };
const LATER: crate::runtime::Timestamp = crate::runtime::Timestamp::from_millis(1_790_000_600_000);
