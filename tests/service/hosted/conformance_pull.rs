//! Pull (OCI distribution, section "Pull"), numbered as in the table of the module above.

use super::registry::Hosted;
use crate::content::{Content, DOCKER_MANIFEST, Image, OCI_INDEX, OCI_MANIFEST, index_of};

/// A node with one image in `acme/app`.
async fn with_image() -> (Hosted, Image) {
    let hosted = Hosted::start().await;
    let image = Image::oci("acme/app", "1", &[2048, 70_000]);
    hosted.administrator().push_image(&image).await;
    (hosted, image)
}

#[tokio::test]
async fn pull_01_an_existing_manifest_is_200_with_exactly_its_bytes_by_tag_and_by_digest() {
    let (hosted, image) = with_image().await;
    for path in [image.tag_path(), image.digest_path()] {
        let answer = hosted.anonymous().get(&path).accept(&[OCI_MANIFEST]).send().await;
        assert_eq!((answer.status, &answer.body), (200, &image.manifest.bytes), "{path}");
        assert_eq!(answer.header("content-length"), Some(image.manifest.size().to_string().as_str()));
    }
}

#[tokio::test]
async fn pull_02_a_manifest_comes_with_its_digest() {
    let (hosted, image) = with_image().await;
    for path in [image.tag_path(), image.digest_path()] {
        let answer = hosted.anonymous().get(&path).send().await;
        assert_eq!(answer.header("docker-content-digest"), Some(image.manifest.digest.as_str()), "{path}");
    }
}

#[tokio::test]
async fn pull_03_the_type_of_a_manifest_has_no_parameters_and_is_the_one_it_was_pushed_with() {
    let hosted = Hosted::start().await;
    let images = [Image::oci("acme/app", "oci", &[10]), Image::docker("acme/app", "docker", &[10])];
    for image in &images {
        hosted.administrator().push_image(image).await;
    }
    let index = index_of(OCI_INDEX, &[&images[0]]);
    hosted.administrator().push_manifest("acme/app", "index", &index).await;
    for (reference, media_type) in [("oci", OCI_MANIFEST), ("docker", DOCKER_MANIFEST), ("index", OCI_INDEX)]
    {
        let answer = hosted.anonymous().manifest("acme/app", reference).await;
        assert_eq!(answer.header("content-type"), Some(media_type), "{reference}");
        let types: Vec<_> = answer.headers.get_all("content-type").iter().collect();
        assert_eq!(types.len(), 1, "{types:?}");
    }
}

#[tokio::test]
async fn pull_04_whatever_a_client_accepts_a_known_digest_is_served() {
    let (hosted, image) = with_image().await;
    for accept in [&[OCI_INDEX][..], &[DOCKER_MANIFEST], &["text/html"], &[""], &[]] {
        let call = hosted.anonymous().get(&image.digest_path()).accept(accept);
        assert_eq!(call.send().await.body, image.manifest.bytes, "{accept:?}");
    }
}

#[tokio::test]
async fn pull_05_a_manifest_that_is_not_there_is_404() {
    let (hosted, image) = with_image().await;
    let other = image.manifest.another_digest();
    for reference in ["none", &other, &image.layers[0].digest, &image.config.digest] {
        hosted.anonymous().manifest("acme/app", reference).await.assert_error(404, "MANIFEST_UNKNOWN");
    }
}

#[tokio::test]
async fn pull_06_an_existing_blob_is_200_with_exactly_its_bytes() {
    let (hosted, image) = with_image().await;
    for blob in image.layers.iter().chain([&image.config]) {
        let answer = hosted.anonymous().blob("acme/app", &blob.digest).await;
        assert_eq!(answer.status, 200);
        assert!(answer.body == blob.bytes, "{}", blob.digest);
        assert_eq!(answer.header("content-length"), Some(blob.size().to_string().as_str()));
    }
}

#[tokio::test]
async fn pull_07_a_blob_comes_with_its_digest() {
    let (hosted, image) = with_image().await;
    for blob in image.layers.iter().chain([&image.config]) {
        let answer = hosted.anonymous().blob("acme/app", &blob.digest).await;
        assert_eq!(answer.header("docker-content-digest"), Some(blob.digest.as_str()));
    }
}

