//! The use cases: what the product does, without HTTP or SQL.

mod acquire;
mod ahead;
mod blob;
mod bundle_metrics;
mod core;
mod deletion;
mod direct;
mod disk;
mod error;
mod evict;
mod export;
mod fill;
mod fill_failure;
mod freshness;
mod holdings;
pub mod hosted;
mod image;
mod import;
mod integrity;
mod listing;
mod manifest;
mod memory;
#[cfg(test)]
mod memory_blobs;
mod metrics;
mod offline;
mod pace;
mod patience;
mod pins;
mod prefetch;
mod pull_blob;
mod rebuild;
mod referrers;
pub mod repository;
mod served;
mod store_cache;
mod stored;
mod supplier;
mod together;
mod transfer;
mod upkeep;
mod warm;

use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::broadcast::error::RecvError;

pub use blob::{BlobPart, BlobStat, BlobStream, OpenBlob, StoredPart};
pub use error::{ErrorKind, RegistryError};
pub use evict::{CacheMetrics, Evicted, EvictionReason, Evictor, Hold, Room, UseLog};
pub use export::{ExportBody, ExportError, ExportOrder, ExportedContent, NextBlob};
pub use holdings::{CacheStats, HeldContent, HoldingList, HoldingQuery, HoldingSums, PurgeOrder, Purged};
pub use image::{Image, ImageList, ImageQuery, ImageState, Missing, Part};
pub use import::{ImportError, ImportOrder, Imported, ImportedImage, TagFate, TagRule};
pub use integrity::{
    Damage, FindingState, FoundBy, IndexFound, VerifyError, VerifyFinding, VerifyOrder, VerifyState,
    VerifyStatus,
};
pub use metrics::RegistryMetrics;
pub use offline::LinkStatus;
pub use pins::{PinError, PinnedImage};
pub use rebuild::{Rebuild, Rebuilt};
pub use repository::{Names, Repository, Spelling};
pub use served::{CacheResult, Served, StaleCause, Staleness};
pub use upkeep::{CacheParts, UpkeepError};
pub use warm::{WarmError, WarmOrder, WarmRequest, WarmState, WarmStatus, WarmedImage, WarmedState};

use self::core::Core;
use crate::auth::RequestContext;
use crate::blobs::Blobs;
use crate::bundle;
use crate::config::WarmConfig;
use crate::events::{Event, Events};
use crate::metadata::NodeIndex;
use crate::oci::{AcceptClass, Digest, MediaType, RangeSet, Reference};
use crate::runtime::{Clock, SingleFlight, Tasks};
use crate::upstream::Link;

/// All use cases over one set of services. Cloning gives another handle.
#[derive(Clone)]
pub struct Registry(Arc<Core>);

/// What the use cases stand on.
pub struct Services {
    /// The node's index.
    pub index: Arc<dyn NodeIndex>,
    /// The node's content.
    pub blobs: Arc<dyn Blobs>,
    /// Invalidation.
    pub events: Arc<dyn Events>,
    /// The time.
    pub clock: Clock,
    /// Where tasks run.
    pub tasks: Tasks,
    /// Keeps the byte budget.
    pub evictor: Arc<Evictor>,
    /// Notes uses for it.
    pub uses: Arc<UseLog>,
    /// What is counted.
    pub metrics: RegistryMetrics,
    /// The registries that names can mean.
    pub names: Names,
    /// How many bytes of manifests and resolutions are kept in memory.
    pub memory_bytes: u64,
}

/// A manifest for a client.
#[derive(Clone, Debug)]
pub struct PulledManifest {
    /// The digest; for a request by digest, the very one asked for.
    pub digest: Digest,
    /// The real type.
    pub media_type: MediaType,
    /// The size in bytes.
    pub size_bytes: u64,
    /// The content; `None` only where the head alone was wanted and no content was at hand.
    pub body: Option<Bytes>,
    /// How it was come by.
    pub served: Served,
}

/// How much of a manifest is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Want {
    /// Digest, type and size: HEAD.
    Head,
    /// The content as well: GET.
    Body,
}

