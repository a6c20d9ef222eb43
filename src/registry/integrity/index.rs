//! A damaged index is set aside, and another one built from what lies on the disk and what is in memory.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::metadata::{AccessProof, MetadataError, PinStatus, RepositoryId, WarmRecord};
use crate::oci::Digest;
use crate::registry::core::Core;
use crate::registry::{CacheParts, Rebuild, UpkeepError};

/// What looking through the index told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexFound {
    /// It is well.
    Sound,
    /// It was damaged, and another one is in its place.
    Replaced,
}

impl IndexFound {
    /// The word in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sound => "sound",
            Self::Replaced => "replaced",
        }
    }
}

/// What only the index knows and can be read from a damaged one without harm: neither gives a right to anything.
pub(super) struct Saved {
    pins: Vec<(PinStatus, Vec<Digest>)>,
    orders: Vec<WarmRecord>,
    /// Whether all that there was could be read.
    is_whole: bool,
}

/// Looks after the index; see [`super::Registry::look_after_index`].
pub(super) async fn look_after(core: &Arc<Core>) -> Result<IndexFound, UpkeepError> {
    let _turn = core.integrity.index_turn.acquire().await;
    let Some(damage) = core.index.find_damage().await? else {
        set_condition(core, None);
        return Ok(IndexFound::Sound);
    };
    // After a try that failed, nothing can be read any more.
    let earlier = lock(&core.integrity.saved).take();
    let saved = if let Some(saved) = earlier { saved } else { save(core).await };
    match core.index.begin_anew().await {
        Ok(kept) => tracing::warn!(
            index.damage = damage,
            index.kept_as = %kept.display(),
            pins = saved.pins.len(),
            pins_are_whole = saved.is_whole,
            "the index is damaged and was set aside; another one is built from what lies on the disk"
        ),
        Err(error) => {
            set_condition(core, Some(describe(&damage, &error)));
            *lock(&core.integrity.saved) = Some(saved);
            return Err(error.into());
        }
    }
    set_condition(core, None);
    core.metrics.integrity.index_replaced();
    // Pins first: nothing that they cover is in danger before it is listed.
    if let Err(error) = restore(core, &saved).await {
        tracing::warn!(error = %error, "not all that was in the damaged index or in memory is recorded anew");
    }
    let parts = CacheParts {
        index: Arc::clone(&core.index),
        blobs: Arc::clone(&core.blobs),
        events: Arc::clone(&core.events),
        clock: core.clock.clone(),
    };
    let rebuilt = Rebuild::new(parts, core.tasks.clone()).run().await?;
    tracing::info!(recorded = rebuilt.recorded, "the index was built anew");
    core.images.note_change();
    core.evictor.nudge();
    core.integrity.nudge.notify_one();
    Ok(IndexFound::Replaced)
}

fn set_condition(core: &Core, condition: Option<String>) {
    *lock(&core.integrity.index_condition) = condition;
}

fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

fn describe(damage: &str, error: &MetadataError) -> String {
    let source = std::error::Error::source(error).map_or_else(String::new, |source| format!(": {source}"));
    format!(
        "the index is damaged ({damage}) and cannot be replaced ({error}{source}); it is tried again. See to the \
         disk, or stop the server, move index.sqlite3* away, and start it: the index is then built anew"
    )
}

async fn save(core: &Core) -> Saved {
    let mut saved = Saved { pins: Vec::new(), orders: Vec::new(), is_whole: true };
    match core.index.list_pins().await {
        Ok(pins) => {
            for pin in pins {
                let PinStatus { record, .. } = &pin;
                let parts = core.index.list_pin_parts(&record.repository, &record.reference).await;
                saved.is_whole &= parts.is_ok();
                saved.pins.push((pin, parts.unwrap_or_default()));
            }
        }
        Err(_damaged) => saved.is_whole = false,
    }
    saved.orders = core.index.list_unfinished_warm().await.unwrap_or_default();
    saved
}

/// Records what was saved, and the rights and tags that are in memory: no question has to be asked anew for them,
/// by this process or the next.
async fn restore(core: &Core, saved: &Saved) -> Result<(), MetadataError> {
    for (pin, parts) in &saved.pins {
        core.index.record_pin(&pin.record, parts).await?;
    }
    for order in &saved.orders {
        core.index.record_warm(order).await?;
    }
    let mut proofs: HashMap<RepositoryId, Vec<AccessProof>> = HashMap::new();
    for (key, proof) in &core.memory.proofs {
        proofs.entry(key.0.clone()).or_default().push(proof);
    }
    for (repository, proofs) in &proofs {
        core.index.record_proofs(repository, proofs).await?;
    }
    for (key, observation) in &core.memory.tags {
        if let Some(observation) = observation {
            core.index.record_tag(&key.0, &key.1, &key.2, &observation).await?;
        }
    }
    Ok(())
}
