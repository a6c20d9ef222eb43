//! The power goes in the middle of everything: what is seen afterwards is whole, and what was kept is still there.

mod disk;
mod hosted;
mod postgres;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::join_all;

use crate::bundles::{assert_done, run};
use crate::cache;
use crate::content::{Content, Image};
use crate::harness::{Section, Setup, Tidegate, files_in, until};
use crate::upstream::{Kind, Upstream, any, everything};
use crate::warm;
use disk::PowerDisk;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// How often the power goes.
const ROUNDS: u32 = 6;

/// Tells how a failure is repeated.
struct Seed(u64);

impl Seed {
    /// Another one each time, or that of `TIDEGATE_POWER_CUT_SEED`.
    fn new() -> Self {
        let given = std::env::var("TIDEGATE_POWER_CUT_SEED").ok();
        Self(given.map_or_else(|| fastrand::u64(..), |seed| seed.parse().expect("a number")))
    }
}

impl Drop for Seed {
    #[expect(clippy::print_stderr, reason = "whoever looks into a failure needs it")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("to repeat this: TIDEGATE_POWER_CUT_SEED={}", self.0);
        }
    }
}

/// Four images of this round: two for clients, two to be warmed.
fn make_images(upstream: &Upstream, round: u32) -> Vec<Image> {
    let sizes = [3 * MIB, 300 * KIB, 40 * KIB, KIB];
    let image = |name: &str| upstream.make_image(&format!("library/{name}"), &round.to_string(), &sizes);
    ["client-a", "client-b", "warm-a", "warm-b"].map(image).into()
}

fn size_of(images: &[Image]) -> u64 {
    images.iter().flat_map(|image| image.layers.iter().chain([&image.config])).map(Content::size).sum()
}

/// Cuts the power when upstream has sent so many bytes of these images, which are pulled and warmed meanwhile.
async fn lose_power(
    tidegate: &Tidegate,
    upstream: &Upstream,
    disk: &PowerDisk,
    images: &[Image],
    wanted: u64,
) {
    let (pulled, warmed) = images.split_at(2);
    let names: Vec<_> = warmed.iter().map(|image| format!("{}:{}", image.repository, image.tag)).collect();
    warm::order(tidegate, &serde_json::json!({ "images": names })).await;
    let pulls = join_all(pulled.iter().map(|image| tidegate.pull(image)));
    // Without its disk it serves on: a client gets what it asked for, whenever that was.
    tokio::join!(pulls, async {
        until("the bytes to leave upstream", async || upstream.sent_bytes(&any(Kind::Blob)) >= wanted).await;
        disk.cut_power();
    });
}

#[tokio::test]
async fn after_a_power_cut_all_that_is_visible_is_whole_and_what_was_kept_is_there() {
    let Some(disk) = PowerDisk::mount(256 * MIB as u64) else { return };
    let seed = Seed::new();
    let mut places = fastrand::Rng::with_seed(seed.0);
    let upstream = Upstream::start().await;
    let setup = Setup::new().upstream(Section::hub(&upstream)).data(&disk.path().join("data"));
    let setup = setup.with_warnings().with_log("disk cannot keep content").with_log("index failed");
    let mut tidegate = setup.start().await;
    let mut kept = Vec::new();
    for round in 0..ROUNDS {
        let settled = upstream.make_image("library/kept", &round.to_string(), &[MIB, 50 * KIB, 10]);
        cache::pull(&tidegate, &settled).await;
        kept.push(settled);
        let images = make_images(&upstream, round);
        upstream.forget_requests();
        // The last of these are cut while all is there already, and is being committed.
        let all = size_of(&images);
        let wanted = places.u64(1..=all + all / 4).min(all);
        lose_power(&tidegate, &upstream, &disk, &images, wanted).await;
        tidegate.kill().await;
        disk.boot().await;
        tidegate.verify_store();
        tidegate.start_again().await;
        upstream.forget_requests();
        for image in &kept {
            tidegate.pull(image).await;
        }
        let asked = upstream.requests(&everything().of("library/kept"));
        assert!(asked.is_empty(), "round {round}: it was kept, but {asked:?}");
        for image in &images {
            tidegate.pull(image).await;
        }
        tidegate.verify_store();
        assert!(tidegate.log_lines("index is damaged").is_empty(), "round {round}");
    }
}

