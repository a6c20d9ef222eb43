//! Promises of [`ContentIndex`](crate::metadata::ContentIndex).

use std::sync::Arc;

use super::{at, blob, digest};
use crate::metadata::{ContentKind, ContentRecord, ContentUse, NodeIndex, SECOND_USE_AFTER, Segment};
use crate::oci::{Algorithm, Digest, MediaType};

type Index = Arc<dyn NodeIndex>;

async fn digests_of(index: &Index, segment: Segment) -> Vec<Digest> {
    let records = index.list_least_used(ContentKind::Blob, segment, 100).await.unwrap();
    records.into_iter().map(|record| record.digest).collect()
}

fn use_of(text: &str, seconds: u64) -> ContentUse {
    ContentUse { digest: digest(text), used_at: at(seconds) }
}

pub(in crate::metadata) async fn content_is_found_as_it_was_recorded(index: &Index) {
    let manifest = ContentRecord {
        digest: Digest::of(Algorithm::Sha512, b"manifest"),
        kind: ContentKind::Manifest,
        media_type: Some(MediaType::OCI_INDEX),
        last_used_at: at(7),
        segment: Segment::Protected,
        ..blob("", 1234, 5)
    };
    let empty = blob("empty", 0, 6);
    index.record_content(&[manifest.clone(), empty.clone()]).await.unwrap();
    assert_eq!(index.find_content(&manifest.digest).await.unwrap(), Some(manifest));
    assert_eq!(index.find_content(&empty.digest).await.unwrap(), Some(empty));
    assert_eq!(index.find_content(&digest("unknown")).await.unwrap(), None);
}

pub(in crate::metadata) async fn a_known_item_keeps_its_segment_and_when_it_was_stored(index: &Index) {
    let first = ContentRecord { segment: Segment::Protected, ..blob("x", 10, 100) };
    index.record_content(std::slice::from_ref(&first)).await.unwrap();
    index.record_content(&[blob("x", 11, 900)]).await.unwrap();
    let expected = ContentRecord { size_bytes: 11, last_used_at: at(900), ..first };
    assert_eq!(index.find_content(&digest("x")).await.unwrap(), Some(expected));
}

pub(in crate::metadata) async fn a_known_item_keeps_its_media_type_and_stays_a_manifest(index: &Index) {
    let as_blob = blob("x", 10, 0);
    let as_manifest = ContentRecord {
        kind: ContentKind::Manifest,
        media_type: Some(MediaType::OCI_MANIFEST),
        ..as_blob.clone()
    };
    for record in [&as_blob, &as_manifest, &as_blob] {
        index.record_content(std::slice::from_ref(record)).await.unwrap();
    }
    assert_eq!(index.find_content(&digest("x")).await.unwrap(), Some(as_manifest.clone()));
    let other_type = ContentRecord { media_type: Some(MediaType::DOCKER_MANIFEST), ..as_manifest };
    index.record_content(std::slice::from_ref(&other_type)).await.unwrap();
    assert_eq!(index.find_content(&digest("x")).await.unwrap(), Some(other_type));
}

pub(in crate::metadata) async fn the_last_use_never_moves_back(index: &Index) {
    index.record_content(&[blob("x", 1, 500), blob("y", 1, 300)]).await.unwrap();
    index.record_content(&[blob("x", 1, 100)]).await.unwrap();
    index.record_uses(&[use_of("x", 200)]).await.unwrap();
    assert_eq!(index.find_content(&digest("x")).await.unwrap().unwrap().last_used_at, at(500));
    assert_eq!(digests_of(index, Segment::Probation).await, [digest("y"), digest("x")]);
}

pub(in crate::metadata) async fn forgetting_content_is_idempotent(index: &Index) {
    index.record_content(&[blob("x", 1, 0), blob("y", 1, 0)]).await.unwrap();
    for _ in 0..2 {
        index.remove_content(&[digest("x"), digest("never there")]).await.unwrap();
    }
    index.remove_content(&[]).await.unwrap();
    assert_eq!(index.find_content(&digest("x")).await.unwrap(), None);
    assert!(index.find_content(&digest("y")).await.unwrap().is_some());
}

pub(in crate::metadata) async fn bytes_are_summed_by_segment(index: &Index) {
    assert_eq!(index.content_bytes().await.unwrap(), (0, 0));
    let protected = ContentRecord { segment: Segment::Protected, ..blob("p", 5_000_000_000, 0) };
    index.record_content(&[blob("x", 30, 0), blob("y", 12, 0), protected]).await.unwrap();
    assert_eq!(index.content_bytes().await.unwrap(), (42, 5_000_000_000));
    index.remove_content(&[digest("x")]).await.unwrap();
    assert_eq!(index.content_bytes().await.unwrap(), (12, 5_000_000_000));
}

pub(in crate::metadata) async fn a_use_soon_after_the_first_does_not_promote(index: &Index) {
    let second = SECOND_USE_AFTER.as_secs();
    index.record_content(&[blob("early", 1, 1000), blob("late", 1, 1000)]).await.unwrap();
    index.record_uses(&[use_of("early", 1000 + second - 1), use_of("late", 1000 + second)]).await.unwrap();
    let early = index.find_content(&digest("early")).await.unwrap().unwrap();
    assert_eq!((early.segment, early.last_used_at), (Segment::Probation, at(1000 + second - 1)));
    let late = index.find_content(&digest("late")).await.unwrap().unwrap();
    assert_eq!((late.segment, late.last_used_at), (Segment::Protected, at(1000 + second)));
    // Earlier uses that arrive later do not take it back.
    index.record_uses(&[use_of("late", 1001)]).await.unwrap();
    assert_eq!(index.find_content(&digest("late")).await.unwrap(), Some(late));
}

