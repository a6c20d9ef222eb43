//! Upstreams that throttle: what they ask for is done, what they still allow is spent by priority, what is cached serves.

use std::time::Duration;

use futures_util::future::join_all;
use rustix::process::Signal;
use serde_json::json;
use tokio::time::Instant;

use crate::client::Answer;
use crate::content::Image;
use crate::harness::{Section, Setup, Tidegate, until};
use crate::upstream::{
    Access, Bearer, Gate, Kind, Then, Upstream, any, blob, everything, manifest, serve, status,
};
use crate::warm::{ended, order};

/// Every tag is old at once, and is still good.
fn impatient(upstream: &Upstream) -> Section {
    Section::hub(upstream).clocks("0s", "0s", "30d")
}

async fn start(section: Section) -> Tidegate {
    Setup::new().upstream(section).with_warnings().start().await
}

fn throttled(retry_after: &str) -> Then {
    status(429).header("retry-after", retry_after)
}

/// The right answer, with what Docker Hub says of its limit.
fn docker(then: Then, remaining: &str) -> Then {
    then.header("ratelimit-limit", "100;w=60")
        .header("ratelimit-remaining", &format!("{remaining};w=60"))
        .header("docker-ratelimit-source", "192.0.2.1")
}

/// The right answer, with what a registry says that counts every request.
fn counting(then: Then, remaining: &str) -> Then {
    then.header("ratelimit-policy", "\"all\";q=100;w=3600")
        .header("ratelimit", &format!("\"all\";r={remaining};t=1800"))
}

#[track_caller]
fn assert_stale(answer: &Answer, image: &Image) {
    assert_eq!((answer.status, &answer.body), (200, &image.manifest.bytes), "{answer:?}");
    assert_eq!(answer.cache_status(), "tidegate; hit; detail=stale");
    assert!(answer.header("warning").is_some_and(|warning| warning.contains("throttled")), "{answer:?}");
}

#[tokio::test]
async fn a_crowd_costs_a_throttling_upstream_nothing_and_is_served_when_that_is_over() {
    const CROWD: usize = 200;
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "cached", &[1000]);
    for number in 0..CROWD {
        upstream.tag_manifest("library/app", &format!("t{number}"), &image.manifest);
    }
    let tidegate = start(impatient(&upstream)).await;
    tidegate.pull(&image).await;
    upstream.forget_requests();
    upstream.rule(everything(), throttled("5"));
    tidegate.manifest("/v2/library/app/manifests/t0").await.assert_error(429, "TOOMANYREQUESTS");
    let begun = Instant::now();
    let ask = async |number| tidegate.manifest(&format!("/v2/library/app/manifests/t{number}")).await;
    for answer in join_all((0..CROWD).map(ask)).await {
        answer.assert_error(429, "TOOMANYREQUESTS");
        let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=5).contains(&wait), "podman sleeps for it: {wait}");
    }
    for _ in 0..3 {
        assert_stale(&tidegate.manifest(&image.tag_path()).await, &image);
        let digest = tidegate.manifest(&image.digest_path()).await;
        assert_eq!((digest.status, digest.cache_status()), (200, "tidegate; hit"));
        assert_eq!(tidegate.fetch(&image.layer_path(0)).await.body, image.layers[0].bytes);
    }
    if begun.elapsed() < Duration::from_secs(5) {
        assert_eq!(upstream.count(&everything()), 1, "who was told to wait");
    }
    let health = tidegate.admin().get("/health/ready").send().await;
    assert_eq!(health.status, 200, "{health:?}");
    let metrics = tidegate.metrics().await;
    let refusals = [("upstream", "hub.test"), ("priority", "client"), ("reason", "held")];
    assert!(metrics.sum("tidegate_upstream_refusals_total", &refusals) > 100.0);
    assert!(metrics.sum("tidegate_upstream_holds_total", &[("limit", "pull")]) > 0.5);
    upstream.heal();
    until("the first tag", async || ask(0).await.status == 200).await;
    let insist = async |number| until("the tag", async || ask(number).await.status == 200).await;
    join_all((0..CROWD).map(insist)).await;
    assert!(begun.elapsed() >= Duration::from_secs(4), "{:?}", begun.elapsed());
    let asked = upstream.count(&any(Kind::Manifest).get());
    assert!(asked <= CROWD + CROWD / 10, "{asked}");
    until("the cached tag to be fresh again", async || {
        tidegate.manifest(&image.tag_path()).await.header("warning").is_none()
    })
    .await;
    assert_eq!(tidegate.log_lines("it is left alone for a while").len(), 1, "told once");
}

