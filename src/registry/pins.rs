//! Use cases: an administrator pins images, and what upstream has deleted is pinned by itself.
//!
//! A pin covers all that is below its index or manifest, and what refers to it, stored or not; the index
//! extends it by what a covered manifest lists that comes later. By tag it follows the tag.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::core::Core;
use super::holdings::find_repository;
use super::image::{Catalogue, Uses};
use super::repository::Repository;
use super::{Names, RegistryError};
use crate::auth::{RequestContext, policy};
use crate::metadata::{ContentKind, PinReason, PinRecord, PinStatus, RepositoryId};
use crate::oci::{Digest, ImagePattern, Reference, Selector, Tag};
use crate::runtime::Timestamp;

/// A pinned image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinnedImage {
    /// The image as any client can spell it: `docker.io/library/nginx:1`.
    pub image: String,
    /// The index or manifest that it stands for now.
    pub digest: Digest,
    /// Why.
    pub reason: PinReason,
    /// Since when.
    pub pinned_at: Timestamp,
    /// How many items are covered, stored or not.
    pub items: u64,
    /// How many of them are stored.
    pub stored: u64,
    /// Their bytes.
    pub stored_bytes: u64,
}

/// Why an image is not pinned, or not set free.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// The text names no image; holds it, and why.
    #[error("{0}")]
    Invalid(String),
    /// Nothing of the image is stored.
    #[error("nothing of {0} is kept here: pull or warm it first")]
    NotHere(String),
    /// There is no such pin.
    #[error("{0} is not pinned: name it as the list of pins does")]
    NotPinned(String),
    /// Pinned content alone, with what of it is still to come, would be over the budget.
    #[error(
        "with it, {pinned_bytes} bytes would be pinned, which is more than storage.max_size \
         ({budget_bytes} bytes): raise that, or unpin something"
    )]
    OverBudget {
        /// What would be pinned.
        pinned_bytes: u64,
        /// The budget.
        budget_bytes: u64,
    },
    /// The name means nothing here, or the index failed.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

impl From<crate::metadata::MetadataError> for PinError {
    fn from(error: crate::metadata::MetadataError) -> Self {
        Self::Registry(error.into())
    }
}

/// Pins an image; see [`super::Registry::pin`].
pub(super) async fn pin(core: &Core, context: &RequestContext, image: &str) -> Result<PinnedImage, PinError> {
    policy::require(context, policy::Action::Push).map_err(RegistryError::from)?;
    let (id, reference) = read(core, image).await?;
    let _turn = core.pin_turn.acquire().await;
    let roots = find_roots(core, &id, &reference).await?;
    let Some(digest) = roots.first().copied() else { return Err(PinError::NotHere(image.to_owned())) };
    let is_new = core.index.find_pin(&id, &reference).await?.is_none();
    let uses = Catalogue::load(core, &id).await?.uses().await;
    let pinned_at = core.clock.now();
    let record = PinRecord { repository: id, reference, digest, reason: PinReason::Order, pinned_at };
    let parts = uses.all_below(&roots);
    cover(core, &record, &parts).await?;
    let stored_bytes = core.index.sum_pinned().await?.bytes;
    let pinned_bytes = stored_bytes.saturating_add(missing_bytes(core, &record.repository, &parts).await?);
    let budget_bytes = core.evictor.budget_bytes();
    if is_new && pinned_bytes > budget_bytes {
        core.index.remove_pin(&record.repository, &record.reference).await?;
        core.evictor.nudge();
        return Err(PinError::OverBudget { pinned_bytes, budget_bytes });
    }
    tracing::info!(repository.name = %record.repository, reference = %record.reference, "image was pinned");
    let pinned = list(core, context).await?;
    let name = spell(&core.names.load(), &record);
    pinned.into_iter().find(|pin| pin.image == name).ok_or(PinError::NotHere(name))
}

/// Removes a pin; see [`super::Registry::unpin`].
pub(super) async fn unpin(core: &Core, context: &RequestContext, image: &str) -> Result<(), PinError> {
    policy::require(context, policy::Action::Delete).map_err(RegistryError::from)?;
    let (id, reference) = read(core, image).await?;
    let _turn = core.pin_turn.acquire().await;
    if !core.index.remove_pin(&id, &reference).await? {
        return Err(PinError::NotPinned(image.to_owned()));
    }
    tracing::info!(repository.name = %id, reference = %reference, "image was unpinned");
    core.evictor.nudge();
    Ok(())
}

/// Lists pins; see [`super::Registry::list_pins`].
pub(super) async fn list(core: &Core, context: &RequestContext) -> Result<Vec<PinnedImage>, RegistryError> {
    policy::require(context, policy::Action::List)?;
    let names = core.names.load_full();
    let report = |status: PinStatus| PinnedImage {
        image: spell(&names, &status.record),
        digest: status.record.digest,
        reason: status.record.reason,
        pinned_at: status.record.pinned_at,
        items: status.items,
        stored: status.stored,
        stored_bytes: status.stored_bytes,
    };
    Ok(core.index.list_pins().await?.into_iter().map(report).collect())
}

/// Pins what a tag is known to point to: upstream has deleted it.
pub(super) async fn keep_deleted(core: &Core, repository: &Repository, tag: &Tag, digest: Digest) {
    let (id, reference) = (repository.id.clone(), Reference::Tag(tag.clone()));
    let kept = async {
        let uses = Catalogue::load(core, &id).await?.uses().await;
        let pinned_at = core.clock.now();
        let reason = PinReason::Deleted;
        let record = PinRecord { repository: id.clone(), reference, digest, reason, pinned_at };
        cover(core, &record, &uses.all_below(&BTreeSet::from([digest]))).await
    };
    match kept.await {
        Ok(()) => {
            tracing::info!(repository.name = %id, tag = %tag, "image was pinned because upstream deleted it");
        }
        Err(error) => {
            let source: &dyn std::error::Error = &error;
            tracing::warn!(repository.name = %id, tag = %tag, error = source, "image cannot be pinned");
        }
    }
}

