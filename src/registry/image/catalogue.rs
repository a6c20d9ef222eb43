//! The images of one repository: its manifests, which of them are images, and which refer to which.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::walk::Walk;
use super::{Image, RegistryError};
use crate::metadata::{ListingKind, RepositoryId};
use crate::oci::{Digest, Manifest, Platform, Tag};
use crate::registry::acquire::read_stored;
use crate::registry::core::Core;
use crate::registry::listing;

/// Manifests up to this many bytes are parsed in well under half a millisecond.
const SHORT_BYTES: usize = 64 * 1024;

/// What is known of the images of a repository.
pub(in crate::registry) struct Catalogue<'a> {
    pub(super) core: &'a Core,
    pub(super) name: String,
    /// Platforms that images are to be complete for; empty where those count that were pulled here.
    pub(super) wanted: Vec<Platform>,
    /// What refers to a manifest.
    pub(super) referrers: HashMap<Digest, BTreeSet<Digest>>,
    /// Manifests that were looked for; `None` is not here.
    nodes: HashMap<Digest, Option<Arc<Node>>>,
    tagged: BTreeMap<Digest, Vec<Tag>>,
    stored: Vec<Digest>,
}

/// A manifest that is here.
pub(super) struct Node {
    pub(super) manifest: Manifest,
    pub(super) size_bytes: u64,
}

impl<'a> Catalogue<'a> {
    /// Reads what the index knows of a repository.
    pub(in crate::registry) async fn load(core: &'a Core, id: &RepositoryId) -> Result<Self, RegistryError> {
        let names = core.names.load_full();
        let wanted = names.find_upstream(&id.upstream).map(|upstream| upstream.config().platforms.clone());
        let mut catalogue = Self {
            core,
            name: names.client_name(id),
            wanted: wanted.unwrap_or_default(),
            referrers: HashMap::new(),
            nodes: HashMap::new(),
            tagged: BTreeMap::new(),
            stored: core.index.list_stored_manifests(id).await?,
        };
        for (key, page) in core.index.list_listings(id, ListingKind::Referrers).await? {
            if let Some((subject, referrers)) = listing::read_referrers(&key, &page) {
                catalogue.referrers.entry(subject).or_default().extend(referrers);
            }
        }
        for (tag, digest) in core.index.list_tagged(id).await? {
            match subject_of(&tag) {
                // A signature by its tag, or the list of referrers: it belongs to the image that it is about.
                Some(subject) => drop(catalogue.referrers.entry(subject).or_default().insert(digest)),
                None => catalogue.tagged.entry(digest).or_default().push(tag),
            }
        }
        Ok(catalogue)
    }

    /// The manifests of the repository that are stored.
    pub(super) fn stored(&self) -> &[Digest] {
        &self.stored
    }

    /// The manifests that tags of images point to.
    pub(super) fn tagged_digests(&self) -> impl Iterator<Item = Digest> {
        self.tagged.keys().copied()
    }

    /// Looks for every part of every image.
    pub(in crate::registry) async fn list(mut self) -> Result<Vec<Image>, RegistryError> {
        let mut parts = HashSet::new();
        for digest in self.stored.clone() {
            let Some(node) = self.find(&digest).await else { continue };
            parts.extend(node.manifest.manifests.iter().map(|listed| listed.digest));
            if let Some(subject) = &node.manifest.subject {
                self.referrers.entry(subject.digest).or_default().insert(digest);
            }
        }
        parts.extend(self.referrers.values().flatten().copied());
        let alone = self.stored.iter().filter(|digest| !parts.contains(*digest));
        let roots: BTreeSet<Digest> = self.tagged.keys().chain(alone).copied().collect();
        let mut images = Vec::with_capacity(roots.len());
        for digest in roots {
            images.push(self.inspect(digest).await?);
        }
        images.sort_by(|one, other| (&one.tags, one.digest).cmp(&(&other.tags, other.digest)));
        Ok(images)
    }

    /// Looks for every part of one image.
    pub(in crate::registry) async fn inspect(&mut self, digest: Digest) -> Result<Image, RegistryError> {
        let tags = self.tagged.get(&digest).cloned().unwrap_or_default();
        let walk = Walk::of(self, digest).await?;
        Ok(Image {
            repository: self.name.clone(),
            tags,
            digest,
            platforms: walk.platforms,
            stored: walk.stored,
            stored_bytes: walk.stored_bytes,
            missing: walk.missing,
        })
    }

    /// Counts these platforms instead of what the configuration says, where there are any.
    pub(in crate::registry) fn want(mut self, platforms: &[Platform]) -> Self {
        if !platforms.is_empty() {
            self.wanted = platforms.to_vec();
        }
        self
    }

    /// Finds a manifest that is here, and whole.
    pub(super) async fn find(&mut self, digest: &Digest) -> Option<Arc<Node>> {
        if let Some(known) = self.nodes.get(digest) {
            return known.clone();
        }
        let node = self.read(digest).await.map(Arc::new);
        self.nodes.insert(*digest, node.clone());
        node
    }

    async fn read(&self, digest: &Digest) -> Option<Node> {
        // A disk that fails says so where content is served from it; here, what cannot be read is not here.
        let body = read_stored(self.core, digest).await.ok()??.body;
        let size_bytes = body.len() as u64;
        let manifest = if body.len() <= SHORT_BYTES {
            Manifest::parse(&body).ok()
        } else {
            self.core.tasks.spawn_blocking(move || Manifest::parse(&body).ok()).await.ok().flatten()
        };
        // What cannot be parsed is served all the same: it lists nothing that could be missing.
        let manifest = manifest.unwrap_or(Manifest {
            media_type: None,
            manifests: Vec::new(),
            blobs: Vec::new(),
            subject: None,
        });
        Some(Node { manifest, size_bytes })
    }
}

/// What a tag of the schemes for referrers is about: `sha256-<hex>` (OCI distribution specification,
/// "Referrers Tag Schema"), `sha256-<hex>.sig`, `.att` and `.sbom` (cosign).
pub(in crate::registry) fn subject_of(tag: &Tag) -> Option<Digest> {
    let text = tag.as_str();
    let text = [".sig", ".att", ".sbom"].iter().find_map(|end| text.strip_suffix(end)).unwrap_or(text);
    let (algorithm, hex) = text.split_once('-')?;
    format!("{algorithm}:{hex}").parse().ok()
}
