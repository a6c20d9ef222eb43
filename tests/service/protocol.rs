//! What every answer has in common: the root, headers, errors, connections (items 1-10, 69, 79, 93, 99).

use http::Method;
use http_body_util::{BodyExt as _, Full};

use crate::client::Client;
use crate::content::{DOCKER_MANIFEST, Image, OCI_INDEX, OCI_MANIFEST, index_of};
use crate::harness::{Section, Setup, Tidegate, run};
use crate::upstream::{Access, Authority, Bearer, Kind, Upstream, any, everything};

/// Every spelling of the root.
const ROOTS: [&str; 7] =
    ["/v2/", "/v2", "/v2/?ns=hub.test", "/hub.test/v2/", "/hub.test/v2", "/v2/hub.test/", "/v2/hub.test"];

#[tokio::test]
async fn item_001_the_root_is_200_with_the_api_version_and_a_small_json_body() {
    let upstream = Upstream::start().await;
    let tidegate = Tidegate::start(&upstream).await;
    let root = tidegate.fetch("/v2/").await;
    assert_eq!(root.status, 200);
    assert_eq!(root.header("docker-distribution-api-version"), Some("registry/2.0"));
    assert_eq!(root.header("content-type"), Some("application/json"));
    assert_eq!(root.body, "{}");
    assert_eq!(root.header("www-authenticate"), None);
}

#[tokio::test]
async fn item_002_every_spelling_of_the_root_answers_the_same_without_a_redirect() {
    let upstream = Upstream::start().await;
    let tidegate = Tidegate::start(&upstream).await;
    for path in ROOTS {
        let root = tidegate.fetch(path).await;
        assert_eq!((root.status, &root.body[..]), (200, &b"{}"[..]), "{path}");
        let head = tidegate.head(path).send().await;
        assert_eq!((head.status, head.header("content-length")), (200, Some("2")), "{path}");
        assert!(head.body.is_empty());
    }
}

#[tokio::test]
async fn item_003_the_root_never_depends_on_upstream() {
    let upstream = Upstream::start().await;
    let tidegate = Tidegate::start(&upstream).await;
    upstream.stop().await;
    for path in ROOTS {
        let answer = tokio::time::timeout(std::time::Duration::from_secs(1), tidegate.fetch(path)).await;
        assert_eq!(answer.unwrap().status, 200, "{path}");
    }
    assert_eq!(upstream.count(&everything()), 0);
}

#[tokio::test]
async fn item_004_every_answer_has_the_api_version_and_no_signature_extension() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[100]);
    upstream.rule(everything(), crate::upstream::serve().header("x-registry-supports-signatures", "1"));
    let tidegate = Tidegate::start(&upstream).await;
    for path in [
        "/v2/".to_owned(),
        image.tag_path(),
        image.layer_path(0),
        "/v2/library/app/tags/list".to_owned(),
        "/v2/library/app/manifests/none".to_owned(),
        "/v2/UPPER/manifests/1".to_owned(),
        "/v2/nowhere.example/app/manifests/1".to_owned(),
        "/v2/no/such/route".to_owned(),
    ] {
        let answer = tidegate.fetch(&path).await;
        assert_eq!(answer.header("docker-distribution-api-version"), Some("registry/2.0"), "{path}");
        assert_eq!(answer.header("x-registry-supports-signatures"), None, "{path}");
    }
}

#[tokio::test]
async fn item_005_every_error_is_error_json_and_that_of_a_head_has_no_body() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[100]);
    upstream.rule(crate::upstream::manifest("broken"), crate::upstream::web_page(503));
    let tidegate = Setup::new().upstream(Section::hub(&upstream)).with_warnings().start().await;
    let other = image.layers[0].another_digest();
    for (path, status) in [
        ("/v2/library/app/manifests/none".to_owned(), 404),
        (format!("/v2/library/app/blobs/{other}"), 404),
        ("/v2/library/none/tags/list".to_owned(), 404),
        ("/v2/library/app/manifests/broken".to_owned(), 502),
        ("/v2/UPPER/manifests/1".to_owned(), 400),
        ("/v2/library/app/blobs/sha256:abc".to_owned(), 400),
        ("/v2/library/app/nothing".to_owned(), 404),
        ("/v1/_ping".to_owned(), 404),
    ] {
        let answer = tidegate.fetch(&path).await;
        assert_eq!(answer.status, status, "{path}");
        assert!(!answer.error_code().is_empty());
        let head = tidegate.head(&path).send().await;
        assert_eq!((head.status, head.body.len()), (status, 0), "HEAD {path}");
    }
}

#[tokio::test]
async fn item_006_nothing_is_content_encoded_whatever_the_client_accepts() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[5000]);
    let tidegate = Tidegate::start(&upstream).await;
    for path in [image.tag_path(), image.layer_path(0), "/v2/library/app/tags/list".to_owned()] {
        for encodings in ["gzip", "zstd;q=1.0, gzip;q=0.8, deflate;q=0.5", "br"] {
            let answer = tidegate.get(&path).header("accept-encoding", encodings).send().await;
            assert_eq!((answer.status, answer.header("content-encoding")), (200, None), "{path}");
        }
    }
    assert_eq!(tidegate.fetch(&image.layer_path(0)).await.body, image.layers[0].bytes);
    for request in upstream.requests(&everything()) {
        assert_eq!(request.header("accept-encoding"), Some("identity"), "{}", request.path);
    }
}

