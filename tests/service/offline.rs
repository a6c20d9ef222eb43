//! Offline: no packet leaves, what is here serves whatever its age, what is not fails at once.

use std::time::Duration;

use http::Method;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::client::Answer;
use crate::content::Image;
use crate::harness::{Section, Setup, Tidegate, eventually, until};
use crate::upstream::{Gate, Kind, Upstream, any, blob, everything, serve};

/// Tags are never fresh, and too old to be served as soon as upstream cannot be asked.
fn section(upstream: &Upstream) -> Section {
    Section::hub(upstream).clocks("0s", "0s", "0s")
}

async fn pulled() -> (Upstream, Image, Tidegate) {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[100_000]);
    let tidegate = Setup::new().upstream(section(&upstream)).start().await;
    tidegate.pull(&image).await;
    (upstream, image, tidegate)
}

/// Reads the configuration again, and waits until that is done.
async fn reload(tidegate: &mut Tidegate, change: impl FnOnce(Setup) -> Setup) {
    let done = tidegate.log_lines("configuration was reloaded").len();
    tidegate.reconfigure(change);
    tidegate.signal(Signal::HUP);
    until("the reload", async || tidegate.log_lines("configuration was reloaded").len() > done).await;
}

async fn order(tidegate: &Tidegate, order: &Value) -> Answer {
    let call = tidegate.admin().call(Method::PUT, "/api/v1/offline");
    call.header("content-type", "application/json").body(order.to_string()).send().await
}

/// Fails unless this is what is served of an upstream that is offline.
#[track_caller]
fn assert_offline(answer: &Answer) {
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.cache_status(), "tidegate; hit; detail=stale-offline");
    let warning = answer.header("warning").unwrap();
    assert!(warning.starts_with("299 - \"this node is offline for hub.test"), "{warning}");
}

#[tokio::test]
async fn offline_everything_that_is_here_is_served_whatever_its_age() {
    let (upstream, image, mut tidegate) = pulled().await;
    reload(&mut tidegate, |setup| setup.site("offline = true")).await;
    let connections = upstream.connections();
    upstream.forget_requests();
    tidegate.pull(&image).await;
    for answer in [tidegate.manifest(&image.tag_path()).await, tidegate.head(&image.tag_path()).send().await]
    {
        assert_offline(&answer);
        assert!(answer.header("age").is_some(), "{answer:?}");
    }
    let by_digest = tidegate.manifest(&image.digest_path()).await;
    assert_eq!((by_digest.cache_status(), by_digest.header("warning")), ("tidegate; hit", None));
    tidegate.restart().await;
    tidegate.pull(&image).await;
    assert_eq!((upstream.connections(), upstream.count(&everything())), (connections, 0));
}

#[tokio::test]
async fn offline_what_is_not_here_fails_at_once_and_says_why() {
    let (upstream, image, mut tidegate) = pulled().await;
    let other = upstream.make_image("library/other", "1", &[10]);
    let stored = tidegate.stored_path(&image.layers[0].digest);
    until("the layer to be kept", async || stored.exists()).await;
    std::fs::remove_file(stored).unwrap();
    reload(&mut tidegate, |setup| setup.site("offline = true").with_log("stored content is damaged")).await;
    let connections = upstream.connections();
    let referrers = format!("/v2/library/app/referrers/{}", image.manifest.digest);
    for (path, missing) in [
        (other.tag_path(), "manifest 1 of hub.test/library/other".to_owned()),
        (other.digest_path(), other.manifest.digest.clone()),
        (other.layer_path(0), other.layers[0].digest.clone()),
        (image.layer_path(0), image.layers[0].digest.clone()),
        ("/v2/library/other/tags/list".to_owned(), "tags of hub.test/library/other".to_owned()),
        (referrers, image.manifest.digest.clone()),
    ] {
        let mut fastest = Duration::MAX;
        for _ in 0..5 {
            let started = tokio::time::Instant::now();
            let answer = tidegate.manifest(&path).await;
            fastest = fastest.min(started.elapsed());
            answer.assert_error(504, "UNAVAILABLE");
            let message = answer.json()["errors"][0]["message"].as_str().unwrap().to_owned();
            assert!(message.contains("this node is offline for upstream hub.test"), "{message}");
            assert!(message.contains(&missing), "{missing} in {message}");
            assert_eq!(tidegate.head(&path).send().await.status, 504, "{path}");
        }
        assert!(fastest < Duration::from_millis(100), "{path}: {fastest:?}");
    }
    assert_eq!(upstream.connections(), connections);
    reload(&mut tidegate, |setup| setup.site("offline = false")).await;
    tidegate.pull(&other).await;
}

