use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream;
use tempfile::TempDir;

use super::*;
use crate::auth::policy::Refused;
use crate::blobs::hosted::{BlobDirectory, Steps, UploadError};
use crate::metadata::catalogue::{CatalogueError, SqlCatalogue};
use crate::oci::{Algorithm, Digest, MediaType, Reference, Tag};
use crate::runtime::Timestamp;

/// A registry of its own with the namespace `acme`.
struct Subject {
    hosting: Hosting,
    administrator: RequestContext,
    _directory: TempDir,
}

async fn subject() -> Subject {
    let directory = tempfile::tempdir().unwrap();
    let (tasks, steps) = (Tasks::new(), Steps::default());
    let path = directory.path();
    let metrics = CollectionMetrics::new(&prometheus::Registry::new()).unwrap();
    let services = HostingServices {
        catalogue: Arc::new(SqlCatalogue::open(&path.join("catalogue.sqlite3")).await.unwrap()),
        store: Arc::new(BlobDirectory::open(&path.join("blobs"), &tasks, &steps).unwrap()),
        registry: None,
        location: "local".to_owned(),
        redirect_for: None,
        uploads: Uploads::open(&path.join("uploads"), u64::MAX, &tasks, &steps).unwrap(),
        steps,
        clock: Clock::system(),
        tasks,
    };
    let hosting = Hosting::new(services, metrics);
    let stamp = Stamp { at: Timestamp::from_millis(1), by: "test".into() };
    hosting.catalogue.create_namespace(&"acme".parse().unwrap(), &stamp).await.unwrap();
    hosting.refresh_namespaces().await.unwrap();
    Subject { hosting, administrator: RequestContext::administrator(), _directory: directory }
}

fn name(text: &str) -> RepositoryName {
    text.parse().unwrap()
}

fn digest(content: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, content)
}

