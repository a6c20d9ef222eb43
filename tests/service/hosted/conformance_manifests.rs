//! Pushing manifests (OCI distribution, "Pushing Manifests" and "Pushing Manifests with Subject"), numbered as in the
//! table of the module above.

use serde_json::{Value, json};

use super::actor::{Actor, location_of};
use super::registry::Hosted;
use crate::content::{Content, Image, OCI_INDEX, OCI_MANIFEST, artifact_about, index_of};

/// Pushes the two blobs that every artifact of [`artifact_about`] lists.
async fn push_blobs_of_artifact(actor: &Actor, subject: &Content) {
    actor.push_blob("acme/app", &Content::of("text/plain", "{}")).await;
    actor.push_blob("acme/app", &Content::of("text/plain", format!("about {}", subject.digest))).await;
}

/// A manifest with the blobs of an image and annotations that make it so large.
fn padded(image: &Image, size_bytes: usize) -> Content {
    let mut manifest: Value = serde_json::from_slice(&image.manifest.bytes).unwrap();
    manifest["annotations"] = json!({ "padding": "" });
    let empty = serde_json::to_vec(&manifest).unwrap().len();
    manifest["annotations"] = json!({ "padding": "A".repeat(size_bytes - empty) });
    let content = Content::of(OCI_MANIFEST, serde_json::to_vec(&manifest).unwrap());
    assert_eq!(content.bytes.len(), size_bytes);
    content
}

#[tokio::test]
async fn manifest_01_parameters_of_the_type_are_ignored() {
    let hosted = Hosted::start().await;
    let admin = hosted.administrator();
    let image = Image::oci("acme/app", "1", &[10]);
    admin.push_image(&image).await;
    let call = admin
        .put("/v2/acme/app/manifests/2")
        .header("content-type", &format!("{OCI_MANIFEST}; charset=utf-8"));
    let answer = call.body(image.manifest.bytes.clone()).send().await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let pulled = admin.manifest("acme/app", "2").await;
    assert_eq!(pulled.header("content-type"), Some(OCI_MANIFEST));
}

#[tokio::test]
async fn manifest_02_the_list_of_blobs_may_be_empty() {
    let hosted = Hosted::start().await;
    let admin = hosted.administrator();
    admin.push_image(&Image::oci("acme/app", "none", &[])).await;
    let index =
        Content::json(OCI_INDEX, &json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [] }));
    admin.push_manifest("acme/app", "empty", &index).await;
    assert_eq!(admin.manifest("acme/app", "empty").await.body, index.bytes);
}

#[tokio::test]
async fn manifest_03_a_manifest_is_kept_byte_for_byte() {
    let hosted = Hosted::start().await;
    let admin = hosted.administrator();
    let image = Image::oci("acme/app", "1", &[10]);
    admin.push_image(&image).await;
    let compact: Value = serde_json::from_slice(&image.manifest.bytes).unwrap();
    let compact = serde_json::to_string(&compact).unwrap();
    for text in [
        compact.clone(),
        format!("  {compact}\n\n"),
        compact.replacen('{', "{ \"org.example.custom\": {\"b\":1,\"a\":1.50e1},\t", 1),
        compact.replace("sha256", "\\u0073ha256"),
    ] {
        let manifest = Content::of(OCI_MANIFEST, text);
        admin.push_manifest("acme/app", "as-is", &manifest).await;
        assert_eq!(admin.manifest("acme/app", "as-is").await.body, manifest.bytes);
        assert_eq!(admin.manifest("acme/app", &manifest.digest).await.body, manifest.bytes);
    }
}

#[tokio::test]
async fn manifest_04_a_pushed_manifest_is_201_with_a_place_where_it_can_be_pulled_and_its_digest() {
    let hosted = Hosted::start().await;
    let admin = hosted.administrator();
    let image = Image::oci("acme/app", "1", &[10]);
    admin.push_image(&image).await;
    for reference in ["2", &image.manifest.digest] {
        let answer = admin.push_manifest("acme/app", reference, &image.manifest).await;
        assert_eq!(answer.header("docker-content-digest"), Some(image.manifest.digest.as_str()));
        let pulled = admin.get(&location_of(&answer)).accept(&[OCI_INDEX, OCI_MANIFEST]).send().await;
        assert_eq!((pulled.status, &pulled.body), (200, &image.manifest.bytes));
        assert_eq!(pulled.header("content-type"), Some(OCI_MANIFEST));
    }
}

