//! The contract of [`Verifications`](crate::metadata::Verifications).

use std::sync::Arc;

use super::{at, blob, digest, repository};
use crate::metadata::{NodeIndex, PinReason, PinRecord};
use crate::oci::Digest;
use crate::runtime::Timestamp;

async fn unverified(index: &Arc<dyn NodeIndex>, since: Timestamp, limit: u32) -> Vec<Digest> {
    let found = index.list_unverified(since, limit).await.unwrap();
    found.into_iter().map(|record| record.digest).collect()
}

/// Content counts as verified when it was stored; what has waited longest is next.
pub(in crate::metadata) async fn what_was_verified_longest_ago_is_next(index: &Arc<dyn NodeIndex>) {
    index.record_content(&[blob("new", 1, 30), blob("old", 2, 10), blob("middle", 3, 20)]).await.unwrap();
    assert_eq!(unverified(index, at(25), 10).await, [digest("old"), digest("middle")]);
    assert_eq!(index.list_unverified(at(10), 10).await.unwrap(), [blob("old", 2, 10)]);
    assert_eq!(unverified(index, at(9), 10).await, []);
    index.record_verified(&[digest("old"), digest("unknown")], at(40)).await.unwrap();
    assert_eq!(unverified(index, at(99), 2).await, [digest("middle"), digest("new")]);
    index.record_verified(&[digest("new")], Timestamp::default()).await.unwrap();
    assert_eq!(unverified(index, at(99), 10).await, [digest("new"), digest("middle"), digest("old")]);
    // It came again, and was verified on the way.
    index.record_content(&[blob("new", 1, 50)]).await.unwrap();
    assert_eq!(unverified(index, at(99), 10).await, [digest("middle"), digest("old"), digest("new")]);
    let filter = crate::metadata::HoldingFilter::default();
    let here = repository("up", "a");
    let proof = |text| super::proof(text, crate::metadata::ContentKind::Blob);
    index.record_proofs(&here, &[proof("old"), proof("middle")]).await.unwrap();
    index.record_verified(&[digest("middle")], Timestamp::default()).await.unwrap();
    let held = index.list_holdings(&filter, None, 10).await.unwrap();
    let told = |text| held.iter().find(|held| held.content.digest == digest(text)).unwrap().verified_at;
    assert_eq!((told("old"), told("middle")), (Some(at(40)), None));
}

/// Pinned content comes before all other, and once only.
pub(in crate::metadata) async fn pinned_content_is_verified_first(index: &Arc<dyn NodeIndex>) {
    let items = ["a", "b", "c", "d"].map(|text| blob(text, 1, 10));
    index.record_content(&items).await.unwrap();
    for reference in ["1", "2"] {
        let pin = PinRecord {
            repository: repository("up", "a"),
            reference: reference.parse().unwrap(),
            digest: digest("c"),
            reason: PinReason::Order,
            pinned_at: at(0),
        };
        index.record_pin(&pin, &[digest("d"), digest("not here")]).await.unwrap();
    }
    let mut pinned = [digest("c"), digest("d")];
    let mut others = [digest("a"), digest("b")];
    pinned.sort();
    others.sort();
    assert_eq!(unverified(index, at(10), 10).await, [pinned, others].concat());
    assert_eq!(unverified(index, at(10), 1).await, pinned[..1]);
    assert_eq!(unverified(index, at(10), 3).await.len(), 3);
    index.record_verified(&pinned, at(20)).await.unwrap();
    assert_eq!(unverified(index, at(10), 10).await, others);
}
