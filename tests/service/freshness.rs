//! Tags over time: the two clocks, questions asked once, absence, negotiation (items 18, 19, 25, 83).

use std::time::Duration;

use crate::content::{ALL_TYPES, DOCKER_LIST, DOCKER_MANIFEST, Image, OCI_INDEX, OCI_MANIFEST, index_of};
use crate::harness::{Section, Setup, Tidegate, until};
use crate::upstream::{
    Gate, Kind, Then, Upstream, any, everything, hang_up, manifest, serve, status, web_page,
};

async fn with_clocks(upstream: &Upstream, fresh: &str, while_revalidate: &str, if_error: &str) -> Tidegate {
    let section = Section::hub(upstream).clocks(fresh, while_revalidate, if_error);
    let section = section.timeouts("2s", "1s", "1s");
    Setup::new().upstream(section).with_warnings().start().await
}

/// Points a tag to another image, as a publisher does.
fn move_tag(upstream: &Upstream, repository: &str, tag: &str) -> Image {
    let mut image = Image::oci(repository, &format!("{tag}-moved"), &[321]);
    tag.clone_into(&mut image.tag);
    upstream.add_image(&image);
    image
}

#[tokio::test]
async fn a_second_pull_while_fresh_asks_upstream_nothing_at_all() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[1000, 2000]);
    let tidegate = Tidegate::start(&upstream).await;
    tidegate.pull(&image).await;
    upstream.forget_requests();
    tidegate.pull(&image).await;
    tidegate.head(&image.tag_path()).send().await;
    let answer = tidegate.manifest(&image.tag_path()).await;
    assert!(answer.cache_status().starts_with("tidegate; hit"), "{}", answer.cache_status());
    assert_eq!(upstream.count(&everything()), 0);
}

#[tokio::test]
async fn a_fresh_tag_is_served_although_upstream_has_moved_it() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[10]);
    let tidegate = Tidegate::start(&upstream).await;
    tidegate.manifest(&image.tag_path()).await;
    move_tag(&upstream, "library/app", "1");
    assert_eq!(tidegate.manifest(&image.tag_path()).await.body, image.manifest.bytes);
}

#[tokio::test]
async fn item_025_an_unchanged_tag_is_revalidated_by_head_alone() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[10]);
    let tidegate = with_clocks(&upstream, "0s", "0s", "30d").await;
    tidegate.manifest(&image.tag_path()).await;
    upstream.forget_requests();
    for _ in 0..3 {
        let answer = tidegate.manifest(&image.tag_path()).await;
        assert_eq!((answer.status, &answer.body), (200, &image.manifest.bytes));
        assert_eq!(answer.header("warning"), None);
    }
    assert_eq!(upstream.count(&any(Kind::Manifest).get()), 0, "GET counts as a pull");
    assert_eq!(upstream.count(&any(Kind::Manifest).head()), 3);
}

#[tokio::test]
async fn item_025_a_changed_tag_costs_one_get() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[10]);
    let tidegate = with_clocks(&upstream, "0s", "0s", "30d").await;
    tidegate.manifest(&image.tag_path()).await;
    upstream.forget_requests();
    let moved = move_tag(&upstream, "library/app", "1");
    let answer = tidegate.manifest(&image.tag_path()).await;
    assert_eq!(answer.body, moved.manifest.bytes);
    assert_eq!(answer.header("docker-content-digest"), Some(moved.manifest.digest.as_str()));
    assert_eq!(upstream.count(&any(Kind::Manifest).get()), 1);
    assert_eq!(tidegate.manifest(&image.digest_path()).await.body, image.manifest.bytes, "the old one stays");
}

#[tokio::test]
async fn item_025_concurrent_questions_are_asked_once() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[10]);
    let tidegate = Tidegate::start(&upstream).await;
    let gate = Gate::closed();
    upstream.rule(manifest("1"), serve().hold_head(&gate));
    let calls: Vec<_> = (0..50).map(|_| tokio::spawn(tidegate.get(&image.tag_path()).send())).collect();
    gate.wait_for_arrivals(1).await;
    gate.open();
    for call in calls {
        assert_eq!(call.await.unwrap().body, image.manifest.bytes);
    }
    assert!(upstream.count(&any(Kind::Manifest).get()) <= 1 + upstream.count(&any(Kind::Manifest).head()));
    let asked = upstream.count(&manifest("1")) + upstream.count(&manifest(&image.manifest.digest));
    assert!(asked <= 2, "one HEAD and one GET at most: {asked}");
}

