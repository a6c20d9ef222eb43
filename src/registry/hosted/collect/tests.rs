//! Collections over a real catalogue and directory, and the use cases around them.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tempfile::TempDir;

use super::*;
use crate::blobs::FoundBlob;
use crate::blobs::hosted::{
    BlobDirectory, BlobListing, BlobStream, DurableBlobs, HostedBlob, HostedError, StagedBlob, Steps, Uploads,
};
use crate::metadata::catalogue::{
    BlobRecord, CatalogueError, ManifestPush, ManifestRecord, MissingChildren, Namespace, SqlCatalogue, Stamp,
};
use crate::oci::{Algorithm, Digest, MediaType, RepositoryName, Tag};
use crate::registry::hosted::{HostingServices, NamespacePolicy, PruneOrder};
use crate::runtime::{Clock, Tasks};

/// A store that fails once, after so many more operations: instead of one, or after it was done.
#[derive(Debug)]
struct Failing {
    inner: BlobDirectory,
    left: AtomicI64,
    is_done_first: AtomicBool,
}

impl Failing {
    async fn run<T>(
        &self,
        operation: impl Future<Output = Result<T, HostedError>>,
    ) -> Result<T, HostedError> {
        let fails = self.left.fetch_sub(1, Ordering::SeqCst) == 0;
        if !fails {
            return operation.await;
        }
        if self.is_done_first.load(Ordering::SeqCst) {
            operation.await?;
        }
        Err(HostedError::TimedOut { action: "fail" })
    }

    /// Has the operation after `count` others fail.
    fn fail_after(&self, count: i64, is_done_first: bool) {
        self.is_done_first.store(is_done_first, Ordering::SeqCst);
        self.left.store(count, Ordering::SeqCst);
    }
}

#[async_trait]
impl DurableBlobs for Failing {
    fn is_remote(&self) -> bool {
        self.inner.is_remote()
    }

    async fn put(&self, staged: StagedBlob) -> Result<(), HostedError> {
        self.inner.put(staged).await
    }

    async fn find(&self, digest: &Digest) -> Result<Option<FoundBlob>, HostedError> {
        self.run(self.inner.find(digest)).await
    }

    async fn open(&self, digest: &Digest) -> Result<Option<HostedBlob>, HostedError> {
        self.inner.open(digest).await
    }

    async fn read(&self, digest: &Digest, range: Range<u64>) -> Result<Option<BlobStream>, HostedError> {
        self.inner.read(digest, range).await
    }

    async fn delete(&self, digest: &Digest) -> Result<(), HostedError> {
        self.run(self.inner.delete(digest)).await
    }

    async fn list(&self, after: Option<&Digest>) -> Result<BlobListing, HostedError> {
        self.run(self.inner.list(after)).await
    }

    async fn presign(&self, digest: &Digest, valid_for: Duration) -> Result<Option<String>, HostedError> {
        self.inner.presign(digest, valid_for).await
    }
}

/// A registry that hosts `acme/app`.
struct Hosted {
    hosting: Hosting,
    store: Arc<Failing>,
    app: RepositoryName,
    folder: TempDir,
}

impl Hosted {
    async fn with_policy(policy: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let (tasks, clock, steps) = (Tasks::new(), Clock::manual(Clock::system().now()), Steps::default());
        let catalogue = SqlCatalogue::open(&folder.path().join(SqlCatalogue::FILE_NAME)).await.unwrap();
        let store = Arc::new(Failing {
            inner: BlobDirectory::open(&folder.path().join("blobs"), &tasks, &steps).unwrap(),
            left: AtomicI64::new(-1),
            is_done_first: AtomicBool::new(false),
        });
        let services = HostingServices {
            catalogue: Arc::new(catalogue),
            store: Arc::clone(&store) as Arc<dyn DurableBlobs>,
            registry: None,
            location: "local".to_owned(),
            redirect_for: None,
            uploads: Uploads::open(&folder.path().join("uploads"), u64::MAX, &tasks, &steps).unwrap(),
            steps,
            clock,
            tasks,
        };
        let hosting = Hosting::new(services, unseen());
        let (name, policy) = ("acme".parse().unwrap(), NamespacePolicy::parse(policy).unwrap());
        hosting.create_namespace(&administrator(), &name, &policy).await.unwrap();
        let app: RepositoryName = "acme/app".parse().unwrap();
        let hosted = Self { hosting, store, app, folder };
        hosted.hosting.catalogue.create_repository(&hosted.app, &hosted.stamp()).await.unwrap();
        hosted
    }

