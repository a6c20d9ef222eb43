//! Manifests (items 11-17, 20-29).

use crate::content::{
    ALL_TYPES, Content, DOCKER_LIST, DOCKER_MANIFEST, Image, OCI_INDEX, OCI_MANIFEST, SCHEMA1,
    SCHEMA1_SIGNED, index_of, schema1,
};
use crate::harness::{Section, Setup, Tidegate};
use crate::upstream::{Kind, Upstream, any, everything, manifest, serve, status};

#[tokio::test]
async fn item_011_head_by_tag_tells_type_length_digest_and_etag_without_a_body() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[100]);
    let tidegate = Tidegate::start(&upstream).await;
    let (digest, etag) = (image.manifest.digest.clone(), format!("\"{}\"", image.manifest.digest));
    for client in [tidegate.client(), tidegate.client().http2()] {
        for _cold_then_warm in 0..2 {
            let head = client.head(&image.tag_path()).accept(&ALL_TYPES).send().await;
            assert_eq!((head.status, head.body.len()), (200, 0));
            assert_eq!(head.header("content-type"), Some(OCI_MANIFEST));
            assert_eq!(head.header("content-length"), Some(image.manifest.size().to_string().as_str()));
            assert_eq!(head.header("docker-content-digest"), Some(digest.as_str()));
            assert_eq!(head.header("etag"), Some(etag.as_str()));
        }
    }
}

#[tokio::test]
async fn item_012_get_is_byte_for_byte_what_upstream_sent_and_agrees_with_head() {
    let upstream = Upstream::start().await;
    let odd = Content::of(
        OCI_MANIFEST,
        "{ \"mediaType\" :\"application/vnd.oci.image.manifest.v1+json\",\n\t\"schemaVersion\": 2, \"x\":1.0e0 ,\r\n \"config\": {\"mediaType\":\"a/b\",\"size\":0,\"digest\":\"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"}, \"layers\":[] , \"layers\":[]}\n\n",
    );
    upstream.tag_manifest("library/app", "odd", &odd);
    let tidegate = Tidegate::start(&upstream).await;
    for path in
        ["/v2/library/app/manifests/odd".to_owned(), format!("/v2/library/app/manifests/{}", odd.digest)]
    {
        for _cold_then_warm in 0..2 {
            let (head, get) = (tidegate.head(&path).send().await, tidegate.fetch(&path).await);
            assert_eq!(get.body, odd.bytes);
            for name in ["content-length", "content-type", "docker-content-digest", "etag"] {
                assert!(get.header(name).is_some(), "{name}");
                assert_eq!(head.header(name), get.header(name), "{name} of {path}");
            }
        }
    }
}

#[tokio::test]
async fn item_013_the_type_is_the_real_one_without_parameters() {
    let upstream = Upstream::start().await;
    let (oci, docker) =
        (Image::oci("library/app", "oci", &[10]), Image::docker("library/app", "docker", &[10]));
    upstream.add_image(&oci);
    upstream.add_image(&docker);
    let (index, list) = (index_of(OCI_INDEX, &[&oci]), index_of(DOCKER_LIST, &[&docker]));
    upstream.tag_manifest("library/app", "index", &index);
    upstream.tag_manifest("library/app", "list", &list);
    let tidegate = Tidegate::start(&upstream).await;
    for (tag, media_type) in
        [("oci", OCI_MANIFEST), ("docker", DOCKER_MANIFEST), ("index", OCI_INDEX), ("list", DOCKER_LIST)]
    {
        for spelled in
            [format!("{media_type}; charset=utf-8"), "application/json".to_owned(), "text/plain".to_owned()]
        {
            upstream.rule(manifest(tag), serve().header("content-type", &spelled));
            let tidegate = Tidegate::start(&upstream).await;
            let answer = tidegate.manifest(&format!("/v2/library/app/manifests/{tag}")).await;
            assert_eq!((answer.status, answer.header("content-type")), (200, Some(media_type)), "{spelled}");
            upstream.heal();
        }
        let answer = tidegate.manifest(&format!("/v2/library/app/manifests/{tag}")).await;
        assert_eq!(answer.header("content-type"), Some(media_type));
    }
}

#[tokio::test]
async fn item_014_by_digest_the_digest_header_is_the_one_asked_for() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[10]);
    let tidegate = Tidegate::start(&upstream).await;
    for digest in [image.manifest.digest.clone(), image.manifest.sha512()] {
        let path = format!("/v2/library/app/manifests/{digest}");
        for _cold_then_warm in 0..2 {
            let answer = tidegate.manifest(&path).await;
            assert_eq!((answer.status, answer.header("docker-content-digest")), (200, Some(digest.as_str())));
            assert_eq!(answer.header("etag"), Some(format!("\"{digest}\"").as_str()));
            assert_eq!(
                tidegate.head(&path).send().await.header("docker-content-digest"),
                Some(digest.as_str())
            );
        }
    }
}