#[tokio::test]
async fn while_revalidate_a_stale_tag_is_served_at_once_and_asked_for_behind() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[10]);
    let tidegate = with_clocks(&upstream, "0s", "1h", "30d").await;
    tidegate.manifest(&image.tag_path()).await;
    let moved = move_tag(&upstream, "library/app", "1");
    let gate = Gate::closed();
    upstream.rule(manifest("1"), serve().hold_head(&gate));
    let stale = tidegate.manifest(&image.tag_path()).await;
    assert_eq!(stale.body, image.manifest.bytes, "served while upstream is being asked");
    assert!(stale.cache_status().contains("hit"), "{}", stale.cache_status());
    gate.wait_for_arrivals(1).await;
    gate.open();
    until("the moved tag", async || tidegate.manifest(&image.tag_path()).await.body == moved.manifest.bytes)
        .await;
}

/// What upstream does to a question that it does not answer.
fn troubles() -> Vec<(&'static str, Then)> {
    vec![
        ("throttled", status(429).header("retry-after", "1")),
        ("broken", status(500)),
        ("unavailable", status(503)),
        ("a web page", web_page(200)),
        ("hung up", hang_up()),
        ("silent", serve().delay_head(Duration::from_secs(30))),
        ("a web page elsewhere", status(303).header("location", "https://web.invalid/login")),
    ]
}

#[tokio::test]
async fn item_025_a_stale_tag_is_served_with_a_warning_in_every_trouble_of_upstream() {
    for (trouble, then) in troubles() {
        let upstream = Upstream::start().await;
        let image = upstream.make_image("library/app", "1", &[10]);
        let tidegate = with_clocks(&upstream, "0s", "0s", "30d").await;
        tidegate.manifest(&image.tag_path()).await;
        upstream.rule(everything(), then);
        for answer in
            [tidegate.manifest(&image.tag_path()).await, tidegate.head(&image.tag_path()).send().await]
        {
            assert_eq!(answer.status, 200, "{trouble}");
            assert_eq!(answer.header("docker-content-digest"), Some(image.manifest.digest.as_str()));
            let warning = answer.header("warning").unwrap_or_default();
            assert!(warning.starts_with("299 - \"") && warning.len() < 4096, "{trouble}: {warning:?}");
            assert!(answer.header("age").unwrap().parse::<u64>().is_ok(), "{trouble}");
            assert!(answer.cache_status().contains("detail=stale"), "{trouble}: {}", answer.cache_status());
        }
    }
}

#[tokio::test]
async fn item_084_a_stale_tag_and_its_digests_are_served_while_upstream_is_unreachable() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[1000]);
    let tidegate = with_clocks(&upstream, "0s", "0s", "30d").await;
    tidegate.pull(&image).await;
    upstream.stop().await;
    tidegate.pull(&image).await;
    assert_eq!(tidegate.manifest(&image.digest_path()).await.body, image.manifest.bytes);
    assert_eq!(tidegate.fetch("/v2/").await.status, 200);
    let stale = tidegate.manifest(&image.tag_path()).await;
    assert!(stale.header("warning").unwrap().starts_with("299 - \""));
}

#[tokio::test]
async fn past_stale_if_error_the_trouble_of_upstream_is_told() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[10]);
    let tidegate = with_clocks(&upstream, "0s", "0s", "0s").await;
    tidegate.manifest(&image.tag_path()).await;
    upstream.rule(any(Kind::Manifest), status(500));
    assert_eq!(tidegate.manifest(&image.tag_path()).await.status, 502);
    assert_eq!(tidegate.manifest(&image.digest_path()).await.status, 200, "a digest never goes stale");
}

#[tokio::test]
async fn a_tag_that_upstream_closed_is_not_served_stale() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[10]);
    let tidegate = with_clocks(&upstream, "0s", "0s", "30d").await;
    tidegate.manifest(&image.tag_path()).await;
    upstream.rule(manifest("1"), status(403));
    tidegate.manifest(&image.tag_path()).await.assert_error(403, "DENIED");
}

