//! Threads that the system gives no more of.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use crate::disk_faults::shim::Shim;
use crate::harness::{Section, Setup, Tidegate, until};
use crate::upstream::Upstream;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// How many clients come at once.
const CROWD: usize = 60;

fn count_threads(tidegate: &Tidegate) -> usize {
    let id = tidegate.process_id().as_raw_nonzero();
    std::fs::read_dir(format!("/proc/{id}/task")).unwrap().count()
}

#[tokio::test]
async fn a_process_that_gets_no_more_threads_serves_a_crowd_all_the_same() {
    let shim = Shim::new();
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[16 * MIB, 3 * MIB, 200 * KIB, KIB]);
    let tidegate = shim.under(Setup::new().upstream(Section::hub(&upstream)).with_warnings()).start().await;
    shim.fail(&["thread / 11 0"]);
    // Those that were needed for the start end when they were idle for 10 s.
    let started = Instant::now();
    until("idle threads to end", async || started.elapsed() > Duration::from_secs(11)).await;
    let before = count_threads(&tidegate);
    for _ in 0..2 {
        join_all((0..CROWD).map(|_| tidegate.pull(&image))).await;
    }
    assert!(count_threads(&tidegate) <= before);
    shim.heal();
    join_all((0..CROWD).map(|_| tidegate.pull(&image))).await;
}
