//! The directory of uploads: one file each, which is all there is of an upload that rests.
//!
//! ```text
//! <path>/<32 hex digits>    the bytes that have come
//! ```
//!
//! An upload that no request is at costs neither a descriptor nor, beyond some of them, memory. After a restart it goes
//! on where its file ends; its hash is computed from the file again.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::sessions::{Lease, Progress, Sessions};
use super::{Step, Steps, Upload, UploadError, UploadId};
use crate::blobs::modified_at;
use crate::oci::Algorithm;
use crate::runtime::{Tasks, Timestamp};

/// Takes uploads in. Cloning gives another handle.
#[derive(Clone, Debug)]
pub struct Uploads {
    directory: PathBuf,
    limit_bytes: u64,
    sessions: Sessions,
    tasks: Tasks,
    steps: Steps,
}

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// How many uploads.
    pub uploads: u64,
    /// How many bytes they had.
    pub bytes: u64,
}

impl Uploads {
    /// Takes a directory into use, making it where it is missing: one on the file system of the store, where that is a
    /// directory. One process at a time may. Content may have `limit_bytes`.
    ///
    /// Blocks; meant for the start of the process.
    pub fn open(
        directory: &Path,
        limit_bytes: u64,
        tasks: &Tasks,
        steps: &Steps,
    ) -> Result<Self, UploadError> {
        let made = fs::create_dir_all(directory).and_then(|()| match directory.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
            _ => Ok(()),
        });
        made.map_err(|source| UploadError::disk("make directory for uploads", source))?;
        Ok(Self {
            directory: directory.to_owned(),
            limit_bytes,
            sessions: Sessions::default(),
            tasks: tasks.clone(),
            steps: steps.clone(),
        })
    }

    /// Begins an upload, whose hash is computed by `algorithm` as bytes come; its digest may turn out to be by the
    /// other, and then the file is read once more.
    pub async fn begin(&self, algorithm: Algorithm) -> Result<Upload, UploadError> {
        let uploads = self.clone();
        self.blocking("begin upload", move || {
            let failed = |source| UploadError::disk("begin upload", source);
            let id = UploadId::random().map_err(failed)?;
            let path = uploads.path_of(&id);
            // Nobody else has this name.
            let lease = uploads.sessions.lease(id).ok_or(UploadError::Busy)?;
            let file = File::options().read(true).write(true).create_new(true).open(&path).map_err(failed)?;
            Ok(uploads.upload(lease, path, file, Progress::new(algorithm)))
        })
        .await
    }

    /// Goes on with an upload: after an earlier request, a broken one, or a restart.
    ///
    /// Dropped at its await point, the upload rests as before.
    pub async fn resume(&self, id: &UploadId) -> Result<Upload, UploadError> {
        let lease = self.sessions.lease(*id).ok_or(UploadError::Busy)?;
        let uploads = self.clone();
        self.blocking("resume upload", move || {
            let failed = |source| UploadError::disk("resume upload", source);
            let path = uploads.path_of(&lease.id());
            let remembered = lease.recall();
            let file = match File::options().read(true).write(true).open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(UploadError::Unknown),
                Err(error) => return Err(failed(error)),
            };
            let size_bytes = file.metadata().map_err(failed)?.len();
            let progress = match remembered {
                Some(progress) if progress.offset_bytes == size_bytes => progress,
                _ => Progress::read(&file, size_bytes, Algorithm::Sha256).map_err(failed)?,
            };
            Ok(uploads.upload(lease, path, file, progress))
        })
        .await
    }

    /// How far an upload is, without going on with it; `None` where there is none. Another request may be at it.
    pub async fn find_offset(&self, id: &UploadId) -> Result<Option<u64>, UploadError> {
        let path = self.path_of(id);
        self.blocking("look at upload", move || match fs::metadata(path) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(UploadError::disk("look at upload", error)),
        })
        .await
    }

    /// Counts what [`Uploads::remove_abandoned`] would remove.
    pub async fn find_abandoned(&self, before: Timestamp) -> Result<Removed, UploadError> {
        let uploads = self.clone();
        self.blocking("look for abandoned uploads", move || {
            uploads.sweep(before, &|_| Ok(())).map_err(|source| UploadError::disk("look for uploads", source))
        })
        .await
    }

    /// Removes the uploads that nothing was written to since `before`, and that no request is at. What cannot be removed
    /// is left for the next time.
    pub async fn remove_abandoned(&self, before: Timestamp) -> Result<Removed, UploadError> {
        let uploads = self.clone();
        self.blocking("remove abandoned uploads", move || {
            let remove = |path: &Path| {
                uploads.steps.reach(Step::RemoveUpload)?;
                fs::remove_file(path)
            };
            uploads
                .sweep(before, &remove)
                .map_err(|source| UploadError::disk("remove abandoned uploads", source))
        })
        .await
    }

    /// How many uploads have something kept in memory.
    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.sessions.kept()
    }

    /// Removes, by `remove`, the uploads that are abandoned.
    fn sweep(&self, before: Timestamp, remove: &dyn Fn(&Path) -> io::Result<()>) -> io::Result<Removed> {
        let mut removed = Removed::default();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            if !is_older(&entry, before) {
                continue;
            }
            let Some(lease) = self.sessions.lease(id) else { continue };
            // Looked at again with the lease in hand: nobody writes to it now.
            let Ok(metadata) = entry.metadata() else { continue };
            if !is_older(&entry, before) || remove(&entry.path()).is_err() {
                continue;
            }
            let _forgotten = lease.recall();
            removed.uploads += 1;
            removed.bytes += metadata.len();
        }
        Ok(removed)
    }

    fn upload(&self, lease: Lease, path: PathBuf, file: File, progress: Progress) -> Upload {
        Upload {
            file: Arc::new(file),
            path,
            progress,
            limit_bytes: self.limit_bytes,
            is_over: false,
            tasks: self.tasks.clone(),
            steps: self.steps.clone(),
            lease: Arc::new(lease),
        }
    }

    fn path_of(&self, id: &UploadId) -> PathBuf {
        self.directory.join(id.to_string())
    }

    async fn blocking<T, F>(&self, action: &'static str, work: F) -> Result<T, UploadError>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T, UploadError> + Send + 'static,
    {
        let done = self.tasks.spawn_blocking(work).await;
        done.unwrap_or_else(|panicked| Err(UploadError::disk(action, io::Error::other(panicked))))
    }
}

/// Whether nothing was written to a file since `before`. One that is gone is not.
fn is_older(entry: &fs::DirEntry, before: Timestamp) -> bool {
    let modified_at = entry.metadata().and_then(|metadata| modified_at(&metadata));
    modified_at.is_ok_and(|modified_at| modified_at < before)
}
