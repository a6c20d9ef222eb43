//! Whole blobs (items 30, 31, 46-53).

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::content::{Content, Image, OCI_MANIFEST, OCTETS};
use crate::harness::{Section, Setup, Tidegate, until};
use crate::upstream::{Kind, Upstream, any, blob, everything, redirect, serve, status};

#[tokio::test]
async fn item_030_a_blob_has_length_ranges_digest_etag_and_type() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[100_000]);
    let tidegate = Tidegate::start(&upstream).await;
    let layer = &image.layers[0];
    for client in [tidegate.client(), tidegate.client().http2()] {
        let answer = client.get(&image.layer_path(0)).send().await;
        assert_eq!((answer.status, &answer.body), (200, &layer.bytes));
        assert_eq!(answer.header("content-length"), Some("100000"));
        assert_eq!(answer.header("accept-ranges"), Some("bytes"));
        assert_eq!(answer.header("docker-content-digest"), Some(layer.digest.as_str()));
        assert_eq!(answer.header("etag"), Some(format!("\"{}\"", layer.digest).as_str()));
        assert_eq!(answer.header("content-type"), Some(OCTETS));
        let head = client.head(&image.layer_path(0)).send().await;
        for name in ["content-length", "accept-ranges", "docker-content-digest", "etag", "content-type"] {
            assert_eq!(head.header(name), answer.header(name), "{name}");
        }
    }
}

#[tokio::test]
async fn item_030_the_same_where_upstream_says_less() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[100_000]);
    let bare = serve().without("docker-content-digest").without("etag").without("content-type").chunked();
    upstream.rule(any(Kind::Blob), bare);
    let tidegate = Tidegate::start(&upstream).await;
    tidegate.manifest(&image.tag_path()).await;
    let answer = tidegate.fetch(&image.layer_path(0)).await;
    assert_eq!((answer.status, &answer.body), (200, &image.layers[0].bytes));
    assert_eq!(answer.header("content-length"), Some("100000"), "the manifest says the size");
    assert_eq!(answer.header("content-type"), Some(OCTETS));
}

#[tokio::test]
async fn a_blob_of_unknown_size_is_streamed_to_its_verified_end() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[3_000_000]);
    upstream.rule(any(Kind::Blob), serve().chunked());
    let tidegate = Tidegate::start(&upstream).await;
    for _cold_then_warm in 0..2 {
        let answer = tidegate.fetch(&image.layer_path(0)).await;
        assert!(answer.status == 200 && answer.body == image.layers[0].bytes);
    }
    assert_eq!(upstream.count(&any(Kind::Blob).whole()), 1);
}

#[tokio::test]
async fn item_031_head_of_a_cold_blob_tells_its_size_without_asking_head() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[2_000_000]);
    upstream.rule(any(Kind::Blob).head(), status(401));
    let tidegate = Tidegate::start(&upstream).await;
    let head = tidegate.head(&image.layer_path(0)).send().await;
    assert_eq!((head.status, head.header("content-length")), (200, Some("2000000")));
    assert_eq!(upstream.count(&any(Kind::Blob).head()), 0);
    assert!(upstream.sent_bytes(&any(Kind::Blob)) < 1_000_000, "the blob itself was not fetched");

    let tidegate = Tidegate::start(&upstream).await;
    tidegate.manifest(&image.tag_path()).await;
    upstream.forget_requests();
    let head = tidegate.head(&image.layer_path(0)).send().await;
    assert_eq!((head.status, head.header("content-length")), (200, Some("2000000")));
    assert!(upstream.sent_bytes(&any(Kind::Blob)) <= 1, "the manifest says the size");
    let missing = format!("/v2/library/app/blobs/{}", image.layers[0].another_digest());
    assert_eq!(tidegate.head(&missing).send().await.status, 404);
}

#[tokio::test]
async fn item_047_a_blob_without_ns_is_found_where_the_repository_showed_it() {
    let upstream = Upstream::start().await;
    let other = Upstream::start().await;
    let image = other.make_image("team/app", "1", &[5000]);
    let tidegate = Setup::new()
        .upstream(Section::hub(&upstream))
        .upstream(Section::new("other.test", &other))
        .start()
        .await;
    let with_ns = format!("{}?ns=other.test", image.tag_path());
    assert_eq!(tidegate.manifest(&with_ns).await.status, 200);
    let answer = tidegate.fetch(&image.layer_path(0)).await;
    assert_eq!((answer.status, &answer.body), (200, &image.layers[0].bytes));
    let elsewhere = format!("/v2/team/other/blobs/{}", image.layers[0].digest);
    assert_eq!(tidegate.fetch(&elsewhere).await.status, 404, "another repository shows nothing");
}

