//! One job: its images, how far they are, and when it may go on.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::order::WarmOrder;
use super::{expand, image};
use crate::oci::Reference;
use crate::registry::core::Core;
use crate::registry::pace::Pace;
use crate::registry::{RegistryError, Repository};
use crate::runtime::{Backoff, Clock, Timestamp};

/// How often something is tried without any progress in between.
pub(super) const MOST_TRIES: u32 = 8;

/// The longest that upstream may have a job wait.
const LONGEST_HOLD: Duration = Duration::from_mins(15);

/// How long at a time a closed window is waited for: clocks are set.
const LONGEST_NAP: Duration = Duration::from_mins(1);

/// An order that is being done.
pub(super) struct Job {
    pub(super) id: String,
    pub(super) order: WarmOrder,
    pub(super) begun_at: Timestamp,
    /// Cancelled to stop it.
    pub(super) cancel: CancellationToken,
    pub(super) pace: Option<Arc<Pace>>,
    /// The blobs that may be fetched at once.
    pub(super) blobs: Semaphore,
    /// Upstream asked for a pause until then.
    hold_until: Mutex<Option<Instant>>,
    progress: Mutex<Progress>,
}

#[derive(Default)]
struct Progress {
    state: Option<WarmState>,
    images: Vec<WarmedImage>,
}

/// An image that is to be made complete.
pub(super) struct Target {
    pub(super) name: String,
    /// What to fetch, or why it cannot be told.
    pub(super) image: Result<(Repository, Reference), String>,
}

/// How a job does.
#[derive(Clone, Debug)]
pub struct WarmStatus {
    /// Its identifier.
    pub id: String,
    /// How far it is.
    pub state: WarmState,
    /// When it was begun.
    pub begun_at: Timestamp,
    /// Its images; none before tags were looked up.
    pub images: Vec<WarmedImage>,
}

/// How far a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WarmState {
    /// Its window is closed.
    Waiting,
    /// Images are being looked at and fetched.
    Running,
    /// It is over, and every image is complete.
    Complete,
    /// It is over, and some image is not.
    Incomplete,
    /// Somebody stopped it.
    Cancelled,
}

/// How an image of a job does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WarmedImage {
    /// The image, as any client can spell it.
    pub name: String,
    /// How far it is.
    pub state: WarmedState,
    /// Why it is not complete, or is tried again.
    pub reason: Option<String>,
    /// How much of it is here, in bytes.
    pub stored_bytes: u64,
    /// How much it is, as far as is known.
    pub total_bytes: u64,
    /// How much was fetched for it by this job.
    pub fetched_bytes: u64,
}

/// How far an image of a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WarmedState {
    /// It was not begun.
    Waiting,
    /// It is being fetched.
    Running,
    /// All of it is here.
    Complete,
    /// It was given up.
    Incomplete,
}

impl WarmState {
    /// The word in answers and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Complete => "complete",
            Self::Incomplete => "incomplete",
            Self::Cancelled => "cancelled",
        }
    }
}

impl WarmedState {
    /// The word in answers and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Complete => "complete",
            Self::Incomplete => "incomplete",
        }
    }
}

impl Target {
    pub(super) fn new(name: &str, repository: Repository, reference: Reference) -> Self {
        let mark = if matches!(reference, Reference::Digest(_)) { '@' } else { ':' };
        Self { name: format!("{name}{mark}{reference}"), image: Ok((repository, reference)) }
    }

    pub(super) const fn failed(name: String, reason: String) -> Self {
        Self { name, image: Err(reason) }
    }
}

