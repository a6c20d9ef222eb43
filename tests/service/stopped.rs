//! Processes that are stopped and go on later, as by a debugger, a frozen container or a machine that was asleep: an
//! upstream that takes connections and says nothing, and this server itself.

use std::time::Duration;

use rustix::process::Signal;
use tokio::time::Instant;

use crate::harness::{Section, Setup, Tidegate, until};
use crate::upstream::{Gate, Upstream, blob, serve};

const MIB: usize = 1 << 20;

/// A server behind another one, which is the upstream that is stopped.
struct Chain {
    upstream: Upstream,
    middle: Tidegate,
    tidegate: Tidegate,
}

impl Chain {
    async fn new(section: impl FnOnce(Section) -> Section) -> Self {
        let upstream = Upstream::start().await;
        let middle = Setup::new().upstream(Section::hub(&upstream)).with_warnings().start().await;
        let near = Section::of_url("near.test", &format!("http://{}", middle.address())).default_upstream();
        let tidegate = Setup::new().upstream(section(near)).with_warnings().start().await;
        Self { upstream, middle, tidegate }
    }
}

#[tokio::test]
async fn while_upstream_is_stopped_the_cache_serves_and_misses_fail_soon() {
    let chain = Chain::new(|section| section.clocks("0s", "0s", "30d").without("miss_timeout")).await;
    let image = chain.upstream.make_image("library/app", "1", &[50_000]);
    let missing = chain.upstream.make_image("library/missing", "1", &[60_000]);
    chain.tidegate.pull(&image).await;
    chain.middle.signal(Signal::STOP);
    let ask = async || {
        let started = Instant::now();
        let answer = chain.tidegate.manifest(&image.tag_path()).await;
        assert_eq!((answer.status, &answer.body), (200, &image.manifest.bytes));
        assert_eq!(answer.cache_status(), "tidegate; hit; detail=stale");
        started.elapsed()
    };
    let first = ask().await;
    assert!(first < Duration::from_secs(2), "{first:?}");
    for _ in 0..5 {
        let next = ask().await;
        assert!(next < Duration::from_millis(400), "{next:?}");
    }
    let started = Instant::now();
    chain.tidegate.manifest(&missing.tag_path()).await.assert_error(504, "UNAVAILABLE");
    chain.tidegate.fetch(&missing.layer_path(0)).await.assert_error(504, "UNAVAILABLE");
    assert!(started.elapsed() < Duration::from_secs(9), "{:?}", started.elapsed());
    chain.middle.signal(Signal::CONT);
    let continued = Instant::now();
    until("an answer that is not stale", async || {
        chain.tidegate.manifest(&image.tag_path()).await.header("warning").is_none()
    })
    .await;
    until("what was missing", async || chain.tidegate.manifest(&missing.tag_path()).await.status == 200)
        .await;
    chain.tidegate.pull(&missing).await;
    report("upstream stopped (SIGSTOP)", continued.elapsed());
}

#[tokio::test]
async fn a_transfer_outlasts_an_upstream_that_is_stopped_for_a_while_and_ends_with_one_that_stays_so() {
    let chain = Chain::new(|section| section.timeouts("1s", "1s", "1s")).await;
    let begin = async |tag: &str| {
        let gate = Gate::closed();
        let image = chain.upstream.make_image("library/app", tag, &[4 * MIB]);
        chain.upstream.heal();
        chain.upstream.rule(blob(&image.layers[0]), serve().hold_body(&gate));
        let mut open = chain.tidegate.get(&image.layer_path(0)).open().await;
        gate.release_to(2 * MIB as u64);
        let read = open.read_at_least(MIB).await;
        chain.middle.signal(Signal::STOP);
        (image, open, read.len(), gate)
    };
    let (image, mut open, read, gate) = begin("short").await;
    gate.open();
    // Longer than the silence that ends an attempt.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    chain.middle.signal(Signal::CONT);
    assert!(open.equals(&image.layers[0].bytes[read..]).await, "nothing is missing");

    let (image, open, _, gate) = begin("long").await;
    assert!(open.try_finish().await.is_err(), "it was cut, not ended");
    gate.open();
    chain.middle.signal(Signal::CONT);
    let continued = Instant::now();
    until("the blob", async || {
        let answer = chain.tidegate.get(&image.layer_path(0)).try_send().await;
        answer.is_ok_and(|answer| answer.status == 200 && answer.body == image.layers[0].bytes)
    })
    .await;
    report("upstream stopped in a transfer", continued.elapsed());
}

#[tokio::test]
async fn a_server_that_is_stopped_in_the_middle_of_a_fill_goes_on_where_it_was() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[8 * MIB]);
    let cold = upstream.make_image("library/cold", "1", &[MIB]);
    let section = Section::hub(&upstream).timeouts("1s", "1s", "1s");
    // A write that was stopped, too, took too long.
    let setup = Setup::new().upstream(section).with_warnings().with_log("disk cannot keep content");
    let tidegate = setup.start().await;
    let gate = Gate::closed();
    upstream.rule(blob(&image.layers[0]), serve().hold_body(&gate));
    let mut open = tidegate.get(&image.layer_path(0)).open().await;
    gate.release_to(2 * MIB as u64);
    let read = open.read_at_least(MIB).await;
    tidegate.signal(Signal::STOP);
    gate.open();
    // Every time-out is over when it goes on.
    let path = cold.tag_path();
    let (pulled, ()) = tokio::join!(tidegate.manifest(&path), async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        tidegate.signal(Signal::CONT);
    });
    let continued = Instant::now();
    assert_eq!((pulled.status, &pulled.body), (200, &cold.manifest.bytes), "who came meanwhile is answered");
    assert!(open.equals(&image.layers[0].bytes[read.len()..]).await, "nothing is missing");
    tidegate.pull(&cold).await;
    report("this process stopped in a fill", continued.elapsed());
}

/// The row of the table in `src/ARCHITECTURE.md`.
#[expect(clippy::print_stderr, reason = "the table for people")]
fn report(fault: &str, recovery: Duration) {
    eprintln!("| {fault} | {:.1} s |", recovery.as_secs_f64());
}
