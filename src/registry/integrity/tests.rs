//! Scrub and verification on real files, with the clock in the tests' hands; nobody upstream.

use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout};

use super::{FindingState, VerifyOrder, VerifyState, VerifyStatus};
use crate::auth::RequestContext;
use crate::blobs::{Blobs as _, LocalBlobs};
use crate::config::ScrubConfig;
use crate::events::LocalEvents;
use crate::metadata::sqlite::SqliteIndex;
use crate::metadata::{ContentIndex as _, ContentKind, ContentRecord, Segment, Verifications as _};
use crate::oci::{Algorithm, Digest};
use crate::registry::{
    CacheMetrics, CacheParts, Evictor, HoldingQuery, Names, Registry, RegistryMetrics, Services, UseLog,
};
use crate::runtime::{Clock, Tasks, Timestamp};

const MIB: usize = 1 << 20;

/// How long anything may take before a test fails.
const PATIENCE: Duration = Duration::from_secs(40);

/// The disk and the index of a node, beyond the life of its process.
struct Disk {
    folder: tempfile::TempDir,
    index: Arc<SqliteIndex>,
    clock: Clock,
}

/// A process on it.
struct Node {
    registry: Registry,
    evictor: Arc<Evictor>,
    blobs: Arc<LocalBlobs>,
    metrics: prometheus::Registry,
}

impl Disk {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::manual(Timestamp::from_millis(1_790_000_000_000));
        Self { folder, index: Arc::new(SqliteIndex::in_memory().await.unwrap()), clock }
    }

    /// Starts a process that scrubs every hour, at so many bytes a second.
    fn start(&self, rate_bytes: u64) -> Node {
        let tasks = Tasks::new();
        let blobs = Arc::new(LocalBlobs::open(self.folder.path(), &tasks).unwrap());
        let (index, events, clock) =
            (Arc::clone(&self.index), Arc::new(LocalEvents::default()), self.clock.clone());
        let parts = CacheParts {
            index: index.clone(),
            blobs: blobs.clone(),
            events: events.clone(),
            clock: clock.clone(),
        };
        let metrics = prometheus::Registry::new();
        let evictor = Arc::new(Evictor::new(parts, CacheMetrics::new(&metrics).unwrap(), 1 << 30));
        let registry = Registry::new(Services {
            index: index.clone(),
            blobs: blobs.clone(),
            events,
            clock: clock.clone(),
            tasks,
            evictor: Arc::clone(&evictor),
            uses: Arc::new(UseLog::new(index, clock)),
            metrics: RegistryMetrics::new(&metrics).unwrap(),
            names: Names::new(Vec::new()),
            memory_bytes: 1 << 20,
        });
        registry.set_scrub(&ScrubConfig { every: Duration::from_hours(1), rate_bytes });
        Node { registry, evictor, blobs, metrics }
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.folder.path().join("content/sha256").join(&digest.hex()[..2]).join(digest.hex())
    }

    /// Changes a byte of a stored file in place.
    fn alter(&self, digest: &Digest, offset: u64) {
        let file = std::fs::File::options().write(true).open(self.path(digest)).unwrap();
        file.write_all_at(b"X", offset).unwrap();
    }
}

impl Node {
    /// Stores content of these bytes, repeated to a size, and lists it.
    async fn store(&self, disk: &Disk, byte: u8, size_bytes: usize) -> ContentRecord {
        let content = vec![byte; size_bytes];
        let digest = Digest::of(Algorithm::Sha256, &content);
        let file = self.blobs.begin(&digest, None).await.unwrap();
        let file = file.append(vec![Bytes::from(content)]).await.unwrap();
        file.verify().unwrap().commit().await.unwrap();
        let now = disk.clock.now();
        let record = ContentRecord {
            digest,
            kind: ContentKind::Blob,
            size_bytes: size_bytes as u64,
            media_type: None,
            stored_at: now,
            last_used_at: now,
            segment: Segment::Probation,
        };
        disk.index.record_content(std::slice::from_ref(&record)).await.unwrap();
        record
    }

    async fn scrub(&self) {
        timeout(PATIENCE, self.registry.scrub()).await.expect("the scrub does not end").unwrap();
    }

    fn counted(&self, name: &str, label: &str) -> u64 {
        let families = self.metrics.gather();
        let family = families.iter().find(|family| family.name() == name).unwrap();
        let matching = family
            .get_metric()
            .iter()
            .filter(|metric| label.is_empty() || metric.get_label().iter().any(|pair| pair.value() == label));
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts of a test")]
        matching.map(|metric| metric.get_counter().get_value() as u64).sum()
    }

