//! The contract of [`DurableBlobs`]: one suite, run for every back end.

use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use futures_util::future::join_all;
use object_store::memory::InMemory;
use object_store::path::Path;

use super::provider::Provider;
use super::s3_server::{PATIENCE, S3Server};
use super::{
    BlobDirectory, DurableBlobs, HostedBlob, ObjectBlobs, ObjectSettings, StagedBlob, Steps, UploadError,
    UploadId, Uploads,
};
use crate::blobs::FoundBlob;
use crate::oci::{Algorithm, Digest};
use crate::runtime::Tasks;

/// A store that is used by nobody else, and a way into it.
pub(super) struct Subject {
    pub(super) store: Arc<dyn DurableBlobs>,
    pub(super) uploads: Uploads,
    /// Holds the uploads, and whatever else is on the disk.
    pub(super) folder: tempfile::TempDir,
    /// How large content is that is sent in some parts.
    large_bytes: usize,
}

impl Subject {
    pub(super) fn new(store: Arc<dyn DurableBlobs>, folder: tempfile::TempDir, large_bytes: usize) -> Self {
        let uploads =
            Uploads::open(&uploads_in(&folder), u64::MAX, &Tasks::new(), &Steps::default()).unwrap();
        Self { store, uploads, folder, large_bytes }
    }

    /// Content that is whole and not in the store yet.
    pub(super) async fn stage(&self, content: &[u8], algorithm: Algorithm) -> StagedBlob {
        self.try_stage(content, &Digest::of(algorithm, content)).await.unwrap()
    }

    async fn try_stage(&self, content: &[u8], digest: &Digest) -> Result<StagedBlob, UploadError> {
        let parts = content.chunks(1024 * 1024).map(Bytes::copy_from_slice).collect();
        let upload = self.uploads.begin(digest.algorithm()).await?.append(parts).await?;
        upload.complete(digest).await
    }

    pub(super) async fn put(&self, content: &[u8]) -> Digest {
        let staged = self.stage(content, Algorithm::Sha256).await;
        let digest = *staged.digest();
        self.store.put(staged).await.unwrap();
        digest
    }

    /// The content that the store has, if it has.
    pub(super) async fn content(&self, digest: &Digest) -> Option<Vec<u8>> {
        let size_bytes = self.store.find(digest).await.unwrap()?.size_bytes;
        read(&*self.store, digest, 0..size_bytes).await
    }

    /// The one upload that is there.
    pub(super) fn only_upload(&self) -> Option<UploadId> {
        let mut files = std::fs::read_dir(uploads_in(&self.folder)).unwrap();
        let name = files.next()?.unwrap().file_name();
        assert!(files.next().is_none());
        Some(name.to_str().unwrap().parse().unwrap())
    }

    /// Alters what the disk has of the one upload.
    pub(super) fn damage_upload(&self) {
        let path = uploads_in(&self.folder).join(self.only_upload().unwrap().to_string());
        std::fs::OpenOptions::new().write(true).open(path).unwrap().write_all_at(b"damage", 50).unwrap();
    }

    async fn list(&self, after: Option<&Digest>) -> Vec<FoundBlob> {
        let mut listing = self.store.list(after).await.unwrap();
        let mut found = Vec::new();
        while let Some(part) = listing.recv().await {
            found.extend(part.unwrap());
        }
        found
    }
}

/// An empty object store in memory.
pub(crate) fn in_memory(journal: PathBuf) -> ObjectBlobs {
    let memory = Arc::new(InMemory::new());
    let (objects, multipart) = (Arc::clone(&memory), memory);
    let provider = Provider { objects, multipart, signer: None };
    let mut settings = ObjectSettings::new(journal);
    settings.part_bytes = 64 * 1024;
    let prefix = Path::from("some/prefix");
    ObjectBlobs::over(provider, prefix, settings, &Tasks::new(), &Steps::default()).unwrap()
}

/// Where the uploads of a subject are.
pub(super) fn uploads_in(folder: &tempfile::TempDir) -> PathBuf {
    folder.path().join("uploads")
}

