//! What all use cases stand on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;

use super::Want;
use super::ahead::Turns;
use super::evict::{Evictor, UseLog};
use super::fill::Fills;
use super::image::Survey;
use super::memory::{Memory, ProofKey, Question};
use super::metrics::RegistryMetrics;
use super::offline::Wishes;
use super::prefetch::Prefetches;
use super::repository::Names;
use super::warm::Warmer;
use crate::blobs::{BlobError, Blobs};
use crate::events::Events;
use crate::metadata::{AccessProof, ContentKind, MetadataError, NodeIndex, RepositoryId};
use crate::oci::Digest;
use crate::runtime::{Clock, SingleFlight, Tasks};
use crate::upstream::UpstreamError;

/// How much is evicted at once when the disk is full, in bytes.
const ROOM_BYTES: u64 = 256 * 1024 * 1024;

/// The services and the state that the use cases share.
pub(super) struct Core {
    pub(super) index: Arc<dyn NodeIndex>,
    pub(super) blobs: Arc<dyn Blobs>,
    pub(super) events: Arc<dyn Events>,
    pub(super) clock: Clock,
    pub(super) tasks: Tasks,
    pub(super) metrics: RegistryMetrics,
    pub(super) evictor: Arc<Evictor>,
    pub(super) uses: Arc<UseLog>,
    /// Whether room is being made on a full disk.
    pub(super) makes_room: Arc<AtomicBool>,
    pub(super) names: ArcSwap<Names>,
    /// What was said at run time of going offline.
    pub(super) wishes: Mutex<Wishes>,
    pub(super) memory: Memory,
    pub(super) fills: Fills,
    pub(super) images: Survey,
    /// Whose turn it is to fetch ahead of time.
    pub(super) turns: Turns,
    pub(super) prefetches: Prefetches,
    pub(super) warmer: Warmer,
    pub(super) manifest_flights: SingleFlight<(Question, Want), super::manifest::Answer>,
    /// Whether a repository has a blob, and how large it is there.
    pub(super) probe_flights: SingleFlight<(RepositoryId, Digest), Result<Option<u64>, UpstreamError>>,
    pub(super) listing_flights: SingleFlight<(Question, String), super::listing::Answer>,
}

impl Core {
    /// Finds the proof that a repository has some content. An index that fails knows of none: it costs a
    /// question to upstream, never the answer.
    pub(super) async fn find_proof(
        &self,
        repository: &RepositoryId,
        kind: ContentKind,
        digest: &Digest,
    ) -> Option<AccessProof> {
        let key = (repository.clone(), kind, *digest);
        match self.memory.proofs.get(&key) {
            Some(proof) => Some(proof),
            // Boxed: what is found in memory does not carry the room for it.
            None => Box::pin(self.read_proof(key)).await,
        }
    }

    async fn read_proof(&self, key: ProofKey) -> Option<AccessProof> {
        let proof = self.or_nothing(self.index.find_proof(&key.0, key.1, &key.2).await)?;
        self.memory.proofs.insert(key, proof.clone());
        Some(proof)
    }

    /// Records proofs. What a failing index does not take is at least remembered.
    pub(super) async fn record_proofs(&self, repository: &RepositoryId, proofs: Vec<AccessProof>) {
        let recorded = self.index.record_proofs(repository, &proofs).await;
        self.remember_proofs(repository, proofs, &recorded);
    }

    /// Brings memory in agreement with proofs that the index was given.
    pub(super) fn remember_proofs(
        &self,
        repository: &RepositoryId,
        proofs: Vec<AccessProof>,
        recorded: &Result<(), MetadataError>,
    ) {
        if let Err(error) = recorded {
            self.report_metadata(error);
        }
        for proof in proofs {
            let key = (repository.clone(), proof.kind, proof.digest);
            if recorded.is_ok() {
                // The index may know more of it than this proof says: read back, not kept.
                self.memory.proofs.invalidate(&key);
            } else {
                self.memory.proofs.insert(key, proof);
            }
        }
    }

    /// What the index found; nothing where it fails.
    pub(super) fn or_nothing<T: Default>(&self, found: Result<T, MetadataError>) -> T {
        found.unwrap_or_else(|error| {
            self.report_metadata(&error);
            T::default()
        })
    }

    /// Counts and logs that the disk failed; what was to be kept passes through. A full disk is given
    /// room by eviction, so that what comes next can be kept again.
    pub(super) fn report_disk(&self, error: &BlobError) {
        self.metrics.disk_failed(error);
        if matches!(error, BlobError::Full { .. }) && !self.makes_room.swap(true, Ordering::Relaxed) {
            let (evictor, makes_room) = (Arc::clone(&self.evictor), Arc::clone(&self.makes_room));
            self.tasks.spawn(async move {
                if let Err(error) = evictor.make_room(ROOM_BYTES).await {
                    tracing::error!(error = %error, "disk is full and nothing can be evicted");
                }
                makes_room.store(false, Ordering::Relaxed);
            });
        }
        tracing::error!(error = %error, source = ?std::error::Error::source(error), "disk cannot keep content, it passes through");
    }

    /// Counts and logs that the index failed; what it does not know will be asked for again.
    pub(super) fn report_metadata(&self, error: &MetadataError) {
        self.metrics.index_failed();
        tracing::error!(error = %error, source = ?std::error::Error::source(error), "index failed, upstream is asked instead");
    }
}