#[tokio::test]
async fn item_015_sha512_is_verified_and_tags_still_tell_sha256() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[10]);
    let wrong = Image::oci("library/app", "2", &[20]);
    upstream.add_image(&wrong);
    let tidegate = Setup::new().upstream(Section::hub(&upstream)).with_warnings().start().await;
    let path = format!("/v2/library/app/manifests/{}", image.manifest.sha512());
    upstream.once(manifest(&image.manifest.sha512()).get(), serve().body(wrong.manifest.bytes.clone()));
    let spoilt = tidegate.manifest(&path).await;
    assert_ne!(spoilt.body, wrong.manifest.bytes);
    assert_eq!(spoilt.status, 502, "a body of another digest");
    let answer = tidegate.manifest(&path).await;
    assert_eq!((answer.status, answer.body), (200, image.manifest.bytes.clone()));
    let by_tag = tidegate.manifest(&image.tag_path()).await;
    assert_eq!(by_tag.header("docker-content-digest"), Some(image.manifest.digest.as_str()));
    let asked = upstream.count(&everything());
    assert_eq!(tidegate.manifest(&path).await.status, 200);
    assert_eq!(upstream.count(&everything()), asked, "both digests are kept");
}

#[tokio::test]
async fn item_016_a_missing_accept_gets_any_type() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[10]);
    let index = index_of(OCI_INDEX, &[&image]);
    upstream.tag_manifest("library/app", "index", &index);
    let tidegate = Tidegate::start(&upstream).await;
    for reference in ["index", &index.digest] {
        let path = format!("/v2/library/app/manifests/{reference}");
        assert_eq!(tidegate.head(&path).send().await.status, 200);
        assert_eq!(tidegate.fetch(&path).await.header("content-type"), Some(OCI_INDEX));
    }
}

#[tokio::test]
async fn item_017_by_digest_the_accept_header_does_not_matter() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[10]);
    let index = index_of(OCI_INDEX, &[&image]);
    upstream.tag_manifest("library/app", "index", &index);
    let path = format!("/v2/library/app/manifests/{}", index.digest);
    let tidegate = Tidegate::start(&upstream).await;
    for accept in [DOCKER_MANIFEST, "application/json", "text/html;q=0.5"] {
        let answer = tidegate.get(&path).header("accept", accept).send().await;
        assert_eq!((answer.status, answer.header("content-type")), (200, Some(OCI_INDEX)), "{accept}");
    }
}

#[tokio::test]
async fn item_020_schema_1_passes_unchanged_with_upstreams_digest() {
    let upstream = Upstream::start().await;
    let layer = Content::blob(1, 10);
    upstream.add_blob("library/old", &layer);
    let signed = schema1("library/old", "1", &layer);
    upstream.tag_manifest("library/old", "1", &signed);
    let mut unsigned = Content::of(SCHEMA1, signed.bytes.slice(..));
    unsigned.media_type = SCHEMA1.to_owned();
    upstream.tag_manifest("library/old", "2", &unsigned);
    let tidegate = Tidegate::start(&upstream).await;
    for _ in 0..2 {
        let answer = tidegate.manifest("/v2/library/old/manifests/1").await;
        assert_eq!((answer.status, &answer.body), (200, &signed.bytes));
        assert_eq!(answer.header("content-type"), Some(SCHEMA1_SIGNED));
        assert_eq!(answer.header("docker-content-digest"), Some(signed.digest.as_str()));
    }
    let answer = tidegate.manifest("/v2/library/old/manifests/2").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some(SCHEMA1)));
}

#[tokio::test]
async fn item_021_a_digest_that_upstream_does_not_say_is_computed() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[10]);
    upstream.rule(any(Kind::Manifest), serve().without("docker-content-digest").without("etag"));
    let tidegate = Tidegate::start(&upstream).await;
    for path in [image.tag_path(), image.digest_path()] {
        let head = tidegate.head(&path).send().await;
        assert_eq!(head.header("docker-content-digest"), Some(image.manifest.digest.as_str()), "{path}");
        assert_eq!(head.header("content-length"), Some(image.manifest.size().to_string().as_str()));
        assert_eq!(tidegate.manifest(&path).await.body, image.manifest.bytes);
    }
}

#[tokio::test]
async fn item_021_the_same_where_upstream_refuses_head() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[10]);
    upstream.rule(any(Kind::Manifest).head(), status(405));
    let tidegate = Setup::new().upstream(Section::hub(&upstream)).with_warnings().start().await;
    let head = tidegate.head(&image.tag_path()).send().await;
    assert_eq!(
        (head.status, head.header("docker-content-digest")),
        (200, Some(image.manifest.digest.as_str()))
    );
}

