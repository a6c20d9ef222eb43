//! Use case: a client pulls a blob, or asks how large it is.

use std::ops::Range;
use std::sync::Arc;

use super::blob::Source;
use super::core::Core;
use super::direct::is_clear_of_end;
use super::fill::{Fill, FillFailure, Fills, Phase, Progress};
use super::integrity;
use super::memory::Question;
use super::patience;
use super::stored::{Stored, find_stored, open_whole};
use super::supplier::{HostedStore, Supplier, SupplierError};
use super::{BlobStat, CacheResult, OpenBlob, RegistryError, Repository, Served};
use crate::auth::{RequestContext, policy};
use crate::blobs::BlobFile;
use crate::metadata::{AccessProof, ContentKind, RepositoryId};
use crate::oci::{Digest, RangeSet};
use crate::upstream::{UpstreamError, Urgency};

/// A range that ends within this many bytes from where the fill stands is worth waiting for.
const SOON: u64 = 16 * 1024 * 1024;

/// A larger range is no small one.
const SMALL_RANGE: u64 = 8 * 1024 * 1024;

/// More ranges than this in one request cost more questions than the whole blob.
const FEW_RANGES: usize = 4;

/// How often a request starts over when the fill that it joined belonged to another repository and
/// failed there.
const JOIN_ATTEMPTS: usize = 3;

/// Opens a blob; see [`super::Registry::open_blob`].
pub(super) async fn open(
    core: &Arc<Core>,
    context: &RequestContext,
    repository: &Repository,
    digest: &Digest,
    ranges: Option<&RangeSet>,
) -> Result<OpenBlob, RegistryError> {
    policy::require(context, policy::Action::Pull)?;
    Request::locate(core, repository, digest).await.open(ranges).await
}

/// Opens a blob that the store of hosted content has, for somebody who may have it: the catalogue said so, and how
/// large it is. What is stored here costs the store no question.
pub(super) async fn open_hosted(
    core: &Arc<Core>,
    store: &HostedStore,
    digest: &Digest,
    size_bytes: u64,
    ranges: Option<&RangeSet>,
) -> Result<OpenBlob, RegistryError> {
    let (digest, kind, size_bytes) = (*digest, ContentKind::Blob, Some(size_bytes));
    let proof = Some(AccessProof { digest, kind, size_bytes, media_type: None });
    let supplier = Supplier::Store(store.clone());
    Request { core, supplier, digest, proof }.open(ranges).await
}

/// Tells a blob's size; see [`super::Registry::stat_blob`].
pub(super) async fn stat(
    core: &Arc<Core>,
    context: &RequestContext,
    repository: &Repository,
    digest: &Digest,
) -> Result<BlobStat, RegistryError> {
    policy::require(context, policy::Action::Pull)?;
    let request = Request::locate(core, repository, digest).await;
    if request.proof.is_some() {
        let proven_bytes = request.proven_bytes();
        // A file that the index does not know may be damaged: what the manifest states is the promise.
        let stored = open_whole(core, digest).await.ok().flatten();
        let stored = stored.filter(|file| proven_bytes.is_none_or(|bytes| bytes == file.size_bytes()));
        // While offline, only what is here, or is just coming to the disk, can be promised.
        let is_to_be_had = || request.require_online().is_ok() || core.fills.find(digest).is_some();
        let proven_bytes = proven_bytes.filter(|_| is_to_be_had());
        let size_bytes = stored.as_ref().map(BlobFile::size_bytes).or(proven_bytes);
        if let Some(size_bytes) = size_bytes {
            return Ok(BlobStat { size_bytes, served: request.served(CacheResult::Hit) });
        }
    }
    let Some(size_bytes) = request.confirm().await? else {
        let error = request.supplier.broken("it does not say how large the blob is");
        return Err(RegistryError::from_blob_fetch(error, digest));
    };
    Ok(BlobStat { size_bytes, served: request.served(CacheResult::Miss) })
}

/// One request for one blob.
struct Request<'a> {
    core: &'a Arc<Core>,
    supplier: Supplier,
    digest: Digest,
    /// That the repository has shown that it has the blob; of hosted content, what the catalogue says of it.
    proof: Option<AccessProof>,
}

impl<'a> Request<'a> {
    /// Finds which repository a blob is asked of, and its proof. Lazy pullers leave out which registry
    /// they mean: where the default upstream has shown nothing, another one's repository of that name
    /// that has the blob is meant.
    async fn locate(core: &'a Arc<Core>, repository: &Repository, digest: &Digest) -> Self {
        let request = |repository, proof| Self {
            core,
            supplier: Supplier::Upstream(repository),
            digest: *digest,
            proof,
        };
        let proof = core.find_proof(&repository.id, ContentKind::Blob, digest).await;
        if proof.is_some() || repository.explicit {
            return request(repository.clone(), proof);
        }
        let names = core.names.load_full();
        let found = core.index.list_upstreams_with_blob(repository.name(), digest).await;
        for upstream in core.or_nothing(found) {
            let id = RepositoryId { upstream: upstream.into(), name: repository.name().clone() };
            if let Some(other) = names.find_repository(&id) {
                let proof = core.find_proof(&other.id, ContentKind::Blob, digest).await;
                return request(other, proof);
            }
        }
        request(repository.clone(), None)
    }

