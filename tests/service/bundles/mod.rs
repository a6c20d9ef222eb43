//! Bundles: from a node with a line, as a file, to a node without one.

mod counted;
mod interruptions;
mod refusals;
mod room;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use http::Method;
use serde_json::{Value, json};

use crate::content::{Content, Image, OCI_INDEX, OCI_MANIFEST, artifact_about, index_of};
use crate::harness::{Section, Setup, Tidegate, files_in, until};
use crate::upstream::{Gate, Kind, Upstream, any, blob, serve, status};

/// Runs a command in a directory of its own.
pub(crate) async fn run(directory: &Path, server: &str, arguments: &[&str]) -> Output {
    tokio::process::Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(arguments)
        .current_dir(directory)
        .env_clear()
        .env("TIDEGATE_SERVER", server)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[track_caller]
pub(crate) fn assert_done(output: &Output) {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

/// Fails unless a command failed with this in its words.
#[track_caller]
fn assert_refused(output: &Output, reason: &str) {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let told = text(&output.stderr);
    assert!(told.contains(reason), "{reason} in {told}");
}

/// Two sites: one with an upstream, and one that is offline. Their only road is a directory.
struct Sites {
    upstream: Upstream,
    near: Tidegate,
    far: Tidegate,
    road: tempfile::TempDir,
}

impl Sites {
    async fn start() -> Self {
        Self::start_with(|far| far).await
    }

    async fn start_with(change: impl FnOnce(Setup) -> Setup) -> Self {
        let upstream = Upstream::start().await;
        let near = Setup::new().upstream(Section::hub(&upstream)).with_warnings().start().await;
        let section = Section::of_url("hub.test", "https://hub.invalid").default_upstream();
        let far = Setup::new().upstream(section.raw_value("library_prefix", "true"));
        let far = change(far.site("offline = true").with_warnings()).start().await;
        Self { upstream, near, far, road: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.road.path().join(name)
    }

    async fn export(&self, arguments: &[&str]) -> Output {
        let arguments = [&["export"], arguments].concat();
        run(self.road.path(), &self.near.admin_url(), &arguments).await
    }

    async fn import(&self, arguments: &[&str]) -> Output {
        let arguments = [&["import"], arguments].concat();
        run(self.road.path(), &self.far.admin_url(), &arguments).await
    }

    /// Exports with everything that belongs to the images.
    async fn export_all(&self, file: &str, images: &[&str]) {
        assert_done(&self.export(&[&["--output", file], images].concat()).await);
    }

    /// Fails if the far side serves or shows anything.
    async fn assert_nothing_visible(&self, image: &Image) {
        for path in [image.tag_path(), image.digest_path()] {
            assert_eq!(self.far.manifest(&path).await.status, 504, "{path}");
        }
        for blob in image.layers.iter().chain([&image.config]) {
            assert_eq!(self.far.fetch(&image.blob_path(blob)).await.status, 504);
        }
        let images = self.far.admin().get("/api/v1/cache/images").send().await.json();
        assert_eq!(images["images"], json!([]));
        assert_eq!(self.far.fetch("/v2/_catalog").await.json(), json!({ "repositories": [] }));
        let content = self.far.data().join("content");
        let files = files_in(&content);
        assert!(files.is_empty(), "{files:?}");
    }
}

/// An index of two platforms that has a signature by referrer, one of a platform, and one by cosign's tag.
struct Multi {
    index: Content,
    amd64: Image,
    arm64: Image,
    signature: Content,
    of_platform: Content,
    by_tag: Image,
}

impl Multi {
    fn add(upstream: &Upstream) -> Self {
        let amd64 = upstream.make_image("library/app", "amd64", &[200_000, 70_000, 10]);
        let arm64 = upstream.make_image("library/app", "arm64", &[60_000]);
        let index = index_of(OCI_INDEX, &[&amd64, &arm64]);
        upstream.add_manifest("library/app", &index);
        upstream.tag_manifest("library/app", "1", &index);
        let signature = artifact_about(&index, "application/x.signature");
        let of_platform = artifact_about(&amd64.manifest, "application/x.sbom");
        for (artifact, subject) in [(&signature, &index), (&of_platform, &amd64.manifest)] {
            upstream.add_manifest("library/app", artifact);
            for text in ["{}".to_owned(), format!("about {}", subject.digest)] {
                upstream.add_blob("library/app", &Content::of("text/plain", text));
            }
        }
        let tag = format!("{}.sig", index.digest.replace(':', "-"));
        let by_tag = upstream.make_image("library/app", &tag, &[300]);
        Self { index, amd64, arm64, signature, of_platform, by_tag }
    }

    /// Looks for all of it on a node.
    async fn assert_served(&self, node: &Tidegate) {
        let path = |reference: &str| format!("/v2/library/app/manifests/{reference}");
        for reference in ["1", &self.index.digest] {
            assert_eq!(node.manifest(&path(reference)).await.body, self.index.bytes, "{reference}");
        }
        for image in [&self.amd64, &self.by_tag] {
            assert_eq!(node.manifest(&image.digest_path()).await.body, image.manifest.bytes);
            for blob in image.layers.iter().chain([&image.config]) {
                assert_eq!(node.fetch(&image.blob_path(blob)).await.body, blob.bytes);
            }
        }
        node.pull(&self.by_tag).await;
        for (subject, referrer, kind) in [
            (&self.index, &self.signature, "application/x.signature"),
            (&self.amd64.manifest, &self.of_platform, "application/x.sbom"),
        ] {
            let list = format!("/v2/library/app/referrers/{}", subject.digest);
            let filtered = format!("{list}?artifactType={kind}");
            for (list, expected) in
                [(list.clone(), 1), (filtered, 1), (format!("{list}?artifactType=application/x.other"), 0)]
            {
                let answer = node.fetch(&list).await;
                assert_eq!(answer.status, 200, "{list}: {answer:?}");
                let found = answer.json()["manifests"].as_array().unwrap().clone();
                assert_eq!(found.len(), expected, "{list}");
                assert!(found.iter().all(|found| found["digest"] == *referrer.digest));
            }
            assert_eq!(node.manifest(&path(&referrer.digest)).await.body, referrer.bytes);
            let note = Content::of("text/plain", format!("about {}", subject.digest));
            assert_eq!(node.fetch(&self.amd64.blob_path(&note)).await.body, note.bytes);
        }
    }
}

/// A bundle of one image, with its bytes.
async fn one_image(sites: &Sites) -> (Image, Vec<u8>) {
    let image = sites.upstream.make_image("library/app", "1", &[3000, 70_000]);
    sites.export_all("whole.tar", &["app:1"]).await;
    (image, std::fs::read(sites.path("whole.tar")).unwrap())
}

#[tokio::test]
async fn bundle_carries_images_with_all_that_belongs_to_them_to_a_node_that_is_offline() {
    let sites = Sites::start().await;
    let multi = Multi::add(&sites.upstream);
    let other = sites.upstream.make_image("team/other", "v1", &[5000, 0]);
    sites.export_all("all.tar", &["app:1", "hub.test/team/other:v1"]).await;
    assert!(!sites.path("all.tar.partial").exists());
    sites.assert_nothing_visible(&other).await;
    let imported = sites.import(&["all.tar"]).await;
    assert_done(&imported);
    let told = text(&imported.stdout);
    for name in ["hub.test/library/app:1", "hub.test/team/other:v1"] {
        assert!(told.contains(&format!("imported    {name} (sha256:")), "{told}");
    }
    multi.assert_served(&sites.far).await;
    assert_eq!(sites.far.manifest(&multi.arm64.digest_path()).await.body, multi.arm64.manifest.bytes);
    sites.far.pull(&other).await;
    let images = sites.far.admin().get("/api/v1/cache/images?incomplete").send().await.json();
    assert_eq!(images["images"], json!([]), "everything is complete");
    // Once more, it changes nothing.
    let again = sites.import(&["--output", "json", "all.tar"]).await;
    assert_done(&again);
    let told: Value = serde_json::from_slice(&again.stdout).unwrap();
    assert_eq!((&told["new_items"], &told["images"][0]["tag"]), (&json!(0), &json!("same")));
    multi.assert_served(&sites.far).await;
}

#[tokio::test]
async fn bundle_outlasts_a_kill_and_holds_the_platforms_that_were_asked_for() {
    let mut sites = Sites::start().await;
    let multi = Multi::add(&sites.upstream);
    sites.export_all("a.tar", &["app:1", "--platform", "linux/amd64"]).await;
    assert_done(&sites.import(&["a.tar"]).await);
    sites.far.kill().await;
    sites.far.start_again().await;
    multi.assert_served(&sites.far).await;
    assert_eq!(sites.far.manifest(&multi.arm64.digest_path()).await.status, 504, "it was not asked for");
}

#[tokio::test]
async fn export_comes_from_the_cache_while_upstream_is_away() {
    let sites = Sites::start().await;
    let image = sites.upstream.make_image("library/app", "1", &[100_000]);
    sites.near.pull(&image).await;
    let body = json!({ "offline": true }).to_string();
    let call = sites.near.admin().call(Method::PUT, "/api/v1/offline");
    assert_eq!(call.header("content-type", "application/json").body(body).send().await.status, 200);
    let exported = sites.export(&["--output", "a.tar", "app:1"]).await;
    assert_done(&exported);
    assert!(text(&exported.stderr).contains("signatures may be missing"), "{exported:?}");
    assert_done(&sites.import(&["a.tar"]).await);
    sites.far.pull(&image).await;
}

#[tokio::test]
async fn export_says_what_cannot_be_had_and_writes_nothing() {
    let sites = Sites::start().await;
    Multi::add(&sites.upstream);
    for (arguments, reason) in [
        (&["app:2"][..], "hub.test/library/app:2: its manifest: manifest 2 is unknown upstream"),
        (&["app:no*"], "no tag matches"),
        (&["no.such.test/app"], "registry no.such.test is not configured"),
        (&["app:1", "--platform", "linux/s390x"], "it is not made for linux/s390x"),
    ] {
        let refused = sites.export(&[&["--output", "a.tar"], arguments].concat()).await;
        assert_refused(&refused, reason);
        assert!(!sites.path("a.tar").exists() && !sites.path("a.tar.partial").exists());
    }
    std::fs::write(sites.path("mine.tar"), "mine").unwrap();
    assert_refused(&sites.export(&["--output", "mine.tar", "app:1"]).await, "exists already");
    assert_eq!(std::fs::read(sites.path("mine.tar")).unwrap(), b"mine");
}

#[tokio::test]
async fn export_survives_breaks_and_goes_on_after_it_was_interrupted() {
    let sites = Sites::start().await;
    let image = sites.upstream.make_image("library/app", "1", &[100_000, 200_000, 300_000]);
    // Broken for good: every try fails until it is mended.
    sites.upstream.rule(blob(&image.layers[1]), status(500));
    let arguments = ["--output", "a.tar", "app:1"];
    let broken = sites.export(&arguments).await;
    assert_refused(&broken, "run the same command again to go on");
    assert!(sites.path("a.tar.partial").exists() && !sites.path("a.tar").exists());
    let other = sites.export(&["--output", "a.tar", "app:1", "--no-referrers"]).await;
    assert_refused(&other, "is of another export");
    sites.upstream.heal();
    sites.upstream.forget_requests();
    let done = sites.export(&arguments).await;
    assert_done(&done);
    assert!(text(&done.stderr).contains("going on with a.tar.partial"), "{done:?}");
    assert_eq!(sites.upstream.count(&any(Kind::Manifest)), 0, "what was planned is not planned again");
    assert_done(&sites.import(&["a.tar"]).await);
    sites.far.pull(&image).await;
    let whole = std::fs::read(sites.path("a.tar")).unwrap();
    // However far it had come, and where its end was damaged, the same bundle comes of it.
    for cut in [1, 600, whole.len() / 2, whole.len() - 1] {
        let mut part = whole[..cut].to_vec();
        if cut > 600 {
            let last = part.len() - 2000;
            part[last] ^= 1;
        }
        std::fs::remove_file(sites.path("a.tar")).unwrap();
        std::fs::write(sites.path("a.tar.partial"), part).unwrap();
        assert_done(&sites.export(&arguments).await);
        let again = std::fs::read(sites.path("a.tar")).unwrap();
        assert!(cut <= 600 || again == whole, "cut at {cut}");
        assert_done(&sites.import(&["a.tar"]).await);
    }
    // A transfer that breaks once is begun again.
    let late = sites.upstream.make_image("library/late", "1", &[400_000]);
    sites.upstream.rule_times(3, blob(&late.layers[0]), serve().cut_at(100_000));
    sites.export_all("late.tar", &["late:1"]).await;
    assert_done(&sites.import(&["late.tar"]).await);
    sites.far.pull(&late).await;
}

#[tokio::test]
async fn export_has_several_blobs_fetched_at_once_in_its_order_and_each_once() {
    let sites = Sites::start().await;
    let image = sites.upstream.make_image("library/app", "1", &[90_000; 15]);
    let gate = Gate::closed();
    let blobs = any(Kind::Blob).get();
    sites.upstream.rule(blobs.clone(), serve().hold_body(&gate));
    let export = async { assert_done(&sites.export(&["--output", "a.tar", "app:1"]).await) };
    let look = async {
        // The one that is written, and eight that come after it.
        until("several at once", async || sites.upstream.count(&blobs) >= 9).await;
        let asked = sites.upstream.requests(&blobs).into_iter().map(|request| request.reference);
        let all = image.layers.iter().chain([&image.config]).map(|blob| blob.digest.clone());
        let first: BTreeSet<_> = all.collect::<BTreeSet<_>>().into_iter().take(9).collect();
        assert_eq!(asked.collect::<BTreeSet<_>>(), first, "those that the bundle begins with, and no more");
        gate.open();
    };
    tokio::join!(export, look);
    assert_eq!(sites.upstream.count(&blobs), 16, "each is fetched once, for whomever");
    // Eight that nobody waited for yet, the configuration perhaps among them.
    until("what was fetched ahead to be counted", async || {
        let metrics = sites.near.metrics().await;
        metrics.sum("tidegate_ahead_bytes_total", &[("why", "export")]) >= 7.0 * 90_000.0
    })
    .await;
    assert_done(&sites.import(&["a.tar"]).await);
    sites.far.pull(&image).await;
}

#[tokio::test]
async fn delta_holds_what_is_new_and_wants_its_base() {
    let sites = Sites::start().await;
    let base_layer = Content::blob(7, 400_000);
    let old = Image::of_layers("library/app", "1", vec![base_layer.clone(), Content::blob(8, 5000)]);
    let new = Image::of_layers("library/app", "2", vec![base_layer.clone(), Content::blob(9, 6000)]);
    sites.upstream.add_image(&old);
    sites.export_all("old.tar", &["app:1"]).await;
    sites.upstream.add_image(&new);
    sites.export_all("new.tar", &["app:1", "app:2", "--since", "old.tar"]).await;
    let size = |name: &str| std::fs::metadata(sites.path(name)).unwrap().len();
    assert!(size("old.tar") > 400_000 && size("new.tar") < 60_000, "{}", size("new.tar"));
    let refused = sites.import(&["new.tar"]).await;
    assert_refused(&refused, "the bundle goes on from old.tar (sha256:");
    assert!(text(&refused.stderr).contains("parts are not here, such as sha256:"), "{refused:?}");
    sites.assert_nothing_visible(&new).await;
    assert_done(&sites.import(&["old.tar"]).await);
    assert_done(&sites.import(&["new.tar"]).await);
    sites.far.pull(&old).await;
    sites.far.pull(&new).await;
    // A delta of a delta goes on from both; and what of the base went meanwhile is named.
    sites.export_all("none.tar", &["app:2", "--since", "new.tar"]).await;
    assert!(size("none.tar") < 20_000);
    assert_done(&sites.import(&["none.tar"]).await);
    std::fs::remove_file(sites.far.stored_path(&base_layer.digest)).unwrap();
    assert_refused(&sites.import(&["none.tar"]).await, &base_layer.digest);
}

#[tokio::test]
async fn import_never_takes_a_tag_back_unless_it_is_told_to() {
    let upstream = Upstream::start().await;
    let near = Tidegate::start(&upstream).await;
    let far = Setup::new().upstream(Section::hub(&upstream)).with_warnings().start().await;
    let road = tempfile::tempdir().unwrap();
    let old = upstream.make_image("library/app", "1", &[1000]);
    let export = ["export", "--output", "old.tar", "app:1"];
    assert_done(&run(road.path(), &near.admin_url(), &export).await);
    let new = Image::of_layers("library/app", "1", vec![Content::blob(9, 6000)]);
    upstream.add_image(&new);
    far.pull(&new).await;
    let import = ["import", "old.tar"];
    let kept = run(road.path(), &far.admin_url(), &import).await;
    assert_done(&kept);
    let told = text(&kept.stdout);
    assert!(
        told.contains(&format!("kept        hub.test/library/app:1 stays at {}", new.manifest.digest)),
        "{told}"
    );
    far.wait_for_log("older than what was seen here").await;
    far.pull(&new).await;
    assert_eq!(far.manifest(&old.digest_path()).await.body, old.manifest.bytes, "it is here all the same");
    let moved = run(road.path(), &far.admin_url(), &["import", "--replace-tags", "old.tar"]).await;
    assert_done(&moved);
    assert!(text(&moved.stdout).contains("moved       hub.test/library/app:1"), "{moved:?}");
    far.pull(&old).await;
    // What a bundle saw later moves without being told to.
    let third = Tidegate::start(&upstream).await;
    let export = ["export", "--output", "new.tar", "app:1"];
    assert_done(&run(road.path(), &third.admin_url(), &export).await);
    let moved = run(road.path(), &far.admin_url(), &["import", "--output", "json", "new.tar"]).await;
    let told: Value = serde_json::from_slice(&moved.stdout).unwrap();
    let expected = json!({
        "image": "hub.test/library/app:1", "digest": new.manifest.digest, "tag": "moved",
        "other": old.manifest.digest,
    });
    assert_eq!(told["images"], json!([expected]));
    far.pull(&new).await;
}

#[tokio::test]
async fn import_takes_no_tag_back_that_was_seen_later_by_another_accept_class() {
    let upstream = Upstream::start().await;
    let near = Tidegate::start(&upstream).await;
    let far = Setup::new().upstream(Section::hub(&upstream)).with_warnings().start().await;
    let road = tempfile::tempdir().unwrap();
    let old = upstream.make_image("library/app", "1", &[1000]);
    let export = ["export", "--output", "old.tar", "app:1"];
    assert_done(&run(road.path(), &near.admin_url(), &export).await);
    let new = Image::of_layers("library/app", "1", vec![Content::blob(9, 6000)]);
    upstream.add_image(&new);
    let pull = async || far.get(&new.tag_path()).accept(&[OCI_MANIFEST]).send().await;
    assert_eq!(pull().await.body, new.manifest.bytes);
    let import = async |more: &[&str]| {
        run(road.path(), &far.admin_url(), &[&["import", "old.tar"], more].concat()).await
    };
    let kept = import(&[]).await;
    assert!(text(&kept.stdout).contains("kept        hub.test/library/app:1 stays at"), "{kept:?}");
    assert_eq!(pull().await.body, new.manifest.bytes);
    let moved = import(&["--replace-tags"]).await;
    assert!(text(&moved.stdout).contains("moved       hub.test/library/app:1"), "{moved:?}");
    assert_eq!(pull().await.body, old.manifest.bytes);
}

#[tokio::test]
async fn bundle_carries_images_by_digest_and_by_globs() {
    let sites = Sites::start().await;
    let [one, two, other] =
        ["v1", "v2", "w"].map(|tag| sites.upstream.make_image("team/app", tag, &[2000, 3000]));
    let by_digest = format!("hub.test/team/app@{}", other.manifest.digest);
    sites.export_all("a.tar", &["hub.test/team/app:v*", &by_digest]).await;
    let imported = sites.import(&["a.tar"]).await;
    assert_done(&imported);
    assert_eq!(text(&imported.stdout).lines().count(), 4, "{imported:?}");
    sites.far.pull(&one).await;
    sites.far.pull(&two).await;
    assert_eq!(sites.far.manifest(&other.digest_path()).await.body, other.manifest.bytes);
    assert_eq!(sites.far.fetch(&other.layer_path(1)).await.body, other.layers[1].bytes);
    assert_eq!(sites.far.manifest(&other.tag_path()).await.status, 504, "the tag was not asked for");
}
