//! Promises of [`AccessProofs`](crate::metadata::AccessProofs).

use std::sync::Arc;

use super::{digest, proof, repository};
use crate::metadata::{AccessProof, ContentKind, NodeIndex, RepositoryId};
use crate::oci::MediaType;

type Index = Arc<dyn NodeIndex>;

pub(in crate::metadata) async fn proofs_hold_for_one_repository_and_one_kind(index: &Index) {
    let here = repository("docker.io", "library/nginx");
    let known = AccessProof {
        size_bytes: Some(7),
        media_type: Some(MediaType::OCI_MANIFEST),
        ..proof("x", ContentKind::Manifest)
    };
    index.record_proofs(&here, std::slice::from_ref(&known)).await.unwrap();
    let find = |place: RepositoryId, kind, text| async move {
        index.find_proof(&place, kind, &digest(text)).await.unwrap()
    };
    assert_eq!(find(here.clone(), ContentKind::Manifest, "x").await, Some(known));
    assert_eq!(find(here.clone(), ContentKind::Blob, "x").await, None);
    assert_eq!(find(here, ContentKind::Manifest, "y").await, None);
    for (upstream, name) in [("quay.io", "library/nginx"), ("docker.io", "library/redis")] {
        assert_eq!(find(repository(upstream, name), ContentKind::Manifest, "x").await, None);
    }
}

pub(in crate::metadata) async fn a_proof_gains_what_a_later_one_knows_and_loses_nothing(index: &Index) {
    let here = repository("docker.io", "a");
    let bare = proof("x", ContentKind::Blob);
    let sized = AccessProof { size_bytes: Some(0), ..bare.clone() };
    let typed = AccessProof { media_type: Some(MediaType::OCTET_STREAM), ..bare.clone() };
    for known in [&bare, &sized, &typed, &bare] {
        index.record_proofs(&here, std::slice::from_ref(known)).await.unwrap();
    }
    let all = AccessProof { size_bytes: Some(0), ..typed };
    assert_eq!(index.find_proof(&here, ContentKind::Blob, &digest("x")).await.unwrap(), Some(all));
    // What both know is taken from the later one; a manifest may list the same layer twice.
    let corrected = AccessProof { size_bytes: Some(9), ..bare.clone() };
    index.record_proofs(&here, &[bare, corrected]).await.unwrap();
    let found = index.find_proof(&here, ContentKind::Blob, &digest("x")).await.unwrap().unwrap();
    assert_eq!(found.size_bytes, Some(9));
}

pub(in crate::metadata) async fn withdrawing_a_proof_is_idempotent(index: &Index) {
    let (here, there) = (repository("docker.io", "a"), repository("docker.io", "b"));
    let both = [proof("x", ContentKind::Blob), proof("x", ContentKind::Manifest)];
    for place in [&here, &there] {
        index.record_proofs(place, &both).await.unwrap();
    }
    for _ in 0..2 {
        index.remove_proof(&here, ContentKind::Blob, &digest("x")).await.unwrap();
    }
    index.remove_proof(&repository("quay.io", "never"), ContentKind::Blob, &digest("x")).await.unwrap();
    assert_eq!(index.find_proof(&here, ContentKind::Blob, &digest("x")).await.unwrap(), None);
    for (place, kind) in [(&here, ContentKind::Manifest), (&there, ContentKind::Blob)] {
        assert!(index.find_proof(place, kind, &digest("x")).await.unwrap().is_some());
    }
}

pub(in crate::metadata) async fn upstreams_are_found_by_the_blob_that_they_have(index: &Index) {
    for upstream in ["quay.io", "docker.io"] {
        let proofs = [proof("x", ContentKind::Blob)];
        index.record_proofs(&repository(upstream, "a/b"), &proofs).await.unwrap();
    }
    index.record_proofs(&repository("ghcr.io", "a/b"), &[proof("x", ContentKind::Manifest)]).await.unwrap();
    index.record_proofs(&repository("gcr.io", "a/c"), &[proof("x", ContentKind::Blob)]).await.unwrap();
    let find = |name: &str, text| {
        let name = name.parse().unwrap();
        async move { index.list_upstreams_with_blob(&name, &digest(text)).await.unwrap() }
    };
    assert_eq!(find("a/b", "x").await, ["docker.io", "quay.io"]);
    assert_eq!(find("a/c", "x").await, ["gcr.io"]);
    assert_eq!(find("a/b", "y").await, [""; 0]);
}

pub(in crate::metadata) async fn repositories_are_listed_in_order_page_by_page(index: &Index) {
    let some = [proof("x", ContentKind::Blob)];
    let mut expected = Vec::new();
    for (upstream, name) in
        [("quay.io", "a"), ("docker.io", "z"), ("docker.io", "a/b"), ("docker.io", "a-b"), ("ghcr.io", "m")]
    {
        expected.push(repository(upstream, name));
        index.record_proofs(&repository(upstream, name), &some).await.unwrap();
    }
    expected.sort();
    // One that lost its last proof is not listed.
    let gone = repository("docker.io", "b");
    index.record_proofs(&gone, &some).await.unwrap();
    index.remove_proof(&gone, ContentKind::Blob, &digest("x")).await.unwrap();

    let mut seen: Vec<RepositoryId> = Vec::new();
    loop {
        let page = index.list_repositories(seen.last(), 2).await.unwrap();
        if page.is_empty() {
            break;
        }
        seen.extend(page);
    }
    assert_eq!(seen, expected);
}

/// The holders of an item are all repositories with a proof of it, as blob or as manifest.
pub(in crate::metadata) async fn holders_are_those_that_have_shown_to_have_it(index: &Arc<dyn NodeIndex>) {
    let [first, second] = [repository("up.a", "z"), repository("up.b", "a")];
    let blob = AccessProof { size_bytes: Some(7), ..proof("x", ContentKind::Blob) };
    let manifest = proof("x", ContentKind::Manifest);
    index.record_proofs(&second, &[blob.clone(), manifest.clone()]).await.unwrap();
    index.record_proofs(&first, &[blob.clone(), proof("y", ContentKind::Blob)]).await.unwrap();
    let found = index.list_holders(&digest("x")).await.unwrap();
    assert_eq!(found, [(first, blob.clone()), (second.clone(), blob), (second, manifest)]);
    assert_eq!(index.list_holders(&digest("z")).await.unwrap(), []);
}
