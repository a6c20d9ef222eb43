use std::time::Duration;

use super::*;
use crate::events::{Events, LocalEvents};
use crate::metadata::sqlite::SqliteIndex;
use crate::metadata::{
    AccessProof, AccessProofs, ContentIndex, ContentKind, ContentUse, PinReason, PinRecord, Pins,
    RepositoryId, SECOND_USE_AFTER,
};
use crate::oci::Algorithm;
use crate::registry::memory_blobs::MemoryBlobs;
use crate::runtime::{Clock, Timestamp};

/// A cache with an evictor, and a hand on everything.
struct Cache {
    index: Arc<SqliteIndex>,
    blobs: Arc<MemoryBlobs>,
    events: Arc<LocalEvents>,
    clock: Clock,
    evictor: Evictor,
}

fn digest(name: &(impl ToString + ?Sized)) -> Digest {
    Digest::of(Algorithm::Sha256, name.to_string().as_bytes())
}

impl Cache {
    async fn new(budget_bytes: u64) -> Self {
        let index = Arc::new(SqliteIndex::in_memory().await.unwrap());
        let blobs = Arc::new(MemoryBlobs::default());
        let events = Arc::new(LocalEvents::default());
        let clock = Clock::manual(Timestamp::from_millis(1_790_000_000_000));
        let parts = CacheParts {
            index: index.clone(),
            blobs: blobs.clone(),
            events: events.clone(),
            clock: clock.clone(),
        };
        let metrics = CacheMetrics::new(&prometheus::Registry::new()).unwrap();
        Self { index, blobs, events, clock, evictor: Evictor::new(parts, metrics, budget_bytes) }
    }

    /// Stores an item, a second after whatever was before.
    async fn store(&self, name: impl ToString, size_bytes: u64) -> Digest {
        let digest = digest(&name);
        self.clock.advance(Duration::from_secs(1));
        self.blobs.put_sized(digest, size_bytes);
        self.record(digest, size_bytes).await;
        self.evictor.note_stored(size_bytes);
        digest
    }

    async fn record(&self, digest: Digest, size_bytes: u64) {
        let now = self.clock.now();
        let record = ContentRecord {
            digest,
            kind: ContentKind::Blob,
            size_bytes,
            media_type: None,
            stored_at: now,
            last_used_at: now,
            segment: Segment::Probation,
        };
        self.index.record_content(&[record]).await.unwrap();
    }

    async fn use_again(&self, digest: Digest) {
        self.clock.advance(Duration::from_secs(1));
        self.index.record_uses(&[ContentUse { digest, used_at: self.clock.now() }]).await.unwrap();
    }

    /// The names of stored items among `names`.
    fn kept<'a>(&self, names: &[&'a str]) -> Vec<&'a str> {
        names.iter().copied().filter(|name| self.blobs.holds(&digest(&name))).collect()
    }

    async fn indexed_bytes(&self) -> u64 {
        let (probation, protected) = self.index.content_bytes().await.unwrap();
        probation + protected
    }
}

#[tokio::test]
async fn nothing_is_evicted_within_the_budget() {
    let cache = Cache::new(100).await;
    cache.store("a", 60).await;
    cache.store("b", 40).await;
    assert_eq!(cache.evictor.enforce().await.unwrap(), Evicted::default());
    assert_eq!(cache.kept(&["a", "b"]), ["a", "b"]);
}

#[tokio::test]
async fn the_least_recently_used_goes_first_and_a_little_more_than_needed() {
    let cache = Cache::new(100).await;
    for name in ["a", "b", "c", "d"] {
        cache.store(name, 25).await;
    }
    cache.use_again(digest(&"a")).await;
    let mut heard = cache.events.subscribe();
    cache.store("e", 1).await;
    // 101 bytes: one item too many for 100, and enough for 98.
    assert_eq!(cache.evictor.enforce().await.unwrap(), Evicted { items: 1, bytes: 25 });
    assert_eq!(cache.kept(&["a", "b", "c", "d", "e"]), ["a", "c", "d", "e"]);
    assert_eq!(cache.index.find_content(&digest(&"b")).await.unwrap(), None);
    assert_eq!(heard.try_recv().unwrap(), Event::ContentRemoved { digest: digest(&"b") });
    assert!(heard.try_recv().is_err());
}

