//! The promises of the content store, on the local disk.

use std::fs;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use rustix::fs::Advice;
use tokio::sync::mpsc;

use super::{BlobError, Blobs, FillFile, FoundBlob, Inspected, Inspection, LocalBlobs, StagedFiles};
use crate::oci::{Algorithm, Digest};
use crate::runtime::Tasks;

fn open(path: &Path) -> Arc<dyn Blobs> {
    Arc::new(LocalBlobs::open(path, &Tasks::new()).unwrap())
}

async fn begin(store: &Arc<dyn Blobs>, content: &[u8]) -> FillFile {
    let digest = Digest::of(Algorithm::Sha256, content);
    store.begin(&digest, Some(content.len() as u64)).await.unwrap()
}

async fn store(store: &Arc<dyn Blobs>, content: &'static [u8]) -> Digest {
    let file = begin(store, content).await.append(vec![Bytes::from_static(content)]).await.unwrap();
    file.verify().unwrap().commit().await.unwrap();
    Digest::of(Algorithm::Sha256, content)
}

async fn list(store: &Arc<dyn Blobs>) -> Vec<FoundBlob> {
    let mut parts = store.list().await.unwrap();
    let mut found = Vec::new();
    while let Some(part) = parts.recv().await {
        found.extend(part.unwrap());
    }
    found.sort_by_key(|found| found.digest);
    found
}

fn incoming_files(path: &Path) -> usize {
    fs::read_dir(path.join("incoming")).unwrap().count()
}

#[tokio::test]
async fn content_is_visible_only_when_it_is_committed() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = open(folder.path());
    let content = b"some content";
    let digest = Digest::of(Algorithm::Sha256, content);
    let file = begin(&blobs, content).await;
    assert!(blobs.open(&digest).await.unwrap().is_none());
    let file = file.append(vec![Bytes::from_static(b"some "), Bytes::from_static(b"content")]).await.unwrap();
    assert_eq!(file.written_bytes(), 12);
    let verified = file.verify().unwrap();
    assert!(blobs.open(&digest).await.unwrap().is_none());
    verified.commit().await.unwrap();
    let stored = blobs.open(&digest).await.unwrap().unwrap();
    assert_eq!(stored.size_bytes(), 12);
    assert_eq!(stored.read_exact_at(5, 7).await.unwrap(), "content");
    assert_eq!(incoming_files(folder.path()), 0);
}

#[tokio::test]
async fn readers_see_what_was_written_before_it_is_committed_and_after_it_is_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = open(folder.path());
    let file = begin(&blobs, b"abcdef").await;
    let reader = file.reader();
    let file = file.append(vec![Bytes::from_static(b"abc")]).await.unwrap();
    assert_eq!(reader.read_exact_at(0, 3).await.unwrap(), "abc");
    drop(file);
    assert_eq!(reader.read_exact_at(1, 2).await.unwrap(), "bc");
    assert_eq!(incoming_files(folder.path()), 0);
}

#[tokio::test]
async fn readers_hear_of_the_first_part_at_once_and_of_many_small_ones_seldom() {
    const PART: u64 = 16 * 1024;
    const COUNT: u64 = 1024;
    let folder = tempfile::tempdir().unwrap();
    let blobs = open(folder.path());
    let part = Bytes::from(vec![7; usize::try_from(PART).unwrap()]);
    let content = part.repeat(usize::try_from(COUNT).unwrap());
    let (sender, queue) = mpsc::channel(usize::try_from(COUNT).unwrap());
    for _ in 1..COUNT {
        sender.try_send(part.clone()).unwrap();
    }
    let steps = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&steps);
    let publish = move |_file, written_bytes| heard.lock().unwrap().push(written_bytes);
    let file = begin(&blobs, &content).await;
    let (file, _queue) = file.append_queued(part, queue, publish).await.unwrap();
    file.verify().unwrap().commit().await.unwrap();
    let steps = steps.lock().unwrap();
    assert_eq!((steps.first(), steps.last()), (Some(&PART), Some(&(COUNT * PART))));
    assert!(steps.is_sorted() && steps.len() < 100, "{} messages", steps.len());
}

