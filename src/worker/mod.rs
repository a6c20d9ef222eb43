//! Runs background tasks: each with a period and a nudge, jitter, back-off and a visible status.
//!
//! A [`Worker`] runs its unit of work again and again, one at a time. After a failure, also a
//! panic, it waits longer each time, up to 9 s; nudges that come meanwhile are kept, not followed,
//! so that a broken disk is not hammered, but soon used again when it works. It ends at shutdown
//! after the unit that runs: units that take long watch the shutdown token themselves.

mod status;
#[cfg(test)]
mod tests;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::Notify;
use tokio::time::Instant;

pub use status::{WorkerState, WorkerStatus};

use crate::runtime::{Backoff, Clock, Tasks};
use status::Board;

/// Why a unit of work failed: only written to the log and the status.
pub type WorkError = Box<dyn std::error::Error + Send + Sync>;

/// When the first unit runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstRun {
    /// As soon as the worker is started.
    AtOnce,
    /// After one period.
    AfterPeriod,
}

/// A background task that is yet to be started.
pub struct Worker {
    name: &'static str,
    period: Duration,
    first_run: FirstRun,
    nudge: Arc<Notify>,
    unit: Box<dyn Fn() -> BoxFuture<'static, Result<(), WorkError>> + Send + Sync>,
}

/// A background task that runs.
#[derive(Clone, Debug)]
pub struct WorkerHandle {
    nudge: Arc<Notify>,
    board: Board,
}

impl Worker {
    /// Describes a task: `unit` runs every `period` (give or take a tenth) and when nudged.
    pub fn new<F, W, E>(name: &'static str, period: Duration, unit: F) -> Self
    where
        F: Fn() -> W + Send + Sync + 'static,
        W: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<WorkError> + 'static,
    {
        let unit = Box::new(move || unit().map(|result| result.map_err(Into::into)).boxed());
        Self { name, period, first_run: FirstRun::AtOnce, nudge: Arc::default(), unit }
    }

    /// Says when the first unit runs; at once, if nothing is said.
    #[must_use]
    pub const fn first_run(mut self, first_run: FirstRun) -> Self {
        self.first_run = first_run;
        self
    }

    /// Lets a signal that somebody else has nudge the task, next to [`WorkerHandle::nudge`].
    #[must_use]
    pub fn nudged_by(mut self, signal: Arc<Notify>) -> Self {
        self.nudge = signal;
        self
    }

    /// Starts the task.
    pub fn spawn(self, tasks: &Tasks, clock: Clock) -> WorkerHandle {
        let board = Board::new(self.name, clock);
        let handle = WorkerHandle { nudge: Arc::clone(&self.nudge), board: board.clone() };
        tasks.spawn(self.run(tasks.clone(), board));
        handle
    }

    async fn run(self, tasks: Tasks, board: Board) {
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        let mut failures = Failures::default();
        let mut rest = match self.first_run {
            FirstRun::AtOnce => Rest::None,
            FirstRun::AfterPeriod => Rest::UntilNudged(jittered(self.period)),
        };
        loop {
            board.wait(rest.duration());
            tokio::select! {
                biased;
                () = tasks.shutdown_token().cancelled() => break,
                () = rest.over(&self.nudge) => {}
            }
            rest = if self.run_unit(&tasks, &board, &mut failures).await {
                backoff.reset();
                Rest::UntilNudged(jittered(self.period))
            } else {
                // Full jitter can come out as no pause at all: the first pause is the floor.
                Rest::Whole(FIRST_PAUSE + backoff.next_pause())
            };
        }
        board.stop();
    }

    /// Runs one unit; `false` where it failed.
    async fn run_unit(&self, tasks: &Tasks, board: &Board, failures: &mut Failures) -> bool {
        // The unit that begins now answers every nudge up to now.
        self.nudge.notified().now_or_never();
        board.begin();
        let begun = Instant::now();
        // A task of its own, so that a panic ends the unit and not the worker.
        let result = match tasks.spawn((self.unit)()).await {
            Ok(result) => result,
            Err(panic) => Err(panic.into()),
        };
        if let Err(error) = &result
            && let Some(unlogged) = failures.note()
        {
            tracing::warn!(
                worker.name = self.name,
                error = &**error as &dyn std::error::Error,
                unlogged,
                "background task failed and will be tried again"
            );
        }
        let is_good = result.is_ok();
        board.finish(begun.elapsed(), result.err());
        is_good
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("name", &self.name)
            .field("period", &self.period)
            .finish_non_exhaustive()
    }
}

impl WorkerHandle {
    /// Asks for a unit now, or right after the one that runs. Nudges that come together are one.
    pub fn nudge(&self) {
        self.nudge.notify_one();
    }

    /// How the task is doing.
    pub fn status(&self) -> WorkerStatus {
        self.board.read()
    }
}

/// The failures of a worker, of which one a minute is logged.
#[derive(Debug, Default)]
struct Failures {
    logged_at: Option<Instant>,
    unlogged: u64,
}

impl Failures {
    /// How many were not logged before this one, if it is to be.
    fn note(&mut self) -> Option<u64> {
        if self.logged_at.is_some_and(|at| at.elapsed() < QUIET) {
            self.unlogged += 1;
            return None;
        }
        self.logged_at = Some(Instant::now());
        Some(std::mem::take(&mut self.unlogged))
    }
}

/// What lies between two units.
#[derive(Clone, Copy, Debug)]
enum Rest {
    None,
    UntilNudged(Duration),
    Whole(Duration),
}

impl Rest {
    const fn duration(self) -> Duration {
        match self {
            Self::None => Duration::ZERO,
            Self::UntilNudged(pause) | Self::Whole(pause) => pause,
        }
    }

    async fn over(self, nudge: &Notify) {
        match self {
            Self::None => {}
            // An error says that the time is over.
            Self::UntilNudged(pause) => drop(tokio::time::timeout(pause, nudge.notified()).await),
            Self::Whole(pause) => tokio::time::sleep(pause).await,
        }
    }
}

/// Nine to eleven tenths: tasks that start together do not stay in step.
fn jittered(period: Duration) -> Duration {
    period.mul_f64(0.9 + 0.2 * fastrand::f64())
}

/// The least pause after a failure.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The most that failures add to it.
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// How long a worker says nothing after it logged a failure.
const QUIET: Duration = Duration::from_mins(1);
