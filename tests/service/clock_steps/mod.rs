//! The clock is set while the server runs, far and to and fro: nothing stays fresh for ever, and nothing stops.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use crate::disk_faults::processor_time;
use crate::harness::{Section, Setup, Tidegate, compile, until};
use crate::upstream::{Access, Bearer, Gate, Kind, Upstream, any, blob, everything, manifest, serve};

const MIB: usize = 1 << 20;

const HOUR: i64 = 3600;
const YEAR: i64 = 365 * 24 * HOUR;

/// By how much the clock is off, one after the other.
const STEPS: [i64; 8] = [2 * HOUR, -2 * HOUR, YEAR, 0, -YEAR, 30 * YEAR, -30 * YEAR, 0];

/// A server with a clock of its own.
struct Scene {
    upstream: Upstream,
    tidegate: Tidegate,
    directory: tempfile::TempDir,
}

impl Scene {
    async fn new(section: impl FnOnce(Section) -> Section) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let upstream = Upstream::start().await;
        upstream.require(Access::Bearer(Bearer::of_realm(&upstream.realm())));
        let setup = Setup::new().upstream(section(Section::hub(&upstream))).max_size("16MiB");
        let setup = setup.variable("LD_PRELOAD", library());
        let setup = setup.variable("CLOCK_STEP", &directory.path().join("step"));
        let tidegate = setup.with_warnings().start().await;
        Self { upstream, tidegate, directory }
    }

    /// Sets the clock, so that it is off by so much.
    fn set_clock(&self, seconds: i64) {
        let new = self.directory.path().join("new");
        std::fs::write(&new, seconds.to_string()).unwrap();
        std::fs::rename(new, self.directory.path().join("step")).unwrap();
    }
}

/// The library, compiled once.
pub(crate) fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| compile("clock_steps/shim.c", "clock-steps.so", &["-shared", "-fPIC"]))
}

#[tokio::test]
async fn after_every_step_a_tag_is_asked_about_once_and_then_fresh_again() {
    let scene = Scene::new(|section| section.clocks("1h", "0s", "30d")).await;
    let mut image = scene.upstream.make_image("library/app", "1", &[1000]);
    scene.tidegate.pull(&image).await;
    for (number, seconds) in STEPS.into_iter().enumerate() {
        scene.set_clock(seconds);
        let layer_size = 2000 + number;
        image = scene.upstream.make_image("library/app", "1", &[layer_size]);
        let moved = scene.tidegate.manifest(&image.tag_path()).await;
        assert_eq!((moved.status, &moved.body), (200, &image.manifest.bytes), "off by {seconds} s");
        assert_eq!(moved.header("warning"), None, "off by {seconds} s");
        scene.tidegate.pull(&image).await;
        scene.upstream.forget_requests();
        scene.tidegate.pull(&image).await;
        let asked = scene.upstream.count(&manifest("1"));
        assert_eq!(asked, 0, "off by {seconds} s: it is fresh for an hour");
    }
}

#[tokio::test]
async fn tokens_are_renewed_after_every_step() {
    let scene = Scene::new(|section| section).await;
    for (number, seconds) in STEPS.into_iter().enumerate() {
        scene.set_clock(seconds);
        // Whatever the node thinks of their age, upstream takes no old one any more.
        scene.upstream.expire_tokens();
        let image = scene.upstream.make_image("library/app", &number.to_string(), &[MIB, 10]);
        scene.upstream.forget_requests();
        scene.tidegate.pull(&image).await;
        assert!(scene.upstream.count(&any(Kind::Token)) >= 1, "off by {seconds} s");
        assert!(scene.upstream.count(&everything()) < 12, "off by {seconds} s: no storm");
    }
}

#[tokio::test]
async fn transfers_eviction_and_health_go_on_over_steps_and_nothing_spins() {
    let scene = Scene::new(|section| section).await;
    for (number, seconds) in STEPS.into_iter().enumerate() {
        let image = scene.upstream.make_image("library/app", &number.to_string(), &[5 * MIB]);
        let gate = Gate::closed();
        scene.upstream.rule(blob(&image.layers[0]), serve().hold_body(&gate));
        let mut open = scene.tidegate.get(&image.layer_path(0)).open().await;
        gate.release_to(2 * MIB as u64);
        let read = open.read_at_least(MIB).await;
        scene.set_clock(seconds);
        gate.open();
        assert!(open.equals(&image.layers[0].bytes[read.len()..]).await, "off by {seconds} s");
        scene.upstream.heal();
        assert_eq!(scene.tidegate.admin().get("/health/ready").send().await.status, 200);
    }
    until("the cache within its budget", async || {
        let metrics = scene.tidegate.metrics().await;
        metrics.sum("tidegate_cache_bytes", &[]) <= 16_777_216.0
            && metrics.sum("tidegate_cache_evictions_total", &[]) >= 5.0
    })
    .await;
    scene.set_clock(-YEAR);
    let spent = processor_time(scene.tidegate.process_id());
    tokio::time::sleep(Duration::from_secs(1)).await;
    let spent = processor_time(scene.tidegate.process_id()).saturating_sub(spent);
    assert!(spent < Duration::from_millis(300), "it spins: {spent:?} of processor time in a second");
}
