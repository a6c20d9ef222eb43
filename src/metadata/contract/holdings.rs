//! Promises of [`Holdings`](crate::metadata::Holdings).

use std::sync::Arc;

use super::{at, blob, digest, proof, pull, repository};
use crate::metadata::{
    ContentKind, Forgotten, HoldingFilter, Listing, ListingKind, NodeIndex, RepositoryId, UpstreamHoldings,
};

type Index = Arc<dyn NodeIndex>;

/// Two repositories that share a layer, and one elsewhere; every layer is stored but those of "evicted".
async fn fill(index: &Index) -> [RepositoryId; 3] {
    let places = [repository("docker.io", "a"), repository("docker.io", "b"), repository("quay.io", "a")];
    for (place, text, tag) in [
        (&places[0], "m1", "1"),
        (&places[1], "m2", "1"),
        (&places[2], "m3", "1"),
        (&places[0], "m1", "latest"),
    ] {
        index.record_pull(place, &pull(text, tag)).await.unwrap();
    }
    index.record_pull(&places[0], &pull("evicted", "old")).await.unwrap();
    index.remove_content(&[digest("evicted")]).await.unwrap();
    index.record_proofs(&places[1], &[proof("m1 one", ContentKind::Blob)]).await.unwrap();
    let sizes =
        [("m1 one", 10, 1), ("m1 two", 2000, 2), ("m2 one", 30, 3), ("m3 one", 40, 4), ("nobody's", 5, 5)];
    let records: Vec<_> = sizes.iter().map(|(text, bytes, seconds)| blob(text, *bytes, *seconds)).collect();
    index.record_content(&records).await.unwrap();
    places
}

/// What a filter finds, as `upstream/name text`.
async fn find(index: &Index, filter: HoldingFilter) -> Vec<String> {
    let names: std::collections::HashMap<_, _> =
        ["m1", "m2", "m3", "m1 one", "m1 two", "m2 one", "m3 one"].map(|text| (digest(text), text)).into();
    let mut found = Vec::new();
    loop {
        let after =
            found.last().map(|last: &crate::metadata::Holding| (&last.repository, &last.content.digest));
        let page = index.list_holdings(&filter, after, 2).await.unwrap();
        assert!(page.len() <= 2);
        if page.is_empty() {
            break;
        }
        found.extend(page);
    }
    let mut sorted = found.clone();
    sorted.sort_by(|one, other| {
        (&one.repository, one.content.digest).cmp(&(&other.repository, other.content.digest))
    });
    assert_eq!(found, sorted);
    let name = |holding: &crate::metadata::Holding| {
        format!("{} {}", holding.repository, names[&holding.content.digest])
    };
    let mut texts: Vec<_> = found.iter().map(name).collect();
    texts.sort();
    texts
}

pub(in crate::metadata) async fn holdings_are_found_by_every_part_of_a_filter(index: &Index) {
    let [here, ..] = fill(index).await;
    let all = [
        "docker.io/a m1",
        "docker.io/a m1 one",
        "docker.io/a m1 two",
        "docker.io/b m1 one",
        "docker.io/b m2",
        "docker.io/b m2 one",
        "quay.io/a m3",
        "quay.io/a m3 one",
    ];
    let filter = HoldingFilter::default;
    assert_eq!(find(index, filter()).await, all);
    let upstream = Some(Arc::from("docker.io"));
    assert_eq!(find(index, HoldingFilter { upstream, ..filter() }).await, all[..6]);
    let of_here = HoldingFilter { repository: Some(here), ..filter() };
    assert_eq!(find(index, of_here.clone()).await, all[..3]);
    let tag = Some("1".parse().unwrap());
    let tagged = find(index, HoldingFilter { tag, ..filter() }).await;
    assert_eq!(tagged, ["docker.io/a m1", "docker.io/b m2", "quay.io/a m3"]);
    let shared = find(index, HoldingFilter { digest: Some(digest("m1 one")), ..filter() }).await;
    assert_eq!(shared, ["docker.io/a m1 one", "docker.io/b m1 one"]);
    let kind = Some(ContentKind::Manifest);
    assert_eq!(find(index, HoldingFilter { kind, ..of_here.clone() }).await, ["docker.io/a m1"]);
    let large = HoldingFilter { least_bytes: Some(2000), ..filter() };
    assert_eq!(find(index, large).await, ["docker.io/a m1 two"]);
    let old = HoldingFilter { stored_by: Some(at(1)), kind: Some(ContentKind::Blob), ..filter() };
    assert_eq!(find(index, old).await, ["docker.io/a m1 one", "docker.io/b m1 one"]);
    let unused = HoldingFilter { unused_since: Some(at(0)), ..of_here.clone() };
    assert_eq!(find(index, unused).await, ["docker.io/a m1"]);
    let found = index.list_holdings(&HoldingFilter { kind, ..of_here }, None, 9).await.unwrap();
    assert_eq!(found[0].tags, ["1", "latest"].map(|tag| tag.parse().unwrap()));
    assert_eq!(found[0].content, pull("m1", "1").content);
}

