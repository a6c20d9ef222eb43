//! Use case: what images need to be pulled elsewhere is found out, and handed over for a bundle.
//!
//! Manifests and content come by the same pulls and fills as clients': what is here costs no transfer, and
//! what is not is kept here, too.

mod next;
mod plan;

use std::sync::Arc;

use bytes::Bytes;
use prometheus::IntCounter;

pub(super) use next::Exports;
pub use next::NextBlob;
pub(super) use plan::plan;

use super::core::Core;
use super::{BlobStream, RegistryError, Repository, Spelling, Want, manifest, pull_blob};
use crate::auth::RequestContext;
use crate::bundle::ItemKind;
use crate::metadata::ContentKind;
use crate::oci::{AcceptClass, Digest, ImagePattern, Platform, Reference};

/// An image, or images whose tags match a glob, to be carried.
#[derive(Clone, Debug)]
pub struct ExportOrder {
    /// Which.
    pub image: ImagePattern,
    /// For which platforms; none is what the configuration says, and where that names none, all.
    pub platforms: Vec<Platform>,
    /// Whether signatures and other referrers come along.
    pub referrers: bool,
}

/// Some content of a planned bundle.
#[derive(Clone, Debug)]
pub struct ExportedContent {
    /// Manifest or blob.
    pub kind: ItemKind,
    /// Its digest.
    pub digest: Digest,
    /// The repositories that it may be of, as the plan names them.
    pub repositories: Vec<String>,
    /// Blobs that will be asked for after it, in order: several are fetched meanwhile.
    pub next: Vec<NextBlob>,
}

/// Content on its way to a bundle. What of it is given out is counted.
pub struct ExportBody {
    source: Source,
    size_bytes: Option<u64>,
    given_bytes: IntCounter,
}

enum Source {
    Manifest(Option<Bytes>),
    Blob(BlobStream),
}

impl ExportBody {
    /// Its size in bytes, where that is known.
    pub const fn size_bytes(&self) -> Option<u64> {
        self.size_bytes
    }

    /// The next part; `None` at the end.
    pub async fn next(&mut self) -> Option<Result<Bytes, RegistryError>> {
        let part = match &mut self.source {
            Source::Manifest(body) => Ok(body.take()?),
            Source::Blob(blob) => blob.next().await?,
        };
        Some(part.inspect(|bytes| self.given_bytes.inc_by(bytes.len() as u64)))
    }
}

/// How a plan ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PlanOutcome {
    /// It is made.
    Planned,
    /// What is there cannot be carried so.
    Unfit,
    /// Something could not be had.
    Failed,
}

impl PlanOutcome {
    /// All of them.
    pub(super) const ALL: [Self; 3] = [Self::Planned, Self::Unfit, Self::Failed];

    /// The metric label.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Unfit => "unfit",
            Self::Failed => "failed",
        }
    }

    pub(super) const fn of<T>(planned: &Result<T, ExportError>) -> Self {
        match planned {
            Ok(_) => Self::Planned,
            Err(ExportError::Unfit { .. }) => Self::Unfit,
            Err(ExportError::Registry { .. }) => Self::Failed,
        }
    }
}

/// Why there is no plan.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ExportError {
    /// Something cannot be had.
    #[error("{image}: {what}")]
    Registry {
        /// The image.
        image: String,
        /// What of it.
        what: &'static str,
        /// Why.
        #[source]
        source: RegistryError,
    },
    /// What is there cannot be carried; the image, and why.
    #[error("{image}: {reason}")]
    Unfit {
        /// The image.
        image: String,
        /// Why.
        reason: String,
    },
}

/// Opens content; see [`super::Registry::open_export`].
pub(super) async fn open(core: &Arc<Core>, content: &ExportedContent) -> Result<ExportBody, RegistryError> {
    next::fetch_ahead(core, content);
    let repository = find_repository(core, content).await?;
    let context = RequestContext::system();
    let (source, size_bytes) = match content.kind {
        ItemKind::Manifest => {
            let (reference, class) = (Reference::Digest(content.digest), AcceptClass::Any);
            let pulled = manifest::pull(core, &context, &repository, &reference, &class, Want::Body).await?;
            (Source::Manifest(pulled.body), Some(pulled.size_bytes))
        }
        ItemKind::Blob => {
            let blob = pull_blob::open(core, &context, &repository, &content.digest, None).await?;
            (Source::Blob(blob.read_all().await?), blob.size_bytes)
        }
    };
    Ok(ExportBody { source, size_bytes, given_bytes: core.metrics.bundles.export_bytes() })
}

/// The repository that has shown to have it; else, the first that is of an upstream here.
async fn find_repository(core: &Core, content: &ExportedContent) -> Result<Repository, RegistryError> {
    let kind = match content.kind {
        ItemKind::Manifest => ContentKind::Manifest,
        ItemKind::Blob => ContentKind::Blob,
    };
    if let Some(repository) = find_proven(core, &content.repositories, kind, &content.digest).await {
        return Ok(repository);
    }
    let mut known = content.repositories.iter().map(|name| resolve(core, name));
    let none =
        || Err(RegistryError::NameInvalid("none of the repositories is of an upstream here".to_owned()));
    known.find(Result::is_ok).unwrap_or_else(none)
}

/// The repository that has shown to have some content.
async fn find_proven(
    core: &Core,
    repositories: &[String],
    kind: ContentKind,
    digest: &Digest,
) -> Option<Repository> {
    for name in repositories {
        if let Ok(repository) = resolve(core, name)
            && core.find_proof(&repository.id, kind, digest).await.is_some()
        {
            return Some(repository);
        }
    }
    None
}

fn resolve(core: &Core, name: &str) -> Result<Repository, RegistryError> {
    core.names.load().resolve(&Spelling { ns: None, prefix: None, name, own_hosts: &[] })
}
