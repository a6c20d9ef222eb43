//! Content management (OCI distribution, "Deleting tags", "Deleting Manifests" and "Deleting Blobs"), numbered as in
//! the table of the module above.

use super::registry::Hosted;
use crate::content::{Content, Image, OCI_INDEX, artifact_about, index_of};

async fn with_image() -> (Hosted, Image) {
    let hosted = Hosted::start().await;
    let image = Image::oci("acme/app", "1", &[2000]);
    hosted.administrator().push_image(&image).await;
    (hosted, image)
}

#[tokio::test]
async fn delete_01_a_deleted_tag_is_202_and_then_404_and_its_manifest_stays() {
    let (hosted, image) = with_image().await;
    let admin = hosted.administrator();
    admin.push_manifest("acme/app", "2", &image.manifest).await;
    assert_eq!(hosted.anonymous().manifest("acme/app", "1").await.status, 200);
    assert_eq!(admin.delete(&image.tag_path()).send().await.status, 202);
    hosted.anonymous().manifest("acme/app", "1").await.assert_error(404, "MANIFEST_UNKNOWN");
    assert_eq!(hosted.anonymous().head(&image.tag_path()).send().await.status, 404);
    assert_eq!(admin.tags("acme/app").await, ["2"]);
    for reference in ["2", &image.manifest.digest] {
        assert_eq!(hosted.anonymous().manifest("acme/app", reference).await.body, image.manifest.bytes);
    }
    admin.delete(&image.tag_path()).send().await.assert_error(404, "MANIFEST_UNKNOWN");
}

#[tokio::test]
async fn delete_02_a_deleted_manifest_is_202_and_then_404_with_every_tag_of_it() {
    let (hosted, image) = with_image().await;
    let admin = hosted.administrator();
    let other = Image::oci("acme/app", "other", &[10]);
    admin.push_image(&other).await;
    admin.push_manifest("acme/app", "2", &image.manifest).await;
    for reference in ["1", "2", &image.manifest.digest] {
        assert_eq!(hosted.anonymous().manifest("acme/app", reference).await.status, 200);
    }
    assert_eq!(admin.delete(&image.digest_path()).send().await.status, 202);
    for reference in ["1", "2", &image.manifest.digest] {
        hosted.anonymous().manifest("acme/app", reference).await.assert_error(404, "MANIFEST_UNKNOWN");
    }
    assert_eq!(admin.tags("acme/app").await, ["other"]);
    admin.pull_image(&other).await;
    admin.delete(&image.digest_path()).send().await.assert_error(404, "MANIFEST_UNKNOWN");
}

#[tokio::test]
async fn delete_03_what_was_deleted_can_be_pushed_again() {
    let (hosted, image) = with_image().await;
    let admin = hosted.administrator();
    for path in [image.tag_path(), image.digest_path()] {
        assert_eq!(admin.delete(&path).send().await.status, 202, "{path}");
        admin.push_image(&image).await;
        hosted.anonymous().pull_image(&image).await;
    }
    for path in [image.digest_path(), image.layer_path(0), image.blob_path(&image.config)] {
        assert_eq!(admin.delete(&path).send().await.status, 202, "{path}");
    }
    admin.push_image(&image).await;
    hosted.anonymous().pull_image(&image).await;
}

#[tokio::test]
async fn delete_04_nothing_is_deleted_from_a_repository_that_does_not_exist() {
    let (hosted, image) = with_image().await;
    for path in [
        "/v2/acme/none/manifests/1".to_owned(),
        format!("/v2/acme/none/manifests/{}", image.manifest.digest),
        format!("/v2/acme/none/blobs/{}", image.layers[0].digest),
    ] {
        let answer = hosted.administrator().delete(&path).send().await;
        assert_eq!(answer.status, 404, "{path}: {answer:?}");
        answer.error_code();
    }
}

#[tokio::test]
async fn delete_05_a_deleted_blob_is_202_and_then_404() {
    let hosted = Hosted::start().await;
    let admin = hosted.administrator();
    let blob = Content::blob(1, 5000);
    for digest in [blob.digest.clone(), blob.sha512()] {
        let path = format!("/v2/acme/app/blobs/{digest}");
        admin.push_bytes("acme/app", &digest, &blob.bytes).await;
        assert_eq!(hosted.anonymous().get(&path).send().await.body, blob.bytes);
        assert_eq!(admin.delete(&path).send().await.status, 202);
        hosted.anonymous().get(&path).send().await.assert_error(404, "BLOB_UNKNOWN");
        assert_eq!(hosted.anonymous().head(&path).send().await.status, 404);
        admin.delete(&path).send().await.assert_error(404, "BLOB_UNKNOWN");
    }
}

#[tokio::test]
async fn delete_06_an_index_and_its_children_are_deleted_apart() {
    let (hosted, image) = with_image().await;
    let admin = hosted.administrator();
    let index = index_of(OCI_INDEX, &[&image]);
    admin.push_manifest("acme/app", "all", &index).await;
    let path = format!("/v2/acme/app/manifests/{}", index.digest);
    assert_eq!(admin.delete(&path).send().await.status, 202);
    hosted.anonymous().manifest("acme/app", "all").await.assert_error(404, "MANIFEST_UNKNOWN");
    hosted.anonymous().pull_image(&image).await;
}

#[tokio::test]
async fn delete_07_a_deleted_referrer_is_no_longer_listed() {
    let (hosted, image) = with_image().await;
    let admin = hosted.administrator();
    admin.push_blob("acme/app", &Content::of("text/plain", "{}")).await;
    admin.push_blob("acme/app", &Content::of("text/plain", format!("about {}", image.manifest.digest))).await;
    let artifact = artifact_about(&image.manifest, "application/vnd.example.signature");
    admin.push_manifest("acme/app", &artifact.digest, &artifact).await;
    let referrers = format!("/v2/acme/app/referrers/{}", image.manifest.digest);
    let count = async || admin.get(&referrers).send().await.json()["manifests"].as_array().unwrap().len();
    assert_eq!(count().await, 1);
    let path = format!("/v2/acme/app/manifests/{}", artifact.digest);
    assert_eq!(admin.delete(&path).send().await.status, 202);
    assert_eq!(count().await, 0);
    admin.push_manifest("acme/app", &artifact.digest, &artifact).await;
    assert_eq!(count().await, 1);
}

#[tokio::test]
async fn delete_08_a_manifest_known_by_two_digests_is_deleted_by_each() {
    let (hosted, image) = with_image().await;
    let admin = hosted.administrator();
    let sha512 = image.manifest.sha512();
    admin.push_manifest("acme/app", &sha512, &image.manifest).await;
    let path = format!("/v2/acme/app/manifests/{sha512}");
    assert_eq!(admin.delete(&path).send().await.status, 202);
    admin.get(&path).send().await.assert_error(404, "MANIFEST_UNKNOWN");
}

#[tokio::test]
async fn delete_09_a_digest_or_tag_that_is_invalid_is_400_or_404() {
    let (hosted, _) = with_image().await;
    for path in
        ["/v2/acme/app/manifests/sha256:abc", "/v2/acme/app/blobs/sha256:abc", "/v2/acme/app/manifests/..x"]
    {
        let answer = hosted.administrator().delete(path).send().await;
        assert!([400, 404].contains(&answer.status), "{path}: {answer:?}");
        answer.error_code();
    }
}
