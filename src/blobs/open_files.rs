//! Files that were opened lately, so that a hit does not open them again; and those that must not be opened.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use super::BlobFile;
use super::inspect::FileId;
use crate::oci::Digest;

/// How many files are kept open. A hot set is smaller; descriptors are scarce on some systems.
const CAPACITY: usize = 256;

/// Open files by digest. Never gives out a file that was removed or that changed its size.
#[derive(Debug, Default)]
pub(super) struct OpenFiles {
    files: RwLock<Files>,
    /// Counts uses: a file's last use is its value then.
    uses: AtomicU64,
}

#[derive(Debug, Default)]
struct Files {
    kept: HashMap<Digest, Kept>,
    /// Damaged files that cannot be removed. What is kept is none of them.
    condemned: HashMap<Digest, FileId>,
}

#[derive(Debug)]
struct Kept {
    file: BlobFile,
    last_use: AtomicU64,
}

impl OpenFiles {
    /// The open file of a digest, if it is still what the store has under that name.
    pub(super) fn find(&self, digest: &Digest) -> Option<BlobFile> {
        let file = {
            let files = self.files.read().unwrap_or_else(PoisonError::into_inner);
            let kept = files.kept.get(digest)?;
            kept.last_use.store(self.next_use(), Ordering::Relaxed);
            kept.file.clone()
        };
        if is_current(&file) {
            return Some(file);
        }
        self.forget(digest);
        None
    }

    /// Keeps a file open, unless it is condemned: then it is not to be given out at all, and the answer is `false`.
    /// The half that was not used for longest goes where there is no place.
    pub(super) fn keep(&self, digest: &Digest, file: &BlobFile) -> bool {
        let kept = Kept { file: file.clone(), last_use: AtomicU64::new(self.next_use()) };
        let mut guard = self.files.write().unwrap_or_else(PoisonError::into_inner);
        let Files { kept: files, condemned } = &mut *guard;
        if let Some(bad) = condemned.get(digest) {
            if file.file.metadata().is_ok_and(|metadata| FileId::of(&metadata) == *bad) {
                return false;
            }
            condemned.remove(digest);
        }
        // Removed since it was opened: who removed it has been here already, or comes after this.
        if !is_current(file) {
            return true;
        }
        if files.len() >= CAPACITY {
            let mut uses: Vec<_> = files.values().map(|kept| kept.last_use.load(Ordering::Relaxed)).collect();
            let (_, median, _) = uses.select_nth_unstable(CAPACITY / 2);
            let median = *median;
            files.retain(|_, kept| kept.last_use.load(Ordering::Relaxed) > median);
        }
        files.insert(*digest, kept);
        true
    }

    /// Closes the file of a digest, once its readers are done.
    pub(super) fn forget(&self, digest: &Digest) {
        self.files.write().unwrap_or_else(PoisonError::into_inner).kept.remove(digest);
    }

    /// Gives this file out no more.
    pub(super) fn condemn(&self, digest: &Digest, file: FileId) {
        let mut files = self.files.write().unwrap_or_else(PoisonError::into_inner);
        files.kept.remove(digest);
        files.condemned.insert(*digest, file);
    }

    /// The file that is not given out for a digest.
    pub(super) fn find_condemned(&self, digest: &Digest) -> Option<FileId> {
        self.files.read().unwrap_or_else(PoisonError::into_inner).condemned.get(digest).copied()
    }

    fn next_use(&self) -> u64 {
        self.uses.fetch_add(1, Ordering::Relaxed)
    }
}

/// Asks the open file itself, which no disk is needed for: a removed file has no name left.
fn is_current(file: &BlobFile) -> bool {
    file.file.metadata().is_ok_and(|metadata| metadata.nlink() > 0 && metadata.len() == file.size_bytes)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::oci::Algorithm;

    fn digest_of(number: usize) -> Digest {
        Digest::of(Algorithm::Sha256, &number.to_be_bytes())
    }

    fn open(path: &Path) -> BlobFile {
        let file = File::open(path).unwrap();
        let size_bytes = file.metadata().unwrap().len();
        BlobFile { file: Arc::new(file), size_bytes }
    }

    #[test]
    fn what_is_used_stays_open_and_what_is_not_goes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("content");
        fs::write(&path, "content").unwrap();
        let files = OpenFiles::default();
        for number in 0..4 * CAPACITY {
            files.keep(&digest_of(number), &open(&path));
            assert!(files.find(&digest_of(0)).is_some(), "used all the time");
        }
        assert!(files.find(&digest_of(1)).is_none());
        assert!(files.files.read().unwrap().kept.len() <= CAPACITY);
    }

    #[test]
    fn a_file_that_was_removed_or_cut_is_not_given_out() {
        let directory = tempfile::tempdir().unwrap();
        let files = OpenFiles::default();
        let spoils: [fn(&Path); 2] =
            [|path| fs::remove_file(path).unwrap(), |path| fs::write(path, "x").unwrap()];
        for (number, spoil) in spoils.into_iter().enumerate() {
            let path = directory.path().join(number.to_string());
            fs::write(&path, "content").unwrap();
            files.keep(&digest_of(number), &open(&path));
            assert!(files.find(&digest_of(number)).is_some());
            spoil(&path);
            assert!(files.find(&digest_of(number)).is_none());
        }
        assert!(files.files.read().unwrap().kept.is_empty());
    }
}
