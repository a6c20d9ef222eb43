//! Upstream in trouble, and what clients are told (items 81, 82, 85-87).

use std::time::Duration;

use http::StatusCode;

use crate::content::{Content, Image, gzip_stored};
use crate::harness::{Section, Setup, Tidegate, eventually, within_patience};
use crate::upstream::{
    Access, Bearer, Gate, Kind, RawServer, Then, Upstream, any, blob, everything, hang_up, manifest,
    redirect, serve, status, web_page,
};

async fn expecting_trouble(upstream: &Upstream) -> Tidegate {
    let section = Section::hub(upstream).timeouts("1s", "500ms", "500ms");
    Setup::new().upstream(section).with_warnings().start().await
}

/// What upstream does, and the status and code that it becomes for manifests and blobs.
fn classes() -> Vec<(Then, u16, &'static str)> {
    let denied = r#"{"errors":[{"code":"DENIED","message":"requested access is denied"}]}"#;
    vec![
        (status(404), 404, "UNKNOWN"),
        (web_page(404), 404, "UNKNOWN"),
        (status(403).body(denied).header("content-type", "application/json"), 403, "DENIED"),
        (status(429).header("retry-after", "3600"), 429, "TOOMANYREQUESTS"),
        (status(500), 502, "UNAVAILABLE"),
        (web_page(502), 502, "UNAVAILABLE"),
        (status(503), 502, "UNAVAILABLE"),
        (hang_up(), 502, "UNAVAILABLE"),
        (serve().delay_head(Duration::from_mins(1)), 504, "UNAVAILABLE"),
    ]
}

#[tokio::test]
async fn item_081_every_trouble_of_upstream_ends_in_its_own_class_for_manifests() {
    for (then, code, error) in classes() {
        let upstream = Upstream::start().await;
        let image = upstream.make_image("library/app", "1", &[10]);
        let tidegate = expecting_trouble(&upstream).await;
        upstream.rule(any(Kind::Manifest), then);
        for path in [image.tag_path(), image.digest_path()] {
            let answer = tidegate.manifest(&path).await;
            assert_class(&answer, code, if code == 404 { "MANIFEST_UNKNOWN" } else { error });
            assert_eq!(tidegate.head(&path).send().await.status, answer.status);
        }
    }
}

#[tokio::test]
async fn item_081_every_trouble_of_upstream_ends_in_its_own_class_for_blobs() {
    for (then, code, error) in classes() {
        let upstream = Upstream::start().await;
        let image = upstream.make_image("library/app", "1", &[10]);
        let tidegate = expecting_trouble(&upstream).await;
        upstream.rule(any(Kind::Blob), then);
        for range in [None, Some("bytes=0-")] {
            let call = tidegate.get(&image.layer_path(0));
            let call = if let Some(range) = range { call.range(range) } else { call };
            let answer = call.send().await;
            assert_class(&answer, code, if code == 404 { "BLOB_UNKNOWN" } else { error });
        }
    }
}

/// A connection that is closed without an answer may count as broken or as unreachable.
#[track_caller]
fn assert_class(answer: &crate::client::Answer, code: u16, error: &str) {
    if code == 502 {
        assert!([502, 504].contains(&answer.status), "{answer:?}");
        assert!(!answer.error_code().is_empty());
    } else {
        answer.assert_error(code, if code == 504 { "UNAVAILABLE" } else { error });
    }
    if code == 429 {
        assert!(answer.header("retry-after").unwrap().parse::<u64>().unwrap() <= 5, "{answer:?}");
    }
}

#[tokio::test]
async fn an_unreachable_upstream_is_504_and_one_that_is_broken_is_502() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[10]);
    let tidegate = expecting_trouble(&upstream).await;
    upstream.rule(any(Kind::Manifest), status(500));
    assert_eq!(tidegate.manifest(&image.tag_path()).await.status, 502);
    upstream.stop().await;
    let tidegate = expecting_trouble(&upstream).await;
    tidegate.manifest(&image.tag_path()).await.assert_error(504, "UNAVAILABLE");
    tidegate.fetch(&image.layer_path(0)).await.assert_error(504, "UNAVAILABLE");
}

#[tokio::test]
async fn a_trouble_of_upstream_shows_nothing_of_what_it_said() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[10]);
    let tidegate = expecting_trouble(&upstream).await;
    upstream.rule(any(Kind::Manifest), web_page(500).body("<html>internal stack trace</html>"));
    let answer = tidegate.manifest(&image.tag_path()).await;
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    assert!(!text.contains("stack trace") && !text.contains("<html"), "{text}");
}

