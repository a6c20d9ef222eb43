//! Orders to make images complete ahead of time.

use async_trait::async_trait;

use super::Result;
use crate::runtime::Timestamp;

/// One order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WarmRecord {
    /// Tells it from others.
    pub id: String,
    /// The order as the use case serialized it.
    pub body: String,
    /// When it was last begun.
    pub begun_at: Timestamp,
    /// When it was last done; `None` while there is still something to do.
    pub finished_at: Option<Timestamp>,
}

/// Keeps orders beyond the life of a process.
#[async_trait]
pub trait WarmRecords: Send + Sync {
    /// Records an order in place of an earlier one of the same id.
    async fn record_warm(&self, record: &WarmRecord) -> Result<()>;

    /// Finds an order.
    async fn find_warm(&self, id: &str) -> Result<Option<WarmRecord>>;

    /// All orders that are not done, oldest first.
    async fn list_unfinished_warm(&self) -> Result<Vec<WarmRecord>>;

    /// Forgets an order; an unknown one is ignored.
    async fn remove_warm(&self, id: &str) -> Result<()>;
}
