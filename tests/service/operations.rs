//! What operators look at: metrics, health, the log.

use serde_json::Value;

use crate::content::Image;
use crate::harness::{Section, Setup, Tidegate, until};
use crate::upstream::{Kind, Upstream, any, serve, status};

async fn pulled() -> (Upstream, Image, Tidegate) {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[100_000, 200_000]);
    let section = Section::hub(&upstream).timeouts("1s", "1s", "1s");
    let tidegate = Setup::new().upstream(section).with_warnings().start().await;
    tidegate.pull(&image).await;
    (upstream, image, tidegate)
}

#[tokio::test]
async fn every_promised_metric_is_there_with_a_help_text() {
    let (_upstream, image, tidegate) = pulled().await;
    tidegate.pull(&image).await;
    let metrics = tidegate.metrics().await;
    for name in [
        "requests_total",
        "request_duration_seconds",
        "response_bytes_total",
        "cache_requests_total",
        "cache_bytes",
        "cache_budget_bytes",
        "cache_evictions_total",
        "cache_evicted_bytes_total",
        "fills_in_progress",
        "upstream_requests_total",
        "upstream_request_duration_seconds",
        "upstream_bytes_total",
        "upstream_state",
        "upstream_rate_limit_remaining",
        "upstream_rate_limit",
        "upstream_holds_total",
        "upstream_refusals_total",
        "integrity_failures_total",
        "content_damaged_total",
        "content_heals_total",
        "content_verified_total",
        "content_verified_bytes_total",
        "index_replaced_total",
        "build_info",
    ] {
        // A vector without any series has nothing to describe yet.
        let may_be_empty = [
            "cache_evictions_total",
            "cache_evicted_bytes_total",
            "upstream_rate_limit_remaining",
            "upstream_rate_limit",
            "upstream_holds_total",
            "upstream_refusals_total",
            "integrity_failures_total",
        ];
        let there = metrics.describes(&format!("tidegate_{name}"));
        assert!(there || may_be_empty.contains(&name), "{name} in {}", metrics.text());
    }
}

#[tokio::test]
async fn metrics_count_what_happened() {
    let (upstream, image, tidegate) = pulled().await;
    let cold = tidegate.metrics().await;
    tidegate.pull(&image).await;
    let warm = tidegate.metrics().await;
    let of = |kind: &'static str, result: &'static str| {
        [("upstream", "hub.test"), ("kind", kind), ("result", result)]
    };
    let grown = |name: &str, labels: &[(&str, &str)]| warm.sum(name, labels) - cold.sum(name, labels);
    let near = |a: f64, b: f64| (a - b).abs() < 0.5;
    let cache = "tidegate_cache_requests_total";
    assert!(near(cold.sum(cache, &of("blob", "miss")), 3.0), "{}", cold.text());
    assert!(near(cold.sum(cache, &of("manifest", "miss")), 1.0));
    assert!(near(grown(cache, &of("blob", "hit")), 3.0));
    assert!(near(grown(cache, &of("manifest", "hit")), 1.0));
    assert!(near(grown("tidegate_upstream_requests_total", &[]), 0.0));
    let sent = u32::try_from(upstream.sent_bytes(&any(Kind::Blob))).unwrap();
    assert!(warm.sum("tidegate_upstream_bytes_total", &[("upstream", "hub.test")]) >= f64::from(sent));
    assert!(grown("tidegate_response_bytes_total", &[]) >= 300_000.0);
    assert!(grown("tidegate_requests_total", &[("method", "GET"), ("code", "200")]) >= 4.0);
    // A fill ends after its last client: the disk comes after the bytes.
    let ended = async || {
        let now = tidegate.metrics().await;
        near(now.sum("tidegate_fills_in_progress", &[]), 0.0)
            && now.sum("tidegate_cache_bytes", &[]) >= 300_000.0
    };
    until("the end of all fills", ended).await;
    assert!(near(warm.sum("tidegate_build_info", &[]), 1.0));
}

