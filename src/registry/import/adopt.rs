//! From a bundle that was read to its end to content that is served.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::audit::is_here;
use super::learn::learn;
use super::room;
use super::stage::Staged;
use super::{ImportError, Imported, ImportedImage, TagFate, TagRule};
use crate::blobs::StagedFiles;
use crate::bundle::{Contents, ItemKind, Role};
use crate::metadata::ImportRecord;
use crate::oci::Manifest;
use crate::registry::Repository;
use crate::registry::acquire::read_stored;
use crate::registry::core::Core;

/// How long who read the index may take to remember what it said.
const SLOW_READERS: Duration = Duration::from_secs(2);

/// A verified bundle on its way to be visible.
pub(super) struct Adoption {
    core: Arc<Core>,
    staged: Staged,
    rule: TagRule,
}

impl Adoption {
    pub(super) fn new(core: &Arc<Core>, staged: Staged, rule: TagRule) -> Self {
        Self { core: Arc::clone(core), staged, rule }
    }

    /// Checks what only the whole shows, and makes it visible.
    pub(super) async fn run(mut self) -> Result<Imported, ImportError> {
        self.read_base().await?;
        let Self { core, staged, rule } = self;
        let now = core.clock.now();
        let work = move || learn(&staged, rule, now).map(|record| (staged, record));
        let learnt = core.tasks.spawn_blocking(work).await;
        let (staged, record) = learnt.map_err(|_panic| ImportError::Internal)??;
        // No purge may come between the look and the record.
        let _turn = core.pin_turn.acquire().await;
        require_still_here(&core, &staged).await?;
        let mut imported = Imported::of(&staged);
        imported.evicted =
            room::sum(imported.evicted, room::make_in_budget(&core, imported.new_bytes).await?);
        let Staged { head, repositories, files, hold, .. } = staged;
        let fates = publish(&core, files, &record).await?;
        imported.images = tell_images(head.contents(), &repositories, &record, &fates);
        forget(&core);
        core.images.note_change();
        core.evictor.note_stored(imported.new_bytes);
        drop(hold);
        imported.log();
        Ok(imported)
    }

    /// Reads the manifests that the base has brought: what they list is needed, too.
    async fn read_base(&mut self) -> Result<(), ImportError> {
        let head = Arc::clone(&self.staged.head);
        for item in head.contents().from_base.iter().filter(|item| item.kind == ItemKind::Manifest) {
            let stored = read_stored(&self.core, &item.digest).await?;
            let stored = stored.ok_or_else(|| ImportError::Gone(Box::new(item.digest)))?;
            let parsed = self.core.tasks.spawn_blocking(move || Manifest::parse(&stored.body).ok()).await;
            if let Some(view) = parsed.map_err(|_panic| ImportError::Internal)? {
                self.staged.views.add(item.digest, view)?;
            }
        }
        Ok(())
    }
}

/// Has memory forget what the index said before; and once more, for who read before and was slow to remember.
fn forget(core: &Arc<Core>) {
    core.memory.forget_all();
    let (core, shutdown) = (Arc::clone(core), core.tasks.shutdown_token().clone());
    core.tasks.clone().spawn(async move {
        let _done = shutdown.run_until_cancelled(tokio::time::sleep(SLOW_READERS)).await;
        core.memory.forget_all();
    });
}

/// Fails where something went that was here when the import began.
async fn require_still_here(core: &Core, staged: &Staged) -> Result<(), ImportError> {
    let contents = staged.head.contents();
    for item in contents.content.iter().chain(&contents.from_base) {
        if !staged.new.contains(&item.digest) && !is_here(core, item).await? {
            return Err(ImportError::Gone(Box::new(item.digest)));
        }
    }
    Ok(())
}

/// Renames content into place, then records what it is: without the record, nobody is served it. Says what became
/// of the tags of each repository.
async fn publish(
    core: &Core,
    files: StagedFiles,
    record: &ImportRecord,
) -> Result<Vec<Vec<TagFate>>, ImportError> {
    let recorded = match files.commit().await {
        Ok(()) => core.index.record_import(record).await.map_err(ImportError::from),
        Err(error) => {
            core.report_disk(&error);
            Err(error.into())
        }
    };
    // Whole files, that no budget counts yet.
    recorded.inspect_err(|_unlisted| core.disk.note_unlisted())
}

/// What became of the images of a bundle, and of signatures whose tags stay elsewhere.
fn tell_images(
    contents: &Contents,
    repositories: &BTreeMap<String, Repository>,
    record: &ImportRecord,
    fates: &[Vec<TagFate>],
) -> Vec<ImportedImage> {
    let mut by_tag = HashMap::new();
    for (repository, fates) in record.repositories.iter().zip(fates) {
        by_tag.extend(
            repository.tags.iter().zip(fates).map(|(seen, fate)| ((&repository.id, &seen.tag), *fate)),
        );
    }
    let told = contents.images.iter().filter_map(|image| {
        let repository = repositories.get(image.repository.as_str());
        let fate = repository.zip(image.tag.as_ref()).and_then(|(of, tag)| by_tag.get(&(&of.id, tag)));
        let is_told = image.role == Role::Image || matches!(fate, Some(TagFate::Kept { .. }));
        is_told.then(|| ImportedImage { name: image.to_string(), digest: image.digest, tag: fate.copied() })
    });
    told.collect()
}

impl Imported {
    /// What a bundle comes to that is not visible yet.
    fn of(staged: &Staged) -> Self {
        let contents = staged.head.contents();
        let new = contents.content.iter().filter(|item| staged.new.contains(&item.digest));
        Self {
            id: staged.head.id(),
            signed_by: contents.signed_by,
            images: Vec::new(),
            items: contents.content.len() as u64,
            bytes: contents.content_bytes(),
            new_items: staged.new.len() as u64,
            new_bytes: new.fold(0_u64, |sum, item| sum.saturating_add(item.size_bytes)),
            evicted: staged.evicted,
        }
    }

    fn log(&self) {
        tracing::info!(
            bundle.id = %self.id,
            bundle.signed_by = self.signed_by.map(|key| key.to_string()),
            images = self.images.len(),
            items = self.items,
            new_items = self.new_items,
            new_bytes = self.new_bytes,
            evicted.items = self.evicted.items,
            evicted.bytes = self.evicted.bytes,
            "bundle was imported"
        );
        for image in &self.images {
            if let Some(TagFate::Kept { at }) = image.tag {
                tracing::warn!(
                    image.name = image.name,
                    bundle.digest = %image.digest,
                    kept.digest = %at,
                    "a tag of the bundle is older than what was seen here, it stays where it is"
                );
            }
        }
    }
}
