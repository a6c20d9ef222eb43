//! What is not an image: an artifact, what refers to it, and a signature under the tag that cosign makes.

use serde_json::Value;

use crate::child::{command, run};
use crate::fixtures::{Artifact, Fixtures};
use crate::http::fetch;
use crate::listing::hash;
use crate::stage::Stage;
use crate::tools;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

#[test]
fn artifacts_referrers_and_signatures_are_found_cold_and_with_upstream_stopped() {
    if !tools::present(&tools::of_upstream()) || !tools::present(&["skopeo"]) {
        return;
    }
    let artifact = &Fixtures::shared().artifact;
    let stage = Stage::open();
    require_all(&stage, artifact);
    require_no_referrers(&stage, artifact);
    let asked = stage.request_count();
    require_all(&stage, artifact);
    require_no_referrers(&stage, artifact);
    assert_eq!(stage.request_count(), asked, "a second look asked upstream");
    require_all(&stage.stop_upstreams(), artifact);
}

/// The registry neither lists referrers nor has the tag: clients read a 404 as "none", unless it says that the
/// repository is unknown.
fn require_no_referrers(stage: &Stage, artifact: &Artifact) {
    let path = format!("/v2/{}/referrers/{}", artifact.name, artifact.signature);
    let answer = fetch(stage.tidegate.address, &path, INDEX).expect(404);
    let error: Value = serde_json::from_slice(&answer.body).expect("an error is JSON");
    assert_eq!(error["errors"][0]["code"], "MANIFEST_UNKNOWN");
}

fn require_all(stage: &Stage, artifact: &Artifact) {
    let address = stage.tidegate.address;
    let base = format!("/v2/{}", artifact.name);
    let digest = &artifact.digest;

    for reference in ["1", digest] {
        let answer = fetch(address, &format!("{base}/manifests/{reference}"), MANIFEST).expect(200);
        assert_eq!(answer.header("Content-Type"), MANIFEST);
        assert_eq!(answer.header("Docker-Content-Digest"), digest);
        let (sha256, _) = hash(answer.body.as_slice()).expect("memory can be read");
        assert_eq!(&format!("sha256:{sha256}"), digest, "the manifest is not served byte for byte");
        require_blobs(stage, &base, &answer.body);
    }

    assert_eq!(referrers(stage, &base, digest, ""), [artifact.referrer.as_str()]);
    let filter = format!("?artifactType={}", artifact.referrer_type);
    assert_eq!(referrers(stage, &base, digest, &filter), [artifact.referrer.as_str()]);
    assert!(referrers(stage, &base, digest, "?artifactType=application/other").is_empty());
    let referrer = fetch(address, &format!("{base}/manifests/{}", artifact.referrer), MANIFEST).expect(200);
    require_blobs(stage, &base, &referrer.body);
    let signature = format!("{base}/manifests/{}.sig", digest.replace(':', "-"));
    let signature = fetch(address, &signature, MANIFEST).expect(200);
    assert_eq!(signature.header("Docker-Content-Digest"), artifact.signature);

    // The same by a real client, by a direct name: Tidegate's own address is a part of it.
    let mut skopeo = command(tools::path("skopeo"));
    skopeo.args(["inspect", "--raw", "--tls-verify=false"]);
    let raw = run(skopeo.arg(format!("docker://{address}/{}@{digest}", artifact.name)));
    let (sha256, _) = hash(raw.as_slice()).expect("memory can be read");
    assert_eq!(&format!("sha256:{sha256}"), digest, "skopeo inspects another manifest");
}

/// The digests that the referrers of `digest` have.
fn referrers(stage: &Stage, base: &str, digest: &str, query: &str) -> Vec<String> {
    let answer =
        fetch(stage.tidegate.address, &format!("{base}/referrers/{digest}{query}"), INDEX).expect(200);
    assert_eq!(answer.header("Content-Type"), INDEX);
    let index: Value = serde_json::from_slice(&answer.body).expect("an index is JSON");
    let manifests = index["manifests"].as_array().expect("an index has manifests");
    // A server may leave filtering to the client, and then does not say that it filtered (OCI distribution).
    let wanted = query.strip_prefix("?artifactType=");
    manifests
        .iter()
        .filter(|entry| wanted.is_none_or(|wanted| entry["artifactType"] == wanted))
        .map(|entry| entry["digest"].as_str().expect("a descriptor has a digest").to_owned())
        .collect()
}

/// Requires that the configuration and the layers of a manifest are served with the right bytes.
fn require_blobs(stage: &Stage, base: &str, manifest: &[u8]) {
    let manifest: Value = serde_json::from_slice(manifest).expect("a manifest is JSON");
    let layers = manifest["layers"].as_array().expect("a manifest has layers");
    for descriptor in layers.iter().chain([&manifest["config"]]) {
        let digest = descriptor["digest"].as_str().expect("a descriptor has a digest");
        let answer = fetch(stage.tidegate.address, &format!("{base}/blobs/{digest}"), "*/*").expect(200);
        let (sha256, _) = hash(answer.body.as_slice()).expect("memory can be read");
        assert_eq!(format!("sha256:{sha256}"), digest, "other bytes of a blob");
    }
}
