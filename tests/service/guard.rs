//! Where this node may be led: redirects, realms and links of upstreams (design, outbound connections).

use crate::harness::{Section, Setup, Tidegate};
use crate::upstream::{Access, Authority, Bearer, Kind, Upstream, any, blob, everything, redirect, serve};

async fn trusting(upstream: &Upstream, hosts: &[&str]) -> Tidegate {
    let section = Section::hub(upstream).list("trusted_hosts", hosts).timeouts("1s", "1s", "1s");
    Setup::new().upstream(section).with_warnings().start().await
}

#[tokio::test]
async fn a_redirect_to_a_private_host_that_is_not_trusted_is_refused() {
    let upstream = Upstream::start().await;
    let inner = Upstream::start_at("127.0.0.3").await;
    let image = upstream.make_image("library/app", "1", &[1000]);
    inner.add_image(&image);
    let layer = &image.layers[0];
    upstream.rule(blob(layer), redirect(307, &inner.cdn_url(layer)));
    upstream.rule(any(Kind::Manifest), redirect(307, &format!("{}{}", inner.url(), image.tag_path())));
    let tidegate = trusting(&upstream, &[]).await;
    for path in [image.layer_path(0), image.tag_path()] {
        assert_eq!(tidegate.fetch(&path).await.status, 502, "{path}");
    }
    assert_eq!(inner.count(&everything()), 0, "not even asked");
    let tidegate = trusting(&upstream, &["127.0.0.3"]).await;
    assert_eq!(tidegate.fetch(&image.layer_path(0)).await.body, layer.bytes);
}

#[tokio::test]
async fn redirects_to_the_machine_room_are_refused() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[1000]);
    let tidegate = trusting(&upstream, &[]).await;
    for place in [
        "http://169.254.169.254/latest/meta-data/",
        "http://10.0.0.1/x",
        "http://192.168.1.1/x",
        "http://[::1]:9/x",
        "http://[fd00::1]/x",
        "http://0.0.0.0:1/x",
        "http://2130706435/x",
        "file:///etc/passwd",
        "ftp://127.0.0.1/x",
        "http://user:password@127.0.0.3/x",
        "//127.0.0.3/x",
        "http:///x",
    ] {
        upstream.heal();
        upstream.rule(blob(&image.layers[0]), redirect(307, place));
        let started = tokio::time::Instant::now();
        let answer = tidegate.fetch(&image.layer_path(0)).await;
        assert!([502, 504].contains(&answer.status), "{place}: {answer:?}");
        assert!(started.elapsed() < std::time::Duration::from_secs(5), "{place}");
        let text = String::from_utf8(answer.body.to_vec()).unwrap();
        assert!(!text.contains("root:") && !text.contains("password"), "{text}");
    }
}

#[tokio::test]
async fn credentials_never_go_to_a_realm_that_is_not_trusted() {
    let upstream = Upstream::start().await;
    let thief = Upstream::start_at("127.0.0.3").await;
    let image = upstream.make_image("library/app", "1", &[1000]);
    let bearer = Bearer::of_realm(&thief.realm());
    upstream.require(Access::Bearer(bearer.clone()));
    thief.require(Access::Bearer(bearer));
    let section = Section::hub(&upstream).text("username", "user").text("password", "secret");
    let tidegate = Setup::new().upstream(section.clone()).with_warnings().start().await;
    let answer = tidegate.manifest(&image.tag_path()).await;
    assert!(answer.status == 502 || answer.status == 403, "{answer:?}");
    assert_eq!(thief.count(&everything()), 0);

    let section = section.list("trusted_hosts", &["127.0.0.3"]);
    let tidegate = Setup::new().upstream(section).start().await;
    tidegate.pull(&image).await;
    assert!(thief.requests(&any(Kind::Token))[0].header("authorization").is_some());
}

#[tokio::test]
async fn a_redirect_from_https_to_http_is_refused() {
    let authority = Authority::new();
    let upstream = Upstream::start_tls(&authority).await;
    let plain = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[1000]);
    plain.add_image(&image);
    let layer = &image.layers[0];
    upstream.rule(blob(layer), redirect(307, &plain.cdn_url(layer)));
    let section = Section::hub(&upstream).text("ca_file", "ca.pem").list("trusted_hosts", &["127.0.0.1"]);
    let tidegate =
        Setup::new().upstream(section).file("ca.pem", authority.pem()).with_warnings().start().await;
    assert_eq!(tidegate.manifest(&image.tag_path()).await.status, 200, "TLS itself works");
    assert_eq!(tidegate.fetch(&image.layer_path(0)).await.status, 502);
    assert_eq!(plain.count(&everything()), 0);
}

#[tokio::test]
async fn an_upstream_behind_tls_is_pulled_from_and_one_with_a_strange_certificate_is_not() {
    let authority = Authority::new();
    let upstream = Upstream::start_tls(&authority).await;
    let image = upstream.make_image("library/app", "1", &[3 << 20]);
    let section = Section::hub(&upstream).timeouts("1s", "1s", "1s");
    let tidegate = Setup::new()
        .upstream(section.clone().text("ca_file", "ca.pem"))
        .file("ca.pem", authority.pem())
        .start()
        .await;
    tidegate.pull(&image).await;
    let tidegate = Setup::new().upstream(section).with_warnings().start().await;
    tidegate.manifest(&image.tag_path()).await.assert_error(504, "UNAVAILABLE");
}

#[tokio::test]
async fn a_tags_link_to_another_host_is_never_followed_nor_passed_on() {
    let upstream = Upstream::start().await;
    let thief = Upstream::start_at("127.0.0.3").await;
    upstream.make_image("library/app", "1", &[10]);
    let link = format!("<{}/v2/library/app/tags/list?last=1&n=1>; rel=\"next\"", thief.url());
    upstream.rule(any(Kind::Tags), serve().header("link", &link));
    let tidegate = trusting(&upstream, &[]).await;
    let page = tidegate.fetch("/v2/library/app/tags/list?n=1").await;
    if let Some(link) = page.header("link") {
        assert!(link.starts_with("</v2/library/app/tags/list?"), "{link}");
    }
    let referrers = format!("/v2/library/app/referrers/sha256:{}", "0".repeat(64));
    upstream.rule(any(Kind::Referrers), redirect(307, &format!("{}{referrers}", thief.url())));
    assert_ne!(tidegate.fetch(&referrers).await.status, 500);
    assert_eq!(thief.count(&everything()), 0);
}
