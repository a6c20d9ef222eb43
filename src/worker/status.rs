//! How a background task is doing, for people who look.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::WorkError;
use crate::runtime::{Clock, Timestamp};

/// What a task does just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerState {
    /// It waits for its next unit.
    Waiting,
    /// A unit runs.
    Running,
    /// It ended: the process shuts down.
    Stopped,
}

impl WorkerState {
    /// The word in logs and on the admin page.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Stopped => "stopped",
        }
    }
}

/// How a task is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerStatus {
    /// The task's name.
    pub name: &'static str,
    /// What it does just now.
    pub state: WorkerState,
    /// How many units ended, well or not.
    pub runs: u64,
    /// How many units in a row failed up to now.
    pub failures_in_a_row: u64,
    /// When the last unit began.
    pub last_run_at: Option<Timestamp>,
    /// How long the last unit that ended took.
    pub last_duration: Option<Duration>,
    /// What the last failed unit said, and when it ended; stays after later successes.
    pub last_error: Option<(Timestamp, String)>,
    /// When the next unit begins, unless it is nudged before.
    pub next_due_at: Option<Timestamp>,
}

/// Where a task writes its status.
#[derive(Clone, Debug)]
pub(super) struct Board {
    clock: Clock,
    status: Arc<Mutex<WorkerStatus>>,
}

impl Board {
    pub(super) fn new(name: &'static str, clock: Clock) -> Self {
        let status = WorkerStatus {
            name,
            state: WorkerState::Waiting,
            runs: 0,
            failures_in_a_row: 0,
            last_run_at: None,
            last_duration: None,
            last_error: None,
            next_due_at: None,
        };
        Self { clock, status: Arc::new(Mutex::new(status)) }
    }

    pub(super) fn read(&self) -> WorkerStatus {
        self.lock().clone()
    }

    pub(super) fn wait(&self, pause: Duration) {
        let due_at = self.clock.now().after(pause);
        let mut status = self.lock();
        status.state = WorkerState::Waiting;
        status.next_due_at = Some(due_at);
    }

    pub(super) fn begin(&self) {
        let now = self.clock.now();
        let mut status = self.lock();
        status.state = WorkerState::Running;
        status.last_run_at = Some(now);
        status.next_due_at = None;
    }

    pub(super) fn finish(&self, took: Duration, error: Option<WorkError>) {
        let now = self.clock.now();
        let mut status = self.lock();
        status.runs += 1;
        status.last_duration = Some(took);
        status.failures_in_a_row = if error.is_some() { status.failures_in_a_row + 1 } else { 0 };
        if let Some(error) = error {
            status.last_error = Some((now, describe(&*error)));
        }
    }

    pub(super) fn stop(&self) {
        let mut status = self.lock();
        status.state = WorkerState::Stopped;
        status.next_due_at = None;
    }

    fn lock(&self) -> MutexGuard<'_, WorkerStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An error and all that caused it, in one line.
fn describe(error: &(dyn std::error::Error + 'static)) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}
