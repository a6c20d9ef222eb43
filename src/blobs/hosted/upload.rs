//! One upload, in the hands of the one request that is at it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::sessions::{Lease, Progress};
use super::{StagedBlob, Step, Steps, UploadError, UploadId};
use crate::oci::Digest;
use crate::runtime::Tasks;

/// An upload that goes on. Dropping it leaves it resting, with all that was written.
///
/// Whatever takes an upload and fails has given it up: what a failed write or fsync left is unknown, and must not become
/// content. Its file is removed, and its space is free again.
#[derive(Debug)]
pub struct Upload {
    pub(super) file: Arc<File>,
    pub(super) path: PathBuf,
    pub(super) progress: Progress,
    pub(super) limit_bytes: u64,
    /// Whether it was given up, or went on as a [`StagedBlob`].
    pub(super) is_over: bool,
    pub(super) tasks: Tasks,
    pub(super) steps: Steps,
    pub(super) lease: Arc<Lease>,
}

impl Upload {
    /// Its name.
    pub fn id(&self) -> UploadId {
        self.lease.id()
    }

    /// How many bytes have come.
    pub const fn offset_bytes(&self) -> u64 {
        self.progress.offset_bytes
    }

    /// Fails where bytes that begin at `start` are not those that come next. The upload stays as it is.
    pub const fn require_offset(&self, start: u64) -> Result<(), UploadError> {
        let offset_bytes = self.progress.offset_bytes;
        if start == offset_bytes { Ok(()) } else { Err(UploadError::OutOfOrder { offset_bytes }) }
    }

    /// Writes and hashes the next parts, on a thread where that may block. They are not durable yet.
    ///
    /// Dropped at its await point, the parts are written all the same, and the upload rests.
    pub async fn append(self, parts: Vec<Bytes>) -> Result<Self, UploadError> {
        self.work("write upload", move |upload| upload.write(&parts)).await
    }

    /// Makes all that was written durable, and leaves the upload resting. Returns how many bytes may be
    /// acknowledged.
    pub async fn pause(self) -> Result<u64, UploadError> {
        let upload = self.work("keep upload", Self::sync).await?;
        Ok(upload.progress.offset_bytes)
    }

    /// Compares the digest of all that came with the one announced, and makes the content durable.
    pub async fn complete(self, digest: &Digest) -> Result<StagedBlob, UploadError> {
        let expected = *digest;
        let mut upload = self.work("complete upload", move |upload| upload.verify(&expected)).await?;
        upload.is_over = true;
        Ok(StagedBlob {
            file: Arc::clone(&upload.file),
            digest: expected,
            size_bytes: upload.progress.offset_bytes,
            tasks: upload.tasks.clone(),
            leftover: Some(upload.path.clone()),
            lease: Arc::clone(&upload.lease),
        })
    }

    /// Gives the upload up.
    pub async fn cancel(self) -> Result<(), UploadError> {
        let removed = self.work("remove upload", |upload| {
            upload.is_over = true;
            fs::remove_file(&upload.path).map_err(|source| UploadError::disk("remove upload", source))
        });
        removed.await.map(drop)
    }

    /// Does work that may block. Where it fails, the upload is given up.
    async fn work<F>(mut self, action: &'static str, work: F) -> Result<Self, UploadError>
    where
        F: FnOnce(&mut Self) -> Result<(), UploadError> + Send + 'static,
    {
        let tasks = self.tasks.clone();
        let done = tasks.spawn_blocking(move || match work(&mut self) {
            Ok(()) => Ok(self),
            Err(error) => {
                self.is_over = true;
                // What cannot be removed now is an abandoned upload, whose digest never agrees.
                let _removed = fs::remove_file(&self.path);
                Err(error)
            }
        });
        done.await.unwrap_or_else(|panicked| Err(UploadError::disk(action, io::Error::other(panicked))))
    }

    fn write(&mut self, parts: &[Bytes]) -> Result<(), UploadError> {
        let failed = |source| UploadError::disk("write upload", source);
        for part in parts {
            let end = self.progress.offset_bytes.saturating_add(part.len() as u64);
            if end > self.limit_bytes {
                return Err(UploadError::TooLarge { limit_bytes: self.limit_bytes });
            }
            self.steps.reach(Step::Append).map_err(failed)?;
            self.file.write_all_at(part, self.progress.offset_bytes).map_err(failed)?;
            self.progress.take_in(part);
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), UploadError> {
        let failed = |source| UploadError::disk("keep upload", source);
        self.steps.reach(Step::SyncUpload).map_err(failed)?;
        self.file.sync_data().map_err(failed)?;
        if !self.progress.is_named {
            self.steps.reach(Step::SyncUploads).map_err(failed)?;
            sync_directory_of(&self.path).map_err(failed)?;
            self.progress.is_named = true;
        }
        Ok(())
    }

    fn verify(&mut self, expected: &Digest) -> Result<(), UploadError> {
        let failed = |source| UploadError::disk("complete upload", source);
        self.steps.reach(Step::Verify).map_err(failed)?;
        let found = self.progress.digest(expected.algorithm(), &self.file).map_err(failed)?;
        if found != *expected {
            let expected = Box::new(*expected);
            return Err(UploadError::DigestMismatch { expected, found: Box::new(found) });
        }
        self.steps.reach(Step::SyncContent).map_err(failed)?;
        self.file.sync_data().map_err(failed)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if !self.is_over {
            self.lease.rest(self.progress.clone());
        }
    }
}

fn sync_directory_of(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}
