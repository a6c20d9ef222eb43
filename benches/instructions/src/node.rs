//! The cases of a manifest that is in memory: use cases over an index and a directory of their own.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use tidegate::auth::{RequestContext, RequestId};
use tidegate::blobs::{Blobs, LocalBlobs};
use tidegate::config::UpstreamConfig;
use tidegate::events::LocalEvents;
use tidegate::metadata::sqlite::SqliteIndex;
use tidegate::metadata::{
    AccessProof, ContentKind, ContentRecord, NodeIndex, ObservedTag, PullRecord, RepositoryId, Segment,
    TagObservation,
};
use tidegate::oci::{AcceptClass, Algorithm, Digest, MediaType, Reference};
use tidegate::registry::{
    CacheMetrics, CacheParts, CacheResult, Evictor, Names, Registry, RegistryMetrics, Repository, Services,
    Spelling, UseLog, Want,
};
use tidegate::runtime::{Clock, Tasks, Timestamp};
use tidegate::telemetry::Metrics;
use tidegate::upstream::{Upstream, UpstreamMetrics, UpstreamServices};
use tokio::runtime::Runtime;

/// Time stands still: the tag stays fresh.
const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);

const UPSTREAM: &str = "upstream.test";
const NAME: &str = "library/nginx";
const TAG: &str = "1.27-alpine";
const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const MANIFEST: &[u8] = br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json"}"#;

/// As the settings' default, in bytes.
const MEMORY_BYTES: u64 = 64 << 20;

/// What clients send that take any image.
const ACCEPT: &str = "application/vnd.docker.distribution.manifest.v2+json, \
                      application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json";

/// A node that has one manifest, and its use cases.
pub(crate) struct Node {
    runtime: Runtime,
    registry: Registry,
    directory: PathBuf,
    digest: Digest,
}

impl Node {
    /// A node with the manifest on its disk and in its index.
    pub(crate) fn with_manifest() -> anyhow::Result<Self> {
        // One thread: what runs when is then the same in every run.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let directory = std::env::temp_dir().join(format!("tidegate-instructions-{}", std::process::id()));
        let digest = Digest::of(Algorithm::Sha256, MANIFEST);
        store(&directory, &digest).context("store the manifest")?;
        let registry = runtime.block_on(build(&directory, &digest))?;
        Ok(Self { runtime, registry, directory, digest })
    }

    /// Pulls the manifest by its digest.
    pub(crate) fn pull_by_digest(&self, count: u64) -> anyhow::Result<()> {
        self.pull(&Reference::Digest(self.digest), count)
    }

    /// Pulls the manifest by its tag.
    pub(crate) fn pull_by_tag(&self, count: u64) -> anyhow::Result<()> {
        self.pull(&Reference::Tag(TAG.parse()?), count)
    }

    fn pull(&self, reference: &Reference, count: u64) -> anyhow::Result<()> {
        let class = AcceptClass::from_lines([ACCEPT]);
        let context = RequestContext::anonymous(RequestId::random());
        let repository = self.repository()?;
        self.runtime.block_on(async {
            for _ in 0..count {
                let pull = self.registry.pull_manifest(&context, &repository, reference, &class, Want::Body);
                let pulled = pull.await?;
                anyhow::ensure!(pulled.served.result == CacheResult::Hit, "the manifest was not cached");
                black_box(pulled);
            }
            Ok(())
        })
    }

    fn repository(&self) -> anyhow::Result<Repository> {
        let spelling = Spelling { ns: Some(UPSTREAM), prefix: None, name: NAME, own_hosts: &[] };
        Ok(self.registry.names().resolve(&spelling)?)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Nothing depends on it: the directory is in the place for temporary ones.
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Lays the manifest where the store of blobs looks for it.
fn store(directory: &Path, digest: &Digest) -> std::io::Result<()> {
    let hex = digest.hex();
    let shard = directory.join("content").join(digest.algorithm().as_str()).join(&hex[..2]);
    std::fs::create_dir_all(&shard)?;
    std::fs::write(shard.join(hex), MANIFEST)
}

async fn build(directory: &Path, digest: &Digest) -> anyhow::Result<Registry> {
    let (tasks, clock) = (Tasks::new(), Clock::manual(NOW));
    let metrics = Metrics::new(NOW)?;
    let index = SqliteIndex::in_memory().await?;
    record(&index, digest).await?;
    let parts = CacheParts {
        index: Arc::new(index),
        blobs: Arc::new(LocalBlobs::open(directory, &tasks)?) as Arc<dyn Blobs>,
        events: Arc::new(LocalEvents::default()),
        clock: clock.clone(),
    };
    let upstreams = UpstreamServices::new(
        UpstreamMetrics::new(metrics.registry())?,
        tasks.clone(),
        clock.clone(),
        "instructions",
    )?;
    let upstream = Upstream::new(UpstreamConfig::for_test(UPSTREAM, "http://127.0.0.1:9"), &upstreams)?;
    Ok(Registry::new(Services {
        evictor: Arc::new(Evictor::new(parts.clone(), CacheMetrics::new(metrics.registry())?, u64::MAX)),
        uses: Arc::new(UseLog::new(Arc::clone(&parts.index), clock.clone())),
        metrics: RegistryMetrics::new(metrics.registry())?,
        names: Names::new(vec![Arc::new(upstream)]),
        memory_bytes: MEMORY_BYTES,
        index: parts.index,
        blobs: parts.blobs,
        events: parts.events,
        clock,
        tasks,
    }))
}

/// Writes what an earlier pull would have left in the index.
async fn record(index: &dyn NodeIndex, digest: &Digest) -> anyhow::Result<()> {
    let repository = RepositoryId { upstream: UPSTREAM.into(), name: NAME.parse()? };
    let media_type = MediaType::parse(MANIFEST_TYPE).context("the type is valid")?;
    let size_bytes = MANIFEST.len() as u64;
    let observation = TagObservation {
        digest: *digest,
        media_type: media_type.clone(),
        size_bytes,
        checked_at: NOW,
        missing_since: None,
    };
    let pull = PullRecord {
        content: ContentRecord {
            digest: *digest,
            kind: ContentKind::Manifest,
            size_bytes,
            media_type: Some(media_type.clone()),
            stored_at: NOW,
            last_used_at: NOW,
            segment: Segment::Probation,
        },
        proofs: vec![AccessProof {
            digest: *digest,
            kind: ContentKind::Manifest,
            size_bytes: Some(size_bytes),
            media_type: Some(media_type),
        }],
        tag: Some(ObservedTag { tag: TAG.parse()?, class: AcceptClass::Any, observation }),
    };
    Ok(index.record_pull(&repository, &pull).await?)
}
