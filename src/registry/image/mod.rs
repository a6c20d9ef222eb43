//! Whole images: what of them is here, and what is missing.
//!
//! An image is *complete* when it can be pulled with upstream away: its index, the manifests of the wanted
//! platforms, their configurations and layers, and the referrers that were seen. Nothing of that is kept
//! beside the content: the disk is looked at, so that the answer is right after an eviction, a purge or a
//! damaged file. Only which platforms were ever here is remembered (`image_child`), since their absence
//! would not show otherwise.

mod catalogue;
mod survey;
mod uses;
mod walk;

pub(super) use catalogue::{Catalogue, subject_of};
pub(super) use survey::{Survey, run as survey};
pub(super) use uses::Uses;
pub(super) use walk::is_elsewhere;

use std::sync::Arc;

use super::RegistryError;
use super::core::Core;
use crate::auth::{RequestContext, policy};
use crate::metadata::RepositoryId;
use crate::oci::{Digest, Platform, Tag};

/// How many repositories are looked up at once.
const REPOSITORIES: u32 = 256;

/// An image as far as it is here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The repository, as any client can spell it: `docker.io/library/nginx`.
    pub repository: String,
    /// The tags that were last seen at it; none for an image that was pulled by digest, or that its tag left.
    pub tags: Vec<Tag>,
    /// Its index or manifest.
    pub digest: Digest,
    /// The platforms of an index that count; none for an image that is no index.
    pub platforms: Vec<Platform>,
    /// What of it is here.
    pub stored: Vec<Digest>,
    /// How much that is, in bytes.
    pub stored_bytes: u64,
    /// What is not.
    pub missing: Vec<Missing>,
}

/// A part of an image that is not here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// What it is.
    pub part: Part,
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes, where the manifest that lists it says; what it lists itself is not known.
    pub size_bytes: Option<u64>,
    /// The platform that it is of, in an index.
    pub platform: Option<Platform>,
}

/// What a part of an image is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// An index or a manifest.
    Manifest,
    /// A configuration or a layer.
    Blob,
    /// A manifest that refers to the image: a signature, an attestation.
    Referrer,
}

/// Whether an image can be pulled with upstream away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageState {
    /// All of it is here.
    Complete,
    /// Something is missing.
    Incomplete,
}

/// Which images are asked for.
#[derive(Clone, Debug, Default)]
pub struct ImageQuery {
    /// Only of this upstream, by name or alias.
    pub upstream: Option<String>,
    /// Only of this repository, as any client can spell it.
    pub repository: Option<String>,
    /// Only in this state.
    pub state: Option<ImageState>,
    /// Only of repositories after this one, which an earlier page ended with.
    pub last: Option<String>,
    /// A page ends with the repository in which it gets this long.
    pub limit: usize,
}

/// A page of images, in order of repositories.
#[derive(Clone, Debug)]
pub struct ImageList {
    /// The images.
    pub images: Vec<Image>,
    /// What the next page begins after; `None` at the end.
    pub next: Option<String>,
}

impl Image {
    /// Whether it is complete.
    pub const fn state(&self) -> ImageState {
        if self.missing.is_empty() { ImageState::Complete } else { ImageState::Incomplete }
    }

    /// How much is missing at least, in bytes.
    pub fn missing_bytes(&self) -> u64 {
        self.missing.iter().filter_map(|missing| missing.size_bytes).fold(0, u64::saturating_add)
    }
}

impl Part {
    /// The word in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Manifest => "manifest",
            Self::Blob => "blob",
            Self::Referrer => "referrer",
        }
    }
}

impl ImageState {
    /// The word in answers and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Incomplete => "incomplete",
        }
    }
}

/// Lists images; see [`super::Registry::list_images`].
pub(super) async fn list(
    core: &Arc<Core>,
    context: &RequestContext,
    query: &ImageQuery,
) -> Result<ImageList, RegistryError> {
    policy::require(context, policy::Action::List)?;
    let names = core.names.load_full();
    let upstream = match &query.upstream {
        None => None,
        Some(host) => {
            let found = names.find_upstream(host);
            Some(found.ok_or_else(|| RegistryError::UnknownRegistry(host.clone()))?.config().name.clone())
        }
    };
    let mut images = Vec::new();
    let read =
        |name: &String| names.read_client_name(name).ok_or_else(|| RegistryError::NameInvalid(name.clone()));
    let mut after = query.last.as_ref().map(read).transpose()?;
    if let Some(name) = &query.repository {
        let id = read(name)?;
        look_at(core, &id, query, &mut images).await?;
        return Ok(ImageList { images, next: None });
    }
    loop {
        let repositories = core.index.list_repositories(after.as_ref(), REPOSITORIES).await?;
        let Some(last) = repositories.last() else { return Ok(ImageList { images, next: None }) };
        after = Some(last.clone());
        for id in &repositories {
            if upstream.as_ref().is_some_and(|upstream| **upstream != *id.upstream) {
                continue;
            }
            look_at(core, id, query, &mut images).await?;
            if images.len() >= query.limit {
                return Ok(ImageList { images, next: Some(names.client_name(id)) });
            }
        }
    }
}

async fn look_at(
    core: &Arc<Core>,
    id: &RepositoryId,
    query: &ImageQuery,
    images: &mut Vec<Image>,
) -> Result<(), RegistryError> {
    let found = Catalogue::load(core, id).await?.list().await?;
    images.extend(found.into_iter().filter(|image| query.state.is_none_or(|state| image.state() == state)));
    Ok(())
}