pub(in crate::metadata) async fn uses_of_unknown_items_are_ignored(index: &Index) {
    index.record_content(&[blob("x", 1, 0)]).await.unwrap();
    index.record_uses(&[use_of("unknown", 100), use_of("x", 100)]).await.unwrap();
    index.record_uses(&[]).await.unwrap();
    assert_eq!(index.find_content(&digest("unknown")).await.unwrap(), None);
    assert_eq!(index.find_content(&digest("x")).await.unwrap().unwrap().last_used_at, at(100));
}

pub(in crate::metadata) async fn the_least_used_come_first_and_segments_stay_apart(index: &Index) {
    let protected = ContentRecord { segment: Segment::Protected, ..blob("p", 1, 0) };
    let records = [blob("c", 1, 3), blob("a", 1, 1), protected, blob("d", 1, 4), blob("b", 1, 2)];
    index.record_content(&records).await.unwrap();
    index.record_uses(&[use_of("a", 10)]).await.unwrap();
    let expected = ["b", "c", "d", "a"].map(digest);
    assert_eq!(digests_of(index, Segment::Probation).await, expected);
    assert_eq!(digests_of(index, Segment::Protected).await, [digest("p")]);
    let two = index.list_least_used(ContentKind::Blob, Segment::Probation, 2).await.unwrap();
    assert_eq!(two, [blob("b", 1, 2), blob("c", 1, 3)]);
    assert_eq!(index.list_least_used(ContentKind::Blob, Segment::Probation, 0).await.unwrap(), []);
}

pub(in crate::metadata) async fn demoted_items_are_the_most_recent_of_probation_in_the_order_given(
    index: &Index,
) {
    let old = |text, seconds| ContentRecord { segment: Segment::Protected, ..blob(text, 1, seconds) };
    let records = [old("p1", 1), old("p2", 2), old("p3", 3), blob("x", 1, 50), blob("y", 1, 60)];
    index.record_content(&records).await.unwrap();
    index.demote_content(&[digest("p2"), digest("p1")]).await.unwrap();
    let expected = ["x", "y", "p2", "p1"].map(digest);
    assert_eq!(digests_of(index, Segment::Probation).await, expected);
    assert_eq!(digests_of(index, Segment::Protected).await, [digest("p3")]);
    let demoted = index.find_content(&digest("p1")).await.unwrap().unwrap();
    assert_eq!((demoted.segment, demoted.last_used_at), (Segment::Probation, at(1)));
    // What is stored later is more recent again.
    index.record_content(&[blob("z", 1, 61)]).await.unwrap();
    assert_eq!(digests_of(index, Segment::Probation).await.last(), Some(&digest("z")));
    // Where probation is empty, an item keeps the place that its last use gives it.
    index.remove_content(&["x", "y", "z", "p1", "p2"].map(digest)).await.unwrap();
    index.demote_content(&[digest("p3")]).await.unwrap();
    assert_eq!(digests_of(index, Segment::Probation).await, [digest("p3")]);
}

pub(in crate::metadata) async fn only_protected_items_are_demoted(index: &Index) {
    index.record_content(&[blob("x", 1, 1), blob("y", 1, 2)]).await.unwrap();
    index.demote_content(&[digest("x"), digest("unknown")]).await.unwrap();
    index.demote_content(&[]).await.unwrap();
    assert_eq!(digests_of(index, Segment::Probation).await, ["x", "y"].map(digest));
}

pub(in crate::metadata) async fn walks_see_every_item_once_in_digest_order(index: &Index) {
    let mut records: Vec<_> = (0_u64..23).map(|n| blob(&n.to_string(), n, n)).collect();
    let long = Digest::of(Algorithm::Sha512, b"long");
    records.push(ContentRecord { digest: long, ..blob("", 1, 1) });
    index.record_content(&records).await.unwrap();
    records.sort_by_key(|record| record.digest);
    let mut seen = Vec::new();
    loop {
        let after = seen.last().map(|record: &ContentRecord| record.digest);
        let page = index.list_content(after.as_ref(), 5).await.unwrap();
        assert!(page.len() <= 5);
        if page.is_empty() {
            break;
        }
        seen.extend(page);
    }
    assert_eq!(seen, records);
}

pub(in crate::metadata) async fn a_new_index_was_never_rebuilt(index: &Index) {
    assert_eq!(index.find_rebuilt_at().await.unwrap(), None);
    for seconds in [5, 9] {
        index.record_rebuilt(at(seconds)).await.unwrap();
        assert_eq!(index.find_rebuilt_at().await.unwrap(), Some(at(seconds)));
    }
}

pub(in crate::metadata) async fn numbers_beyond_the_store_are_kept_as_the_largest(index: &Index) {
    index.record_content(&[blob("x", u64::MAX, 0)]).await.unwrap();
    let largest = u64::try_from(i64::MAX).unwrap();
    assert_eq!(index.find_content(&digest("x")).await.unwrap().unwrap().size_bytes, largest);
}
