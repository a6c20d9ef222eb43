//! Promises of [`Collection`](crate::metadata::catalogue::Collection).

use std::sync::Arc;

use super::{at, blob, digest, hosted, push, push_image, stamp, tag};
use crate::metadata::catalogue::{Catalogue, CatalogueError, CondemnedBlob, ManifestPush};
use crate::oci::Digest;

type Subject = Arc<dyn Catalogue>;

/// Collects everything that was not needed any more at that moment, and says which blobs went.
async fn collect(catalogue: &Subject, seconds: u64) -> Vec<Digest> {
    while catalogue.collect_manifests(at(seconds), 1, &stamp(seconds)).await.unwrap() > 0 {}
    while catalogue.collect_links(at(seconds), 1).await.unwrap() > 0 {}
    while !catalogue.condemn_blobs(at(seconds), 1, at(seconds)).await.unwrap().is_empty() {}
    let condemned = catalogue.list_condemned_blobs(99).await.unwrap();
    for blob in &condemned {
        catalogue.forget_blob(&blob.digest).await.unwrap();
    }
    condemned.into_iter().map(|blob| blob.digest).collect()
}

pub(in crate::metadata::catalogue) async fn what_was_deleted_is_collected_after_its_time(
    catalogue: &Subject,
) {
    let here = hosted(catalogue, "a/here").await;
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
    // A deleted child of an index that is there, an image of another repository, a blob that waits for its manifest.
    let child = push_image(catalogue, &here, "child", &[], 10).await;
    let index = ManifestPush { children: vec![child], ..push("index", &[], &[]) };
    catalogue.push_manifest(&here, &index, &stamp(10)).await.unwrap();
    catalogue.delete_manifest(&here, &child, &stamp(20)).await.unwrap();
    for repository in [&here, &there] {
        push_image(catalogue, repository, "shared", &[], 10).await;
    }
    catalogue.delete_manifest(&here, &digest("shared"), &stamp(20)).await.unwrap();
    catalogue.record_blob(&here, &blob("fresh"), None, &stamp(50)).await.unwrap();
    catalogue.record_blob(&here, &blob("stale"), None, &stamp(20)).await.unwrap();
    assert_eq!(collect(catalogue, 50).await, [digest("stale")]);
    assert!(catalogue.find_blob(&here, &digest("fresh")).await.unwrap().is_some());
    assert!(catalogue.find_blob(&here, &digest("layer of child")).await.unwrap().is_some());
    assert_eq!(catalogue.find_blob(&here, &digest("layer of shared")).await.unwrap(), None);
    assert!(catalogue.find_blob(&there, &digest("layer of shared")).await.unwrap().is_some());
    assert!(catalogue.find_manifest(&there, &digest("shared")).await.unwrap().is_some());
    // A mount and an announcement begin the grace time again.
    catalogue.record_blob(&here, &blob("moving"), None, &stamp(60)).await.unwrap();
    catalogue.mount_blob(&there, &digest("moving"), &here, &stamp(70)).await.unwrap();
    catalogue.record_blob(&here, &blob("coming"), None, &stamp(60)).await.unwrap();
    catalogue.delete_blob(&here, &digest("coming")).await.unwrap();
    catalogue.announce_blob(&digest("coming"), at(70)).await.unwrap();
    assert_eq!(collect(catalogue, 70).await, [digest("fresh")]);
    assert!(catalogue.find_blob(&there, &digest("moving")).await.unwrap().is_some());
}

pub(in crate::metadata::catalogue) async fn a_blob_that_is_being_removed_is_linked_to_nothing(
    catalogue: &Subject,
) {
    let here = hosted(catalogue, "a/here").await;
    let layer = blob("layer");
    catalogue.record_blob(&here, &layer, None, &stamp(1)).await.unwrap();
    catalogue.delete_blob(&here, &layer.digest).await.unwrap();
    let condemned = catalogue.condemn_blobs(at(9), 9, at(9)).await.unwrap();
    let expected = CondemnedBlob {
        digest: layer.digest,
        size_bytes: layer.size_bytes,
        locations: layer.locations.clone(),
    };
    assert_eq!(condemned, std::slice::from_ref(&expected));
    assert_eq!(catalogue.list_condemned_blobs(9).await.unwrap(), [expected]);
    assert_eq!(catalogue.condemn_blobs(at(9), 9, at(9)).await.unwrap(), []);
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
    catalogue.record_blob(&here, &layer, None, &stamp(11)).await.unwrap();
    // What is not condemned is not forgotten.
    catalogue.forget_blob(&layer.digest).await.unwrap();
    assert_eq!(catalogue.find_blob(&here, &layer.digest).await.unwrap(), Some(layer));
}
