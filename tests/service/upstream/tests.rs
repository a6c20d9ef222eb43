//! The scripted upstream does what it says: else every other test here would prove nothing.

use std::time::Duration;

use http::StatusCode;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::client::Client;
use crate::content::{ALL_TYPES, DOCKER_LIST, OCI_INDEX, OCI_MANIFEST, artifact_about, index_of};
use crate::upstream::*;

fn client_of(upstream: &Upstream) -> Client {
    Client::new(upstream.authority().parse().unwrap())
}

#[tokio::test]
async fn upstream_serves_an_image_as_a_registry_does() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[1000, 70_000]);
    let client = client_of(&upstream);
    assert_eq!(client.get("/v2/").send().await.status, 200);
    let manifest = client.get(&image.tag_path()).accept(&ALL_TYPES).send().await;
    assert_eq!(manifest.body, image.manifest.bytes);
    assert_eq!(manifest.header("content-type"), Some(OCI_MANIFEST));
    assert_eq!(manifest.header("docker-content-digest"), Some(image.manifest.digest.as_str()));
    let head = client.head(&image.layer_path(1)).send().await;
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, Some("70000"), 0));
    assert_eq!(client.get(&image.layer_path(1)).send().await.body, image.layers[1].bytes);
    client.get("/v2/library/app/manifests/2").send().await.assert_error(404, "MANIFEST_UNKNOWN");
    client.get("/v2/library/none/manifests/1").send().await.assert_error(404, "NAME_UNKNOWN");
    let missing = format!("/v2/library/app/blobs/{}", image.layers[0].another_digest());
    client.get(&missing).send().await.assert_error(404, "BLOB_UNKNOWN");
    let unchanged =
        client.get(&image.tag_path()).header("if-none-match", &format!("\"{}\"", image.manifest.digest));
    assert_eq!(unchanged.send().await.status, 304);
}

#[tokio::test]
async fn upstream_answers_one_range_and_refuses_several() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[1000]);
    let client = client_of(&upstream);
    let get = |range: &str| client.get(&image.layer_path(0)).range(range);
    for (range, expected, bytes) in [
        ("bytes=10-19", "bytes 10-19/1000", 10..20),
        ("bytes=990-", "bytes 990-999/1000", 990..1000),
        ("bytes=-5", "bytes 995-999/1000", 995..1000),
        ("bytes=0-5000", "bytes 0-999/1000", 0..1000),
    ] {
        let answer = get(range).send().await;
        assert_eq!((answer.status, answer.header("content-range")), (206, Some(expected)));
        assert_eq!(answer.body, image.layers[0].bytes.slice(bytes));
    }
    let outside = get("bytes=1000-").send().await;
    assert_eq!((outside.status, outside.header("content-range")), (416, Some("bytes */1000")));
    assert_eq!(get("bytes=0-1,5-6").send().await.status, 501);
    upstream.once(blob(&image.layers[0]), serve().ignoring_range());
    assert_eq!(get("bytes=10-19").send().await.status, 200);
    assert_eq!(get("bytes=10-19").send().await.status, 206);
}

#[tokio::test]
async fn upstream_negotiates_manifests_of_tags_as_distribution_does() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[10]);
    upstream.tag_manifest("library/app", "index", &index_of(OCI_INDEX, &[&image]));
    upstream.tag_manifest("library/app", "list", &index_of(DOCKER_LIST, &[&image]));
    let client = client_of(&upstream);
    let get = |tag: &str| client.get(&format!("/v2/library/app/manifests/{tag}"));
    get("index").accept(&[OCI_MANIFEST]).send().await.assert_error(404, "MANIFEST_UNKNOWN");
    let child = get("list").accept(&[OCI_MANIFEST]).send().await;
    assert_eq!(child.header("docker-content-digest"), Some(image.manifest.digest.as_str()));
    assert_eq!(get("index").send().await.header("content-type"), Some(OCI_INDEX));
    assert_eq!(get("list").header("accept", "*/*").send().await.header("content-type"), Some(DOCKER_LIST));
}