/// One page of tags for a client.
#[derive(Clone, Debug)]
pub struct TagList {
    /// The tags, in upstream's order.
    pub tags: Vec<String>,
    /// The query of the next page, to be put behind the client's own spelling of the path.
    pub next: Option<Vec<(String, String)>>,
    /// How it was come by.
    pub served: Served,
}

/// Referrers of a manifest for a client.
#[derive(Clone, Debug)]
pub struct ReferrerList {
    /// An image index, JSON.
    pub body: Bytes,
    /// Whether it was filtered by the artifact type asked for.
    pub filtered: bool,
    /// The query of the next page, to be put behind the client's own spelling of the path.
    pub next: Option<Vec<(String, String)>>,
    /// How it was come by.
    pub served: Served,
}

/// A page of repositories, as a client can spell them: `docker.io/library/nginx`.
#[derive(Clone, Debug)]
pub struct RepositoryList {
    /// The names.
    pub names: Vec<String>,
    /// Whether there are more after the last.
    pub more: bool,
}

impl Registry {
    /// Puts the use cases together.
    pub fn new(services: Services) -> Self {
        let Services { index, blobs, events, clock, tasks, evictor, uses, metrics, names, memory_bytes } =
            services;
        let core = Core {
            memory: memory::Memory::new(memory_bytes, clock.clone()),
            fills: fill::Fills::default(),
            images: image::Survey::default(),
            exports: export::Exports::default(),
            imports: import::Turn::default(),
            turns: ahead::Turns::default(),
            prefetches: prefetch::Prefetches::default(),
            warmer: warm::Warmer::default(),
            integrity: integrity::Integrity::default(),
            pin_turn: tokio::sync::Semaphore::new(1),
            disk: disk::DiskState::default(),
            makes_room: Arc::default(),
            manifest_flights: SingleFlight::new(tasks.clone()),
            probe_flights: SingleFlight::new(tasks.clone()),
            listing_flights: SingleFlight::new(tasks.clone()),
            names: ArcSwap::from_pointee(names),
            wishes: Mutex::default(),
            index,
            blobs,
            events,
            clock,
            tasks,
            metrics,
            evictor,
            uses,
        };
        Self(Arc::new(core))
    }

    /// Hears what other parts of the node, and later other nodes, have changed; ends at shutdown.
    pub async fn follow_events(&self) {
        let mut events = self.0.events.subscribe();
        let shutdown = self.0.tasks.shutdown_token();
        while let Some(received) = shutdown.run_until_cancelled(events.recv()).await {
            match received {
                Ok(event) => self.forget(event).await,
                Err(RecvError::Lagged(_)) => self.0.memory.forget_all(),
                Err(RecvError::Closed) => return,
            }
        }
    }

    async fn forget(&self, event: Event) {
        match event {
            Event::TagChanged { upstream, repository, tag } => {
                let id = crate::metadata::RepositoryId { upstream: upstream.into(), name: repository };
                self.0.memory.tags.invalidate(&(id, tag, AcceptClass::Any));
            }
            Event::Purged => {
                self.0.images.note_change();
                self.0.memory.forget_all();
            }
            Event::ContentRemoved { digest } => {
                self.0.images.note_change();
                self.0.memory.manifests.invalidate(&digest);
                self.0.memory.small_blobs.invalidate(&digest).await;
            }
        }
    }

    /// Looks after the disk once; meant to be called every few seconds.
    pub async fn watch_disk(&self) {
        disk::watch(&self.0).await;
    }

    /// What ails the disk, in words for the operator. The node serves all the same.
    pub fn disk_condition(&self) -> Option<String> {
        self.0.disk.condition()
    }

    /// The closed set of registries that names can mean.
    pub fn names(&self) -> Arc<Names> {
        self.0.names.load_full()
    }

    /// Replaces the registries that names can mean: the configuration was read again. Requests that run
    /// go on with what they found, unless this node is now offline for it.
    pub fn replace_names(&self, names: Names) {
        offline::replace_names(&self.0, names);
    }

