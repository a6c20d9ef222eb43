//! Promises of [`Collection`](crate::metadata::catalogue::Collection).

use std::sync::Arc;

use super::{at, blob, digest, hosted, keep_for, push, push_image, record_blob, stamp, tag};
use crate::metadata::catalogue::{
    Catalogue, CatalogueError, ChangeKind, CondemnedBlob, ContentUse, Horizon, ManifestPush, Presence,
    Prospect, StrayBlob,
};
use crate::oci::Digest;

type Subject = Arc<dyn Catalogue>;

/// What a collection at that moment compares with, where nothing has grace.
fn horizon(seconds: u64) -> Horizon {
    Horizon { now: at(seconds), grace_since: at(seconds) }
}

/// Collects everything that was not needed any more at that moment, in the smallest steps, and says which blobs went.
/// What was foreseen has to come true.
async fn collect(catalogue: &Subject, seconds: u64) -> Vec<Digest> {
    let (horizon, stamp) = (horizon(seconds), stamp(seconds));
    let foreseen = catalogue.foresee_collection(horizon).await.unwrap();
    let mut removed = Prospect::default();
    while catalogue.seal_due_places(horizon.now, 1, &stamp).await.unwrap() > 0 {}
    loop {
        let purged = catalogue.purge_sealed(1).await.unwrap();
        removed.repositories += purged.repositories;
        removed.manifests += purged.manifests;
        removed.links += purged.links;
        if !purged.is_unfinished {
            break;
        }
    }
    loop {
        let collected = catalogue.collect_manifests(horizon, 1, &stamp).await.unwrap();
        removed.manifests += u64::from(collected);
        if collected == 0 {
            break;
        }
    }
    let mut after = None;
    loop {
        let sweep = catalogue.collect_links(horizon.grace_since, after, 1).await.unwrap();
        removed.links += u64::from(sweep.collected);
        after = sweep.next;
        if after.is_none() {
            break;
        }
    }
    let mut after = None;
    loop {
        let sweep =
            catalogue.condemn_blobs(horizon.grace_since, after.as_ref(), 1, horizon.now).await.unwrap();
        after = sweep.next;
        if after.is_none() {
            break;
        }
    }
    let condemned = catalogue.list_condemned_blobs(99).await.unwrap();
    for blob in &condemned {
        removed.blobs += 1;
        removed.bytes += blob.size_bytes;
        catalogue.forget_blob(&blob.digest).await.unwrap();
    }
    assert_eq!(removed, foreseen);
    condemned.into_iter().map(|blob| blob.digest).collect()
}

pub(in crate::metadata::catalogue) async fn what_was_deleted_is_collected_after_its_time(
    catalogue: &Subject,
) {
    let here = hosted(catalogue, "a/here").await;
    keep_for(catalogue, "a", 0).await;
    let child = push_image(catalogue, &here, "child", &[], 10).await;
    let index = ManifestPush { children: vec![child], ..push("index", &[], &["v1"]) };
    let top = index.manifest.digest;
    catalogue.push_manifest(&here, &index, &stamp(10)).await.unwrap();
    catalogue.delete_manifest(&here, &top, &stamp(20)).await.unwrap();
    catalogue.delete_manifest(&here, &child, &stamp(20)).await.unwrap();
    // Not yet: everything can come back.
    assert_eq!(collect(catalogue, 20).await, []);
    catalogue.restore_tag(&here, &tag("v1"), &top, &stamp(25)).await.unwrap();
    assert_eq!(collect(catalogue, 90).await, []);
    catalogue.delete_manifest(&here, &child, &stamp(30)).await.unwrap();
    catalogue.delete_manifest(&here, &top, &stamp(30)).await.unwrap();
    assert_eq!(collect(catalogue, 31).await, [digest("layer of child")]);
    let gone = catalogue.restore_tag(&here, &tag("v1"), &top, &stamp(32)).await;
    assert!(matches!(gone, Err(CatalogueError::ManifestUnknown)), "{gone:?}");
    assert_eq!(catalogue.list_condemned_blobs(9).await.unwrap(), []);
    assert_eq!(catalogue.find_blob(&here, &digest("layer of child")).await.unwrap(), None);
    // And everything may be pushed again.
    push_image(catalogue, &here, "child", &[], 40).await;
    catalogue.push_manifest(&here, &index, &stamp(40)).await.unwrap();
    assert!(catalogue.find_manifest(&here, &top).await.unwrap().is_some());
}

