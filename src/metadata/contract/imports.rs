//! Promises about imports.

use std::sync::Arc;

use super::{at, blob, digest, proof, pull, repository};
use crate::metadata::{
    ContentKind, ImportRecord, ImportedRepository, Listing, ListingKind, NodeIndex, ObservedTag, Segment,
    TagObservation,
};
use crate::oci::AcceptClass;

type Index = Arc<dyn NodeIndex>;

/// The tag `v1`, seen at a moment.
fn observed(text: &str, seconds: u64) -> ObservedTag {
    let tag = pull(text, "v1").tag.unwrap();
    let observation = TagObservation { checked_at: at(seconds), ..tag.observation };
    ObservedTag { observation, ..tag }
}

fn page(text: &str, seconds: u64) -> (ListingKind, String, Listing) {
    let listing = Listing { body: text.into(), fetched_at: at(seconds) };
    (ListingKind::Referrers, "key".to_owned(), listing)
}

pub(in crate::metadata) async fn an_import_is_recorded_whole_and_protected(index: &Index) {
    let here = repository("docker.io", "a");
    index.record_content(&[blob("known", 5, 0)]).await.unwrap();
    let imported = ImportedRepository {
        id: here.clone(),
        proofs: vec![proof("known", ContentKind::Blob), proof("new", ContentKind::Blob)],
        tags: vec![(observed("image", 10), false)],
        listings: vec![page("first", 10)],
    };
    let content = vec![blob("known", 5, 20), blob("new", 6, 20)];
    index.record_import(&ImportRecord { content, repositories: vec![imported] }).await.unwrap();
    for text in ["known", "new"] {
        let found = index.find_content(&digest(text)).await.unwrap().unwrap();
        assert_eq!((found.segment, found.last_used_at), (Segment::Protected, at(20)));
        assert!(index.find_proof(&here, ContentKind::Blob, &digest(text)).await.unwrap().is_some());
    }
    let tag = observed("image", 10);
    let found = index.find_tag(&here, &tag.tag, &AcceptClass::Any).await.unwrap();
    assert_eq!(found, Some(tag.observation));
    let found = index.find_listing(&here, ListingKind::Referrers, "key").await.unwrap();
    assert_eq!(found, Some(page("first", 10).2));
}

pub(in crate::metadata) async fn an_import_takes_nothing_back_unless_it_is_told_to(index: &Index) {
    let here = repository("docker.io", "a");
    let import = |text: &str, seconds: u64, replaces: bool| {
        let tags = vec![(observed(text, seconds), replaces)];
        let listings = vec![page(text, seconds)];
        let one = ImportedRepository { id: here.clone(), proofs: Vec::new(), tags, listings };
        ImportRecord { content: Vec::new(), repositories: vec![one] }
    };
    let tag = observed("new", 10).tag;
    for (text, seconds, replaces, expected_tag, expected_page) in [
        ("new", 10, false, "new", "new"),
        ("old", 9, false, "new", "new"),
        ("old", 9, true, "old", "new"),
        ("later", 11, false, "later", "later"),
    ] {
        index.record_import(&import(text, seconds, replaces)).await.unwrap();
        let found = index.find_tag(&here, &tag, &AcceptClass::Any).await.unwrap().unwrap();
        assert_eq!(found.digest, digest(expected_tag), "{text}");
        let found = index.find_listing(&here, ListingKind::Referrers, "key").await.unwrap().unwrap();
        assert_eq!(found.body, expected_page.as_bytes(), "{text}");
    }
}
