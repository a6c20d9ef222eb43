//! Use case: images are made complete ahead of time, by order or on a schedule.
//!
//! A job does what clients would: it pulls manifests and has blobs filled, through the same paths, verified and
//! shared with whoever asks meanwhile. What is here is not fetched again; so to go on after an interruption is to
//! begin anew. Jobs that are not done are recorded, and taken up when the process starts again.

pub(super) mod expand;
mod image;
mod job;
mod order;
mod schedule;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(super) use image::SIGNATURE_TAGS;
pub use job::{WarmState, WarmStatus, WarmedImage, WarmedState};
pub use order::{WarmError, WarmOrder, WarmRequest};
pub(super) use schedule::{Schedule, begin_due, replace};

use self::job::Job;
use super::core::Core;
use crate::metadata::WarmRecord;

/// How many jobs that ended are told of.
const ENDED_JOBS: usize = 32;

/// All jobs, and what is scheduled.
#[derive(Default)]
pub(super) struct Warmer {
    jobs: Mutex<BTreeMap<String, Arc<Job>>>,
    pub(super) schedule: Schedule,
}

impl Warmer {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Job>>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_running(&self, id: &str) -> bool {
        self.lock().get(id).is_some_and(|job| !job.is_over())
    }

    /// Adds a job; of those that ended, only the latest stay.
    fn add(&self, job: &Arc<Job>) {
        let mut jobs = self.lock();
        jobs.insert(job.id.clone(), Arc::clone(job));
        let mut ended: Vec<_> = jobs.values().filter(|job| job.is_over()).cloned().collect();
        ended.sort_by_key(|job| job.begun_at);
        for job in ended.iter().rev().skip(ENDED_JOBS) {
            jobs.remove(&job.id);
        }
    }
}

/// Takes an order; gives the job's identifier. See [`super::Registry::warm`].
pub(super) async fn start(core: &Arc<Core>, order: WarmOrder) -> Result<String, WarmError> {
    let names = core.names.load_full();
    for pattern in &order.images {
        expand::resolve(&names, pattern)
            .map_err(|error| WarmError::Invalid(format!("image {pattern}: {error}")))?;
    }
    let id = format!("{:016x}", fastrand::u64(..));
    begin(core, id.clone(), order).await;
    Ok(id)
}

/// Takes up the orders that an earlier process did not finish. Scheduled ones are left to the schedule.
pub(super) async fn resume(core: &Arc<Core>) {
    for record in core.or_nothing(core.index.list_unfinished_warm().await) {
        if record.id.starts_with(schedule::PREFIX) || core.warmer.is_running(&record.id) {
            continue;
        }
        match WarmOrder::from_json(&record.body) {
            Ok(order) => begin(core, record.id, order).await,
            Err(error) => {
                tracing::warn!(job.id = record.id, error = %error, "an order of an earlier process cannot be read, it is dropped");
                core.or_nothing(core.index.remove_warm(&record.id).await);
            }
        }
    }
}

/// Records a job and starts its task.
async fn begin(core: &Arc<Core>, id: String, order: WarmOrder) {
    let begun_at = core.clock.now();
    let record = WarmRecord { id: id.clone(), body: order.to_json(), begun_at, finished_at: None };
    // An index that fails costs the resumption, not the job.
    core.or_nothing(core.index.record_warm(&record).await);
    let job = Arc::new(Job::new(id, order, begun_at));
    core.warmer.add(&job);
    let (task_core, shutdown) = (Arc::clone(core), core.tasks.shutdown_token().clone());
    core.tasks.spawn(async move {
        let _done = shutdown.run_until_cancelled(Box::pin(run(&task_core, &job, record))).await;
    });
}

/// Runs a job to its end, and records that.
async fn run(core: &Arc<Core>, job: &Arc<Job>, record: WarmRecord) {
    tracing::info!(job.id = job.id, images = job.order.images.len(), "images are being warmed");
    let cancelled = job.cancel.run_until_cancelled(job::run(core, job)).await.is_none();
    let state = job.end(cancelled);
    for image in job.status(core.clock.now()).images {
        core.metrics.image_warmed(image.state);
        if let (WarmedState::Incomplete, Some(reason)) = (image.state, &image.reason) {
            tracing::warn!(
                job.id = job.id,
                image.name = image.name,
                reason,
                "image is not complete after warming"
            );
        }
    }
    tracing::info!(job.id = job.id, state = state.as_str(), "warming ended");
    if !record.id.starts_with(schedule::PREFIX) {
        core.or_nothing(core.index.remove_warm(&record.id).await);
    } else if state == WarmState::Complete {
        let finished_at = Some(core.clock.now());
        let recorded = core.index.record_warm(&WarmRecord { finished_at, ..record }).await;
        if recorded.is_err() {
            // Without a record it would be due again at once.
            core.warmer.schedule.note_failure(&job.id, core.clock.now());
        }
        core.or_nothing(recorded);
    } else {
        core.warmer.schedule.note_failure(&job.id, core.clock.now());
    }
}

/// How all jobs do, those that were begun last first.
pub(super) fn list(core: &Core) -> Vec<WarmStatus> {
    let now = core.clock.now();
    let mut jobs: Vec<_> = core.warmer.lock().values().cloned().collect();
    jobs.sort_by_key(|job| std::cmp::Reverse(job.begun_at));
    jobs.iter().map(|job| job.status(now)).collect()
}

/// How a job does.
pub(super) fn find(core: &Core, id: &str) -> Option<WarmStatus> {
    let job = core.warmer.lock().get(id).cloned()?;
    Some(job.status(core.clock.now()))
}

/// Stops a job; what it fetched stays. `false` where there is none of that name.
pub(super) fn cancel(core: &Core, id: &str) -> bool {
    let job = core.warmer.lock().get(id).cloned();
    job.inspect(|job| job.cancel.cancel()).is_some()
}
