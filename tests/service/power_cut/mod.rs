//! The power goes in the middle of everything: what is seen afterwards is whole, and what was kept is still there.

mod disk;

use futures_util::future::join_all;

use crate::cache;
use crate::content::{Content, Image};
use crate::harness::{Section, Setup, Tidegate, until};
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
