//! Object stores and disks that fail, lie and hang: what is acknowledged is there, and what is not there was not
//! acknowledged.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartId, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::contract::{Subject, content, uploads_in, wait_until};
use super::provider::Provider;
use super::{
    BlobDirectory, Confirmation, HostedError, ObjectBlobs, ObjectSettings, Step, Steps, UploadError, Uploads,
    Witness,
};
use crate::blobs::BlobError;
use crate::oci::{Algorithm, Digest};
use crate::runtime::Tasks;

/// What a store does not do as it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Fault {
    /// A put fails.
    Put,
    /// A put says that it is done, and is not.
    LostPut,
    /// A put keeps other bytes than it was given.
    AlteredPut,
    /// A put never ends.
    StuckPut,
    /// The part with this number fails.
    Part(usize),
    /// The part with this number never ends.
    StuckPart(usize),
    /// The parts are not made one.
    Complete,
    /// The parts are said to be one, and are not.
    LostComplete,
    /// An upload in parts cannot be aborted.
    Abort,
}

/// A store in memory that has faults.
#[derive(Debug, Default)]
struct FaultyStore {
    inner: InMemory,
    faults: Mutex<HashSet<Fault>>,
    /// Uploads in parts that were begun and not ended.
    begun: Mutex<HashSet<MultipartId>>,
    parts: AtomicUsize,
    most_parts: AtomicUsize,
}

impl FaultyStore {
    fn set(&self, faults: &[Fault]) {
        *self.faults.lock().unwrap() = faults.iter().copied().collect();
    }

    fn has(&self, fault: Fault) -> bool {
        self.faults.lock().unwrap().contains(&fault)
    }

    fn require(&self, fault: Fault) -> Result<()> {
        if self.has(fault) { Err(failure()) } else { Ok(()) }
    }

    fn begun(&self) -> usize {
        self.begun.lock().unwrap().len()
    }
}

