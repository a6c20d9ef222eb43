//! Hosted content through the cache of a node: a real disk, a catalogue, a store that fails as it is told, and an
//! upstream that has what it is told to have.

use std::fs;
use std::net::Ipv4Addr;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::{StreamExt as _, stream};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::remote::{Fault, Remote};
use crate::auth::{RequestContext, RequestId};
use crate::blobs::hosted::contract::content;
use crate::blobs::hosted::{DurableBlobs as _, HostedError, Steps, Uploads};
use crate::blobs::{Blobs as _, LocalBlobs};
use crate::config::UpstreamConfig;
use crate::events::LocalEvents;
use crate::metadata::catalogue::{CatalogueError, SqlCatalogue};
use crate::metadata::sqlite::SqliteIndex;
use crate::metadata::{
    AccessProof, AccessProofs as _, ContentIndex as _, ContentKind, ContentRecord, RepositoryId, Segment,
};
use crate::oci::{Digest, RangeSet, RepositoryName};
use crate::registry::hosted::{
    CollectionMetrics, HostedContent, Hosting, HostingError, HostingServices, NamespacePolicy,
};
use crate::registry::{
    BlobPart, CacheMetrics, CacheParts, CacheResult, Evictor, Names, OpenBlob, Registry, RegistryError,
    RegistryMetrics, Repository, Services, UseLog,
};
use crate::runtime::{Clock, Tasks, Timestamp};
use crate::upstream::{Upstream, UpstreamMetrics, UpstreamServices};

/// Content that takes many parts of the store, and is no small blob.
const LARGE: usize = 400_000;

/// A node that hosts `acme/app` in a store that is elsewhere.
struct Node {
    hosting: Hosting,
    registry: Registry,
    store: Arc<Remote>,
    index: Arc<SqliteIndex>,
    blobs: Arc<LocalBlobs>,
    upstream: Arc<UpstreamServer>,
    metrics: prometheus::Registry,
    /// Of an upstream; it has the same digests.
    repository: Repository,
    folder: TempDir,
}

impl Node {
    async fn new() -> Self {
        Self::with_budget(1 << 30).await
    }

    async fn with_budget(budget_bytes: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (tasks, clock, steps) = (Tasks::new(), Clock::system(), Steps::default());
        let metrics = prometheus::Registry::new();
        let upstream = UpstreamServer::start(&tasks).await;
        let blobs = Arc::new(LocalBlobs::open(&folder.path().join("cache"), &tasks).unwrap());
        let index = Arc::new(SqliteIndex::in_memory().await.unwrap());
        let events = Arc::new(LocalEvents::default());
        let parts = CacheParts {
            index: index.clone(),
            blobs: blobs.clone(),
            events: events.clone(),
            clock: clock.clone(),
        };
        let asked = Arc::new(upstream.client(&tasks, &clock));
        let id = RepositoryId { upstream: "up.test".into(), name: "team/app".parse().unwrap() };
        let repository = Repository { id, upstream: Arc::clone(&asked), explicit: true };
        let registry = Registry::new(Services {
            index: index.clone(),
            blobs: blobs.clone(),
            events,
            clock: clock.clone(),
            tasks: tasks.clone(),
            evictor: Arc::new(Evictor::new(parts, CacheMetrics::new(&metrics).unwrap(), budget_bytes)),
            uses: Arc::new(UseLog::new(index.clone(), clock.clone())),
            metrics: RegistryMetrics::new(&metrics).unwrap(),
            names: Names::new(vec![asked]),
            memory_bytes: 1 << 20,
        });
        let store = Arc::new(Remote::new(folder.path().join("parts")));
        let file = folder.path().join(SqlCatalogue::FILE_NAME);
        let services = HostingServices {
            catalogue: Arc::new(SqlCatalogue::open(&file).await.unwrap()),
            store: store.clone(),
            registry: Some(registry.clone()),
            redirect_for: None,
            location: "remote".to_owned(),
            uploads: Uploads::open(&folder.path().join("uploads"), u64::MAX, &tasks, &steps).unwrap(),
            steps,
            clock,
            tasks,
        };
        let unseen = CollectionMetrics::new(&prometheus::Registry::new()).unwrap();
        let hosting = Hosting::new(services, unseen);
        let (acme, policy) = ("acme".parse().unwrap(), NamespacePolicy::default());
        hosting.create_namespace(&administrator(), &acme, &policy).await.unwrap();
        Self { hosting, registry, store, index, blobs, upstream, metrics, repository, folder }
    }