#[tokio::test]
async fn space_is_reserved_after_the_first_part_for_all() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = open(folder.path());
    let content = vec![1; 1 << 20];
    let file = begin(&blobs, &content).await;
    let incoming = fs::read_dir(folder.path().join("incoming")).unwrap().next().unwrap().unwrap();
    assert_eq!(incoming.metadata().unwrap().blocks(), 0);
    let _file = file.append(vec![Bytes::from_static(&[1])]).await.unwrap();
    let metadata = incoming.metadata().unwrap();
    // Where the file system cannot reserve, it has one block at most.
    assert_eq!(metadata.len(), 1);
    assert!(metadata.blocks() * 512 >= 1 << 20 || metadata.blocks() <= 8, "{} blocks", metadata.blocks());
}

#[tokio::test]
async fn content_with_another_digest_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = open(folder.path());
    let file = begin(&blobs, b"right").await.append(vec![Bytes::from_static(b"wrong")]).await.unwrap();
    let error = file.verify().unwrap_err();
    let expected = Digest::of(Algorithm::Sha256, b"right");
    assert!(matches!(error, BlobError::DigestMismatch { expected: ref e, .. } if **e == expected), "{error}");
    assert!(blobs.open(&expected).await.unwrap().is_none());
    assert_eq!(incoming_files(folder.path()), 0);
}

#[tokio::test]
async fn removed_content_stays_readable_for_who_has_it_open() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = open(folder.path());
    let digest = store(&blobs, b"content").await;
    let reader = blobs.open(&digest).await.unwrap().unwrap();
    assert!(blobs.remove(&digest).await.unwrap());
    assert!(!blobs.remove(&digest).await.unwrap());
    assert!(blobs.open(&digest).await.unwrap().is_none());
    assert_eq!(reader.read_exact_at(0, 7).await.unwrap(), "content");
}

#[tokio::test]
async fn the_same_content_may_be_committed_twice() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = open(folder.path());
    let first = store(&blobs, b"content").await;
    let second = store(&blobs, b"content").await;
    assert_eq!(first, second);
    assert_eq!(list(&blobs).await.len(), 1);
}

#[tokio::test]
async fn listing_finds_all_content_of_both_algorithms_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = open(folder.path());
    let small = store(&blobs, b"x").await;
    let long = Digest::of(Algorithm::Sha512, b"xyz");
    let file =
        blobs.begin(&long, None).await.unwrap().append(vec![Bytes::from_static(b"xyz")]).await.unwrap();
    file.verify().unwrap().commit().await.unwrap();
    let _unfinished = begin(&blobs, b"unfinished").await;
    fs::write(folder.path().join("content/sha256").join(&small.hex()[..2]).join("stray"), "no digest")
        .unwrap();
    let found: Vec<_> =
        list(&blobs).await.into_iter().map(|found| (found.digest, found.size_bytes)).collect();
    let mut expected = vec![(small, 1), (long, 3)];
    expected.sort();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn what_a_crash_left_is_set_aside_at_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("incoming")).unwrap();
    fs::write(folder.path().join("incoming/half"), "written").unwrap();
    let tasks = Tasks::new();
    let _blobs = LocalBlobs::open(folder.path(), &tasks).unwrap();
    assert_eq!(incoming_files(folder.path()), 0);
    assert!(tasks.shut_down(Duration::from_secs(10)).await);
    let left = fs::read_dir(folder.path()).unwrap().flatten();
    let stale = left.filter(|entry| entry.file_name().to_string_lossy().contains("stale")).count();
    assert_eq!(stale, 0);
}

#[tokio::test]
async fn a_directory_has_one_process_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(folder.path());
    let error = LocalBlobs::open(folder.path(), &Tasks::new()).unwrap_err();
    assert!(matches!(error, BlobError::InUse { .. }), "{error}");
    drop(first);
    open(folder.path());
}

