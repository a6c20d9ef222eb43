//! The promises of uploads.

use std::fs;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;

use super::sessions::KEPT;
use super::{Removed, Steps, Upload, UploadError, Uploads};
use crate::oci::{Algorithm, Digest};
use crate::runtime::{Clock, Tasks, Timestamp};

const LIMIT: u64 = 1000;

fn open(directory: &Path) -> Uploads {
    Uploads::open(directory, LIMIT, &Tasks::new(), &Steps::default()).unwrap()
}

async fn append(upload: Upload, part: &'static str) -> Upload {
    upload.append(vec![Bytes::from_static(part.as_bytes())]).await.unwrap()
}

fn digest(content: &str) -> Digest {
    Digest::of(Algorithm::Sha256, content.as_bytes())
}

#[tokio::test]
async fn an_upload_goes_on_where_it_ends_and_nowhere_else() {
    let folder = tempfile::tempdir().unwrap();
    let uploads = open(folder.path());
    let upload = uploads.begin(Algorithm::Sha256).await.unwrap();
    let id = upload.id();
    assert_eq!(append(upload, "some ").await.pause().await.unwrap(), 5);
    let upload = uploads.resume(&id).await.unwrap();
    for wrong in [0, 4, 6, u64::MAX] {
        let error = upload.require_offset(wrong).unwrap_err();
        assert!(matches!(error, UploadError::OutOfOrder { offset_bytes: 5 }), "{error}");
    }
    upload.require_offset(5).unwrap();
    let staged = append(upload, "content").await.complete(&digest("some content")).await.unwrap();
    assert_eq!((staged.size_bytes(), *staged.digest()), (12, digest("some content")));
}

#[tokio::test]
async fn a_broken_request_loses_nothing_that_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let uploads = open(folder.path());
    let upload = uploads.begin(Algorithm::Sha256).await.unwrap();
    let id = upload.id();
    drop(append(upload, "some ").await);
    let upload = uploads.resume(&id).await.unwrap();
    assert_eq!(upload.offset_bytes(), 5);
    append(upload, "content").await.complete(&digest("some content")).await.unwrap();
}

#[tokio::test]
async fn an_upload_outlives_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let upload = open(folder.path()).begin(Algorithm::Sha512).await.unwrap();
    let id = upload.id();
    append(upload, "some ").await.pause().await.unwrap();
    let upload = open(folder.path()).resume(&id).await.unwrap();
    assert_eq!(upload.offset_bytes(), 5);
    append(upload, "content").await.complete(&digest("some content")).await.unwrap();
}

#[tokio::test]
async fn the_digest_may_be_by_another_algorithm_than_was_expected() {
    let folder = tempfile::tempdir().unwrap();
    let uploads = open(folder.path());
    for (expected, other) in [(Algorithm::Sha256, Algorithm::Sha512), (Algorithm::Sha512, Algorithm::Sha256)]
    {
        let upload = append(uploads.begin(expected).await.unwrap(), "content").await;
        upload.complete(&Digest::of(other, b"content")).await.unwrap();
        let upload = append(uploads.begin(expected).await.unwrap(), "content").await;
        let error = upload.complete(&Digest::of(other, b"other")).await.unwrap_err();
        assert!(matches!(error, UploadError::DigestMismatch { .. }), "{error}");
    }
}

#[tokio::test]
async fn one_request_at_a_time_is_at_an_upload() {
    let folder = tempfile::tempdir().unwrap();
    let uploads = open(folder.path());
    let upload = append(uploads.begin(Algorithm::Sha256).await.unwrap(), "content").await;
    let id = upload.id();
    assert!(matches!(uploads.resume(&id).await, Err(UploadError::Busy)));
    let staged = upload.complete(&digest("content")).await.unwrap();
    assert!(matches!(uploads.resume(&id).await, Err(UploadError::Busy)), "it is on its way into the store");
    staged.keep();
    uploads.resume(&id).await.unwrap();
}

#[tokio::test]
async fn what_is_too_large_wrong_or_cancelled_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let uploads = open(folder.path());
    let begin = async || append(uploads.begin(Algorithm::Sha256).await.unwrap(), "content").await;
    let (large, wrong, cancelled) = (begin().await, begin().await, begin().await);
    let ids = [large.id(), wrong.id(), cancelled.id()];
    let rest = Bytes::from(vec![0; usize::try_from(LIMIT).unwrap() - 7]);
    let full = large.append(vec![rest]).await.unwrap();
    assert_eq!(full.offset_bytes(), LIMIT);
    let error = full.append(vec![Bytes::from_static(b"x")]).await.unwrap_err();
    assert!(matches!(error, UploadError::TooLarge { limit_bytes: LIMIT }), "{error}");
    let error = wrong.complete(&digest("other")).await.unwrap_err();
    assert!(matches!(error, UploadError::DigestMismatch { .. }), "{error}");
    cancelled.cancel().await.unwrap();
    for id in ids {
        assert!(matches!(uploads.resume(&id).await, Err(UploadError::Unknown)));
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_file_that_was_changed_at_rest_does_not_become_content() {
    let folder = tempfile::tempdir().unwrap();
    let uploads = open(folder.path());
    let upload = append(uploads.begin(Algorithm::Sha256).await.unwrap(), "content").await;
    let id = upload.id();
    drop(upload);
    fs::write(folder.path().join(id.to_string()), "conte").unwrap();
    let upload = uploads.resume(&id).await.unwrap();
    assert_eq!(upload.offset_bytes(), 5);
    let error = upload.complete(&digest("content")).await.unwrap_err();
    assert!(matches!(error, UploadError::DigestMismatch { .. }), "{error}");
}

#[tokio::test]
async fn ten_thousand_abandoned_uploads_cost_little_until_they_are_removed() {
    const COUNT: u64 = 10_000;
    let folder = tempfile::tempdir().unwrap();
    let uploads = open(folder.path());
    let mut ids = Vec::new();
    for _ in 0..COUNT {
        let upload = append(uploads.begin(Algorithm::Sha256).await.unwrap(), "some ").await;
        ids.push(upload.id());
    }
    assert!(uploads.kept() <= KEPT, "{}", uploads.kept());
    // Other tests have files open, too.
    let descriptors = fs::read_dir("/proc/self/fd").unwrap().count();
    assert!(descriptors < 2000, "{descriptors}");
    // The hash of the last is in memory, that of the first is computed again.
    for id in [ids[0], ids[ids.len() - 1]] {
        let upload = append(uploads.resume(&id).await.unwrap(), "content").await;
        upload.complete(&digest("some content")).await.unwrap().keep();
    }
    let now = Clock::system().now();
    let hour = Duration::from_hours(1);
    let long_ago = Timestamp::from_millis(now.as_millis() - 3_600_000);
    assert_eq!(uploads.remove_abandoned(long_ago).await.unwrap(), Removed::default());
    let in_use = uploads.resume(&ids[1]).await.unwrap();
    let removed = uploads.remove_abandoned(now.after(hour)).await.unwrap();
    assert_eq!(removed, Removed { uploads: COUNT - 1, bytes: 2 * 12 + (COUNT - 3) * 5 });
    assert!(matches!(uploads.resume(&ids[2]).await, Err(UploadError::Unknown)));
    append(in_use, "content").await.complete(&digest("some content")).await.unwrap();
}