    async fn push(&self, content: &[u8]) -> Digest {
        let digest = digest_of(content);
        let body = stream::iter([Ok(Bytes::copy_from_slice(content))]).boxed();
        self.hosting.push_blob(&administrator(), &app(), &digest, body).await.unwrap();
        self.store.take_reads();
        digest
    }

    async fn open(&self, digest: &Digest) -> Result<HostedContent, HostingError> {
        self.hosting.open_blob(&administrator(), &app(), digest, None).await
    }

    /// Pulls all of a blob.
    async fn pull(&self, digest: &Digest) -> (CacheResult, Vec<u8>) {
        let content = self.open(digest).await.unwrap();
        (content.served().unwrap().result, read(&content).await.unwrap())
    }

    /// Pulls what cannot be had, however far that gets; gives the bytes that came and why no more did.
    async fn pull_in_vain(&self, digest: &Digest) -> (usize, RegistryError) {
        match self.open(digest).await {
            Ok(content) => read(&content).await.unwrap_err(),
            Err(HostingError::Cache(error)) => (0, error),
            Err(other) => panic!("{other}"),
        }
    }

    /// Pulls through the repository of the upstream.
    async fn pull_from_upstream(&self, digest: &Digest) -> Result<OpenBlob, RegistryError> {
        let nobody = RequestContext::anonymous(RequestId::random());
        self.registry.open_blob(&nobody, &self.repository, digest, None).await
    }

    /// Waits until the disk has a blob and the index lists it.
    async fn wait_until_kept(&self, digest: &Digest) {
        for _ in 0..5000 {
            let is_listed = self.index.find_content(digest).await.unwrap().is_some();
            if is_listed && self.blobs.open(digest).await.unwrap().is_some() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        panic!("the blob is not kept");
    }

    async fn is_kept(&self, digest: &Digest) -> bool {
        self.blobs.open(digest).await.unwrap().is_some()
    }

    /// Puts something on the disk, as a fill would.
    async fn keep(&self, digest: &Digest, content: &[u8]) {
        let path = self.path_of(digest);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        let record = ContentRecord {
            digest: *digest,
            kind: ContentKind::Blob,
            size_bytes: content.len() as u64,
            media_type: None,
            stored_at: Timestamp::default(),
            last_used_at: Timestamp::default(),
            segment: Segment::Probation,
        };
        self.index.record_content(&[record]).await.unwrap();
    }

    async fn prove(&self, digest: &Digest, size_bytes: usize) {
        let (digest, size_bytes) = (*digest, Some(size_bytes as u64));
        let proof = AccessProof { digest, kind: ContentKind::Blob, size_bytes, media_type: None };
        self.index.record_proofs(&self.repository.id, &[proof]).await.unwrap();
    }

    fn path_of(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.folder
            .path()
            .join("cache/content")
            .join(digest.algorithm().as_str())
            .join(&hex[..2])
            .join(hex.as_str())
    }

    /// How often content was not what its digest says.
    fn integrity_failures(&self) -> f64 {
        let families = self.metrics.gather();
        let family = families.iter().find(|family| family.name() == "integrity_failures_total").unwrap();
        family.get_metric().iter().map(|metric| metric.get_counter().get_value()).sum()
    }
}

/// A registry that knows one blob, or none.
struct UpstreamServer {
    port: u16,
    has_it: AtomicBool,
    requests: AtomicUsize,
}

impl UpstreamServer {
    async fn start(tasks: &Tasks) -> Arc<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = Arc::new(Self { port, has_it: AtomicBool::new(false), requests: AtomicUsize::new(0) });
        let (answering, connections) = (Arc::clone(&server), tasks.clone());
        tasks.spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let server = Arc::clone(&answering);
                connections.spawn(async move { server.answer(connection).await });
            }
        });
        server
    }

    /// Answers one question with its first byte, or that there is no such thing.
    async fn answer(&self, mut connection: TcpStream) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match connection.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_closed) => return,
            }
        }
        self.requests.fetch_add(1, Ordering::SeqCst);
        let answer = if self.has_it.load(Ordering::SeqCst) {
            format!("206 Partial Content\r\nContent-Range: bytes 0-0/{LARGE}\r\nContent-Length: 1\r\n")
        } else {
            "404 Not Found\r\nContent-Length: 0\r\n".to_owned()
        };
        let body = if self.has_it.load(Ordering::SeqCst) { "x" } else { "" };
        let answer = format!("HTTP/1.1 {answer}Connection: close\r\n\r\n{body}");
        let _client_left = connection.write_all(answer.as_bytes()).await;
    }

    fn client(&self, tasks: &Tasks, clock: &Clock) -> Upstream {
        let metrics = UpstreamMetrics::new(&prometheus::Registry::new()).unwrap();
        let services = UpstreamServices::new(metrics, tasks.clone(), clock.clone(), "test").unwrap();
        let mut config = UpstreamConfig::for_test("up.test", &format!("http://127.0.0.1:{}", self.port));
        config.freshness.negative_for = Duration::ZERO;
        Upstream::new(config, &services).unwrap()
    }
}