#[tokio::test]
async fn upstream_lists_tags_in_pages_and_referrers_by_type() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "a", &[10]);
    upstream.tag_manifest("library/app", "b", &image.manifest);
    upstream.tag_manifest("library/app", "c", &image.manifest);
    upstream.add_manifest("library/app", &artifact_about(&image.manifest, "test/sbom"));
    upstream.add_manifest("library/app", &artifact_about(&image.manifest, "test/signature"));
    let client = client_of(&upstream);
    let page = client.get("/v2/library/app/tags/list?n=2").send().await;
    assert_eq!(page.json()["tags"], serde_json::json!(["a", "b"]));
    assert_eq!(page.header("link"), Some("</v2/library/app/tags/list?last=b&n=2>; rel=\"next\""));
    let end = client.get("/v2/library/app/tags/list?last=b&n=2").send().await;
    assert_eq!((end.json()["tags"].clone(), end.header("link")), (serde_json::json!(["c"]), None));
    let path = format!("/v2/library/app/referrers/{}", image.manifest.digest);
    let all = client.get(&path).send().await;
    assert_eq!(all.json()["manifests"].as_array().unwrap().len(), 2);
    let one = client.get(&format!("{path}?artifactType=test%2Fsbom")).send().await;
    assert_eq!(one.json()["manifests"][0]["artifactType"], "test/sbom");
    assert_eq!(one.header("oci-filters-applied"), Some("artifactType"));
    upstream.forget_referrers();
    assert_eq!(client.get(&path).send().await.status, 404);
}

#[tokio::test]
async fn upstream_cuts_flips_and_stalls_at_the_exact_byte() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[200_000]);
    let layer = &image.layers[0];
    let client = client_of(&upstream);
    upstream.once(blob(layer), serve().cut_at(123_456));
    let cut = client.get(&image.layer_path(0)).try_send().await.unwrap_err();
    assert_eq!(cut.received, layer.bytes.slice(..123_456));
    upstream.once(blob(layer), serve().cut_at(123_456));
    let cut = client.get(&image.layer_path(0)).range("bytes=100000-").try_send().await.unwrap_err();
    assert_eq!(cut.received, layer.bytes.slice(100_000..123_456));
    upstream.once(blob(layer), serve().flip_at(150_000));
    let flipped = client.get(&image.layer_path(0)).send().await.body;
    let differing: Vec<usize> = (0..200_000).filter(|&at| flipped[at] != layer.bytes[at]).collect();
    assert_eq!(differing, [150_000]);
    upstream.once(blob(layer), serve().stall_at(99));
    let mut stalled = client.get(&image.layer_path(0)).open().await;
    assert_eq!(stalled.read_at_least(99).await, layer.bytes.slice(..99));
    let silence = tokio::time::timeout(Duration::from_millis(20), stalled.next()).await;
    assert!(silence.is_err());
}

#[tokio::test]
async fn upstream_lets_a_gated_answer_out_step_by_step() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[100_000]);
    let gate = Gate::closed();
    upstream.rule(blob(&image.layers[0]), serve().hold_body(&gate));
    let mut answer = client_of(&upstream).get(&image.layer_path(0)).open().await;
    gate.wait_for_arrivals(1).await;
    gate.release_to(10);
    assert_eq!(answer.read_at_least(10).await.len(), 10);
    assert_eq!(upstream.sent_bytes(&blob(&image.layers[0])), 10);
    gate.open();
    assert!(answer.equals(&image.layers[0].bytes[10..]).await);
}

#[tokio::test]
async fn upstream_holds_and_delays_heads_and_limits_rates() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[64_000]);
    let client = client_of(&upstream);
    let gate = Gate::closed();
    upstream.once(manifest("1"), serve().hold_head(&gate));
    let call = tokio::spawn(client.get(&image.tag_path()).send());
    gate.wait_for_arrivals(1).await;
    assert!(!call.is_finished());
    gate.open();
    assert_eq!(call.await.unwrap().status, 200);
    let started = Instant::now();
    upstream.once(manifest("1"), serve().delay_head(Duration::from_millis(50)));
    client.get(&image.tag_path()).send().await;
    assert!(started.elapsed() >= Duration::from_millis(50));
    let started = Instant::now();
    upstream.once(blob(&image.layers[0]), serve().rate(640_000));
    client.get(&image.layer_path(0)).send().await;
    assert!(started.elapsed() >= Duration::from_millis(100));
}

#[tokio::test]
async fn upstream_answers_whatever_a_rule_says_and_counts_it() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[64]);
    let client = client_of(&upstream);
    upstream.rule_times(2, manifest("1").get(), status(429).header("retry-after", "7"));
    upstream.once(manifest("1").get(), web_page(502));
    upstream.once(manifest("1").get(), hang_up());
    for _ in 0..2 {
        let throttled = client.get(&image.tag_path()).send().await;
        assert_eq!((throttled.status, throttled.header("retry-after")), (429, Some("7")));
    }
    assert_eq!(client.get(&image.tag_path()).send().await.header("content-type"), Some("text/html"));
    assert!(client.get(&image.tag_path()).try_open().await.is_err());
    assert_eq!(client.get(&image.tag_path()).header("x-mark", "5").send().await.status, 200);
    assert_eq!(upstream.count(&manifest("1").get().of("library/app")), 5);
    assert_eq!(upstream.requests(&any(Kind::Manifest))[4].header("x-mark"), Some("5"));
    upstream.once(blob(&image.layers[0]), serve().without("docker-content-digest").chunked());
    let chunked = client.get(&image.layer_path(0)).send().await;
    assert_eq!((chunked.header("content-length"), chunked.header("docker-content-digest")), (None, None));
    assert_eq!(chunked.body, image.layers[0].bytes);
    upstream.rule(any(Kind::Blob), status(200).body("x").repeated_to(1 << 20));
    assert_eq!(client.get(&image.layer_path(0)).send().await.body.len(), 1 << 20);
    upstream.heal();
    assert_eq!(client.get(&image.layer_path(0)).send().await.body, image.layers[0].bytes);
}

