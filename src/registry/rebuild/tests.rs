use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::events::LocalEvents;
use crate::metadata::ContentIndex;
use crate::metadata::sqlite::SqliteIndex;
use crate::oci::Algorithm;
use crate::registry::memory_blobs::MemoryBlobs;
use crate::runtime::{Clock, Timestamp};

const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);
const BEFORE: Timestamp = Timestamp::from_millis(1_780_000_000_000);

/// An index and a disk that may disagree.
struct Node {
    index: Arc<SqliteIndex>,
    blobs: Arc<MemoryBlobs>,
    tasks: Tasks,
    rebuild: Rebuild,
}

impl Node {
    async fn new() -> Self {
        let index = Arc::new(SqliteIndex::in_memory().await.unwrap());
        let blobs = Arc::new(MemoryBlobs::default());
        let tasks = Tasks::new();
        let parts = CacheParts {
            index: index.clone(),
            blobs: blobs.clone(),
            events: Arc::new(LocalEvents::default()),
            clock: Clock::manual(NOW),
        };
        let rebuild = Rebuild::new(parts, tasks.clone());
        Self { index, blobs, tasks, rebuild }
    }

    async fn find(&self, digest: &Digest) -> Option<ContentRecord> {
        self.index.find_content(digest).await.unwrap()
    }
}

fn record(digest: Digest, size_bytes: u64, segment: Segment) -> ContentRecord {
    let kind = ContentKind::Blob;
    ContentRecord {
        digest,
        kind,
        size_bytes,
        media_type: None,
        stored_at: BEFORE,
        last_used_at: BEFORE,
        segment,
    }
}

fn manifest() -> Vec<u8> {
    let config = Digest::of(Algorithm::Sha256, b"config");
    format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",
            "config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{config}","size":6}},
            "layers":[]}}"#
    )
    .into_bytes()
}

#[tokio::test]
async fn a_lost_index_is_made_again_from_the_disk() {
    let node = Node::new().await;
    let mut digests = Vec::new();
    for number in 0..20 {
        digests.push(node.blobs.put(format!("layer {number}").as_bytes(), BEFORE));
    }
    let empty = node.blobs.put(b"", BEFORE);
    let huge = Digest::of(Algorithm::Sha512, b"huge");
    node.blobs.put_sized(huge, 5 << 30);
    let rebuilt = node.rebuild.run().await.unwrap();
    assert_eq!(rebuilt, Rebuilt { recorded: 22, finished: true, ..Rebuilt::default() });
    assert_eq!(node.find(&digests[7]).await, Some(record(digests[7], 7, Segment::Probation)));
    assert_eq!(node.find(&empty).await, Some(record(empty, 0, Segment::Probation)));
    assert_eq!(node.find(&huge).await.unwrap().size_bytes, 5 << 30);
    assert_eq!(node.index.find_rebuilt_at().await.unwrap(), Some(NOW));
    let again = node.rebuild.run().await.unwrap();
    assert_eq!(again, Rebuilt { finished: true, ..Rebuilt::default() });
}