    async fn open(&self, ranges: Option<&RangeSet>) -> Result<OpenBlob, RegistryError> {
        let stored = find_stored(self.core, &self.digest).await.unwrap_or_else(|error| {
            // A fill replaces what cannot be read.
            self.core.report_disk(&error);
            None
        });
        if let Some(stored) = stored
            && (self.agrees_with(&stored) || Box::pin(self.settle_doubt(&stored)).await)
        {
            return self.open_stored(stored).await;
        }
        if self.proof.is_none() {
            self.require_online()?;
        }
        // With a proof, a fill is joined or begun also while offline: its bytes may all be there, and only the
        // disk not be done with them.
        self.require_no_failure().await?;
        self.open_missing(ranges).await
    }

    /// The size that the proof states.
    fn proven_bytes(&self) -> Option<u64> {
        self.proof.as_ref().and_then(|proof| proof.size_bytes)
    }

    /// Whether stored content has the size that its manifest states, if any does. What is in memory was hashed.
    fn agrees_with(&self, stored: &Stored) -> bool {
        matches!(stored, Stored::Small(_))
            || self.proven_bytes().is_none_or(|bytes| bytes == stored.size_bytes())
    }

    /// Finds out who is wrong about the size, the manifest or the disk. An index that was built anew has sizes from
    /// the disk, and knows no better.
    async fn settle_doubt(&self, stored: &Stored) -> bool {
        let is_sound = integrity::is_sound(self.core, &self.digest).await;
        if is_sound && let Some(repository) = self.supplier.repository() {
            let (digest, size_bytes) = (self.digest, Some(stored.size_bytes()));
            let proof = AccessProof { digest, kind: ContentKind::Blob, size_bytes, media_type: None };
            self.core.record_proofs(&repository.id, vec![proof]).await;
        }
        is_sound
    }

    /// Serves from the store, once the repository has shown that it has the blob.
    async fn open_stored(&self, stored: Stored) -> Result<OpenBlob, RegistryError> {
        let mut result = CacheResult::Hit;
        if self.proof.is_none() {
            self.confirm().await?;
            result = CacheResult::Revalidated;
        }
        self.core.uses.note_use(&self.digest);
        let size_bytes = Some(stored.size_bytes());
        Ok(self.opened(Source::Stored(stored), size_bytes, self.served(result)))
    }

    async fn open_missing(&self, ranges: Option<&RangeSet>) -> Result<OpenBlob, RegistryError> {
        if let Some(size_bytes) = self.proven_bytes() {
            if size_bytes > self.core.evictor.budget_bytes() {
                return self.pass_through(Some(size_bytes)).await;
            }
            let running = self.core.fills.find(&self.digest);
            let readable_bytes = running.map_or(0, |fill| fill.progress().borrow().readable_bytes());
            if ranges.is_some_and(|ranges| are_far_ahead(ranges, size_bytes, readable_bytes)) {
                let served = self.served(CacheResult::Bypass);
                return Ok(self.opened(Source::Ranges, Some(size_bytes), served));
            }
        }
        self.join_fill().await
    }

    /// Joins the fill of the digest, whoever's it is, or starts one. What another repository's upstream
    /// answers says nothing about this one: neither that it has the blob, nor that it has not.
    async fn join_fill(&self) -> Result<OpenBlob, RegistryError> {
        let proven_bytes = self.proven_bytes();
        for _ in 0..JOIN_ATTEMPTS {
            let (fill, started) = Fills::join_or_start(self.core, &self.supplier, &self.digest, proven_bytes);
            let is_own = fill.supplier.is(&self.supplier);
            let answered = match patience::for_a_supply(&self.supplier, fill.answered()).await {
                // An upstream that is slow is not the store's fault.
                Err(SupplierError::Store(_)) if !is_own => break,
                answered => answered.map_err(|slow| RegistryError::from_blob_fetch(slow, &self.digest))?,
            };
            match answered {
                Ok(progress) => return self.open_filling(fill, started, progress).await,
                // It was nobody's yet, and not urgent enough to be asked for.
                Err(failure) if failure.was_spared() => {}
                Err(failure) if failure.leaves_supplier() => break,
                Err(failure) if is_own => {
                    if let FillFailure::Upstream(error) = &failure {
                        self.remember(error).await;
                    }
                    return Err(failure.into_error(&self.digest));
                }
                Err(_of_another) => {}
            }
        }
        self.pass_through(proven_bytes).await
    }

