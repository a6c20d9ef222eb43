//! How many requests run at once at one endpoint, and who is next when all slots are taken.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::priority::{Priority, Urgency};

/// The slots of one endpoint. Cloning gives another handle.
#[derive(Clone)]
pub(super) struct Slots(Arc<Mutex<Line>>);

struct Line {
    free: usize,
    /// Those who wait, by priority; whoever gave up has dropped its end.
    waiting: [VecDeque<oneshot::Sender<Slot>>; Priority::ALL.len()],
}

/// A slot; it is free again when this is dropped.
pub(super) struct Slot(Slots);

impl Slots {
    pub(super) fn new(free: usize) -> Self {
        Self(Arc::new(Mutex::new(Line { free, waiting: Default::default() })))
    }

    /// Waits for a slot: behind those who are as urgent or more, before all others. `None` where none is free in time.
    ///
    /// May be dropped at any point; a slot that was just given is passed on.
    pub(super) async fn acquire(&self, urgency: &Urgency, patience: Duration) -> Option<Slot> {
        let deadline = Instant::now() + patience;
        let mut given = match self.take_or_wait(urgency.now()) {
            Ok(slot) => return Some(slot),
            Err(given) => given,
        };
        let risen = timeout_at(deadline, async {
            tokio::select! {
                biased;
                slot = &mut given => slot.ok(),
                () = urgency.risen() => None,
            }
        });
        match risen.await {
            Err(_elapsed) => None,
            Ok(Some(slot)) => Some(slot),
            // Its place is now among the clients; what is given to the old one is passed on.
            Ok(None) => match self.take_or_wait(urgency.now()) {
                Ok(slot) => Some(slot),
                Err(given) => timeout_at(deadline, given).await.ok()?.ok(),
            },
        }
    }

    fn take_or_wait(&self, priority: Priority) -> Result<Slot, oneshot::Receiver<Slot>> {
        let mut line = self.lock();
        // Nobody waits while a slot is free: it is passed on when it is given back.
        if line.free > 0 {
            line.free -= 1;
            return Ok(Slot(self.clone()));
        }
        let (sender, receiver) = oneshot::channel();
        let place = &mut line.waiting[priority as usize];
        place.retain(|waiting| !waiting.is_closed());
        place.push_back(sender);
        Err(receiver)
    }

    /// The one who is next; a slot becomes free where there is none.
    fn find_next(&self) -> Option<oneshot::Sender<Slot>> {
        let mut line = self.lock();
        let next = line
            .waiting
            .iter_mut()
            .find_map(|place| std::iter::from_fn(|| place.pop_front()).find(|waiting| !waiting.is_closed()));
        if next.is_none() {
            line.free += 1;
        }
        next
    }

    fn lock(&self) -> MutexGuard<'_, Line> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(next) = self.0.find_next() {
            // Whoever gave up at this moment drops it, and so passes it on.
            let _ = next.send(Self(self.0.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use tokio_util::sync::CancellationToken;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn the_most_urgent_is_next_and_among_equals_the_first() {
        let (slots, client) = (Slots::new(1), Urgency::CLIENT);
        let mut held = slots.acquire(&client, PATIENCE).await;
        let urgencies =
            [Priority::Ahead, Priority::Revalidation, Priority::Client, Priority::Client].map(Urgency::fixed);
        let mut waits: Vec<_> =
            urgencies.iter().map(|urgency| Box::pin(slots.acquire(urgency, PATIENCE))).collect();
        for wait in &mut waits {
            assert!(wait.as_mut().now_or_never().is_none());
        }
        for next in [2, 3, 1, 0] {
            drop(held.take());
            for (place, wait) in waits.iter_mut().enumerate() {
                let is_next = place == next;
                if is_next {
                    held = wait.as_mut().now_or_never().flatten();
                    assert!(held.is_some(), "{place}");
                }
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_gives_up_costs_no_slot() {
        let (slots, client) = (Slots::new(1), Urgency::CLIENT);
        let held = slots.acquire(&client, PATIENCE).await;
        assert!(slots.acquire(&client, PATIENCE).await.is_none(), "in time");
        let mut gone = Box::pin(slots.acquire(&client, PATIENCE));
        assert!(gone.as_mut().now_or_never().is_none());
        let mut next = Box::pin(slots.acquire(&client, PATIENCE));
        assert!(next.as_mut().now_or_never().is_none());
        drop(held);
        // It was given the slot, and leaves without having seen it.
        drop(gone);
        let held = next.await;
        assert!(held.is_some());
        drop(held);
        assert_eq!(slots.lock().free, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_a_client_joins_waits_among_the_clients() {
        let (slots, client) = (Slots::new(1), Urgency::CLIENT);
        let held = slots.acquire(&client, PATIENCE).await;
        let hurry = CancellationToken::new();
        let joined = Urgency::until_hurried(Priority::Ahead, hurry.clone());
        let mut joined = Box::pin(slots.acquire(&joined, PATIENCE));
        assert!(joined.as_mut().now_or_never().is_none());
        hurry.cancel();
        assert!(joined.as_mut().now_or_never().is_none());
        let other = Urgency::fixed(Priority::Revalidation);
        let mut other = Box::pin(slots.acquire(&other, PATIENCE));
        assert!(other.as_mut().now_or_never().is_none());
        drop(held);
        assert!(joined.as_mut().now_or_never().flatten().is_some());
        assert!(other.await.is_some());
        assert_eq!(slots.lock().free, 1);
    }
}