fn body(parts: &[&'static str]) -> Body<'static> {
    let parts: Vec<_> = parts.iter().map(|part| Ok(Bytes::from_static(part.as_bytes()))).collect();
    stream::iter(parts).boxed()
}

fn broken(parts: &[&'static str]) -> Body<'static> {
    body(parts).chain(stream::iter([Err("the client left".into())])).boxed()
}

fn at(start: u64, length: u64) -> Announced {
    Announced { start: Some(start), length_bytes: Some(length) }
}

fn image(blobs: &[(&str, usize)]) -> ManifestBody {
    let item = |(content, size): &(&str, usize)| {
        format!(r#"{{"mediaType":"a/b","digest":"{}","size":{size}}}"#, digest(content.as_bytes()))
    };
    let layers: Vec<_> = blobs[1..].iter().map(item).collect();
    let payload =
        format!(r#"{{"schemaVersion":2,"config":{},"layers":[{}]}}"#, item(&blobs[0]), layers.join(","));
    ManifestBody { media_type: Some(MediaType::OCI_MANIFEST), payload: payload.into() }
}

impl Subject {
    async fn push(&self, repository: &str, content: &'static str) {
        let (repository, digest) = (name(repository), digest(content.as_bytes()));
        self.hosting.push_blob(&self.administrator, &repository, &digest, body(&[content])).await.unwrap();
    }

    async fn start(&self, repository: &str) -> String {
        let repository = name(repository);
        let started = self.hosting.start_upload(&self.administrator, &repository, Algorithm::Sha256).await;
        started.unwrap().id.to_string()
    }

    async fn append(&self, id: &str, at: Announced, body: Body<'_>) -> Result<u64> {
        let repository = name("acme/app");
        let appended = self.hosting.append_upload(&self.administrator, &repository, id, at, body).await;
        appended.map(|status| status.offset_bytes)
    }

    async fn finish(&self, id: &str, content: &str, body: Body<'_>) -> Result<()> {
        let (repository, digest) = (name("acme/app"), digest(content.as_bytes()));
        let none = Announced::default();
        self.hosting.finish_upload(&self.administrator, &repository, id, &digest, none, body).await
    }

    async fn read(&self, repository: &str, content: &str) -> Result<String> {
        let (repository, digest) = (name(repository), digest(content.as_bytes()));
        let blob = self.hosting.open_blob(&self.administrator, &repository, &digest, None).await?;
        let mut parts = blob.read(0..blob.size_bytes()).await.unwrap().into_bytes();
        let mut text = String::new();
        while let Some(part) = parts.next().await {
            text.push_str(std::str::from_utf8(&part.unwrap()).unwrap());
        }
        Ok(text)
    }

    async fn push_manifest(&self, repository: &str, tag: &str, body: ManifestBody) -> Result<PushedAs> {
        let (repository, reference) = (name(repository), tag.parse::<Reference>().unwrap());
        self.hosting.push_manifest(&self.administrator, &repository, &reference, vec![], body).await
    }
}

#[tokio::test]
async fn a_blob_that_came_in_parts_is_pulled_whole() {
    let subject = subject().await;
    let id = subject.start("acme/app").await;
    assert_eq!(subject.append(&id, at(0, 5), body(&["he", "llo"])).await.unwrap(), 5);
    assert_eq!(subject.append(&id, Announced::default(), body(&[", "])).await.unwrap(), 7);
    subject.finish(&id, "hello, world", body(&["world"])).await.unwrap();
    assert_eq!(subject.read("acme/app", "hello, world").await.unwrap(), "hello, world");
    let (repository, digest) = (name("acme/app"), digest(b"hello, world"));
    let blob = subject.hosting.open_blob(&subject.administrator, &repository, &digest, None).await;
    let mut part = blob.unwrap().read(7..9).await.unwrap();
    assert_eq!(part.next().await.unwrap().unwrap(), "wo");
    assert!(part.next().await.is_none());
}

#[tokio::test]
async fn bytes_that_do_not_come_next_change_nothing() {
    let subject = subject().await;
    let id = subject.start("acme/app").await;
    subject.append(&id, at(0, 3), body(&["abc"])).await.unwrap();
    for (at, content) in [(at(0, 3), "abc"), (at(2, 2), "cd"), (at(4, 1), "e")] {
        let error = subject.append(&id, at, body(&[content])).await.unwrap_err();
        assert!(
            matches!(error, HostingError::Upload(UploadError::OutOfOrder { offset_bytes: 3 })),
            "{error}"
        );
    }
    let status = subject.hosting.stat_upload(&subject.administrator, &name("acme/app"), &id).await.unwrap();
    assert_eq!(status.offset_bytes, 3);
    subject.finish(&id, "abc", body(&[])).await.unwrap();
}

#[tokio::test]
async fn an_upload_goes_on_where_a_body_broke_off() {
    let subject = subject().await;
    let id = subject.start("acme/app").await;
    let error = subject.append(&id, at(0, 6), broken(&["ab", "c"])).await.unwrap_err();
    assert!(matches!(error, HostingError::Body(_)), "{error}");
    let error = subject.finish(&id, "abcdef", broken(&["d"])).await.unwrap_err();
    assert!(matches!(error, HostingError::Body(_)), "{error}");
    subject.finish(&id, "abcdef", body(&["ef"])).await.unwrap();
    assert_eq!(subject.read("acme/app", "abcdef").await.unwrap(), "abcdef");
}

#[tokio::test]
async fn a_completion_whose_answer_was_lost_succeeds_again() {
    let subject = subject().await;
    let id = subject.start("acme/app").await;
    subject.finish(&id, "abc", body(&["abc"])).await.unwrap();
    subject.finish(&id, "abc", body(&["abc"])).await.unwrap();
    let error = subject.finish(&id, "other", body(&["other"])).await.unwrap_err();
    assert!(matches!(error, HostingError::Catalogue(CatalogueError::UploadUnknown)), "{error}");
}

#[tokio::test]
async fn content_with_another_digest_leaves_nothing() {
    let subject = subject().await;
    let id = subject.start("acme/app").await;
    let error = subject.finish(&id, "abc", body(&["abd"])).await.unwrap_err();
    assert!(matches!(error, HostingError::Upload(UploadError::DigestMismatch { .. })), "{error}");
    for content in ["abc", "abd"] {
        assert!(subject.read("acme/app", content).await.is_err());
        assert!(subject.hosting.store.find(&digest(content.as_bytes())).await.unwrap().is_none());
    }
    let status = subject.hosting.stat_upload(&subject.administrator, &name("acme/app"), &id).await;
    assert!(matches!(status, Err(HostingError::Catalogue(CatalogueError::UploadUnknown))));
}

#[tokio::test]
async fn an_upload_belongs_to_its_repository() {
    let subject = subject().await;
    let id = subject.start("acme/other").await;
    let error = subject.append(&id, at(0, 1), body(&["x"])).await.unwrap_err();
    assert!(matches!(error, HostingError::Catalogue(CatalogueError::UploadUnknown)), "{error}");
    for bad in ["", "../../etc/passwd", "0123456789abcdef0123456789abcdef"] {
        let error = subject.append(bad, at(0, 1), body(&["x"])).await.unwrap_err();
        assert!(matches!(error, HostingError::Catalogue(CatalogueError::UploadUnknown)), "{error}");
    }
    subject.hosting.cancel_upload(&subject.administrator, &name("acme/other"), &id).await.unwrap();
    let cancelled = subject.hosting.cancel_upload(&subject.administrator, &name("acme/other"), &id).await;
    assert!(cancelled.is_err());
}

#[tokio::test]
async fn a_mount_gives_what_its_repository_has_and_creates_nothing_else() {
    let subject = subject().await;
    subject.push("acme/base", "layer").await;
    let (hosting, context) = (&subject.hosting, &subject.administrator);
    let (target, layer) = (name("acme/app"), digest(b"layer"));
    let mount = |digest: Digest, from: Option<&'static str>| {
        let (target, from) = (target.clone(), from.map(name));
        async move { hosting.mount_blob(context, &target, &digest, from.as_ref()).await.unwrap() }
    };
    assert_eq!(mount(digest(b"unknown"), Some("acme/base")).await, Mounted::NotPossible);
    assert_eq!(mount(layer, Some("acme/elsewhere")).await, Mounted::NotPossible);
    assert!(hosting.catalogue.find_repository(&target).await.unwrap().is_none());
    assert_eq!(mount(layer, Some("acme/base")).await, Mounted::Done);
    assert_eq!(mount(layer, None).await, Mounted::Done);
    assert_eq!(subject.read("acme/app", "layer").await.unwrap(), "layer");
    let third = hosting.mount_blob(context, &name("acme/third"), &layer, None).await.unwrap();
    assert_eq!(third, Mounted::Done);
}

#[tokio::test]
async fn a_manifest_needs_its_blobs_in_their_size() {
    let subject = subject().await;
    subject.push("acme/app", "config").await;
    subject.push("acme/base", "layer").await;
    let whole = image(&[("config", 6), ("layer", 5)]);
    let error = subject.push_manifest("acme/app", "1", whole.clone()).await.unwrap_err();
    assert!(matches!(error, HostingError::Catalogue(CatalogueError::BlobUnknown(_))), "{error}");
    subject.push("acme/app", "layer").await;
    let error =
        subject.push_manifest("acme/app", "1", image(&[("config", 6), ("layer", 6)])).await.unwrap_err();
    assert!(matches!(error, HostingError::SizeContradicted { found_bytes: 5, .. }), "{error}");
    let (context, repository) = (&subject.administrator, name("acme/app"));
    let reference: Reference = "1".parse().unwrap();
    assert!(subject.hosting.pull_manifest(context, &repository, &reference).await.is_err());
    let pushed = subject.push_manifest("acme/app", "1", whole.clone()).await.unwrap();
    let pulled = subject.hosting.pull_manifest(context, &repository, &reference).await.unwrap();
    assert_eq!((pulled.digest, pulled.payload), (pushed.digest, whole.payload));
}

#[tokio::test]
async fn a_manifest_is_what_its_digest_says_and_has_the_tags_asked_for() {
    let subject = subject().await;
    subject.push("acme/app", "config").await;
    let body = image(&[("config", 6)]);
    let error = subject.push_manifest("acme/app", &digest(b"x").to_string(), body.clone()).await.unwrap_err();
    assert!(matches!(error, HostingError::DigestMismatch { .. }), "{error}");
    let long = Digest::of(Algorithm::Sha512, &body.payload);
    let tags: Vec<Tag> = ["1", "1.2"].map(|tag| tag.parse().unwrap()).into();
    let (hosting, context, repository) = (&subject.hosting, &subject.administrator, name("acme/app"));
    let reference = Reference::Digest(long);
    let pushed = hosting.push_manifest(context, &repository, &reference, tags.clone(), body).await.unwrap();
    assert_eq!((pushed.digest, &pushed.tags), (long, &tags));
    let page = hosting.list_tags(context, &repository, None, 1).await.unwrap();
    assert_eq!((page.items, page.has_more), (tags[..1].to_vec(), true));
    let rest = hosting.list_tags(context, &repository, Some(&tags[0]), 1).await.unwrap();
    assert_eq!((rest.items, rest.has_more), (tags[1..].to_vec(), false));
}

#[tokio::test]
async fn an_index_may_be_the_first_in_a_repository() {
    let subject = subject().await;
    let index = |fields: &str| ManifestBody {
        media_type: None,
        payload: format!(r#"{{"schemaVersion":2,"manifests":[]{fields}}}"#).into(),
    };
    let pushed = subject.push_manifest("acme/index", "1", index("")).await.unwrap();
    let listed = index(&format!(
        r#","artifactType":"a/sbom","subject":{{"mediaType":"a/b","digest":"{}","size":1}}"#,
        pushed.digest
    ));
    let referrer = subject.push_manifest("acme/index", "sbom", listed).await.unwrap();
    assert_eq!(referrer.subject, Some(pushed.digest));
    let (hosting, context, repository) = (&subject.hosting, &subject.administrator, name("acme/index"));
    for (artifact_type, expected) in [(None, 1), (Some("a/sbom"), 1), (Some("a/other"), 0)] {
        let page =
            hosting.list_referrers(context, &repository, &pushed.digest, artifact_type, None, 10).await;
        assert_eq!(page.unwrap().items.len(), expected, "{artifact_type:?}");
    }
    let error = subject.push_manifest("nowhere/index", "1", index("")).await.unwrap_err();
    assert!(matches!(error, HostingError::Catalogue(CatalogueError::NamespaceUnknown)), "{error}");
}

#[tokio::test]
async fn what_is_deleted_is_gone_for_who_pulls() {
    let subject = subject().await;
    subject.push("acme/app", "config").await;
    let pushed = subject.push_manifest("acme/app", "1", image(&[("config", 6)])).await.unwrap();
    subject.push_manifest("acme/app", "2", image(&[("config", 6)])).await.unwrap();
    let (hosting, context, repository) = (&subject.hosting, &subject.administrator, name("acme/app"));
    let delete = |reference: Reference| {
        let repository = repository.clone();
        async move { hosting.delete_manifest(context, &repository, &reference).await }
    };
    assert_eq!(delete("1".parse().unwrap()).await.unwrap().len(), 1);
    assert!(delete("1".parse().unwrap()).await.is_err());
    let digest_reference = Reference::Digest(pushed.digest);
    assert!(hosting.pull_manifest(context, &repository, &digest_reference).await.is_ok());
    assert_eq!(delete(digest_reference.clone()).await.unwrap(), ["2".parse::<Tag>().unwrap()]);
    assert!(hosting.pull_manifest(context, &repository, &digest_reference).await.is_err());
    hosting.delete_blob(context, &repository, &digest(b"config")).await.unwrap();
    assert!(subject.read("acme/app", "config").await.is_err());
    assert!(hosting.delete_blob(context, &repository, &digest(b"config")).await.is_err());
}

#[tokio::test]
async fn who_has_no_rights_is_refused_before_anything_is_looked_at() {
    let subject = subject().await;
    subject.push("acme/app", "config").await;
    let anonymous = RequestContext::anonymous(crate::auth::RequestId::random());
    let (hosting, context) = (&subject.hosting, &anonymous);
    let (reference, blob, none) =
        ("1".parse::<Reference>().unwrap(), digest(b"config"), Announced::default());
    for repository in [name("acme/app"), name("acme/never")] {
        let manifest = image(&[("config", 6)]);
        let refusals = [
            hosting.pull_manifest(context, &repository, &reference).await.map(drop),
            hosting.stat_blob(context, &repository, &blob).await.map(drop),
            hosting.open_blob(context, &repository, &blob, None).await.map(drop),
            hosting.list_tags(context, &repository, None, 1).await.map(drop),
            hosting.list_referrers(context, &repository, &blob, None, None, 1).await.map(drop),
            hosting.push_manifest(context, &repository, &reference, vec![], manifest).await.map(drop),
            hosting.start_upload(context, &repository, Algorithm::Sha256).await.map(drop),
            hosting.stat_upload(context, &repository, "x").await.map(drop),
            hosting.append_upload(context, &repository, "x", none, body(&["x"])).await.map(drop),
            hosting.finish_upload(context, &repository, "x", &blob, none, body(&["x"])).await,
            hosting.cancel_upload(context, &repository, "x").await,
            hosting.push_blob(context, &repository, &blob, body(&["config"])).await,
            hosting.mount_blob(context, &repository, &blob, None).await.map(drop),
            hosting.delete_manifest(context, &repository, &reference).await.map(drop),
            hosting.delete_blob(context, &repository, &blob).await,
        ];
        for (place, refused) in refusals.into_iter().enumerate() {
            let is_refused = matches!(refused, Err(HostingError::Refused(Refused::Unauthenticated)));
            assert!(is_refused, "{repository} {place}: {refused:?}");
        }
    }
    let page = hosting.list_repositories(context, None, 10).await.unwrap();
    assert!(page.items.is_empty());
}