pub(crate) async fn read(
    store: &dyn DurableBlobs,
    digest: &Digest,
    range: std::ops::Range<u64>,
) -> Option<Vec<u8>> {
    let parts: Vec<Bytes> = store.read(digest, range).await.unwrap()?.try_collect().await.unwrap();
    Some(parts.concat())
}

/// Content that compresses badly and differs by its seed.
pub(crate) fn content(length: usize, seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| random.u8(..)).take(length).collect()
}

/// Runs the suite; `open` gives a fresh, empty store each time.
async fn holds_for(open: impl Fn() -> Subject) {
    what_is_put_is_found_and_read_whole_and_in_parts(&open()).await;
    what_is_not_there_is_not_found(&open()).await;
    content_of_every_size_comes_back(&open()).await;
    both_digest_algorithms_name_content(&open()).await;
    the_same_content_may_be_put_by_many_at_once_and_again(&open()).await;
    only_what_agrees_with_its_digest_gets_in(&open()).await;
    what_is_deleted_is_gone_and_may_be_put_again(&open()).await;
    a_listing_has_everything_in_order_and_goes_on_anywhere(&open()).await;
    an_upload_leaves_nothing_behind_but_the_content(&open()).await;
}

async fn what_is_put_is_found_and_read_whole_and_in_parts(subject: &Subject) {
    let digest = subject.put(b"some content").await;
    let found = subject.store.find(&digest).await.unwrap().unwrap();
    assert_eq!((found.digest, found.size_bytes), (digest, 12));
    let now = crate::runtime::Clock::system().now();
    assert!(now.since(found.modified_at) < Duration::from_mins(1), "{:?}", found.modified_at);
    let opened = subject.store.open(&digest).await.unwrap().unwrap();
    assert_eq!(opened.size_bytes(), 12);
    if let HostedBlob::File(file) = opened {
        assert_eq!(file.read_exact_at(5, 7).await.unwrap(), "content");
    }
    for (range, part) in [(0..12, "some content"), (5..12, "content"), (0..1, "s"), (11..12, "t"), (3..3, "")]
    {
        assert_eq!(read(&*subject.store, &digest, range).await.unwrap(), part.as_bytes());
    }
}

async fn what_is_not_there_is_not_found(subject: &Subject) {
    let digest = Digest::of(Algorithm::Sha256, b"nothing");
    assert!(subject.store.find(&digest).await.unwrap().is_none());
    assert!(subject.store.open(&digest).await.unwrap().is_none());
    assert!(subject.store.read(&digest, 0..1).await.unwrap().is_none());
    assert!(subject.store.read(&digest, 0..0).await.unwrap().is_none());
    assert!(subject.list(None).await.is_empty());
}

async fn content_of_every_size_comes_back(subject: &Subject) {
    for (seed, length) in [0, 1, subject.large_bytes / 2, subject.large_bytes].into_iter().enumerate() {
        let content = content(length, seed as u64);
        let digest = subject.put(&content).await;
        assert!(subject.content(&digest).await.unwrap() == content, "{length} bytes");
    }
}

async fn both_digest_algorithms_name_content(subject: &Subject) {
    let staged = subject.stage(b"content", Algorithm::Sha512).await;
    subject.store.put(staged).await.unwrap();
    let digest = Digest::of(Algorithm::Sha512, b"content");
    assert_eq!(subject.content(&digest).await.unwrap(), b"content");
    assert!(subject.content(&Digest::of(Algorithm::Sha256, b"content")).await.is_none());
}

async fn the_same_content_may_be_put_by_many_at_once_and_again(subject: &Subject) {
    let content = content(subject.large_bytes, 1);
    let staged = join_all((0..4).map(|_| subject.stage(&content, Algorithm::Sha256))).await;
    for put in join_all(staged.into_iter().map(|staged| subject.store.put(staged))).await {
        put.unwrap();
    }
    let digest = subject.put(&content).await;
    assert!(subject.content(&digest).await.unwrap() == content);
    assert_eq!(subject.list(None).await.len(), 1);
}

async fn only_what_agrees_with_its_digest_gets_in(subject: &Subject) {
    let announced = Digest::of(Algorithm::Sha256, b"announced");
    let error = subject.try_stage(b"sent", &announced).await.unwrap_err();
    assert!(matches!(error, UploadError::DigestMismatch { .. }), "{error}");
    assert!(subject.list(None).await.is_empty());
}

