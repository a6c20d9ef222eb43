//! Gates: a test lets a scripted answer out step by step, instead of sleeping and hoping.

use std::sync::Arc;

use tokio::sync::watch;

/// Holds scripted answers back: the head until it is opened, the body up to a position.
#[derive(Clone)]
pub(crate) struct Gate {
    state: Arc<watch::Sender<State>>,
}

#[derive(Clone, Copy, Default)]
struct State {
    open_to: u64,
    arrivals: usize,
}

impl Gate {
    /// A gate that lets nothing through.
    pub(crate) fn closed() -> Self {
        Self { state: Arc::new(watch::Sender::new(State::default())) }
    }

    /// Lets the bytes before this position of the content through.
    pub(crate) fn release_to(&self, position: u64) {
        self.state.send_modify(|state| state.open_to = state.open_to.max(position));
    }

    /// Lets everything through.
    pub(crate) fn open(&self) {
        self.release_to(u64::MAX);
    }

    /// Waits until so many requests have come to the gate.
    pub(crate) async fn wait_for_arrivals(&self, count: usize) {
        let mut state = self.state.subscribe();
        let waited = state.wait_for(|state| state.arrivals >= count);
        let arrived = tokio::time::timeout(crate::harness::PATIENCE, waited).await;
        assert!(arrived.is_ok(), "{count} requests did not come to the gate in time");
    }

    /// The upstream's side: a request has come.
    pub(super) fn arrive(&self) {
        self.state.send_modify(|state| state.arrivals += 1);
    }

    /// The upstream's side: waits until more than `position` may pass; the position up to which it may.
    pub(super) async fn wait_beyond(&self, position: u64) -> u64 {
        let mut state = self.state.subscribe();
        let state = state.wait_for(|state| state.open_to > position).await.unwrap();
        state.open_to
    }

    /// The upstream's side: waits until the gate is open.
    pub(super) async fn wait_open(&self) {
        self.wait_beyond(u64::MAX - 1).await;
    }
}