    fn stamp(&self) -> Stamp {
        Stamp { at: self.hosting.clock.now(), by: "somebody".into() }
    }

    fn wait(&self, hours: u64) {
        self.hosting.clock.advance(Duration::from_hours(hours));
    }

    /// Puts content into the store, as a push does before it records it.
    async fn put(&self, text: &str) -> Digest {
        let digest = digest(text);
        self.hosting.catalogue.announce_blob(&digest, self.hosting.clock.now()).await.unwrap();
        let upload = self.hosting.uploads.begin(Algorithm::Sha256).await.unwrap();
        let upload = upload.append(vec![Bytes::copy_from_slice(text.as_bytes())]).await.unwrap();
        self.hosting.store.put(upload.complete(&digest).await.unwrap()).await.unwrap();
        digest
    }

    async fn push(&self, text: &str, tags: &[&str]) -> Digest {
        let layer = self.put(&format!("layer of {text}")).await;
        let size_bytes = format!("layer of {text}").len() as u64;
        let blob = BlobRecord { digest: layer, size_bytes, locations: vec!["local".to_owned()] };
        self.hosting.catalogue.record_blob(&self.app, &blob, None, &self.stamp()).await.unwrap();
        let manifest = ManifestRecord {
            digest: digest(text),
            media_type: MediaType::OCI_MANIFEST,
            artifact_type: None,
            subject: None,
            annotations: std::collections::BTreeMap::new(),
            payload: Bytes::copy_from_slice(text.as_bytes()),
        };
        let push = ManifestPush {
            manifest,
            blobs: vec![layer],
            children: Vec::new(),
            missing_children: MissingChildren::Refused,
            tags: tags.iter().map(|tag| tag.parse().unwrap()).collect(),
            immutable_tags: Vec::new(),
            tags_expire_at: None,
        };
        self.hosting.catalogue.push_manifest(&self.app, &push, &self.stamp()).await.unwrap();
        digest(text)
    }

    async fn is_stored(&self, text: &str) -> bool {
        self.hosting.store.find(&digest(text)).await.unwrap().is_some()
    }

    /// Whether the image `kept` is whole.
    async fn is_kept(&self) -> bool {
        let layer = digest("layer of kept");
        let is_known = self.hosting.catalogue.find_blob(&self.app, &layer).await.unwrap().is_some();
        is_known && self.store.inner.find(&layer).await.unwrap().is_some() && self.tags().await == ["v1"]
    }

    /// Collects, and holds what went against what was foreseen.
    async fn collect(&self) -> Removals {
        let foreseen = self.hosting.foresee_collection(&administrator()).await.unwrap();
        let run = self.hosting.collect(&administrator()).await.unwrap();
        assert_eq!((run.error, run.ended.unwrap().1), (None, CollectionOutcome::Complete));
        assert_eq!(run.removed, foreseen);
        run.removed
    }

    async fn tags(&self) -> Vec<String> {
        let tags = self.hosting.catalogue.list_tags(&self.app, None, 99).await.unwrap();
        tags.iter().map(Tag::to_string).collect()
    }
}

fn unseen() -> CollectionMetrics {
    CollectionMetrics::new(&prometheus::Registry::new()).unwrap()
}

fn administrator() -> RequestContext {
    RequestContext::administrator()
}

fn digest(text: &str) -> Digest {
    Digest::of(Algorithm::Sha256, text.as_bytes())
}

fn tag(text: &str) -> Tag {
    text.parse().unwrap()
}