fn administrator() -> RequestContext {
    RequestContext::administrator()
}

fn app() -> RepositoryName {
    "acme/app".parse().unwrap()
}

fn digest_of(content: &[u8]) -> Digest {
    Digest::of(crate::oci::Algorithm::Sha256, content)
}

async fn read(content: &HostedContent) -> Result<Vec<u8>, (usize, RegistryError)> {
    read_part(content, 0..content.size_bytes()).await
}

async fn read_part(content: &HostedContent, range: Range<u64>) -> Result<Vec<u8>, (usize, RegistryError)> {
    let mut stream = content.read(range).await.map_err(|error| (0, error))?;
    let mut bytes = Vec::new();
    while let Some(part) = stream.next().await {
        bytes.extend_from_slice(&part.map_err(|error| (bytes.len(), error))?);
    }
    Ok(bytes)
}

async fn read_cached(blob: &OpenBlob) -> Vec<u8> {
    let mut stream = blob.read_all().await.unwrap();
    let mut bytes = Vec::new();
    while let Some(part) = stream.next().await {
        bytes.extend_from_slice(&part.unwrap());
    }
    bytes
}

fn is_lost(error: &RegistryError) -> bool {
    matches!(error, RegistryError::HostedStore(error) if matches!(**error, HostedError::Unkept { .. }))
}

#[tokio::test]
async fn a_blob_that_was_read_once_is_served_without_a_request_while_the_store_is_away() {
    for size in [0, 10, LARGE] {
        let node = Node::new().await;
        let blob = content(size, 1);
        let digest = node.push(&blob).await;
        assert!(node.pull(&digest).await == (CacheResult::Miss, blob.clone()), "{size}");
        node.wait_until_kept(&digest).await;
        let requests = node.store.requests();
        node.store.set(Fault::Away);
        for _ in 0..2 {
            assert!(node.pull(&digest).await == (CacheResult::Hit, blob.clone()), "{size}");
        }
        assert_eq!(node.store.requests(), requests);
    }
}

#[tokio::test]
async fn what_is_kept_leaves_from_its_file() {
    let node = Node::new().await;
    let blob = content(LARGE, 1);
    let digest = node.push(&blob).await;
    node.pull(&digest).await;
    node.wait_until_kept(&digest).await;
    let content = node.open(&digest).await.unwrap();
    let part = content.read(7..LARGE as u64).await.unwrap().next_part().await;
    let Some(Ok(BlobPart::Stored(part))) = part else { panic!("it is read instead") };
    assert_eq!(*part.slice.range(), 7..LARGE as u64);
    let mut rest = part.read_instead();
    assert!(blob[7..].starts_with(&rest.next().await.unwrap().unwrap()));
}

#[tokio::test]
async fn a_crowd_is_served_by_one_transfer() {
    let node = Node::new().await;
    let blob = content(LARGE, 1);
    let digest = node.push(&blob).await;
    node.store.hold();
    let opened = join_all((0..32).map(|_| node.open(&digest))).await;
    node.store.flow();
    let opened: Vec<_> = opened.into_iter().map(Result::unwrap).collect();
    let results: Vec<_> = opened.iter().map(|content| content.served().unwrap().result).collect();
    assert_eq!(results.iter().filter(|result| **result == CacheResult::Miss).count(), 1);
    assert_eq!(results.iter().filter(|result| **result == CacheResult::Collapsed).count(), 31);
    for read in join_all(opened.iter().map(read)).await {
        assert!(read.unwrap() == blob);
    }
    assert_eq!(node.store.take_reads(), [(0, LARGE)]);
}