/// Whether a tag is pinned, for whatever reason.
pub(super) async fn is_pinned(core: &Core, repository: &Repository, tag: &Tag) -> bool {
    core.or_nothing(core.index.find_pin(&repository.id, &Reference::Tag(tag.clone())).await).is_some()
}

/// Has the pin of a tag follow it, in the background: upstream just said where it points. One that was made
/// because upstream had deleted the tag is over.
pub(super) async fn follow(core: &Arc<Core>, repository: &Repository, tag: &Tag, digest: &Digest) {
    let reference = Reference::Tag(tag.clone());
    let pin = core.or_nothing(core.index.find_pin(&repository.id, &reference).await);
    let Some(pin) = pin.filter(|pin| pin.reason == PinReason::Deleted || pin.digest != *digest) else {
        return;
    };
    let core = Arc::clone(core);
    core.tasks.clone().spawn(async move {
        let followed = match pin.reason {
            PinReason::Deleted => set_free(&core, &pin).await,
            PinReason::Order => refresh(&core).await,
        };
        if let Err(error) = followed {
            let source: &dyn std::error::Error = &error;
            tracing::warn!(error = source, "pins cannot follow their tags, it is tried again later");
        }
    });
}

/// Removes a pin of a tag that is back, unless somebody ordered it meanwhile.
async fn set_free(core: &Core, pin: &PinRecord) -> Result<(), RegistryError> {
    let _turn = core.pin_turn.acquire().await;
    if core.index.find_pin(&pin.repository, &pin.reference).await?.as_ref() == Some(pin) {
        core.index.remove_pin(&pin.repository, &pin.reference).await?;
        core.evictor.nudge();
    }
    Ok(())
}

/// Has every pin cover what its reference stands for now: a tag that moved, referrers that came.
pub(super) async fn refresh(core: &Core) -> Result<(), RegistryError> {
    let _turn = core.pin_turn.acquire().await;
    let mut last: Option<(RepositoryId, Uses)> = None;
    for PinStatus { record, .. } in core.index.list_pins().await? {
        let uses = match last.take() {
            Some((id, uses)) if id == record.repository => uses,
            _ => Catalogue::load(core, &record.repository).await?.uses().await,
        };
        let mut roots = find_roots(core, &record.repository, &record.reference).await?;
        let old = core.index.list_pin_parts(&record.repository, &record.reference).await?;
        if roots.is_empty() {
            roots.insert(record.digest);
        }
        let stays = roots.contains(&record.digest);
        let digest = roots.first().copied().filter(|_| !stays).unwrap_or(record.digest);
        let mut parts = uses.all_below(&roots);
        if stays {
            // What cannot be read just now is no reason to let go what it lists.
            parts.extend(&old);
        }
        if digest != record.digest || !parts.iter().eq(&old) {
            cover(core, &PinRecord { digest, ..record.clone() }, &parts).await?;
        }
        last = Some((record.repository, uses));
    }
    Ok(())
}

/// How much is still to come of what a pin covers, as far as the manifests that are here say.
async fn missing_bytes(
    core: &Core,
    id: &RepositoryId,
    parts: &BTreeSet<Digest>,
) -> Result<u64, RegistryError> {
    let mut bytes = 0_u64;
    for digest in parts {
        if core.index.find_content(digest).await?.is_some() {
            continue;
        }
        let proof = core.index.find_proof(id, ContentKind::Blob, digest).await?;
        bytes = bytes.saturating_add(proof.and_then(|proof| proof.size_bytes).unwrap_or(0));
    }
    Ok(bytes)
}

async fn cover(core: &Core, record: &PinRecord, parts: &BTreeSet<Digest>) -> Result<(), RegistryError> {
    let parts: Vec<_> = parts.iter().copied().collect();
    core.index.record_pin(record, &parts).await?;
    // For the metrics.
    core.evictor.nudge();
    Ok(())
}

/// The stored manifests that a reference stands for: a tag may have several, by what clients accept.
async fn find_roots(
    core: &Core,
    id: &RepositoryId,
    reference: &Reference,
) -> Result<BTreeSet<Digest>, RegistryError> {
    let stored: BTreeSet<_> = core.index.list_stored_manifests(id).await?.into_iter().collect();
    let meant: BTreeSet<_> = match reference {
        Reference::Digest(digest) => BTreeSet::from([*digest]),
        Reference::Tag(tag) => {
            let tagged = core.index.list_tagged(id).await?.into_iter();
            tagged.filter(|(other, _)| other == tag).map(|(_, digest)| digest).collect()
        }
    };
    Ok(meant.intersection(&stored).copied().collect())
}

async fn read(core: &Core, image: &str) -> Result<(RepositoryId, Reference), PinError> {
    let pattern: ImagePattern =
        image.parse().map_err(|fault| PinError::Invalid(format!("\"{image}\" names no image: {fault}")))?;
    let Selector::One(reference) = pattern.selector() else {
        return Err(PinError::Invalid(format!("\"{image}\" may be several images: name one")));
    };
    Ok((find_repository(core, pattern.name()).await?, reference.clone()))
}

fn spell(names: &Names, record: &PinRecord) -> String {
    let between = if matches!(record.reference, Reference::Tag(_)) { ':' } else { '@' };
    format!("{}{between}{}", names.client_name(&record.repository), record.reference)
}
