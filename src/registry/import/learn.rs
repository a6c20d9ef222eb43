//! What a verified bundle says: which repository has what, and where its tags point.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::stage::{MAX_PARTS, Staged};
use super::{ImportError, TagRule};
use crate::bundle::{Contents, Item, ItemKind};
use crate::metadata::{
    AccessProof, ContentKind, ContentRecord, ImportRecord, ImportedRepository, Listing, ListingKind,
    ObservedTag, RepositoryId, Segment, TagObservation,
};
use crate::oci::{AcceptClass, Digest, Manifest, MediaType};
use crate::registry::image::is_elsewhere;
use crate::registry::listing::referrers_page;
use crate::runtime::Timestamp;

/// Finds out what is to be recorded. Takes time in proportion to the bundle's parts, up to a second or so: for where
/// that may be.
///
/// Errors: a manifest needs what is not there, or something is there that nothing needs.
pub(super) fn learn(staged: &Staged, rule: TagRule, now: Timestamp) -> Result<ImportRecord, ImportError> {
    let contents = staged.head.contents();
    let items = contents.content.iter().chain(&contents.from_base).map(|item| (item.digest, item));
    let mut learning =
        Learning { staged, contents, items: items.collect(), now, repositories: BTreeMap::new() };
    learning.require_complete()?;
    learning.walk()?;
    learning.require_no_stray()?;
    learning.add_listings();
    learning.add_tags();
    Ok(learning.into_record(rule))
}

struct Learning<'a> {
    staged: &'a Staged,
    contents: &'a Contents,
    items: HashMap<Digest, &'a Item>,
    now: Timestamp,
    repositories: BTreeMap<RepositoryId, Learnt>,
}

/// What is learnt of one repository.
#[derive(Default)]
struct Learnt {
    proofs: HashMap<(ContentKind, Digest), AccessProof>,
    tags: Vec<ObservedTag>,
    listings: Vec<(ListingKind, String, Listing)>,
}

impl Learning<'_> {
    /// Every blob that a manifest lists has to be there. Manifests of an index may be left out: platforms.
    fn require_complete(&self) -> Result<(), ImportError> {
        for (manifest, view) in self.staged.views.iter() {
            for blob in view.blobs.iter().filter(|blob| !is_elsewhere(&blob.media_type)) {
                let is_there = self.items.get(&blob.digest).is_some_and(|item| {
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
    fn walk(&mut self) -> Result<(), ImportError> {
        let mut referrers: HashMap<(&str, Digest), Vec<Digest>> = HashMap::new();
        for list in &self.contents.referrers {
            let digests = list.descriptors.iter().filter_map(|found| found["digest"].as_str()?.parse().ok());
            referrers.insert((list.repository.as_str(), list.subject), digests.collect());
        }
        let (mut seen, mut parts) = (HashSet::new(), 0);
        let images = self.contents.images.iter();
        let mut rest: Vec<_> = images.map(|image| (image.repository.as_str(), image.digest)).collect();
        while let Some((name, digest)) = rest.pop() {
            let item = self.items.get(&digest).filter(|item| item.kind == ItemKind::Manifest);
            let (Some(item), Some(repository)) = (item, self.staged.repositories.get(name)) else { continue };
            if !seen.insert((name, digest)) {
                continue;
            }
            let view = self.staged.views.find(&digest);
            let learnt = self.repositories.entry(repository.id.clone()).or_default();
            parts += learnt.add_proofs(item, view);
            if parts > MAX_PARTS {
                return Err(ImportError::TooManyParts { limit: MAX_PARTS });
            }
            rest.extend(referrers.get(&(name, digest)).into_iter().flatten().map(|digest| (name, *digest)));
            rest.extend(view.into_iter().flat_map(|view| &view.manifests).map(|child| (name, child.digest)));
        }
        Ok(())
    }

    /// What no repository has, belongs to nothing.
    fn require_no_stray(&self) -> Result<(), ImportError> {
        let proven: HashSet<_> = self
            .repositories
            .values()
            .flat_map(|learnt| learnt.proofs.keys().map(|(_, digest)| *digest))
            .collect();
        match self.contents.content.iter().find(|item| !proven.contains(&item.digest)) {
            Some(stray) => Err(ImportError::Stray(Box::new(stray.digest))),
            None => Ok(()),
        }
    }

    /// Notes what refers to what.
    fn add_listings(&mut self) {
        for list in &self.contents.referrers {
            let Some(repository) = self.staged.repositories.get(list.repository.as_str()) else { continue };
            let at = Timestamp::from_millis(list.observed_at_ms).min(self.now);
            if let Some((key, page)) = referrers_page(&list.subject, &list.descriptors, at) {
                let learnt = self.repositories.entry(repository.id.clone()).or_default();
                learnt.listings.push((ListingKind::Referrers, key, page));
            }
        }
    }

    /// Notes where tags point.
    fn add_tags(&mut self) {
        for image in &self.contents.images {
            let repository = self.staged.repositories.get(image.repository.as_str());
            let item = self.items.get(&image.digest);
            let (Some(tag), Some(repository), Some(item)) = (&image.tag, repository, item) else { continue };
            let observation = TagObservation {
                digest: image.digest,
                media_type: item.media_type.clone().unwrap_or(MediaType::OCTET_STREAM),
                size_bytes: item.size_bytes,
                // A clock that is ahead must not make a tag that nothing is later than.
                checked_at: Timestamp::from_millis(image.observed_at_ms).min(self.now),
                missing_since: None,
            };
            let observed = ObservedTag { tag: tag.clone(), class: AcceptClass::Any, observation };
            self.repositories.entry(repository.id.clone()).or_default().tags.push(observed);
        }
    }

    fn into_record(self, rule: TagRule) -> ImportRecord {
        let content = self.items.values().map(|item| ContentRecord {
            digest: item.digest,
            kind: kind_of(item),
            size_bytes: item.size_bytes,
            media_type: item.media_type.clone(),
            stored_at: self.now,
            last_used_at: self.now,
            segment: Segment::Protected,
        });
        let repositories = self.repositories.into_iter().map(|(id, learnt)| ImportedRepository {
            id,
            proofs: learnt.proofs.into_values().collect(),
            tags: learnt.tags,
            listings: learnt.listings,
        });
        ImportRecord { content: content.collect(), repositories: repositories.collect(), rule }
    }
}

impl Learnt {
    /// What a repository shows by having a manifest: the manifest itself, and all that it lists. Says how much
    /// that adds.
    fn add_proofs(&mut self, item: &Item, view: Option<&Manifest>) -> usize {
        let before = self.proofs.len();
        let own = AccessProof {
            digest: item.digest,
            kind: ContentKind::Manifest,
            size_bytes: Some(item.size_bytes),
            media_type: item.media_type.clone(),
        };
        self.proofs.insert((own.kind, own.digest), own);
        let children = view.into_iter().flat_map(|view| &view.manifests);
        let children = children.map(|child| (ContentKind::Manifest, child));
        let blobs = view.into_iter().flat_map(|view| &view.blobs).map(|blob| (ContentKind::Blob, blob));
        for (kind, listed) in children.chain(blobs) {
            self.proofs.entry((kind, listed.digest)).or_insert_with(|| AccessProof {
                digest: listed.digest,
                kind,
                size_bytes: listed.size_bytes,
                media_type: Some(listed.media_type.clone()),
            });
        }
        self.proofs.len() - before
    }
}

const fn kind_of(item: &Item) -> ContentKind {
    match item.kind {
        ItemKind::Manifest => ContentKind::Manifest,
        ItemKind::Blob => ContentKind::Blob,
    }
}
