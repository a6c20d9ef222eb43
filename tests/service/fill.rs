//! The fill: one transfer from upstream, shared by all who ask (items 42-45).

use bytes::Bytes;

use crate::client::{Answer, Cut};
use crate::content::Image;
use crate::harness::{Section, Setup, Tidegate, eventually, until};
use crate::upstream::{Gate, Kind, Upstream, any, blob, serve, status};

const MIB: usize = 1 << 20;

struct Scene {
    upstream: Upstream,
    image: Image,
    tidegate: Tidegate,
    gate: Gate,
}

impl Scene {
    /// A layer of this size whose transfer waits at a gate; the manifest is known.
    async fn new(size: usize) -> Self {
        let upstream = Upstream::start().await;
        let image = upstream.make_image("library/app", "1", &[size]);
        let section = Section::hub(&upstream).timeouts("2s", "30s", "30s");
        let tidegate = Setup::new().upstream(section).with_warnings().start().await;
        tidegate.manifest(&image.tag_path()).await;
        let gate = Gate::closed();
        upstream.rule(blob(&image.layers[0]).whole(), serve().hold_body(&gate));
        Self { upstream, image, tidegate, gate }
    }

    fn path(&self) -> String {
        self.image.layer_path(0)
    }

    fn bytes(&self) -> &Bytes {
        &self.image.layers[0].bytes
    }

    fn transfers(&self) -> usize {
        self.upstream.count(&blob(&self.image.layers[0]))
    }
}

#[tokio::test]
async fn item_042_the_first_byte_follows_upstreams_first_byte() {
    let scene = Scene::new(8 * MIB).await;
    let mut open = scene.tidegate.get(&scene.path()).open().await;
    assert_eq!((open.status, open.header("content-length")), (200, Some("8388608")));
    scene.gate.release_to(MIB as u64);
    let first = open.read_at_least(1).await;
    assert!(scene.bytes().starts_with(&first));
    assert_eq!(scene.upstream.sent_bytes(&any(Kind::Blob)), MIB as u64, "upstream is still held");
    scene.gate.open();
    assert!(open.equals(&scene.bytes()[first.len()..]).await);
}

#[tokio::test]
async fn a_late_client_joins_the_running_transfer() {
    let scene = Scene::new(8 * MIB).await;
    let mut early = scene.tidegate.get(&scene.path()).open().await;
    scene.gate.release_to(4 * MIB as u64);
    let read = early.read_at_least(MIB).await;
    let mut late = scene.tidegate.get(&scene.path()).open().await;
    assert!(late.header("cache-status").unwrap().contains("collapsed"), "{:?}", late.headers);
    let begun = late.read_at_least(MIB).await;
    assert!(scene.bytes().starts_with(&begun), "what is there is served at once");
    scene.gate.open();
    assert!(late.equals(&scene.bytes()[begun.len()..]).await);
    assert!(early.equals(&scene.bytes()[read.len()..]).await);
    assert_eq!(scene.transfers(), 1);
}

#[tokio::test]
async fn item_043_a_leader_that_vanishes_takes_nobody_with_it() {
    let scene = Scene::new(8 * MIB).await;
    let leader = scene.tidegate.get(&scene.path()).open().await;
    let mut follower = scene.tidegate.get(&scene.path()).open().await;
    drop(leader);
    scene.gate.open();
    assert!(follower.equals(scene.bytes()).await);
    assert_eq!(scene.transfers(), 1);
}

#[tokio::test]
async fn a_transfer_is_finished_although_its_only_client_has_left() {
    let scene = Scene::new(4 * MIB).await;
    let mut leader = scene.tidegate.get(&scene.path()).open().await;
    scene.gate.release_to(2 * MIB as u64);
    leader.read_at_least(1000).await;
    drop(leader);
    scene.gate.open();
    until("the whole transfer", async || {
        scene.upstream.sent_bytes(&any(Kind::Blob)) == scene.bytes().len() as u64
    })
    .await;
    assert!(scene.tidegate.fetch(&scene.path()).await.body == *scene.bytes());
    assert_eq!(scene.transfers(), 1);
}