#[tokio::test]
async fn manifest_05_a_manifest_by_sha512_keeps_that_digest() {
    let hosted = Hosted::start().await;
    let admin = hosted.administrator();
    let image = Image::oci("acme/app", "1", &[10]);
    admin.push_image(&image).await;
    let sha512 = image.manifest.sha512();
    let answer = admin.push_manifest("acme/app", &sha512, &image.manifest).await;
    assert_eq!(answer.header("docker-content-digest"), Some(sha512.as_str()));
    for call in [admin.get(&location_of(&answer)), admin.head(&format!("/v2/acme/app/manifests/{sha512}"))] {
        let answer = call.send().await;
        assert_eq!((answer.status, answer.header("docker-content-digest")), (200, Some(sha512.as_str())));
    }
    let by_sha256 = admin.manifest("acme/app", &image.manifest.digest).await;
    assert_eq!(by_sha256.header("docker-content-digest"), Some(image.manifest.digest.as_str()));
}

#[tokio::test]
async fn manifest_06_tags_come_with_a_push_by_digest() {
    let hosted = Hosted::start().await;
    let admin = hosted.administrator();
    let image = Image::oci("acme/app", "first", &[10]);
    admin.push_image(&image).await;
    let other = Image::oci("acme/app", "other", &[20]);
    admin.push_image(&other).await;
    let tags: Vec<String> = (0..12).map(|number| format!("1.{number}")).collect();
    for digest in [image.manifest.digest.clone(), image.manifest.sha512()] {
        let query: Vec<String> = tags.iter().map(|tag| format!("tag={tag}")).collect();
        let path = format!("/v2/acme/app/manifests/{digest}?{}", query.join("&"));
        let answer = admin.put(&path).header("content-type", OCI_MANIFEST).body(image.manifest.bytes.clone());
        let answer = answer.send().await;
        assert_eq!(answer.status, 201, "{answer:?}");
        assert_eq!(answer.header("docker-content-digest"), Some(digest.as_str()));
        let lines = answer.headers.get_all("oci-tag").iter().map(|line| line.to_str().unwrap());
        let said: Vec<&str> = lines.flat_map(|line| line.split(',')).map(str::trim).collect();
        assert_eq!(said, tags, "{answer:?}");
        for tag in &tags {
            let pulled = admin.manifest("acme/app", tag).await;
            assert_eq!((pulled.status, &pulled.body), (200, &image.manifest.bytes), "{tag}");
            // A tag names what it was pushed as: the digest of the same algorithm.
            assert_eq!(pulled.header("docker-content-digest"), Some(digest.as_str()), "{tag}");
        }
        // The next round begins elsewhere.
        for tag in &tags {
            admin.push_manifest("acme/app", tag, &other.manifest).await;
        }
    }
}

#[tokio::test]
async fn manifest_07_a_tag_parameter_that_is_no_tag_refuses_the_whole_push() {
    let hosted = Hosted::start().await;
    let admin = hosted.administrator();
    let image = Image::oci("acme/app", "1", &[10]);
    admin.push_image(&image).await;
    let fresh = padded(&image, 2000);
    let path = format!("/v2/acme/app/manifests/{}?tag=good&tag=..bad", fresh.digest);
    let answer = admin.put(&path).header("content-type", OCI_MANIFEST).body(fresh.bytes.clone()).send().await;
    assert_eq!(answer.status, 400, "{answer:?}");
    assert_eq!(admin.tags("acme/app").await, ["1"]);
    admin.manifest("acme/app", &fresh.digest).await.assert_error(404, "MANIFEST_UNKNOWN");
}

