//! Promises of [`HostedTags`](crate::metadata::catalogue::HostedTags).

use std::sync::Arc;

use super::{at, digest, hosted, push_image, stamp, tag};
use crate::metadata::catalogue::{Catalogue, CatalogueError, Stamp};

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
