//! Which uploads a request is at, and how far the others had come: both bounded, however many uploads there are.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::UploadId;
use crate::oci::{Algorithm, Digest, Hasher};

/// How many uploads that no request is at have the state of their hash kept. Those of others are read again.
pub(super) const KEPT: usize = 1024;

/// How much is read at once to hash a file again, in bytes.
const READ_BYTES: usize = 256 * 1024;

/// The uploads of a directory. Cloning gives another handle.
#[derive(Clone, Debug, Default)]
pub(super) struct Sessions(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// Those that a request is at.
    in_use: HashSet<UploadId>,
    /// Those that rest, with a number that tells which rest longest.
    resting: HashMap<UploadId, (u64, Progress)>,
    rests: u64,
}

/// How far an upload has come.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    pub(super) offset_bytes: u64,
    pub(super) algorithm: Algorithm,
    pub(super) hasher: Hasher,
    /// Whether the name of the file is durable.
    pub(super) is_named: bool,
}

/// The right to be at an upload, which one request has at a time.
#[derive(Debug)]
pub(super) struct Lease {
    sessions: Sessions,
    id: UploadId,
}

impl Sessions {
    /// Takes an upload, if nobody is at it.
    pub(super) fn lease(&self, id: UploadId) -> Option<Lease> {
        self.state().in_use.insert(id).then(|| Lease { sessions: self.clone(), id })
    }

    /// How many uploads have something kept in memory.
    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        let state = self.state();
        state.in_use.len() + state.resting.len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease {
    pub(super) const fn id(&self) -> UploadId {
        self.id
    }

    /// Remembers how far the upload has come. The half of those that have rested longest is forgotten where there is
    /// no room.
    pub(super) fn rest(&self, progress: Progress) {
        let mut state = self.sessions.state();
        if state.resting.len() >= KEPT {
            let mut ages: Vec<_> = state.resting.values().map(|(number, _)| *number).collect();
            let (_, median, _) = ages.select_nth_unstable(KEPT / 2);
            let median = *median;
            state.resting.retain(|_, (number, _)| *number > median);
        }
        state.rests += 1;
        let number = state.rests;
        state.resting.insert(self.id, (number, progress));
    }

    /// How far the upload had come, as far as that is remembered.
    pub(super) fn recall(&self) -> Option<Progress> {
        self.sessions.state().resting.remove(&self.id).map(|(_, progress)| progress)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.sessions.state().in_use.remove(&self.id);
    }
}

impl Progress {
    /// That of an upload that has just begun.
    pub(super) fn new(algorithm: Algorithm) -> Self {
        Self { offset_bytes: 0, algorithm, hasher: Hasher::new(algorithm), is_named: false }
    }

    /// Reads a file from the front. Blocks.
    pub(super) fn read(file: &File, size_bytes: u64, algorithm: Algorithm) -> io::Result<Self> {
        let mut progress = Self::new(algorithm);
        let mut buffer = vec![0; READ_BYTES];
        while progress.offset_bytes < size_bytes {
            let rest = usize::try_from(size_bytes - progress.offset_bytes).unwrap_or(READ_BYTES);
            let part = &mut buffer[..rest.min(READ_BYTES)];
            file.read_exact_at(part, progress.offset_bytes)?;
            progress.take_in(part);
        }
        Ok(progress)
    }

    pub(super) fn take_in(&mut self, part: &[u8]) {
        self.hasher.update(part);
        self.offset_bytes += part.len() as u64;
    }

    /// The digest of all that came. Blocks where it was not computed by this algorithm as it came: then the file is
    /// read.
    pub(super) fn digest(&self, algorithm: Algorithm, file: &File) -> io::Result<Digest> {
        if algorithm == self.algorithm {
            return Ok(self.hasher.clone().finish());
        }
        Self::read(file, self.offset_bytes, algorithm).map(|progress| progress.hasher.finish())
    }
}
