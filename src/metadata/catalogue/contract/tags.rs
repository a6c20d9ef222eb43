//! Promises of [`HostedTags`](crate::metadata::catalogue::HostedTags).

use std::sync::Arc;

use super::{at, digest, hosted, push, push_image, stamp, tag};
use crate::metadata::catalogue::{
    Catalogue, CatalogueError, ChangeKind, ContentUse, ManifestPush, Stamp, TagCondition,
};

type Subject = Arc<dyn Catalogue>;

pub(in crate::metadata::catalogue) async fn a_tag_is_what_its_last_row_says(catalogue: &Subject) {
    let (here, there) = (hosted(catalogue, "a/here").await, hosted(catalogue, "a/there").await);
    let one = push_image(catalogue, &here, "one", &["v1"], 1).await;
    let two = push_image(catalogue, &here, "two", &[], 2).await;
    push_image(catalogue, &there, "two", &["v1"], 2).await;
    let other = Stamp { by: Arc::from("other"), ..stamp(3) };
    catalogue.put_tag(&here, &tag("v1"), &two, &other).await.unwrap();
    assert_eq!(catalogue.find_tag(&here, &tag("v1")).await.unwrap(), Some(two));
    catalogue.delete_tag(&here, &tag("v1"), &stamp(4)).await.unwrap();
    assert_eq!(catalogue.find_tag(&here, &tag("v1")).await.unwrap(), None);
    let again = catalogue.delete_tag(&here, &tag("v1"), &stamp(4)).await;
    assert!(matches!(again, Err(CatalogueError::TagUnknown)), "{again:?}");
    catalogue.put_tag(&here, &tag("v1"), &one, &stamp(5)).await.unwrap();

    let history = catalogue.list_tag_history(&here, &tag("v1"), None, 9).await.unwrap();
    let expected = [(Some(one), stamp(5)), (None, stamp(4)), (Some(two), other), (Some(one), stamp(1))];
    assert_eq!(history.iter().map(|row| (row.digest, row.stamp.clone())).collect::<Vec<_>>(), expected);
    let (page, rest) = history.split_at(2);
    assert_eq!(catalogue.list_tag_history(&here, &tag("v1"), None, 2).await.unwrap(), page);
    assert_eq!(catalogue.list_tag_history(&here, &tag("v1"), Some(page[1].number), 9).await.unwrap(), rest);
    assert_eq!(catalogue.find_tag(&there, &tag("v1")).await.unwrap(), Some(two));
    assert_eq!(catalogue.find_tag(&here, &tag("V1")).await.unwrap(), None);
}

pub(in crate::metadata::catalogue) async fn a_push_that_changes_nothing_adds_no_row(catalogue: &Subject) {
    let here = hosted(catalogue, "a/here").await;
    let image = push_image(catalogue, &here, "image", &["v1"], 1).await;
    let before = catalogue.last_change().await.unwrap();
    push_image(catalogue, &here, "image", &["v1"], 2).await;
    catalogue.put_tag(&here, &tag("v1"), &image, &stamp(3)).await.unwrap();
    catalogue.restore_tag(&here, &tag("v1"), &image, &stamp(4)).await.unwrap();
    let history = catalogue.list_tag_history(&here, &tag("v1"), None, 9).await.unwrap();
    assert_eq!(history.iter().map(|row| &row.stamp).collect::<Vec<_>>(), [&stamp(1)]);
    assert_eq!(catalogue.last_change().await.unwrap(), before);
}

pub(in crate::metadata::catalogue) async fn tags_are_listed_in_lexical_order_page_by_page(
    catalogue: &Subject,
) {
    let here = hosted(catalogue, "a/here").await;
    let names = ["b", "B", "a", "1.10", "1.9", "_x", "a-b", "a.b", "a_b", "gone"];
    push_image(catalogue, &here, "image", &names, 1).await;
    catalogue.delete_tag(&here, &tag("gone"), &stamp(2)).await.unwrap();
    let (mut listed, mut last) = (Vec::new(), None);
    loop {
        let page = catalogue.list_tags(&here, last.as_ref(), 4).await.unwrap();
        let Some(end) = page.last() else { break };
        last = Some(end.clone());
        listed.extend(page);
    }
    assert_eq!(listed, ["1.10", "1.9", "B", "_x", "a", "a-b", "a.b", "a_b", "b"].map(tag));
    // The last one need not exist.
    assert_eq!(catalogue.list_tags(&here, Some(&tag("a_")), 9).await.unwrap(), ["a_b", "b"].map(tag));
    assert_eq!(catalogue.list_tags(&here, None, 0).await.unwrap(), []);
}

