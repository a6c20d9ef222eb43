//! A soak: many clients pull at random while everything fails at random, and every byte that one of them accepts is held
//! against the truth. The same seed makes the same plan.
//!
//! ```sh
//! tests/run soak                                                          # a minute
//! TIDEGATE_SOAK_SECONDS=7200 TIDEGATE_SOAK_SEED=7 tests/run soak -- --nocapture
//! ```
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "tasks of a test end with its runtime")]
#![expect(
    dead_code,
    unused_imports,
    reason = "the scenery of the service's tests, of which this uses a part"
)]

#[path = "../service/client.rs"]
mod client;
#[path = "../service/content.rs"]
mod content;
#[path = "../service/harness/mod.rs"]
mod harness;
#[path = "../service/disk_faults/shim.rs"]
mod shim;
#[path = "../service/upstream/mod.rs"]
mod upstream;

mod chronicle;
mod door;
mod node;
mod skopeo;
mod trouble;
mod visitor;
mod weather;
mod world;

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use tokio::task::JoinSet;
use tokio::time::Instant;

use chronicle::Chronicle;
use door::Door;
use node::Node;
use visitor::{Tally, Visitor};
use weather::Weather;
use world::World;

/// How many clients come at once.
const CLIENTS: usize = 8;

/// How soon all has to be well once nothing fails any more.
const RECOVERY: Duration = Duration::from_mins(1);

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// Another one each day, so that time finds more; a failure prints it.
fn seed_of_the_day() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    since.as_secs() / (24 * 60 * 60)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_fails_at_once_nothing_wrong_is_served_and_all_is_well_afterwards() {
    let seed = setting("TIDEGATE_SOAK_SEED", seed_of_the_day());
    let length = Duration::from_secs(setting("TIDEGATE_SOAK_SECONDS", 60));
    let chronicle = Chronicle::new(seed);
    let mut rng = Rng::with_seed(seed);
    let world = Arc::new(World::new(&mut rng).await);
    let mut node = Node::start(&world, chronicle.clone()).await;
    let footprint = node.settle(&world).await;
    let tally = Arc::new(Tally::default());
    let mut visitors = JoinSet::new();
    let end = Instant::now() + length;
    for number in 0..CLIENTS {
        let visitor = Visitor::new(number, rng.fork(), &world, node.door(), &chronicle, &tally);
        visitors.spawn(visitor.run(end));
    }
    let visitor = Visitor::new(CLIENTS, rng.fork(), &world, node.door(), &chronicle, &tally);
    visitors.spawn(visitor.run_skopeo(end));
    let mut weather = Weather::new(rng.fork(), &world, &chronicle, end);
    // The first visitor who sees something wrong ends it all.
    let failure = weather.rage(&mut node, &mut visitors).await;
    weather.clear(&mut node).await;
    while let Some(visited) = visitors.join_next().await {
        visited.unwrap();
    }
    failure.unwrap();
    let recovery = node.recover(&world, RECOVERY).await;
    node.has_shrunk_to(&footprint).await;
    node.is_whole_after_a_restart(&world).await;
    tally.report(seed, length, recovery);
}
