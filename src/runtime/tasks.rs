//! Tasks that the process knows of, so that shutdown can wait for them.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Starts tasks and remembers that they run.
///
/// Cloning gives another handle to the same set.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    shutdown: CancellationToken,
}

impl Tasks {
    /// An empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a task that shutdown waits for. It runs to its end unless it watches
    /// [`Tasks::shutdown_token`]; dropping the handle does not stop it.
    pub fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tracker.spawn(task)
    }

    /// Runs blocking work on a thread where it may block; shutdown waits for it.
    pub fn spawn_blocking<F, T>(&self, work: F) -> JoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.tracker.spawn_blocking(work)
    }

    /// Is cancelled when shutdown begins.
    pub const fn shutdown_token(&self) -> &CancellationToken {
        &self.shutdown
    }

    /// Tells every task that shutdown has begun and waits for them, `patience` at most.
    /// Returns whether all of them ended.
    pub async fn shut_down(&self, patience: Duration) -> bool {
        self.shutdown.cancel();
        self.tracker.close();
        tokio::time::timeout(patience, self.tracker.wait()).await.is_ok()
    }
}
