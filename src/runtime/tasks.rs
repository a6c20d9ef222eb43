//! Tasks that the process knows of, so that shutdown can wait for them.

use std::future::Future;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Starts tasks and remembers that they run.
///
/// Tasks run on the runtime that the set was made in, wherever they are started from: a fill that a
/// connection's thread starts must neither live nor slow down with that thread's connections. Cloning
/// gives another handle to the same set.
#[derive(Clone, Debug)]
pub struct Tasks {
    home: Handle,
    tracker: TaskTracker,
    shutdown: CancellationToken,
}

impl Tasks {
    /// An empty set, whose tasks run on the runtime around the caller.
    ///
    /// # Panics
    ///
    /// Where there is no runtime.
    #[expect(clippy::new_without_default, reason = "it takes the runtime around it, which is no default")]
    pub fn new() -> Self {
        Self { home: Handle::current(), tracker: TaskTracker::new(), shutdown: CancellationToken::new() }
    }

    /// Starts a task that shutdown waits for. It runs to its end unless it watches
    /// [`Tasks::shutdown_token`]; dropping the handle does not stop it.
    pub fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tracker.spawn_on(task, &self.home)
    }

    /// Starts a task as [`Tasks::spawn`] does, on the runtime of the caller: for what lives with a
    /// connection.
    pub fn spawn_here<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tracker.spawn(task)
    }

    /// Starts a task as [`Tasks::spawn`] does, on another runtime.
    pub(super) fn spawn_on<F>(&self, runtime: &Handle, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tracker.spawn_on(task, runtime)
    }

    /// Runs blocking work on a thread where it may block; shutdown waits for it.
    pub fn spawn_blocking<F, T>(&self, work: F) -> JoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.tracker.spawn_blocking_on(work, &self.home)
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