    fn damaged(&self, cause: &str) -> u64 {
        self.counted("content_damaged_total", cause)
    }

    fn verified(&self) -> u64 {
        self.counted("content_verified_total", "scrub")
    }

    /// Waits until the scrub has read two of four parts, and times of files can tell it from what comes now.
    async fn until_half_is_read(&self) {
        until(async || self.counted("content_verified_bytes_total", "scrub") >= 2 * MIB as u64).await;
        sleep(Duration::from_millis(30)).await;
    }

    async fn verify(&self, order: &VerifyOrder) -> VerifyStatus {
        let context = RequestContext::administrator();
        self.registry.verify(&context, order.clone()).await.unwrap();
        let latest = || self.registry.find_verification().unwrap();
        until(async || latest().state != VerifyState::Running).await;
        latest()
    }
}

async fn until(mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(Instant::now() < deadline, "it did not come in time");
        sleep(Duration::from_millis(5)).await;
    }
}

fn everything() -> VerifyOrder {
    VerifyOrder { query: HoldingQuery::default(), heals: true, rate_bytes: None }
}

#[tokio::test]
async fn a_scrub_reads_what_is_due_and_no_faster_than_its_rate() {
    let disk = Disk::new().await;
    let node = disk.start(10_000);
    for byte in 0..3 {
        node.store(&disk, byte, 1000).await;
    }
    disk.clock.advance(Duration::from_mins(59));
    node.scrub().await;
    assert_eq!(node.verified(), 0, "nothing is due yet");
    disk.clock.advance(Duration::from_mins(2));
    let begun = Instant::now();
    node.scrub().await;
    assert!(begun.elapsed() >= Duration::from_millis(300), "{:?}", begun.elapsed());
    assert_eq!((node.verified(), node.counted("content_verified_bytes_total", "scrub")), (3, 3000));
    node.scrub().await;
    assert_eq!(node.verified(), 3, "all is verified");
    disk.clock.advance(Duration::from_hours(1));
    node.scrub().await;
    assert_eq!(node.verified(), 6, "and again when its time has come");
    node.registry.set_scrub(&ScrubConfig { every: Duration::ZERO, rate_bytes: 1 });
    disk.clock.advance(Duration::from_hours(100));
    node.scrub().await;
    assert_eq!((node.verified(), node.damaged("")), (6, 0), "zero is never");
}

#[tokio::test]
async fn a_scrub_goes_on_after_a_restart_where_it_was() {
    let disk = Disk::new().await;
    let first = disk.start(2000);
    for byte in 0..6 {
        first.store(&disk, byte, 1000).await;
    }
    disk.clock.advance(Duration::from_hours(1));
    let since = disk.clock.now();
    disk.clock.advance(Duration::from_mins(30));
    let unverified = async || disk.index.list_unverified(since, 10).await.unwrap().len() as u64;
    tokio::select! {
        () = first.scrub() => panic!("half a second an item"),
        () = until(async || unverified().await < 6) => {}
    }
    let left = unverified().await;
    assert!((1..6).contains(&left));
    drop(first);
    let second = disk.start(1 << 40);
    second.scrub().await;
    assert_eq!((second.verified(), unverified().await), (left, 0));
}

#[tokio::test]
async fn what_is_altered_while_a_scrub_reads_it_is_found() {
    let disk = Disk::new().await;
    let node = disk.start(2 * MIB as u64);
    let record = node.store(&disk, 7, 4 * MIB).await;
    disk.clock.advance(Duration::from_hours(2));
    let alter = async {
        node.until_half_is_read().await;
        disk.alter(&record.digest, 5);
    };
    tokio::join!(node.scrub(), alter);
    assert_eq!((node.damaged("altered"), node.damaged("")), (1, 1));
    assert!(!disk.path(&record.digest).exists());
    assert_eq!(disk.index.find_content(&record.digest).await.unwrap(), None);
}