#[tokio::test]
async fn whatever_upstream_says_of_the_time_a_crowd_does_not_insist() {
    for retry_after in [
        Some("7"),
        Some("Wed, 21 Oct 2099 07:28:00 GMT"),
        Some("1000000000000"),
        Some("-1"),
        Some("soon"),
        None,
    ] {
        let upstream = Upstream::start().await;
        let image = upstream.make_image("library/app", "1", &[1000]);
        let tidegate = start(impatient(&upstream)).await;
        tidegate.pull(&image).await;
        upstream.forget_requests();
        upstream.rule(everything(), retry_after.map_or_else(|| status(429), throttled));
        for number in 0..20 {
            let answer = tidegate.manifest(&format!("/v2/library/app/manifests/none{number}")).await;
            answer.assert_error(429, "TOOMANYREQUESTS");
            assert_stale(&tidegate.manifest(&image.tag_path()).await, &image);
        }
        // Where it says nothing that can be understood, it is left alone for a second or two.
        let asked = upstream.count(&everything());
        assert!(asked <= 3, "{retry_after:?}: {asked}");
    }
}

#[tokio::test]
async fn a_503_with_a_time_is_left_alone_and_stays_a_502() {
    let upstream = Upstream::start().await;
    upstream.rule(everything(), status(503).header("retry-after", "600"));
    let tidegate = start(impatient(&upstream)).await;
    for number in 0..20 {
        let answer = tidegate.manifest(&format!("/v2/library/app/manifests/none{number}")).await;
        answer.assert_error(502, "UNAVAILABLE");
    }
    assert_eq!(upstream.count(&everything()), 1);
}

#[tokio::test]
async fn where_upstream_counts_manifests_only_blobs_and_questions_about_tags_go_on() {
    let upstream = Upstream::start().await;
    let cached = upstream.make_image("library/cached", "1", &[1000]);
    let other = upstream.make_image("library/other", "1", &[2000]);
    upstream.require(Access::Bearer(Bearer::of_realm(&upstream.realm())));
    let tidegate = start(impatient(&upstream)).await;
    tidegate.manifest(&cached.tag_path()).await;
    upstream.rule(any(Kind::Manifest).get(), docker(throttled("600"), "0"));
    tidegate.manifest(&other.tag_path()).await.assert_error(429, "TOOMANYREQUESTS");
    tidegate.manifest(&other.tag_path()).await.assert_error(429, "TOOMANYREQUESTS");
    assert_eq!(upstream.count(&manifest("1").get().of("library/other")), 2, "a challenge, and the limit");
    // A login, too: its limit is another.
    let logins = upstream.count(&any(Kind::Token));
    let third = upstream.make_image("library/third", "1", &[3000]);
    assert_eq!(tidegate.fetch(&third.layer_path(0)).await.body, third.layers[0].bytes);
    assert_eq!(upstream.count(&any(Kind::Token)), logins + 1);
    let fresh = tidegate.manifest(&cached.tag_path()).await;
    assert_eq!((fresh.status, fresh.header("warning")), (200, None), "{fresh:?}");
}

#[tokio::test]
async fn a_token_service_that_throttles_stops_nobody_who_has_a_token() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[1000, 2000]);
    let other = upstream.make_image("library/other", "1", &[10]);
    upstream.require(Access::Bearer(Bearer::of_realm(&upstream.realm())));
    let tidegate = start(impatient(&upstream)).await;
    tidegate.manifest(&image.tag_path()).await;
    upstream.rule(any(Kind::Token), throttled("600"));
    for _ in 0..10 {
        tidegate.manifest(&other.tag_path()).await.assert_error(429, "TOOMANYREQUESTS");
    }
    tidegate.pull(&image).await;
    assert_eq!(upstream.count(&any(Kind::Token)), 2, "one that was given, one that was not");
    let metrics = tidegate.metrics().await;
    assert!(metrics.sum("tidegate_upstream_holds_total", &[("limit", "login")]) > 0.5);
    assert!(metrics.sum("tidegate_upstream_holds_total", &[("limit", "pull")]) < 0.5);
}