pub(in crate::metadata::catalogue) async fn a_tag_is_found_as_of_a_moment_even_where_clocks_went_back(
    catalogue: &Subject,
) {
    let here = hosted(catalogue, "a/here").await;
    let one = push_image(catalogue, &here, "one", &["v1"], 10).await;
    let two = push_image(catalogue, &here, "two", &["v1"], 20).await;
    let find = async |seconds| catalogue.find_tag_at(&here, &tag("v1"), at(seconds)).await.unwrap();
    for (seconds, expected) in [(9, None), (10, Some(one)), (19, Some(one)), (20, Some(two)), (99, Some(two))]
    {
        assert_eq!(find(seconds).await, expected, "{seconds}");
    }
    // Another node's clock is behind.
    catalogue.delete_tag(&here, &tag("v1"), &stamp(15)).await.unwrap();
    for (seconds, expected) in [(15, Some(one)), (19, Some(one)), (20, None), (99, None)] {
        assert_eq!(find(seconds).await, expected, "{seconds}");
    }
    let last = catalogue.list_tag_history(&here, &tag("v1"), None, 1).await.unwrap();
    assert_eq!(last[0].stamp.at, at(20));
    assert_eq!(catalogue.find_tag_at(&here, &tag("v2"), at(99)).await.unwrap(), None);
}

pub(in crate::metadata::catalogue) async fn a_tag_is_restored_only_to_what_it_pointed_to(
    catalogue: &Subject,
) {
    let here = hosted(catalogue, "a/here").await;
    let one = push_image(catalogue, &here, "one", &["v1"], 1).await;
    let two = push_image(catalogue, &here, "two", &["v1", "v2"], 2).await;
    for (name, wrong) in [("v2", &one), ("v3", &one), ("v1", &digest("none"))] {
        let refused = catalogue.restore_tag(&here, &tag(name), wrong, &stamp(3)).await;
        assert!(matches!(refused, Err(CatalogueError::TagUnknown)), "{refused:?}");
    }
    for _ in 0..2 {
        catalogue.restore_tag(&here, &tag("v1"), &one, &stamp(3)).await.unwrap();
    }
    let history = catalogue.list_tag_history(&here, &tag("v1"), None, 9).await.unwrap();
    assert_eq!(history.iter().map(|row| row.digest).collect::<Vec<_>>(), [Some(one), Some(two), Some(one)]);
}

pub(in crate::metadata::catalogue) async fn a_tag_expires_when_it_was_last_said_to(catalogue: &Subject) {
    let here = hosted(catalogue, "a/here").await;
    let one = push_image(catalogue, &here, "one", &["v1", "v2"], 1).await;
    let expiry =
        async |name: &str| catalogue.find_tag_state(&here, &tag(name)).await.unwrap().unwrap().expires_at;
    let set = async |name: &str, expires_at| {
        catalogue.set_tag_expiry(&here, &tag(name), expires_at, &stamp(2)).await
    };
    assert_eq!(expiry("v1").await, None);
    set("v1", Some(at(50))).await.unwrap();
    let due = async |seconds| {
        let due = catalogue.list_due_tags(at(seconds), 9).await.unwrap();
        due.into_iter().map(|due| due.tag).collect::<Vec<_>>()
    };
    assert_eq!((due(49).await, due(50).await), (vec![], vec![tag("v1")]));
    // A push that says nothing of it takes it back, a push that does says it anew.
    push_image(catalogue, &here, "one", &["v1"], 3).await;
    assert_eq!((expiry("v1").await, due(50).await), (None, vec![]));
    let with_label =
        ManifestPush { tags_expire_at: Some(at(60)), ..push("one", &["layer of one"], &["v1", "v2"]) };
    catalogue.push_manifest(&here, &with_label, &stamp(4)).await.unwrap();
    assert_eq!((expiry("v1").await, expiry("v2").await), (Some(at(60)), Some(at(60))));
    let history = catalogue.list_tag_history(&here, &tag("v1"), None, 9).await.unwrap();
    assert_eq!(
        history.iter().map(|row| (row.digest, row.expires_at)).collect::<Vec<_>>(),
        [(Some(one), Some(at(60)))]
    );
    // What is restored expires as it was to, where that is yet to come.
    for (seconds, expected) in [(10, Some(at(60))), (60, None)] {
        set("v1", Some(at(60))).await.unwrap();
        catalogue.delete_tag(&here, &tag("v1"), &stamp(seconds)).await.unwrap();
        assert_eq!(due(70).await, [tag("v2")]);
        catalogue.restore_tag(&here, &tag("v1"), &one, &stamp(seconds)).await.unwrap();
        assert_eq!(expiry("v1").await, expected, "{seconds}");
    }
    let unknown = set("v3", Some(at(1))).await;
    assert!(matches!(unknown, Err(CatalogueError::TagUnknown)), "{unknown:?}");
    // Nothing expires that is not there.
    catalogue.delete_repository(&here, &stamp(80)).await.unwrap();
    assert_eq!(due(90).await, []);
    let kinds = catalogue.list_changes(0, 99).await.unwrap();
    assert!(kinds.iter().filter(|one| one.kind == ChangeKind::TagExpirySet).count() >= 4);
}

