//! Bytes are shared between repositories, rights never are (item 46).

use crate::content::{Content, Image};
use crate::harness::{Section, Setup, Tidegate};
use crate::upstream::{Access, Kind, Upstream, any, blob, everything, manifest};

/// Two upstreams and a secret image that only the first shows.
struct Scene {
    first: Upstream,
    second: Upstream,
    image: Image,
    tidegate: Tidegate,
}

impl Scene {
    async fn new() -> Self {
        let (first, second) = (Upstream::start().await, Upstream::start().await);
        let image = first.make_image("team/app", "1", &[100_000]);
        let tidegate = Setup::new()
            .upstream(Section::new("first.test", &first).default_upstream())
            .upstream(Section::new("second.test", &second))
            .with_warnings()
            .start()
            .await;
        tidegate.pull(&image).await;
        Self { first, second, image, tidegate }
    }

    fn blob_in(&self, repository: &str) -> String {
        format!("/v2/{repository}/blobs/{}", self.image.layers[0].digest)
    }

    fn manifest_in(&self, repository: &str) -> String {
        format!("/v2/{repository}/manifests/{}", self.image.manifest.digest)
    }
}

#[tokio::test]
async fn item_046_a_digest_known_from_elsewhere_gives_nothing() {
    let scene = Scene::new().await;
    scene.first.make_image("team/other", "1", &[10]);
    scene.second.make_image("team/app", "1", &[20]);
    for repository in ["team/other", "second.test/team/app", "second.test/team/none"] {
        for (path, code) in
            [(scene.blob_in(repository), "BLOB_UNKNOWN"), (scene.manifest_in(repository), "MANIFEST_UNKNOWN")]
        {
            for call in [scene.tidegate.get(&path), scene.tidegate.get(&path).range("bytes=0-9")] {
                call.send().await.assert_error(404, code);
            }
            assert_eq!(scene.tidegate.head(&path).send().await.status, 404, "{path}");
        }
    }
}

#[tokio::test]
async fn item_046_nothing_is_shown_while_upstream_cannot_confirm() {
    let scene = Scene::new().await;
    scene.second.stop().await;
    for path in [scene.blob_in("second.test/team/app"), scene.manifest_in("second.test/team/app")] {
        for call in [scene.tidegate.get(&path), scene.tidegate.head(&path)] {
            assert_eq!(call.send().await.status, 504, "{path}");
        }
    }
    assert_eq!(scene.tidegate.fetch(&scene.blob_in("team/app")).await.status, 200);
}

#[tokio::test]
async fn item_046_what_upstream_confirms_is_served_without_a_second_transfer() {
    let scene = Scene::new().await;
    let layer = &scene.image.layers[0];
    scene.first.add_blob("team/other", layer);
    scene.first.forget_requests();
    let answer = scene.tidegate.fetch(&scene.blob_in("team/other")).await;
    assert_eq!((answer.status, &answer.body), (200, &layer.bytes));
    let asked = scene.first.requests(&blob(layer).of("team/other"));
    assert!(!asked.is_empty(), "upstream was asked");
    assert!(scene.first.sent_bytes(&blob(layer)) < layer.size(), "and its bytes were not needed");
    scene.first.forget_requests();
    assert_eq!(scene.tidegate.fetch(&scene.blob_in("team/other")).await.status, 200);
    assert_eq!(scene.first.count(&everything()), 0, "the proof is kept");
}

#[tokio::test]
async fn a_manifest_that_lists_a_blob_shows_it_for_its_repository() {
    let scene = Scene::new().await;
    let layer = scene.image.layers[0].clone();
    let listing = Image::of_layers("team/listing", "1", vec![layer.clone()]);
    scene.second.add_image(&listing);
    let base = "/v2/second.test/team/listing";
    assert_eq!(scene.tidegate.manifest(&format!("{base}/manifests/1")).await.status, 200);
    scene.second.forget_requests();
    let answer = scene.tidegate.fetch(&format!("{base}/blobs/{}", layer.digest)).await;
    assert_eq!((answer.status, &answer.body), (200, &layer.bytes));
    assert_eq!(scene.second.sent_bytes(&blob(&layer)), 0, "the bytes were here");
    let elsewhere = format!("/v2/second.test/team/elsewhere/blobs/{}", layer.digest);
    assert_eq!(scene.tidegate.fetch(&elsewhere).await.status, 404);
}