pub(in crate::metadata::catalogue) async fn what_is_needed_is_never_collected(catalogue: &Subject) {
    let (here, there) = (hosted(catalogue, "a/here").await, hosted(catalogue, "a/there").await);
    keep_for(catalogue, "a", 0).await;
    // A deleted child of an index that is there, an image of another repository, a blob that waits for its manifest.
    let child = push_image(catalogue, &here, "child", &[], 10).await;
    let index = ManifestPush { children: vec![child], ..push("index", &[], &[]) };
    catalogue.push_manifest(&here, &index, &stamp(10)).await.unwrap();
    catalogue.delete_manifest(&here, &child, &stamp(20)).await.unwrap();
    for repository in [&here, &there] {
        push_image(catalogue, repository, "shared", &[], 10).await;
    }
    catalogue.delete_manifest(&here, &digest("shared"), &stamp(20)).await.unwrap();
    record_blob(catalogue, &here, &blob("fresh"), None, &stamp(50)).await.unwrap();
    record_blob(catalogue, &here, &blob("stale"), None, &stamp(20)).await.unwrap();
    assert_eq!(collect(catalogue, 50).await, [digest("stale")]);
    assert!(catalogue.find_blob(&here, &digest("fresh")).await.unwrap().is_some());
    assert!(catalogue.find_blob(&here, &digest("layer of child")).await.unwrap().is_some());
    assert_eq!(catalogue.find_blob(&here, &digest("layer of shared")).await.unwrap(), None);
    assert!(catalogue.find_blob(&there, &digest("layer of shared")).await.unwrap().is_some());
    assert!(catalogue.find_manifest(&there, &digest("shared")).await.unwrap().is_some());
    // A mount and an announcement begin the grace time again.
    record_blob(catalogue, &here, &blob("moving"), None, &stamp(60)).await.unwrap();
    catalogue.mount_blob(&there, &digest("moving"), &here, &stamp(70)).await.unwrap();
    record_blob(catalogue, &here, &blob("coming"), None, &stamp(60)).await.unwrap();
    catalogue.delete_blob(&here, &digest("coming")).await.unwrap();
    catalogue.announce_blob(&digest("coming"), at(70)).await.unwrap();
    assert_eq!(collect(catalogue, 70).await, [digest("fresh")]);
    assert!(catalogue.find_blob(&there, &digest("moving")).await.unwrap().is_some());
}

pub(in crate::metadata::catalogue) async fn a_blob_that_is_being_removed_is_linked_to_nothing(
    catalogue: &Subject,
) {
    let here = hosted(catalogue, "a/here").await;
    keep_for(catalogue, "a", 0).await;
    let layer = blob("layer");
    record_blob(catalogue, &here, &layer, None, &stamp(1)).await.unwrap();
    catalogue.delete_blob(&here, &layer.digest).await.unwrap();
    let condemned = catalogue.condemn_blobs(at(9), None, 9, at(9)).await.unwrap().condemned;
    let expected = CondemnedBlob {
        digest: layer.digest,
        size_bytes: layer.size_bytes,
        locations: layer.locations.clone(),
    };
    assert_eq!(condemned, std::slice::from_ref(&expected));
    assert_eq!(catalogue.list_condemned_blobs(9).await.unwrap(), [expected]);
    assert_eq!(catalogue.condemn_blobs(at(9), None, 9, at(9)).await.unwrap().condemned, []);
    for refused in [
        catalogue.record_blob(&here, &layer, None, &stamp(10)).await,
        catalogue.announce_blob(&layer.digest, at(10)).await,
    ] {
        assert!(matches!(&refused, Err(error) if error.is_transient()), "{refused:?}");
    }
    for _ in 0..2 {
        catalogue.forget_blob(&layer.digest).await.unwrap();
    }
    catalogue.announce_blob(&layer.digest, at(11)).await.unwrap();
    record_blob(catalogue, &here, &layer, None, &stamp(11)).await.unwrap();
    // What is not condemned is not forgotten.
    catalogue.forget_blob(&layer.digest).await.unwrap();
    assert_eq!(catalogue.find_blob(&here, &layer.digest).await.unwrap(), Some(layer));
}

