//! A store for tests: content in memory, sizes as claimed, faults on demand.

use std::collections::{BTreeMap, HashSet};
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tokio::sync::mpsc;

use crate::blobs::{BlobError, BlobFile, Blobs, FillFile, FoundBlob, Inspection, Result, Space};
use crate::oci::{Algorithm, Digest};
use crate::runtime::Timestamp;

/// Content by digest.
#[derive(Default)]
pub(crate) struct MemoryBlobs {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    stored: BTreeMap<Digest, Stored>,
    /// What cannot be opened.
    unreadable: HashSet<Digest>,
    /// What cannot be removed.
    stuck: HashSet<Digest>,
    /// The size of the disk.
    disk_bytes: Option<u64>,
    /// What is back right after it was removed.
    refilled: HashSet<Digest>,
}

#[derive(Clone)]
struct Stored {
    content: Vec<u8>,
    size_bytes: u64,
    modified_at: Timestamp,
}

impl MemoryBlobs {
    /// Stores content under its own digest.
    pub(crate) fn put(&self, content: &[u8], modified_at: Timestamp) -> Digest {
        let digest = Digest::of(Algorithm::Sha256, content);
        self.put_as(digest, content, modified_at);
        digest
    }

    /// Stores content under a digest that may be wrong.
    pub(crate) fn put_as(&self, digest: Digest, content: &[u8], modified_at: Timestamp) {
        let size_bytes = content.len() as u64;
        let stored = Stored { content: content.to_vec(), size_bytes, modified_at };
        self.state.lock().unwrap().stored.insert(digest, stored);
    }

    /// Stores nothing that claims to be so large.
    pub(crate) fn put_sized(&self, digest: Digest, size_bytes: u64) {
        let stored = Stored { content: Vec::new(), size_bytes, modified_at: Timestamp::default() };
        self.state.lock().unwrap().stored.insert(digest, stored);
    }

    /// Makes every opening of an item fail.
    pub(crate) fn spoil(&self, digest: Digest) {
        self.state.lock().unwrap().unreadable.insert(digest);
    }

    /// Makes every removal of an item fail.
    pub(crate) fn stick(&self, digest: Digest) {
        self.state.lock().unwrap().stuck.insert(digest);
    }

    /// Stores an item again right after its removal, once.
    pub(crate) fn refill(&self, digest: Digest) {
        self.state.lock().unwrap().refilled.insert(digest);
    }

    /// Gives the disk a size.
    pub(crate) fn limit(&self, disk_bytes: u64) {
        self.state.lock().unwrap().disk_bytes = Some(disk_bytes);
    }

    /// Whether an item is stored.
    pub(crate) fn holds(&self, digest: &Digest) -> bool {
        self.state.lock().unwrap().stored.contains_key(digest)
    }

    /// The sum of sizes.
    pub(crate) fn bytes(&self) -> u64 {
        self.state.lock().unwrap().stored.values().map(|stored| stored.size_bytes).sum()
    }
}

#[async_trait]
impl Blobs for MemoryBlobs {
    async fn open(&self, digest: &Digest) -> Result<Option<BlobFile>> {
        let stored = {
            let state = self.state.lock().unwrap();
            if state.unreadable.contains(digest) {
                let source = io::Error::other("bad sector");
                return Err(BlobError::Io { action: "open blob", source });
            }
            state.stored.get(digest).cloned()
        };
        let Some(stored) = stored else { return Ok(None) };
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&stored.content).unwrap();
        Ok(Some(BlobFile::new(Arc::new(file), stored.size_bytes)))
    }

    async fn begin(&self, _digest: &Digest, _size_bytes: Option<u64>) -> Result<FillFile> {
        unreachable!("not used here")
    }

    fn begin_in_memory(&self, _digest: &Digest, _size_bytes: Option<u64>) -> Result<FillFile> {
        unreachable!("not used here")
    }

    async fn remove(&self, digest: &Digest) -> Result<bool> {
        let mut state = self.state.lock().unwrap();
        if state.stuck.contains(digest) {
            let source = io::ErrorKind::ReadOnlyFilesystem.into();
            return Err(BlobError::Io { action: "remove blob", source });
        }
        if state.refilled.remove(digest) {
            return Ok(true);
        }
        Ok(state.stored.remove(digest).is_some())
    }

    async fn inspect(&self, digest: &Digest) -> Result<Option<Inspection>> {
        let Some(file) = self.open(digest).await? else { return Ok(None) };
        let begun = Inspection::begin(*digest, file.into_file());
        Ok(Some(begun.unwrap()))
    }

    async fn condemn(&self, digest: &Digest, _file: Option<&BlobFile>) -> Result<bool> {
        self.remove(digest).await
    }

    fn is_condemned(&self, digest: &Digest) -> bool {
        self.state.lock().unwrap().stuck.contains(digest)
    }

    async fn space(&self) -> Result<Space> {
        let state = self.state.lock().unwrap();
        let used_bytes: u64 = state.stored.values().map(|stored| stored.size_bytes).sum();
        let total_bytes = state.disk_bytes.unwrap_or(u64::MAX);
        Ok(Space { total_bytes, free_bytes: total_bytes.saturating_sub(used_bytes), free_files: None })
    }

    async fn probe(&self) -> Result<()> {
        Ok(())
    }

    async fn list(&self) -> Result<mpsc::Receiver<Result<Vec<FoundBlob>>>> {
        let state = self.state.lock().unwrap();
        let found: Vec<_> = state
            .stored
            .iter()
            .map(|(digest, stored)| FoundBlob {
                digest: *digest,
                size_bytes: stored.size_bytes,
                modified_at: stored.modified_at,
            })
            .collect();
        let parts: Vec<_> = found.chunks(3).map(<[_]>::to_vec).collect();
        let (sender, receiver) = mpsc::channel(parts.len().max(1));
        for part in parts {
            sender.try_send(Ok(part)).unwrap();
        }
        Ok(receiver)
    }
}
