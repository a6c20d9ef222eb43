//! From the request to the repository (items 54-68).

use crate::content::Image;
use crate::harness::{Section, Setup, Tidegate, within_patience};
use crate::upstream::{Kind, Upstream, any, everything, manifest};

/// Two upstreams: `hub.test`, the default, and `other.test:5000`, which has no `library/`.
struct Scene {
    hub: Upstream,
    other: Upstream,
    tidegate: Tidegate,
}

impl Scene {
    async fn new() -> Self {
        let (hub, other) = (Upstream::start().await, Upstream::start().await);
        let tidegate = Setup::new()
            .upstream(Section::hub(&hub).list("aliases", &["index.hub.test", "registry-1.hub.test"]))
            .upstream(Section::new("other.test", &other).list("aliases", &["other.test:5000", "other"]))
            .start()
            .await;
        Self { hub, other, tidegate }
    }

    async fn assert_serves(&self, path: &str, image: &Image) {
        let answer = self.tidegate.manifest(path).await;
        assert_eq!((answer.status, &answer.body), (200, &image.manifest.bytes), "{path}: {answer:?}");
    }
}

#[tokio::test]
async fn item_054_every_alias_in_any_case_is_the_same_upstream() {
    let scene = Scene::new().await;
    let image = scene.hub.make_image("library/app", "1", &[10]);
    for ns in ["hub.test", "index.hub.test", "registry-1.hub.test", "HUB.test", "Registry-1.Hub.Test"] {
        scene.assert_serves(&format!("{}?ns={ns}", image.tag_path()), &image).await;
    }
    for prefix in ["hub.test", "index.hub.test", "registry-1.hub.test"] {
        scene.assert_serves(&format!("/v2/{prefix}/library/app/manifests/1"), &image).await;
    }
    assert_eq!(scene.hub.count(&any(Kind::Manifest).get()), 1, "all share one entry");
}

#[tokio::test]
async fn item_055_ns_with_a_port_is_decoded_and_default_ports_do_not_count() {
    let scene = Scene::new().await;
    let image = scene.other.make_image("team/app", "1", &[10]);
    for ns in ["other.test%3A5000", "other.test:5000", "other.test:443", "other.test%3a443", "other.test"] {
        scene.assert_serves(&format!("{}?ns={ns}", image.tag_path()), &image).await;
    }
}

#[tokio::test]
async fn item_056_an_unknown_registry_is_a_quick_404_that_asks_nobody() {
    let scene = Scene::new().await;
    scene.hub.make_image("library/app", "1", &[10]);
    for path in [
        "/v2/library/app/manifests/1?ns=nowhere.invalid",
        "/v2/library/app/manifests/1?ns=127.0.0.1:22",
        "/v2/library/app/manifests/1?ns=169.254.169.254",
        "/v2/library/app/manifests/1?ns=http%3A%2F%2Fhub.test",
        "/v2/nowhere.invalid/library/app/manifests/1",
        "/v2/localhost/app/manifests/1",
        "/nowhere.invalid/v2/library/app/manifests/1",
    ] {
        let started = tokio::time::Instant::now();
        let answer = scene.tidegate.manifest(path).await;
        answer.assert_error(404, "NAME_UNKNOWN");
        assert!(started.elapsed() < std::time::Duration::from_secs(1), "{path}");
    }
    assert_eq!(scene.hub.count(&everything()) + scene.other.count(&everything()), 0);
}

#[tokio::test]
async fn item_057_ns_that_names_this_server_says_nothing() {
    let scene = Scene::new().await;
    let image = scene.hub.make_image("library/app", "1", &[10]);
    let own = scene.tidegate.address();
    let path = format!("{}?ns={}", image.tag_path(), own.to_string().replace(':', "%3A"));
    scene.assert_serves(&path, &image).await;
    let call = scene.tidegate.get(&format!("{}?ns=mirror.corp%3A8443", image.tag_path()));
    assert_eq!(call.header("host", "mirror.corp:8443").send().await.status, 200);
}

