//! Use case: a bundle is taken in, wholly or not at all.
//!
//! What comes is verified and made durable under temporary names, item by item, in bounded memory. Only when
//! the bundle has ended, and everything in it agrees, is it renamed into place, and one transaction says what
//! it is. A process that is killed before leaves temporary files, which the next one removes; one that is killed
//! between leaves whole content that no repository has shown to have, and nobody is served.

mod adopt;
mod audit;
mod error;
mod learn;
mod outcome;
mod read;
mod room;
mod stage;

use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use crate::metadata::{TagFate, TagRule};
pub use error::ImportError;
pub(super) use outcome::ImportOutcome;

use self::adopt::Adoption;
use self::outcome::Count;
use self::stage::stage;
use super::Evicted;
use super::core::Core;
use crate::bundle::PublicKey;
use crate::oci::Digest;

/// How a bundle is to be taken in.
#[derive(Clone, Debug, Default)]
pub struct ImportOrder {
    /// Keys of which one has to have signed it, beside what the configuration says; none where everything will do.
    pub keys: Vec<PublicKey>,
    /// What becomes of tags that this node has seen elsewhere.
    pub tags: TagRule,
}

/// What an import came to.
#[derive(Clone, Debug)]
pub struct Imported {
    /// The bundle.
    pub id: Digest,
    /// The key that it is signed with.
    pub signed_by: Option<PublicKey>,
    /// Its images, and signatures whose tags stay elsewhere.
    pub images: Vec<ImportedImage>,
    /// How many items it holds.
    pub items: u64,
    /// How much these are, in bytes.
    pub bytes: u64,
    /// How many of them were not here.
    pub new_items: u64,
    /// How much those are, in bytes.
    pub new_bytes: u64,
    /// What had to go for it.
    pub evicted: Evicted,
}

/// An image that is here now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportedImage {
    /// Its name in full.
    pub name: String,
    /// Its manifest or index.
    pub digest: Digest,
    /// What became of its tag; `None` where it has none.
    pub tag: Option<TagFate>,
}

/// Whose turn it is, one bundle at a time; and whose bundles are taken in.
pub(super) struct Turn {
    turn: Arc<Semaphore>,
    keys: ArcSwap<Vec<PublicKey>>,
}

impl Default for Turn {
    fn default() -> Self {
        Self { turn: Arc::new(Semaphore::new(1)), keys: ArcSwap::default() }
    }
}

impl Turn {
    /// Takes only bundles in from now on that are signed with one of these keys; without any, all.
    pub(super) fn replace_keys(&self, keys: Vec<PublicKey>) {
        self.keys.store(Arc::new(keys));
    }
}

/// Imports; see [`super::Registry::import`].
pub(super) async fn run<S>(core: &Arc<Core>, order: ImportOrder, source: S) -> Result<Imported, ImportError>
where
    S: Stream<Item = std::io::Result<Bytes>> + Send + Unpin,
{
    let count = Count::new(&core.metrics.bundles);
    let (turn, adoption) = match prepare(core, order, source).await {
        Ok(prepared) => prepared,
        Err(error) => {
            let ended = Err(error);
            count.end(&ended);
            return ended;
        }
    };
    // Who asked for it may leave: what has begun to be visible is brought to its end.
    let adopted = core.tasks.spawn(async move {
        let _turn = turn;
        let ended = Box::pin(adoption.run()).await;
        count.end(&ended);
        ended
    });
    adopted.await.unwrap_or(Err(ImportError::Internal))
}

/// Reads a bundle to its end, in its turn.
async fn prepare<S>(
    core: &Arc<Core>,
    order: ImportOrder,
    source: S,
) -> Result<(OwnedSemaphorePermit, Adoption), ImportError>
where
    S: Stream<Item = std::io::Result<Bytes>> + Send + Unpin,
{
    let turn = Arc::clone(&core.imports.turn).try_acquire_owned();
    let turn = turn.map_err(|_taken| ImportError::Busy)?;
    let required = core.imports.keys.load_full();
    let staged = stage(core, [&required, &order.keys], source).await.inspect_err(|error| {
        if let ImportError::Store(error) = error {
            core.report_disk(error);
        }
    })?;
    Ok((turn, Adoption::new(core, staged, order.tags)))
}