    /// Which upstreams this node is offline for, in the order of the configuration.
    pub fn links(&self) -> Vec<LinkStatus> {
        offline::links(&self.0)
    }

    /// Takes one upstream, or all, off the network or back; `None` is back to what the configuration
    /// says. Lasts until it is said otherwise or the process ends; a reload does not change it.
    ///
    /// Errors: no upstream has that name or alias.
    pub fn switch(&self, upstream: Option<&str>, wish: Option<Link>) -> Result<(), RegistryError> {
        offline::switch(&self.0, upstream, wish)
    }

    /// Lists images and what of them is missing here.
    ///
    /// Errors: the query names a registry that is not configured, or no repository.
    pub async fn list_images(
        &self,
        context: &RequestContext,
        query: &ImageQuery,
    ) -> Result<ImageList, RegistryError> {
        image::list(&self.0, context, query).await
    }

    /// Sums up how much is cached, and how much may be.
    pub async fn cache_stats(&self, context: &RequestContext) -> Result<CacheStats, RegistryError> {
        holdings::stats(&self.0, context).await
    }

    /// Lists stored content by the repositories that have it, in pages of at most `limit`; `last` is the
    /// `next` of an earlier page.
    ///
    /// Errors: a name of the query, or `last`, means nothing here.
    pub async fn list_holdings(
        &self,
        context: &RequestContext,
        query: &HoldingQuery,
        last: Option<&str>,
        limit: u32,
    ) -> Result<HoldingList, RegistryError> {
        holdings::list(&self.0, context, query, last, limit).await
    }

    /// Has repositories forget content, and removes it where none is left that has it. A manifest that is
    /// named by its tag or digest takes along what nothing else in its repository uses; a tag that stays keeps
    /// its manifest. The next pull asks upstream.
    ///
    /// Errors: a name of the query means nothing here; the index or the disk fails, with a part done.
    pub async fn purge(&self, context: &RequestContext, order: &PurgeOrder) -> Result<Purged, RegistryError> {
        holdings::purge(&self.0, context, order).await
    }

    /// Pins an image, named as clients do, by tag or digest: eviction and purges leave it alone, all of it, also
    /// what of it comes later. By tag, the pin follows the tag.
    pub async fn pin(&self, context: &RequestContext, image: &str) -> Result<PinnedImage, PinError> {
        pins::pin(&self.0, context, image).await
    }

    /// Removes a pin; its content is treated as any other again.
    pub async fn unpin(&self, context: &RequestContext, image: &str) -> Result<(), PinError> {
        pins::unpin(&self.0, context, image).await
    }

    /// Lists pins.
    pub async fn list_pins(&self, context: &RequestContext) -> Result<Vec<PinnedImage>, RegistryError> {
        pins::list(&self.0, context).await
    }

    /// Begins to make images complete, and says how the job is called. It goes on in a later process where
    /// this one ends first.
    ///
    /// Errors: an image is of no configured registry, or excluded.
    pub async fn warm(&self, order: WarmOrder) -> Result<String, WarmError> {
        warm::start(&self.0, order).await
    }

    /// How all jobs do that make images complete; of those that are over, the latest.
    pub fn list_warm(&self) -> Vec<WarmStatus> {
        warm::list(&self.0)
    }

    /// How one of them does.
    pub fn find_warm(&self, id: &str) -> Option<WarmStatus> {
        warm::find(&self.0, id)
    }

    /// Stops one of them; what it fetched stays. `false` where there is none of that name.
    pub fn cancel_warm(&self, id: &str) -> bool {
        warm::cancel(&self.0, id)
    }

    /// Takes up the orders that an earlier process did not finish.
    pub async fn resume_warm(&self) {
        warm::resume(&self.0).await;
    }

    /// Replaces what is to be warmed on a schedule.
    pub fn replace_warm_schedule(&self, configs: &[WarmConfig]) {
        warm::replace(&self.0, configs);
    }

