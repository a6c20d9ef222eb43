//! Promises of [`HostedManifests`](crate::metadata::catalogue::HostedManifests).

use std::sync::Arc;

use super::{blob, digest, hosted, manifest, push, push_image, record_blob, stamp, tag};
use crate::metadata::catalogue::{
    Catalogue, CatalogueError, ManifestPush, ManifestRecord, MissingChildren, Referrer,
};
use crate::oci::MediaType;

type Subject = Arc<dyn Catalogue>;

pub(in crate::metadata::catalogue) async fn a_manifest_is_found_as_it_was_pushed(catalogue: &Subject) {
    let (here, there) = (hosted(catalogue, "a/here").await, hosted(catalogue, "a/there").await);
    record_blob(catalogue, &here, &blob("layer"), None, &stamp(1)).await.unwrap();
    let plain = push("plain", &["layer", "layer"], &["v1", "v2"]);
    let bare = ManifestPush {
        manifest: ManifestRecord {
            media_type: MediaType::DOCKER_MANIFEST,
            artifact_type: None,
            subject: Some(digest("never pushed")),
            annotations: [("quote \" \u{e9}".to_owned(), String::new())].into(),
            payload: vec![0_u8; 4 * 1024 * 1024].into(),
            ..manifest("bare")
        },
        ..push("bare", &[], &[])
    };
    for push in [&plain, &bare, &plain] {
        catalogue.push_manifest(&here, push, &stamp(1)).await.unwrap();
        let found = catalogue.find_manifest(&here, &push.manifest.digest).await.unwrap();
        assert!(found.as_ref() == Some(&push.manifest));
        assert_eq!(catalogue.find_manifest(&there, &push.manifest.digest).await.unwrap(), None);
    }
    for text in ["v1", "v2"] {
        assert_eq!(catalogue.find_tag(&here, &tag(text)).await.unwrap(), Some(digest("plain")));
    }
}

pub(in crate::metadata::catalogue) async fn a_manifest_whose_blobs_are_not_all_there_leaves_nothing(
    catalogue: &Subject,
) {
    let (here, there) = (hosted(catalogue, "a/here").await, hosted(catalogue, "a/there").await);
    record_blob(catalogue, &here, &blob("layer"), None, &stamp(1)).await.unwrap();
    record_blob(catalogue, &there, &blob("theirs"), None, &stamp(1)).await.unwrap();
    let before = catalogue.last_change().await.unwrap();
    let image = push("image", &["layer", "theirs"], &["v1"]);
    match catalogue.push_manifest(&here, &image, &stamp(2)).await {
        Err(CatalogueError::BlobUnknown(missing)) => assert_eq!(missing, digest("theirs")),
        other => panic!("{other:?}"),
    }
    assert_eq!(catalogue.find_manifest(&here, &digest("image")).await.unwrap(), None);
    assert_eq!(catalogue.find_tag(&here, &tag("v1")).await.unwrap(), None);
    assert_eq!(catalogue.list_tag_history(&here, &tag("v1"), None, 9).await.unwrap(), []);
    assert_eq!(catalogue.last_change().await.unwrap(), before);
    catalogue.mount_blob(&here, &digest("theirs"), &there, &stamp(3)).await.unwrap();
    catalogue.push_manifest(&here, &image, &stamp(4)).await.unwrap();
    assert_eq!(catalogue.find_tag(&here, &tag("v1")).await.unwrap(), Some(digest("image")));
}

pub(in crate::metadata::catalogue) async fn an_index_lacks_children_only_where_that_is_allowed(
    catalogue: &Subject,
) {
    let here = hosted(catalogue, "a/here").await;
    let there = hosted(catalogue, "a/there").await;
    let child = push_image(catalogue, &there, "child", &[], 1).await;
    let index = ManifestPush { children: vec![child], ..push("index", &[], &["v1"]) };
    match catalogue.push_manifest(&here, &index, &stamp(2)).await {
        Err(CatalogueError::ChildUnknown(missing)) => assert_eq!(missing, child),
        other => panic!("{other:?}"),
    }
    let sparse = ManifestPush { missing_children: MissingChildren::Allowed, ..index.clone() };
    catalogue.push_manifest(&here, &sparse, &stamp(2)).await.unwrap();
    assert_eq!(catalogue.find_tag(&here, &tag("v1")).await.unwrap(), Some(index.manifest.digest));
    assert_eq!(catalogue.find_manifest(&here, &child).await.unwrap(), None);
    catalogue.push_manifest(&there, &index, &stamp(2)).await.unwrap();
    // A deleted child is a missing one.
    catalogue.delete_manifest(&there, &child, &stamp(3)).await.unwrap();
    let refused = catalogue.push_manifest(&there, &index, &stamp(4)).await;
    assert!(matches!(refused, Err(CatalogueError::ChildUnknown(_))), "{refused:?}");
}