pub(in crate::metadata::catalogue) async fn what_lost_its_last_tag_goes_with_all_that_it_held(
    catalogue: &Subject,
) {
    let here = hosted(catalogue, "a/here").await;
    keep_for(catalogue, "a", 100).await;
    let child = push_image(catalogue, &here, "child", &[], 10).await;
    let index = ManifestPush { children: vec![child], ..push("index", &[], &["v1"]) };
    let top = index.manifest.digest;
    catalogue.push_manifest(&here, &index, &stamp(10)).await.unwrap();
    let mut signature = push("signature", &[], &[]);
    signature.manifest.subject = Some(child);
    catalogue.push_manifest(&here, &signature, &stamp(10)).await.unwrap();
    // Never tagged, never held: it stays until somebody deletes it.
    let alone = push_image(catalogue, &here, "alone", &[], 10).await;
    push_image(catalogue, &here, "next", &["v1"], 50).await;
    assert_eq!(collect(catalogue, 150).await, []);
    // Who asks for it by its digest has it stay as long again.
    let used = |seconds| ContentUse { repository: here.clone(), digest: top, used_at: at(seconds) };
    catalogue.record_uses(&[used(120), used(110)]).await.unwrap();
    assert_eq!(collect(catalogue, 220).await, []);
    assert_eq!(collect(catalogue, 221).await, [digest("layer of child")]);
    for gone in [top, child, signature.manifest.digest] {
        assert_eq!(catalogue.find_manifest(&here, &gone).await.unwrap(), None);
    }
    assert!(catalogue.find_manifest(&here, &alone).await.unwrap().is_some());
    let history = catalogue.list_tag_history(&here, &tag("v1"), None, 9).await.unwrap();
    assert_eq!(history.iter().map(|row| row.is_restorable).collect::<Vec<_>>(), [true, false]);
}

pub(in crate::metadata::catalogue) async fn a_manifest_without_a_tag_stays_where_a_policy_or_a_push_keeps_it(
    catalogue: &Subject,
) {
    let (here, there) = (hosted(catalogue, "a/here").await, hosted(catalogue, "b/there").await);
    let policy = r#"{"restore_for_ms":0,"keep_untagged":true}"#;
    catalogue.set_namespace_policy(&"a".parse().unwrap(), policy, &stamp(0)).await.unwrap();
    keep_for(catalogue, "b", 0).await;
    for repository in [&here, &there] {
        push_image(catalogue, repository, "image", &["v1"], 10).await;
        catalogue.delete_tag(repository, &tag("v1"), &stamp(20)).await.unwrap();
    }
    // A push that found it there relies on it, though it changed nothing.
    push_image(catalogue, &here, "image", &[], 30).await;
    assert_eq!(collect(catalogue, 30).await, []);
    assert!(catalogue.find_manifest(&there, &digest("image")).await.unwrap().is_some());
    assert_eq!(collect(catalogue, 31).await, []);
    assert_eq!(catalogue.find_manifest(&there, &digest("image")).await.unwrap(), None);
    assert!(catalogue.find_manifest(&here, &digest("image")).await.unwrap().is_some());
}