#[tokio::test]
async fn item_057_a_server_that_is_its_own_upstream_stops_the_loop() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let section = Section::of_url("self.test", &format!("http://{port}")).default_upstream();
    let section = section.timeouts("2s", "5s", "5s");
    let tidegate = Setup::new().upstream(section).listen_on(&port.to_string()).with_warnings().start().await;
    let answer = within_patience("the end of the loop", tidegate.manifest("/v2/a/b/manifests/1")).await;
    assert!(answer.status == 404 || answer.status >= 500, "{answer:?}");
    let requests = tidegate.metrics().await.sum("tidegate_requests_total", &[]);
    assert!(requests < 20.0, "{requests} requests for one");
}

#[tokio::test]
async fn item_058_ns_and_prefix_that_agree_count_once_and_else_the_path_wins() {
    let scene = Scene::new().await;
    let image = scene.other.make_image("team/app", "1", &[10]);
    scene.assert_serves("/v2/other.test/team/app/manifests/1?ns=other.test", &image).await;
    scene.assert_serves("/v2/other.test/team/app/manifests/1?ns=hub.test", &image).await;
    assert_eq!(scene.hub.count(&everything()), 0);
}

#[tokio::test]
async fn item_059_further_parameters_are_ignored_and_ns_never_goes_upstream() {
    let scene = Scene::new().await;
    let image = scene.other.make_image("team/app", "1", &[10]);
    let path = format!("{}?x=1&ns=other.test&x=2&foo&=&ns=other.test", image.tag_path());
    let answer = scene.tidegate.manifest(&path).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("oci-namespace"), Some("other.test"));
    let blob = format!("{}?ns=other.test&x=1", image.layer_path(0));
    assert_eq!(scene.tidegate.fetch(&blob).await.status, 200);
    scene.tidegate.fetch("/v2/team/app/tags/list?ns=other.test").await;
    assert!(scene.other.count(&everything()) >= 3);
    for request in scene.other.requests(&everything()) {
        assert!(!request.query.contains("ns=") && !request.query.contains("x="), "{}", request.query);
    }
}

#[tokio::test]
async fn item_060_an_unnamespaced_name_is_in_library_in_place() {
    let scene = Scene::new().await;
    let image = scene.hub.make_image("library/app", "1", &[10]);
    scene.assert_serves("/v2/app/manifests/1", &image).await;
    let layer = scene.tidegate.fetch(&format!("/v2/app/blobs/{}", image.layers[0].digest)).await;
    assert_eq!(layer.status, 200);
    assert_eq!(scene.hub.count(&everything().of("app")), 0);
    assert!(scene.hub.count(&manifest("1").of("library/app")) >= 1);
}

#[tokio::test]
async fn item_061_library_is_inserted_for_the_hub_alone_and_shares_one_entry() {
    let scene = Scene::new().await;
    let image = scene.hub.make_image("library/app", "1", &[10]);
    let plain = scene.other.make_image("app", "1", &[20]);
    for path in [
        "/v2/hub.test/app/manifests/1",
        "/v2/hub.test/library/app/manifests/1",
        "/v2/app/manifests/1?ns=hub.test",
    ] {
        scene.assert_serves(path, &image).await;
    }
    assert_eq!(scene.hub.count(&any(Kind::Manifest).get()), 1);
    scene.assert_serves("/v2/other.test/app/manifests/1", &plain).await;
    assert_eq!(scene.other.count(&everything().of("library/app")), 0);
}

#[tokio::test]
async fn item_062_a_first_component_is_a_host_only_if_it_looks_like_one_or_is_an_alias() {
    let scene = Scene::new().await;
    let image = scene.hub.make_image("team/app", "1", &[10]);
    let aliased = scene.other.make_image("app", "1", &[20]);
    scene.assert_serves("/v2/team/app/manifests/1", &image).await;
    scene.assert_serves("/v2/other/app/manifests/1", &aliased).await;
    let unknown = scene.tidegate.manifest("/v2/te.am/app/manifests/1").await;
    unknown.assert_error(404, "NAME_UNKNOWN");
}

