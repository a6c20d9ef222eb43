//! Promises of [`ImageRecords`](crate::metadata::ImageRecords) and [`WarmRecords`](crate::metadata::WarmRecords).

use std::sync::Arc;

use super::{at, digest, pull, repository};
use crate::metadata::{Listing, ListingKind, NodeIndex, WarmRecord};

type Index = Arc<dyn NodeIndex>;

pub(in crate::metadata) async fn tags_and_stored_manifests_are_those_of_the_repository(index: &Index) {
    let (here, there) = (repository("docker.io", "a"), repository("quay.io", "a"));
    for (place, text, tag) in [(&here, "m1", "1"), (&here, "m2", "2"), (&there, "m3", "1")] {
        index.record_pull(place, &pull(text, tag)).await.unwrap();
    }
    let tagged = index.list_tagged(&here).await.unwrap();
    let expected = [("1", "m1"), ("2", "m2")].map(|(tag, text)| (tag.parse().unwrap(), digest(text)));
    assert_eq!(tagged, expected);
    let mut manifests = [digest("m1"), digest("m2")];
    manifests.sort();
    assert_eq!(index.list_stored_manifests(&here).await.unwrap(), manifests);
    index.remove_content(&[digest("m1")]).await.unwrap();
    assert_eq!(index.list_stored_manifests(&here).await.unwrap(), [digest("m2")]);
    assert_eq!(index.list_tagged(&here).await.unwrap(), expected, "a tag outlives its manifest's content");
}

pub(in crate::metadata) async fn all_pages_of_a_kind_are_listed_with_their_keys(index: &Index) {
    let here = repository("docker.io", "a");
    let page = |body: &[u8]| Listing { body: body.to_vec(), fetched_at: at(1) };
    for (kind, key) in
        [(ListingKind::Referrers, "x"), (ListingKind::Referrers, "y"), (ListingKind::Tags, "z")]
    {
        index.record_listing(&here, kind, key, &page(key.as_bytes())).await.unwrap();
    }
    let mut found = index.list_listings(&here, ListingKind::Referrers).await.unwrap();
    found.sort_by(|one, other| one.0.cmp(&other.0));
    assert_eq!(found, [("x".to_owned(), page(b"x")), ("y".to_owned(), page(b"y"))]);
}

pub(in crate::metadata) async fn children_are_remembered_while_their_index_is_known(index: &Index) {
    let here = repository("docker.io", "a");
    index.record_pull(&here, &pull("tagged", "1")).await.unwrap();
    for parent in ["tagged", "gone"] {
        for _ in 0..2 {
            index.record_children(&digest(parent), &[digest("amd64"), digest("arm64")]).await.unwrap();
        }
        assert_eq!(index.list_children(&digest(parent)).await.unwrap().len(), 2);
    }
    index.remove_content(&[digest("tagged"), digest("amd64")]).await.unwrap();
    index.remove_orphaned_children().await.unwrap();
    assert_eq!(index.list_children(&digest("tagged")).await.unwrap().len(), 2);
    assert_eq!(index.list_children(&digest("gone")).await.unwrap(), []);
}

pub(in crate::metadata) async fn orders_are_unfinished_until_they_are_recorded_as_done(index: &Index) {
    let order = |id: &str, begun: u64, finished: Option<u64>| WarmRecord {
        id: id.to_owned(),
        body: format!("{{\"{id}\":1}}"),
        begun_at: at(begun),
        finished_at: finished.map(at),
    };
    for record in [order("b", 2, None), order("a", 1, None), order("c", 3, Some(4))] {
        index.record_warm(&record).await.unwrap();
        assert_eq!(index.find_warm(&record.id).await.unwrap(), Some(record));
    }
    assert_eq!(index.list_unfinished_warm().await.unwrap(), [order("a", 1, None), order("b", 2, None)]);
    index.record_warm(&order("a", 5, Some(6))).await.unwrap();
    assert_eq!(index.list_unfinished_warm().await.unwrap(), [order("b", 2, None)]);
    for _ in 0..2 {
        index.remove_warm("b").await.unwrap();
    }
    assert_eq!(index.find_warm("b").await.unwrap(), None);
}