#[tokio::test]
async fn a_run_goes_two_percent_below_the_budget() {
    let cache = Cache::new(1000).await;
    for number in 0..1001 {
        cache.store(number, 1).await;
    }
    assert_eq!(cache.evictor.enforce().await.unwrap(), Evicted { items: 21, bytes: 21 });
    assert_eq!((cache.blobs.bytes(), cache.indexed_bytes().await), (980, 980));
}

#[tokio::test]
async fn a_scan_does_not_push_out_what_is_used_again() {
    let cache = Cache::new(1_000).await;
    // The working set is half of the budget, and people come back to it.
    let working: Vec<_> = (0..50).map(|number| format!("working {number}")).collect();
    for name in &working {
        cache.store(name, 10).await;
    }
    cache.clock.advance(SECOND_USE_AFTER);
    for name in &working {
        cache.use_again(digest(&name)).await;
    }
    // A scan of six times the budget, every item used twice within its one pull.
    for number in 0..600 {
        let scanned = cache.store(format!("scanned {number}"), 10).await;
        cache.use_again(scanned).await;
        cache.evictor.enforce().await.unwrap();
        assert!(cache.blobs.bytes() <= 1_000);
        assert_eq!(cache.blobs.bytes(), cache.indexed_bytes().await);
    }
    let kept = working.iter().filter(|name| cache.blobs.holds(&digest(name))).count();
    assert_eq!(kept, working.len());
    assert!(cache.blobs.holds(&digest(&"scanned 599")));
    assert!(!cache.blobs.holds(&digest(&"scanned 500")));
}

#[tokio::test]
async fn the_budget_holds_whatever_is_stored_and_used() {
    let mut random = fastrand::Rng::with_seed(7);
    let cache = Cache::new(10_000).await;
    for _ in 0..500 {
        let name = random.u32(0..200);
        let name = if random.bool() { name / 10 } else { name };
        if cache.blobs.holds(&digest(&name)) {
            cache.clock.advance(Duration::from_secs(random.u64(0..6_000)));
            cache.use_again(digest(&name)).await;
        } else {
            cache.store(name, random.u64(0..700)).await;
        }
        cache.evictor.enforce().await.unwrap();
        let (probation, protected) = cache.index.content_bytes().await.unwrap();
        assert!(probation + protected <= 10_000);
        assert!(protected <= 5_000, "protected has its share only: {protected}");
        assert_eq!(probation + protected, cache.blobs.bytes());
    }
}

#[tokio::test]
async fn what_protected_overflows_with_gets_a_second_life_in_probation() {
    let cache = Cache::new(100).await;
    for name in ["p1", "p2", "p3"] {
        cache.store(name, 18).await;
    }
    cache.clock.advance(SECOND_USE_AFTER);
    for name in ["p1", "p2", "p3"] {
        cache.use_again(digest(&name)).await;
    }
    cache.store("x", 41).await;
    assert_eq!(cache.evictor.enforce().await.unwrap(), Evicted::default());
    let demoted = cache.index.find_content(&digest(&"p1")).await.unwrap().unwrap();
    assert_eq!(demoted.segment, Segment::Probation);
    // Now x is older than what was demoted after it.
    cache.store("y", 6).await;
    cache.evictor.enforce().await.unwrap();
    assert_eq!(cache.kept(&["p1", "p2", "p3", "x", "y"]), ["p1", "p2", "p3", "y"]);
    cache.store("z", 41).await;
    cache.evictor.enforce().await.unwrap();
    assert_eq!(cache.kept(&["p1", "p2", "p3", "y", "z"]), ["p2", "p3", "y", "z"]);
}

#[tokio::test]
async fn protected_content_goes_when_probation_is_empty() {
    let cache = Cache::new(100).await;
    for name in ["a", "b", "c"] {
        cache.store(name, 20).await;
    }
    cache.clock.advance(SECOND_USE_AFTER);
    for name in ["b", "a", "c"] {
        cache.use_again(digest(&name)).await;
    }
    cache.evictor.set_budget(50);
    cache.evictor.enforce().await.unwrap();
    assert_eq!(cache.kept(&["a", "b", "c"]), ["a", "c"]);
    cache.evictor.set_budget(0);
    cache.evictor.enforce().await.unwrap();
    assert_eq!(cache.kept(&["a", "b", "c"]), [""; 0]);
}