#[tokio::test]
async fn item_049_a_blob_that_cannot_be_fetched_is_told_promptly() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[5000]);
    let tidegate = Setup::new().upstream(Section::hub(&upstream)).with_warnings().start().await;
    tidegate.manifest(&image.tag_path()).await;
    upstream.remove_blob("library/app", &image.layers[0]);
    tidegate.fetch(&image.layer_path(0)).await.assert_error(404, "BLOB_UNKNOWN");
    upstream.stop().await;
    let answer = tidegate.fetch(&image.blob_path(&image.config)).await;
    assert_eq!(answer.status, 504);
    answer.error_code();
}

#[tokio::test]
async fn item_050_a_redirect_of_upstream_is_followed_here_and_never_passed_on() {
    let upstream = Upstream::start().await;
    let cdn = Upstream::start_at("127.0.0.2").await;
    let image = upstream.make_image("library/app", "1", &[50_000]);
    cdn.add_image(&image);
    let layer = &image.layers[0];
    upstream.rule(blob(layer), redirect(307, &cdn.cdn_url(layer)));
    let section = Section::hub(&upstream).list("trusted_hosts", &["127.0.0.2"]);
    let tidegate = Setup::new().upstream(section).start().await;
    let head = tidegate.head(&image.layer_path(0)).send().await;
    assert_eq!((head.status, head.header("location")), (200, None));
    let ranged = tidegate.get(&image.layer_path(0)).range("bytes=10-19").send().await;
    assert_eq!((ranged.status, &ranged.body), (206, &layer.bytes.slice(10..20)));
    let answer = tidegate.fetch(&image.layer_path(0)).await;
    assert_eq!((answer.status, answer.header("location")), (200, None));
    assert_eq!(answer.body, layer.bytes);
}

#[tokio::test]
async fn item_051_a_blob_is_served_whatever_the_accept_header_says() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[500]);
    let tidegate = Tidegate::start(&upstream).await;
    for accept in [OCI_MANIFEST, "", "text/html"] {
        let answer = tidegate.get(&image.layer_path(0)).header("accept", accept).send().await;
        assert_eq!((answer.status, &answer.body), (200, &image.layers[0].bytes), "{accept}");
    }
}

#[tokio::test]
async fn item_052_empty_and_tiny_blobs_are_served_cold_and_warm() {
    let upstream = Upstream::start().await;
    let empty = Content::of(OCTETS, "");
    let tiny = Content::of(OCTETS, "{}");
    let image = Image::of_layers("library/app", "1", vec![empty.clone(), tiny.clone()]);
    upstream.add_image(&image);
    let tidegate = Tidegate::start(&upstream).await;
    for content in [&empty, &tiny] {
        for _cold_then_warm in 0..2 {
            let answer = tidegate.fetch(&image.blob_path(content)).await;
            assert_eq!((answer.status, &answer.body), (200, &content.bytes));
            let head = tidegate.head(&image.blob_path(content)).send().await;
            assert_eq!(head.header("content-length"), Some(content.size().to_string().as_str()));
        }
    }
    let outside = tidegate.get(&image.blob_path(&empty)).range("bytes=0-").send().await;
    assert!([200, 416].contains(&outside.status), "{outside:?}");
    let whole = tidegate.get(&image.blob_path(&tiny)).range("bytes=0-1").send().await;
    assert_eq!((whole.status, whole.header("content-range")), (206, Some("bytes 0-1/2")));
}

#[tokio::test]
async fn item_053_foreign_layers_stay_in_the_manifest_and_their_absence_is_passed() {
    let upstream = Upstream::start().await;
    let foreign = Content::blob(7, 100);
    let manifest = Content::json(
        OCI_MANIFEST,
        &serde_json::json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST,
            "config": Content::of("application/vnd.oci.image.config.v1+json", "{}").descriptor(),
            "layers": [{ "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
                "digest": foreign.digest, "size": 100, "urls": ["https://elsewhere.invalid/layer"] }],
        }),
    );
    upstream.tag_manifest("library/windows", "1", &manifest);
    let tidegate = Tidegate::start(&upstream).await;
    assert_eq!(tidegate.manifest("/v2/library/windows/manifests/1").await.body, manifest.bytes);
    let answer = tidegate.fetch(&format!("/v2/library/windows/blobs/{}", foreign.digest)).await;
    answer.assert_error(404, "BLOB_UNKNOWN");
}

#[tokio::test]
async fn a_blob_of_sha512_is_verified_and_kept() {
    let upstream = Upstream::start().await;
    let content = Content::blob(11, 100_000);
    let mut by_sha512 = content.clone();
    by_sha512.digest = content.sha512();
    upstream.add_blob("library/app", &by_sha512);
    let tidegate = Tidegate::start(&upstream).await;
    let path = format!("/v2/library/app/blobs/{}", by_sha512.digest);
    for _cold_then_warm in 0..2 {
        let answer = tidegate.fetch(&path).await;
        assert_eq!((answer.status, &answer.body), (200, &content.bytes));
        assert_eq!(answer.header("docker-content-digest"), Some(by_sha512.digest.as_str()));
    }
    assert_eq!(upstream.count(&blob(&by_sha512)), 1);
}