#[tokio::test]
async fn a_store_that_breaks_off_is_asked_for_the_rest() {
    let node = Node::new().await;
    let blob = content(LARGE, 1);
    let digest = node.push(&blob).await;
    node.store.set(Fault::Breaks(150_000));
    assert!(node.pull(&digest).await.1 == blob);
    assert_eq!(node.store.take_reads(), [(0, LARGE), (150_000, LARGE)]);
}

#[tokio::test]
async fn wrong_bytes_of_the_store_complete_no_answer_and_are_not_kept() {
    for (size, budget_bytes) in [(10, 1 << 30), (LARGE, 1 << 30), (LARGE, 1000)] {
        let node = Node::with_budget(budget_bytes).await;
        let blob = content(size, 1);
        let digest = node.push(&blob).await;
        node.store.set(Fault::Altered);
        let (given_bytes, error) = node.pull_in_vain(&digest).await;
        assert!(given_bytes < size && is_lost(&error), "{given_bytes} {error}");
        assert!(!node.is_kept(&digest).await);
        assert!(node.integrity_failures() > 0.0);
        node.store.set(Fault::None);
        assert!(node.pull(&digest).await.1 == blob, "it is asked again");
    }
}

#[tokio::test]
async fn a_blob_that_is_larger_than_the_budget_passes_through() {
    let node = Node::with_budget(LARGE as u64 - 1).await;
    let blob = content(LARGE, 1);
    let digest = node.push(&blob).await;
    node.store.set(Fault::Breaks(150_000));
    assert!(node.pull(&digest).await == (CacheResult::Bypass, blob));
    assert_eq!(node.store.take_reads(), [(0, LARGE), (150_000, LARGE)]);
    assert!(!node.is_kept(&digest).await);
}

#[tokio::test]
async fn a_disk_that_fails_costs_no_pull() {
    let node = Node::new().await;
    let blob = content(LARGE, 1);
    let digest = node.push(&blob).await;
    let cache = node.folder.path().join("cache");
    fs::remove_dir_all(&cache).unwrap();
    fs::write(&cache, "no directory").unwrap();
    assert!(node.pull(&digest).await.1 == blob);
}

#[tokio::test]
async fn a_file_that_fails_its_reader_is_replaced_by_the_store() {
    let node = Node::new().await;
    let blob = content(LARGE, 1);
    let digest = node.push(&blob).await;
    node.pull(&digest).await;
    node.wait_until_kept(&digest).await;
    node.store.take_reads();
    let content = node.open(&digest).await.unwrap();
    fs::OpenOptions::new().write(true).open(node.path_of(&digest)).unwrap().set_len(200_000).unwrap();
    assert!(read(&content).await.unwrap() == blob);
    assert!(!node.store.take_reads().is_empty());
}

#[tokio::test]
async fn a_small_range_far_ahead_is_read_alone() {
    let node = Node::new().await;
    let blob = content(17 * 1024 * 1024, 1);
    let digest = node.push(&blob).await;
    let ranges = RangeSet::parse("bytes=16900000-16900099").unwrap();
    let opened = node.hosting.open_blob(&administrator(), &app(), &digest, ranges.as_ref()).await.unwrap();
    let part = read_part(&opened, 16_900_000..16_900_100).await.unwrap();
    assert_eq!(part, blob[16_900_000..16_900_100]);
    assert_eq!(node.store.take_reads(), [(16_900_000, 16_900_100)]);
}

#[tokio::test]
async fn a_store_that_is_away_is_told_as_such() {
    let node = Node::new().await;
    let digest = node.push(&content(LARGE, 1)).await;
    node.store.set(Fault::Away);
    let (_, error) = node.pull_in_vain(&digest).await;
    let RegistryError::HostedStore(cause) = &error else { panic!("{error}") };
    assert!(cause.is_transient(), "{cause}");
    node.store.set(Fault::None);
    assert_eq!(node.pull(&digest).await.0, CacheResult::Miss, "it is asked again");
}

#[tokio::test]
async fn what_the_store_has_lost_is_told_as_lost_and_not_as_unknown() {
    let node = Node::new().await;
    let gone = node.push(&content(LARGE, 1)).await;
    node.store.delete(&gone).await.unwrap();
    let (_, error) = node.pull_in_vain(&gone).await;
    assert!(is_lost(&error), "{error}");
    assert_eq!(node.store.take_reads(), [(0, LARGE)]);
    let short = node.push(&content(LARGE, 2)).await;
    node.store.set(Fault::Short(LARGE - 1));
    let (given_bytes, error) = node.pull_in_vain(&short).await;
    assert!(is_lost(&error) && given_bytes < LARGE, "{error}");
    assert_eq!(node.store.take_reads(), [(0, LARGE)], "what is short is not asked for again and again");
    assert!(!node.is_kept(&short).await);
}

