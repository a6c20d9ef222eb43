//! An opened blob, wherever its bytes come from.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use tokio::sync::watch;

use super::core::Core;
use super::direct::{Direct, Passing, is_clear_of_end};
use super::fill::{Fill, FillFailure, Fills, Phase, Progress};
use super::hosted::ContentStream;
use super::patience;
use super::stored::Stored;
use super::supplier::Supplier;
use super::{RegistryError, Served};
use crate::blobs::{BlobFile, FileSlice, ReadBuffers};
use crate::oci::Digest;

/// How much is read from a file at once, in bytes: what one client costs in memory.
const CHUNK: u64 = 128 * 1024;

/// How much of a file is given out at once to be sent, in bytes: what the record of an answer that is cut is
/// too high by at most, and no longer than a task may keep its thread.
const PART: u64 = 2 * 1024 * 1024;

/// What is known of a blob without its bytes.
#[derive(Clone, Debug)]
pub struct BlobStat {
    /// Its size in bytes.
    pub size_bytes: u64,
    /// How it was come by.
    pub served: Served,
}

/// A blob that can be read now.
pub struct OpenBlob {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes; `None` only where upstream does not say and no manifest lists it.
    pub size_bytes: Option<u64>,
    /// How it was come by.
    pub served: Served,
    pub(super) core: Arc<Core>,
    pub(super) supplier: Supplier,
    pub(super) source: Source,
}

/// Where the bytes come from.
pub(super) enum Source {
    /// The store.
    Stored(Stored),
    /// A fill, running or just done.
    Filling(Arc<Fill>),
    /// The supplier, range by range: small ranges far ahead of any fill.
    Ranges,
    /// The supplier, without the disk.
    Direct,
}

impl OpenBlob {
    /// Reads a part; several parts may be read one after the other.
    pub async fn read(&self, range: Range<u64>) -> Result<BlobStream, RegistryError> {
        if self.size_bytes == Some(0) && Digest::of(self.digest.algorithm(), b"") != self.digest {
            // There is nothing that could be held back until the digest agrees.
            let error = self.supplier.altered(&self.digest, "it says that a blob is empty that is not");
            return Err(RegistryError::from_blob_fetch(error, &self.digest));
        }
        let source = match &self.source {
            Source::Stored(Stored::Small(bytes)) => Reader::Small(bytes.clone()),
            Source::Stored(Stored::File(file)) => Reader::File(file.clone()),
            Source::Filling(fill) => Reader::of(fill),
            Source::Ranges => match self.pass_range(&range).await? {
                Some(passing) => passing,
                None => self.join_fill(&range).await?,
            },
            Source::Direct => match self.pass_range(&range).await? {
                Some(passing) => passing,
                None => self.open_direct(&range).await?,
            },
        };
        let origin = Origin {
            core: Arc::clone(&self.core),
            supplier: self.supplier.clone(),
            digest: self.digest,
            size_bytes: self.size_bytes,
        };
        Ok(BlobStream { origin: Arc::new(origin), source, rest: range, buffers: ReadBuffers::default() })
    }

    /// Reads all of a blob, also one of unknown size.
    pub async fn read_all(&self) -> Result<BlobStream, RegistryError> {
        self.read(0..self.size_bytes.unwrap_or(u64::MAX)).await
    }

    /// Asks for a range alone, where that may be given unverified. `None` where it may not, or the supplier
    /// cannot.
    async fn pass_range(&self, range: &Range<u64>) -> Result<Option<Reader>, RegistryError> {
        let Some(size_bytes) = self.size_bytes.filter(|size| is_clear_of_end(range, *size)) else {
            return Ok(None);
        };
        let asked = Passing::open(&self.supplier, &self.digest, range.clone(), size_bytes);
        let answered = patience::for_a_supply(&self.supplier, asked).await;
        match answered.map_err(|slow| RegistryError::from_blob_fetch(slow, &self.digest))? {
            Ok(passing) => Ok(Some(Reader::Passing(Box::new(passing)))),
            Err(error) if error.is_transient() => Ok(None),
            Err(error) => Err(RegistryError::from_blob_fetch(error, &self.digest)),
        }
    }

    async fn join_fill(&self, range: &Range<u64>) -> Result<Reader, RegistryError> {
        let (fill, _started) =
            Fills::join_or_start(&self.core, &self.supplier, &self.digest, self.size_bytes);
        let answered = patience::for_a_supply(&self.supplier, fill.answered()).await;
        match answered.map_err(|slow| RegistryError::from_blob_fetch(slow, &self.digest))? {
            Ok(progress) if fill.suits(&self.supplier, self.size_bytes, &progress) => Ok(Reader::of(&fill)),
            Err(failure) if fill.supplier.is(&self.supplier) && !failure.leaves_supplier() => {
                Err(failure.into_error(&self.digest))
            }
            Ok(_) | Err(_) => self.open_direct(range).await,
        }
    }

