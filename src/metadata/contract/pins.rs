//! Promises of [`Pins`](crate::metadata::Pins).

use std::sync::Arc;

use super::{at, blob, digest, proof, pull, repository};
use crate::metadata::{
    AccessProof, ContentKind, ContentUse, HoldingFilter, NodeIndex, PinReason, PinRecord, PinnedSums,
    PullRecord, SECOND_USE_AFTER, Segment,
};
use crate::oci::Digest;

type Index = Arc<dyn NodeIndex>;

fn pin(reference: &str, text: &str, reason: PinReason, seconds: u64) -> PinRecord {
    PinRecord {
        repository: repository("docker.io", "a"),
        reference: reference.parse().unwrap(),
        digest: digest(text),
        reason,
        pinned_at: at(seconds),
    }
}

fn sorted(texts: &[&str]) -> Vec<Digest> {
    let mut digests: Vec<_> = texts.iter().map(|text| digest(text)).collect();
    digests.sort();
    digests
}

pub(in crate::metadata) async fn pins_are_found_as_they_were_recorded(index: &Index) {
    let by_tag = pin("1", "m1", PinReason::Order, 1);
    let by_digest = pin(&digest("m2").to_string(), "m2", PinReason::Order, 2);
    index.record_pin(&by_tag, &[digest("layer"), digest("absent")]).await.unwrap();
    index.record_pin(&by_digest, &[digest("layer"), digest("m2")]).await.unwrap();
    index.record_content(&[blob("layer", 10, 0), blob("m1", 5, 0)]).await.unwrap();
    let id = &by_tag.repository;
    assert_eq!(index.find_pin(id, &by_tag.reference).await.unwrap(), Some(by_tag.clone()));
    assert_eq!(index.find_pin(&repository("quay.io", "a"), &by_tag.reference).await.unwrap(), None);
    let listed = index.list_pins().await.unwrap();
    let told: Vec<_> = listed.iter().map(|pin| (pin.items, pin.stored, pin.stored_bytes)).collect();
    assert_eq!(told, [(3, 2, 15), (2, 1, 10)]);
    assert_eq!(listed.into_iter().map(|pin| pin.record).collect::<Vec<_>>(), [by_tag.clone(), by_digest]);
    assert_eq!(index.list_pinned_content().await.unwrap(), sorted(&["m1", "m2", "layer", "absent"]));
    let sums = PinnedSums { pins: 2, bytes: 15, protected_bytes: 0 };
    assert_eq!(index.sum_pinned().await.unwrap(), sums, "what two cover counts once");
    let again = ContentUse { digest: digest("layer"), used_at: at(0).after(SECOND_USE_AFTER) };
    index.record_uses(&[again]).await.unwrap();
    assert_eq!(index.sum_pinned().await.unwrap(), PinnedSums { protected_bytes: 10, ..sums });
    assert!(index.remove_pin(id, &by_tag.reference).await.unwrap());
    assert!(!index.remove_pin(id, &by_tag.reference).await.unwrap());
    assert_eq!(index.find_pin(id, &by_tag.reference).await.unwrap(), None);
    assert_eq!(index.list_pinned_content().await.unwrap(), sorted(&["m2", "layer"]));
}

pub(in crate::metadata) async fn a_later_pin_takes_the_place_and_keeps_an_order(index: &Index) {
    let id = repository("docker.io", "a");
    let reference = "1".parse().unwrap();
    index.record_pin(&pin("1", "m1", PinReason::Deleted, 1), &[digest("old")]).await.unwrap();
    index.record_pin(&pin("1", "m2", PinReason::Order, 2), &[digest("new")]).await.unwrap();
    index.record_pin(&pin("1", "m2", PinReason::Deleted, 3), &[digest("new")]).await.unwrap();
    let expected = pin("1", "m2", PinReason::Order, 1);
    assert_eq!(index.find_pin(&id, &reference).await.unwrap(), Some(expected));
    assert_eq!(index.list_pin_parts(&id, &reference).await.unwrap(), sorted(&["m2", "new"]));
}

pub(in crate::metadata) async fn pinned_content_is_never_among_the_least_used(index: &Index) {
    index.record_content(&[blob("pinned", 1, 1), blob("other", 1, 2)]).await.unwrap();
    index.record_pin(&pin("1", "m1", PinReason::Order, 1), &[digest("pinned")]).await.unwrap();
    let least = async || {
        let found = index.list_least_used(ContentKind::Blob, Segment::Probation, 5).await.unwrap();
        found.iter().map(|record| record.digest).collect::<Vec<_>>()
    };
    assert_eq!(least().await, [digest("other")]);
    let proofs = ["pinned", "other"].map(|text| proof(text, ContentKind::Blob));
    index.record_proofs(&repository("docker.io", "a"), &proofs).await.unwrap();
    let held = index.list_holdings(&HoldingFilter::default(), None, 5).await.unwrap();
    for holding in held {
        assert_eq!(holding.is_pinned, holding.content.digest == digest("pinned"));
    }
    let sums = index.sum_holdings().await.unwrap();
    assert!(sums.iter().all(|sums| (sums.bytes, sums.pinned_bytes) == (2, 1)), "{sums:?}");
    index.remove_pin(&repository("docker.io", "a"), &"1".parse().unwrap()).await.unwrap();
    assert_eq!(least().await, [digest("pinned"), digest("other")]);
}

pub(in crate::metadata) async fn what_comes_later_is_covered_when_it_comes(index: &Index) {
    let id = repository("docker.io", "a");
    let reference = "1".parse().unwrap();
    index.record_pin(&pin("1", "index", PinReason::Order, 1), &[digest("amd64")]).await.unwrap();
    for text in ["amd64", "unrelated"] {
        let layer = AccessProof { digest: digest(&format!("{text} layer")), ..proof("x", ContentKind::Blob) };
        let record =
            PullRecord { proofs: vec![proof(text, ContentKind::Manifest), layer], ..pull(text, "2") };
        index.record_pull(&id, &PullRecord { tag: None, ..record }).await.unwrap();
    }
    let expected = sorted(&["index", "amd64", "amd64 layer"]);
    assert_eq!(index.list_pin_parts(&id, &reference).await.unwrap(), expected);
}