#[tokio::test]
async fn an_item_larger_than_the_budget_takes_no_protected_content_along() {
    let cache = Cache::new(100).await;
    cache.store("p", 45).await;
    cache.clock.advance(SECOND_USE_AFTER);
    cache.use_again(digest(&"p")).await;
    cache.store("giant", 1_000).await;
    assert_eq!(cache.evictor.enforce().await.unwrap(), Evicted { items: 1, bytes: 1_000 });
    assert_eq!(cache.kept(&["p", "giant"]), ["p"]);
}

#[tokio::test]
async fn rights_outlive_the_bytes() {
    let cache = Cache::new(10).await;
    let repository =
        RepositoryId { upstream: Arc::from("docker.io"), name: "library/nginx".parse().unwrap() };
    let stored = cache.store("x", 20).await;
    let proof =
        AccessProof { digest: stored, kind: ContentKind::Blob, size_bytes: Some(20), media_type: None };
    cache.index.record_proofs(&repository, std::slice::from_ref(&proof)).await.unwrap();
    cache.evictor.enforce().await.unwrap();
    assert!(!cache.blobs.holds(&stored));
    let found = cache.index.find_proof(&repository, ContentKind::Blob, &stored).await.unwrap();
    assert_eq!(found, Some(proof));
}

#[tokio::test]
async fn content_that_is_not_in_the_index_yet_is_left_alone() {
    let cache = Cache::new(10).await;
    cache.blobs.put_sized(digest(&"renamed, not recorded"), 1_000);
    cache.store("x", 20).await;
    cache.evictor.enforce().await.unwrap();
    assert_eq!(cache.kept(&["renamed, not recorded", "x"]), ["renamed, not recorded"]);
}

#[tokio::test]
async fn a_row_without_a_file_is_forgotten_and_not_counted_as_evicted() {
    let cache = Cache::new(100).await;
    cache.record(digest(&"lost"), 90).await;
    cache.store("x", 90).await;
    assert_eq!(cache.evictor.enforce().await.unwrap(), Evicted::default());
    assert_eq!(cache.kept(&["x"]), ["x"]);
    assert_eq!(cache.indexed_bytes().await, 90);
}

#[tokio::test]
async fn items_that_cannot_be_removed_are_gone_around() {
    let cache = Cache::new(100).await;
    for name in ["a", "b", "c"] {
        cache.store(name, 40).await;
    }
    cache.blobs.stick(digest(&"a"));
    assert_eq!(cache.evictor.enforce().await.unwrap(), Evicted { items: 1, bytes: 40 });
    assert_eq!(cache.kept(&["a", "b", "c"]), ["a", "c"]);
    assert!(cache.index.find_content(&digest(&"a")).await.unwrap().is_some());

    cache.blobs.stick(digest(&"c"));
    cache.evictor.set_budget(50);
    let error = cache.evictor.enforce().await.unwrap_err();
    assert!(matches!(error, UpkeepError::Blobs(_)), "{error:?}");
    assert_eq!(cache.indexed_bytes().await, 80);
}

#[tokio::test]
async fn a_disk_that_removes_nothing_ends_the_run() {
    let cache = Cache::new(10).await;
    for number in 0..300 {
        let stored = cache.store(number, 1).await;
        cache.blobs.stick(stored);
    }
    assert!(cache.evictor.enforce().await.is_err());
    assert_eq!(cache.indexed_bytes().await, 300);
}

#[tokio::test]
async fn content_that_came_back_meanwhile_keeps_a_row() {
    let cache = Cache::new(100).await;
    for name in ["a", "b", "c"] {
        cache.store(name, 40).await;
    }
    cache.blobs.refill(digest(&"a"));
    cache.evictor.enforce().await.unwrap();
    assert_eq!(cache.kept(&["a", "b", "c"]), ["a", "c"]);
    assert!(cache.index.find_content(&digest(&"a")).await.unwrap().is_some());
    assert_eq!(cache.indexed_bytes().await, cache.blobs.bytes());
}