async fn what_is_deleted_is_gone_and_may_be_put_again(subject: &Subject) {
    let digest = subject.put(b"content").await;
    let opened = subject.store.open(&digest).await.unwrap().unwrap();
    subject.store.delete(&digest).await.unwrap();
    subject.store.delete(&digest).await.unwrap();
    assert!(subject.content(&digest).await.is_none());
    assert!(subject.store.open(&digest).await.unwrap().is_none());
    if let HostedBlob::File(file) = opened {
        assert_eq!(file.read_exact_at(0, 7).await.unwrap(), "content");
    }
    subject.put(b"content").await;
    assert_eq!(subject.content(&digest).await.unwrap(), b"content");
}

async fn a_listing_has_everything_in_order_and_goes_on_anywhere(subject: &Subject) {
    let mut digests = Vec::new();
    for number in 0..20_u8 {
        digests.push(subject.put(&[number]).await);
    }
    for number in 0..3_u8 {
        let staged = subject.stage(&[number], Algorithm::Sha512).await;
        digests.push(*staged.digest());
        subject.store.put(staged).await.unwrap();
    }
    digests.sort_unstable();
    let all = subject.list(None).await;
    assert_eq!(all.iter().map(|found| found.digest).collect::<Vec<_>>(), digests);
    assert!(all.iter().all(|found| found.size_bytes == 1));
    for after in [0, 7, 19, 20, 22] {
        let rest: Vec<_> =
            subject.list(Some(&digests[after])).await.iter().map(|found| found.digest).collect();
        assert_eq!(rest, digests[after + 1..]);
    }
}

async fn an_upload_leaves_nothing_behind_but_the_content(subject: &Subject) {
    subject.put(&content(subject.large_bytes, 2)).await;
    drop(subject.stage(b"not put", Algorithm::Sha256).await);
    wait_until("no upload is left", || subject.only_upload().is_none()).await;
    assert_eq!(subject.list(None).await.len(), 1);
}

/// Waits for what happens on another thread.
pub(super) async fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..1000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within 10 s: {what}");
}

#[tokio::test]
async fn a_local_directory_keeps_the_contract() {
    holds_for(|| {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("hosted");
        let store = BlobDirectory::open(&directory, &Tasks::new(), &Steps::default()).unwrap();
        Subject::new(Arc::new(store), folder, 1024 * 1024)
    })
    .await;
}

#[tokio::test]
async fn an_object_store_in_memory_keeps_the_contract() {
    holds_for(|| {
        let folder = tempfile::tempdir().unwrap();
        let store = in_memory(folder.path().join("parts"));
        Subject::new(Arc::new(store), folder, 1_000_000)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_speaks_like_s3_keeps_the_contract() {
    let Some(server) = S3Server::start().await else { return };
    holds_for(|| server.subject(PATIENCE)).await;
}

/// For stores that no test can bring along: an account at a provider, or its emulator. `TIDEGATE_TEST_OBJECT_STORE` is the
/// URL of a bucket, and then options, with semicolons between: `az://container;account_name=…;endpoint=…`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs TIDEGATE_TEST_OBJECT_STORE"]
async fn a_store_that_is_named_keeps_the_contract() {
    let text = std::env::var("TIDEGATE_TEST_OBJECT_STORE").expect("TIDEGATE_TEST_OBJECT_STORE names a store");
    let (url, options) = text.split_once(';').unwrap_or((&text, ""));
    let options = options.split(';').filter_map(|option| option.split_once('='));
    let options: Vec<_> =
        options.map(|(name, value)| (name.to_owned(), crate::config::Secret::new(value))).collect();
    let run = fastrand::u64(..);
    let prefixes = std::sync::atomic::AtomicU64::new(0);
    holds_for(|| {
        let folder = tempfile::tempdir().unwrap();
        let prefix = prefixes.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let config = crate::config::ObjectStoreConfig {
            url: format!("{url}/{run:016x}/{prefix}"),
            options: options.clone(),
        };
        let store = super::s3_server::connect_to(&config, folder.path(), PATIENCE, &Steps::default());
        Subject::new(Arc::new(store), folder, super::s3_server::LARGE_BYTES)
    })
    .await;
}