#[tokio::test]
async fn pull_08_a_blob_that_is_not_there_is_404() {
    let (hosted, image) = with_image().await;
    let other = image.layers[0].another_digest();
    let sha512 = Content::blob(77, 10).sha512();
    for digest in [&other, &sha512] {
        hosted.anonymous().blob("acme/app", digest).await.assert_error(404, "BLOB_UNKNOWN");
    }
}

#[tokio::test]
async fn pull_09_ranges_of_a_blob_are_served_as_http_says() {
    let (hosted, image) = with_image().await;
    let (path, bytes) = (image.layer_path(0), &image.layers[0].bytes);
    for (range, first, last) in [
        ("bytes=500-1499", 500, 1499),
        ("bytes=500-", 500, 2047),
        ("bytes=-500", 1548, 2047),
        ("bytes=2000-5000", 2000, 2047),
        ("bytes=0-", 0, 2047),
        ("bytes=0-0", 0, 0),
    ] {
        let answer = hosted.anonymous().get(&path).range(range).send().await;
        assert_eq!((answer.status, &answer.body[..]), (206, &bytes[first..=last]), "{range}");
        let content_range = format!("bytes {first}-{last}/2048");
        assert_eq!(answer.header("content-range"), Some(content_range.as_str()), "{range}");
        assert_eq!(answer.header("content-length"), Some((last - first + 1).to_string().as_str()));
    }
    let beyond = hosted.anonymous().get(&path).range("bytes=5000-10000").send().await;
    assert_eq!((beyond.status, beyond.header("content-range")), (416, Some("bytes */2048")));
    // RFC 9110, section 14.2: what is no range may be ignored or refused, and never be half understood.
    let backwards = hosted.anonymous().get(&path).range("bytes=500-0").send().await;
    assert!([200, 416].contains(&backwards.status), "{backwards:?}");
}

#[tokio::test]
async fn pull_10_a_head_of_what_is_there_is_200_with_digest_and_size_and_no_body() {
    let (hosted, image) = with_image().await;
    let paths = [
        (image.tag_path(), &image.manifest),
        (image.digest_path(), &image.manifest),
        (image.layer_path(0), &image.layers[0]),
        (image.blob_path(&image.config), &image.config),
    ];
    for (path, content) in paths {
        let answer = hosted.anonymous().head(&path).accept(&[OCI_INDEX, OCI_MANIFEST]).send().await;
        assert_eq!((answer.status, answer.body.len()), (200, 0), "{path}");
        assert_eq!(answer.header("docker-content-digest"), Some(content.digest.as_str()), "{path}");
        assert_eq!(answer.header("content-length"), Some(content.size().to_string().as_str()), "{path}");
        let full = hosted.anonymous().get(&path).send().await;
        assert_eq!(answer.header("content-type"), full.header("content-type"), "{path}");
    }
}

#[tokio::test]
async fn pull_11_a_head_of_what_is_not_there_is_404_without_a_body() {
    let (hosted, image) = with_image().await;
    let other = image.layers[0].another_digest();
    for path in [
        "/v2/acme/app/manifests/none".to_owned(),
        format!("/v2/acme/app/manifests/{other}"),
        format!("/v2/acme/app/blobs/{other}"),
        "/v2/acme/none/manifests/1".to_owned(),
    ] {
        let answer = hosted.anonymous().head(&path).send().await;
        assert_eq!((answer.status, answer.body.len()), (404, 0), "{path}");
    }
}

#[tokio::test]
async fn pull_12_nothing_is_pulled_from_a_repository_that_does_not_exist() {
    let (hosted, image) = with_image().await;
    for reference in ["1", &image.manifest.digest] {
        let answer = hosted.anonymous().manifest("acme/none", reference).await;
        assert_eq!(answer.status, 404, "{reference}");
        assert!(["NAME_UNKNOWN", "MANIFEST_UNKNOWN"].contains(&answer.error_code().as_str()));
    }
    let answer = hosted.anonymous().blob("acme/none", &image.layers[0].digest).await;
    assert_eq!(answer.status, 404);
    assert!(["NAME_UNKNOWN", "BLOB_UNKNOWN"].contains(&answer.error_code().as_str()));
}