#[tokio::test]
async fn absence_is_remembered_as_long_as_configured_and_no_longer() {
    let upstream = Upstream::start().await;
    upstream.make_image("library/app", "1", &[10]);
    let section = Section::hub(&upstream).text("negative_for", "1h");
    let tidegate = Setup::new().upstream(section).start().await;
    let path = "/v2/library/app/manifests/later";
    tidegate.manifest(path).await.assert_error(404, "MANIFEST_UNKNOWN");
    upstream.forget_requests();
    tidegate.manifest(path).await.assert_error(404, "MANIFEST_UNKNOWN");
    assert_eq!(upstream.count(&everything()), 0);

    let section = Section::hub(&upstream).text("negative_for", "0s");
    let tidegate = Setup::new().upstream(section).start().await;
    tidegate.manifest(path).await.assert_error(404, "MANIFEST_UNKNOWN");
    let image = upstream.make_image("library/app", "later", &[20]);
    assert_eq!(tidegate.manifest(path).await.body, image.manifest.bytes);
}

#[tokio::test]
async fn item_083_trouble_of_upstream_is_never_remembered_as_absence() {
    for (trouble, then) in troubles() {
        let upstream = Upstream::start().await;
        let image = upstream.make_image("library/app", "1", &[10]);
        let tidegate = with_clocks(&upstream, "1h", "0s", "30d").await;
        upstream.rule(any(Kind::Manifest), then);
        let answer = tidegate.manifest(&image.tag_path()).await;
        assert!([429, 502, 504].contains(&answer.status), "{trouble}: {answer:?}");
        upstream.heal();
        until(trouble, async || {
            let answer = tidegate.manifest(&image.tag_path()).await;
            assert_ne!(answer.status, 404, "{trouble}");
            answer.status == 200
        })
        .await;
    }
}

#[tokio::test]
async fn item_018_a_client_without_index_types_gets_what_upstream_negotiates_for_it() {
    let upstream = Upstream::start().await;
    let image = Image::docker("library/app", "one", &[10]);
    upstream.add_image(&image);
    let list = index_of(DOCKER_LIST, &[&image]);
    upstream.tag_manifest("library/app", "list", &list);
    let index = index_of(OCI_INDEX, &[&image]);
    upstream.tag_manifest("library/app", "index", &index);
    let tidegate = Tidegate::start(&upstream).await;
    let get = |tag: &str| tidegate.get(&format!("/v2/library/app/manifests/{tag}"));
    for _narrow_then_wide_then_narrow in 0..2 {
        let narrow = get("list").accept(&[DOCKER_MANIFEST]).send().await;
        assert_eq!(narrow.header("docker-content-digest"), Some(image.manifest.digest.as_str()));
        assert_eq!(narrow.header("content-type"), Some(DOCKER_MANIFEST));
        let wide = get("list").accept(&[DOCKER_MANIFEST, DOCKER_LIST, OCI_INDEX, OCI_MANIFEST]).send().await;
        assert_eq!(wide.header("docker-content-digest"), Some(list.digest.as_str()));
        let refused = get("index").accept(&[OCI_MANIFEST]).send().await;
        refused.assert_error(404, "MANIFEST_UNKNOWN");
        assert_eq!(get("index").send().await.header("content-type"), Some(OCI_INDEX));
    }
}

#[tokio::test]
async fn hits_do_not_ask_the_index_whatever_clients_accept() {
    const HITS: u64 = 300;
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[10]);
    let tidegate = Tidegate::start(&upstream).await;
    for accepted in [&[OCI_MANIFEST][..], &[OCI_MANIFEST, DOCKER_MANIFEST][..], &ALL_TYPES[..]] {
        let client = tidegate.client();
        let get = async || client.get(&image.tag_path()).accept(accepted).send().await;
        assert_eq!(get().await.status, 200);
        let before = tidegate.index_pauses();
        assert!(before > 0, "no thread asks the index");
        for _ in 0..HITS {
            assert!(get().await.cache_status().starts_with("tidegate; hit"));
        }
        let pauses = tidegate.index_pauses() - before;
        assert!(pauses < HITS / 2, "{pauses} pauses of the index's threads with {accepted:?}");
    }
}

#[tokio::test]
async fn item_019_upstream_is_asked_with_all_types_and_any() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[10]);
    let tidegate = Tidegate::start(&upstream).await;
    tidegate.get(&image.tag_path()).accept(&[OCI_INDEX, OCI_MANIFEST]).send().await;
    for request in upstream.requests(&manifest("1")) {
        let lines: Vec<_> =
            request.headers.get_all("accept").iter().map(|line| line.to_str().unwrap()).collect();
        let accepted = lines.join(", ");
        for media_type in ALL_TYPES.iter().chain(&["*/*"]) {
            assert!(accepted.contains(media_type), "{media_type} in {accepted}");
        }
    }
    assert!(upstream.count(&manifest("1")) >= 1);
}
