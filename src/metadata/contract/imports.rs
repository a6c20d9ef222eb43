//! Promises about imports.

use std::sync::Arc;

use super::{at, blob, digest, proof, pull, repository};
use crate::metadata::{
    ContentKind, ContentRecord, ImportRecord, ImportedRepository, Listing, ListingKind, NodeIndex,
    ObservedTag, RepositoryId, Segment, TagFate, TagObservation, TagRule,
};
use crate::oci::{AcceptClass, MediaType};

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
        tags: vec![observed("image", 10)],
        listings: vec![page("first", 10)],
    };
    let content = [blob("known", 5, 20), blob("new", 6, 20)];
    let content = content.map(|record| ContentRecord { segment: Segment::Protected, ..record }).into();
    let import = ImportRecord { content, repositories: vec![imported], rule: TagRule::Later };
    assert_eq!(index.record_import(&import).await.unwrap(), [[TagFate::New]]);
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
    let (first, second) = (digest("new"), digest("old"));
    let tag = observed("new", 10).tag;
    for (text, seconds, rule, expected_fate, expected_page) in [
        ("new", 10, TagRule::Later, TagFate::New, "new"),
        ("new", 9, TagRule::Later, TagFate::Same, "new"),
        ("old", 9, TagRule::Later, TagFate::Kept { at: first }, "new"),
        ("old", 9, TagRule::Bundle, TagFate::Moved { from: first }, "new"),
        ("old", 8, TagRule::Bundle, TagFate::Same, "new"),
        ("later", 11, TagRule::Later, TagFate::Moved { from: second }, "later"),
    ] {
        let fates = index.record_import(&import(&here, text, seconds, rule)).await.unwrap();
        assert_eq!(fates, [[expected_fate]], "{text} {seconds}");
        let found = index.find_tag(&here, &tag, &AcceptClass::Any).await.unwrap().unwrap();
        let expected = if matches!(expected_fate, TagFate::Kept { .. }) { "new" } else { text };
        assert_eq!(found.digest, digest(expected), "{text}");
        assert!(found.checked_at >= at(9), "what was looked at later is not made older");
        let found = index.find_listing(&here, ListingKind::Referrers, "key").await.unwrap().unwrap();
        assert_eq!(found.body, expected_page.as_bytes(), "{text}");
    }
}

pub(in crate::metadata) async fn an_import_takes_no_tag_back_that_another_accept_class_saw_later(
    index: &Index,
) {
    let here = repository("docker.io", "a");
    let seen = observed("new", 10);
    let class = AcceptClass::Only(vec![MediaType::OCI_MANIFEST]);
    index.record_tag(&here, &seen.tag, &class, &seen.observation).await.unwrap();
    let fates = index.record_import(&import(&here, "old", 9, TagRule::Later)).await.unwrap();
    assert_eq!(fates, [[TagFate::Kept { at: digest("new") }]]);
    assert_eq!(index.find_tag(&here, &seen.tag, &AcceptClass::Any).await.unwrap(), None);
    // The same manifest can now be asked for by every class.
    let fates = index.record_import(&import(&here, "new", 9, TagRule::Later)).await.unwrap();
    assert_eq!(fates, [[TagFate::Same]]);
    let found = index.find_tag(&here, &seen.tag, &AcceptClass::Any).await.unwrap();
    assert_eq!(found, Some(observed("new", 9).observation));
    let fates = index.record_import(&import(&here, "later", 11, TagRule::Later)).await.unwrap();
    assert_eq!(fates, [[TagFate::Moved { from: digest("new") }]]);
    let found = index.find_tag(&here, &seen.tag, &AcceptClass::Any).await.unwrap().unwrap();
    assert_eq!(found.digest, digest("later"));
}

/// An import of the tag, seen at a moment, and of a listing.
fn import(id: &RepositoryId, text: &str, seconds: u64, rule: TagRule) -> ImportRecord {
    let (tags, listings) = (vec![observed(text, seconds)], vec![page(text, seconds)]);
    let one = ImportedRepository { id: id.clone(), proofs: Vec::new(), tags, listings };
    ImportRecord { content: Vec::new(), repositories: vec![one], rule }
}
