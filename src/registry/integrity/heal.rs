//! Damaged content comes back: from its verified copy in memory, or from an upstream that has it.

use std::sync::Arc;

use bytes::Bytes;

use crate::metadata::{AccessProof, ContentKind, ContentRecord, Segment};
use crate::oci::{Descriptor, Digest, MediaType};
use crate::registry::ahead::{self, Reason};
use crate::registry::core::Core;
use crate::registry::{Repository, acquire, manifest};

/// How content came back, or why it did not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Healed {
    /// From memory.
    Memory,
    /// From upstream.
    Upstream,
    /// Nobody can be asked now; the next pull tries. Says why.
    Unavailable(String),
    /// It was tried in vain; the next pull tries again. Says why.
    Failed(String),
}

impl Healed {
    /// The metric label.
    pub(super) const fn as_str(&self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Upstream => "upstream",
            Self::Unavailable(_) => "unavailable",
            Self::Failed(_) => "failed",
        }
    }

    /// All metric labels.
    pub(super) const LABELS: [&'static str; 4] = ["memory", "upstream", "unavailable", "failed"];
}

/// Has content come back in the background. Waits while too many others do.
pub(super) async fn later(core: &Arc<Core>, record: ContentRecord) {
    let Ok(place) = Arc::clone(&core.integrity.heals).acquire_owned().await else { return };
    let (core, shutdown) = (Arc::clone(core), core.tasks.shutdown_token().clone());
    core.tasks.clone().spawn(async move {
        let _place = place;
        let _done = shutdown.run_until_cancelled(heal(&core, &record)).await;
    });
}

/// Has content come back that was taken out of service.
pub(super) async fn heal(core: &Arc<Core>, record: &ContentRecord) -> Healed {
    let healed = try_all(core, record).await;
    core.metrics.integrity.healed(&healed);
    let digest = &record.digest;
    match &healed {
        Healed::Memory | Healed::Upstream => {
            tracing::info!(content.digest = %digest, from = healed.as_str(), "damaged content is back");
        }
        Healed::Unavailable(reason) => {
            tracing::info!(content.digest = %digest, reason, "damaged content is fetched when it is asked for");
        }
        Healed::Failed(reason) => {
            tracing::warn!(content.digest = %digest, reason, "damaged content cannot be fetched again now");
        }
    }
    healed
}

async fn try_all(core: &Arc<Core>, record: &ContentRecord) -> Healed {
    if keep_from_memory(core, &record.digest).await {
        return Healed::Memory;
    }
    let mut outcome = Healed::Unavailable("no repository is known that has it".to_owned());
    for (id, proof) in core.or_nothing(core.index.list_holders(&record.digest).await) {
        // A manifest may have been asked for as a blob, too: fetched so, it would come back as one.
        if proof.kind != record.kind {
            continue;
        }
        let Some(repository) = core.names.load_full().find_repository(&id) else { continue };
        let status = repository.upstream.status();
        if let Err(offline) = repository.upstream.require_online() {
            outcome = worse(outcome, Healed::Unavailable(offline.to_string()));
        } else if !status.is_usable() {
            outcome = worse(outcome, Healed::Unavailable(format!("upstream {} is down", status.name)));
        } else {
            match fetch(core, &repository, &proof).await {
                Ok(()) => return Healed::Upstream,
                Err(reason) => outcome = worse(outcome, Healed::Failed(reason)),
            }
        }
    }
    outcome
}

/// What is to be told of several vain tries.
fn worse(before: Healed, now: Healed) -> Healed {
    if matches!(before, Healed::Failed(_)) { before } else { now }
}

/// Fetches content by the same ways as clients' misses, after them. The error says why it is not here then.
async fn fetch(core: &Arc<Core>, repository: &Repository, proof: &AccessProof) -> Result<(), String> {
    let digest = &proof.digest;
    match proof.kind {
        ContentKind::Blob => {
            let blob = Descriptor {
                media_type: MediaType::OCTET_STREAM,
                digest: *digest,
                size_bytes: proof.size_bytes,
                platform: None,
            };
            let fetched = ahead::fetch(core, repository, &blob, Reason::Heal, None, |_| {}).await;
            fetched.map_err(|failure| failure.into_error(digest).to_string())?;
        }
        ContentKind::Manifest => {
            let turns = core.turns.of(repository);
            // Never closed: an error would say so.
            let _turn = turns.acquire().await;
            manifest::refetch(core, repository, digest).await.map_err(|error| error.to_string())?;
        }
    }
    match core.blobs.find_size(digest).await {
        Ok(Some(_)) => Ok(()),
        Ok(None) => Err("the disk did not keep it".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Writes the copy that is in memory, where one is.
async fn keep_from_memory(core: &Core, digest: &Digest) -> bool {
    if let Some(manifest) = core.memory.manifests.get(digest) {
        let media_type = Some(manifest.media_type.clone());
        return keep(core, digest, ContentKind::Manifest, media_type, manifest.body.clone()).await;
    }
    match core.memory.small_blobs.get(digest).await {
        Some(body) => keep(core, digest, ContentKind::Blob, None, body).await,
        None => false,
    }
}

async fn keep(
    core: &Core,
    digest: &Digest,
    kind: ContentKind,
    media_type: Option<MediaType>,
    body: Bytes,
) -> bool {
    let size_bytes = body.len() as u64;
    if let Err(error) = acquire::write(core, digest, body).await {
        core.report_disk(&error);
        return false;
    }
    let now = core.clock.now();
    let segment = Segment::Probation;
    let record = ContentRecord {
        digest: *digest,
        kind,
        size_bytes,
        media_type,
        stored_at: now,
        last_used_at: now,
        segment,
    };
    if let Err(error) = core.index.record_content(&[record]).await {
        core.report_metadata(&error);
        core.disk.note_unlisted();
    }
    core.evictor.note_stored(size_bytes);
    core.images.note_change();
    true
}