    /// Begins what is due of it.
    pub async fn begin_due_warm(&self) {
        warm::begin_due(&self.0).await;
    }

    /// Finds out all that images need to be pulled elsewhere: pulls every manifest and asks for referrers.
    pub async fn plan_export(&self, order: &ExportOrder) -> Result<bundle::Plan, ExportError> {
        let planned = export::plan(&self.0, order).await;
        self.0.metrics.bundles.planned(&planned);
        planned
    }

    /// Opens content for a bundle: from the cache, else from upstream.
    pub async fn open_export(&self, content: &ExportedContent) -> Result<ExportBody, RegistryError> {
        export::open(&self.0, content).await
    }

    /// Takes a bundle in. Nothing of it is visible before all of it was verified, and then everything at once.
    /// Dropped at an await point, either nothing is imported, or it goes on to its end.
    pub async fn import<S>(&self, order: ImportOrder, source: S) -> Result<Imported, ImportError>
    where
        S: Stream<Item = std::io::Result<Bytes>> + Send + Unpin,
    {
        import::run(&self.0, order, source).await
    }

    /// Replaces the configured keys: one of them has to have signed what is imported; without any, nobody has.
    pub fn replace_bundle_keys(&self, keys: Vec<bundle::PublicKey>) {
        self.0.imports.replace_keys(keys);
    }

    /// Has pins follow tags and cover referrers, and counts images for the metrics; [`Self::survey_signal`] tells
    /// when that is wanted.
    pub async fn survey_images(&self) -> Result<(), RegistryError> {
        image::survey(&self.0).await?;
        pins::refresh(&self.0).await
    }

    /// The signal that images should be counted anew.
    pub fn survey_signal(&self) -> Arc<tokio::sync::Notify> {
        self.0.images.signal()
    }

    /// Finds a manifest: from the cache while fresh, else from upstream.
    pub async fn pull_manifest(
        &self,
        context: &RequestContext,
        repository: &Repository,
        reference: &Reference,
        class: &AcceptClass,
        want: Want,
    ) -> Result<PulledManifest, RegistryError> {
        manifest::pull(&self.0, context, repository, reference, class, want).await
    }

    /// Finds out a blob's size without fetching the blob.
    pub async fn stat_blob(
        &self,
        context: &RequestContext,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<BlobStat, RegistryError> {
        pull_blob::stat(&self.0, context, repository, digest).await
    }

    /// Opens a blob: from disk, from the fill that runs or is now started, or, for small ranges far
    /// ahead, from upstream. Comes back when upstream has answered (never a guess), so that errors
    /// keep their class. `ranges` is what the client will read of it; `None` is all.
    pub async fn open_blob(
        &self,
        context: &RequestContext,
        repository: &Repository,
        digest: &Digest,
        ranges: Option<&RangeSet>,
    ) -> Result<OpenBlob, RegistryError> {
        pull_blob::open(&self.0, context, repository, digest, ranges).await
    }

    /// Lists tags; `query` holds `n` and `last`, or what the `next` of an earlier page held.
    pub async fn list_tags(
        &self,
        context: &RequestContext,
        repository: &Repository,
        query: &[(String, String)],
    ) -> Result<TagList, RegistryError> {
        listing::tags(&self.0, context, repository, query).await
    }

    /// Lists referrers of a manifest; `query` holds `artifactType` and what an earlier page's `next` held.
    /// An upstream that does not list referrers is asked for the tag of the fall-back scheme.
    pub async fn list_referrers(
        &self,
        context: &RequestContext,
        repository: &Repository,
        digest: &Digest,
        query: &[(String, String)],
    ) -> Result<ReferrerList, RegistryError> {
        listing::referrers(&self.0, context, repository, digest, query).await
    }

    /// Lists repositories with cached content.
    pub async fn list_repositories(
        &self,
        context: &RequestContext,
        last: Option<&str>,
        limit: u32,
    ) -> Result<RepositoryList, RegistryError> {
        listing::repositories(&self.0, context, last, limit).await
    }
}