#[tokio::test]
async fn room_is_made_below_the_budget_when_the_disk_is_full() {
    let cache = Cache::new(1_000).await;
    cache.record(digest(&"lost"), 50).await;
    for name in ["a", "b", "c"] {
        cache.store(name, 40).await;
    }
    assert_eq!(
        cache.evictor.make_room(Room { bytes: 50, items: 0 }).await.unwrap(),
        Evicted { items: 2, bytes: 80 }
    );
    assert_eq!(cache.kept(&["a", "b", "c"]), ["c"]);
    assert_eq!(
        cache.evictor.make_room(Room { bytes: 500, items: 0 }).await.unwrap(),
        Evicted { items: 1, bytes: 40 }
    );
    let by_disk = cache.evictor.metrics.evictions.with_label_values(&["disk_full"]);
    assert_eq!(by_disk.get(), 3);
}

#[tokio::test]
async fn runs_at_once_evict_no_more_than_one() {
    let cache = Cache::new(100).await;
    for number in 0..20 {
        cache.store(number, 10).await;
    }
    let (first, second) = tokio::join!(cache.evictor.enforce(), cache.evictor.enforce());
    assert_eq!(first.unwrap().items + second.unwrap().items, 11);
    assert_eq!(cache.blobs.bytes(), 90);
}

#[tokio::test]
async fn a_run_is_wanted_when_the_cache_is_over_its_budget() {
    let cache = Cache::new(100).await;
    let signal = cache.evictor.nudge_signal();
    let is_wanted = async || futures_util::poll!(std::pin::pin!(signal.notified())).is_ready();
    cache.store("a", 100).await;
    assert!(!is_wanted().await);
    cache.store("b", 1).await;
    assert!(is_wanted().await);
    cache.evictor.enforce().await.unwrap();
    cache.store("c", 1).await;
    assert!(!is_wanted().await);
    cache.evictor.set_budget(1);
    assert!(is_wanted().await);
}