#[tokio::test]
async fn item_007_all_accept_lines_count_in_any_order_and_an_empty_one_means_all() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[100]);
    upstream.tag_manifest("library/app", "index", &index_of(OCI_INDEX, &[&image]));
    let tidegate = Tidegate::start(&upstream).await;
    let path = "/v2/library/app/manifests/index";
    let lists: [&[&str]; 5] = [
        &[OCI_MANIFEST, DOCKER_MANIFEST, OCI_INDEX],
        &[OCI_INDEX, DOCKER_MANIFEST, OCI_MANIFEST],
        &["application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json;q=0.1"],
        &[""],
        &["*/*"],
    ];
    for lines in lists {
        let answer = tidegate.get(path).accept(lines).send().await;
        assert_eq!((answer.status, answer.header("content-type")), (200, Some(OCI_INDEX)), "{lines:?}");
    }
}

#[tokio::test]
async fn item_008_connections_are_kept_and_clear_text_http1_works() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[5000]);
    let tidegate = Tidegate::start(&upstream).await;
    let mut connection = tidegate.client().connect().await;
    for path in ["/v2/", &image.tag_path(), "/v2/library/app/manifests/none", &image.layer_path(0), "/v2/"] {
        let request = http::Request::get(path).header("host", "registry").body(Full::default()).unwrap();
        connection.ready().await.unwrap();
        let answer = connection.send_request(request).await.unwrap();
        answer.into_body().collect().await.unwrap();
    }
    let (code, shown, _) = run(tidegate.directory(), &["config", "show", "--config", "tidegate.toml"]);
    assert_eq!(code, Some(0));
    let shown: toml::Table = shown.parse().unwrap();
    let idle = shown["server"]["idle_timeout"].as_str().unwrap();
    let (number, unit) = idle.split_at(idle.find(|letter: char| letter.is_ascii_alphabetic()).unwrap());
    let seconds = number.parse::<u64>().unwrap() * if unit == "m" { 60 } else { 1 };
    assert!(seconds >= 90, "clients keep idle connections for 90 s: {idle}");
}

#[tokio::test]
async fn item_008_tls_offers_http2_and_http1() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[5000]);
    let authority = Authority::new();
    let identity = authority.identity(&["127.0.0.1"]);
    let tidegate = Setup::new()
        .upstream(Section::hub(&upstream))
        .file("cert.pem", &identity.certificate)
        .file("key.pem", &identity.private_key)
        .server("tls = { certificate = \"cert.pem\", private_key = \"key.pem\" }")
        .start()
        .await;
    for (offers, agreed) in [(&["h2", "http/1.1"][..], "h2"), (&["http/1.1"], "http/1.1")] {
        let client = tidegate.client().tls(authority.client_config(offers));
        assert_eq!(client.agreed_protocol().await.as_deref(), Some(agreed));
        let client = if agreed == "h2" { client.http2() } else { client };
        assert_eq!(client.get(&image.layer_path(0)).send().await.body, image.layers[0].bytes);
    }
}

#[tokio::test]
async fn item_009_64_kib_of_request_headers_are_taken_on_both_protocols() {
    let upstream = Upstream::start().await;
    let tidegate = Tidegate::start(&upstream).await;
    let long = "t".repeat(60 * 1024);
    for client in [tidegate.client(), tidegate.client().http2()] {
        let answer = client.get("/v2/").header("authorization", &format!("Bearer {long}")).send().await;
        assert_eq!(answer.status, 200);
    }
}

#[tokio::test]
async fn a_request_head_without_end_is_refused_and_the_server_lives_on() {
    let upstream = Upstream::start().await;
    let tidegate = Tidegate::start(&upstream).await;
    let endless = format!("GET /v2/ HTTP/1.1\r\nhost: registry\r\nx-long: {}", "x".repeat(1 << 20));
    let answer = tidegate.client().exchange(&endless).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    for garbage in ["\0\x01\x02\r\n\r\n", "GET /v2/ HTTP/9.9\r\n\r\n", "GET  HTTP/1.1\r\n\r\n"] {
        let answer = tidegate.client().exchange(garbage).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    assert_eq!(tidegate.fetch("/v2/").await.status, 200);
}

#[tokio::test]
async fn item_010_links_are_relative() {
    let upstream = Upstream::start().await;
    for tag in ["a", "b", "c"] {
        upstream.make_image("library/app", tag, &[10]);
    }
    let tidegate = Tidegate::start(&upstream).await;
    let call = tidegate.get("/v2/library/app/tags/list?n=1").header("x-forwarded-host", "evil.example");
    let page = call.send().await;
    let link = page.header("link").unwrap();
    assert!(link.starts_with("</v2/library/app/tags/list?"), "{link}");
}

#[tokio::test]
async fn item_069_anonymous_mode_challenges_nobody_and_ignores_every_authorization() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[100]);
    upstream.require(Access::Bearer(Bearer::of_realm(&upstream.realm())));
    let tidegate = Tidegate::start(&upstream).await;
    for authorization in ["Basic Og==", "Basic dXNlcjpodWItcGFzc3dvcmQ=", "Bearer QQ==", "Negotiate x", "?"] {
        for path in ["/v2/", &image.tag_path(), &image.layer_path(0)] {
            let answer = tidegate.get(path).header("authorization", authorization).send().await;
            assert_eq!((answer.status, answer.header("www-authenticate")), (200, None), "{authorization}");
        }
        let missing = tidegate.get("/v2/library/app/manifests/none").header("authorization", authorization);
        assert_eq!(missing.send().await.header("www-authenticate"), None);
    }
}