#[tokio::test]
async fn item_063_names_that_contain_the_words_of_the_api_are_parsed_from_the_right() {
    let scene = Scene::new().await;
    for name in [
        "a/blobs",
        "a/manifests/b",
        "tags/x",
        "a/tags/list",
        "a/b/c/d/e/f/g",
        "a/referrers/b",
        "catalog/x",
        "blobs/uploads",
        "v2/v2",
        "manifests/manifests",
    ] {
        let image = scene.hub.make_image(name, "manifests", &[10]);
        scene.assert_serves(&image.tag_path(), &image).await;
        assert_eq!(scene.tidegate.fetch(&image.layer_path(0)).await.status, 200, "{name}");
        let tags = scene.tidegate.fetch(&format!("/v2/{name}/tags/list")).await;
        assert_eq!((tags.status, tags.json()["tags"][0].as_str()), (200, Some("manifests")), "{name}");
    }
    let nested = scene.tidegate.fetch("/v2/a/_catalog").await;
    assert_eq!(nested.status, 404);
}

#[tokio::test]
async fn item_064_percent_encoding_is_decoded_once() {
    let scene = Scene::new().await;
    let image = scene.hub.make_image("team/app", "1.0_x", &[10]);
    let digest = image.manifest.digest.replace(':', "%3A");
    scene.assert_serves(&format!("/v2/team/app/manifests/{digest}"), &image).await;
    scene.assert_serves(&format!("/v2/team/app/manifests/{}", digest.to_lowercase()), &image).await;
    scene.assert_serves("/v2/team%2Fapp/manifests/1.0_x", &image).await;
    scene.assert_serves("/v2/t%65am/app/manifests/1%2E0_x", &image).await;
    scene.hub.forget_requests();
    for path in [
        "/v2/team/../app/manifests/1",
        "/v2/team//app/manifests/1",
        "/v2/team/%2e%2e/app/manifests/1",
        "/v2/team/app%00/manifests/1",
        "/v2/team%252Fapp/manifests/1",
        "/v2/team/app/manifests/%2525",
        "/v2/team/app%ff/manifests/1",
        "/v2/team/app%2/manifests/1",
    ] {
        let answer = scene.tidegate.fetch(path).await;
        assert!([400, 404].contains(&answer.status), "{path}: {answer:?}");
        answer.error_code();
    }
    assert_eq!(scene.hub.count(&everything()), 0);
}

#[tokio::test]
async fn item_065_grammar_faults_have_their_own_codes() {
    let scene = Scene::new().await;
    let (lower, upper) = ("0123456789abcdef".repeat(4), "0123456789ABCDEF".repeat(4));
    for (path, code) in [
        ("/v2/Library/app/manifests/1".to_owned(), "NAME_INVALID"),
        ("/v2/library/-app/manifests/1".to_owned(), "NAME_INVALID"),
        ("/v2/library/a___b/manifests/1".to_owned(), "NAME_INVALID"),
        (format!("/v2/library/app/blobs/sha256:{upper}"), "DIGEST_INVALID"),
        (format!("/v2/library/app/blobs/sha256:{}", &lower[1..]), "DIGEST_INVALID"),
        (format!("/v2/library/app/manifests/sha256:{upper}"), "DIGEST_INVALID"),
        ("/v2/library/app/blobs/latest".to_owned(), "DIGEST_INVALID"),
    ] {
        scene.tidegate.fetch(&path).await.assert_error(400, code);
    }
    for tag in ["a".repeat(129), ".dot".to_owned(), "sp%20ace".to_owned(), "-dash".to_owned()] {
        let answer = scene.tidegate.fetch(&format!("/v2/library/app/manifests/{tag}")).await;
        assert!([400, 404].contains(&answer.status), "{tag}: {answer:?}");
        answer.error_code();
    }
    assert_eq!(scene.hub.count(&everything()), 0);
    let image = scene.hub.make_image("library/app", "CamelCase", &[10]);
    scene.assert_serves(&image.tag_path(), &image).await;
    let other_case = scene.tidegate.manifest("/v2/library/app/manifests/camelcase").await;
    other_case.assert_error(404, "MANIFEST_UNKNOWN");
}

