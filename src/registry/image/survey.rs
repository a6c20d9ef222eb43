//! Counts images for the metrics, when something has changed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::{Catalogue, Image, ImageState, REPOSITORIES, RegistryError};
use crate::registry::core::Core;

/// The least time between the end of a survey and the next.
const LEAST_REST: Duration = Duration::from_secs(2);

/// A survey is followed by a rest of so many times its length: 5 % of one core at most.
const REST_FACTOR: u32 = 20;

/// When to count, and what was counted.
#[derive(Default)]
pub(in crate::registry) struct Survey {
    changed: Arc<Notify>,
    rests_until: Mutex<Option<Instant>>,
}

impl Survey {
    /// Notes that what was counted may be right no longer. Costs no I/O.
    pub(in crate::registry) fn note_change(&self) {
        self.changed.notify_one();
    }

    /// The signal that a survey is wanted.
    pub(in crate::registry) fn signal(&self) -> Arc<Notify> {
        Arc::clone(&self.changed)
    }
}

/// Counts all images, after a rest since the last time; ends early at shutdown.
pub(in crate::registry) async fn run(core: &Arc<Core>) -> Result<(), RegistryError> {
    let shutdown = core.tasks.shutdown_token().clone();
    shutdown.run_until_cancelled(count_after_rest(core)).await.unwrap_or(Ok(()))
}

async fn count_after_rest(core: &Arc<Core>) -> Result<(), RegistryError> {
    let survey = &core.images;
    let rests_until = *survey.rests_until.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(until) = rests_until {
        tokio::time::sleep_until(until).await;
    }
    let begun = Instant::now();
    let counted = count(core).await;
    let rest = LEAST_REST.max(begun.elapsed().saturating_mul(REST_FACTOR));
    *survey.rests_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + rest);
    counted
}

async fn count(core: &Arc<Core>) -> Result<(), RegistryError> {
    let (mut complete, mut incomplete, mut missing_bytes) = (0_u64, 0_u64, 0_u64);
    let mut add = |image: &Image| {
        match image.state() {
            ImageState::Complete => complete += 1,
            ImageState::Incomplete => incomplete += 1,
        }
        missing_bytes = missing_bytes.saturating_add(image.missing_bytes());
    };
    let mut after = None;
    loop {
        let repositories = core.index.list_repositories(after.as_ref(), REPOSITORIES).await?;
        let Some(last) = repositories.last() else { break };
        after = Some(last.clone());
        for id in &repositories {
            Catalogue::load(core, id).await?.list().await?.iter().for_each(&mut add);
        }
    }
    core.index.remove_orphaned_children().await?;
    core.metrics.images_counted(complete, incomplete, missing_bytes);
    Ok(())
}