fn two_users(upstream: &Upstream) -> Section {
    let both =
        "[{ username = \"one\", password = \"of-one\" }, { username = \"two\", password_file = \"two\" }]";
    Section::hub(upstream).raw_value("credentials", both)
}

fn users(names: &[&str]) -> Access {
    Access::Users(names.iter().map(|name| (*name).to_owned()).collect())
}

#[tokio::test]
async fn several_credentials_are_used_in_turn() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[1000, 2000]);
    let other = upstream.make_image("library/other", "1", &[3000]);
    upstream.require(users(&["one", "two"]));
    let by = |user: &str| upstream.count(&everything().by(user));
    let setup = Setup::new().upstream(two_users(&upstream)).file("two", "of-two\n").with_warnings();
    let tidegate = setup.start().await;
    tidegate.manifest(&image.tag_path()).await;
    assert!(by("one") > 0 && by("two") == 0, "the first is kept");
    let before = by("one");
    upstream.rule(everything().by("one"), throttled("600"));
    tidegate.pull(&image).await;
    tidegate.pull(&other).await;
    assert_eq!(by("one"), before + 1, "until it is throttled");
    assert!(by("two") >= 5);
    upstream.rule(everything().by("two"), throttled("600"));
    for number in 0..10 {
        let answer = tidegate.manifest(&format!("/v2/library/app/manifests/none{number}")).await;
        answer.assert_error(429, "TOOMANYREQUESTS");
    }
    assert_eq!(by("one"), before + 1, "nobody is used while all are throttled");
    assert!(tidegate.log_lines("of-").is_empty());
}

#[tokio::test]
async fn a_credential_that_is_refused_is_set_aside_told_once_and_read_again_by_a_signal() {
    let upstream = Upstream::start().await;
    let images: Vec<_> =
        (0..5).map(|number| upstream.make_image(&format!("library/app{number}"), "1", &[1000])).collect();
    upstream.require(users(&["one", "two"]));
    let section = two_users(&upstream).raw_value(
        "credentials",
        "[{ username = \"one\", password_file = \"one\" }, { username = \"two\", password_file = \"two\" }]",
    );
    let setup = Setup::new().upstream(section).file("one", "wrong").file("two", "of-two").with_warnings();
    // Of the one that is refused nobody knows what is left; that alone would make it the better one.
    upstream.rule(everything().by("two"), docker(serve(), "50"));
    let mut tidegate = setup.start().await;
    for image in &images {
        tidegate.pull(image).await;
    }
    let refused = upstream.count(&everything().by("one"));
    assert!(refused <= 2, "{refused}");
    assert_eq!(tidegate.log_lines("upstream refuses this credential").len(), 1);
    assert!(tidegate.log_lines("wrong").is_empty());
    // Now the other way round.
    upstream.heal();
    tidegate.reconfigure(|setup| setup.file("one", "of-one").file("two", "wrong"));
    tidegate.signal(Signal::HUP);
    tidegate.wait_for_log("configuration was reloaded").await;
    upstream.forget_requests();
    let image = upstream.make_image("library/new", "1", &[1000]);
    tidegate.pull(&image).await;
    assert!(upstream.count(&everything().by("one")) >= 3);
    assert_eq!(upstream.count(&everything().by("two")), 0);
}

async fn count_refusals(tidegate: &Tidegate, priority: &str) -> f64 {
    let labels = [("priority", priority), ("reason", "reserved")];
    tidegate.metrics().await.sum("tidegate_upstream_refusals_total", &labels)
}

#[tokio::test]
async fn what_little_upstream_still_allows_is_not_spent_ahead_of_clients() {
    let upstream = Upstream::start().await;
    let client = upstream.make_image("library/client", "1", &[1000]);
    let ahead = upstream.make_image("library/ahead", "1", &[2000]);
    upstream.rule(any(Kind::Manifest), docker(serve(), "15"));
    let tidegate = start(impatient(&upstream)).await;
    tidegate.pull(&client).await;
    let what = json!({ "images": ["library/ahead:1"], "referrers": false });
    let id = order(&tidegate, &what).await;
    until("the job to be held back", async || count_refusals(&tidegate, "ahead").await > 0.5).await;
    let job = tidegate.admin().get(&format!("/api/v1/warm/{id}")).send().await.json();
    assert_eq!(job["state"], "running", "{job}");
    if upstream.count(&any(Kind::Manifest).of("library/ahead")) == 0 {
        let second = upstream.make_image("library/second", "1", &[1000]);
        tidegate.pull(&second).await;
    }
    // In this upstream's window of a minute, more is allowed by and by: the job goes on by itself.
    assert_eq!(ended(&tidegate, &id).await["state"], "complete");
    tidegate.pull(&ahead).await;
}