pub(in crate::metadata::catalogue) async fn what_is_asked_for_begins_its_grace_time_again(
    catalogue: &Subject,
) {
    let here = hosted(catalogue, "a/here").await;
    record_blob(catalogue, &here, &blob("layer"), None, &stamp(1)).await.unwrap();
    let used = ContentUse { repository: here.clone(), digest: digest("layer"), used_at: at(50) };
    let elsewhere = ContentUse { repository: "a/none".parse().unwrap(), ..used.clone() };
    catalogue.record_uses(&[elsewhere, used]).await.unwrap();
    assert_eq!(collect(catalogue, 50).await, []);
    assert_eq!(collect(catalogue, 51).await, [digest("layer")]);
}

pub(in crate::metadata::catalogue) async fn a_place_that_was_deleted_long_ago_is_purged_for_good(
    catalogue: &Subject,
) {
    let (one, two, other) = (
        hosted(catalogue, "a/one").await,
        hosted(catalogue, "a/two").await,
        hosted(catalogue, "b/other").await,
    );
    keep_for(catalogue, "a", 100).await;
    for repository in [&one, &two, &other] {
        push_image(catalogue, repository, "image", &["v1"], 10).await;
    }
    push_image(catalogue, &one, "only here", &["v2"], 10).await;
    catalogue.start_upload(&one, "upload", &stamp(10)).await.unwrap();
    catalogue.delete_repository(&one, &stamp(20)).await.unwrap();
    assert_eq!(collect(catalogue, 120).await, []);
    catalogue.restore_repository(&one, &stamp(121)).await.unwrap();
    catalogue.delete_repository(&one, &stamp(130)).await.unwrap();
    // Sealed, and not emptied yet: unknown already, and no part of a new one of the same name.
    assert_eq!(catalogue.seal_due_places(at(231), 9, &stamp(231)).await.unwrap(), 1);
    let unknown = catalogue.restore_repository(&one, &stamp(231)).await;
    assert!(matches!(unknown, Err(CatalogueError::RepositoryUnknown)), "{unknown:?}");
    assert_eq!(catalogue.list_repositories(Presence::Deleted, None, 9).await.unwrap(), []);
    assert_eq!(catalogue.list_silent_uploads(at(99), 9).await.unwrap(), []);
    catalogue.create_repository(&one, &stamp(231)).await.unwrap();
    assert_eq!(catalogue.list_tags(&one, None, 9).await.unwrap(), []);
    assert_eq!(catalogue.list_tag_history(&one, &tag("v1"), None, 9).await.unwrap(), []);
    assert_eq!(collect(catalogue, 232).await, [digest("layer of only here")]);
    assert!(catalogue.find_manifest(&two, &digest("image")).await.unwrap().is_some());

    catalogue.delete_namespace(&"a".parse().unwrap(), &stamp(300)).await.unwrap();
    assert_eq!(collect(catalogue, 400).await, []);
    assert_eq!(catalogue.seal_due_places(at(401), 9, &stamp(401)).await.unwrap(), 1);
    let unknown = catalogue.restore_namespace(&"a".parse().unwrap(), &stamp(401)).await;
    assert!(matches!(unknown, Err(CatalogueError::NamespaceUnknown)), "{unknown:?}");
    assert_eq!(catalogue.find_deleted_namespace(&"a".parse().unwrap()).await.unwrap(), None);
    assert_eq!(collect(catalogue, 401).await, []);
    assert_eq!(catalogue.list_namespaces(Presence::Deleted, None, 9).await.unwrap(), []);
    // The name may be taken again, and begins with nothing.
    hosted(catalogue, "a/two").await;
    assert_eq!(catalogue.find_namespace_policy(&"a".parse().unwrap()).await.unwrap().unwrap(), "{}");
    assert_eq!(catalogue.list_tags(&two, None, 9).await.unwrap(), []);
    assert!(catalogue.find_manifest(&other, &digest("image")).await.unwrap().is_some());
    let kinds: Vec<_> = catalogue.list_changes(0, 99).await.unwrap().iter().map(|one| one.kind).collect();
    for kind in [ChangeKind::RepositoryPurged, ChangeKind::NamespacePurged] {
        assert_eq!(kinds.iter().filter(|seen| **seen == kind).count(), 1, "{kind:?}");
    }
}

