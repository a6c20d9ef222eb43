//! Getting a manifest: from memory, from disk, or from upstream, verified and kept.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::core::Core;
use super::integrity::{Damage, FoundBy};
use super::memory::StoredManifest;
use super::repository::Repository;
use crate::blobs::{BlobError, BlobFile};
use crate::metadata::{
    AccessProof, ContentKind, ContentRecord, ObservedTag, PullRecord, Segment, TagObservation,
};
use crate::oci::{AcceptClass, Algorithm, Descriptor, Digest, Manifest, MediaType, Reference, Tag};
use crate::upstream::{FetchedManifest, UpstreamError, Urgency};

/// Manifests up to this many bytes are hashed and parsed in well under half a millisecond.
const SHORT_BYTES: usize = 64 * 1024;

/// How long a client waits for its manifest to be kept.
const STORE_PATIENCE: Duration = Duration::from_millis(1500);

/// A manifest that was just fetched.
#[derive(Clone, Debug)]
pub(super) struct Acquired {
    pub(super) manifest: Arc<StoredManifest>,
    /// Whether it is kept.
    pub(super) stored: bool,
}

/// Finds a manifest on this node. Its digest is compared whenever it comes from the disk: one that was
/// altered there is removed and counts as missing.
pub(super) async fn find_stored(core: &Core, digest: &Digest) -> Option<Arc<StoredManifest>> {
    match core.memory.manifests.get(digest) {
        Some(manifest) => Some(manifest),
        // Boxed: what is found in memory does not carry the room for it.
        None => Box::pin(load_stored(core, digest)).await,
    }
}

/// Brings a manifest from the disk into memory.
async fn load_stored(core: &Core, digest: &Digest) -> Option<Arc<StoredManifest>> {
    let manifest = match read(core, digest).await {
        Ok(Read::Manifest(manifest)) => Arc::new(manifest),
        Ok(Read::Other) => return None,
        Ok(Read::Nothing) => {
            core.condemn_missing(digest, FoundBy::Pull).await;
            return None;
        }
        Ok(Read::Damaged(damage, file)) => {
            core.condemn(digest, damage, FoundBy::Pull, Some(&file)).await;
            return None;
        }
        Err(error) => {
            core.report_disk(&error);
            return None;
        }
    };
    core.memory.manifests.insert(*digest, Arc::clone(&manifest));
    Some(manifest)
}

/// What the disk has under a digest.
enum Read {
    Manifest(StoredManifest),
    /// What is no manifest.
    Other,
    /// A file that is not what it should be.
    Damaged(Damage, BlobFile),
    Nothing,
}

/// Reads a manifest from the disk, with its size and digest compared. A damaged one is left to those who serve it.
pub(super) async fn read_stored(core: &Core, digest: &Digest) -> Result<Option<StoredManifest>, BlobError> {
    Ok(match read(core, digest).await? {
        Read::Manifest(manifest) => Some(manifest),
        Read::Other | Read::Damaged(..) | Read::Nothing => None,
    })
}

async fn read(core: &Core, digest: &Digest) -> Result<Read, BlobError> {
    let Some(file) = core.blobs.open(digest).await? else { return Ok(Read::Nothing) };
    let record = core.index.find_content(digest).await.ok().flatten();
    if record.as_ref().is_some_and(|record| record.kind == ContentKind::Blob) {
        return Ok(Read::Other);
    }
    let found_bytes = file.size_bytes();
    if let Some(expected_bytes) = record.as_ref().map(|record| record.size_bytes)
        && expected_bytes != found_bytes
    {
        return Ok(Read::Damaged(Damage::of_size(expected_bytes, found_bytes), file));
    }
    let length = usize::try_from(found_bytes).unwrap_or(usize::MAX);
    if length > Manifest::MAX_BYTES {
        return Ok(Read::Other);
    }
    let body = file.read_exact_at(0, length).await?;
    if !is_of(core, digest, &body).await {
        return Ok(Read::Damaged(Damage::Altered, file));
    }
    let recorded = record.and_then(|record| record.media_type);
    let media_type =
        recorded.or_else(|| Manifest::parse(&body).ok().and_then(|manifest| manifest.media_type));
    let manifest = media_type.map(|media_type| StoredManifest { digest: *digest, media_type, body });
    Ok(manifest.map_or(Read::Other, Read::Manifest))
}

