//! Promises of [`TagObservations`](crate::metadata::TagObservations).

use std::sync::Arc;

use super::{at, digest, repository};
use crate::metadata::{NodeIndex, TagObservation};
use crate::oci::{AcceptClass, MediaType, Tag};

type Index = Arc<dyn NodeIndex>;

fn tag(text: &str) -> Tag {
    text.parse().unwrap()
}

fn observation(text: &str, seconds: u64) -> TagObservation {
    TagObservation {
        digest: digest(text),
        media_type: MediaType::OCI_INDEX,
        size_bytes: 77,
        checked_at: at(seconds),
        missing_since: None,
    }
}

pub(in crate::metadata) async fn a_tag_is_found_as_it_was_last_observed(index: &Index) {
    let here = repository("docker.io", "a");
    let find = async |place, name: &str| index.find_tag(place, &tag(name), &AcceptClass::Any).await.unwrap();
    assert_eq!(find(&here, "latest").await, None);
    // The clock may have been set back between two observations: the later call counts.
    let missing = TagObservation { missing_since: Some(at(30)), ..observation("newer", 15) };
    for seen in [
        observation("old", 10),
        observation("new", 20),
        observation("newer", 15),
        missing,
        observation("back", 40),
    ] {
        index.record_tag(&here, &tag("latest"), &AcceptClass::Any, &seen).await.unwrap();
        assert_eq!(find(&here, "latest").await, Some(seen));
    }
    assert_eq!(find(&here, "Latest").await, None);
    assert_eq!(find(&repository("quay.io", "a"), "latest").await, None);
}

pub(in crate::metadata) async fn classes_of_one_tag_are_kept_apart_and_removed_together(index: &Index) {
    let here = repository("docker.io", "a");
    let classes = [
        AcceptClass::Any,
        AcceptClass::Only(vec![MediaType::OCI_MANIFEST]),
        AcceptClass::Only(vec![MediaType::DOCKER_MANIFEST, MediaType::OCI_MANIFEST]),
    ];
    for (number, class) in classes.iter().enumerate() {
        let seen = observation(&number.to_string(), 1);
        index.record_tag(&here, &tag("v1"), class, &seen).await.unwrap();
        index.record_tag(&here, &tag("v2"), class, &seen).await.unwrap();
    }
    for (number, class) in classes.iter().enumerate() {
        let found = index.find_tag(&here, &tag("v1"), class).await.unwrap().unwrap();
        assert_eq!(found.digest, digest(&number.to_string()));
    }
    for _ in 0..2 {
        index.remove_tag(&here, &tag("v1")).await.unwrap();
    }
    for class in &classes {
        assert_eq!(index.find_tag(&here, &tag("v1"), class).await.unwrap(), None);
        assert!(index.find_tag(&here, &tag("v2"), class).await.unwrap().is_some());
    }
}

pub(in crate::metadata) async fn tags_are_listed_once_in_lexical_order(index: &Index) {
    let here = repository("docker.io", "a");
    assert_eq!(index.list_tags(&here).await.unwrap(), []);
    for name in ["b", "B", "a", "1.10", "1.9", "_x", "a-b", "a.b", "a_b"] {
        for class in [AcceptClass::Any, AcceptClass::Only(vec![MediaType::OCI_MANIFEST])] {
            index.record_tag(&here, &tag(name), &class, &observation("x", 1)).await.unwrap();
        }
    }
    let other = repository("docker.io", "b");
    index.record_tag(&other, &tag("z"), &AcceptClass::Any, &observation("x", 1)).await.unwrap();
    let expected = ["1.10", "1.9", "B", "_x", "a", "a-b", "a.b", "a_b", "b"].map(tag);
    assert_eq!(index.list_tags(&here).await.unwrap(), expected);
}