pub(in crate::metadata::catalogue) async fn a_tag_is_retracted_only_while_it_is_as_it_was_seen(
    catalogue: &Subject,
) {
    let here = hosted(catalogue, "a/here").await;
    let one = push_image(catalogue, &here, "one", &["v1", "v2"], 1).await;
    let states = catalogue.list_tag_states(&here, None, 9).await.unwrap();
    assert_eq!(
        states.iter().map(|state| (&state.tag, state.digest)).collect::<Vec<_>>(),
        [(&tag("v1"), one), (&tag("v2"), one)]
    );
    assert_eq!((&states[0].since, states[0].used_at), (&stamp(1), None));
    assert_eq!(catalogue.list_tag_states(&here, Some(&tag("v1")), 9).await.unwrap(), states[1..]);
    let used = ContentUse { repository: here.clone(), digest: one, used_at: at(7) };
    catalogue.record_uses(&[used]).await.unwrap();
    assert_eq!(catalogue.find_tag_state(&here, &tag("v2")).await.unwrap().unwrap().used_at, Some(at(7)));
    push_image(catalogue, &here, "two", &["v1"], 2).await;
    let rule = Stamp { by: Arc::from("prune"), ..stamp(3) };
    let retract = async |name: &str, condition| {
        catalogue.retract_tag(&here, &tag(name), condition, &rule).await.unwrap()
    };
    assert!(!retract("v1", TagCondition::Unmoved(states[0].number)).await);
    assert!(retract("v2", TagCondition::Unmoved(states[1].number)).await);
    assert!(!retract("v2", TagCondition::Unmoved(states[1].number)).await);
    let history = catalogue.list_tag_history(&here, &tag("v2"), None, 1).await.unwrap();
    assert_eq!((history[0].digest, &history[0].stamp), (None, &rule));
    assert!(!retract("v1", TagCondition::Due(at(99))).await);
    catalogue.set_tag_expiry(&here, &tag("v1"), Some(at(50)), &stamp(3)).await.unwrap();
    assert!(
        !retract("v1", TagCondition::Due(at(49))).await && retract("v1", TagCondition::Due(at(50))).await
    );
}

pub(in crate::metadata::catalogue) async fn an_immutable_tag_is_moved_by_no_push(catalogue: &Subject) {
    let here = hosted(catalogue, "a/here").await;
    push_image(catalogue, &here, "one", &["v1"], 1).await;
    let fixed = |text: &str, layer: &str, tags: &[&str]| ManifestPush {
        immutable_tags: vec![tag("v1"), tag("v2")],
        ..push(text, &[layer], tags)
    };
    // What changes nothing is allowed, and what points nowhere may be pointed once.
    let again = fixed("one", "layer of one", &["v1", "v2", "latest"]);
    catalogue.push_manifest(&here, &again, &stamp(2)).await.unwrap();
    let other = fixed("two", "layer of one", &["latest", "v2"]);
    let refused = catalogue.push_manifest(&here, &other, &stamp(3)).await;
    assert!(matches!(&refused, Err(CatalogueError::TagImmutable(name)) if *name == tag("v2")), "{refused:?}");
    // Nothing of it was done.
    assert_eq!(catalogue.find_tag(&here, &tag("latest")).await.unwrap(), Some(digest("one")));
    assert_eq!(catalogue.find_manifest(&here, &digest("two")).await.unwrap(), None);
}