#[tokio::test]
async fn item_043_a_slow_client_slows_nobody() {
    let scene = Scene::new(32 * MIB).await;
    let mut slow = scene.tidegate.get(&scene.path()).open().await;
    scene.gate.open();
    let read = slow.read_at_least(1).await;
    let mut fast = scene.tidegate.get(&scene.path()).open().await;
    assert!(fast.equals(scene.bytes()).await, "while the slow one takes nothing");
    let mut fast = scene.tidegate.client().http2().get(&scene.path()).open().await;
    assert!(fast.equals(scene.bytes()).await);
    assert!(slow.equals(&scene.bytes()[read.len()..]).await);
    assert_eq!(scene.transfers(), 1);
}

#[tokio::test]
async fn item_044_a_broken_transfer_is_resumed_by_range() {
    let scene = Scene::new(8 * MIB).await;
    scene.upstream.heal();
    let layer = &scene.image.layers[0];
    scene.upstream.once(blob(layer), serve().cut_at(3_000_001));
    scene.upstream.once(blob(layer), serve().cut_at(5_000_002));
    let mut open = scene.tidegate.get(&scene.path()).open().await;
    assert!(open.equals(scene.bytes()).await);
    let transfers = scene.upstream.requests(&blob(layer));
    assert_eq!(transfers.len(), 3);
    for (transfer, from) in transfers[1..].iter().zip([3_000_001_u64, 5_000_002]) {
        let range = transfer.header("range").unwrap();
        let first: u64 = range.trim_start_matches("bytes=").split('-').next().unwrap().parse().unwrap();
        assert!(first <= from && first + MIB as u64 > from, "{range}, cut at {from}");
    }
}

#[tokio::test]
async fn a_transfer_is_resumed_although_upstream_ignores_the_range() {
    let scene = Scene::new(4 * MIB).await;
    scene.upstream.heal();
    let layer = &scene.image.layers[0];
    scene.upstream.once(blob(layer), serve().cut_at(3_000_000));
    scene.upstream.rule(blob(layer), serve().ignoring_range());
    let mut open = scene.tidegate.get(&scene.path()).open().await;
    assert!(open.equals(scene.bytes()).await);
}

#[tokio::test]
async fn a_transfer_that_goes_silent_is_resumed() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[2 * MIB]);
    let section = Section::hub(&upstream).timeouts("2s", "2s", "200ms");
    let tidegate = Setup::new().upstream(section).with_warnings().start().await;
    upstream.once(blob(&image.layers[0]), serve().stall_at(1_000_000));
    let mut open = tidegate.get(&image.layer_path(0)).open().await;
    assert!(open.equals(&image.layers[0].bytes).await);
}

#[tokio::test]
async fn a_broken_transfer_goes_on_at_the_next_endpoint() {
    let first = Upstream::start().await;
    let second = Upstream::start().await;
    let image = first.make_image("library/app", "1", &[8 * MIB]);
    second.add_image(&image);
    let layer = &image.layers[0];
    let section = Section::hub(&first).endpoint(&second);
    let tidegate = Setup::new().upstream(section).with_warnings().start().await;
    first.once(blob(layer), serve().cut_at(3_000_000));
    first.rule(blob(layer), status(503));
    let mut open = tidegate.get(&image.layer_path(0)).open().await;
    assert!(open.equals(&layer.bytes).await);
    let resumed = second.requests(&blob(layer));
    assert!(resumed[0].header("range").is_some(), "{:?}", resumed[0]);
    assert!(second.sent_bytes(&blob(layer)) < 6 * MIB as u64);
}

#[tokio::test]
async fn item_044_a_transfer_that_cannot_go_on_is_cut_and_never_ended_cleanly() {
    for http2 in [false, true] {
        let scene = Scene::new(4 * MIB).await;
        scene.upstream.heal();
        let layer = &scene.image.layers[0];
        scene.upstream.once(blob(layer), serve().cut_at(3_000_000));
        scene.upstream.rule(blob(layer), status(500));
        let client = if http2 { scene.tidegate.client().http2() } else { scene.tidegate.client() };
        let cut = client.get(&scene.path()).try_send().await.unwrap_err();
        assert!(scene.bytes().starts_with(&cut.received), "nothing but right bytes");
        assert!(cut.received.len() <= 3_000_000);
        scene.upstream.heal();
        recovers(&scene).await;
    }
}