#[tokio::test]
async fn manifest_08_four_megabytes_are_taken_and_more_than_the_limit_is_413() {
    let hosted = Hosted::start().await;
    let admin = hosted.administrator();
    let image = Image::oci("acme/app", "1", &[10]);
    admin.push_image(&image).await;
    for size in [4_000_000, 4 << 20] {
        let large = padded(&image, size);
        admin.push_manifest("acme/app", "large", &large).await;
        let pulled = admin.manifest("acme/app", "large").await;
        assert!(pulled.body == large.bytes, "other bytes of {size}");
    }
    let call = admin.put("/v2/acme/app/manifests/huge").header("content-type", OCI_MANIFEST);
    let answer = call.body(padded(&image, 32 << 20).bytes).try_send().await;
    // A body that nobody wants may be cut; what has been answered by then is the refusal.
    if let Ok(answer) = answer {
        assert_eq!(answer.status, 413, "{answer:?}");
        answer.error_code();
    }
    admin.manifest("acme/app", "huge").await.assert_error(404, "MANIFEST_UNKNOWN");
}

#[tokio::test]
async fn manifest_09_a_manifest_whose_blobs_are_missing_is_refused_with_their_digests() {
    let hosted = Hosted::start().await;
    let admin = hosted.administrator();
    let image = Image::oci("acme/app", "1", &[10, 20]);
    admin.push_blob("acme/app", &image.config).await;
    admin.push_blob("acme/app", &image.layers[0]).await;
    // It is there, and not in this repository.
    admin.push_blob("acme/other", &image.layers[1]).await;
    for reference in ["1", &image.manifest.digest] {
        let answer = admin.put_manifest("acme/app", reference, &image.manifest).await;
        assert!([400, 404].contains(&answer.status), "{answer:?}");
        assert_eq!(answer.error_code(), "MANIFEST_BLOB_UNKNOWN");
        let said = answer.json().to_string();
        assert!(said.contains(&image.layers[1].digest) && !said.contains(&image.layers[0].digest), "{said}");
    }
    admin.manifest("acme/app", "1").await.assert_error(404, "MANIFEST_UNKNOWN");
    admin.manifest("acme/app", &image.manifest.digest).await.assert_error(404, "MANIFEST_UNKNOWN");
    admin.push_blob("acme/app", &image.layers[1]).await;
    admin.push_manifest("acme/app", "1", &image.manifest).await;
    admin.pull_image(&image).await;
}

#[tokio::test]
async fn manifest_10_an_index_is_pushed_after_its_children_and_holds_them() {
    let hosted = Hosted::start().await;
    let admin = hosted.administrator();
    let images = [Image::oci("acme/app", "amd64", &[10]), Image::oci("acme/app", "arm64", &[20])];
    for image in &images {
        admin.push_image(image).await;
    }
    let index = index_of(OCI_INDEX, &[&images[0], &images[1]]);
    admin.push_manifest("acme/app", "all", &index).await;
    let nested = Content::json(
        OCI_INDEX,
        &json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [index.descriptor()] }),
    );
    admin.push_manifest("acme/app", "nested", &nested).await;
    assert_eq!(admin.manifest("acme/app", "nested").await.body, nested.bytes);
}

#[tokio::test]
async fn manifest_11_layers_that_may_not_be_distributed_need_not_be_there() {
    let hosted = Hosted::start().await;
    let admin = hosted.administrator();
    let image = Image::oci("acme/app", "1", &[10]);
    admin.push_image(&image).await;
    let mut manifest: Value = serde_json::from_slice(&image.manifest.bytes).unwrap();
    for (seed, media_type) in (900_u64..).zip([
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    ]) {
        let foreign = Content::blob(seed, 10);
        manifest["layers"].as_array_mut().unwrap().push(json!({
            "mediaType": media_type, "digest": foreign.digest, "size": 123_456,
            "urls": [format!("https://store.example.com/{}", foreign.digest)],
        }));
    }
    let manifest = Content::json(OCI_MANIFEST, &manifest);
    admin.push_manifest("acme/app", "windows", &manifest).await;
    assert_eq!(admin.manifest("acme/app", "windows").await.body, manifest.bytes);
}

