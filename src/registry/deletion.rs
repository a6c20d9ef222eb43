//! What becomes of a tag that upstream has deleted: its copy is kept for a while, as configured.

use super::acquire;
use super::core::Core;
use super::pins;
use super::repository::Repository;
use crate::events::Event;
use crate::metadata::TagObservation;
use crate::oci::{AcceptClass, Tag};
use crate::runtime::Timestamp;

/// Whether a copy is kept of what upstream was found to have deleted at `since`. A moment in the future
/// (the clock was set back) counts as now: to keep it a little longer is harmless. What is pinned is always kept.
pub(super) async fn is_kept(core: &Core, repository: &Repository, tag: &Tag, since: Timestamp) -> bool {
    core.clock.now().since(since) < repository.upstream.config().freshness.keep_deleted
        || pins::is_pinned(core, repository, tag).await
}

/// Notes that upstream does not have a tag any more that is `known` here. Told once.
pub(super) async fn note(
    core: &Core,
    repository: &Repository,
    (tag, class): (&Tag, &AcceptClass),
    known: &TagObservation,
) {
    let now = core.clock.now();
    if known.missing_since.is_none() {
        tracing::info!(repository.name = %repository.id, tag = %tag, "tag was deleted upstream");
        core.metrics.tag_deleted(&repository.id.upstream);
        if repository.upstream.config().freshness.pin_deleted {
            pins::keep_deleted(core, repository, tag, known.digest).await;
        }
    }
    if !is_kept(core, repository, tag, known.missing_since.unwrap_or(now)).await {
        forget_tag(core, repository, (tag, class)).await;
    } else if known.missing_since.is_none() {
        let observation = TagObservation { missing_since: Some(now), ..known.clone() };
        acquire::record_tag(core, repository, (tag, class), observation).await;
    }
}

/// The tag is gone here, too. Its digest stays.
pub(super) async fn forget_tag(core: &Core, repository: &Repository, (tag, class): (&Tag, &AcceptClass)) {
    tracing::info!(repository.name = %repository.id, tag = %tag, "tag is kept here no longer");
    if let Err(error) = core.index.remove_tag(&repository.id, tag).await {
        core.report_metadata(&error);
    }
    core.memory.tags.invalidate(&(repository.id.clone(), tag.clone(), class.clone()));
    let event = Event::TagChanged {
        upstream: repository.id.upstream.to_string(),
        repository: repository.name().clone(),
        tag: tag.clone(),
    };
    core.events.publish(event).await;
}
