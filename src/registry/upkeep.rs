//! What the background work on the cache has in common: eviction, rebuild, the log of uses.

use std::sync::Arc;

use crate::blobs::{BlobError, Blobs};
use crate::events::Events;
use crate::metadata::{MetadataError, NodeIndex};
use crate::runtime::Clock;

/// The services that upkeep works on.
#[derive(Clone)]
pub struct CacheParts {
    /// What is said to be stored.
    pub index: Arc<dyn NodeIndex>,
    /// What is stored.
    pub blobs: Arc<dyn Blobs>,
    /// Who is told when content goes.
    pub events: Arc<dyn Events>,
    /// The time.
    pub clock: Clock,
}

/// Why upkeep stopped; what it had done by then stays done, and it can be run again at any time.
#[derive(Debug, thiserror::Error)]
pub enum UpkeepError {
    /// The index could not be read or written.
    #[error("look after the cache: index")]
    Index(#[from] MetadataError),
    /// The disk could not be read or written.
    #[error("look after the cache: blobs")]
    Blobs(#[source] Box<BlobError>),
}

impl From<BlobError> for UpkeepError {
    fn from(error: BlobError) -> Self {
        Self::Blobs(Box::new(error))
    }
}

impl UpkeepError {
    /// Whether trying again may help.
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::Index(error) => error.is_transient(),
            // Disks are filled and emptied, mounted and repaired by others.
            Self::Blobs(_) => true,
        }
    }
}