    async fn open_direct(&self, range: &Range<u64>) -> Result<Reader, RegistryError> {
        let (core, supplier) = (&self.core, &self.supplier);
        let asked = Direct::open(core, supplier, &self.digest, range.clone(), self.size_bytes);
        let direct = patience::for_a_supply(supplier, asked).await.flatten();
        let direct = direct.map_err(|error| RegistryError::from_blob_fetch(error, &self.digest))?;
        Ok(Reader::Direct(Box::new(direct)))
    }
}

/// The bytes of a blob, or of a part, in order.
pub struct BlobStream {
    origin: Arc<Origin>,
    source: Reader,
    /// What is still to be given; its end is `u64::MAX` where the size is unknown.
    rest: Range<u64>,
    buffers: ReadBuffers,
}

/// Where a blob can be had when the disk fails.
struct Origin {
    core: Arc<Core>,
    supplier: Supplier,
    digest: Digest,
    size_bytes: Option<u64>,
}

/// Some bytes of a blob.
pub enum BlobPart {
    /// At hand.
    Bytes(Bytes),
    /// In a file, to be sent from there.
    Stored(StoredPart),
}

/// A part of a blob in a file of the store. May be given out, like any other part, before it is sent.
pub struct StoredPart {
    /// The part.
    pub slice: FileSlice,
    /// `None` of what is hosted on this machine: it can be had nowhere else.
    origin: Option<Arc<Origin>>,
}

impl StoredPart {
    /// A part of a blob that is hosted on this machine.
    pub(super) const fn of_hosted(slice: FileSlice) -> Self {
        Self { slice, origin: None }
    }

    /// Reads what was not sent yet: where the file cannot be sent, or not any more. A file that cannot be
    /// read either is replaced by the supplier.
    pub fn read_instead(&self) -> BoxStream<'static, Result<Bytes, RegistryError>> {
        let rest = self.slice.range().clone();
        let file = self.slice.file();
        match &self.origin {
            Some(origin) => {
                let source = Reader::File(file);
                let (origin, buffers) = (Arc::clone(origin), ReadBuffers::default());
                BlobStream { origin, source, rest, buffers }.into_bytes()
            }
            None => ContentStream::of_file(file, rest).into_bytes(),
        }
    }
}

enum Reader {
    Small(Bytes),
    File(BlobFile),
    Fill(Arc<Fill>, watch::Receiver<Progress>),
    Passing(Box<Passing>),
    Direct(Box<Direct>),
}

impl Reader {
    fn of(fill: &Arc<Fill>) -> Self {
        Self::Fill(Arc::clone(fill), fill.progress())
    }
}

/// Where the next bytes of a stream are.
enum Next {
    /// In a file, up to this position.
    InFile(BlobFile, u64),
    /// Here; or nowhere, at the end.
    Given(Option<Result<Bytes, RegistryError>>),
}

impl Next {
    const fn failed(error: RegistryError) -> Self {
        Self::Given(Some(Err(error)))
    }
}

/// What a look at a fill's progress says to do.
enum Step {
    Read(BlobFile, u64),
    Wait,
    End,
    Fail(FillFailure),
}

impl BlobStream {
    /// The next bytes; `None` at the verified end. An error means that the answer must be cut short.
    /// May be dropped at any await point; bytes that were being read are then lost.
    pub async fn next(&mut self) -> Option<Result<Bytes, RegistryError>> {
        let part = match self.next_in_file().await {
            Next::InFile(file, end) => {
                let length = chunk(&self.rest, end);
                match self.buffers.read_exact_at(&file, self.rest.start, length).await {
                    Ok(bytes) => Some(Ok(bytes)),
                    Err(error) => {
                        self.origin.core.report_disk(&error);
                        if matches!(self.source, Reader::File(_)) {
                            self.origin.core.suspect(&self.origin.digest);
                        }
                        self.leave_file().await
                    }
                }
            }
            Next::Given(part) => part,
        };
        if let Some(Ok(bytes)) = &part {
            self.rest.start += bytes.len() as u64;
        }
        part
    }

