//! One flight for many passengers: concurrent callers of the same key share one piece of work.

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};

use super::Tasks;

type Flight<V> = Shared<BoxFuture<'static, Option<V>>>;

/// Collapses concurrent work for one key into one run whose result all callers get.
pub struct SingleFlight<K, V> {
    flights: Arc<Mutex<HashMap<K, Flight<V>>>>,
    tasks: Tasks,
}

/// A shared result and whether this caller started the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joined<V> {
    /// This caller's work ran.
    Led(V),
    /// Somebody else's work was already running.
    Followed(V),
}

impl<V> Joined<V> {
    /// The result, whoever led.
    pub fn into_inner(self) -> V {
        match self {
            Self::Led(value) | Self::Followed(value) => value,
        }
    }
}

impl<K, V> SingleFlight<K, V>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// No flights yet; the work runs as tasks of `tasks`.
    pub fn new(tasks: Tasks) -> Self {
        Self { flights: Arc::default(), tasks }
    }

    /// Starts `work` for `key`, or joins the work that already runs for it.
    ///
    /// The work is a task of the process: a caller that is dropped does not stop it. `None` means
    /// that the work panicked.
    pub async fn run<F, W>(&self, key: K, work: F) -> Option<Joined<V>>
    where
        F: FnOnce() -> W,
        W: Future<Output = V> + Send + 'static,
    {
        let (flight, led) = self.join_or_start(key, work);
        let value = flight.await?;
        Some(if led { Joined::Led(value) } else { Joined::Followed(value) })
    }

    /// Whether work for `key` runs now.
    pub fn is_running(&self, key: &K) -> bool {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner).contains_key(key)
    }

    fn join_or_start<F, W>(&self, key: K, work: F) -> (Flight<V>, bool)
    where
        F: FnOnce() -> W,
        W: Future<Output = V> + Send + 'static,
    {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = flights.get(&key) {
            return (flight.clone(), false);
        }
        let landing = Landing { flights: Arc::clone(&self.flights), key: key.clone() };
        let work = work();
        let handle = self.tasks.spawn(async move {
            // Dropped when the work ends, also when it panics: the next caller starts anew.
            let _landing = landing;
            work.await
        });
        let flight = async move { handle.await.ok() }.boxed().shared();
        flights.insert(key, flight.clone());
        (flight, true)
    }
}

struct Landing<K: Eq + Hash, V> {
    flights: Arc<Mutex<HashMap<K, Flight<V>>>>,
    key: K,
}

impl<K: Eq + Hash, V> Drop for Landing<K, V> {
    fn drop(&mut self) {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        flights.remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn concurrent_callers_share_one_run() {
        let flights = SingleFlight::new(Tasks::new());
        let runs = Arc::new(AtomicU32::new(0));
        let callers = (0..50).map(|_| {
            let runs = Arc::clone(&runs);
            flights.run("key", move || async move {
                tokio::task::yield_now().await;
                runs.fetch_add(1, Ordering::SeqCst)
            })
        });
        let results = futures_util::future::join_all(callers).await;
        assert_eq!(runs.load(Ordering::SeqCst), 1);
        let led = results.iter().filter(|joined| matches!(joined, Some(Joined::Led(0)))).count();
        assert_eq!(led, 1);
    }

    #[tokio::test]
    async fn work_goes_on_when_its_leader_is_dropped() {
        let flights = Arc::new(SingleFlight::new(Tasks::new()));
        let (release, gate) = tokio::sync::oneshot::channel::<()>();
        {
            let leader = flights.run(1, move || async move { gate.await.is_ok() });
            tokio::pin!(leader);
            assert!(futures_util::poll!(&mut leader).is_pending());
        }
        let follower = flights.run(1, || async { false });
        tokio::pin!(follower);
        assert!(futures_util::poll!(&mut follower).is_pending());
        assert!(flights.is_running(&1) && !flights.is_running(&2));
        release.send(()).unwrap();
        assert_eq!(follower.await, Some(Joined::Followed(true)));
    }

    #[tokio::test]
    async fn a_panic_wakes_everyone_and_the_next_caller_starts_anew() {
        let flights = SingleFlight::<u8, u8>::new(Tasks::new());
        assert_eq!(flights.run(1, || async { panic!("on purpose") }).await, None);
        assert_eq!(flights.run(1, || async { 7 }).await, Some(Joined::Led(7)));
    }
}
