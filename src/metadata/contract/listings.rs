//! Promises of [`Listings`](crate::metadata::Listings).

use std::sync::Arc;

use super::{at, repository};
use crate::metadata::{Listing, ListingKind, MAX_PAGES, NodeIndex};

type Index = Arc<dyn NodeIndex>;

fn page(body: &[u8], seconds: u64) -> Listing {
    Listing { body: body.to_vec(), fetched_at: at(seconds) }
}

pub(in crate::metadata) async fn pages_are_kept_apart_by_repository_kind_and_key(index: &Index) {
    let (here, there) = (repository("docker.io", "a"), repository("quay.io", "a"));
    let keys = [
        (&here, ListingKind::Tags, ""),
        (&here, ListingKind::Tags, "last=x&n=5"),
        (&here, ListingKind::Referrers, ""),
        (&there, ListingKind::Tags, ""),
    ];
    for (number, (place, kind, key)) in (0_u8..).zip(keys) {
        assert_eq!(index.find_listing(place, kind, key).await.unwrap(), None);
        index.record_listing(place, kind, key, &page(&[number, 0, 255], 1)).await.unwrap();
    }
    for (number, (place, kind, key)) in (0_u8..).zip(keys) {
        let expected = Some(page(&[number, 0, 255], 1));
        assert_eq!(index.find_listing(place, kind, key).await.unwrap(), expected);
    }
    for _ in 0..2 {
        index.remove_listing(&here, ListingKind::Tags, "").await.unwrap();
    }
    let mut found = Vec::new();
    for (place, kind, key) in keys {
        found.push(index.find_listing(place, kind, key).await.unwrap().is_some());
    }
    assert_eq!(found, [false, true, true, true]);
}

pub(in crate::metadata) async fn a_page_takes_the_place_of_the_earlier_one(index: &Index) {
    let here = repository("docker.io", "a");
    let large = page(&vec![7; 1 << 20], 2);
    for listing in [&page(b"{}", 1), &large, &page(b"", 3), &large] {
        index.record_listing(&here, ListingKind::Referrers, "k", listing).await.unwrap();
        let found = index.find_listing(&here, ListingKind::Referrers, "k").await.unwrap();
        assert_eq!(found.as_ref(), Some(listing));
    }
}

pub(in crate::metadata) async fn the_oldest_of_too_many_pages_goes(index: &Index) {
    let (here, there) = (repository("docker.io", "a"), repository("docker.io", "b"));
    index.record_listing(&there, ListingKind::Tags, "0", &page(b"", 0)).await.unwrap();
    for number in 0..=u64::from(MAX_PAGES) {
        index
            .record_listing(&here, ListingKind::Tags, &number.to_string(), &page(b"", number))
            .await
            .unwrap();
    }
    for (place, key, is_kept) in
        [(&there, "0", true), (&here, "0", false), (&here, "1", true), (&here, "256", true)]
    {
        let found = index.find_listing(place, ListingKind::Tags, key).await.unwrap();
        assert_eq!(found.is_some(), is_kept, "{place} {key}");
    }
}

pub(in crate::metadata) async fn old_pages_are_removed_oldest_first(index: &Index) {
    let here = repository("docker.io", "a");
    for (key, seconds) in [("c", 3), ("a", 1), ("d", 4), ("b", 2)] {
        index.record_listing(&here, ListingKind::Tags, key, &page(b"", seconds)).await.unwrap();
    }
    let keys = async || {
        let mut left = String::new();
        for key in ["a", "b", "c", "d"] {
            if index.find_listing(&here, ListingKind::Tags, key).await.unwrap().is_some() {
                left.push_str(key);
            }
        }
        left
    };
    assert_eq!(index.remove_listings_before(at(4), 2).await.unwrap(), 2);
    assert_eq!(keys().await, "cd");
    assert_eq!(index.remove_listings_before(at(4), 2).await.unwrap(), 1);
    assert_eq!(index.remove_listings_before(at(4), 2).await.unwrap(), 0);
    assert_eq!(keys().await, "d");
}