/// Fetches a manifest, verifies it, keeps it, and records what it proves.
pub(super) async fn fetch(
    core: &Core,
    urgency: &Urgency,
    repository: &Repository,
    reference: &Reference,
    class: &AcceptClass,
) -> Result<Acquired, UpstreamError> {
    let fetched = repository.upstream.fetch_manifest(urgency, repository.name(), reference, class).await?;
    let (fetched, view, identity) = examine(core, reference, fetched).await;
    let identity = identity.map_err(|reason| {
        core.metrics.integrity_failure("manifest");
        UpstreamError::Broken { upstream: repository.upstream.config().name.clone(), reason }
    })?;
    let manifest = Arc::new(StoredManifest {
        digest: identity.digest,
        media_type: identity.media_type,
        body: fetched.body,
    });
    if !identity.is_verified {
        return Ok(Acquired { manifest, stored: false });
    }
    let stored = match store(core, &manifest).await {
        Ok(()) => true,
        Err(error) => {
            core.report_disk(&error);
            false
        }
    };
    let tag = match reference {
        Reference::Tag(tag) => Some((tag, class)),
        Reference::Digest(_) => None,
    };
    record(core, repository, &manifest, view.as_ref(), tag, stored).await;
    core.memory.manifests.insert(manifest.digest, Arc::clone(&manifest));
    core.images.note_change();
    Ok(Acquired { manifest, stored })
}

/// Parses and identifies a fetched manifest; a long one where that may block.
async fn examine(
    core: &Core,
    reference: &Reference,
    fetched: FetchedManifest,
) -> (FetchedManifest, Option<Manifest>, Result<Identity, String>) {
    let look = |reference: &Reference, fetched: &FetchedManifest| {
        let view = Manifest::parse(&fetched.body).ok();
        let identity = identify(reference, fetched, view.as_ref());
        (view, identity)
    };
    let (view, identity) = if fetched.body.len() <= SHORT_BYTES {
        look(reference, &fetched)
    } else {
        let (reference, fetched) = (reference.clone(), fetched.clone());
        let looked = core.tasks.spawn_blocking(move || look(&reference, &fetched)).await;
        looked.unwrap_or_else(|_panic| (None, Err("the manifest cannot be read".to_owned())))
    };
    (fetched, view, identity)
}

/// Whether content has a digest; long content is hashed where that may block.
async fn is_of(core: &Core, digest: &Digest, body: &Bytes) -> bool {
    if body.len() <= SHORT_BYTES {
        return Digest::of(digest.algorithm(), body) == *digest;
    }
    let (digest, body) = (*digest, body.clone());
    let compared = core.tasks.spawn_blocking(move || Digest::of(digest.algorithm(), &body) == digest);
    compared.await.unwrap_or(false)
}

/// Records that upstream confirmed where a tag points.
pub(super) async fn record_tag(
    core: &Core,
    repository: &Repository,
    (tag, class): (&Tag, &AcceptClass),
    observation: TagObservation,
) {
    if let Err(error) = core.index.record_tag(&repository.id, tag, class, &observation).await {
        core.report_metadata(&error);
    }
    core.memory.tags.insert((repository.id.clone(), tag.clone(), class.clone()), Some(observation));
}

struct Identity {
    digest: Digest,
    media_type: MediaType,
    /// Whether the digest is that of the bytes. Only then may it be kept.
    is_verified: bool,
}

/// Finds out what a fetched manifest is; the error says what is wrong with it.
fn identify(
    reference: &Reference,
    fetched: &FetchedManifest,
    view: Option<&Manifest>,
) -> Result<Identity, String> {
    let stated = fetched.head.media_type.clone().filter(is_telling);
    let media_type = stated
        .or_else(|| view.and_then(|view| view.media_type.clone()))
        .ok_or_else(|| "the answer is no manifest".to_owned())?;
    let asked = match reference {
        Reference::Digest(digest) => Some(*digest),
        Reference::Tag(_) => None,
    };
    let claimed = asked.or(fetched.head.digest);
    if claimed.is_none() && view.is_none() {
        // Nothing says what it is but its type: an empty body, a message, a part of a manifest.
        return Err("the answer is no manifest".to_owned());
    }
    let agrees = claimed.is_none_or(|claimed| Digest::of(claimed.algorithm(), &fetched.body) == claimed);
    if !agrees && media_type.is_schema1() {
        // The digest of a signed schema 1 manifest leaves the signatures out: it passes, unkept.
        let digest = claimed.unwrap_or_else(|| Digest::of(Algorithm::Sha256, &fetched.body));
        return Ok(Identity { digest, media_type, is_verified: false });
    }
    if !agrees {
        return Err("the manifest's content does not have the digest that was asked for or stated".to_owned());
    }
    let digest = asked.unwrap_or_else(|| Digest::of(Algorithm::Sha256, &fetched.body));
    Ok(Identity { digest, media_type, is_verified: true })
}