pub(in crate::metadata::catalogue) async fn a_namespace_that_is_created_while_it_is_purged_begins_with_nothing(
    catalogue: &Subject,
) {
    let here = hosted(catalogue, "a/here").await;
    keep_for(catalogue, "a", 5).await;
    push_image(catalogue, &here, "image", &["v1"], 10).await;
    catalogue.delete_namespace(&"a".parse().unwrap(), &stamp(20)).await.unwrap();
    assert_eq!(catalogue.seal_due_places(at(30), 9, &stamp(30)).await.unwrap(), 1);
    hosted(catalogue, "a/here").await;
    assert_eq!(catalogue.find_namespace_policy(&"a".parse().unwrap()).await.unwrap().unwrap(), "{}");
    assert_eq!(catalogue.list_tags(&here, None, 9).await.unwrap(), []);
    assert_eq!(collect(catalogue, 40).await, [digest("layer of image")]);
    assert!(catalogue.find_repository(&here).await.unwrap().is_some());
}

pub(in crate::metadata::catalogue) async fn content_that_is_unknown_is_condemned_unless_a_push_announced_it(
    catalogue: &Subject,
) {
    let here = hosted(catalogue, "a/here").await;
    let stray = |text: &str| StrayBlob {
        digest: digest(text),
        size_bytes: text.len() as u64,
        location: "store".into(),
    };
    record_blob(catalogue, &here, &blob("known"), None, &stamp(1)).await.unwrap();
    catalogue.announce_blob(&digest("coming"), at(20)).await.unwrap();
    catalogue.announce_blob(&digest("given up"), at(9)).await.unwrap();
    let all = ["known", "coming", "given up", "left"].map(digest);
    let unknown = catalogue.find_unknown_blobs(&all, at(10)).await.unwrap();
    assert_eq!(unknown, [digest("given up"), digest("left")]);
    for (text, is_condemned) in [("known", false), ("coming", false), ("given up", true), ("left", true)] {
        let condemned = catalogue.condemn_stray(&stray(text), at(10), at(30)).await.unwrap();
        assert_eq!(condemned, is_condemned, "{text}");
    }
    // The push that was given up comes back to life, too late; and one that begins now is too early.
    for text in ["given up", "left"] {
        let refused = catalogue.record_blob(&here, &blob(text), None, &stamp(31)).await;
        assert!(matches!(refused, Err(CatalogueError::BlobLeaving(_))), "{refused:?}");
        let refused = catalogue.announce_blob(&digest(text), at(31)).await;
        assert!(matches!(refused, Err(CatalogueError::BlobLeaving(_))), "{refused:?}");
        catalogue.forget_blob(&digest(text)).await.unwrap();
        let refused = catalogue.record_blob(&here, &blob(text), None, &stamp(32)).await;
        assert!(matches!(refused, Err(CatalogueError::BlobLeaving(_))), "{refused:?}");
        record_blob(catalogue, &here, &blob(text), None, &stamp(33)).await.unwrap();
    }
    catalogue.record_blob(&here, &blob("coming"), None, &stamp(34)).await.unwrap();
    catalogue.announce_blob(&digest("never"), at(40)).await.unwrap();
    assert_eq!(catalogue.forget_announcements(at(40), 9).await.unwrap(), 0);
    assert_eq!(catalogue.forget_announcements(at(41), 9).await.unwrap(), 1);
}

pub(in crate::metadata::catalogue) async fn a_lease_has_one_holder_until_it_ends(catalogue: &Subject) {
    let take = async |holder: &str, seconds| {
        catalogue.take_lease("work", holder, at(seconds), at(seconds + 10)).await.unwrap()
    };
    assert!(take("one", 0).await);
    assert!(!take("two", 5).await && take("one", 5).await && !take("two", 15).await);
    assert!(take("two", 16).await && !take("one", 17).await);
    catalogue.end_lease("work", "one").await.unwrap();
    assert!(!take("one", 18).await);
    catalogue.end_lease("work", "two").await.unwrap();
    assert!(take("one", 19).await);
}
