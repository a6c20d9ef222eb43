//! Invalidation between the parts of a node, and later between nodes: a bell, never a record.
//!
//! An event may be lost, repeated or reordered; who hears one looks at `metadata` for what is true.

mod local;

use async_trait::async_trait;
use tokio::sync::broadcast;

pub use local::LocalEvents;

use crate::oci::{Digest, RepositoryName, Tag};

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A tag of a repository points elsewhere, or nowhere.
    TagChanged {
        /// The upstream's name.
        upstream: String,
        /// The repository.
        repository: RepositoryName,
        /// The tag.
        tag: Tag,
    },
    /// Content is no longer stored on the node that says so.
    ContentRemoved {
        /// Its digest.
        digest: Digest,
    },
    /// Much was forgotten at once: rights, tags and content, by order of the administrator.
    Purged,
}

/// Carries events to everybody who listens.
#[async_trait]
pub trait Events: Send + Sync {
    /// Tells all listeners; failing to is logged by the implementation, never an error to callers.
    async fn publish(&self, event: Event);

    /// Hears all events from now on. A listener that lags behind loses the oldest and is told so
    /// by the channel: it then forgets everything that an event could have invalidated.
    fn subscribe(&self) -> broadcast::Receiver<Event>;
}
