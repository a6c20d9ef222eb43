//! What the node does on its own: every worker and how often it runs.

use std::sync::Arc;
use std::time::Duration;

use crate::registry::{CacheParts, Evictor, Rebuild, Registry, UpkeepError, UseLog};
use crate::runtime::{Clock, Tasks, Timestamp};
use crate::upstream::Link;
use crate::worker::{FirstRun, Worker};

/// How often the budget is looked after when nothing nudges.
const EVICTION_PERIOD: Duration = Duration::from_mins(1);

/// How often the disk is looked after.
const DISK_PERIOD: Duration = Duration::from_secs(2);

/// How often uses are written to the index.
const USE_FLUSH_PERIOD: Duration = Duration::from_secs(5);

/// How often old listings are looked for.
const LISTING_PERIOD: Duration = Duration::from_hours(1);

/// How long a listing that upstream did not renew can still serve: 30 days, in milliseconds.
const LISTING_LIFE_MS: u64 = 30 * 24 * 3600 * 1000;

/// How often it is looked whether something is due to be warmed.
const WARM_PERIOD: Duration = Duration::from_secs(30);

/// How often images are counted when nothing is known to have changed.
const SURVEY_PERIOD: Duration = Duration::from_mins(10);

/// How often it is looked whether content is due to be verified.
const SCRUB_PERIOD: Duration = Duration::from_mins(1);

/// How often the index is looked through when nothing tells of damage.
const INDEX_PERIOD: Duration = Duration::from_hours(24);

/// How many old listings are removed at once.
const LISTING_BATCH: u32 = 10_000;

/// Starts what keeps the cache in order.
pub(super) fn spawn_upkeep(
    tasks: &Tasks,
    registry: &Registry,
    parts: &CacheParts,
    evictor: &Arc<Evictor>,
    uses: &Arc<UseLog>,
) {
    spawn_workers(tasks, parts, evictor, uses);
    spawn_listing_worker(tasks, registry, parts.clone());
    spawn_survey_worker(tasks, registry, parts.clock.clone());
    spawn_disk_worker(tasks, registry, parts);
}

fn spawn_workers(tasks: &Tasks, parts: &CacheParts, evictor: &Arc<Evictor>, uses: &Arc<UseLog>) {
    let clock = &parts.clock;
    let (signal, evictor) = (evictor.nudge_signal(), Arc::clone(evictor));
    let latest = Arc::clone(uses);
    let eviction = Worker::new("eviction", EVICTION_PERIOD, move || {
        let (evictor, uses) = (Arc::clone(&evictor), Arc::clone(&latest));
        async move {
            // What is in use right now must not look unused.
            uses.flush().await?;
            evictor.enforce().await.map(drop)
        }
    });
    eviction.nudged_by(signal).spawn(tasks, clock.clone());
    let (signal, uses) = (uses.nudge_signal(), Arc::clone(uses));
    let flush = Worker::new("use-log", USE_FLUSH_PERIOD, move || {
        let uses = Arc::clone(&uses);
        async move { uses.flush().await.map(drop) }
    });
    flush.first_run(FirstRun::AfterPeriod).nudged_by(signal).spawn(tasks, clock.clone());
}

fn spawn_listing_worker(tasks: &Tasks, registry: &Registry, parts: CacheParts) {
    let (clock, registry) = (parts.clock.clone(), registry.clone());
    let listings = Worker::new("old-listings", LISTING_PERIOD, move || {
        let (parts, registry) = (parts.clone(), registry.clone());
        async move {
            if registry.links().iter().any(|status| status.link == Link::Offline) {
                // What upstream cannot renew serves for as long as it has to.
                return Ok(());
            }
            let before =
                Timestamp::from_millis(parts.clock.now().as_millis().saturating_sub(LISTING_LIFE_MS));
            parts.index.remove_listings_before(before, LISTING_BATCH).await.map(drop)
        }
    });
    listings.first_run(FirstRun::AfterPeriod).spawn(tasks, clock);
}

fn spawn_survey_worker(tasks: &Tasks, registry: &Registry, clock: Clock) {
    let (signal, registry) = (registry.survey_signal(), registry.clone());
    let survey = Worker::new("image-survey", SURVEY_PERIOD, move || {
        let registry = registry.clone();
        async move { registry.survey_images().await }
    });
    survey.nudged_by(signal).spawn(tasks, clock);
}

pub(super) fn spawn_warm_worker(tasks: &Tasks, registry: &Registry, clock: Clock) {
    let registry = registry.clone();
    let warm = Worker::new("warm-schedule", WARM_PERIOD, move || {
        let registry = registry.clone();
        async move {
            registry.begin_due_warm().await;
            Ok::<_, std::convert::Infallible>(())
        }
    });
    warm.spawn(tasks, clock);
}

fn spawn_disk_worker(tasks: &Tasks, registry: &Registry, parts: &CacheParts) {
    let registry = registry.clone();
    let watch = Worker::new("disk", DISK_PERIOD, move || {
        let registry = registry.clone();
        async move {
            registry.watch_disk().await;
            Ok::<_, UpkeepError>(())
        }
    });
    watch.spawn(tasks, parts.clock.clone());
}

pub(super) fn spawn_integrity_workers(tasks: &Tasks, registry: &Registry, clock: &Clock) {
    let scrubbed = registry.clone();
    let scrub = Worker::new("scrub", SCRUB_PERIOD, move || {
        let registry = scrubbed.clone();
        async move { registry.scrub().await }
    });
    scrub.nudged_by(registry.scrub_signal()).spawn(tasks, clock.clone());
    let (signal, registry) = (registry.index_signal(), registry.clone());
    let index = Worker::new("index-check", INDEX_PERIOD, move || {
        let registry = registry.clone();
        async move { registry.look_after_index().await.map(drop) }
    });
    index.nudged_by(signal).spawn(tasks, clock.clone());
}

pub(super) fn spawn_background(
    tasks: &Tasks,
    registry: &Registry,
    evictor: &Arc<Evictor>,
    parts: CacheParts,
) {
    let (registry, scrub) = (registry.clone(), registry.scrub_signal());
    tasks.spawn(async move { registry.follow_events().await });
    let (rebuild, evictor) = (Rebuild::new(parts, tasks.clone()), Arc::clone(evictor));
    tasks.spawn(async move {
        match rebuild.run_at_start().await {
            Ok(rebuilt) => {
                tracing::debug!(?rebuilt, "index and disk were compared");
                evictor.nudge();
                scrub.notify_one();
            }
            Err(error) => tracing::warn!(error = %error, "index and disk could not be compared"),
        }
    });
}