#[tokio::test]
async fn cache_status_tells_how_an_answer_came_about() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[5000]);
    let tidegate = Tidegate::start(&upstream).await;
    for path in [image.tag_path(), image.layer_path(0)] {
        let cold = tidegate.fetch(&path).await;
        assert!(cold.cache_status().starts_with("tidegate; fwd="), "{path}: {}", cold.cache_status());
        let warm = tidegate.fetch(&path).await;
        assert!(warm.cache_status().starts_with("tidegate; hit"), "{path}: {}", warm.cache_status());
    }
    let cold = tidegate.fetch(&image.blob_path(&image.config)).await;
    assert!(cold.cache_status().contains("fwd=uri-miss"), "{}", cold.cache_status());
    assert!(upstream.count(&everything()) > 0);
}

#[tokio::test]
async fn blobs_leave_by_sendfile_cold_and_warm_whole_and_in_parts() {
    const SIZE: usize = 3_000_000;
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[SIZE]);
    let tidegate = Tidegate::start(&upstream).await;
    let bytes = &image.layers[0].bytes;
    let mut received = 0;
    let sent = async || tidegate.metrics().await.sum("tidegate_sendfile_bytes_total", &[]);
    let is = |sum: f64, bytes: usize| (sum - f64::from(u32::try_from(bytes).unwrap())).abs() < 0.5;
    for range in [None, None, Some(100..2_500_000), Some(SIZE - 10..SIZE)] {
        let mut request = tidegate.get(&image.layer_path(0));
        if let Some(range) = &range {
            request = request.header("range", &format!("bytes={}-{}", range.start, range.end - 1));
        }
        let answer = request.send().await;
        assert!(answer.body == bytes[range.clone().unwrap_or(0..SIZE)], "{range:?}");
        received += answer.body.len();
        until("the count of what came", async || is(sent().await, received)).await;
    }
    // Several ranges have heads between them; over HTTP/2, all bytes are framed.
    let request = tidegate.get(&image.layer_path(0)).header("range", "bytes=0-9,1000000-1999999");
    let body = request.send().await.body;
    assert!(body.windows(1_000_000).any(|window| *window == bytes[1_000_000..2_000_000]));
    until("the count of the ranges", async || is(sent().await, received + 1_000_010)).await;
    let over_http2 = tidegate.client().http2().get(&image.layer_path(0)).send().await;
    assert!(over_http2.body == *bytes);
    assert!(is(sent().await, received + 1_000_010));
}

#[tokio::test]
async fn requests_in_a_row_on_one_connection_do_not_mix_their_files() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[2_000_000, 300, 1_500_000]);
    let tidegate = Tidegate::start(&upstream).await;
    tidegate.pull(&image).await;
    let mut stream = tokio::net::TcpStream::connect(tidegate.address()).await.unwrap();
    let mut expected = Vec::new();
    for layer in [0, 1, 2, 0] {
        let request = format!("GET {} HTTP/1.1\r\nhost: tidegate\r\n\r\n", image.layer_path(layer));
        stream.write_all(request.as_bytes()).await.unwrap();
        expected.push(&image.layers[layer].bytes);
    }
    let request = format!("GET {} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", image.tag_path());
    stream.write_all(request.as_bytes()).await.unwrap();
    expected.push(&image.manifest.bytes);
    let mut received = Vec::new();
    stream.read_to_end(&mut received).await.unwrap();
    let mut rest = received.as_slice();
    for bytes in expected {
        let head = rest.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
        assert!(rest[head..].starts_with(bytes), "{}", String::from_utf8_lossy(&rest[..head]));
        rest = &rest[head + bytes.len()..];
    }
    assert!(rest.is_empty());
}

#[tokio::test]
async fn a_small_blob_that_was_altered_on_the_disk_is_fetched_again() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[5_000]);
    let mut tidegate =
        Setup::new().upstream(Section::hub(&upstream)).with_warnings().with_log("digest").start().await;
    tidegate.pull(&image).await;
    let path = tidegate.stored_path(&image.layers[0].digest);
    until("the file in its place", async || path.exists()).await;
    tidegate.restart().await;
    std::fs::write(&path, vec![b'x'; 5_000]).unwrap();
    let answer = tidegate.fetch(&image.layer_path(0)).await;
    assert!(answer.status == 200 && answer.body == image.layers[0].bytes);
    let metrics = tidegate.metrics().await;
    assert!((metrics.sum("tidegate_integrity_failures_total", &[("where", "store")]) - 1.0).abs() < 0.5);
}
