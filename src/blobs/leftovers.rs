//! Temporary files that could not be removed when their time was over, and are removed later.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// How many are known; further ones are left to the next start.
const MOST: usize = 10_000;

/// Files that nobody needs and that take space. Cloning gives another handle.
#[derive(Clone, Debug, Default)]
pub(super) struct Leftovers(Arc<Mutex<Vec<PathBuf>>>);

impl Leftovers {
    /// Removes a file that nobody needs; one that cannot be removed is tried again by [`Leftovers::try_again`].
    /// Blocks.
    pub(super) fn remove(&self, path: &Path) -> io::Result<()> {
        let removed = remove(path);
        if removed.is_err() {
            let mut paths = self.lock();
            if paths.len() < MOST {
                paths.push(path.to_owned());
            }
        }
        removed
    }

    /// Removes what could not be removed before. Blocks.
    pub(super) fn try_again(&self) {
        // Not under the lock: a disk may hang.
        let paths = std::mem::take(&mut *self.lock());
        for path in paths {
            let _kept_for_another_time = self.remove(&path);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<PathBuf>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}
