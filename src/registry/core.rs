//! What all use cases stand on.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use tokio::sync::Semaphore;

use super::Want;
use super::ahead::Turns;
use super::disk::DiskState;
use super::evict::{Evictor, UseLog};
use super::export::Exports;
use super::fill::Fills;
use super::image::Survey;
use super::import::Turn;
use super::integrity::Integrity;
use super::memory::{Memory, ProofKey, Question};
use super::metrics::RegistryMetrics;
use super::offline::Wishes;
use super::prefetch::Prefetches;
use super::repository::Names;
use super::warm::Warmer;
use crate::blobs::Blobs;
use crate::events::Events;
use crate::metadata::{AccessProof, ContentKind, MetadataError, NodeIndex, RepositoryId};
use crate::oci::Digest;
use crate::runtime::{Clock, SingleFlight, Tasks};
use crate::upstream::UpstreamError;

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
    pub(super) disk: DiskState,
    /// Whether room is being made on a full disk.
    pub(super) makes_room: Arc<AtomicBool>,
    pub(super) names: ArcSwap<Names>,
    /// What was said at run time of going offline.
    pub(super) wishes: Mutex<Wishes>,
    pub(super) memory: Memory,
    pub(super) fills: Fills,
    pub(super) images: Survey,
    pub(super) exports: Exports,
    /// Whose turn it is to import.
    pub(super) imports: Turn,
    /// Whose turn it is to fetch ahead of time.
    pub(super) turns: Turns,
    pub(super) prefetches: Prefetches,
    pub(super) warmer: Warmer,
    pub(super) integrity: Integrity,
    /// Whose turn it is to change pins, or to purge: what looks after all pins must not bring back one that is
    /// removed meanwhile, and a purge must not miss a new one.
    pub(super) pin_turn: Semaphore,
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
}