#[tokio::test]
async fn item_082_throttling_is_absorbed_where_something_is_cached_and_else_asks_for_5_s_at_most() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[10]);
    let section = Section::hub(&upstream).clocks("0s", "0s", "30d");
    let tidegate = Setup::new().upstream(section).with_warnings().start().await;
    tidegate.pull(&image).await;
    for retry_after in ["60", "3600", "Wed, 21 Oct 2099 07:28:00 GMT", "soon"] {
        upstream.heal();
        upstream.rule(everything(), status(429).header("retry-after", retry_after));
        tidegate.pull(&image).await;
        let answer = tidegate.manifest("/v2/library/app/manifests/cold").await;
        answer.assert_error(429, "TOOMANYREQUESTS");
        let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!(wait <= 5, "{retry_after}: {wait}");
    }
}

#[tokio::test]
async fn a_manifest_of_another_digest_is_neither_served_nor_kept() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[10]);
    let other = upstream.make_image("library/app", "2", &[20]);
    let tidegate = expecting_trouble(&upstream).await;
    for then in [
        serve().body(other.manifest.bytes.clone()),
        serve().header("docker-content-digest", &other.manifest.digest),
        serve().flip_at(3),
    ] {
        upstream.rule(manifest(&image.manifest.digest).get(), then);
        let answer = tidegate.manifest(&image.digest_path()).await;
        assert!(answer.status == 502 || answer.body == image.manifest.bytes, "{answer:?}");
        upstream.heal();
    }
    eventually("the right manifest", async || {
        let answer = tidegate.manifest(&image.digest_path()).await;
        (answer.body == image.manifest.bytes).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_tag_whose_body_is_not_of_the_digest_that_upstream_states_is_not_served() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[10]);
    let tidegate = expecting_trouble(&upstream).await;
    upstream.rule(any(Kind::Manifest).get(), serve().flip_at(5));
    let answer = tidegate.manifest(&image.tag_path()).await;
    assert_eq!(answer.status, 502, "{answer:?}");
    upstream.heal();
    eventually("the right manifest", async || {
        (tidegate.manifest(&image.tag_path()).await.body == image.manifest.bytes).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_web_page_in_place_of_content_is_never_content() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[1000]);
    let tidegate = expecting_trouble(&upstream).await;
    upstream.rule(everything(), web_page(200));
    for path in [image.tag_path(), image.digest_path(), "/v2/library/app/tags/list".to_owned()] {
        let answer = tidegate.manifest(&path).await;
        assert_eq!(answer.status, 502, "{path}: {answer:?}");
    }
    let outcome = tidegate.get(&image.layer_path(0)).try_send().await;
    assert!(!matches!(&outcome, Ok(answer) if answer.status == 200), "{outcome:?}");
}

#[tokio::test]
async fn a_compressed_answer_is_never_taken_for_content() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[1000]);
    let tidegate = expecting_trouble(&upstream).await;
    let packed = |bytes: &[u8]| serve().body(gzip_stored(bytes)).header("content-encoding", "gzip");
    upstream.rule(any(Kind::Manifest).get(), packed(&image.manifest.bytes));
    upstream.rule(any(Kind::Blob), packed(&image.layers[0].bytes));
    assert_eq!(tidegate.manifest(&image.digest_path()).await.status, 502);
    let outcome = tidegate.get(&image.layer_path(0)).try_send().await;
    assert!(!matches!(&outcome, Ok(answer) if answer.status == 200), "{outcome:?}");
}

#[tokio::test]
async fn item_085_a_token_or_signed_address_that_expires_in_mid_transfer_costs_nothing() {
    for expired in [401, 403, 400] {
        let upstream = Upstream::start().await;
        let cdn = Upstream::start_at("127.0.0.2").await;
        let image = upstream.make_image("library/app", "1", &[4 << 20]);
        cdn.add_image(&image);
        let layer = &image.layers[0];
        let mut bearer = Bearer::of_realm(&upstream.realm());
        bearer.expired = StatusCode::BAD_REQUEST;
        upstream.require(Access::Bearer(bearer));
        upstream.rule(blob(layer), redirect(307, &cdn.cdn_url(layer)));
        cdn.once(any(Kind::Cdn), serve().cut_at(2 << 20));
        cdn.once(any(Kind::Cdn), status(expired));
        let section = Section::hub(&upstream).list("trusted_hosts", &["127.0.0.2"]);
        let tidegate = Setup::new().upstream(section).with_warnings().start().await;
        tidegate.manifest(&image.tag_path()).await;
        upstream.expire_tokens();
        let mut open = tidegate.get(&image.layer_path(0)).open().await;
        assert!(open.equals(&layer.bytes).await, "expired with {expired}");
        assert!(upstream.count(&blob(layer)) >= 2, "asked the registry anew");
    }
}