#[tokio::test]
async fn pull_13_every_name_that_the_grammar_allows_can_be_pushed_and_pulled() {
    let hosted = Hosted::start().await;
    for repository in [
        "acme/a",
        "acme/0",
        "acme/a.b_c__d-e---f",
        "acme/a/b/c/d/e/f/g",
        "acme/blobs",
        "acme/manifests",
        "acme/uploads/blobs",
        "acme/tags/list",
        "acme/a/manifests/b",
        "acme/referrers",
    ] {
        let image = Image::oci(repository, "1", &[10]);
        hosted.administrator().push_image(&image).await;
        hosted.anonymous().pull_image(&image).await;
        assert_eq!(hosted.anonymous().tags(repository).await, ["1"], "{repository}");
    }
}

#[tokio::test]
async fn pull_14_a_name_outside_the_grammar_is_invalid() {
    let hosted = Hosted::start().await;
    let long = format!("acme/{}", "a".repeat(300));
    for repository in
        ["acme/App", "acme/a..b", "acme/-a", "acme/a-", "acme/a___b", "acme/.a", "acme/a_.b", &long]
    {
        let answer = hosted.administrator().post(&format!("/v2/{repository}/blobs/uploads/")).send().await;
        answer.assert_error(400, "NAME_INVALID");
        let answer = hosted.administrator().get(&format!("/v2/{repository}/tags/list")).send().await;
        answer.assert_error(400, "NAME_INVALID");
    }
}

#[tokio::test]
async fn pull_15_a_tag_has_up_to_128_characters_of_its_grammar() {
    let hosted = Hosted::start().await;
    let image = Image::oci("acme/app", "1", &[10]);
    hosted.administrator().push_image(&image).await;
    let longest = format!("_{}", "Z".repeat(127));
    for tag in ["a", "_", "9", "A-b.C_d", &longest] {
        hosted.administrator().push_manifest("acme/app", tag, &image.manifest).await;
        assert_eq!(hosted.anonymous().manifest("acme/app", tag).await.body, image.manifest.bytes, "{tag}");
    }
    let too_long = "Z".repeat(129);
    for tag in [".a", "-a", "a%20b", "a+b", "a%2Fb", &too_long] {
        let answer = hosted.administrator().put_manifest("acme/app", tag, &image.manifest).await;
        assert!([400, 404].contains(&answer.status), "{tag}: {answer:?}");
        answer.error_code();
        let answer = hosted.anonymous().manifest("acme/app", tag).await;
        assert!([400, 404].contains(&answer.status), "{tag}: {answer:?}");
    }
    assert_eq!(hosted.anonymous().tags("acme/app").await.len(), 6);
}

#[tokio::test]
async fn pull_16_the_root_says_that_this_is_a_registry() {
    let (hosted, image) = with_image().await;
    assert_eq!(hosted.administrator().get("/v2/").send().await.status, 200);
    for path in ["/v2/", &image.tag_path(), &image.layer_path(0), "/v2/acme/app/tags/list"] {
        let answer = hosted.administrator().get(path).send().await;
        assert_eq!(answer.header("docker-distribution-api-version"), Some("registry/2.0"), "{path}");
    }
}

#[tokio::test]
async fn pull_17_a_blob_of_one_repository_is_not_served_from_another() {
    let (hosted, image) = with_image().await;
    hosted.administrator().push_image(&Image::oci("acme/other", "1", &[10])).await;
    let layer = &image.layers[0].digest;
    for actor in [hosted.anonymous(), hosted.administrator()] {
        actor.blob("acme/other", layer).await.assert_error(404, "BLOB_UNKNOWN");
        let manifest = actor.manifest("acme/other", &image.manifest.digest).await;
        manifest.assert_error(404, "MANIFEST_UNKNOWN");
    }
}