#[tokio::test]
async fn labels_are_closed_sets() {
    let (_upstream, image, tidegate) = pulled().await;
    for number in 0..20 {
        tidegate.fetch(&format!("/v2/secret-team-{number}/app/manifests/tag-{number}")).await;
        tidegate.fetch(&format!("/v2/unknown-{number}.example/app/manifests/1")).await;
        tidegate
            .client()
            .call(http::Method::from_bytes(b"BREW").unwrap(), &format!("/odd-{number}"))
            .send()
            .await;
    }
    let text = tidegate.metrics().await.text().to_owned();
    for secret in ["secret-team", "unknown-", "library/app", "odd-", "BREW", "tag-", &image.layers[0].digest]
    {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
}

#[tokio::test]
async fn health_is_live_and_ready_with_a_reason_for_each_dependency() {
    let (upstream, _image, tidegate) = pulled().await;
    let live = tidegate.admin().get("/health/live").send().await;
    assert_eq!(live.status, 200);
    let ready = tidegate.admin().get("/health/ready").send().await;
    assert_eq!((ready.status, ready.header("content-type")), (200, Some("application/json")));
    let report = ready.json();
    assert!(report.is_object() && report.to_string().contains("hub.test"), "{report}");
    upstream.stop().await;
    tidegate.manifest("/v2/library/app/manifests/2").await;
    let ready = tidegate.admin().get("/health/ready").send().await;
    assert_eq!(ready.status, 200, "a cache is ready without its upstream: {:?}", ready.json());
}

#[tokio::test]
async fn the_registry_port_shows_nothing_of_the_admin_port_and_vice_versa() {
    let (_upstream, image, tidegate) = pulled().await;
    for path in ["/metrics", "/health/live", "/health/ready", "/api/v1"] {
        assert_eq!(tidegate.fetch(path).await.status, 404, "{path}");
    }
    assert_eq!(tidegate.admin().get(&image.tag_path()).send().await.status, 404);
}

#[tokio::test]
async fn a_breaker_opens_on_a_dead_upstream_and_shows_in_the_metrics() {
    let (upstream, _image, tidegate) = pulled().await;
    let state = async || tidegate.metrics().await.sum("tidegate_upstream_state", &[("upstream", "hub.test")]);
    let healthy = state().await;
    upstream.rule(any(Kind::Manifest), status(503));
    let mut number = 0;
    until("the state of the upstream to change", async || {
        number += 1;
        tidegate.manifest(&format!("/v2/library/app/manifests/none{number}")).await;
        (state().await - healthy).abs() > 0.1
    })
    .await;
}

#[tokio::test]
async fn the_rate_limit_that_upstream_tells_is_a_metric() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[10]);
    let limited =
        serve().header("ratelimit-limit", "100;w=21600").header("ratelimit-remaining", "42;w=21600");
    upstream.rule(any(Kind::Manifest), limited);
    let tidegate = Tidegate::start(&upstream).await;
    tidegate.manifest(&image.tag_path()).await;
    let metrics = tidegate.metrics().await;
    let remaining = metrics.sum("tidegate_upstream_rate_limit_remaining", &[("upstream", "hub.test")]);
    assert!((remaining - 42.0).abs() < 0.5, "{remaining}");
    let limit = metrics.sum("tidegate_upstream_rate_limit", &[("upstream", "hub.test")]);
    assert!((limit - 100.0).abs() < 0.5, "{limit}");
}

#[tokio::test]
async fn every_request_has_one_access_line_with_its_outcome() {
    let (_upstream, image, tidegate) = pulled().await;
    let call = tidegate.get(&image.layer_path(1)).header("user-agent", "access-test/1");
    let answer = call.send().await;
    let id = answer.header("x-request-id").map(ToOwned::to_owned);
    let line = tidegate.wait_for_log(&image.layer_path(1)).await;
    assert!(serde_json::from_str::<Value>(&line).is_ok(), "{line}");
    until("the line of the second request", async || tidegate.log_lines(&image.layer_path(1)).len() == 2)
        .await;
    let line = tidegate.log_lines(&image.layer_path(1)).pop().unwrap();
    for expected in ["200", "200000", "hit", "hub.test"] {
        assert!(line.contains(expected), "{expected} in {line}");
    }
    if let Some(id) = id {
        assert!(line.contains(&id), "{id} in {line}");
    }
}

#[tokio::test]
async fn a_log_line_cannot_be_forged_by_a_request() {
    let (_upstream, _image, tidegate) = pulled().await;
    let call = tidegate.get("/v2/a%0a%7B%22level%22:%22ERROR%22%7D/manifests/1%0d%0aforged");
    let answer = call.header("user-agent", "x\" forged-agent=\"y").send().await;
    assert!([400, 404].contains(&answer.status));
    let line = tidegate.wait_for_log("forged").await;
    assert!(serde_json::from_str::<Value>(&line).is_ok(), "{line}");
}
