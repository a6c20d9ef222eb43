//! From a bundle that was read to its end to content that is served.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::stage::{Staged, is_here};
use super::{ImportError, Imported, ImportedImage, TagFate, TagRule};
use crate::blobs::StagedFiles;
use crate::bundle::{Contents, Item, ItemKind, Role};
use crate::metadata::{
    AccessProof, ContentKind, ContentRecord, ImportRecord, ImportedRepository, Listing, ListingKind,
    ObservedTag, RepositoryId, Segment, TagObservation,
};
use crate::oci::{AcceptClass, Digest, Manifest, MediaType};
use crate::registry::Repository;
use crate::registry::acquire::read_stored;
use crate::registry::core::Core;
use crate::registry::image::is_elsewhere;
use crate::registry::listing::referrers_page;
use crate::runtime::Timestamp;

/// A verified bundle on its way to be visible.
pub(super) struct Adoption {
    core: Arc<Core>,
    staged: Staged,
    rule: TagRule,
}

/// What is learnt of one repository.
#[derive(Default)]
struct Learnt {
    proofs: HashMap<(ContentKind, Digest), AccessProof>,
    tags: Vec<ObservedTag>,
    listings: Vec<(ListingKind, String, Listing)>,
}

impl Adoption {
    pub(super) fn new(core: &Arc<Core>, staged: Staged, rule: TagRule) -> Self {
        Self { core: Arc::clone(core), staged, rule }
    }

    /// Checks what only the whole shows, and makes it visible.
    pub(super) async fn run(mut self) -> Result<Imported, ImportError> {
        let head = Arc::clone(&self.staged.head);
        let contents = head.contents();
        self.read_base(contents).await?;
        let items: HashMap<Digest, &Item> =
            contents.content.iter().chain(&contents.from_base).map(|item| (item.digest, item)).collect();
        self.require_complete(&items)?;
        let mut learnt = self.learn(contents, &items)?;
        self.learn_tags(contents, &items, &mut learnt);
        for item in items.values().filter(|item| !self.staged.new.contains(&item.digest)) {
            if !is_here(&self.core, item).await? {
                return Err(ImportError::Gone(Box::new(item.digest)));
            }
        }
        let new_bytes = contents
            .content
            .iter()
            .filter(|item| self.staged.new.contains(&item.digest))
            .fold(0_u64, |sum, item| sum.saturating_add(item.size_bytes));
        let mut imported = Imported {
            id: head.id(),
            signed_by: contents.signed_by,
            images: Vec::new(),
            items: contents.content.len() as u64,
            bytes: contents.content_bytes(),
            new_items: self.staged.new.len() as u64,
            new_bytes,
        };
        let record = self.record(&items, learnt);
        let Self { core, staged, .. } = self;
        let fates = publish(&core, staged.files, &record).await?;
        imported.images = tell_images(contents, &staged.repositories, &record, &fates);
        core.memory.forget_all();
        core.images.note_change();
        core.evictor.note_stored(imported.new_bytes);
        imported.log();
        Ok(imported)
    }

    /// Reads the manifests that the base has brought: what they list is needed, too.
    async fn read_base(&mut self, contents: &Contents) -> Result<(), ImportError> {
        for item in contents.from_base.iter().filter(|item| item.kind == ItemKind::Manifest) {
            let stored = read_stored(&self.core, &item.digest).await?;
            let stored = stored.ok_or_else(|| ImportError::Gone(Box::new(item.digest)))?;
            let parsed = self.core.tasks.spawn_blocking(move || Manifest::parse(&stored.body).ok()).await;
            if let Some(view) = parsed.map_err(|_panic| ImportError::Internal)? {
                self.staged.views.insert(item.digest, view);
            }
        }
        Ok(())
    }

    /// Every blob that a manifest lists has to be there. Manifests of an index may be left out: platforms.
    fn require_complete(&self, items: &HashMap<Digest, &Item>) -> Result<(), ImportError> {
        for (manifest, view) in &self.staged.views {
            for blob in view.blobs.iter().filter(|blob| !is_elsewhere(&blob.media_type)) {
                let is_there = items.get(&blob.digest).is_some_and(|item| {
                    blob.size_bytes.is_none_or(|size_bytes| size_bytes == item.size_bytes)
                });
                if !is_there {
                    let (manifest, digest) = (Box::new(*manifest), Box::new(blob.digest));
                    return Err(ImportError::Incomplete { manifest, digest });
                }
            }
        }
        Ok(())
    }