#[tokio::test]
async fn offline_one_upstream_may_be_and_another_not() {
    let (near, far) = (Upstream::start().await, Upstream::start().await);
    let here = near.make_image("team/app", "1", &[10]);
    let there = far.make_image("library/app", "1", &[10]);
    let near_section = Section::new("near.test", &near).clocks("0s", "0s", "0s");
    let setup = Setup::new().upstream(section(&far));
    let mut tidegate = setup.upstream(near_section.clone()).start().await;
    tidegate.pull(&there).await;
    let apart = async |tidegate: &Tidegate| {
        near.forget_requests();
        far.forget_requests();
        let answer = tidegate.manifest("/v2/near.test/team/app/manifests/1").await;
        assert_eq!((answer.body.clone(), answer.header("warning")), (here.manifest.bytes.clone(), None));
        assert_offline(&tidegate.manifest(&there.tag_path()).await);
        assert!(near.count(&everything()) >= 1 && far.count(&everything()) == 0);
        let metrics = tidegate.metrics().await;
        let offline = |name| metrics.sum("tidegate_upstream_offline", &[("upstream", name)]);
        assert!(offline("hub.test") > 0.5 && offline("near.test") < 0.5, "{}", metrics.text());
        let ready = tidegate.admin().get("/health/ready").send().await;
        assert_eq!(ready.status, 200);
        assert_eq!(ready.json()["checks"]["upstream hub.test"]["status"], "offline");
        assert_eq!(ready.json()["checks"]["upstream near.test"]["status"], "ok");
    };
    reload(&mut tidegate, |setup| setup.replace(section(&far).raw_value("offline", "true"))).await;
    apart(&tidegate).await;
    let near_section = near_section.raw_value("offline", "false");
    reload(&mut tidegate, |setup| setup.site("offline = true").replace(section(&far)).replace(near_section))
        .await;
    apart(&tidegate).await;
}

#[tokio::test]
async fn offline_is_switched_at_run_time_and_a_reload_does_not_undo_it() {
    let (upstream, image, mut tidegate) = pulled().await;
    let state = async |tidegate: &Tidegate| {
        let report = tidegate.admin().get("/api/v1/offline").send().await.json();
        let upstream = &report["upstreams"][0];
        assert_eq!(upstream["name"], "hub.test");
        (upstream["offline"].as_bool().unwrap(), upstream["switched"].as_bool().unwrap())
    };
    assert_eq!(state(&tidegate).await, (false, false));
    assert_eq!(order(&tidegate, &json!({ "offline": true })).await.status, 200);
    assert_eq!(state(&tidegate).await, (true, true));
    assert_offline(&tidegate.manifest(&image.tag_path()).await);
    reload(&mut tidegate, |setup| setup).await;
    assert_eq!(state(&tidegate).await, (true, true));
    assert_offline(&tidegate.manifest(&image.tag_path()).await);
    let one = json!({ "offline": false, "upstream": "hub.test" });
    assert_eq!(order(&tidegate, &one).await.status, 200);
    assert_eq!(tidegate.manifest(&image.tag_path()).await.header("warning"), None, "asked at once");
    let back = json!({ "offline": null, "upstream": "hub.test" });
    assert_eq!(order(&tidegate, &back).await.status, 200);
    assert_eq!(state(&tidegate).await, (true, true), "what was said of all counts again");
    order(&tidegate, &json!({ "offline": null })).await;
    assert_eq!(state(&tidegate).await, (false, false));
    reload(&mut tidegate, |setup| setup.site("offline = true")).await;
    assert_eq!(state(&tidegate).await, (true, false));
    upstream.forget_requests();
    tidegate.pull(&image).await;
    assert_eq!(upstream.count(&everything()), 0);
}

