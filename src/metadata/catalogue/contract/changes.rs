//! Promises of [`ChangeLog`](crate::metadata::catalogue::ChangeLog).

use std::sync::Arc;

use super::{hosted, name, push_image, stamp, tag};
use crate::metadata::catalogue::{Catalogue, ChangeKind};
use crate::runtime::Tasks;

type Subject = Arc<dyn Catalogue>;

pub(in crate::metadata::catalogue) async fn every_change_is_logged_once_and_in_order(catalogue: &Subject) {
    assert_eq!(catalogue.last_change().await.unwrap(), 0);
    let here = hosted(catalogue, "a/here").await;
    let image = push_image(catalogue, &here, "image", &["v1"], 1).await;
    catalogue.delete_tag(&here, &tag("v1"), &stamp(2)).await.unwrap();
    catalogue.restore_tag(&here, &tag("v1"), &image, &stamp(3)).await.unwrap();
    catalogue.delete_manifest(&here, &image, &stamp(4)).await.unwrap();
    catalogue.restore_tag(&here, &tag("v1"), &image, &stamp(5)).await.unwrap();
    catalogue.delete_repository(&here, &stamp(6)).await.unwrap();
    catalogue.restore_repository(&here, &stamp(7)).await.unwrap();
    let expected = [
        (ChangeKind::NamespaceCreated, "a", None, None),
        (ChangeKind::RepositoryCreated, "a/here", None, None),
        (ChangeKind::ManifestPushed, "a/here", None, Some(image)),
        (ChangeKind::TagMoved, "a/here", Some(tag("v1")), Some(image)),
        (ChangeKind::TagDeleted, "a/here", Some(tag("v1")), None),
        (ChangeKind::TagMoved, "a/here", Some(tag("v1")), Some(image)),
        (ChangeKind::TagDeleted, "a/here", Some(tag("v1")), None),
        (ChangeKind::ManifestDeleted, "a/here", None, Some(image)),
        (ChangeKind::ManifestRestored, "a/here", None, Some(image)),
        (ChangeKind::TagMoved, "a/here", Some(tag("v1")), Some(image)),
        (ChangeKind::RepositoryDeleted, "a/here", None, None),
        (ChangeKind::RepositoryRestored, "a/here", None, None),
    ];
    let changes = catalogue.list_changes(0, 99).await.unwrap();
    let seen = changes.iter().map(|one| (one.kind, one.place.as_str(), one.tag.clone(), one.digest));
    assert_eq!(seen.collect::<Vec<_>>(), expected);
    assert_eq!(changes.iter().map(|one| one.number).collect::<Vec<_>>(), (1..=12).collect::<Vec<_>>());
    assert_eq!(changes[8].stamp, stamp(5));
    assert_eq!(catalogue.list_changes(4, 2).await.unwrap(), changes[4..6]);
    assert_eq!(catalogue.last_change().await.unwrap(), 12);
}

pub(in crate::metadata::catalogue) async fn concurrent_changes_get_numbers_without_gaps(catalogue: &Subject) {
    for number in 0..4 {
        hosted(catalogue, &format!("a/r{number}")).await;
    }
    let tasks = Tasks::new();
    let workers: Vec<_> = (0..8)
        .map(|worker| {
            let catalogue = Arc::clone(catalogue);
            tasks.spawn(async move {
                let here = name(&format!("a/r{}", worker % 4));
                for round in 0..10 {
                    // Both workers of a repository push the same, and move one tag to and fro.
                    push_image(&catalogue, &here, &format!("image {round}"), &["v1"], round).await;
                }
            })
        })
        .collect();
    // A reader that follows sees every number, and none twice.
    let mut last = 0;
    while !workers.iter().all(tokio::task::JoinHandle::is_finished) {
        for change in catalogue.list_changes(last, 7).await.unwrap() {
            assert_eq!(change.number, last + 1);
            last = change.number;
        }
    }
    for worker in workers {
        worker.await.unwrap();
    }
    let end = catalogue.last_change().await.unwrap();
    let rest = catalogue.list_changes(last, 1000).await.unwrap();
    assert_eq!(rest.iter().map(|one| one.number).collect::<Vec<_>>(), (last + 1..=end).collect::<Vec<_>>());
    let all = catalogue.list_changes(0, 1000).await.unwrap();
    let pushed = all.iter().filter(|one| one.kind == ChangeKind::ManifestPushed).count();
    assert_eq!(pushed, 4 * 10);
    for number in 0..4 {
        let here = format!("a/r{number}");
        let moves = all.iter().filter(|one| one.kind == ChangeKind::TagMoved && one.place == here).count();
        let history = catalogue.list_tag_history(&name(&here), &tag("v1"), None, 99).await.unwrap();
        assert_eq!(history.len(), moves);
    }
}