    /// All bytes that are still to come.
    pub fn into_bytes(self) -> BoxStream<'static, Result<Bytes, RegistryError>> {
        stream::unfold(self, |mut blob| async move {
            let part = blob.next().await?;
            Some((part, blob))
        })
        .boxed()
    }

    /// Like [`BlobStream::next`], but what lies in a file of the store is not read.
    pub async fn next_part(&mut self) -> Option<Result<BlobPart, RegistryError>> {
        let part = match self.next_in_file().await {
            Next::InFile(file, end) => {
                let end = end.min(self.rest.start + PART);
                if let Some(slice) = file.slice(self.rest.start..end) {
                    self.rest.start = end;
                    let origin = Some(Arc::clone(&self.origin));
                    return Some(Ok(BlobPart::Stored(StoredPart { slice, origin })));
                }
                // The file does not reach that far any more.
                self.next().await
            }
            Next::Given(part) => part.inspect(|part| {
                self.rest.start += part.as_ref().map_or(0, |bytes| bytes.len() as u64);
            }),
        };
        part.map(|part| part.map(BlobPart::Bytes))
    }

    /// Finds where the next bytes are; waits for a fill that runs.
    async fn next_in_file(&mut self) -> Next {
        if self.rest.is_empty() && !matches!(self.source, Reader::Passing(_) | Reader::Direct(_)) {
            return Next::Given(None);
        }
        match &mut self.source {
            Reader::Small(bytes) => {
                let index = |position: u64| usize::try_from(position).unwrap_or(usize::MAX).min(bytes.len());
                Next::Given(Some(Ok(bytes.slice(index(self.rest.start)..index(self.rest.end)))))
            }
            Reader::File(file) => Next::InFile(file.clone(), self.rest.end),
            Reader::Fill(..) => self.next_of_fill().await,
            Reader::Passing(passing) => Next::Given(passing.next().await),
            Reader::Direct(direct) => Next::Given(direct.next().await),
        }
    }

    async fn next_of_fill(&mut self) -> Next {
        loop {
            let Reader::Fill(fill, progress) = &mut self.source else {
                return Next::failed(RegistryError::Internal);
            };
            let step = step(&progress.borrow_and_update(), &self.rest);
            match step {
                Step::Read(file, readable) => return Next::InFile(file, self.rest.end.min(readable)),
                Step::End => return Next::Given(None),
                Step::Wait if progress.changed().await.is_ok() => {}
                Step::Wait => return Next::failed(RegistryError::Internal),
                Step::Fail(failure) if failure.leaves_supplier() => {
                    let file = progress.borrow().file.clone();
                    return Next::Given(self.leave_fill(file).await);
                }
                // What another supplier does is not told as this one's.
                Step::Fail(_) if !fill.supplier.is(&self.origin.supplier) => {
                    let file = progress.borrow().file.clone();
                    if !self.begin_own_fill() {
                        return Next::Given(self.leave_fill(file).await);
                    }
                }
                Step::Fail(failure) => return Next::failed(failure.into_error(&self.origin.digest)),
            }
        }
    }

    /// Reads from a fill of this supplier instead, where nothing was given yet that it would have to agree with.
    fn begin_own_fill(&mut self) -> bool {
        let Origin { core, supplier, digest, size_bytes } = &*self.origin;
        if self.rest.start > 0 {
            return false;
        }
        let (fill, _started) = Fills::join_or_start(core, supplier, digest, *size_bytes);
        let is_own = fill.supplier.is(supplier);
        if is_own {
            self.source = Reader::of(&fill);
        }
        is_own
    }

    /// Goes on without a file that cannot be read.
    async fn leave_file(&mut self) -> Option<Result<Bytes, RegistryError>> {
        match self.source {
            Reader::Fill(..) => self.leave_fill(None).await,
            _ => self.go_on_directly(None, self.origin.size_bytes).await,
        }
    }

    /// Goes on without the disk, from where this reader stands; what it was given before is hashed from
    /// `file`, where that can be read.
    async fn leave_fill(&mut self, file: Option<BlobFile>) -> Option<Result<Bytes, RegistryError>> {
        let Reader::Fill(_, progress) = &self.source else { return Some(Err(RegistryError::Internal)) };
        let (written_bytes, size_bytes) = {
            let progress = progress.borrow();
            (progress.written_bytes, progress.size_bytes)
        };
        // A range that starts past what was written has nothing to be hashed from the file.
        let file = file.filter(|_| self.rest.start <= written_bytes);
        self.go_on_directly(file, size_bytes).await
    }

    async fn go_on_directly(
        &mut self,
        file: Option<BlobFile>,
        size_bytes: Option<u64>,
    ) -> Option<Result<Bytes, RegistryError>> {
        let Origin { core, supplier, digest, .. } = &*self.origin;
        match Direct::take_over(core, supplier, digest, self.rest.clone(), size_bytes, file).await {
            Ok(direct) => {
                let mut direct = Box::new(direct);
                let part = direct.next().await;
                self.source = Reader::Direct(direct);
                part
            }
            Err(error) => Some(Err(RegistryError::from_blob_fetch(error, digest))),
        }
    }
}

/// How much is read at once of what lies in a file up to `end`.
fn chunk(rest: &Range<u64>, end: u64) -> usize {
    usize::try_from(end.saturating_sub(rest.start).min(CHUNK)).unwrap_or(0)
}

fn step(progress: &Progress, rest: &Range<u64>) -> Step {
    let readable = progress.readable_bytes();
    match (&progress.file, &progress.phase) {
        (Some(file), _) if rest.start < readable => Step::Read(file.clone(), readable),
        (_, Phase::Verified) => Step::End,
        (_, Phase::Failed(failure)) => Step::Fail(failure.clone()),
        (_, Phase::Asking | Phase::Streaming) => Step::Wait,
    }
}
