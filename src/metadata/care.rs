//! How the index itself does.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Notify;

use super::Result;

/// Looks after the index.
#[async_trait]
pub trait IndexCare: Send + Sync {
    /// The signal that something read or written told of damage: [`IndexCare::find_damage`] tells how it is.
    fn doubt_signal(&self) -> Arc<Notify>;

    /// Looks through all of it, as it is on the disk, and says what is damaged, in words for the operator.
    async fn find_damage(&self) -> Result<Option<String>>;

    /// Sets it aside as it is, and begins a new one in its place; gives the name of what was set aside, of which
    /// the latest few are kept. Whoever uses it meanwhile fails.
    ///
    /// After an error, and where this is dropped at an await point, everything fails until it is called again.
    async fn begin_anew(&self) -> Result<PathBuf>;
}