#[tokio::test]
async fn item_022_a_matching_if_none_match_is_304_without_a_body() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[10]);
    let tidegate = Tidegate::start(&upstream).await;
    let digest = &image.manifest.digest;
    let other = image.manifest.another_digest();
    for path in [image.tag_path(), image.digest_path()] {
        for value in [
            format!("\"{digest}\""),
            digest.clone(),
            format!("W/\"{digest}\""),
            format!("\"{other}\", \"{digest}\""),
            "*".to_owned(),
        ] {
            let answer = tidegate.get(&path).header("if-none-match", &value).send().await;
            assert_eq!((answer.status, answer.body.len()), (304, 0), "{value} on {path}");
            assert_eq!(answer.header("etag"), Some(format!("\"{digest}\"").as_str()));
        }
        let differs = tidegate.get(&path).header("if-none-match", &format!("\"{other}\"")).send().await;
        assert_eq!(differs.status, 200);
        assert_eq!(tidegate.fetch(&path).await.status, 200, "only when the client asked");
    }
}

#[tokio::test]
async fn item_023_ranges_of_a_manifest_are_206() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[10]);
    let tidegate = Tidegate::start(&upstream).await;
    let size = image.manifest.size();
    for path in [image.digest_path(), image.tag_path()] {
        for (range, first) in [("bytes=0-", 0), ("bytes=7-", 7)] {
            let answer = tidegate.get(&path).range(range).send().await;
            let expected = format!("bytes {first}-{}/{size}", size - 1);
            assert_eq!((answer.status, answer.header("content-range")), (206, Some(expected.as_str())));
            assert_eq!(answer.body, image.manifest.bytes.slice(first..));
            assert_eq!(answer.header("content-type"), Some(OCI_MANIFEST));
        }
    }
}

#[tokio::test]
async fn item_024_an_unknown_tag_is_manifest_unknown() {
    let upstream = Upstream::start().await;
    upstream.make_image("library/app", "1", &[10]);
    let tidegate = Tidegate::start(&upstream).await;
    for reference in ["none", &format!("sha256-{}.sig", "0".repeat(64))] {
        for _cold_then_negative in 0..2 {
            let answer = tidegate.manifest(&format!("/v2/library/app/manifests/{reference}")).await;
            answer.assert_error(404, "MANIFEST_UNKNOWN");
        }
    }
    tidegate.manifest("/v2/library/none/manifests/1").await.assert_error(404, "MANIFEST_UNKNOWN");
}

#[tokio::test]
async fn item_026_digests_are_never_asked_for_again() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[10]);
    let tidegate = Setup::new().upstream(Section::hub(&upstream).clocks("0s", "0s", "30d")).start().await;
    tidegate.pull(&image).await;
    upstream.forget_requests();
    for _ in 0..3 {
        assert_eq!(tidegate.manifest(&image.digest_path()).await.body, image.manifest.bytes);
        assert_eq!(tidegate.head(&image.digest_path()).send().await.status, 200);
        assert_eq!(tidegate.fetch(&image.layer_path(0)).await.status, 200);
        assert_eq!(tidegate.head(&image.layer_path(0)).send().await.status, 200);
    }
    assert_eq!(upstream.count(&everything()), 0);
}

#[tokio::test]
async fn item_027_a_manifest_of_more_than_4_mib_passes() {
    let upstream = Upstream::start().await;
    let annotation = "a".repeat(5 << 20);
    let large = Content::json(
        OCI_MANIFEST,
        &serde_json::json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST, "annotations": { "large": annotation },
            "config": Content::of("application/vnd.oci.empty.v1+json", "{}").descriptor(), "layers": [] }),
    );
    upstream.tag_manifest("library/app", "large", &large);
    let tidegate = Tidegate::start(&upstream).await;
    for _cold_then_warm in 0..2 {
        let answer = tidegate.manifest("/v2/library/app/manifests/large").await;
        assert_eq!((answer.status, answer.body == large.bytes), (200, true));
    }
}

#[tokio::test]
async fn item_028_a_tag_with_a_digest_is_no_reference() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[10]);
    let tidegate = Tidegate::start(&upstream).await;
    let answer = tidegate.fetch(&format!("/v2/library/app/manifests/1@{}", image.manifest.digest)).await;
    assert!([400, 404].contains(&answer.status), "{answer:?}");
    answer.error_code();
    assert_eq!(upstream.count(&everything()), 0);
}

#[tokio::test]
async fn item_029_children_are_manifests_and_the_wrong_endpoint_is_404() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[10]);
    let index = index_of(OCI_INDEX, &[&image]);
    upstream.tag_manifest("library/app", "index", &index);
    let tidegate = Tidegate::start(&upstream).await;
    assert_eq!(tidegate.manifest("/v2/library/app/manifests/index").await.status, 200);
    assert_eq!(tidegate.manifest(&image.digest_path()).await.body, image.manifest.bytes);
    let as_blob = tidegate.fetch(&format!("/v2/library/app/blobs/{}", image.manifest.digest)).await;
    as_blob.assert_error(404, "BLOB_UNKNOWN");
    assert_eq!(tidegate.fetch(&image.blob_path(&image.config)).await.status, 200);
    let as_manifest = tidegate.manifest(&format!("/v2/library/app/manifests/{}", image.config.digest)).await;
    as_manifest.assert_error(404, "MANIFEST_UNKNOWN");
}
