//! Images are made complete ahead of time: by order, on a schedule, in their window, at their pace.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::content::{Content, Image, OCI_INDEX, artifact_about, index_of};
use crate::harness::{Section, Setup, Tidegate, eventually, until};
use crate::upstream::{Gate, Kind, Upstream, any, blob, everything, manifest, serve, status};

/// Orders; gives the job's identifier.
pub(crate) async fn order(tidegate: &Tidegate, order: &Value) -> String {
    let call = tidegate.admin().call(Method::POST, "/api/v1/warm");
    let answer = call.header("content-type", "application/json").body(order.to_string()).send().await;
    assert_eq!(answer.status, 202, "{answer:?}");
    answer.json()["id"].as_str().unwrap().to_owned()
}

/// Waits for the end of a job.
pub(crate) async fn ended(tidegate: &Tidegate, id: &str) -> Value {
    eventually("the end of the job", async || {
        let job = tidegate.admin().get(&format!("/api/v1/warm/{id}")).send().await.json();
        job["is_over"].as_bool().unwrap().then_some(job)
    })
    .await
}

async fn warm(tidegate: &Tidegate, what: &Value) -> Value {
    ended(tidegate, &order(tidegate, what).await).await
}

/// Takes the node off the network, so that only what is here is served.
async fn go_offline(tidegate: &Tidegate) {
    let call = tidegate.admin().call(Method::PUT, "/api/v1/offline");
    let call = call.header("content-type", "application/json").body(r#"{"offline":true}"#);
    assert_eq!(call.send().await.status, 200);
}

/// An index of two platforms with a signature.
fn add_multi(upstream: &Upstream) -> (Content, [Image; 2], Content) {
    let images = [
        upstream.make_image("library/app", "amd64", &[200_000, 70_000, 10]),
        upstream.make_image("library/app", "arm64", &[60_000]),
    ];
    let index = index_of(OCI_INDEX, &[&images[0], &images[1]]);
    upstream.add_manifest("library/app", &index);
    upstream.tag_manifest("library/app", "1", &index);
    let signature = artifact_about(&index, "application/x.signature");
    upstream.add_manifest("library/app", &signature);
    for text in ["{}".to_owned(), format!("about {}", index.digest)] {
        upstream.add_blob("library/app", &Content::of("text/plain", text));
    }
    (index, images, signature)
}

#[tokio::test]
async fn warm_makes_an_image_complete_for_its_platforms_with_its_signatures() {
    let upstream = Upstream::start().await;
    let (index, [amd64, arm64], signature) = add_multi(&upstream);
    let tidegate = Tidegate::start(&upstream).await;
    let what = json!({ "images": ["hub.test/app:1"], "platforms": ["linux/amd64"] });
    let job = warm(&tidegate, &what).await;
    assert_eq!(
        (&job["state"], &job["images"][0]["state"]),
        (&json!("complete"), &json!("complete")),
        "{job}"
    );
    assert_eq!(job["images"][0]["image"], "hub.test/library/app:1");
    assert_eq!(job["images"][0]["stored_bytes"], job["images"][0]["total_bytes"]);
    for layer in amd64.layers.iter().chain([&amd64.config]) {
        assert_eq!(upstream.count(&blob(layer).get()), 1, "once each");
    }
    assert_eq!(upstream.count(&manifest(&arm64.manifest.digest)), 0);
    assert_eq!(upstream.count(&blob(&arm64.layers[0])), 0);
    // What is there is not fetched again.
    upstream.forget_requests();
    assert_eq!(warm(&tidegate, &what).await["state"], "complete");
    assert_eq!(upstream.count(&any(Kind::Blob)), 0);
    assert_eq!(upstream.count(&any(Kind::Manifest).get()), 0);
    go_offline(&tidegate).await;
    assert_eq!(tidegate.manifest("/v2/library/app/manifests/1").await.body, index.bytes);
    assert_eq!(tidegate.manifest(&amd64.digest_path()).await.body, amd64.manifest.bytes);
    for blob in amd64.layers.iter().chain([&amd64.config]) {
        assert_eq!(tidegate.fetch(&amd64.blob_path(blob)).await.body, blob.bytes);
    }
    let list = tidegate.fetch(&format!("/v2/library/app/referrers/{}", index.digest)).await;
    assert_eq!(list.json()["manifests"][0]["digest"], signature.digest);
    let path = format!("/v2/library/app/manifests/{}", signature.digest);
    assert_eq!(tidegate.manifest(&path).await.body, signature.bytes);
    let metrics = tidegate.metrics().await;
    assert!(metrics.sum("tidegate_ahead_bytes_total", &[("why", "warm")]) > 270_000.0);
    assert!(metrics.sum("tidegate_images_warmed_total", &[("state", "complete")]) > 1.5);
}

#[tokio::test]
async fn warm_takes_globs_over_tags() {
    let upstream = Upstream::start().await;
    for tag in ["1.0", "1.1", "2.0", "latest"] {
        upstream.make_image("library/app", tag, &[10]);
    }
    upstream.limit_pages(2);
    let tidegate = Tidegate::start(&upstream).await;
    let job = warm(&tidegate, &json!({ "images": ["app:1.*", "app:latest"] })).await;
    assert_eq!(job["state"], "complete", "{job}");
    let names: Vec<_> =
        job["images"].as_array().unwrap().iter().map(|image| image["image"].clone()).collect();
    assert_eq!(names, ["1.0", "1.1", "latest"].map(|tag| format!("hub.test/library/app:{tag}")));
}

#[tokio::test]
async fn warm_says_which_image_is_incomplete_and_why() {
    let upstream = Upstream::start().await;
    let (_, [amd64, _], _) = add_multi(&upstream);
    let lacking = upstream.make_image("library/lacking", "1", &[100]);
    upstream.remove_blob("library/lacking", &lacking.layers[0]);
    let setup = Setup::new().upstream(Section::hub(&upstream)).with_warnings();
    let tidegate = setup.start().await;
    for (image, platform, reason) in [
        ("app:1", "linux/s390x", "not made for linux/s390x"),
        ("app:nothing", "linux/amd64", "manifest nothing is unknown upstream"),
        ("app:no*", "linux/amd64", "no tag matches"),
        ("lacking:1", "linux/amd64", &format!("blob {} is unknown", lacking.layers[0].digest)),
    ] {
        let job = warm(&tidegate, &json!({ "images": [image], "platforms": [platform] })).await;
        assert_eq!(job["state"], "incomplete", "{job}");
        let told = job["images"][0]["reason"].as_str().unwrap();
        assert!(told.contains(reason), "{reason} in {told}");
    }
    assert_eq!(upstream.count(&blob(&amd64.layers[0])), 0, "nothing is fetched for no platform");
    for (bad, reason) in [
        (json!({ "images": [] }), "name at least one"),
        (json!({ "images": ["no.such.test/app"] }), "no.such.test is not configured"),
        (json!({ "images": ["app"], "window": "soon" }), "22:00-06:00"),
    ] {
        let call = tidegate.admin().call(Method::POST, "/api/v1/warm");
        let answer = call.header("content-type", "application/json").body(bad.to_string()).send().await;
        assert_eq!(answer.status, 400);
        assert!(answer.json()["error"].as_str().unwrap().contains(reason), "{answer:?}");
    }
    let call = tidegate.admin().call(Method::POST, "/api/v1/warm").header("origin", "http://evil.invalid");
    let call = call.header("content-type", "application/json").body(r#"{"images":["app"]}"#);
    assert_eq!(call.send().await.status, 403);
    assert_eq!(tidegate.admin().get("/api/v1/warm/nothing").send().await.status, 404);
}

#[tokio::test]
async fn warm_waits_as_long_as_upstream_asks_and_tries_again() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[100, 200]);
    upstream.once(any(Kind::Manifest), status(429).header("retry-after", "2"));
    upstream.rule_times(2, blob(&image.layers[0]), status(503));
    let setup = Setup::new().upstream(Section::hub(&upstream)).with_warnings();
    let tidegate = setup.start().await;
    let begun = Instant::now();
    let job = warm(&tidegate, &json!({ "images": ["app:1"], "referrers": false })).await;
    assert_eq!(job["state"], "complete", "{job}");
    assert!(begun.elapsed() >= Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(upstream.count(&any(Kind::Manifest)), 2, "it asks again only when it may");
    assert_eq!(upstream.count(&blob(&image.layers[1]).get()), 1, "what came is kept");
    tidegate.pull(&image).await;
}

#[tokio::test]
async fn warm_keeps_to_its_bandwidth_but_a_client_that_joins_is_not_slowed() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[3 << 20]);
    let tidegate = Tidegate::start(&upstream).await;
    // At this rate, it takes an hour and a half.
    let slow = json!({ "images": ["app:1"], "referrers": false, "bandwidth_bytes": 600 });
    let id = order(&tidegate, &slow).await;
    until("the layer to be asked for", async || upstream.count(&blob(&image.layers[0])) > 0).await;
    let job = tidegate.admin().get(&format!("/api/v1/warm/{id}")).send().await.json();
    assert_eq!(job["state"], "running");
    tidegate.pull(&image).await;
    assert_eq!(ended(&tidegate, &id).await["state"], "complete");
    assert_eq!(upstream.count(&blob(&image.layers[0]).get()), 1, "one transfer for both");
    let other = upstream.make_image("library/other", "1", &[1 << 20]);
    let begun = Instant::now();
    let paced = json!({ "images": ["other:1"], "referrers": false, "bandwidth_bytes": 512 << 10 });
    assert_eq!(warm(&tidegate, &paced).await["state"], "complete");
    assert!(begun.elapsed() >= Duration::from_millis(1900), "{:?}", begun.elapsed());
    tidegate.pull(&other).await;
}