#[tokio::test]
async fn what_is_evicted_or_replaced_while_a_scrub_reads_it_is_no_damage() {
    let disk = Disk::new().await;
    let node = disk.start(2 * MIB as u64);
    let evicted = node.store(&disk, 7, 4 * MIB).await;
    disk.clock.advance(Duration::from_hours(2));
    let evict = async {
        node.until_half_is_read().await;
        node.evictor.purge(vec![evicted.clone()]).await.unwrap();
    };
    tokio::join!(node.scrub(), evict);
    assert_eq!(disk.index.find_content(&evicted.digest).await.unwrap(), None);
    assert_eq!(node.damaged(""), 0);
    // The same content comes again while it is read, in another file.
    let disk = Disk::new().await;
    let node = disk.start(2 * MIB as u64);
    let replaced = node.store(&disk, 8, 4 * MIB).await;
    disk.clock.advance(Duration::from_hours(2));
    let replace = async {
        node.until_half_is_read().await;
        node.store(&disk, 8, 4 * MIB).await;
    };
    tokio::join!(node.scrub(), replace);
    assert_eq!(node.damaged(""), 0);
    assert!(disk.path(&replaced.digest).exists());
    assert!(disk.index.find_content(&replaced.digest).await.unwrap().is_some());
}

#[tokio::test]
async fn lost_content_is_counted_once_by_however_many_who_find_it() {
    let disk = Disk::new().await;
    let node = disk.start(1 << 40);
    let core = &node.registry.0;
    let record = node.store(&disk, 1, 100).await;
    assert!(!core.condemn_missing(&record.digest, super::FoundBy::Pull).await, "it is there");
    std::fs::remove_file(disk.path(&record.digest)).unwrap();
    let find = || core.condemn_missing(&record.digest, super::FoundBy::Pull);
    let (one, other, third) = tokio::join!(find(), find(), find());
    assert_eq!([one, other, third].into_iter().filter(|found| *found).count(), 1);
    assert!(!find().await, "nobody expects it any more");
    assert_eq!((node.damaged("missing"), node.damaged("")), (1, 1));
}

#[tokio::test]
async fn a_verification_takes_the_turn_of_a_scrub_and_finds_what_is_wrong_at_once() {
    let disk = Disk::new().await;
    let node = disk.start(1);
    let good = node.store(&disk, 1, 1000).await;
    let bad = node.store(&disk, 2, 1000).await;
    disk.clock.advance(Duration::from_hours(2));
    disk.alter(&bad.digest, 999);
    let begun = Instant::now();
    let ((), status) = tokio::join!(node.scrub(), async {
        sleep(Duration::from_secs(1)).await;
        node.verify(&everything()).await
    });
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!(
        (status.state, status.items, status.checked_items, status.checked_bytes),
        (VerifyState::Done, 2, 2, 2000)
    );
    assert_eq!((status.damaged, status.healed, status.unchecked), (1, 0, 0));
    assert_eq!((status.findings[0].digest, status.findings[0].state), (bad.digest, FindingState::Removed));
    assert!(status.findings[0].reason.as_ref().unwrap().contains("no repository is known"), "{status:?}");
    // What was verified is not due for the scrub any more.
    timeout(Duration::from_secs(10), node.scrub()).await.unwrap();
    assert!(disk.path(&good.digest).exists() && node.verified() == 0);
}

#[tokio::test]
async fn a_verification_is_joined_by_the_same_order_and_can_be_stopped() {
    let disk = Disk::new().await;
    let node = disk.start(1);
    node.store(&disk, 1, 1000).await;
    let context = RequestContext::administrator();
    let slow = VerifyOrder { rate_bytes: Some(1), ..everything() };
    let (id, joined) = node.registry.verify(&context, slow.clone()).await.unwrap();
    assert!(!joined);
    assert_eq!(node.registry.verify(&context, slow).await.unwrap(), (id.clone(), true));
    let busy = node.registry.verify(&context, everything()).await.unwrap_err();
    assert!(busy.to_string().contains(&id), "{busy}");
    assert_eq!(node.registry.cancel_verification(), Some(id));
    let status = node.verify(&everything()).await;
    assert_eq!(status.state, VerifyState::Done);
    assert_eq!(node.registry.cancel_verification(), None);
}

#[tokio::test]
async fn content_in_memory_comes_back_without_asking_anybody() {
    let disk = Disk::new().await;
    let node = disk.start(1 << 40);
    let record = node.store(&disk, 3, 1000).await;
    // As a pull does, which brings it into memory.
    crate::registry::stored::find_stored(&node.registry.0, &record.digest).await.unwrap().unwrap();
    disk.alter(&record.digest, 0);
    let status = node.verify(&everything()).await;
    assert_eq!((status.damaged, status.healed), (1, 1));
    assert_eq!(node.counted("content_heals_total", "memory"), 1);
    assert_eq!(std::fs::read(disk.path(&record.digest)).unwrap(), vec![3; 1000]);
    assert!(disk.index.find_content(&record.digest).await.unwrap().is_some());
}