/// Whether a `Content-Type` says more than that there is some text.
pub(super) fn is_telling(media_type: &MediaType) -> bool {
    !matches!(
        media_type.as_str(),
        "application/json" | "application/octet-stream" | "text/plain" | "text/html" | "binary/octet-stream"
    )
}

/// Keeps a manifest. The client waits for it, so a disk that does not answer in time is not waited for; what it
/// then does all the same is listed in the index later.
async fn store(core: &Core, manifest: &StoredManifest) -> Result<(), BlobError> {
    let too_slow = || BlobError::from_io("keep manifest", std::io::ErrorKind::TimedOut.into());
    if core.disk.is_slow() {
        return Err(too_slow());
    }
    let stored =
        tokio::time::timeout(STORE_PATIENCE, write(core, &manifest.digest, manifest.body.clone())).await;
    stored.unwrap_or_else(|_elapsed| {
        core.disk.note_unlisted();
        Err(too_slow())
    })
}

/// Writes content that is all at hand.
pub(super) async fn write(core: &Core, digest: &Digest, body: Bytes) -> Result<(), BlobError> {
    let file = core.blobs.begin(digest, Some(body.len() as u64)).await?;
    let file = file.append(vec![body]).await?;
    file.verify()?.commit().await?;
    Ok(())
}

async fn record(
    core: &Core,
    repository: &Repository,
    manifest: &StoredManifest,
    view: Option<&Manifest>,
    tag: Option<(&Tag, &AcceptClass)>,
    stored: bool,
) {
    let now = core.clock.now();
    let size_bytes = manifest.body.len() as u64;
    let observation = TagObservation {
        digest: manifest.digest,
        media_type: manifest.media_type.clone(),
        size_bytes,
        checked_at: now,
        missing_since: None,
    };
    let proofs = proofs(manifest, view);
    if !stored {
        core.record_proofs(&repository.id, proofs).await;
        if let Some(tag) = tag {
            record_tag(core, repository, tag, observation).await;
        }
        return;
    }
    let content = ContentRecord {
        digest: manifest.digest,
        kind: ContentKind::Manifest,
        size_bytes,
        media_type: Some(manifest.media_type.clone()),
        stored_at: now,
        last_used_at: now,
        segment: Segment::Probation,
    };
    let observed = tag.map(|(tag, class)| ObservedTag {
        tag: tag.clone(),
        class: class.clone(),
        observation: observation.clone(),
    });
    let pulled = PullRecord { content, proofs, tag: observed };
    let recorded = core.index.record_pull(&repository.id, &pulled).await;
    if recorded.is_err() {
        core.disk.note_unlisted();
    }
    core.remember_proofs(&repository.id, pulled.proofs, &recorded);
    if let Some((tag, class)) = tag {
        core.memory.tags.insert((repository.id.clone(), tag.clone(), class.clone()), Some(observation));
    }
    core.evictor.note_stored(size_bytes);
}

/// What a repository shows by having a manifest: the manifest itself, and all that it lists.
fn proofs(manifest: &StoredManifest, view: Option<&Manifest>) -> Vec<AccessProof> {
    let proof = |kind: ContentKind, descriptor: &Descriptor| AccessProof {
        digest: descriptor.digest,
        kind,
        size_bytes: descriptor.size_bytes,
        media_type: Some(descriptor.media_type.clone()),
    };
    let own = AccessProof {
        digest: manifest.digest,
        kind: ContentKind::Manifest,
        size_bytes: Some(manifest.body.len() as u64),
        media_type: Some(manifest.media_type.clone()),
    };
    let listed = view.into_iter().flat_map(|view| {
        let manifests = view.manifests.iter().map(|child| proof(ContentKind::Manifest, child));
        manifests.chain(view.blobs.iter().map(|blob| proof(ContentKind::Blob, blob)))
    });
    std::iter::once(own).chain(listed).collect()
}