#[tokio::test]
async fn what_nobody_needs_goes_after_its_time_and_its_bytes_are_free() {
    let hosted = Hosted::with_policy("{}").await;
    hosted.push("old", &["v1"]).await;
    hosted.push("new", &["v1"]).await;
    hosted.push("deleted", &[]).await;
    hosted.hosting.catalogue.delete_manifest(&hosted.app, &digest("deleted"), &hosted.stamp()).await.unwrap();
    // A push that broke off behind its put, and one that broke off before.
    hosted.put("stray").await;
    let upload = hosted.hosting.uploads.begin(Algorithm::Sha256).await.unwrap();
    let id = upload.id().to_string();
    hosted.hosting.catalogue.start_upload(&hosted.app, &id, &hosted.stamp()).await.unwrap();
    upload.append(vec![Bytes::from_static(b"half")]).await.unwrap().pause().await.unwrap();
    assert_eq!(hosted.collect().await, Removals::default());

    hosted.wait(25);
    let removed = hosted.collect().await;
    let expected = Removals { strays: 1, stray_bytes: 5, uploads: 1, upload_bytes: 4, ..Removals::default() };
    assert_eq!(removed, expected);
    assert!(!hosted.is_stored("stray").await && hosted.is_stored("layer of deleted").await);
    assert_eq!(hosted.hosting.catalogue.find_upload(&hosted.app, &id).await.unwrap(), None);

    hosted.wait(14 * 24);
    let removed = hosted.collect().await;
    let blob_bytes = ("layer of old".len() + "layer of deleted".len()) as u64;
    assert_eq!(removed, Removals { manifests: 2, links: 2, blobs: 2, blob_bytes, ..Removals::default() });
    assert!(!hosted.is_stored("layer of old").await && !hosted.is_stored("layer of deleted").await);
    assert!(hosted.is_stored("layer of new").await);
    let state = hosted.hosting.collection_state(&administrator()).unwrap();
    assert_eq!(
        (state.running, state.last.map(|last| (last.number, last.removed))),
        (None, Some((3, removed)))
    );
    assert_eq!(hosted.collect().await, Removals::default());
}