#[tokio::test]
async fn offline_a_bad_order_is_refused_with_a_reason() {
    let (_upstream, _image, tidegate) = pulled().await;
    let refuse = async |call: crate::client::Call, status: u16, reason: &str| {
        let answer = call.send().await;
        assert_eq!(answer.status, status, "{answer:?}");
        let text = String::from_utf8(answer.body.to_vec()).unwrap();
        assert!(text.contains(reason), "{reason} in {text}");
    };
    let call = || {
        let call = tidegate.admin().call(Method::PUT, "/api/v1/offline");
        call.header("content-type", "application/json")
    };
    refuse(call().body("{\"offline\": 1}"), 400, "boolean").await;
    refuse(call().body("{}"), 400, "offline").await;
    refuse(call().body("x".repeat(1 << 20)), 413, "in parts").await;
    refuse(call().body(json!({ "offline": true, "upstream": "no.test" }).to_string()), 404, "no.test").await;
    let order = json!({ "offline": true }).to_string();
    refuse(call().header("origin", "http://evil.invalid").body(order.clone()), 403, "own machine").await;
    refuse(call().header("x-forwarded-for", "10.0.0.1").body(order.clone()), 403, "own machine").await;
    let plain = tidegate.admin().call(Method::PUT, "/api/v1/offline");
    refuse(plain.body(order), 415, "application/json").await;
    refuse(tidegate.admin().call(Method::DELETE, "/api/v1/offline"), 405, "GET and HEAD and PUT").await;
    let report = tidegate.admin().get("/api/v1/offline").send().await.json();
    assert_eq!(report["upstreams"][0]["offline"], false);
}

#[tokio::test]
async fn offline_a_transfer_that_runs_is_cut_and_starts_anew_when_online() {
    let (upstream, _image, tidegate) = pulled().await;
    let large = upstream.make_image("library/large", "1", &[4 << 20]);
    let gate = Gate::closed();
    upstream.once(blob(&large.layers[0]), serve().hold_body(&gate));
    tidegate.manifest(&large.tag_path()).await;
    let mut running = tidegate.get(&large.layer_path(0)).open().await;
    gate.release_to(2 << 20);
    running.read_at_least(1 << 20).await;
    order(&tidegate, &json!({ "offline": true })).await;
    assert!(running.try_finish().await.is_err(), "cut, not ended");
    let asked = upstream.count(&everything());
    tidegate.fetch(&large.layer_path(0)).await.assert_error(504, "UNAVAILABLE");
    assert_eq!(upstream.count(&everything()), asked);
    order(&tidegate, &json!({ "offline": false })).await;
    tidegate.pull(&large).await;
}

#[tokio::test]
async fn offline_nothing_is_asked_in_the_background() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[10]);
    let section = Section::hub(&upstream).clocks("0s", "1h", "30d");
    let tidegate = Setup::new().upstream(section).start().await;
    tidegate.pull(&image).await;
    order(&tidegate, &json!({ "offline": true })).await;
    let connections = upstream.connections();
    upstream.forget_requests();
    for _ in 0..20 {
        assert_offline(&tidegate.manifest(&image.tag_path()).await);
    }
    assert_eq!((upstream.connections(), upstream.count(&everything())), (connections, 0));
    assert!(tidegate.log_lines("cannot be revalidated").is_empty());
    order(&tidegate, &json!({ "offline": false })).await;
    eventually("a question in the background", async || {
        tidegate.manifest(&image.tag_path()).await;
        (upstream.count(&any(Kind::Manifest)) > 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn offline_lists_tell_what_is_known() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[10]);
    upstream.make_image("library/app", "2", &[20]);
    let pulled_only = upstream.make_image("library/pulled", "b", &[30]);
    let second = upstream.make_image("library/pulled", "a", &[40]);
    upstream.make_image("library/pulled", "never-pulled", &[50]);
    let tidegate = Setup::new().upstream(section(&upstream)).start().await;
    for image in [&image, &pulled_only, &second] {
        tidegate.pull(image).await;
    }
    let referrers = format!("/v2/library/app/referrers/{}", image.manifest.digest);
    let listed = tidegate.fetch("/v2/library/app/tags/list").await;
    let referring = tidegate.fetch(&referrers).await;
    order(&tidegate, &json!({ "offline": true })).await;
    upstream.forget_requests();
    for (path, body) in [("/v2/library/app/tags/list", &listed.body), (referrers.as_str(), &referring.body)] {
        let answer = tidegate.fetch(path).await;
        assert_offline(&answer);
        assert_eq!(answer.body, *body);
    }
    let tags = tidegate.fetch("/v2/library/pulled/tags/list").await;
    assert_offline(&tags);
    assert_eq!(tags.json()["tags"], json!(["a", "b"]));
    assert!(!tags.header("warning").unwrap().contains("1970"), "{tags:?}");
    let page = tidegate.fetch("/v2/library/pulled/tags/list?n=1").await;
    assert_eq!(page.json()["tags"], json!(["a"]));
    assert!(page.header("link").unwrap().contains("last=a"), "{page:?}");
    let catalogue = tidegate.fetch("/v2/_catalog").await;
    assert_eq!(catalogue.json()["repositories"], json!(["hub.test/library/app", "hub.test/library/pulled"]));
    assert_eq!(upstream.count(&everything()), 0);
}
