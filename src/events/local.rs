//! Events within one process.

use async_trait::async_trait;
use tokio::sync::broadcast;

use super::{Event, Events};

/// How many events a slow listener may lag behind.
const CAPACITY: usize = 1024;

/// The in-process implementation.
#[derive(Debug)]
pub struct LocalEvents(broadcast::Sender<Event>);

impl Default for LocalEvents {
    fn default() -> Self {
        Self(broadcast::channel(CAPACITY).0)
    }
}

#[async_trait]
impl Events for LocalEvents {
    async fn publish(&self, event: Event) {
        // An error only says that nobody listens.
        let _listeners = self.0.send(event);
    }

    fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.0.subscribe()
    }
}