#[tokio::test]
async fn upstream_grants_checks_and_expires_tokens() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[64]);
    upstream.require(Access::Bearer(Bearer::of_realm(&upstream.realm())));
    upstream.hide_missing();
    let client = client_of(&upstream);
    let challenge = client.get(&image.tag_path()).send().await;
    let expected = format!(
        "Bearer realm=\"{}\",service=\"scripted\",scope=\"repository:library/app:pull\"",
        upstream.realm()
    );
    assert_eq!((challenge.status, challenge.header("www-authenticate")), (401, Some(expected.as_str())));
    let granted = client.get("/token?service=scripted&scope=repository:library/app:pull").send().await;
    assert_eq!(granted.json()["expires_in"], 300);
    let bearer = format!("Bearer {}", granted.json()["token"].as_str().unwrap());
    let get = |path: &str| client.get(path).header("authorization", &bearer);
    assert_eq!(get(&image.tag_path()).send().await.status, 200);
    let other = get("/v2/library/other/manifests/1").send().await;
    assert!(other.header("www-authenticate").unwrap().contains("insufficient_scope"));
    upstream.expire_tokens();
    let expired = get(&image.tag_path()).send().await;
    assert!(expired.header("www-authenticate").unwrap().contains("invalid_token"));
    let mut like_ecr = Bearer::of_realm(&upstream.realm());
    like_ecr.expired = StatusCode::BAD_REQUEST;
    upstream.require(Access::Bearer(like_ecr));
    assert_eq!(get(&image.tag_path()).send().await.status, 400);
}

#[tokio::test]
async fn upstream_stops_and_comes_back_on_the_same_port() {
    let upstream = Upstream::start().await;
    upstream.stop().await;
    assert!(TcpStream::connect(upstream.authority()).await.is_err());
    let other = tokio::net::TcpSocket::new_v4().unwrap();
    assert!(other.bind(upstream.authority().parse().unwrap()).is_err(), "nobody else gets the port");
    upstream.restart().await;
    assert_eq!(client_of(&upstream).get("/v2/").send().await.status, 200);
}

#[tokio::test]
async fn upstream_speaks_http2_over_tls_and_cuts_there_too() {
    let authority = Authority::new();
    let upstream = Upstream::start_tls(&authority).await;
    let image = upstream.make_image("library/app", "1", &[100_000]);
    let client = client_of(&upstream).tls(authority.client_config(&["h2"])).http2();
    let answer = client.get(&image.layer_path(0)).open().await;
    assert_eq!(answer.version, http::Version::HTTP_2);
    assert_eq!(answer.finish().await.body, image.layers[0].bytes);
    upstream.once(blob(&image.layers[0]), serve().cut_at(50_000));
    assert!(client.get(&image.layer_path(0)).try_send().await.is_err());
    let client = client_of(&upstream).tls(authority.client_config(&["http/1.1"]));
    assert_eq!(client.get(&image.layer_path(0)).send().await.body, image.layers[0].bytes);
}

#[tokio::test]
async fn upstream_as_a_store_behind_signed_addresses_refuses_tokens() {
    let cdn = Upstream::start_at("127.0.0.2").await;
    let image = cdn.make_image("library/app", "1", &[1000]);
    let url = cdn.cdn_url(&image.layers[0]);
    let path = url.strip_prefix(&cdn.url()).unwrap();
    let client = client_of(&cdn);
    assert_eq!(client.get(path).send().await.body, image.layers[0].bytes);
    assert_eq!(client.get(path).range("bytes=1-2").send().await.status, 206);
    assert_eq!(client.get(path).header("authorization", "Bearer x").send().await.status, 400);
}

#[tokio::test]
async fn raw_server_sends_the_bytes_as_they_are() {
    let server = RawServer::start("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    let address = server.url().strip_prefix("http://").unwrap().parse().unwrap();
    assert_eq!(Client::new(address).get("/").send().await.body, "ok");
    assert_eq!(server.asked(), 1);
}