    /// Walks from names to all that they need, and notes which repository has shown to have what.
    fn learn(
        &self,
        contents: &Contents,
        items: &HashMap<Digest, &Item>,
    ) -> Result<BTreeMap<RepositoryId, Learnt>, ImportError> {
        let mut all: BTreeMap<RepositoryId, Learnt> = BTreeMap::new();
        let mut referrers: HashMap<(&str, Digest), Vec<Digest>> = HashMap::new();
        for list in &contents.referrers {
            let digests = list.descriptors.iter().filter_map(|found| found["digest"].as_str()?.parse().ok());
            referrers.insert((list.repository.as_str(), list.subject), digests.collect());
        }
        let mut seen = HashSet::new();
        let mut rest: Vec<_> =
            contents.images.iter().map(|image| (image.repository.as_str(), image.digest)).collect();
        while let Some((name, digest)) = rest.pop() {
            let Some(item) = items.get(&digest).filter(|item| item.kind == ItemKind::Manifest) else {
                continue;
            };
            if !seen.insert((name, digest)) {
                continue;
            }
            let Some(repository) = self.staged.repositories.get(name) else { continue };
            let learnt = all.entry(repository.id.clone()).or_default();
            let view = self.staged.views.get(&digest);
            learnt.add_proofs(item, view);
            rest.extend(referrers.get(&(name, digest)).into_iter().flatten().map(|digest| (name, *digest)));
            rest.extend(view.into_iter().flat_map(|view| &view.manifests).map(|child| (name, child.digest)));
        }
        let proven: HashSet<Digest> =
            all.values().flat_map(|learnt| learnt.proofs.keys().map(|(_, digest)| *digest)).collect();
        if let Some(stray) = contents.content.iter().find(|item| !proven.contains(&item.digest)) {
            return Err(ImportError::Stray(Box::new(stray.digest)));
        }
        let now = self.core.clock.now();
        for list in &contents.referrers {
            let Some(repository) = self.staged.repositories.get(list.repository.as_str()) else { continue };
            let at = Timestamp::from_millis(list.observed_at_ms).min(now);
            if let Some((key, page)) = referrers_page(&list.subject, &list.descriptors, at) {
                let learnt = all.entry(repository.id.clone()).or_default();
                learnt.listings.push((ListingKind::Referrers, key, page));
            }
        }
        Ok(all)
    }

    /// Notes where the tags of the bundle point.
    fn learn_tags(
        &self,
        contents: &Contents,
        items: &HashMap<Digest, &Item>,
        learnt: &mut BTreeMap<RepositoryId, Learnt>,
    ) {
        let now = self.core.clock.now();
        for image in &contents.images {
            let repository = self.staged.repositories.get(image.repository.as_str());
            let (Some(tag), Some(repository), Some(item)) =
                (&image.tag, repository, items.get(&image.digest))
            else {
                continue;
            };
            let observation = TagObservation {
                digest: image.digest,
                media_type: item.media_type.clone().unwrap_or(MediaType::OCTET_STREAM),
                size_bytes: item.size_bytes,
                // A clock that is ahead must not make a tag that nothing is later than.
                checked_at: Timestamp::from_millis(image.observed_at_ms).min(now),
                missing_since: None,
            };
            let observed = ObservedTag { tag: tag.clone(), class: AcceptClass::Any, observation };
            learnt.entry(repository.id.clone()).or_default().tags.push(observed);
        }
    }

    fn record(&self, items: &HashMap<Digest, &Item>, learnt: BTreeMap<RepositoryId, Learnt>) -> ImportRecord {
        let now = self.core.clock.now();
        let content = items.values().map(|item| ContentRecord {
            digest: item.digest,
            kind: kind_of(item),
            size_bytes: item.size_bytes,
            media_type: item.media_type.clone(),
            stored_at: now,
            last_used_at: now,
            segment: Segment::Protected,
        });
        let repositories = learnt.into_iter().map(|(id, learnt)| ImportedRepository {
            id,
            proofs: learnt.proofs.into_values().collect(),
            tags: learnt.tags,
            listings: learnt.listings,
        });
        ImportRecord { content: content.collect(), repositories: repositories.collect(), rule: self.rule }
    }
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
    fn log(&self) {
        tracing::info!(
            bundle.id = %self.id,
            bundle.signed_by = self.signed_by.map(|key| key.to_string()),
            images = self.images.len(),
            items = self.items,
            new_items = self.new_items,
            new_bytes = self.new_bytes,
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

impl Learnt {
    /// What a repository shows by having a manifest: the manifest itself, and all that it lists.
    fn add_proofs(&mut self, item: &Item, view: Option<&Manifest>) {
        let own = AccessProof {
            digest: item.digest,
            kind: ContentKind::Manifest,
            size_bytes: Some(item.size_bytes),
            media_type: item.media_type.clone(),
        };
        self.proofs.insert((own.kind, own.digest), own);
        let Some(view) = view else { return };
        let children = view.manifests.iter().map(|child| (ContentKind::Manifest, child));
        for (kind, listed) in children.chain(view.blobs.iter().map(|blob| (ContentKind::Blob, blob))) {
            self.proofs.entry((kind, listed.digest)).or_insert_with(|| AccessProof {
                digest: listed.digest,
                kind,
                size_bytes: listed.size_bytes,
                media_type: Some(listed.media_type.clone()),
            });
        }
    }
}

const fn kind_of(item: &Item) -> ContentKind {
    match item.kind {
        ItemKind::Manifest => ContentKind::Manifest,
        ItemKind::Blob => ContentKind::Blob,
    }
}