#[tokio::test]
async fn revalidation_leaves_the_last_of_what_upstream_allows_to_misses() {
    let upstream = Upstream::start().await;
    let cached = upstream.make_image("library/cached", "1", &[1000]);
    let tidegate = start(impatient(&upstream)).await;
    tidegate.pull(&cached).await;
    upstream.rule(everything(), counting(serve(), "5"));
    let miss = upstream.make_image("library/miss", "1", &[1000]);
    tidegate.pull(&miss).await;
    upstream.forget_requests();
    for _ in 0..3 {
        assert_stale(&tidegate.manifest(&cached.tag_path()).await, &cached);
    }
    assert_eq!(upstream.count(&everything()), 0);
    assert!(count_refusals(&tidegate, "revalidation").await > 0.5);
    let other = upstream.make_image("library/other", "1", &[1000]);
    tidegate.pull(&other).await;
}

#[tokio::test]
async fn prefetch_is_refused_before_clients_are() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[1000, 2000]);
    upstream.rule(everything(), counting(serve(), "20"));
    let tidegate = start(impatient(&upstream).text("prefetch", "layers")).await;
    tidegate.manifest(&image.tag_path()).await;
    until("all blobs to be refused", async || count_refusals(&tidegate, "ahead").await > 2.5).await;
    assert_eq!(upstream.count(&any(Kind::Blob)), 0);
    tidegate.pull(&image).await;
}

/// How many fills run.
async fn until_filling(tidegate: &Tidegate, count: usize) {
    let expected = count.to_string();
    until(&format!("{count} fills"), async || {
        tidegate.metrics().await.sum("tidegate_fills_in_progress", &[]).to_string() == expected
    })
    .await;
}

#[tokio::test]
async fn a_client_that_joins_what_is_fetched_ahead_is_let_through_where_that_alone_is_not() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[1000, 2000]);
    let [joined, alone] = [&image.layers[0], &image.layers[1]];
    let busy = upstream.make_image("library/busy", "1", &[100_000]);
    let gate = Gate::closed();
    upstream.rule(blob(&busy.layers[0]), serve().hold_body(&gate));
    upstream.rule(blob(&busy.config), counting(serve(), "20"));
    let section = impatient(&upstream).raw_value("max_concurrent_requests", "1");
    let tidegate = start(section).await;
    for path in [image.tag_path(), busy.tag_path()] {
        tidegate.manifest(&path).await;
    }
    tidegate.fetch(&image.blob_path(&image.config)).await;
    // The one slot is taken; what is warmed waits for it.
    let first = tokio::spawn(tidegate.get(&busy.layer_path(0)).send());
    until_filling(&tidegate, 1).await;
    let what = json!({ "images": ["library/app@".to_owned() + &image.manifest.digest], "referrers": false });
    let id = order(&tidegate, &what).await;
    until_filling(&tidegate, 2).await;
    // So does a client, whose answer tells that little is allowed any more, and another that joins.
    let second = tokio::spawn(tidegate.get(&busy.blob_path(&busy.config)).send());
    until_filling(&tidegate, 3).await;
    let join = tokio::spawn(tidegate.get(&image.blob_path(joined)).send());
    gate.open();
    for call in [first, second, join] {
        assert_eq!(call.await.unwrap().status, 200);
    }
    until("the rest to be refused", async || count_refusals(&tidegate, "ahead").await > 0.5).await;
    assert_eq!(upstream.count(&blob(alone)), 0);
    assert_eq!(tidegate.fetch(&image.blob_path(alone)).await.body, alone.bytes);
    let job = tidegate.admin().get(&format!("/api/v1/warm/{id}")).send().await.json();
    assert!(job["is_over"] == false || job["state"] == "complete", "{job}");
}