#[tokio::test]
async fn a_collection_goes_on_where_a_dead_one_was_cut() {
    let hosted = Hosted::with_policy(r#"{"restore_for_ms":0}"#).await;
    for text in ["one", "two", "three"] {
        hosted.push(text, &[]).await;
        hosted.hosting.catalogue.delete_manifest(&hosted.app, &digest(text), &hosted.stamp()).await.unwrap();
    }
    hosted.wait(25);
    // The first one died behind the catalogue's part, with and without the bytes of one blob.
    let (horizon, stamp) = (hosted.hosting.horizon(), hosted.stamp());
    let catalogue = &hosted.hosting.catalogue;
    assert_eq!(catalogue.collect_manifests(horizon, 9, &stamp).await.unwrap(), 3);
    catalogue.collect_links(horizon.grace_since, None, 99).await.unwrap();
    let condemned =
        catalogue.condemn_blobs(horizon.grace_since, None, 2, horizon.now).await.unwrap().condemned;
    hosted.hosting.store.delete(&condemned[0].digest).await.unwrap();
    let removed = hosted.collect().await;
    assert_eq!((removed.manifests, removed.links, removed.blobs), (0, 0, 3));
    for text in ["one", "two", "three"] {
        assert!(!hosted.is_stored(&format!("layer of {text}")).await, "{text}");
    }
    assert_eq!(catalogue.list_condemned_blobs(9).await.unwrap(), []);
}

#[tokio::test]
async fn a_store_that_fails_anywhere_costs_a_run_and_nothing_else() {
    let mut failed = 0;
    for is_done_first in [false, true] {
        for count in 0.. {
            let hosted = Hosted::with_policy(r#"{"restore_for_ms":0}"#).await;
            hosted.push("kept", &["v1"]).await;
            for text in ["one", "two"] {
                hosted.push(text, &[]).await;
                let stamp = hosted.stamp();
                hosted.hosting.catalogue.delete_manifest(&hosted.app, &digest(text), &stamp).await.unwrap();
            }
            hosted.put("stray").await;
            hosted.wait(25);
            hosted.store.fail_after(count, is_done_first);
            let first = hosted.hosting.collect(&administrator()).await.unwrap();
            assert!(hosted.is_kept().await, "{count}");
            if first.error.is_none() {
                break;
            }
            failed += 1;
            let second = hosted.hosting.collect(&administrator()).await.unwrap();
            assert_eq!((second.error, hosted.is_kept().await), (None, true), "{count}");
            let [first, second] = [first.removed, second.removed];
            let blobs = first.blobs + first.strays + second.blobs + second.strays;
            assert_eq!((first.manifests + second.manifests, blobs), (2, 3), "{count}");
            for gone in ["layer of one", "layer of two", "stray"] {
                assert!(!hosted.is_stored(gone).await, "{count}: {gone}");
            }
        }
    }
    assert!(failed >= 8, "{failed}");
}

#[tokio::test]
async fn a_catalogue_in_which_nothing_happened_takes_nothing_for_a_stray() {
    let hosted = Hosted::with_policy("{}").await;
    hosted.put("content of before").await;
    hosted.wait(25);
    let folder = hosted.folder.path().join("other.sqlite3");
    let services = HostingServices {
        catalogue: Arc::new(SqlCatalogue::open(&folder).await.unwrap()),
        store: Arc::clone(&hosted.hosting.store),
        registry: None,
        location: "local".to_owned(),
        redirect_for: None,
        uploads: hosted.hosting.uploads.clone(),
        steps: Steps::default(),
        clock: hosted.hosting.clock.clone(),
        tasks: hosted.hosting.tasks.clone(),
    };
    let lost = Hosting::new(services, unseen());
    let run = lost.collect(&administrator()).await.unwrap();
    assert_eq!(run.removed.strays, 0);
    assert!(hosted.is_stored("content of before").await);
    assert_eq!(hosted.collect().await.strays, 1);
}

#[tokio::test]
async fn one_collection_at_a_time_runs_here_and_elsewhere() {
    let hosted = Hosted::with_policy("{}").await;
    let (catalogue, now) = (&hosted.hosting.catalogue, hosted.hosting.clock.now());
    let until = now.after(Duration::from_mins(1));
    assert!(catalogue.take_lease("collection", "another node", now, until).await.unwrap());
    let run = hosted.hosting.collect(&administrator()).await.unwrap();
    assert_eq!(run.ended.unwrap().1, CollectionOutcome::Failed);
    assert!(run.error.unwrap().contains("another node is collecting"));
    hosted.wait(1);
    hosted.collect().await;
    hosted.hosting.begin_run().unwrap();
    let refused = hosted.hosting.start_collection(&administrator()).unwrap_err();
    assert!(refused.to_string().contains("a collection is running"), "{refused}");
}

#[tokio::test]
async fn a_deleted_tag_says_how_it_comes_back_until_it_cannot() {
    let hosted = Hosted::with_policy(r#"{"restore_for_ms":3600000}"#).await;
    let (hosting, app) = (&hosted.hosting, &hosted.app);
    let image = hosted.push("image", &["v1"]).await;
    assert_eq!(hosting.find_deleted_tag(app, &tag("v1")).await.unwrap(), None);
    let deleted = hosting.delete_tag(&administrator(), app, &tag("v1")).await.unwrap();
    assert_eq!((deleted.digest, deleted.by.as_str()), (image, "administrator"));
    assert_eq!(deleted.restorable_until, deleted.at.after(Duration::from_hours(1)));
    assert_eq!(hosting.find_deleted_tag(app, &tag("v1")).await.unwrap(), Some(deleted));
    let restored = hosting.restore_tag(&administrator(), app, &tag("v1"), None).await.unwrap();
    assert_eq!(restored.digest, image);
    let refused = hosting.restore_tag(&administrator(), app, &tag("v1"), None).await.unwrap_err();
    assert!(refused.to_string().contains("is not deleted"), "{refused}");

    hosting.delete_tag(&administrator(), app, &tag("v1")).await.unwrap();
    hosted.wait(26);
    assert_eq!(hosted.collect().await.manifests, 1);
    assert_eq!(hosting.find_deleted_tag(app, &tag("v1")).await.unwrap(), None);
    let gone = hosting.restore_tag(&administrator(), app, &tag("v1"), Some(&image)).await.unwrap_err();
    assert!(matches!(gone, HostingError::Gone { .. }), "{gone}");
    // The history itself stays.
    let history = hosting.list_tag_history(&administrator(), app, &tag("v1"), None, 9).await.unwrap();
    assert_eq!(history.len(), 4);
}

#[tokio::test]
async fn an_immutable_tag_neither_moves_nor_goes() {
    let hosted = Hosted::with_policy(r#"{"immutable_tags":["v*"]}"#).await;
    let (hosting, app) = (&hosted.hosting, &hosted.app);
    hosted.push("one", &["v1", "latest"]).await;
    hosted.push("two", &["latest"]).await;
    for refused in [
        hosting.delete_tag(&administrator(), app, &tag("v1")).await.map(drop),
        hosting
            .set_tag_expiry(&administrator(), app, &tag("v1"), Some(Duration::from_hours(1)))
            .await
            .map(drop),
    ] {
        assert!(matches!(refused, Err(HostingError::Immutable { .. })), "{refused:?}");
    }
    hosting.restore_tag(&administrator(), app, &tag("latest"), Some(&digest("one"))).await.unwrap();
    let policy = hosting.policy_of(app).await.unwrap();
    let (one, two) = (digest("one"), digest("two"));
    for (current, new, is_allowed) in [
        (None, Some(one), true),
        (Some(one), Some(one), true),
        (Some(one), Some(two), false),
        (Some(one), None, false),
    ] {
        assert_eq!(
            policy.require_mutable(&tag("v1"), current, new).is_ok(),
            is_allowed,
            "{current:?} {new:?}"
        );
        assert!(policy.require_mutable(&tag("latest"), current, new).is_ok());
    }
}

#[tokio::test]
async fn tags_expire_in_their_time_and_come_back() {
    let hosted = Hosted::with_policy("{}").await;
    let (hosting, app) = (&hosted.hosting, &hosted.app);
    hosted.push("image", &["nightly", "v1", "kept"]).await;
    for name in ["nightly", "v1"] {
        let time = Some(Duration::from_hours(2));
        hosting.set_tag_expiry(&administrator(), app, &tag(name), time).await.unwrap();
    }
    // By now, v1 may not be deleted any more.
    let policy = NamespacePolicy::parse(r#"{"immutable_tags":["v*"]}"#).unwrap();
    hosting.set_namespace_policy(&administrator(), &Namespace::of(app), &policy).await.unwrap();
    hosted.wait(1);
    assert_eq!(hosting.expire_tags().await.unwrap(), 0);
    hosted.wait(1);
    assert_eq!(hosting.expire_tags().await.unwrap(), 1);
    assert_eq!(hosted.tags().await, ["kept", "v1"]);
    assert_eq!(hosting.expire_tags().await.unwrap(), 0);
    let deleted = hosting.find_deleted_tag(app, &tag("nightly")).await.unwrap().unwrap();
    assert_eq!(deleted.by, "expiry");
    let restored = hosting.restore_tag(&administrator(), app, &tag("nightly"), None).await.unwrap();
    assert_eq!(restored.expires_at, None);
}

#[tokio::test]
async fn a_dry_run_of_the_rules_tells_what_the_real_one_does_and_a_second_one_does_nothing() {
    let rules = r#"{"prune":[{"action":"remove","tags":["pr-*"],"all_but_newest":2},
        {"action":"remove","tags":["nightly"],"not_pulled_for_ms":7200000},{"action":"keep","tags":["pr-1"]}]}"#;
    let hosted = Hosted::with_policy(rules).await;
    let hosting = &hosted.hosting;
    for number in 1..=5 {
        hosted.push(&format!("image {number}"), &[&format!("pr-{number}")]).await;
        hosted.wait(1);
    }
    hosted.push("nightly", &["nightly", "latest"]).await;
    hosted.wait(2);
    hosting.note_use(&hosted.app, &digest("nightly"));
    let order = |dry_run| PruneOrder { namespace: None, dry_run };
    let prune = async |dry_run| hosting.prune(&administrator(), &order(dry_run)).await.unwrap();
    let told = prune(true).await;
    assert_eq!(told.tags.iter().map(|tag| tag.tag.as_str()).collect::<Vec<_>>(), ["pr-2", "pr-3"]);
    assert_eq!(hosted.tags().await.len(), 7);
    assert_eq!(prune(false).await, told);
    assert_eq!(hosted.tags().await, ["latest", "nightly", "pr-1", "pr-4", "pr-5"]);
    assert_eq!(prune(false).await.removed, 0);
    hosted.wait(2);
    let elsewhere = PruneOrder { namespace: Some("other".parse().unwrap()), dry_run: false };
    assert_eq!(hosting.prune(&administrator(), &elsewhere).await.unwrap().repositories, 0);
    assert_eq!(prune(false).await.tags[0].tag, tag("nightly"));
    let deleted = hosting.find_deleted_tag(&hosted.app, &tag("pr-2")).await.unwrap().unwrap();
    assert_eq!(deleted.by, "prune");
}

#[tokio::test]
async fn nobody_but_an_administrator_manages() {
    let hosted = Hosted::with_policy("{}").await;
    let anonymous = RequestContext::anonymous(crate::auth::RequestId::random());
    let (hosting, app) = (&hosted.hosting, &hosted.app);
    let namespace = Namespace::of(app);
    let policy = NamespacePolicy::default();
    for refused in [
        hosting.create_namespace(&anonymous, &"other".parse().unwrap(), &policy).await.map(drop),
        hosting.set_namespace_policy(&anonymous, &namespace, &policy).await.map(drop),
        hosting.delete_namespace(&anonymous, &namespace).await.map(drop),
        hosting.restore_namespace(&anonymous, &namespace).await.map(drop),
        hosting.list_namespaces(&anonymous, None, 9).await.map(drop),
        hosting.list_deleted_namespaces(&anonymous, None, 9).await.map(drop),
        hosting.find_namespace(&anonymous, &namespace).await.map(drop),
        hosting.list_hosted_repositories(&anonymous, None, 9).await.map(drop),
        hosting.list_deleted_repositories(&anonymous, None, 9).await.map(drop),
        hosting.delete_repository(&anonymous, app).await.map(drop),
        hosting.restore_repository(&anonymous, app).await.map(drop),
        hosting.list_tag_states(&anonymous, app, None, 9).await.map(drop),
        hosting.list_tag_history(&anonymous, app, &tag("v1"), None, 9).await.map(drop),
        hosting.find_tag_at(&anonymous, app, &tag("v1"), hosting.clock.now()).await.map(drop),
        hosting.delete_tag(&anonymous, app, &tag("v1")).await.map(drop),
        hosting.restore_tag(&anonymous, app, &tag("v1"), None).await.map(drop),
        hosting.set_tag_expiry(&anonymous, app, &tag("v1"), None).await.map(drop),
        hosting.prune(&anonymous, &PruneOrder::default()).await.map(drop),
        hosting.collect(&anonymous).await.map(drop),
        hosting.start_collection(&anonymous).map(drop),
        hosting.foresee_collection(&anonymous).await.map(drop),
        hosting.collection_state(&anonymous).map(drop),
    ] {
        assert!(matches!(refused, Err(HostingError::Refused(_))), "{refused:?}");
    }
    assert!(hosted.hosting.catalogue.find_repository(app).await.unwrap().is_some());
}

#[tokio::test]
async fn namespaces_and_repositories_come_back_with_all_that_they_held() {
    let hosted = Hosted::with_policy(r#"{"restore_for_ms":3600000}"#).await;
    let (hosting, app, acme) = (&hosted.hosting, &hosted.app, Namespace::of(&hosted.app));
    hosted.push("image", &["v1"]).await;
    let deleted = hosting.delete_repository(&administrator(), app).await.unwrap();
    assert_eq!(deleted.restorable_until, hosting.clock.now().after(Duration::from_hours(1)));
    assert_eq!(hosting.list_deleted_repositories(&administrator(), None, 9).await.unwrap(), [deleted]);
    hosting.restore_repository(&administrator(), app).await.unwrap();
    let deleted = hosting.delete_namespace(&administrator(), &acme).await.unwrap();
    assert_eq!(deleted.restorable_until, hosting.clock.now().after(Duration::from_hours(1)));
    assert_eq!(hosting.list_deleted_namespaces(&administrator(), None, 9).await.unwrap(), [deleted]);
    let again =
        hosting.create_namespace(&administrator(), &acme, &NamespacePolicy::default()).await.unwrap_err();
    assert!(again.to_string().contains("restore it instead"), "{again}");
    let record = hosting.restore_namespace(&administrator(), &acme).await.unwrap();
    assert_eq!(record.policy.restore_for_ms, 3_600_000);
    let again =
        hosting.create_namespace(&administrator(), &acme, &NamespacePolicy::default()).await.unwrap_err();
    assert!(again.to_string().contains("is there already"), "{again}");
    assert_eq!(hosted.tags().await, ["v1"]);
    hosting.delete_namespace(&administrator(), &acme).await.unwrap();
    hosted.wait(26);
    let removed = hosted.collect().await;
    assert_eq!((removed.repositories, removed.manifests, removed.links, removed.blobs), (1, 1, 1, 1));
    let gone = hosting.restore_namespace(&administrator(), &acme).await;
    assert!(matches!(gone, Err(HostingError::Catalogue(CatalogueError::NamespaceUnknown))), "{gone:?}");
}