pub(in crate::metadata) async fn holdings_are_summed_once_for_each_upstream(index: &Index) {
    let nothing = index.sum_holdings().await.unwrap();
    assert_eq!(nothing, [UpstreamHoldings::default()]);
    fill(index).await;
    let sums = |upstream: &str, tags, manifests, blobs, bytes| UpstreamHoldings {
        upstream: upstream.to_owned(),
        tags,
        manifests,
        blobs,
        bytes,
        pinned_bytes: 0,
    };
    let expected = [
        sums("docker.io", 4, 2, 3, 1000 + 2040),
        sums("quay.io", 1, 1, 1, 540),
        sums("", 5, 3, 5, 1500 + 2085),
    ];
    assert_eq!(index.sum_holdings().await.unwrap(), expected);
    assert_eq!(index.list_shared().await.unwrap(), [(digest("m1 one"), 2)]);
}

pub(in crate::metadata) async fn what_a_repository_forgets_others_keep(index: &Index) {
    let [here, beside, there] = fill(index).await;
    let page = Listing { body: b"{}".to_vec(), fetched_at: at(1) };
    for kind in [ListingKind::Tags, ListingKind::Referrers] {
        index.record_listing(&here, kind, "x", &page).await.unwrap();
    }
    let forgotten = Forgotten { proofs: vec![digest("m1 one")], tags: vec!["1".parse().unwrap()] };
    for _ in 0..2 {
        index.forget(&here, &forgotten).await.unwrap();
        index.forget(&repository("nowhere.test", "a"), &forgotten).await.unwrap();
    }
    let has = async |place: &RepositoryId, text: &str| {
        index.find_proof(place, ContentKind::Blob, &digest(text)).await.unwrap().is_some()
    };
    assert!(!has(&here, "m1 one").await && has(&here, "m1 two").await && has(&beside, "m1 one").await);
    let tags = index.list_tags(&here).await.unwrap();
    assert_eq!(tags, ["latest", "old"].map(|tag| tag.parse().unwrap()));
    assert_eq!(index.list_tags(&beside).await.unwrap().len(), 1);
    assert_eq!(index.find_listing(&here, ListingKind::Tags, "x").await.unwrap(), None);
    assert_eq!(index.find_listing(&here, ListingKind::Referrers, "x").await.unwrap(), Some(page));
    assert!(index.find_content(&digest("m1 one")).await.unwrap().is_some(), "content is forgotten apart");
    index.forget_repository(&here).await.unwrap();
    assert!(!has(&here, "m1 two").await && index.list_tags(&here).await.unwrap().is_empty());
    assert_eq!(index.find_listing(&here, ListingKind::Referrers, "x").await.unwrap(), None);
    assert_eq!(index.list_known_repositories(None).await.unwrap(), [beside.clone(), there]);
    assert_eq!(index.list_known_repositories(Some("docker.io")).await.unwrap(), [beside]);
}