#[tokio::test]
async fn metrics_follow_the_cache() {
    let cache = Cache::new(100).await;
    let registry = prometheus::Registry::new();
    for collector in [
        Box::new(cache.evictor.metrics.bytes.clone()) as Box<dyn prometheus::core::Collector>,
        Box::new(cache.evictor.metrics.budget_bytes.clone()),
        Box::new(cache.evictor.metrics.evictions.clone()),
        Box::new(cache.evictor.metrics.evicted_bytes.clone()),
    ] {
        registry.register(collector).unwrap();
    }
    cache.store("a", 70).await;
    cache.store("b", 70).await;
    cache.evictor.enforce().await.unwrap();
    cache.evictor.set_budget(120);
    let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    for line in [
        "cache_bytes 70",
        "cache_budget_bytes 120",
        "cache_evictions_total{reason=\"budget\"} 1",
        "cache_evictions_total{reason=\"disk_full\"} 0",
        "cache_evicted_bytes_total 70",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
}

#[tokio::test]
async fn uses_are_noted_at_once_and_written_together() {
    let cache = Cache::new(100).await;
    let uses = UseLog::new(cache.index.clone(), cache.clock.clone());
    for name in ["a", "b"] {
        cache.store(name, 1).await;
    }
    let stored_at = cache.clock.now();
    for _ in 0..3 {
        cache.clock.advance(SECOND_USE_AFTER);
        uses.note_use(&digest(&"a"));
    }
    assert_eq!(cache.index.find_content(&digest(&"b")).await.unwrap().unwrap().last_used_at, stored_at);
    assert_eq!(uses.flush().await.unwrap(), 1);
    assert_eq!(uses.flush().await.unwrap(), 0);
    let used = cache.index.find_content(&digest(&"a")).await.unwrap().unwrap();
    assert_eq!((used.last_used_at, used.segment), (cache.clock.now(), Segment::Protected));
}

#[tokio::test]
async fn the_log_of_uses_is_bounded_and_asks_to_be_written() {
    let cache = Cache::new(100).await;
    let uses = UseLog::new(cache.index.clone(), cache.clock.clone());
    let signal = uses.nudge_signal();
    for number in 0..100 {
        uses.note_use(&digest(&number));
    }
    assert!(futures_util::poll!(std::pin::pin!(signal.notified())).is_pending());
    for number in 0..40_000 {
        uses.note_use(&digest(&number));
    }
    assert!(futures_util::poll!(std::pin::pin!(signal.notified())).is_ready());
    assert_eq!(uses.flush().await.unwrap(), 16 * 1024);
}

#[tokio::test]
async fn what_is_to_stay_free_on_the_disk_is_kept_free_below_the_budget() {
    let cache = Cache::new(1 << 30).await;
    cache.blobs.limit(1000);
    for number in 0..9 {
        cache.store(number, 100).await;
    }
    assert_eq!(cache.evictor.enforce().await.unwrap(), Evicted::default(), "nothing has to stay free");
    cache.evictor.set_min_free(MinFree::Percent(30));
    // 300 and a tenth more, of which 100 are free.
    assert_eq!(cache.evictor.enforce().await.unwrap(), Evicted { items: 3, bytes: 300 });
    assert_eq!(cache.kept(&["0", "1", "2", "3", "8"]), ["3", "8"]);
    assert_eq!(cache.evictor.enforce().await.unwrap(), Evicted::default());
    cache.evictor.set_min_free(MinFree::Bytes(5000));
    assert_eq!(cache.evictor.enforce().await.unwrap().items, 6, "no more than there is");
}

#[tokio::test]
async fn a_disk_without_inodes_is_given_items_whatever_their_bytes() {
    let cache = Cache::new(1 << 30).await;
    for number in 0..9 {
        cache.store(number, 1).await;
    }
    assert!(cache.evictor.make_room(Room { bytes: 0, items: 3 }).await.unwrap().items >= 3);
}

#[tokio::test]
async fn pinned_content_stays_and_takes_nothing_of_the_share_of_what_is_in_use() {
    let cache = Cache::new(1000).await;
    for name in ["pinned", "in use"] {
        cache.store(name, if name == "pinned" { 600 } else { 100 }).await;
    }
    let image = PinRecord {
        repository: RepositoryId { upstream: "a.test".into(), name: "a".parse().unwrap() },
        reference: "1".parse().unwrap(),
        digest: digest("pinned"),
        reason: PinReason::Order,
        pinned_at: cache.clock.now(),
    };
    cache.index.record_pin(&image, &[]).await.unwrap();
    cache.clock.advance(SECOND_USE_AFTER);
    for name in ["pinned", "in use"] {
        cache.use_again(digest(name)).await;
    }
    cache.evictor.enforce().await.unwrap();
    let in_use = cache.index.find_content(&digest("in use")).await.unwrap().unwrap();
    assert_eq!(in_use.segment, Segment::Protected, "100 of the 400 bytes that are left");
    for number in 0..10 {
        cache.store(number, 100).await;
        cache.evictor.enforce().await.unwrap();
    }
    assert_eq!(cache.kept(&["pinned", "in use"]), ["pinned", "in use"]);
    assert!(cache.indexed_bytes().await <= 1000);
    cache.evictor.make_room(Room { bytes: u64::MAX, items: 0 }).await.unwrap();
    assert_eq!((cache.kept(&["pinned", "in use"]), cache.indexed_bytes().await), (vec!["pinned"], 600));
}

#[tokio::test]
async fn what_is_held_stays_as_long_as_the_hold_lives_and_what_comes_after_it_goes() {
    let cache = Cache::new(100).await;
    let (a, b) = (cache.store("a", 40).await, cache.store("b", 40).await);
    cache.store("c", 20).await;
    let hold = cache.evictor.hold([a, b].into()).await;
    let (evicted, fits) = cache.evictor.make_budget_room(20).await.unwrap();
    assert_eq!((evicted, fits), (Evicted { items: 1, bytes: 20 }, true));
    assert_eq!(cache.kept(&["a", "b", "c"]), ["a", "b"]);
    let (evicted, fits) = cache.evictor.make_budget_room(30).await.unwrap();
    assert_eq!((evicted, fits), (Evicted::default(), false));
    cache.store("d", 30).await;
    assert_eq!(cache.evictor.enforce().await.unwrap(), Evicted { items: 1, bytes: 30 });
    drop(hold);
    assert_eq!(cache.evictor.make_disk_room(1).await.unwrap(), Evicted { items: 1, bytes: 40 });
    assert_eq!(cache.kept(&["a", "b"]), ["b"]);
}
