//! One question to upstream for all who ask the same.

use std::future::Future;
use std::hash::Hash;

use crate::runtime::{Joined, SingleFlight};
use crate::upstream::{Priority, UpstreamError};

/// How often those are joined that turn out to be less urgent.
const ATTEMPTS: usize = 3;

/// Joins those who ask the same, or begins to. Where they were less urgent, and for that were not let through to upstream,
/// it is asked again.
pub(super) async fn ask<K, T, W>(
    flights: &SingleFlight<K, Result<T, UpstreamError>>,
    key: K,
    upstream: &str,
    priority: Priority,
    work: impl Fn() -> W,
) -> Result<Joined<T>, UpstreamError>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    T: Clone + Send + Sync + 'static,
    W: Future<Output = Result<T, UpstreamError>> + Send + 'static,
{
    for _ in 0..ATTEMPTS {
        return match flights.run(key.clone(), &work).await {
            Some(Joined::Followed(Err(error))) if error.spares_less_urgent_than(priority) => continue,
            Some(Joined::Led(answer)) => answer.map(Joined::Led),
            Some(Joined::Followed(answer)) => answer.map(Joined::Followed),
            None => Err(UpstreamError::Broken {
                upstream: upstream.to_owned(),
                reason: "asking it ended in an internal fault".to_owned(),
            }),
        };
    }
    Box::pin(work()).await.map(Joined::Led)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use tokio::sync::Notify;

    use super::*;
    use crate::runtime::Tasks;

    fn spared() -> UpstreamError {
        let (upstream, priority) = ("hub.test".to_owned(), Priority::Ahead);
        UpstreamError::Reserved { upstream, priority, retry_after: Duration::from_mins(1) }
    }

    #[tokio::test]
    async fn who_joins_less_urgent_ones_that_are_refused_asks_again_and_its_equals_do_not() {
        let (flights, asked) = (SingleFlight::new(Tasks::new()), AtomicU32::new(0));
        let gate = Arc::new(Notify::new());
        let first = ask(&flights, "question", "hub.test", Priority::Ahead, || {
            let gate = Arc::clone(&gate);
            async move {
                gate.notified().await;
                Err::<u8, _>(spared())
            }
        });
        let join = |priority| {
            ask(&flights, "question", "hub.test", priority, || {
                asked.fetch_add(1, Ordering::SeqCst);
                async { Ok(7) }
            })
        };
        let open = async {
            while !flights.is_running(&"question") {
                tokio::task::yield_now().await;
            }
            tokio::task::yield_now().await;
            gate.notify_one();
        };
        // In this order: all of them join before the gate opens.
        let (first, equal, client, ()) =
            tokio::join!(biased; first, join(Priority::Ahead), join(Priority::Client), open);
        assert!(matches!(first, Err(UpstreamError::Reserved { .. })));
        assert!(matches!(equal, Err(UpstreamError::Reserved { .. })));
        assert_eq!(client.unwrap().into_inner(), 7);
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }
}
