//! Memory that stands in for a disk that cannot take content: bounded, for as long as it is read.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{MemfdFlags, memfd_create};

/// How many bytes of content may be in memory at once because the disk does not take them. What does not
/// fit passes through to each of its readers alone.
const LIMIT: u64 = 128 * 1024 * 1024;

/// The memory that is left. Cloning gives another handle.
#[derive(Clone, Debug)]
pub(super) struct Spare(Arc<AtomicU64>);

/// Some of it, given back when dropped.
#[derive(Debug)]
pub(super) struct Share {
    spare: Spare,
    bytes: u64,
}

impl Default for Spare {
    fn default() -> Self {
        Self(Arc::new(AtomicU64::new(LIMIT)))
    }
}

impl Spare {
    /// Makes a file in memory for content of `bytes`. `None` where there is no room for it.
    pub(super) fn begin(&self, bytes: u64) -> io::Result<Option<(File, Share)>> {
        let take = |left: u64| left.checked_sub(bytes);
        if self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_err() {
            return Ok(None);
        }
        let share = Share { spare: self.clone(), bytes };
        let file = File::from(memfd_create("tidegate-content", MemfdFlags::CLOEXEC)?);
        Ok(Some((file, share)))
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.spare.0.fetch_add(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_comes_back_and_no_more_is_given_than_there_is() {
        let spare = Spare::default();
        let first = spare.begin(LIMIT - 10).unwrap().unwrap();
        assert!(spare.begin(11).unwrap().is_none());
        let second = spare.begin(10).unwrap();
        assert!(second.is_some());
        drop((first, second));
        assert!(spare.begin(LIMIT).unwrap().is_some());
    }
}
