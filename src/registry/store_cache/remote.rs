//! A store that is elsewhere, for tests: it fails, hangs and lies as it is told, and counts what it is asked.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use tokio::sync::watch;

use crate::blobs::FoundBlob;
use crate::blobs::hosted::contract::{in_memory, read};
use crate::blobs::hosted::{
    BlobListing, BlobStream, DurableBlobs, HostedBlob, HostedError, ObjectBlobs, Result, StagedBlob,
};
use crate::oci::Digest;

/// What the store does not do as it should.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Fault {
    #[default]
    None,
    /// It answers nothing.
    Away,
    /// It breaks off after so many bytes, once.
    Breaks(usize),
    /// The first byte is another one.
    Altered,
    /// It has so many bytes only.
    Short(usize),
}

/// The size of the parts that content comes in.
const PART: usize = 10_000;

#[derive(Debug)]
pub(super) struct Remote {
    inner: ObjectBlobs,
    fault: Mutex<Fault>,
    requests: AtomicUsize,
    reads: Mutex<Vec<(usize, usize)>>,
    /// Whether content comes; if not, its first part does.
    flows: watch::Sender<bool>,
}

impl Remote {
    pub(super) fn new(journal: PathBuf) -> Self {
        Self {
            inner: in_memory(journal),
            fault: Mutex::default(),
            requests: AtomicUsize::new(0),
            reads: Mutex::default(),
            flows: watch::Sender::new(true),
        }
    }

    pub(super) fn set(&self, fault: Fault) {
        *self.fault.lock().unwrap() = fault;
    }

    pub(super) fn hold(&self) {
        self.flows.send_replace(false);
    }

    pub(super) fn flow(&self) {
        self.flows.send_replace(true);
    }

    /// What was read since this was last asked, from where to where.
    pub(super) fn take_reads(&self) -> Vec<(usize, usize)> {
        std::mem::take(&mut *self.reads.lock().unwrap())
    }

    /// How often it was asked anything.
    pub(super) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    fn require(&self) -> Result<Fault> {
        self.requests.fetch_add(1, Ordering::SeqCst);
        let fault = *self.fault.lock().unwrap();
        if fault == Fault::Away { Err(HostedError::TimedOut { action: "be there" }) } else { Ok(fault) }
    }
}

#[async_trait]
impl DurableBlobs for Remote {
    fn is_remote(&self) -> bool {
        true
    }

    async fn put(&self, staged: StagedBlob) -> Result<()> {
        self.inner.put(staged).await
    }

    async fn find(&self, digest: &Digest) -> Result<Option<FoundBlob>> {
        let fault = self.require()?;
        let found = self.inner.find(digest).await?;
        Ok(found.map(|found| match fault {
            Fault::Short(bytes) => FoundBlob { size_bytes: bytes as u64, ..found },
            _ => found,
        }))
    }

    async fn open(&self, digest: &Digest) -> Result<Option<HostedBlob>> {
        self.require()?;
        self.inner.open(digest).await
    }

    async fn read(&self, digest: &Digest, range: Range<u64>) -> Result<Option<BlobStream>> {
        let fault = self.require()?;
        let position = |at: u64| usize::try_from(at).unwrap();
        self.reads.lock().unwrap().push((position(range.start), position(range.end)));
        let Some(mut content) = read(&self.inner, digest, range).await else { return Ok(None) };
        let mut breaks = None;
        match fault {
            Fault::Altered => content[0] ^= 1,
            Fault::Short(bytes) => content.truncate(bytes),
            Fault::Breaks(bytes) => {
                content.truncate(bytes);
                breaks = Some(Err(HostedError::TimedOut { action: "go on" }));
                self.set(Fault::None);
            }
            Fault::None | Fault::Away => {}
        }
        let parts: Vec<_> = content.chunks(PART).map(Bytes::copy_from_slice).collect();
        let flows = self.flows.subscribe();
        let parts = stream::iter(parts.into_iter().enumerate()).then(move |(place, part)| {
            let mut flows = flows.clone();
            async move {
                if place > 0 {
                    let _closed = flows.wait_for(|flows| *flows).await;
                }
                Ok(part)
            }
        });
        Ok(Some(parts.chain(stream::iter(breaks)).boxed()))
    }

    async fn delete(&self, digest: &Digest) -> Result<()> {
        self.inner.delete(digest).await
    }

    async fn list(&self, after: Option<&Digest>) -> Result<BlobListing> {
        self.inner.list(after).await
    }

    async fn presign(&self, _: &Digest, _: Duration) -> Result<Option<String>> {
        Ok(None)
    }
}