#[tokio::test]
async fn manifest_12_a_digest_that_is_not_that_of_the_manifest_is_400() {
    let hosted = Hosted::start().await;
    let admin = hosted.administrator();
    let image = Image::oci("acme/app", "1", &[10]);
    admin.push_image(&image).await;
    let other = image.manifest.another_digest();
    for digest in [&other, "sha256:baddigeststring", "sha512:abc", "md5:d41d8cd98f00b204e9800998ecf8427e"] {
        let answer = admin.put_manifest("acme/app", digest, &image.manifest).await;
        answer.assert_error(400, "DIGEST_INVALID");
        let answer = admin.manifest("acme/app", digest).await;
        assert!([400, 404].contains(&answer.status), "{answer:?}");
    }
}

#[tokio::test]
async fn manifest_13_what_is_no_manifest_is_invalid() {
    let hosted = Hosted::start().await;
    let admin = hosted.administrator();
    let image = Image::oci("acme/app", "1", &[10]);
    admin.push_image(&image).await;
    let half = String::from_utf8(image.manifest.bytes[..40].to_vec()).unwrap();
    for body in ["", "nonsense", "[]", "null", "{}", "{\"schemaVersion\":2}", "\u{0}", &half] {
        let answer = admin.put_manifest("acme/app", "2", &Content::of(OCI_MANIFEST, body.to_owned())).await;
        answer.assert_error(400, "MANIFEST_INVALID");
    }
    assert_eq!(admin.tags("acme/app").await, ["1"]);
}

#[tokio::test]
async fn manifest_14_a_tag_moves_to_what_is_pushed_last() {
    let hosted = Hosted::start().await;
    let admin = hosted.administrator();
    let (first, second) = (Image::oci("acme/app", "1", &[10]), Image::oci("acme/app", "2", &[20]));
    admin.push_image(&first).await;
    admin.push_image(&second).await;
    admin.push_manifest("acme/app", "latest", &first.manifest).await;
    assert_eq!(hosted.anonymous().manifest("acme/app", "latest").await.body, first.manifest.bytes);
    admin.push_manifest("acme/app", "latest", &second.manifest).await;
    assert_eq!(hosted.anonymous().manifest("acme/app", "latest").await.body, second.manifest.bytes);
    assert_eq!(hosted.anonymous().manifest("acme/app", &first.manifest.digest).await.status, 200);
    assert_eq!(admin.tags("acme/app").await, ["1", "2", "latest"]);
}

#[tokio::test]
async fn subject_01_a_manifest_with_a_subject_is_answered_with_it() {
    let hosted = Hosted::start().await;
    let admin = hosted.administrator();
    let image = Image::oci("acme/app", "1", &[10]);
    admin.push_image(&image).await;
    push_blobs_of_artifact(&admin, &image.manifest).await;
    let artifact = artifact_about(&image.manifest, "application/vnd.example.signature");
    for reference in [&artifact.digest, "signature"] {
        let answer = admin.push_manifest("acme/app", reference, &artifact).await;
        assert_eq!(answer.header("oci-subject"), Some(image.manifest.digest.as_str()));
    }
    let plain = admin.push_manifest("acme/app", "1", &image.manifest).await;
    assert_eq!(plain.header("oci-subject"), None);
}

#[tokio::test]
async fn subject_02_the_subject_need_not_be_there_yet() {
    let hosted = Hosted::start().await;
    let admin = hosted.administrator();
    let image = Image::oci("acme/app", "1", &[10]);
    push_blobs_of_artifact(&admin, &image.manifest).await;
    let artifact = artifact_about(&image.manifest, "application/vnd.example.signature");
    let answer = admin.push_manifest("acme/app", &artifact.digest, &artifact).await;
    assert_eq!(answer.header("oci-subject"), Some(image.manifest.digest.as_str()));
    let path = format!("/v2/acme/app/referrers/{}", image.manifest.digest);
    assert_eq!(admin.get(&path).send().await.json()["manifests"][0]["digest"], artifact.digest.as_str());
    admin.push_image(&image).await;
    assert_eq!(admin.get(&path).send().await.json()["manifests"][0]["digest"], artifact.digest.as_str());
}