impl Job {
    pub(super) fn new(id: String, order: WarmOrder, begun_at: Timestamp) -> Self {
        Self {
            id,
            begun_at,
            cancel: CancellationToken::new(),
            pace: order.bandwidth_bytes.map(|bytes| Arc::new(Pace::new(bytes))),
            blobs: Semaphore::new(order.concurrency.max(1)),
            hold_until: Mutex::default(),
            progress: Mutex::default(),
            order,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.lock().state.is_some()
    }

    /// How it does at a moment.
    pub(super) fn status(&self, now: Timestamp) -> WarmStatus {
        let is_open = self.order.window.is_none_or(|window| window.wait(now).is_zero());
        let present = if is_open { WarmState::Running } else { WarmState::Waiting };
        let progress = self.lock();
        WarmStatus {
            id: self.id.clone(),
            state: progress.state.unwrap_or(present),
            begun_at: self.begun_at,
            images: progress.images.clone(),
        }
    }

    /// Notes that it is over, and says how it went.
    pub(super) fn end(&self, cancelled: bool) -> WarmState {
        let mut progress = self.lock();
        let is_complete = progress.images.iter().all(|image| image.state == WarmedState::Complete);
        let state = match (cancelled, is_complete) {
            (true, _) => WarmState::Cancelled,
            (false, true) => WarmState::Complete,
            (false, false) => WarmState::Incomplete,
        };
        *progress.state.insert(state)
    }

    /// Changes what is told of an image.
    pub(super) fn update(&self, place: usize, update: impl FnOnce(&mut WarmedImage)) {
        if let Some(image) = self.lock().images.get_mut(place) {
            update(image);
        }
    }

    /// Waits until the window is open and upstream wants no pause.
    pub(super) async fn wait_turn(&self, clock: &Clock) {
        loop {
            let closed = self.order.window.map_or(Duration::ZERO, |window| window.wait(clock.now()));
            if !closed.is_zero() {
                tokio::time::sleep(closed.min(LONGEST_NAP)).await;
                continue;
            }
            let until = *self.hold_until.lock().unwrap_or_else(PoisonError::into_inner);
            match until.filter(|until| *until > Instant::now()) {
                Some(until) => tokio::time::sleep_until(until).await,
                None => return,
            }
        }
    }

    /// Has the whole job pause: upstream throttles.
    pub(super) fn hold(&self, pause: Duration) {
        let until = Instant::now() + pause.min(LONGEST_HOLD);
        let mut hold_until = self.hold_until.lock().unwrap_or_else(PoisonError::into_inner);
        *hold_until = Some(hold_until.map_or(until, |known| known.max(until)));
    }

    /// Tries again and again while that may help; the error says why it did not.
    pub(super) async fn persist<T, W>(&self, clock: &Clock, work: impl Fn() -> W) -> Result<T, String>
    where
        W: Future<Output = Result<T, RegistryError>>,
    {
        let mut backoff = pauses();
        let mut tries = 0;
        loop {
            self.wait_turn(clock).await;
            let error = match work().await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            tries += u32::from(!is_told_to_wait(&error));
            if !may_help(&error) || tries >= MOST_TRIES {
                return Err(describe(&error));
            }
            self.pause(&error, &mut backoff).await;
        }
    }

    /// Pauses after a failure; as long as upstream asks, where it does.
    pub(super) async fn pause(&self, error: &RegistryError, backoff: &mut Backoff) {
        if let RegistryError::Throttled { retry_after: Some(pause), .. } = error {
            self.hold(*pause);
        }
        tokio::time::sleep(backoff.next_pause()).await;
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The pauses between tries.
pub(super) const fn pauses() -> Backoff {
    Backoff::new(Duration::from_secs(1), Duration::from_mins(1))
}

/// Whether trying again may help. What this node is offline for, it is until somebody says otherwise.
pub(super) const fn may_help(error: &RegistryError) -> bool {
    error.is_transient() && !matches!(error, RegistryError::Offline { .. })
}

/// Whether it is known when to try again. To wait for that is no failure, however often: nothing is asked meanwhile.
pub(super) fn is_told_to_wait(error: &RegistryError) -> bool {
    matches!(error, RegistryError::Throttled { retry_after: Some(pause), .. } if !pause.is_zero())
}

/// An error with its causes, for people.
pub(super) fn describe(error: &RegistryError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Some errors are transparent, or say what their cause says.
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// Makes all images of a job complete, some at once.
pub(super) async fn run(core: &Arc<Core>, job: &Arc<Job>) {
    let targets = expand::expand(core, job).await;
    job.lock().images = targets.iter().map(WarmedImage::of).collect();
    let places = futures_util::stream::iter(targets.into_iter().enumerate());
    let work = places.for_each_concurrent(job.order.concurrency, |(place, target)| async move {
        if let Ok((repository, reference)) = &target.image {
            image::make_complete(core, job, place, repository, reference).await;
        }
    });
    work.await;
}

impl WarmedImage {
    fn of(target: &Target) -> Self {
        let reason = target.image.as_ref().err().cloned();
        let state = if reason.is_some() { WarmedState::Incomplete } else { WarmedState::Waiting };
        let name = target.name.clone();
        Self { name, state, reason, stored_bytes: 0, total_bytes: 0, fetched_bytes: 0 }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::upstream::UpstreamError;

    fn job(order: &str) -> Job {
        Job::new("id".to_owned(), WarmOrder::from_json(order).unwrap(), Timestamp::default())
    }

    fn throttled(pause: Duration) -> RegistryError {
        let retry_after = Some(pause);
        let source = UpstreamError::Throttled { upstream: "hub.test".to_owned(), retry_after };
        RegistryError::Throttled { retry_after, source }
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_that_is_throttled_pauses_as_a_whole_and_as_long_as_is_asked() {
        let (job, clock) = (job(r#"{"images":["a"]}"#), Clock::manual(Timestamp::default()));
        let (begun, tries) = (Instant::now(), Cell::new(0));
        let work = || {
            tries.set(tries.get() + 1);
            let is_first = tries.get() == 1;
            async move { if is_first { Err(throttled(Duration::from_mins(10))) } else { Ok(()) } }
        };
        job.persist(&clock, work).await.unwrap();
        assert_eq!(tries.get(), 2);
        assert!(begun.elapsed() >= Duration::from_mins(10), "{:?}", begun.elapsed());
        tries.set(0);
        let work = || {
            tries.set(tries.get() + 1);
            let is_throttled = tries.get() < 10 * MOST_TRIES;
            async move { if is_throttled { Err(throttled(Duration::from_mins(1))) } else { Ok(()) } }
        };
        job.persist(&clock, work).await.unwrap();
        job.hold(Duration::from_hours(100));
        let begun = Instant::now();
        job.wait_turn(&clock).await;
        assert_eq!(begun.elapsed(), LONGEST_HOLD, "absurd values are capped");
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_help_is_not_tried_again_and_what_may_only_so_often() {
        let (job, clock) = (job(r#"{"images":["a"]}"#), Clock::manual(Timestamp::default()));
        for (error, most) in
            [(RegistryError::ManifestUnknown("1".to_owned()), 1), (throttled(Duration::ZERO), MOST_TRIES)]
        {
            let tries = Cell::new(0);
            let work = || {
                tries.set(tries.get() + 1);
                let error = error.clone();
                async move { Err::<(), _>(error) }
            };
            let reason = job.persist(&clock, work).await.unwrap_err();
            assert_eq!(tries.get(), most, "{reason}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_closed_window_is_waited_for() {
        let job = job(r#"{"images":["a"],"window":"00:10-00:20"}"#);
        let clock = Clock::manual(Timestamp::default());
        let mut waits = Box::pin(job.wait_turn(&clock));
        assert!(tokio::time::timeout(Duration::from_hours(1), &mut waits).await.is_err());
        assert_eq!(job.status(clock.now()).state, WarmState::Waiting);
        clock.advance(Duration::from_mins(10));
        assert!(tokio::time::timeout(LONGEST_NAP, waits).await.is_ok());
        assert_eq!(job.status(clock.now()).state, WarmState::Running);
    }
}