pub(in crate::metadata::catalogue) async fn a_deleted_manifest_takes_its_tags_along_and_comes_back_with_one(
    catalogue: &Subject,
) {
    let here = hosted(catalogue, "a/here").await;
    let child = push_image(catalogue, &here, "child", &["child"], 1).await;
    let other = push_image(catalogue, &here, "other", &["other"], 1).await;
    let index = ManifestPush { children: vec![child], ..push("index", &[], &["v1", "v2"]) };
    let top = index.manifest.digest;
    catalogue.push_manifest(&here, &index, &stamp(2)).await.unwrap();
    assert_eq!(catalogue.delete_manifest(&here, &top, &stamp(3)).await.unwrap(), [tag("v1"), tag("v2")]);
    assert_eq!(catalogue.delete_manifest(&here, &child, &stamp(3)).await.unwrap(), [tag("child")]);
    for gone in [&top, &child] {
        assert_eq!(catalogue.find_manifest(&here, gone).await.unwrap(), None);
        let again = catalogue.delete_manifest(&here, gone, &stamp(3)).await;
        assert!(matches!(again, Err(CatalogueError::ManifestUnknown)), "{again:?}");
        let refused = catalogue.put_tag(&here, &tag("v3"), gone, &stamp(3)).await;
        assert!(matches!(refused, Err(CatalogueError::ManifestUnknown)), "{refused:?}");
    }
    assert_eq!(catalogue.list_tags(&here, None, 9).await.unwrap(), [tag("other")]);

    catalogue.restore_tag(&here, &tag("v1"), &top, &stamp(4)).await.unwrap();
    assert_eq!(catalogue.list_tags(&here, None, 9).await.unwrap(), [tag("other"), tag("v1")]);
    for back in [&top, &child, &other] {
        assert!(catalogue.find_manifest(&here, back).await.unwrap().is_some());
    }
}

pub(in crate::metadata::catalogue) async fn referrers_are_listed_by_type_page_by_page(catalogue: &Subject) {
    let (here, there) = (hosted(catalogue, "a/here").await, hosted(catalogue, "a/there").await);
    let subject = digest("subject");
    let mut expected = Vec::new();
    for number in 0..7_usize {
        let kind = if number % 2 == 0 { "application/signature" } else { "application/sbom" };
        let mut push = push(&format!("referrer {number}"), &[], &[]);
        push.manifest.subject = Some(subject);
        push.manifest.artifact_type = Some(kind.to_owned());
        catalogue.push_manifest(&here, &push, &stamp(1)).await.unwrap();
        let ManifestRecord { digest, media_type, artifact_type, annotations, payload, .. } = push.manifest;
        let size_bytes = payload.len() as u64;
        expected.push(Referrer { digest, media_type, size_bytes, artifact_type, annotations });
    }
    push_image(catalogue, &here, "no referrer", &[], 1).await;
    expected.sort_by_key(|referrer| referrer.digest);
    let all = async |kind| {
        let (mut listed, mut last) = (Vec::<Referrer>::new(), None);
        loop {
            let page = catalogue.list_referrers(&here, &subject, kind, last.as_ref(), 2).await.unwrap();
            let Some(end) = page.last() else { break };
            last = Some(end.digest);
            listed.extend(page);
        }
        listed
    };
    assert_eq!(all(None).await, expected);
    let is_signature = |one: &&Referrer| one.artifact_type.as_deref() == Some("application/signature");
    let signatures: Vec<_> = expected.iter().filter(is_signature).cloned().collect();
    assert_eq!((all(Some("application/signature")).await, signatures.len()), (signatures, 4));
    assert_eq!(all(Some("application/other")).await, []);
    assert_eq!(catalogue.list_referrers(&there, &subject, None, None, 9).await.unwrap(), []);
    catalogue.delete_manifest(&here, &expected[0].digest, &stamp(2)).await.unwrap();
    assert_eq!(all(None).await, expected[1..]);
}

pub(in crate::metadata::catalogue) async fn thousands_of_blobs_are_recorded_with_one_manifest(
    catalogue: &Subject,
) {
    let here = hosted(catalogue, "a/here").await;
    let names: Vec<String> = (0..5000).map(|number| number.to_string()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let refused = catalogue.push_manifest(&here, &push("large", &names, &[]), &stamp(1)).await;
    let least = names.iter().map(|name| digest(name)).min().unwrap();
    assert!(matches!(refused, Err(CatalogueError::BlobUnknown(missing)) if missing == least), "{refused:?}");
}

pub(in crate::metadata::catalogue) async fn a_push_that_is_dropped_was_done_wholly_or_not_at_all(
    catalogue: &Subject,
) {
    let here = hosted(catalogue, "a/here").await;
    record_blob(catalogue, &here, &blob("layer"), None, &stamp(1)).await.unwrap();
    // Dropped after 0, 1, 2, … polls: early ones do nothing, late ones all of it, none a part.
    for polls in 0..60 {
        let (text, version) = (format!("image {polls}"), format!("v{polls}"));
        let image = push(&text, &["layer"], &[&version]);
        let before = catalogue.last_change().await.unwrap();
        {
            let moment = stamp(2);
            let mut pushing = Box::pin(catalogue.push_manifest(&here, &image, &moment));
            for _ in 0..polls {
                if futures_util::poll!(&mut pushing).is_ready() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        // The next one waits for what was left of it.
        catalogue.put_tag(&here, &tag("none"), &digest("none"), &stamp(3)).await.unwrap_err();
        let is_there = catalogue.find_manifest(&here, &image.manifest.digest).await.unwrap().is_some();
        let is_tagged = catalogue.find_tag(&here, &tag(&version)).await.unwrap().is_some();
        let changes = catalogue.last_change().await.unwrap() - before;
        assert!(
            (is_there, is_tagged, changes) == (is_there, is_there, if is_there { 2 } else { 0 }),
            "{polls}"
        );
    }
}