/// A window that is closed now, and will be for hours.
fn closed_window() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let hour = now / 3600 % 24;
    format!("{:02}:00-{:02}:00", (hour + 10) % 24, (hour + 12) % 24)
}

#[tokio::test]
async fn warm_waits_for_its_window_and_can_be_cancelled() {
    let upstream = Upstream::start().await;
    upstream.make_image("library/app", "1", &[100]);
    let tidegate = Tidegate::start(&upstream).await;
    let id = order(&tidegate, &json!({ "images": ["app:1"], "window": closed_window() })).await;
    let path = format!("/api/v1/warm/{id}");
    assert_eq!(tidegate.admin().get(&path).send().await.json()["state"], "waiting");
    assert_eq!(tidegate.admin().call(Method::DELETE, &path).send().await.status, 200);
    assert_eq!(ended(&tidegate, &id).await["state"], "cancelled");
    assert_eq!(upstream.count(&everything()), 0);
    let jobs = tidegate.admin().get("/api/v1/warm").send().await.json();
    assert_eq!(jobs["jobs"][0], json!({ "id": id, "state": "cancelled", "images": 1 }));
}

#[tokio::test]
async fn warm_goes_on_after_a_restart_where_it_was() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[100_000, 2 << 20]);
    let gate = Gate::closed();
    upstream.rule(blob(&image.layers[1]), serve().hold_body(&gate));
    let mut tidegate = Tidegate::start(&upstream).await;
    let id = order(&tidegate, &json!({ "images": ["app:1"], "referrers": false })).await;
    let first = tidegate.stored_path(&image.layers[0].digest);
    until("the first layer to be kept", async || first.exists()).await;
    until("the second to be asked for", async || upstream.count(&blob(&image.layers[1])) > 0).await;
    tidegate.kill().await;
    upstream.heal();
    gate.open();
    upstream.forget_requests();
    tidegate.start_again().await;
    let job = ended(&tidegate, &id).await;
    assert_eq!(job["state"], "complete", "{job}");
    assert_eq!(upstream.count(&blob(&image.layers[0])), 0, "what was kept is not fetched again");
    assert_eq!(upstream.count(&blob(&image.layers[1]).get()), 1);
    upstream.forget_requests();
    tidegate.restart().await;
    let jobs = tidegate.admin().get("/api/v1/warm").send().await.json();
    assert_eq!(jobs, json!({ "jobs": [] }), "what is done is not begun again");
}

#[tokio::test]
async fn warm_sections_are_done_at_the_start_and_not_before_their_time_again() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[1000]);
    let section = "[[warm]]\nimages = [\"hub.test/library/app:*\"]\nevery = \"6h\"\n";
    let setup = Setup::new().upstream(Section::hub(&upstream)).more(section);
    let mut tidegate = setup.start().await;
    tidegate.wait_for_log("warming ended").await;
    go_offline(&tidegate).await;
    tidegate.pull(&image).await;
    upstream.forget_requests();
    tidegate.restart().await;
    tidegate.pull(&image).await;
    let jobs = tidegate.admin().get("/api/v1/warm").send().await.json();
    assert_eq!(jobs, json!({ "jobs": [] }));
    // Another order is due at once.
    let other = upstream.make_image("library/other", "1", &[1000]);
    let section = "[[warm]]\nimages = [\"hub.test/library/other:1\"]\n";
    tidegate.reconfigure(|setup| setup.more(section));
    tidegate.restart().await;
    tidegate.wait_for_log("warming ended").await;
    go_offline(&tidegate).await;
    tidegate.pull(&other).await;
}
