//! What upstreams claim, about sizes above all: a false claim must not make a wrong answer complete, nor
//! one upstream's claim count for another, nor an honest one about a large blob cost the cache.

use std::time::Duration;

use crate::content::{Content, Image, OCI_MANIFEST};
use crate::harness::{Section, Setup};
use crate::upstream::{Gate, Kind, Upstream, any, blob, everything, manifest, serve, status};

const MIB: usize = 1 << 20;

#[tokio::test]
async fn a_blob_that_is_not_empty_is_never_answered_as_an_empty_one() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[1000]);
    let mut lie: serde_json::Value = serde_json::from_slice(&image.manifest.bytes).unwrap();
    lie["layers"][0]["size"] = 0.into();
    upstream.tag_manifest("library/app", "lie", &Content::json(OCI_MANIFEST, &lie));
    // A length would show the lie, and so would the end of the body.
    let gate = Gate::closed();
    upstream.rule(any(Kind::Blob), serve().chunked().hold_body(&gate));
    let tidegate = Setup::new().upstream(Section::hub(&upstream)).with_warnings().start().await;
    assert_eq!(tidegate.manifest("/v2/library/app/manifests/lie").await.status, 200);
    tidegate.fetch(&image.layer_path(0)).await.assert_error(502, "UNAVAILABLE");
    gate.open();
}

#[tokio::test]
async fn an_upstream_that_moves_the_end_cannot_complete_a_wrong_range_for_another() {
    let (liar, honest) = (Upstream::start().await, Upstream::start().await);
    let layer = Content::blob(7, MIB);
    let image = Image::of_layers("team/app", "1", vec![layer.clone()]);
    honest.add_image(&image);
    liar.add_blob("team/app", &layer);
    let gate = Gate::closed();
    let wrong = serve().body(vec![b'x'; MIB]).repeated_to(64 << 20).hold_body(&gate);
    liar.rule(any(Kind::Blob), wrong.header("content-length", "67108864"));
    let tidegate = Setup::new()
        .upstream(Section::new("honest.test", &honest).default_upstream())
        .upstream(Section::new("liar.test", &liar))
        .with_warnings()
        .start()
        .await;
    tidegate.manifest(&image.tag_path()).await;
    gate.release_to(4 << 20);
    let path = format!("/v2/liar.test/team/app/blobs/{}", layer.digest);
    let running = tidegate.get(&path).open().await;
    let answer = tidegate.get(&image.layer_path(0)).range(&format!("bytes=0-{}", MIB - 1)).send().await;
    assert_eq!((answer.status, &answer.body), (206, &layer.bytes));
    gate.open();
    drop(running);
}

#[tokio::test]
async fn a_blob_larger_than_the_budget_passes_through_and_evicts_nothing() {
    let upstream = Upstream::start().await;
    let small = upstream.make_image("library/small", "1", &[MIB]);
    let tidegate =
        Setup::new().upstream(Section::hub(&upstream)).max_size("8MiB").with_warnings().start().await;
    tidegate.pull(&small).await;
    let large = Content::blob(3, 12 * MIB);
    upstream.add_blob("library/large", &large);
    let path = format!("/v2/library/large/blobs/{}", large.digest);
    assert_eq!(tidegate.fetch(&path).await.body, large.bytes, "of a size that upstream states");
    upstream.rule(any(Kind::Blob), serve().chunked());
    assert_eq!(tidegate.fetch(&path).await.body, large.bytes, "of unknown size");
    upstream.heal();
    upstream.forget_requests();
    tidegate.pull(&small).await;
    assert_eq!(upstream.count(&everything()), 0, "what was cached still is");
}

#[tokio::test]
async fn a_range_of_a_blob_that_passes_through_costs_upstream_no_more_than_the_range() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/large", "1", &[12 * MIB]);
    let tidegate =
        Setup::new().upstream(Section::hub(&upstream)).max_size("8MiB").with_warnings().start().await;
    tidegate.manifest(&image.tag_path()).await;
    let layer = &image.layers[0];
    let answer = tidegate.get(&image.layer_path(0)).range("bytes=8388608-8389607").send().await;
    assert_eq!((answer.status, &answer.body), (206, &layer.bytes.slice(8 * MIB..8 * MIB + 1000)));
    assert!(upstream.sent_bytes(&blob(layer)) < MIB as u64);
}

#[tokio::test]
async fn clients_that_ask_at_once_whether_a_blob_is_there_cost_one_question() {
    let upstream = Upstream::start().await;
    let layer = Content::blob(11, 1000);
    upstream.add_blob("library/app", &layer);
    upstream.rule(any(Kind::Blob), serve().delay_head(Duration::from_millis(500)));
    let tidegate = Setup::new().upstream(Section::hub(&upstream)).start().await;
    let path = format!("/v2/library/app/blobs/{}", layer.digest);
    let asked = (0..20).map(|_| tidegate.head(&path).send());
    for answer in futures_util::future::join_all(asked).await {
        assert_eq!((answer.status, answer.header("content-length")), (200, Some("1000")));
    }
    assert_eq!(upstream.count(&blob(&layer)), 1);
}

#[tokio::test]
async fn an_empty_body_is_no_manifest_whatever_its_type_says() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[10]);
    let empty = status(200).header("content-type", OCI_MANIFEST).header("content-length", "0");
    upstream.rule(manifest("1"), empty.without("docker-content-digest"));
    let tidegate = Setup::new().upstream(Section::hub(&upstream)).with_warnings().start().await;
    tidegate.manifest(&image.tag_path()).await.assert_error(502, "UNAVAILABLE");
    upstream.heal();
    tidegate.pull(&image).await;
}

#[tokio::test]
async fn a_tag_that_is_never_served_stale_is_asked_for_again_right_after_a_failure() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[10]);
    let section = Section::hub(&upstream).clocks("0s", "0s", "0s");
    let tidegate = Setup::new().upstream(section).with_warnings().start().await;
    tidegate.pull(&image).await;
    upstream.rule(manifest("1"), status(500));
    assert_eq!(tidegate.manifest(&image.tag_path()).await.status, 502);
    upstream.heal();
    tidegate.pull(&image).await;
}
