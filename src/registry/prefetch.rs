//! After a client pulled a manifest that was not here: its blobs are fetched before the client asks for them.
//!
//! The policy is an upstream's (`prefetch`). The answer never waits for it. What an index lists is left alone: the
//! client says which platform it wants by asking for that manifest next.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::sync::Semaphore;

use super::ahead::{self, Fetched, Reason};
use super::core::Core;
use super::fill::FillFailure;
use super::image::is_elsewhere;
use super::memory::StoredManifest;
use super::repository::Repository;
use crate::config::Prefetch;
use crate::oci::{Descriptor, Manifest};

/// How many blobs of one manifest are fetched at once: as many as clients usually ask for.
const AT_ONCE: usize = 3;

/// How many manifests are followed up at once; what comes beyond is left to the clients.
const MOST_MANIFESTS: usize = 32;

/// What is being followed up.
pub(super) struct Prefetches(Arc<Semaphore>);

impl Default for Prefetches {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MOST_MANIFESTS)))
    }
}

/// Begins to fetch what a manifest lists, where the policy says so. A manifest that the node itself asked for is
/// none of its business.
pub(super) fn follow_up(core: &Arc<Core>, repository: &Repository, manifest: &Arc<StoredManifest>) {
    if repository.upstream.config().prefetch == Prefetch::Off || manifest.media_type.is_index() {
        return;
    }
    let Ok(place) = Arc::clone(&core.prefetches.0).try_acquire_owned() else { return };
    let (core, repository, body) = (Arc::clone(core), repository.clone(), manifest.body.clone());
    let shutdown = core.tasks.shutdown_token().clone();
    core.tasks.clone().spawn(async move {
        let _place = place;
        let _done = shutdown.run_until_cancelled(fetch_blobs(&core, &repository, body)).await;
    });
}

async fn fetch_blobs(core: &Arc<Core>, repository: &Repository, body: Bytes) {
    // Where it may block: manifests may be long.
    let parsed = core.tasks.spawn_blocking(move || Manifest::parse(&body).ok()).await;
    let Some(manifest) = parsed.ok().flatten() else { return };
    let blobs = manifest.blobs.into_iter().filter(|blob| !is_elsewhere(&blob.media_type));
    let fetches = futures_util::stream::iter(blobs).map(|blob| async move {
        if let Err(failure) = fetch_blob(core, repository, &blob).await {
            // The fill has logged it; a client that asks gets an answer of its own.
            tracing::debug!(blob.digest = %blob.digest, ?failure, "blob is not prefetched");
        }
    });
    fetches.buffer_unordered(AT_ONCE).collect::<()>().await;
}

async fn fetch_blob(core: &Arc<Core>, repository: &Repository, blob: &Descriptor) -> Result<(), FillFailure> {
    let is_here = core.blobs.find_size(&blob.digest).await.is_ok_and(|found| found.is_some());
    let is_too_large = blob.size_bytes.is_some_and(|bytes| bytes > core.evictor.budget_bytes());
    if is_here || is_too_large {
        return Ok(());
    }
    let Some(Fetched { bytes, was_joined }) =
        ahead::fetch(core, repository, blob, Reason::Prefetch, None, |_| {}).await?
    else {
        return Ok(());
    };
    let used = core.metrics.prefetch_used();
    if was_joined {
        used.inc_by(bytes);
    } else {
        core.uses.watch(&blob.digest, Box::new(move || used.inc_by(bytes)));
    }
    Ok(())
}
