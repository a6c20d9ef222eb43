//! From an index or manifest down to its blobs, and to what refers to it.

use std::collections::{BTreeSet, HashSet};

use super::catalogue::{Catalogue, Node};
use super::{Missing, Part, RegistryError};
use crate::oci::{Descriptor, Digest, MediaType, Platform};

/// What a walk found.
#[derive(Default)]
pub(super) struct Walk {
    pub(super) platforms: Vec<Platform>,
    pub(super) stored: Vec<Digest>,
    pub(super) stored_bytes: u64,
    pub(super) missing: Vec<Missing>,
    seen: HashSet<Digest>,
    /// Manifests that are still to be looked at. No recursion: indexes may list indexes.
    rest: Vec<Step>,
}

/// A manifest on the way.
struct Step {
    part: Part,
    digest: Digest,
    size_bytes: Option<u64>,
    platform: Option<Platform>,
}

impl Walk {
    /// Walks an image from its index or manifest on.
    pub(super) async fn of(catalogue: &mut Catalogue<'_>, root: Digest) -> Result<Self, RegistryError> {
        let mut walk = Self::default();
        let (part, digest) = (Part::Manifest, root);
        walk.rest.push(Step { part, digest, size_bytes: None, platform: None });
        while let Some(step) = walk.rest.pop() {
            if walk.seen.insert(step.digest) {
                walk.look_at(catalogue, step).await?;
            }
        }
        walk.platforms.sort();
        walk.platforms.dedup();
        Ok(walk)
    }

    async fn look_at(&mut self, catalogue: &mut Catalogue<'_>, step: Step) -> Result<(), RegistryError> {
        let referrers = catalogue.referrers.get(&step.digest).into_iter().flatten().copied();
        let part = Part::Referrer;
        self.rest.extend(referrers.map(|digest| Step { part, digest, size_bytes: None, platform: None }));
        let Some(node) = catalogue.find(&step.digest).await else {
            let Step { part, digest, size_bytes, platform } = step;
            self.missing.push(Missing { part, digest, size_bytes, platform });
            return Ok(());
        };
        self.stored.push(step.digest);
        self.stored_bytes += node.size_bytes;
        for blob in node.manifest.blobs.iter().filter(|blob| !is_elsewhere(&blob.media_type)) {
            self.look_for(catalogue, blob, step.platform.as_ref()).await;
        }
        if !node.manifest.manifests.is_empty() {
            for child in wanted_children(catalogue, &step.digest, &node).await? {
                let platform = child.platform.clone().or_else(|| step.platform.clone());
                self.platforms.extend(child.platform.clone());
                let (part, digest, size_bytes) = (step.part, child.digest, child.size_bytes);
                self.rest.push(Step { part, digest, size_bytes, platform });
            }
        }
        Ok(())
    }

    async fn look_for(&mut self, catalogue: &Catalogue<'_>, blob: &Descriptor, platform: Option<&Platform>) {
        if !self.seen.insert(blob.digest) {
            return;
        }
        match catalogue.core.blobs.find_size(&blob.digest).await {
            Ok(Some(found)) if blob.size_bytes.is_none_or(|size_bytes| size_bytes == found) => {
                self.stored.push(blob.digest);
                self.stored_bytes += found;
            }
            _ => self.missing.push(Missing {
                part: Part::Blob,
                digest: blob.digest,
                size_bytes: blob.size_bytes,
                platform: platform.cloned(),
            }),
        }
    }
}

/// The manifests of an index that its image needs. Those made for no platform always count (an index of
/// artifacts), those for `unknown/unknown` never (nobody runs them).
async fn wanted_children(
    catalogue: &mut Catalogue<'_>,
    index: &Digest,
    node: &Node,
) -> Result<Vec<Descriptor>, RegistryError> {
    let children = &node.manifest.manifests;
    let choice = if catalogue.wanted.is_empty() {
        let here = remember_children(catalogue, index, children).await?;
        if here.is_empty() { Choice::of(vec![Platform::own()], children) } else { Choice::Here(here) }
    } else {
        Choice::of(catalogue.wanted.clone(), children)
    };
    let counts = |child: &&Descriptor| match &child.platform {
        None => true,
        Some(made) => !made.is_unknown() && choice.admits(child, made),
    };
    Ok(children.iter().filter(counts).cloned().collect())
}

/// Which platforms of an index count.
enum Choice {
    All,
    For(Vec<Platform>),
    Here(BTreeSet<Digest>),
}

impl Choice {
    /// What an image is not made for cannot be missing; an image made for nothing that is wanted is wanted
    /// for what somebody may pull it for.
    fn of(wanted: Vec<Platform>, children: &[Descriptor]) -> Self {
        let is_offered = |made: &Platform| wanted.iter().any(|wanted| wanted.covers(made));
        if children.iter().filter_map(|child| child.platform.as_ref()).any(is_offered) {
            Self::For(wanted)
        } else {
            Self::All
        }
    }

    fn admits(&self, child: &Descriptor, made: &Platform) -> bool {
        match self {
            Self::All => true,
            Self::For(wanted) => wanted.iter().any(|wanted| wanted.covers(made)),
            Self::Here(here) => here.contains(&child.digest),
        }
    }
}

/// The manifests of an index with a platform that are here or once were.
async fn remember_children(
    catalogue: &mut Catalogue<'_>,
    index: &Digest,
    children: &[Descriptor],
) -> Result<BTreeSet<Digest>, RegistryError> {
    let listed: BTreeSet<_> = catalogue.core.index.list_children(index).await?.into_iter().collect();
    let mut new = Vec::new();
    for child in children {
        let is_for_use = child.platform.as_ref().is_some_and(|made| !made.is_unknown());
        if is_for_use && !listed.contains(&child.digest) && catalogue.find(&child.digest).await.is_some() {
            new.push(child.digest);
        }
    }
    if !new.is_empty() {
        catalogue.core.index.record_children(index, &new).await?;
    }
    Ok(listed.into_iter().chain(new).collect())
}

/// Whether a layer is fetched from its author and not from registries: base layers of older Windows images.
pub(in crate::registry) fn is_elsewhere(media_type: &MediaType) -> bool {
    let text = media_type.as_str();
    text.contains(".foreign.") || text.contains(".nondistributable.")
}
