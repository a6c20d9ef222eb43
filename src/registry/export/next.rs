//! What a bundle that is being written wants soon is fetched meanwhile, several blobs at once.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::StreamExt as _;

use super::{ExportedContent, find_proven};
use crate::metadata::ContentKind;
use crate::oci::{Descriptor, Digest, MediaType};
use crate::registry::ahead::{self, Reason};
use crate::registry::core::Core;

/// How many blobs are fetched ahead for one who asks.
const MOST_AHEAD: usize = 8;

/// A blob that will be asked for.
#[derive(Clone, Debug)]
pub struct NextBlob {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size_bytes: u64,
}

/// What is being fetched for exports: each of their questions names most of it again.
#[derive(Default)]
pub(in crate::registry) struct Exports(Mutex<HashSet<Digest>>);

/// A blob that is in hand as long as this lives.
struct InHand {
    core: Arc<Core>,
    blob: NextBlob,
}

impl InHand {
    /// Takes a blob in hand, unless it is.
    fn take(core: &Arc<Core>, blob: &NextBlob) -> Option<Self> {
        let mut exports = core.exports.0.lock().unwrap_or_else(PoisonError::into_inner);
        exports.insert(blob.digest).then(|| Self { core: Arc::clone(core), blob: blob.clone() })
    }

    /// Fetches it, by the turn that what nobody waits for has.
    async fn fetch(self, content: &ExportedContent) {
        let NextBlob { digest, size_bytes } = self.blob;
        let is_here = self.core.blobs.find_size(&digest).await.is_ok_and(|found| found.is_some());
        if is_here || size_bytes > self.core.evictor.budget_bytes() {
            return;
        }
        // What no repository has shown to have comes when it is asked for.
        let proven = find_proven(&self.core, &content.repositories, ContentKind::Blob, &digest).await;
        let Some(repository) = proven else { return };
        let media_type = MediaType::OCTET_STREAM;
        let blob = Descriptor { media_type, digest, size_bytes: Some(size_bytes), platform: None };
        let fetched = ahead::fetch(&self.core, &repository, &blob, Reason::Export, None, |_| {}).await;
        if let Err(failure) = fetched {
            // The fill has logged it; who asks for the blob gets an answer of its own.
            tracing::debug!(blob.digest = %digest, ?failure, "blob is not fetched ahead of an export");
        }
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        let mut exports = self.core.exports.0.lock().unwrap_or_else(PoisonError::into_inner);
        exports.remove(&self.blob.digest);
    }
}

/// Begins to fetch what will be asked for after some content, in that order.
pub(super) fn fetch_ahead(core: &Arc<Core>, content: &ExportedContent) {
    let next = content.next.iter().take(MOST_AHEAD);
    let in_hand: Vec<_> = next.filter_map(|blob| InHand::take(core, blob)).collect();
    if in_hand.is_empty() {
        return;
    }
    let (content, shutdown) = (content.clone(), core.tasks.shutdown_token().clone());
    core.tasks.spawn(async move {
        let fetches = in_hand.into_iter().map(|blob| blob.fetch(&content));
        let fetches = futures_util::stream::iter(fetches).buffer_unordered(MOST_AHEAD);
        let _done = shutdown.run_until_cancelled(fetches.collect::<()>()).await;
    });
}
