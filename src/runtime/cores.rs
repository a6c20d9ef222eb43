//! Threads that serve connections, each with a runtime of its own.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

use super::Tasks;

/// A thread for each processor, each with a runtime that shares nothing with the others.
///
/// A task stays on its core: nothing is stolen, no other thread is woken, and what it touches stays in
/// that processor's cache. That suits connections, which are many, alike and short of breath. Work whose
/// life is not a connection's belongs to [`Tasks::spawn`].
///
/// Cloning gives another handle to the same threads. They end with the last handle; what still runs on
/// them then is dropped.
#[derive(Clone, Debug, Default)]
pub struct Cores {
    cores: Arc<[Core]>,
}

#[derive(Debug)]
struct Core {
    runtime: Handle,
    /// Tasks that were placed here and have not ended.
    load: Arc<AtomicUsize>,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Cores {
    /// Starts a thread for each of `count` processors. With none, tasks run on the runtime of their
    /// caller.
    pub fn start(count: usize) -> io::Result<Self> {
        let cores = (0..count).map(Core::start).collect::<io::Result<Vec<_>>>()?;
        Ok(Self { cores: cores.into() })
    }

    /// Starts a task on the core that has the fewest. Shutdown of `tasks` waits for it.
    pub fn spawn<F>(&self, tasks: &Tasks, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let Some(core) = self.cores.iter().min_by_key(|core| core.load.load(Ordering::Relaxed)) else {
            tasks.spawn_here(task);
            return;
        };
        core.load.fetch_add(1, Ordering::Relaxed);
        let place = Place(Arc::clone(&core.load));
        tasks.spawn_on(&core.runtime, async move {
            let _place = place;
            task.await;
        });
    }
}

impl Core {
    fn start(number: usize) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (handle, stop) = (runtime.handle().clone(), CancellationToken::new());
        let stopped = stop.clone();
        let thread = thread::Builder::new().name(format!("connections-{number}")).spawn(move || {
            runtime.block_on(stopped.run_until_cancelled(keep_thread_at_hand()));
        })?;
        Ok(Self { runtime: handle, load: Arc::default(), stop, thread: Some(thread) })
    }
}

/// Keeps one thread of this runtime at hand for what blocks. Where the system gives no more of them, such work waits for
/// those that there are; it fails where there are none.
async fn keep_thread_at_hand() {
    loop {
        // In a task of its own: it panics where it comes too late.
        let _beat = Handle::current().spawn(async { tokio::task::spawn_blocking(|| {}).await }).await;
        tokio::time::sleep(BEAT).await;
    }
}

/// How often it is used; idle ones end after 10 s.
const BEAT: Duration = Duration::from_secs(4);

impl Drop for Core {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != thread::current().id()
        {
            // Its task only waits: it cannot have panicked.
            let _ = thread.join();
        }
    }
}

/// A task's place on a core.
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tokio::sync::{Barrier, mpsc};

    use super::*;

    #[tokio::test]
    async fn tasks_are_spread_evenly_and_stay_on_their_thread() {
        let (cores, tasks) = (Cores::start(2).unwrap(), Tasks::new());
        let (barrier, (sender, mut receiver)) = (Arc::new(Barrier::new(8)), mpsc::unbounded_channel());
        for _ in 0..8 {
            let (barrier, sender) = (Arc::clone(&barrier), sender.clone());
            cores.spawn(&tasks, async move {
                let before = thread::current().id();
                barrier.wait().await;
                assert_eq!(thread::current().id(), before);
                sender.send(before).unwrap();
            });
        }
        drop(sender);
        let mut tasks_of_thread = HashMap::<_, usize>::new();
        while let Some(thread) = receiver.recv().await {
            *tasks_of_thread.entry(thread).or_default() += 1;
        }
        assert_eq!(tasks_of_thread.into_values().collect::<Vec<_>>(), [4, 4]);
    }

    #[tokio::test]
    async fn what_a_task_starts_for_others_outlives_the_cores() {
        let (cores, tasks) = (Cores::start(1).unwrap(), Tasks::new());
        let home = thread::current().id();
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let starter = tasks.clone();
        cores.spawn(&tasks, async move {
            starter.spawn(async move { sender.send(thread::current().id()).unwrap() });
        });
        assert_eq!(receiver.recv().await, Some(home));
    }

    #[tokio::test]
    async fn without_threads_tasks_run_where_they_are_started() {
        let (cores, tasks) = (Cores::default(), Tasks::new());
        let (sender, mut receiver) = mpsc::unbounded_channel();
        cores.spawn(&tasks, async move { sender.send(thread::current().id()).unwrap() });
        assert_eq!(receiver.recv().await, Some(thread::current().id()));
    }

    #[tokio::test]
    async fn tasks_that_still_run_are_dropped_with_the_cores() {
        let (cores, tasks) = (Cores::start(1).unwrap(), Tasks::new());
        let (sender, mut receiver) = mpsc::unbounded_channel::<()>();
        cores.spawn(&tasks, async move {
            let _sender = sender;
            std::future::pending::<()>().await;
        });
        drop(cores);
        assert_eq!(receiver.recv().await, None);
    }
}