#[tokio::test]
async fn item_086_a_redirect_to_another_host_carries_no_authorization() {
    let upstream = Upstream::start().await;
    let cdn = Upstream::start_at("127.0.0.2").await;
    let image = upstream.make_image("library/app", "1", &[5000]);
    cdn.add_image(&image);
    let layer = &image.layers[0];
    upstream.require(Access::Bearer(Bearer::of_realm(&upstream.realm())));
    let section = Section::hub(&upstream).list("trusted_hosts", &["127.0.0.2"]);
    for code in [301, 302, 303, 307, 308] {
        upstream.rule(blob(layer), redirect(code, &cdn.cdn_url(layer)));
        let tidegate = Setup::new().upstream(section.clone()).start().await;
        assert_eq!(tidegate.fetch(&image.layer_path(0)).await.body, layer.bytes, "{code}");
        upstream.heal();
    }
    assert_eq!(cdn.count(&everything()), 5);
    for request in cdn.requests(&everything()) {
        assert_eq!(request.header("authorization"), None);
        assert_eq!(request.query, "signature=a%2Fb%3D&expires=300", "a signed address stays as it is");
    }
}

#[tokio::test]
async fn item_086_a_relative_redirect_on_the_same_host_is_followed_with_authorization() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[5000]);
    upstream.add_blob("library/elsewhere", &image.layers[0]);
    upstream.require(Access::Basic("u".to_owned(), "p".to_owned()));
    let target = format!("/v2/library/elsewhere/blobs/{}", image.layers[0].digest);
    upstream.rule(blob(&image.layers[0]).of("library/app"), redirect(302, &target));
    let section = Section::hub(&upstream).text("username", "u").text("password", "p");
    let tidegate = Setup::new().upstream(section).start().await;
    assert_eq!(tidegate.fetch(&image.layer_path(0)).await.body, image.layers[0].bytes);
    let followed = upstream.requests(&any(Kind::Blob).of("library/elsewhere"));
    assert!(followed.iter().all(|request| request.header("authorization").is_some()));
}

#[tokio::test]
async fn item_086_a_redirect_loop_ends_soon() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[10]);
    let tidegate = expecting_trouble(&upstream).await;
    upstream.rule(any(Kind::Blob), redirect(307, &image.layer_path(0)));
    upstream.rule(any(Kind::Manifest), redirect(307, &image.tag_path()));
    for path in [image.layer_path(0), image.tag_path()] {
        let answer = within_patience("the end of the loop", tidegate.fetch(&path)).await;
        assert_eq!(answer.status, 502, "{answer:?}");
    }
    assert!(upstream.count(&everything()) < 100, "{}", upstream.count(&everything()));
}

#[tokio::test]
async fn item_087_manifest_redirects_are_followed_and_kept_under_the_original_name() {
    let upstream = Upstream::start().await;
    let mirror = Upstream::start_at("127.0.0.2").await;
    let image = upstream.make_image("library/app", "1", &[10]);
    let target = mirror.make_image("k8s-artifacts/images/app", "1", &[10]);
    mirror.tag_manifest("k8s-artifacts/images/app", "1", &image.manifest);
    let place = format!("{}{}", mirror.url(), target.tag_path());
    upstream.rule(manifest("1"), redirect(307, &place));
    upstream.rule(manifest(&image.manifest.digest), redirect(307, &place));
    let section = Section::hub(&upstream).list("trusted_hosts", &["127.0.0.2"]);
    let tidegate = Setup::new().upstream(section).start().await;
    assert_eq!(tidegate.manifest(&image.tag_path()).await.body, image.manifest.bytes);
    upstream.forget_requests();
    mirror.forget_requests();
    assert_eq!(tidegate.manifest(&image.tag_path()).await.body, image.manifest.bytes);
    assert_eq!(upstream.count(&everything()) + mirror.count(&everything()), 0);
    upstream.heal();
    let there = tidegate.manifest(&target.tag_path()).await;
    assert_eq!(there.status, 404, "nothing is known under the other name");
}

#[tokio::test]
async fn answers_that_are_no_http_are_an_error_and_harm_nobody() {
    let long = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(4 << 20));
    for bytes in [
        "garbage\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzzzz\r\n",
        "HTTP/1.1 200 OK\r\nbad\0header: x\r\ncontent-length: 0\r\n\r\n",
        "",
        &long,
    ] {
        let server = RawServer::start(bytes.to_owned()).await;
        let section = Section::raw("raw.test", &server).default_upstream().timeouts("1s", "1s", "1s");
        let tidegate = Setup::new().upstream(section).with_warnings().start().await;
        for path in ["/v2/a/b/manifests/1".to_owned(), format!("/v2/a/b/blobs/sha256:{}", "0".repeat(64))] {
            let answer = tidegate.get(&path).try_send().await;
            assert!(!matches!(&answer, Ok(answer) if answer.status < 500), "{path}: {answer:?}");
        }
        assert!(server.asked() >= 1);
        assert_eq!(tidegate.fetch("/v2/").await.status, 200);
    }
}