#[tokio::test]
async fn item_066_names_may_be_255_long_and_longer_ones_are_name_invalid() {
    let scene = Scene::new().await;
    let name = format!("team/{}", "a".repeat(245));
    assert_eq!(name.len(), 250);
    let image = scene.hub.make_image(&name, "1", &[10]);
    scene.assert_serves(&image.tag_path(), &image).await;
    let asked = scene.hub.count(&everything());
    for longer in [format!("team/{}", "a".repeat(251)), "a/".repeat(2000) + "a"] {
        let answer = scene.tidegate.manifest(&format!("/v2/{longer}/manifests/1")).await;
        answer.assert_error(400, "NAME_INVALID");
    }
    assert_eq!(scene.hub.count(&everything()), asked);
}

#[tokio::test]
async fn item_067_a_prefix_before_v2_means_the_same_and_links_keep_it() {
    let scene = Scene::new().await;
    let image = scene.other.make_image("team/app", "a", &[10]);
    scene.other.make_image("team/app", "b", &[20]);
    scene.assert_serves("/other.test/v2/team/app/manifests/a", &image).await;
    let blob = format!("/other.test{}", image.layer_path(0));
    assert_eq!(scene.tidegate.fetch(&blob).await.body, image.layers[0].bytes);
    let page = scene.tidegate.fetch("/other.test/v2/team/app/tags/list?n=1").await;
    let link = page.header("link").unwrap();
    assert!(link.starts_with("</other.test/v2/team/app/tags/list?"), "{link}");
    let hub = scene.hub.make_image("library/app", "1", &[10]);
    scene.assert_serves("/hub.test/v2/app/manifests/1", &hub).await;
}

#[tokio::test]
async fn item_068_a_host_header_of_another_name_does_not_hinder_ns() {
    let scene = Scene::new().await;
    let image = scene.other.make_image("team/app", "1", &[10]);
    let call = scene.tidegate.get(&format!("{}?ns=other.test", image.tag_path()));
    assert_eq!(call.header("host", "other.mirror.corp").send().await.body, image.manifest.bytes);
}

#[tokio::test]
async fn a_name_without_a_registry_is_unknown_where_no_upstream_is_the_default() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("team/app", "1", &[10]);
    let tidegate = Setup::new().upstream(Section::new("other.test", &upstream)).start().await;
    tidegate.manifest(&image.tag_path()).await.assert_error(404, "NAME_UNKNOWN");
    assert_eq!(tidegate.manifest("/v2/other.test/team/app/manifests/1").await.status, 200);
}

#[tokio::test]
async fn what_allow_and_deny_exclude_is_refused_without_asking() {
    let upstream = Upstream::start().await;
    let allowed = upstream.make_image("team/app", "1", &[10]);
    let denied = upstream.make_image("team/secret", "1", &[10]);
    let outside = upstream.make_image("other/app", "1", &[10]);
    let section = Section::hub(&upstream).list("allow", &["team/*"]).list("deny", &["team/secret"]);
    let tidegate = Setup::new().upstream(section).start().await;
    assert_eq!(tidegate.manifest(&allowed.tag_path()).await.status, 200);
    upstream.forget_requests();
    for image in [&denied, &outside] {
        for path in [image.tag_path(), image.layer_path(0), format!("/v2/{}/tags/list", image.repository)] {
            let answer = tidegate.manifest(&path).await;
            assert!([403, 404].contains(&answer.status), "{path}: {answer:?}");
            answer.error_code();
        }
    }
    assert_eq!(upstream.count(&everything()), 0);
}