    async fn open_filling(
        &self,
        fill: Arc<Fill>,
        started: bool,
        progress: Progress,
    ) -> Result<OpenBlob, RegistryError> {
        let comes_from_here = !progress.is_from_store && fill.supplier.is(&self.supplier);
        let is_proven = self.proof.is_some() || comes_from_here;
        let own_bytes = if is_proven { self.proven_bytes() } else { self.confirm().await? };
        if !fill.suits(&self.supplier, own_bytes, &progress) {
            return self.pass_through(own_bytes).await;
        }
        let result = match (&progress.phase, started) {
            _ if !is_proven => CacheResult::Revalidated,
            _ if progress.is_from_store => CacheResult::Hit,
            (_, true) => CacheResult::Miss,
            // All there and verified; only the disk is not done with it.
            (Phase::Verified, false) => CacheResult::Hit,
            (_, false) => CacheResult::Collapsed,
        };
        let served = Served { stored: true, ..self.served(result) };
        Ok(self.opened(Source::Filling(fill), progress.size_bytes, served))
    }

    /// Serves without the disk.
    async fn pass_through(&self, size_bytes: Option<u64>) -> Result<OpenBlob, RegistryError> {
        let size_bytes = match size_bytes {
            Some(size_bytes) => Some(size_bytes),
            None => self.confirm().await?,
        };
        Ok(self.opened(Source::Direct, size_bytes, self.served(CacheResult::Bypass)))
    }

    /// Has upstream say that the repository has the blob; gives its size where upstream says. Whoever
    /// asks the same meanwhile gets the same answer.
    async fn confirm(&self) -> Result<Option<u64>, RegistryError> {
        // The catalogue has said of what is hosted.
        let Some(repository) = self.supplier.repository() else { return Ok(self.proven_bytes()) };
        self.require_online()?;
        self.require_no_failure().await?;
        let key = (repository.id.clone(), self.digest);
        let (core, asked, digest) = (Arc::clone(self.core), repository.clone(), self.digest);
        let probe = move || async move {
            let size_bytes = asked.upstream.probe_blob(&Urgency::CLIENT, asked.name(), &digest).await?;
            let proof = AccessProof { digest, kind: ContentKind::Blob, size_bytes, media_type: None };
            core.record_proofs(&asked.id, vec![proof]).await;
            Ok(size_bytes)
        };
        let probed = patience::for_a_miss(repository, self.core.probe_flights.run(key, probe)).await;
        let probed = probed.map_err(|slow| RegistryError::from_blob_fetch(slow, &self.digest))?;
        let probed = probed.ok_or(RegistryError::Internal)?;
        match probed.into_inner() {
            Ok(size_bytes) => Ok(size_bytes),
            Err(error) => {
                self.remember(&error).await;
                Err(RegistryError::from_blob_fetch(error, &self.digest))
            }
        }
    }

    /// What is asked of an upstream.
    fn question(&self) -> Option<Question> {
        self.supplier.repository().map(|repository| Question::Blob(repository.id.clone(), self.digest))
    }

    /// Fails at once where this node is offline for the upstream.
    fn require_online(&self) -> Result<(), RegistryError> {
        let Some(repository) = self.supplier.repository() else { return Ok(()) };
        let online = repository.upstream.require_online();
        online.map_err(|error| RegistryError::from_blob_fetch(error, &self.digest))
    }

    /// Fails at once where upstream said lately that there is no such blob.
    async fn require_no_failure(&self) -> Result<(), RegistryError> {
        let Some(question) = self.question() else { return Ok(()) };
        match self.core.memory.find_failure(&question).await {
            Some(error) => Err(RegistryError::from_blob_fetch(error, &self.digest)),
            None => Ok(()),
        }
    }

    async fn remember(&self, error: &UpstreamError) {
        if let (Some(repository), Some(question)) = (self.supplier.repository(), self.question())
            && !error.is_transient()
        {
            let negative_for = repository.upstream.config().freshness.negative_for;
            self.core.memory.remember_failure(question, error.clone(), negative_for).await;
        }
    }

    fn opened(&self, source: Source, size_bytes: Option<u64>, served: Served) -> OpenBlob {
        OpenBlob {
            digest: self.digest,
            size_bytes,
            served,
            core: Arc::clone(self.core),
            supplier: self.supplier.clone(),
            source,
        }
    }

    fn served(&self, result: CacheResult) -> Served {
        Served::new(result, self.supplier.label())
    }
}

/// Whether all ranges are small, few, far ahead of `readable_bytes`, and clear of the end, which is never
/// given unverified.
fn are_far_ahead(ranges: &RangeSet, size_bytes: u64, readable_bytes: u64) -> bool {
    let Ok(ranges) = ranges.resolve(size_bytes) else { return false };
    let is_far = |range: &Range<u64>| {
        range.start >= readable_bytes.saturating_add(SOON)
            && range.end - range.start <= SMALL_RANGE
            && is_clear_of_end(range, size_bytes)
    };
    !ranges.is_empty() && ranges.len() <= FEW_RANGES && ranges.iter().all(is_far)
}