fn failure() -> object_store::Error {
    object_store::Error::Generic { store: "faulty", source: "503".into() }
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FaultyStore")
    }
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(&self, key: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.require(Fault::Put)?;
        if self.has(Fault::StuckPut) {
            std::future::pending::<()>().await;
        }
        if self.has(Fault::LostPut) {
            return Ok(PutResult {
                e_tag: None,
                version: None,
                extensions: object_store::Extensions::default(),
            });
        }
        let payload =
            if self.has(Fault::AlteredPut) { vec![0; payload.content_length()].into() } else { payload };
        self.inner.put_opts(key, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        key: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(key, options).await
    }

    async fn get_opts(&self, key: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(key, options).await
    }

    fn delete_stream(&self, keys: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(keys)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

#[async_trait]
impl MultipartStore for FaultyStore {
    async fn create_multipart(&self, key: &Path) -> Result<MultipartId> {
        let id = self.inner.create_multipart(key).await?;
        self.begun.lock().unwrap().insert(id.clone());
        Ok(id)
    }

    async fn put_part(&self, key: &Path, id: &MultipartId, index: usize, data: PutPayload) -> Result<PartId> {
        let now = self.parts.fetch_add(1, Ordering::Relaxed) + 1;
        self.most_parts.fetch_max(now, Ordering::Relaxed);
        if self.has(Fault::StuckPart(index)) {
            std::future::pending::<()>().await;
        }
        // Time for others to come.
        tokio::time::sleep(Duration::from_millis(1)).await;
        self.parts.fetch_sub(1, Ordering::Relaxed);
        self.require(Fault::Part(index))?;
        assert!(self.begun.lock().unwrap().contains(id), "a part comes after the end of its upload");
        self.inner.put_part(key, id, index, data).await
    }

    async fn complete_multipart(
        &self,
        key: &Path,
        id: &MultipartId,
        parts: Vec<PartId>,
    ) -> Result<PutResult> {
        self.require(Fault::Complete)?;
        self.begun.lock().unwrap().remove(id);
        if self.has(Fault::LostComplete) {
            return Ok(PutResult {
                e_tag: None,
                version: None,
                extensions: object_store::Extensions::default(),
            });
        }
        self.inner.complete_multipart(key, id, parts).await
    }

    async fn abort_multipart(&self, key: &Path, id: &MultipartId) -> Result<()> {
        self.require(Fault::Abort)?;
        self.begun.lock().unwrap().remove(id);
        self.inner.abort_multipart(key, id).await
    }
}

const PART_BYTES: u64 = 1024;

/// More than all parts that may be on their way at once.
const LARGE: usize = 20 * 1024 + 1;

/// A subject over a store with faults.
fn subject(confirmation: Confirmation) -> (Arc<FaultyStore>, Subject) {
    let store = Arc::new(FaultyStore::default());
    let folder = tempfile::tempdir().unwrap();
    let blobs = Arc::new(open(&store, &folder, confirmation));
    (store, Subject::new(blobs, folder, LARGE))
}

fn open(store: &Arc<FaultyStore>, folder: &tempfile::TempDir, confirmation: Confirmation) -> ObjectBlobs {
    let mut settings = ObjectSettings::new(folder.path().join("parts"));
    settings.part_bytes = PART_BYTES;
    settings.parts = 3;
    settings.patience = Duration::from_millis(300);
    settings.confirmation = confirmation;
    let (objects, multipart) = (Arc::clone(store), Arc::clone(store));
    let provider = Provider { objects, multipart, signer: None };
    ObjectBlobs::over(provider, Path::ROOT, settings, &Tasks::new(), &Steps::default()).unwrap()
}

fn notes(subject: &Subject) -> usize {
    fs::read_dir(subject.folder.path().join("parts")).unwrap().count()
}

#[tokio::test]
async fn a_put_that_fails_is_told_and_can_be_done_again() {
    for (faults, length, is_transient) in [
        (&[Fault::Put][..], 10, true),
        (&[Fault::StuckPut], 10, true),
        (&[Fault::LostPut], 10, false),
        (&[Fault::Part(0)], LARGE, true),
        (&[Fault::Part(7)], LARGE, true),
        (&[Fault::Part(20)], LARGE, true),
        (&[Fault::StuckPart(2)], LARGE, true),
        (&[Fault::Complete], LARGE, true),
        (&[Fault::LostComplete], LARGE, false),
    ] {
        let (store, subject) = subject(Confirmation::Size);
        let content = content(length, 1);
        let digest = Digest::of(Algorithm::Sha256, &content);
        store.set(faults);
        let staged = subject.stage(&content, Algorithm::Sha256).await;
        let error = subject.store.put(staged).await.unwrap_err();
        assert_eq!(error.is_transient(), is_transient, "{faults:?}: {error}");
        assert!(subject.content(&digest).await.is_none(), "{faults:?}");
        assert_eq!((store.begun(), notes(&subject)), (0, 0), "{faults:?}");
        store.set(&[]);
        let upload = subject.uploads.resume(&subject.only_upload().unwrap()).await.unwrap();
        subject.store.put(upload.complete(&digest).await.unwrap()).await.unwrap();
        assert!(subject.content(&digest).await.unwrap() == content, "{faults:?}");
        wait_until("the upload is gone", || subject.only_upload().is_none()).await;
    }
}

#[tokio::test]
async fn parts_that_cannot_be_aborted_are_aborted_by_the_next_process() {
    let (store, subject) = subject(Confirmation::Size);
    store.set(&[Fault::Part(3), Fault::Abort]);
    let staged = subject.stage(&content(LARGE, 1), Algorithm::Sha256).await;
    subject.store.put(staged).await.unwrap_err();
    assert_eq!((store.begun(), notes(&subject)), (1, 1));
    let next = open(&store, &subject.folder, Confirmation::Size);
    assert_eq!(next.abort_abandoned().await.unwrap(), 0, "it still cannot be");
    store.set(&[]);
    assert_eq!(next.abort_abandoned().await.unwrap(), 1);
    assert_eq!((store.begun(), notes(&subject)), (0, 0));
}

#[tokio::test]
async fn a_store_that_alters_content_is_found_out_where_it_is_not_believed() {
    let (store, subject) = subject(Confirmation::Content);
    let digest = Digest::of(Algorithm::Sha256, b"content");
    store.set(&[Fault::AlteredPut]);
    let error = subject.store.put(subject.stage(b"content", Algorithm::Sha256).await).await.unwrap_err();
    assert!(matches!(&error, HostedError::Unkept { digest: unkept } if **unkept == digest), "{error}");
    // What is there has the right size, and is replaced all the same.
    store.set(&[]);
    let upload = subject.uploads.resume(&subject.only_upload().unwrap()).await.unwrap();
    subject.store.put(upload.complete(&digest).await.unwrap()).await.unwrap();
    assert_eq!(subject.content(&digest).await.unwrap(), b"content");
}

#[tokio::test]
async fn no_more_parts_are_in_memory_than_may_be() {
    let (store, subject) = subject(Confirmation::Size);
    let contents: Vec<_> = (0..4).map(|seed| content(LARGE, seed)).collect();
    let puts = contents.iter().map(|content| subject.put(content));
    futures_util::future::join_all(puts).await;
    let most = store.most_parts.load(Ordering::Relaxed);
    assert!((2..=3).contains(&most), "{most} parts at once");
}

#[tokio::test]
async fn a_put_whose_caller_leaves_ends_by_itself() {
    let (store, subject) = subject(Confirmation::Size);
    let content = content(LARGE, 1);
    let staged = subject.stage(&content, Algorithm::Sha256).await;
    let digest = *staged.digest();
    let put = subject.store.put(staged);
    assert!(tokio::time::timeout(Duration::ZERO, put).await.is_err(), "it takes longer than no time");
    wait_until("the upload has ended", || subject.only_upload().is_none() && notes(&subject) == 0).await;
    assert_eq!(store.begun(), 0);
    assert!(subject.content(&digest).await.unwrap() == content);
}

#[tokio::test]
async fn what_the_disk_alters_after_it_was_verified_never_gets_into_a_store() {
    for length in [100, LARGE] {
        let (store, subject) = subject(Confirmation::Size);
        let staged = subject.stage(&content(length, 1), Algorithm::Sha256).await;
        let digest = *staged.digest();
        subject.damage_upload();
        let error = subject.store.put(staged).await.unwrap_err();
        assert!(matches!(error, HostedError::Disk(BlobError::DigestMismatch { .. })), "{error}");
        assert!(subject.content(&digest).await.is_none());
        assert_eq!((store.begun(), notes(&subject)), (0, 0));
        wait_until("the upload was given up", || subject.only_upload().is_none()).await;
    }
}

/// Fails some steps.
#[derive(Debug, Default)]
struct Failing(Mutex<HashMap<Step, io::ErrorKind>>);

impl Witness for Failing {
    fn reach(&self, step: Step) -> io::Result<()> {
        self.0.lock().unwrap().get(&step).map_or(Ok(()), |kind| Err((*kind).into()))
    }
}

/// A local store and uploads whose steps fail as told.
fn failing_subject() -> (Arc<Failing>, Subject) {
    let failing = Arc::new(Failing::default());
    let steps = Steps::seen_by(Arc::clone(&failing) as Arc<dyn Witness>);
    let folder = tempfile::tempdir().unwrap();
    let store = BlobDirectory::open(&folder.path().join("hosted"), &Tasks::new(), &steps).unwrap();
    let mut subject = Subject::new(Arc::new(store), folder, LARGE);
    subject.uploads = Uploads::open(&uploads_in(&subject.folder), u64::MAX, &Tasks::new(), &steps).unwrap();
    (failing, subject)
}

#[tokio::test]
async fn an_upload_that_the_disk_fails_is_given_up_and_frees_its_space() {
    let (failing, subject) = failing_subject();
    for step in [Step::Append, Step::SyncUpload, Step::SyncUploads, Step::Verify, Step::SyncContent] {
        for kind in [io::ErrorKind::StorageFull, io::ErrorKind::Other] {
            failing.0.lock().unwrap().insert(step, kind);
            let upload = subject.uploads.begin(Algorithm::Sha256).await.unwrap();
            let id = upload.id();
            let digest = Digest::of(Algorithm::Sha256, b"content");
            let outcome = match upload.append(vec![b"content".as_slice().into()]).await {
                Ok(upload) if matches!(step, Step::SyncUpload | Step::SyncUploads) => {
                    upload.pause().await.map(drop)
                }
                Ok(upload) => upload.complete(&digest).await.map(drop),
                Err(error) => Err(error),
            };
            let Err(UploadError::Disk(error)) = outcome else { panic!("{step:?}: {outcome:?}") };
            assert_eq!(
                matches!(error, BlobError::Full { .. }),
                kind == io::ErrorKind::StorageFull,
                "{error}"
            );
            assert!(matches!(subject.uploads.resume(&id).await, Err(UploadError::Unknown)), "{step:?}");
            assert!(subject.only_upload().is_none() && subject.content(&digest).await.is_none());
            failing.0.lock().unwrap().clear();
        }
    }
}

#[tokio::test]
async fn a_put_that_the_disk_fails_is_not_acknowledged_and_the_next_one_is_whole() {
    let (failing, subject) = failing_subject();
    for step in [Step::Rename, Step::SyncDirectory, Step::Acknowledge] {
        let content = format!("content at {step:?}");
        failing.0.lock().unwrap().insert(step, io::ErrorKind::Other);
        let staged = subject.stage(content.as_bytes(), Algorithm::Sha256).await;
        let digest = *staged.digest();
        let error = subject.store.put(staged).await.unwrap_err();
        assert!(error.is_of_disk() && !error.is_transient(), "{error}");
        // It may be there, but then it is whole.
        let found = subject.content(&digest).await;
        assert_eq!(found.is_some(), step != Step::Rename, "{step:?}");
        assert!(found.is_none_or(|found| found == content.as_bytes()));
        wait_until("the upload was given up", || subject.only_upload().is_none()).await;
        failing.0.lock().unwrap().clear();
        assert_eq!(subject.put(content.as_bytes()).await, digest);
        assert_eq!(subject.content(&digest).await.unwrap(), content.as_bytes());
    }
}

#[tokio::test]
async fn content_that_was_acknowledged_survives_a_later_put_that_fails() {
    let (failing, subject) = failing_subject();
    let digest = subject.put(b"content").await;
    failing.0.lock().unwrap().insert(Step::SyncDirectory, io::ErrorKind::Other);
    let staged = subject.stage(b"content", Algorithm::Sha256).await;
    subject.store.put(staged).await.unwrap_err();
    assert_eq!(subject.content(&digest).await.unwrap(), b"content");
}