#[tokio::test]
async fn headers_of_upstream_are_not_passed_on() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[10]);
    let names = [
        "set-cookie",
        "location",
        "link",
        "ratelimit-remaining",
        "server",
        "strict-transport-security",
        "x-evil",
    ];
    let then = names.iter().fold(serve(), |then, name| then.header(name, "http://evil.invalid/"));
    upstream.rule(everything(), then);
    let tidegate = Tidegate::start(&upstream).await;
    for path in [image.tag_path(), image.layer_path(0)] {
        let answer = tidegate.fetch(&path).await;
        assert_eq!(answer.status, 200);
        for (name, value) in &answer.headers {
            assert!(!value.to_str().unwrap().contains("evil"), "{name}: {value:?}");
        }
    }
}

#[tokio::test]
async fn a_dead_upstream_does_not_slow_another() {
    let dead = Upstream::start().await;
    let alive = Upstream::start().await;
    let image = alive.make_image("team/app", "1", &[10]);
    dead.rule(everything(), serve().delay_head(Duration::from_mins(1)));
    let tidegate = Setup::new()
        .upstream(Section::hub(&dead).timeouts("1s", "2s", "2s"))
        .upstream(Section::new("alive.test", &alive))
        .with_warnings()
        .start()
        .await;
    let stuck: Vec<_> = (0..50)
        .map(|n| tokio::spawn(tidegate.get(&format!("/v2/library/app{n}/manifests/1")).send()))
        .collect();
    let started = tokio::time::Instant::now();
    assert_eq!(tidegate.manifest("/v2/alive.test/team/app/manifests/1").await.body, image.manifest.bytes);
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    for call in stuck {
        assert_eq!(call.await.unwrap().status, 504);
    }
}

#[tokio::test]
async fn a_broken_first_endpoint_costs_nothing_where_there_is_a_second() {
    let first = Upstream::start().await;
    let second = Upstream::start().await;
    let image = second.make_image("library/app", "1", &[5000]);
    for then in [status(500), hang_up(), web_page(502)] {
        first.rule(everything(), then);
        let section = Section::hub(&first).endpoint(&second).timeouts("1s", "1s", "1s");
        let tidegate = Setup::new().upstream(section).with_warnings().start().await;
        tidegate.pull(&image).await;
        first.heal();
    }
    first.stop().await;
    let section = Section::hub(&first).endpoint(&second).timeouts("1s", "1s", "1s");
    let tidegate = Setup::new().upstream(section).with_warnings().start().await;
    tidegate.pull(&image).await;
}

#[tokio::test]
async fn who_joined_the_fill_of_another_upstream_that_fails_is_served_by_their_own() {
    for (size_bytes, given_bytes) in [(1000, 0), (4 << 20, 1 << 20)] {
        let (broken, well) = (Upstream::start().await, Upstream::start().await);
        let shared = Content::blob(7, size_bytes);
        let image = Image::of_layers("team/app", "1", vec![shared.clone()]);
        let setup = Setup::new().upstream(Section::hub(&broken)).upstream(Section::new("well.test", &well));
        let tidegate = setup.with_warnings().start().await;
        let path_at_well = |path: &str| format!("/v2/well.test{}", &path[3..]);
        for (upstream, path) in [(&broken, image.tag_path()), (&well, path_at_well(&image.tag_path()))] {
            upstream.add_image(&image);
            assert_eq!(tidegate.manifest(&path).await.status, 200);
        }
        let gate = Gate::closed();
        let last = size_bytes as u64 - 1;
        broken.rule(blob(&shared), serve().hold_body(&gate).flip_at(last));
        let path = image.layer_path(0);
        let mut own = tidegate.get(&path).open().await;
        let joined = path_at_well(&path);
        let mut joined: Vec<_> =
            futures_util::future::join_all((0..5).map(|_| tidegate.get(&joined).open())).await;
        gate.release_to(size_bytes as u64 / 2);
        let mut read = Vec::new();
        for open in &mut joined {
            assert_eq!(open.headers["cache-status"], "tidegate; fwd=uri-miss; collapsed");
            read.push(open.read_at_least(given_bytes).await.len());
        }
        gate.open();
        assert!(!own.equals(&shared.bytes).await, "its own upstream sent a wrong byte");
        let whole = joined.iter_mut().zip(read).map(|(open, read)| open.equals(&shared.bytes[read..]));
        let whole = futures_util::future::join_all(whole).await;
        assert_eq!(whole, [true; 5], "{size_bytes} bytes");
        if given_bytes == 0 {
            assert_eq!(well.count(&blob(&shared)), 1, "one transfer for all of them");
        }
    }
}