#[tokio::test]
async fn content_that_the_disk_does_not_take_goes_on_in_memory_and_is_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = open(folder.path());
    let content: Vec<u8> = (0..300_000_u32).map(|number| (number % 251) as u8).collect();
    // Nobody can make a file there any more; the tests may run as root, whom rights do not stop.
    fs::remove_dir(folder.path().join("incoming")).unwrap();
    fs::write(folder.path().join("incoming"), "").unwrap();
    let digest = Digest::of(Algorithm::Sha256, &content);
    let file = blobs.begin(&digest, Some(content.len() as u64)).await.unwrap();
    let reader = file.reader();
    let parts = content.chunks(100_000).map(Bytes::copy_from_slice).collect();
    let file = file.append(parts).await.unwrap();
    assert_eq!(reader.read_exact_at(0, content.len()).await.unwrap(), content);
    let verified = file.verify().unwrap();
    assert!(verified.memory_share().is_some());
    assert!(matches!(verified.commit().await, Err(BlobError::Io { .. })));
    assert!(blobs.open(&digest).await.unwrap().is_none());
    for size_bytes in [None, Some(1 << 40)] {
        let refused = blobs.begin(&digest, size_bytes).await;
        assert!(matches!(refused, Err(BlobError::Io { .. })), "no memory for {size_bytes:?}");
    }
    assert!(matches!(blobs.probe().await, Err(BlobError::Io { .. })));
}

#[tokio::test]
async fn a_disk_that_works_passes_its_probe_and_tells_its_space() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = open(folder.path());
    blobs.probe().await.unwrap();
    assert_eq!(incoming_files(folder.path()), 0);
    let space = blobs.space().await.unwrap();
    assert!(space.total_bytes >= space.free_bytes && space.total_bytes > 0, "{space:?}");
}

fn path_of(folder: &Path, digest: &Digest) -> PathBuf {
    folder.join("content/sha256").join(&digest.hex()[..2]).join(digest.hex())
}

async fn inspect(store: &Arc<dyn Blobs>, digest: &Digest) -> Inspection {
    let mut inspection = store.inspect(digest).await.unwrap().unwrap();
    while inspection.read_next().await.unwrap().bytes > 0 {}
    inspection
}

#[tokio::test]
async fn an_inspection_tells_what_a_file_is_whatever_is_kept_open() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = open(folder.path());
    let digest = store(&blobs, b"content").await;
    let empty = store(&blobs, b"").await;
    assert_eq!(inspect(&blobs, &digest).await.judge().0, Inspected::Sound);
    assert_eq!(inspect(&blobs, &empty).await.judge().0, Inspected::Sound);
    let _kept = blobs.open(&digest).await.unwrap().unwrap();
    // Another file in its place, of the same size.
    fs::remove_file(path_of(folder.path(), &digest)).unwrap();
    fs::write(path_of(folder.path(), &digest), "Content").unwrap();
    assert_eq!(inspect(&blobs, &digest).await.judge().0, Inspected::Altered);
    fs::remove_file(path_of(folder.path(), &digest)).unwrap();
    assert!(blobs.inspect(&digest).await.unwrap().is_none());
}

#[tokio::test]
async fn a_file_that_changes_while_it_is_inspected_is_neither_sound_nor_altered() {
    let spoils: [fn(&Path); 3] = [
        |path| fs::File::options().write(true).open(path).unwrap().write_all_at(b"C", 0).unwrap(),
        |path| fs::File::options().write(true).open(path).unwrap().set_len(3).unwrap(),
        |path| fs::remove_file(path).unwrap(),
    ];
    for spoil in spoils {
        let folder = tempfile::tempdir().unwrap();
        let blobs = open(folder.path());
        let digest = store(&blobs, b"content").await;
        let mut inspection = blobs.inspect(&digest).await.unwrap().unwrap();
        // All of it is read; and times of files are as coarse as the system's clock ticks.
        inspection.read_next().await.unwrap();
        tokio::time::sleep(Duration::from_millis(30)).await;
        spoil(&path_of(folder.path(), &digest));
        assert_eq!(inspection.judge().0, Inspected::Changed);
    }
}

