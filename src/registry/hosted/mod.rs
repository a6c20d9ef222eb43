//! The use cases of hosted repositories: what is pushed here, and what becomes of it.
//!
//! The catalogue says what is where and who may give it out; the store has the bytes. A push is acknowledged when the
//! bytes are durable and the transaction that names them is committed.

mod collect;
mod content;
#[cfg(test)]
mod crash_tests;
mod delete;
mod error;
mod expiry;
mod history;
mod lists;
mod management;
mod namespaces;
mod policy;
mod prune;
mod pull;
mod push_blob;
mod push_manifest;
#[cfg(test)]
mod tests;
mod uses;
mod verify;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

pub use collect::{CollectionMetrics, CollectionOutcome, CollectionRun, CollectionState, Removals};
pub use content::{ContentStream, HostedContent};
pub use error::{HostingError, Result};
pub use expiry::{EXPIRES_AFTER, parse_expires_after};
pub use history::DeletedTag;
pub use lists::{Page, ReferrerPage};
pub use management::{DeletedPlace, NamespaceRecord};
pub use policy::{ChildrenPolicy, Glob, NamespacePolicy, PolicyError, PruneRule};
pub use prune::{PruneOrder, Pruned, PrunedTag};
pub use pull::HostedManifest;
pub use push_blob::{Announced, Body, Mounted, UploadStatus};
pub use push_manifest::{MAX_MANIFEST_BYTES, ManifestBody, PushedAs};
pub use verify::{Fault, Verified};

use self::collect::Collector;
use self::namespaces::Namespaces;
use self::uses::Uses;
use crate::auth::RequestContext;
use crate::auth::policy::{Action, Visibility, require_hosted};
use crate::blobs::BlobError;
use crate::blobs::hosted::{DurableBlobs, HostedError, Step, Steps, Uploads};
use crate::metadata::catalogue::{self, Catalogue, Namespace, Stamp};
use crate::oci::RepositoryName;
use crate::registry::Registry;
use crate::registry::store_cache::StoreCache;
use crate::runtime::{Clock, Tasks};

/// The use cases over one catalogue and one store. Cloning gives another handle.
#[derive(Clone)]
pub struct Hosting(Arc<Inner>);

/// What the use cases stand on.
pub struct HostingServices {
    /// What is hosted.
    pub catalogue: Arc<dyn Catalogue>,
    /// The bytes of blobs.
    pub store: Arc<dyn DurableBlobs>,
    /// Whose cache is in front of the store, where that is elsewhere.
    pub registry: Option<Registry>,
    /// What the catalogue calls the store.
    pub location: String,
    /// Where clients are sent to the store for blobs: for how long such a URL is good.
    pub redirect_for: Option<Duration>,
    /// Blobs on their way in.
    pub uploads: Uploads,
    /// Who is told of the steps between that and an acknowledgement.
    pub steps: Steps,
    /// The time.
    pub clock: Clock,
    /// Where tasks run.
    pub tasks: Tasks,
}

struct Inner {
    services: HostingServices,
    namespaces: Namespaces,
    uses: Uses,
    collector: Collector,
    cache: Option<StoreCache>,
}

impl std::ops::Deref for Hosting {
    type Target = HostingServices;

    fn deref(&self) -> &HostingServices {
        &self.0.services
    }
}

impl Hosting {
    /// Puts the use cases together. No namespace is known before [`Hosting::refresh_namespaces`].
    pub fn new(services: HostingServices, metrics: CollectionMetrics) -> Self {
        let (uses, collector) = (Uses::default(), Collector::new(metrics));
        let cache = services.registry.as_ref();
        let cache = cache.and_then(|registry| StoreCache::in_front_of(&services.store, registry));
        Self(Arc::new(Inner { services, namespaces: Namespaces::default(), uses, collector, cache }))
    }

    /// Whether repositories of that first component are hosted here. A look into memory.
    pub fn hosts(&self, component: &str) -> bool {
        self.0.namespaces.contains(component)
    }

    /// Whether anything is hosted here. A look into memory.
    pub fn hosts_anything(&self) -> bool {
        !self.0.namespaces.is_empty()
    }

    /// Whether anything is hosted here, as far as is known. A look into memory.
    pub fn may_host_anything(&self) -> bool {
        self.0.namespaces.may_be_some()
    }

    /// Whether it is known which namespaces there are: not on a node that has never reached its catalogue.
    pub fn knows_namespaces(&self) -> bool {
        self.0.namespaces.are_known()
    }

    /// Whether anybody may pull from the repository.
    pub fn visibility(&self, repository: &RepositoryName) -> Visibility {
        self.0.namespaces.visibility(Namespace::of(repository).as_str())
    }

    /// Fails unless the actor may push to the repository: for those who have to read a body before they can ask more.
    pub fn require_push(&self, context: &RequestContext, repository: &RepositoryName) -> Result<()> {
        self.require(context, Action::Push, repository)
    }

    /// Fails unless the actor may do `action` to the repository. Comes before everything else, so that who may not
    /// learns nothing.
    fn require(&self, context: &RequestContext, action: Action, repository: &RepositoryName) -> Result<()> {
        Ok(require_hosted(context, action, repository, self.visibility(repository))?)
    }

    /// That it happens now, on behalf of the actor.
    fn stamp(&self, context: &RequestContext) -> Stamp {
        Stamp { at: self.clock.now(), by: context.actor.name() }
    }

    /// Changes the catalogue. What comes after this is acknowledged.
    async fn commit<T>(&self, change: impl Future<Output = catalogue::Result<T>>) -> Result<T> {
        self.reach(Step::Commit)?;
        let done = change.await?;
        self.reach(Step::Committed)?;
        Ok(done)
    }

    /// Tells that a step is about to be taken, which fails where a witness has it fail.
    fn reach(&self, step: Step) -> Result<()> {
        let reached = self.steps.reach(step);
        reached.map_err(|source| HostedError::Disk(BlobError::from_io("record change", source)).into())
    }
}