#[tokio::test]
async fn a_listed_blob_that_is_not_cached_yet_is_fetched_from_its_own_repository() {
    let scene = Scene::new().await;
    let fresh = Content::blob(99, 5000);
    let image = Image::of_layers("team/fresh", "1", vec![fresh.clone()]);
    scene.second.add_image(&image);
    let path = format!("/v2/second.test/team/fresh/blobs/{}", fresh.digest);
    assert_eq!(scene.tidegate.fetch(&path).await.body, fresh.bytes);
    assert_eq!(scene.second.count(&blob(&fresh).of("team/fresh")), 1);
    assert_eq!(scene.first.count(&blob(&fresh)), 0);
}

#[tokio::test]
async fn a_manifest_reached_by_tag_is_shown_by_digest_for_that_repository_only() {
    let scene = Scene::new().await;
    assert_eq!(scene.tidegate.manifest(&scene.manifest_in("team/app")).await.status, 200);
    scene.second.tag_manifest("team/copy", "1", &scene.image.manifest);
    assert_eq!(scene.tidegate.manifest("/v2/second.test/team/copy/manifests/1").await.status, 200);
    assert_eq!(scene.tidegate.manifest(&scene.manifest_in("second.test/team/copy")).await.status, 200);
    assert_eq!(scene.tidegate.manifest(&scene.manifest_in("second.test/team/else")).await.status, 404);
}

#[tokio::test]
async fn a_fill_of_one_repository_is_not_joined_by_another_that_has_no_right() {
    let (upstream, tidegate) = {
        let upstream = Upstream::start().await;
        let tidegate = Setup::new().upstream(Section::hub(&upstream)).with_warnings().start().await;
        (upstream, tidegate)
    };
    let image = upstream.make_image("team/app", "1", &[8 << 20]);
    upstream.make_image("team/other", "1", &[10]);
    let gate = crate::upstream::Gate::closed();
    upstream.rule(blob(&image.layers[0]).of("team/app"), crate::upstream::serve().hold_body(&gate));
    let mut running = tidegate.get(&image.layer_path(0)).open().await;
    gate.release_to(4 << 20);
    let path = format!("/v2/team/other/blobs/{}", image.layers[0].digest);
    tidegate.fetch(&path).await.assert_error(404, "BLOB_UNKNOWN");
    gate.open();
    assert!(running.equals(&image.layers[0].bytes).await);
}

#[tokio::test]
async fn rights_survive_a_restart() {
    let mut scene = Scene::new().await;
    scene.tidegate.restart().await;
    scene.first.forget_requests();
    scene.tidegate.pull(&scene.image).await;
    assert_eq!(scene.first.count(&any(Kind::Blob)), 0);
    let elsewhere = scene.blob_in("second.test/team/app");
    assert_eq!(scene.tidegate.fetch(&elsewhere).await.status, 404);
}

#[tokio::test]
async fn a_repository_that_turns_private_is_closed_once_its_tag_is_asked_for() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("team/app", "1", &[1000]);
    let section = Section::hub(&upstream).clocks("0s", "0s", "30d");
    let tidegate = Setup::new().upstream(section).with_warnings().start().await;
    tidegate.pull(&image).await;
    upstream.require(Access::Basic("somebody".into(), "else".into()));
    let answer = tidegate.manifest(&image.tag_path()).await;
    assert!([403, 404].contains(&answer.status), "{answer:?}");
    assert!(upstream.count(&manifest("1")) >= 2);
}