#[tokio::test]
async fn an_inspection_leaves_the_page_cache_as_it_was() {
    // Not on a file system in memory, where there is nothing else.
    let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let blobs = open(folder.path());
    let content: &'static [u8] = vec![7; 3 << 20].leak();
    let digest = store(&blobs, content).await;
    let path = path_of(folder.path(), &digest);
    let file = blobs.open(&digest).await.unwrap().unwrap();
    let part = |range| file.slice(range).unwrap();
    let (hot, cold) = (part(0..1), part(2 << 20..3 << 20));
    let mut was_seen = false;
    let plain = fs::File::open(&path).unwrap();
    // The system keeps pages that it is busy with itself: what counts is that the rest goes when it is not.
    for _ in 0..50 {
        // To look is to have the system read, also some of what follows: each part is looked at once, at the end.
        rustix::fs::fadvise(&plain, 0, None, Advice::DontNeed).unwrap();
        if part(1 << 20..2 << 20).is_resident() {
            // A file system that keeps everything, perhaps just now: there is nothing to be seen.
            continue;
        }
        rustix::fs::fadvise(&plain, 0, None, Advice::Random).unwrap();
        plain.read_exact_at(&mut [0], 0).unwrap();
        if !hot.is_resident() {
            // One that cannot tell.
            return;
        }
        was_seen = true;
        assert_eq!(inspect(&blobs, &digest).await.judge().0, Inspected::Sound);
        assert!(hot.is_resident(), "what was in use stays");
        if !cold.is_resident() {
            return;
        }
    }
    assert!(!was_seen, "what was not in use goes again");
}

#[tokio::test]
async fn what_is_condemned_goes_and_what_has_taken_its_place_stays() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = open(folder.path());
    let digest = store(&blobs, b"content").await;
    let path = path_of(folder.path(), &digest);
    fs::write(&path, "CONTENT").unwrap();
    let (_, bad) = inspect(&blobs, &digest).await.judge();
    store(&blobs, b"content").await;
    assert!(!blobs.condemn(&digest, Some(&bad)).await.unwrap());
    assert_eq!(fs::read(&path).unwrap(), b"content");
    fs::write(&path, "CONTENT").unwrap();
    let kept = blobs.open(&digest).await.unwrap().unwrap();
    assert!(blobs.condemn(&digest, Some(&kept)).await.unwrap());
    assert!(blobs.open(&digest).await.unwrap().is_none() && !path.exists());
    assert!(!blobs.condemn(&digest, Some(&kept)).await.unwrap(), "gone already");
    assert_eq!(incoming_files(folder.path()), 0);
}

#[tokio::test]
async fn damaged_content_that_cannot_be_removed_is_not_given_out_before_it_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = open(folder.path());
    let digest = store(&blobs, b"content").await;
    let path = path_of(folder.path(), &digest);
    fs::write(&path, "CONTENT").unwrap();
    let kept = blobs.open(&digest).await.unwrap().unwrap();
    // Nothing can be moved there any more; the tests may run as root, whom rights do not stop.
    fs::remove_dir(folder.path().join("incoming")).unwrap();
    fs::write(folder.path().join("incoming"), "").unwrap();
    blobs.condemn(&digest, Some(&kept)).await.unwrap_err();
    assert!(path.exists() && blobs.is_condemned(&digest));
    assert!(blobs.open(&digest).await.unwrap().is_none());
    assert_eq!(blobs.find_size(&digest).await.unwrap(), None);
    assert!(blobs.inspect(&digest).await.unwrap().is_none());
    fs::remove_file(folder.path().join("incoming")).unwrap();
    fs::create_dir(folder.path().join("incoming")).unwrap();
    store(&blobs, b"content").await;
    assert_eq!(blobs.find_size(&digest).await.unwrap(), Some(7));
    assert_eq!(blobs.open(&digest).await.unwrap().unwrap().size_bytes(), 7);
    assert!(!blobs.is_condemned(&digest));
}
#[tokio::test]
async fn staged_content_is_visible_all_at_once_or_never() {
    let folder = tempfile::tempdir().unwrap();
    let tasks = Tasks::new();
    let blobs: Arc<dyn Blobs> = Arc::new(LocalBlobs::open(folder.path(), &tasks).unwrap());
    for commits in [false, true] {
        let mut staged = StagedFiles::new(tasks.clone());
        for content in [&b"one"[..], b"two"] {
            let file = begin(&blobs, content).await.append(vec![Bytes::from_static(content)]).await.unwrap();
            staged.add(file.verify().unwrap()).await.unwrap();
        }
        assert_eq!((list(&blobs).await.len(), incoming_files(folder.path())), (0, 2));
        if commits {
            staged.commit().await.unwrap();
        } else {
            drop(staged);
            assert!(tasks.shut_down(Duration::from_secs(10)).await);
        }
        assert_eq!(incoming_files(folder.path()), 0);
        assert_eq!(list(&blobs).await.len(), if commits { 2 } else { 0 });
    }
}