/// Imports a bundle, and cuts the power when so many of its bytes are on the way, or so many of its files in place.
/// Whether the import said before that it is done. (What is said later, nobody would have heard; and an fsync that
/// comes just after finds a journal that has nothing left to wait for, and says that all is well.)
async fn lose_power_in_an_import(
    tidegate: &Tidegate,
    disk: &PowerDisk,
    road: &Path,
    wanted_bytes: u64,
    wanted_files: usize,
) -> bool {
    let content = tidegate.data().join("content");
    let before = files_in(&content).len();
    let server = tidegate.admin_url();
    let is_done = AtomicBool::new(false);
    let import = async {
        let output = run(road, &server, &["import", "whole.tar"]).await;
        is_done.store(output.status.success(), Ordering::SeqCst);
    };
    let ((), was_done) = tokio::join!(import, async {
        until("the import to come so far", async || {
            let incoming = files_in(&tidegate.data().join("incoming"));
            let came: u64 = incoming.iter().filter_map(|path| Some(path.metadata().ok()?.len())).sum();
            let placed = files_in(&content).len() - before;
            // What is in place has left the other directory.
            placed >= wanted_files.max(1) || (wanted_files == 0 && came >= wanted_bytes)
        })
        .await;
        let was_done = is_done.load(Ordering::SeqCst);
        disk.cut_power();
        was_done
    });
    was_done
}

#[tokio::test]
async fn after_a_power_cut_an_import_is_visible_as_a_whole_or_not_at_all() {
    let Some(disk) = PowerDisk::mount(256 * MIB as u64) else { return };
    let seed = Seed::new();
    let mut places = fastrand::Rng::with_seed(seed.0);
    let upstream = Upstream::start().await;
    let near = Tidegate::start(&upstream).await;
    let road = tempfile::tempdir().unwrap();
    let section = Section::of_url("hub.test", "https://hub.invalid").default_upstream();
    let setup = Setup::new().upstream(section.raw_value("library_prefix", "true")).site("offline = true");
    let setup = setup.data(&disk.path().join("data")).with_warnings();
    let setup = setup.with_log("disk cannot keep content").with_log("index failed");
    let mut far = setup.start().await;
    let mut kept = Vec::new();
    for round in 0..ROUNDS {
        let name = format!("app:{round}");
        let image = upstream.make_image("library/app", &round.to_string(), &[3 * MIB, 300 * KIB, 40 * KIB]);
        assert_done(&run(road.path(), &near.admin_url(), &["export", "--output", "whole.tar", &name]).await);
        // Half of them while it comes, half while it becomes visible: three layers, configuration, manifest.
        let wanted_files = if round % 2 == 0 { 0 } else { places.usize(1..=5) };
        let wanted_bytes = places.u64(1..3 * MIB as u64);
        let is_done = lose_power_in_an_import(&far, &disk, road.path(), wanted_bytes, wanted_files).await;
        far.kill().await;
        disk.boot().await;
        far.verify_store();
        far.start_again().await;
        let answer = far.manifest(&image.tag_path()).await;
        let is_visible = answer.status == 200;
        if is_done && !is_visible {
            let files = files_in(&far.data());
            let again = far.manifest(&image.tag_path()).await;
            panic!("round {round}: it said that it was done; {answer:?}, {again:?}, {files:?}");
        }
        if is_visible {
            far.pull(&image).await;
        }
        assert_done(&run(road.path(), &far.admin_url(), &["import", "whole.tar"]).await);
        kept.push(image);
        for image in &kept {
            far.pull(image).await;
        }
        far.verify_store();
        std::fs::remove_file(road.path().join("whole.tar")).unwrap();
    }
}
