//! What upstream has deleted: kept for a while, marked, told once; or gone at once, as configured.

use crate::client::Answer;
use crate::content::Image;
use crate::harness::{Section, Setup, Tidegate, until};
use crate::upstream::{Kind, Then, Upstream, any, manifest, status};

async fn pulled(change: impl FnOnce(Section) -> Section) -> (Upstream, Image, Tidegate) {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[1000]);
    let section = Section::hub(&upstream).clocks("0s", "0s", "30d").text("negative_for", "0s");
    let tidegate = Setup::new().upstream(change(section)).with_warnings().start().await;
    tidegate.pull(&image).await;
    (upstream, image, tidegate)
}

/// What registries say of a tag or repository that is not there.
fn not_found(code: &str) -> Then {
    let body = format!(r#"{{"errors":[{{"code":"{code}","message":"unknown"}}]}}"#);
    status(404).body(body).header("content-type", "application/json")
}

fn delete(upstream: &Upstream) {
    upstream.rule(any(Kind::Manifest), not_found("MANIFEST_UNKNOWN"));
}

#[track_caller]
fn assert_kept(answer: &Answer) {
    assert_eq!(
        (answer.status, answer.cache_status()),
        (200, "tidegate; hit; detail=stale-deleted"),
        "{answer:?}"
    );
    let warning = answer.header("warning").unwrap();
    assert!(warning.starts_with("299 - \"hub.test has deleted this, as was noticed "), "{warning}");
}

#[tokio::test]
async fn a_tag_that_upstream_has_deleted_is_kept_marked_and_told_of_once() {
    for then in [not_found("MANIFEST_UNKNOWN"), not_found("NAME_UNKNOWN"), status(410)] {
        let (upstream, image, mut tidegate) = pulled(|section| section).await;
        upstream.rule(any(Kind::Manifest), then);
        for _ in 0..3 {
            let answer = tidegate.manifest(&image.tag_path()).await;
            assert_kept(&answer);
            assert_eq!(answer.body, image.manifest.bytes);
            assert_kept(&tidegate.head(&image.tag_path()).send().await);
            tidegate.pull(&image).await;
        }
        assert_eq!(tidegate.manifest(&image.digest_path()).await.cache_status(), "tidegate; hit");
        tidegate.manifest("/v2/library/app/manifests/2").await.assert_error(404, "MANIFEST_UNKNOWN");
        let deleted =
            tidegate.metrics().await.sum("tidegate_tags_deleted_total", &[("upstream", "hub.test")]);
        assert!((deleted - 1.0).abs() < 0.5, "{deleted}");
        assert!(upstream.count(&manifest("1").head()) >= 6, "asked again each time");
        let noticed = tidegate.manifest(&image.tag_path()).await.header("warning").unwrap().to_owned();
        tidegate.restart().await;
        let answer = tidegate.manifest(&image.tag_path()).await;
        assert_kept(&answer);
        assert_eq!(answer.header("warning"), Some(noticed.as_str()), "the time goes on over a restart");
        assert_eq!(tidegate.log_lines("tag was deleted upstream").len(), 0);
    }
}

#[tokio::test]
async fn a_tag_that_comes_back_is_as_any_other() {
    let (upstream, image, tidegate) = pulled(|section| section).await;
    delete(&upstream);
    assert_kept(&tidegate.manifest(&image.tag_path()).await);
    // Lines of the log come by another way than answers.
    let told = async |count: usize| tidegate.log_lines("tag was deleted upstream").len() == count;
    until("the first notice", async || told(1).await).await;
    upstream.heal();
    for _ in 0..2 {
        let answer = tidegate.manifest(&image.tag_path()).await;
        assert_eq!((answer.status, answer.header("warning")), (200, None), "{answer:?}");
    }
    delete(&upstream);
    assert_kept(&tidegate.manifest(&image.tag_path()).await);
    until("the notice of another deletion", async || told(2).await).await;
}

#[tokio::test]
async fn a_deleted_tag_whose_time_is_over_is_gone_and_one_without_time_is_gone_at_once() {
    let (upstream, image, tidegate) = pulled(|section| section.text("keep_deleted", "0s")).await;
    delete(&upstream);
    tidegate.manifest(&image.tag_path()).await.assert_error(404, "MANIFEST_UNKNOWN");
    assert_eq!(tidegate.manifest(&image.digest_path()).await.status, 200, "its digest stays");
    upstream.heal();
    upstream.stop().await;
    assert_eq!(tidegate.manifest(&image.tag_path()).await.status, 504, "nothing is known of it any more");

    let (upstream, image, tidegate) = pulled(|section| section.text("keep_deleted", "1s")).await;
    delete(&upstream);
    assert_kept(&tidegate.manifest(&image.tag_path()).await);
    until("the end of its time", async || tidegate.manifest(&image.tag_path()).await.status == 404).await;
    tidegate.manifest(&image.tag_path()).await.assert_error(404, "MANIFEST_UNKNOWN");
}

#[tokio::test]
async fn a_deleted_tag_is_kept_however_long_ago_upstream_confirmed_it() {
    let (upstream, image, tidegate) = pulled(|section| section.clocks("0s", "0s", "0s")).await;
    delete(&upstream);
    for _ in 0..2 {
        assert_kept(&tidegate.manifest(&image.tag_path()).await);
    }
    upstream.heal();
    upstream.rule(any(Kind::Manifest), status(500));
    assert_eq!(tidegate.manifest(&image.tag_path()).await.status, 502, "an outage is no deletion");
}

#[tokio::test]
async fn a_deleted_tag_is_marked_also_while_it_is_revalidated_in_the_background() {
    let (upstream, image, tidegate) = pulled(|section| section.clocks("0s", "1h", "30d")).await;
    delete(&upstream);
    until("the deletion to be noticed", async || {
        let answer = tidegate.manifest(&image.tag_path()).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.cache_status().ends_with("detail=stale-deleted")
    })
    .await;
    assert_kept(&tidegate.manifest(&image.tag_path()).await);
}

#[tokio::test]
async fn a_deleted_tag_in_an_outage_is_stale_as_any_other() {
    let (upstream, image, tidegate) = pulled(|section| section).await;
    delete(&upstream);
    assert_kept(&tidegate.manifest(&image.tag_path()).await);
    upstream.stop().await;
    let answer = tidegate.manifest(&image.tag_path()).await;
    assert_eq!((answer.status, answer.cache_status()), (200, "tidegate; hit; detail=stale"), "{answer:?}");
}

#[tokio::test]
async fn a_deleted_tag_whose_copy_is_gone_is_absent_for_head_and_get() {
    let (upstream, image, mut tidegate) = pulled(|section| section).await;
    delete(&upstream);
    assert_kept(&tidegate.manifest(&image.tag_path()).await);
    std::fs::remove_file(tidegate.stored_path(&image.manifest.digest)).unwrap();
    tidegate.restart().await;
    assert_eq!(tidegate.head(&image.tag_path()).send().await.status, 404);
    tidegate.manifest(&image.tag_path()).await.assert_error(404, "MANIFEST_UNKNOWN");
}