#[tokio::test]
async fn an_upstream_gives_nobody_what_only_the_store_has_shown_to_have() {
    let node = Node::new().await;
    let blob = content(LARGE, 1);
    let digest = node.push(&blob).await;
    node.store.hold();
    let filling = node.open(&digest).await.unwrap();
    let refused = node.pull_from_upstream(&digest).await;
    assert!(matches!(refused, Err(RegistryError::BlobUnknown(_))), "while it is filled");
    node.store.flow();
    assert!(read(&filling).await.unwrap() == blob);
    node.wait_until_kept(&digest).await;
    let refused = node.pull_from_upstream(&digest).await;
    assert!(matches!(refused, Err(RegistryError::BlobUnknown(_))), "when it is here");
    assert_eq!(node.index.list_holders(&digest).await.unwrap(), [], "nobody has shown to have it");
    assert_eq!(node.upstream.requests.load(Ordering::SeqCst), 2, "its own upstream was asked");
}

#[tokio::test]
async fn an_upstream_that_has_the_same_shares_what_the_store_gave() {
    let node = Node::new().await;
    let blob = content(LARGE, 1);
    let digest = node.push(&blob).await;
    node.upstream.has_it.store(true, Ordering::SeqCst);
    node.store.hold();
    let filling = node.open(&digest).await.unwrap();
    let joined = node.pull_from_upstream(&digest).await.unwrap();
    assert_eq!(joined.served.result, CacheResult::Revalidated);
    node.store.flow();
    assert!(read_cached(&joined).await == blob && read(&filling).await.unwrap() == blob);
    assert_eq!(node.store.take_reads(), [(0, LARGE)]);
    assert_eq!(node.index.list_holders(&digest).await.unwrap().len(), 1, "by its own word");
}

#[tokio::test]
async fn what_an_upstream_gave_is_hosted_only_where_the_catalogue_says_so() {
    let node = Node::new().await;
    let blob = content(LARGE, 1);
    let digest = digest_of(&blob);
    node.keep(&digest, &blob).await;
    node.prove(&digest, LARGE).await;
    assert!(read_cached(&node.pull_from_upstream(&digest).await.unwrap()).await == blob);
    let refused = node.open(&digest).await;
    assert!(matches!(refused, Err(HostingError::Catalogue(CatalogueError::BlobUnknown(_)))));
    node.push(&blob).await;
    assert!(node.pull(&digest).await == (CacheResult::Hit, blob));
    assert_eq!(node.store.take_reads(), []);
}

#[tokio::test]
async fn a_file_of_another_size_than_the_catalogue_says_is_replaced_from_the_store() {
    let node = Node::new().await;
    let blob = content(LARGE, 1);
    let digest = node.push(&blob).await;
    // As an index that was built from the disk has it.
    node.keep(&digest, &blob[..LARGE - 1]).await;
    assert!(node.pull(&digest).await == (CacheResult::Miss, blob));
}

#[tokio::test]
async fn a_catalogue_that_is_wrong_about_a_size_has_nothing_served() {
    let node = Node::new().await;
    let blob = content(LARGE, 1);
    let digest = digest_of(&blob);
    node.keep(&digest, &blob).await;
    let error = node.hosting.open_content(&digest, LARGE as u64 - 1, None).await.map(drop).unwrap_err();
    assert!(matches!(error, HostingError::ContentMissing(_)), "{error}");
}

#[tokio::test]
async fn the_copy_of_a_collected_blob_goes_unless_an_upstream_has_it_too() {
    let node = Node::new().await;
    let (gone, kept) = (content(LARGE, 1), content(LARGE, 2));
    let (gone, kept) = (node.push(&gone).await, node.push(&kept).await);
    for digest in [&gone, &kept] {
        node.pull(digest).await;
        node.wait_until_kept(digest).await;
    }
    node.prove(&kept, LARGE).await;
    let cache = super::StoreCache::in_front_of(&(node.store.clone() as _), &node.registry).unwrap();
    for digest in [&gone, &kept] {
        cache.forget(digest).await.unwrap();
    }
    assert!(!node.is_kept(&gone).await && node.is_kept(&kept).await);
    assert!(node.index.find_content(&gone).await.unwrap().is_none());
}
