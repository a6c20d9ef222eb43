//! What the hit path needs, in memory: bounded by bytes, filled from index and disk.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use moka::future::Cache;
use moka::sync;

use crate::metadata::{AccessProof, ContentKind, RepositoryId, TagObservation};
use crate::oci::{AcceptClass, Digest, MediaType, Reference, Tag};
use crate::runtime::{Clock, Timestamp};
use crate::upstream::UpstreamError;

/// How long an upstream that could not answer is not asked again where something else can serve.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(5);

/// How long after a failure no client is made to wait for upstream where something else can serve: it is
/// asked in the background.
const TROUBLE_LASTS: Duration = Duration::from_mins(1);

/// How long a refusal is remembered at most: rights and credentials are mended by hand, and who mends
/// them tries at once.
const REFUSED_FOR: Duration = Duration::from_secs(2);

/// Roughly what an entry costs beside the bytes that it holds.
const OVERHEAD: usize = 200;

/// A manifest as stored: bytes and type.
#[derive(Debug)]
pub(super) struct StoredManifest {
    pub(super) digest: Digest,
    pub(super) media_type: MediaType,
    pub(super) body: Bytes,
}

/// The question that a tag observation answers.
pub(super) type TagKey = (RepositoryId, Tag, AcceptClass);

/// The question that a proof answers.
pub(super) type ProofKey = (RepositoryId, ContentKind, Digest);

/// What was asked and failed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Question {
    Manifest(RepositoryId, Reference, AcceptClass),
    Blob(RepositoryId, Digest),
    Referrers(RepositoryId, Digest),
    Tags(RepositoryId),
}

/// The caches of the hit path.
pub(super) struct Memory {
    pub(super) manifests: sync::Cache<Digest, Arc<StoredManifest>>,
    /// Blobs so small that they are not worth the way to their files.
    pub(super) small_blobs: Cache<Digest, Bytes>,
    /// What the index says of a tag, also that it says nothing: clients that read no indexes look for two.
    pub(super) tags: sync::Cache<TagKey, Option<TagObservation>>,
    pub(super) proofs: sync::Cache<ProofKey, AccessProof>,
    /// Sizes of stored blobs in bytes, as the index says; a digest's size never changes.
    pub(super) sizes: Cache<Digest, u64>,
    failures: Cache<Question, (UpstreamError, Timestamp)>,
    clock: Clock,
}

/// A failure that says something about upstream only, seen by a question that something kept can answer.
#[derive(Clone, Debug)]
pub(super) struct Trouble {
    pub(super) error: UpstreamError,
    /// Whether it is time to ask again, in the background.
    pub(super) is_due: bool,
}

impl Memory {
    /// Caches of `budget_bytes` together, roughly.
    pub(super) fn new(budget_bytes: u64, clock: Clock) -> Self {
        let share = |part: u64| budget_bytes / 100 * part;
        Self {
            manifests: sync::Cache::builder()
                .max_capacity(share(45))
                .weigher(|_, manifest: &Arc<StoredManifest>| weight(manifest.body.len()))
                .build(),
            small_blobs: Cache::builder()
                .max_capacity(share(15))
                .weigher(|_, bytes: &Bytes| weight(bytes.len()))
                .build(),
            tags: sync::Cache::builder()
                .max_capacity(share(15))
                .weigher(|(repository, tag, _): &TagKey, _| {
                    weight(repository.name.as_str().len() + tag.as_str().len())
                })
                .build(),
            proofs: sync::Cache::builder()
                .max_capacity(share(15))
                .weigher(|(repository, ..): &ProofKey, _| weight(repository.name.as_str().len()))
                .build(),
            sizes: Cache::builder().max_capacity(share(5)).weigher(|_, _| weight(0)).build(),
            failures: Cache::builder().max_capacity(share(5)).weigher(|_, _| weight(200)).build(),
            clock,
        }
    }

    /// The failure that is remembered for a question, while its time lasts.
    pub(super) async fn find_failure(&self, question: &Question) -> Option<UpstreamError> {
        let (error, until) = self.failures.get(question).await?;
        (self.clock.now() < until).then_some(error)
    }

    /// The trouble that is remembered for a question. It is over when the question is answered.
    pub(super) async fn find_trouble(&self, question: &Question) -> Option<Trouble> {
        let (error, until) = self.failures.get(question).await?;
        let now = self.clock.now();
        let is_over = now >= until.after(TROUBLE_LASTS);
        (error.is_transient() && !is_over).then(|| Trouble { error, is_due: now >= until })
    }

    /// Remembers that a question failed; absence for `negative_for`.
    pub(super) async fn remember_failure(
        &self,
        question: Question,
        error: UpstreamError,
        negative_for: Duration,
    ) {
        let lasts = match &error {
            UpstreamError::Absent { .. } | UpstreamError::Withheld { .. } => negative_for,
            UpstreamError::Forbidden { .. } => negative_for.min(REFUSED_FOR),
            _ => PAUSE_AFTER_FAILURE,
        };
        if !lasts.is_zero() {
            self.failures.insert(question, (error, self.clock.now().after(lasts))).await;
        }
    }

    /// Forgets a failure: the question was answered.
    pub(super) async fn forget_failure(&self, question: &Question) {
        self.failures.invalidate(question).await;
    }

    /// Forgets everything that an event could have invalidated: events were lost.
    pub(super) fn forget_all(&self) {
        self.manifests.invalidate_all();
        self.small_blobs.invalidate_all();
        self.tags.invalidate_all();
        self.proofs.invalidate_all();
        self.sizes.invalidate_all();
        self.failures.invalidate_all();
    }
}

fn weight(bytes: usize) -> u32 {
    u32::try_from(bytes + OVERHEAD).unwrap_or(u32::MAX)
}