#[tokio::test]
async fn item_079_what_the_client_authorizes_itself_with_never_goes_upstream() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[100]);
    upstream.require(Access::Bearer(Bearer::of_realm(&upstream.realm())));
    let tidegate = Tidegate::start(&upstream).await;
    for path in [image.tag_path(), image.layer_path(0), "/v2/library/app/tags/list".to_owned()] {
        let call = tidegate.get(&path).header("authorization", "Basic c2VjcmV0OnNlY3JldA==");
        let answer = call.header("cookie", "session=secret").header("x-secret", "secret").send().await;
        assert_eq!(answer.status, 200, "{path}");
    }
    assert!(upstream.count(&any(Kind::Token)) >= 1);
    for request in upstream.requests(&everything()) {
        let sent = format!("{request:?}");
        assert!(!sent.contains("secret") && !sent.contains("c2VjcmV0OnNlY3JldA"), "{sent}");
    }
    assert!(tidegate.log_lines("c2VjcmV0OnNlY3JldA").is_empty(), "a secret in the log");
}

#[tokio::test]
async fn item_093_version_1_paths_are_a_quick_404_in_json() {
    let upstream = Upstream::start().await;
    let tidegate = Tidegate::start(&upstream).await;
    for path in ["/v1/search?q=app&n=25", "/v1/_ping", "/", "/favicon.ico", "/v3/"] {
        let answer = tidegate.fetch(path).await;
        assert_eq!(answer.status, 404, "{path}");
        answer.error_code();
    }
    assert_eq!(upstream.count(&everything()), 0);
}

#[tokio::test]
async fn item_099_pushes_and_deletes_are_405_unsupported_with_allow() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[100]);
    let tidegate = Tidegate::start(&upstream).await;
    let body = "x".repeat(3 << 20);
    for (method, path) in [
        (Method::POST, "/v2/library/app/blobs/uploads/".to_owned()),
        (Method::POST, format!("/v2/library/app/blobs/uploads/?mount={}&from=a/b", image.layers[0].digest)),
        (Method::PATCH, "/v2/library/app/blobs/uploads/1234".to_owned()),
        (Method::PUT, format!("/v2/library/app/blobs/uploads/1234?digest={}", image.layers[0].digest)),
        (Method::PUT, image.tag_path()),
        (Method::DELETE, image.digest_path()),
        (Method::DELETE, image.layer_path(0)),
    ] {
        let answer = tidegate.client().call(method.clone(), &path).body(body.clone()).try_send().await;
        // A body that nobody wants may be cut; what has been answered by then is the refusal.
        if let Ok(answer) = answer {
            answer.assert_error(405, "UNSUPPORTED");
            assert!(answer.header("allow").unwrap().contains("GET"), "{method} {path}");
        }
        let answer = tidegate.client().call(method.clone(), &path).body("{}").send().await;
        answer.assert_error(405, "UNSUPPORTED");
    }
    assert_eq!(upstream.count(&everything()), 0);
    assert_eq!(tidegate.fetch(&image.tag_path()).await.status, 200);
}

#[tokio::test]
async fn a_body_on_a_get_changes_nothing() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[100]);
    let tidegate = Tidegate::start(&upstream).await;
    let answer = tidegate.get(&image.tag_path()).body("unexpected").send().await;
    assert_eq!((answer.status, &answer.body), (200, &image.manifest.bytes));
}

#[tokio::test]
async fn http2_in_clear_text_by_prior_knowledge_pulls_a_whole_image() {
    let upstream = Upstream::start().await;
    let image: Image = upstream.make_image("library/app", "1", &[100, 3_000_000]);
    let tidegate = Tidegate::start(&upstream).await;
    let client: Client = tidegate.client().http2();
    for (path, content) in [(image.tag_path(), &image.manifest), (image.layer_path(1), &image.layers[1])] {
        let answer = client.get(&path).open().await;
        assert_eq!((answer.status, answer.version), (200, http::Version::HTTP_2));
        assert_eq!(answer.finish().await.body, content.bytes);
        let head = client.head(&path).send().await;
        assert_eq!(head.header("content-length"), Some(content.size().to_string().as_str()));
    }
}