#[tokio::test]
async fn manifests_are_told_from_blobs_by_looking() {
    let node = Node::new().await;
    let image = node.blobs.put(&manifest(), BEFORE);
    let config = node.blobs.put(br#"{"architecture":"amd64","rootfs":{"type":"layers"}}"#, BEFORE);
    let no_json = node.blobs.put(b"{ not JSON", BEFORE);
    node.rebuild.run().await.unwrap();
    let found = node.find(&image).await.unwrap();
    assert_eq!((found.kind, found.media_type), (ContentKind::Manifest, Some(MediaType::OCI_MANIFEST)));
    for digest in [config, no_json] {
        let found = node.find(&digest).await.unwrap();
        assert_eq!((found.kind, found.media_type), (ContentKind::Blob, None));
    }
}

#[tokio::test]
async fn a_manifest_that_is_not_what_its_name_says_is_removed() {
    let node = Node::new().await;
    let mut content = manifest();
    let digest = Digest::of(Algorithm::Sha256, &content);
    let last = content.len() - 2;
    content[last] = b' ';
    node.blobs.put_as(digest, &content, BEFORE);
    let rebuilt = node.rebuild.run().await.unwrap();
    assert_eq!(rebuilt, Rebuilt { damaged: 1, finished: true, ..Rebuilt::default() });
    assert!(!node.blobs.holds(&digest));
    assert_eq!(node.find(&digest).await, None);
}

#[tokio::test]
async fn rows_without_files_are_forgotten_and_others_left_as_they_are() {
    let node = Node::new().await;
    let kept = node.blobs.put(b"kept", BEFORE);
    let known = record(kept, 4, Segment::Protected);
    let lost = (0..600).map(|number: u32| Digest::of(Algorithm::Sha256, &number.to_le_bytes()));
    let mut rows: Vec<_> = lost.map(|digest| record(digest, 9, Segment::Probation)).collect();
    rows.push(known.clone());
    node.index.record_content(&rows).await.unwrap();
    let rebuilt = node.rebuild.run().await.unwrap();
    assert_eq!(rebuilt, Rebuilt { forgotten: 600, finished: true, ..Rebuilt::default() });
    assert_eq!(node.index.list_content(None, 10).await.unwrap(), [known]);
}

#[tokio::test]
async fn a_start_with_a_complete_index_only_looks_for_files_without_rows() {
    let node = Node::new().await;
    node.index.record_rebuilt(BEFORE).await.unwrap();
    let lost = Digest::of(Algorithm::Sha256, b"lost");
    node.index.record_content(&[record(lost, 1, Segment::Probation)]).await.unwrap();
    let left_over = node.blobs.put(b"left over", BEFORE);
    let rebuilt = node.rebuild.run_at_start().await.unwrap();
    assert_eq!(rebuilt, Rebuilt { recorded: 1, finished: true, ..Rebuilt::default() });
    assert!(node.find(&left_over).await.is_some());
    assert!(node.find(&lost).await.is_some());
    assert_eq!(node.index.find_rebuilt_at().await.unwrap(), Some(BEFORE));
}

#[tokio::test]
async fn a_rebuild_that_shutdown_stops_is_due_again() {
    let node = Node::new().await;
    let stored = node.blobs.put(b"x", BEFORE);
    node.tasks.shutdown_token().cancel();
    let rebuilt = node.rebuild.run_at_start().await.unwrap();
    assert_eq!(rebuilt, Rebuilt::default());
    assert_eq!(node.index.find_rebuilt_at().await.unwrap(), None);
    assert_eq!(node.find(&stored).await, None);
}

#[tokio::test]
async fn a_file_from_the_future_is_taken_as_stored_now() {
    let node = Node::new().await;
    let stored = node.blobs.put(b"x", NOW.after(Duration::from_secs(1_000_000)));
    node.rebuild.run().await.unwrap();
    assert_eq!(node.find(&stored).await.unwrap().stored_at, NOW);
}

#[tokio::test]
async fn a_few_unreadable_files_are_gone_around_and_many_are_an_error() {
    let node = Node::new().await;
    let mut files = (0..200_u32).map(|number| node.blobs.put(&number.to_le_bytes(), BEFORE));
    for bad in files.by_ref().take(20) {
        node.blobs.spoil(bad);
    }
    let rest: Vec<_> = files.collect();
    let rebuilt = node.rebuild.run().await.unwrap();
    let expected = Rebuilt { recorded: 180, unreadable: 20, finished: true, ..Rebuilt::default() };
    assert_eq!(rebuilt, expected);
    // A row whose file cannot be looked at stays.
    node.blobs.spoil(rest[0]);
    node.rebuild.run().await.unwrap();
    assert!(node.find(&rest[0]).await.is_some());
    for bad in &rest {
        node.blobs.spoil(*bad);
    }
    assert!(matches!(node.rebuild.run().await, Err(UpkeepError::Blobs(_))));
}