/// Waits until the blob comes whole and right: a breaker may take a moment to close.
async fn recovers(scene: &Scene) {
    eventually("a right answer after healing", async || {
        let answer = scene.tidegate.get(&scene.path()).try_send().await.ok()?;
        (answer.status == 200 && answer.body == *scene.bytes()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn item_045_a_wrong_digest_is_never_completed_nor_kept() {
    for flipped in [0, 2 * MIB as u64, 4 * MIB as u64 - 1] {
        for http2 in [false, true] {
            let scene = Scene::new(4 * MIB).await;
            scene.upstream.heal();
            scene.upstream.rule(blob(&scene.image.layers[0]), serve().flip_at(flipped));
            let client = if http2 { scene.tidegate.client().http2() } else { scene.tidegate.client() };
            let outcome = client.get(&scene.path()).try_send().await;
            assert!(
                !is_complete(&outcome, scene.bytes().len()),
                "flipped {flipped}: a complete wrong answer"
            );
            let metrics = scene.tidegate.metrics().await;
            assert!(metrics.sum("tidegate_integrity_failures_total", &[]) >= 1.0);
            scene.upstream.heal();
            recovers(&scene).await;
        }
    }
}

/// Whether a client holds as many bytes as the whole has.
fn is_complete(outcome: &Result<Answer, Cut>, size: usize) -> bool {
    match outcome {
        Ok(answer) => answer.status == 200 || answer.body.len() >= size,
        Err(cut) => cut.received.len() >= size,
    }
}

#[tokio::test]
async fn no_client_of_a_wrong_transfer_ever_holds_all_of_it() {
    let scene = Scene::new(8 * MIB).await;
    scene.upstream.heal();
    let last = scene.bytes().len() as u64 - 1;
    scene.upstream.rule(blob(&scene.image.layers[0]), serve().flip_at(last).hold_body(&scene.gate));
    let mut clients = Vec::new();
    for number in 0..20 {
        let client = scene.tidegate.client();
        let client = if number % 2 == 0 { client } else { client.http2() };
        clients.push((0, tokio::spawn(client.get(&scene.path()).try_send())));
    }
    for (range, first) in [("bytes=0-", 0), ("bytes=-1", 8_388_607), ("bytes=4194304-", 4_194_304)] {
        let call = scene.tidegate.get(&scene.path()).range(range);
        clients.push((first, tokio::spawn(call.try_send())));
    }
    scene.gate.wait_for_arrivals(1).await;
    scene.gate.open();
    for (first, client) in clients {
        match client.await.unwrap() {
            Ok(answer) => assert!(answer.status >= 500, "a complete answer from {first}: {}", answer.status),
            Err(cut) => assert!(first + cut.received.len() < scene.bytes().len(), "all from {first}"),
        }
    }
}

#[tokio::test]
async fn a_body_that_is_longer_or_shorter_than_the_manifest_says_is_never_taken_for_the_blob() {
    for size in [MIB - 1, MIB + 1, 0] {
        let scene = Scene::new(MIB).await;
        scene.upstream.heal();
        let mut other = scene.bytes().to_vec();
        other.resize(size, 0);
        for then in [serve().body(other.clone()), serve().body(other).chunked()] {
            scene.upstream.rule(blob(&scene.image.layers[0]), then);
            match scene.tidegate.get(&scene.path()).try_send().await {
                Ok(answer) if answer.status == 200 => assert!(answer.body == *scene.bytes(), "{size}"),
                Ok(answer) => assert!(answer.status >= 500, "{size}: {}", answer.status),
                Err(cut) => assert!(cut.received.len() < MIB, "{size}"),
            }
            scene.upstream.heal();
        }
        recovers(&scene).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_clients_at_once_are_one_transfer_in_little_memory() {
    let size = if std::env::var_os("TIDEGATE_TEST_FULL_SIZE").is_some() { 256 * MIB } else { 64 * MIB };
    let scene = Scene::new(size).await;
    let before = scene.tidegate.memory_bytes();
    let clients: Vec<_> = (0..200)
        .map(|_| {
            let (call, expected) = (scene.tidegate.get(&scene.path()), scene.bytes().clone());
            tokio::spawn(async move { call.open().await.equals(&expected).await })
        })
        .collect();
    scene.gate.wait_for_arrivals(1).await;
    scene.gate.open();
    let mut most = before;
    let mut right = 0;
    for client in clients {
        while !client.is_finished() {
            most = most.max(scene.tidegate.memory_bytes());
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        right += usize::from(client.await.unwrap());
    }
    assert_eq!(right, 200);
    assert_eq!(scene.transfers(), 1);
    assert!(most - before < 100 * MIB as u64, "memory grew by {} MiB", (most - before) / MIB as u64);
}
