//! The bytes of a hosted blob, wherever they are: in the store's own file, in this node's cache, or at the store.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _};

use super::{Hosting, HostingError, Result};
use crate::blobs::hosted::{BlobStream, DurableBlobs, HostedBlob, HostedError};
use crate::blobs::{BlobFile, ReadBuffers};
use crate::oci::{Digest, RangeSet};
use crate::registry::{self, BlobPart, OpenBlob, RegistryError, Served, StoredPart};

/// How much is read from a file at once where its bytes have to be seen.
const CHUNK: u64 = 128 * 1024;

/// How much of a file is given out at once to be sent.
const PART: u64 = 2 * 1024 * 1024;

/// An opened blob of a hosted repository.
#[derive(Clone)]
pub struct HostedContent {
    digest: Digest,
    size_bytes: u64,
    place: Place,
}

/// Where the bytes are.
#[derive(Clone)]
enum Place {
    /// In a file of the store.
    File(BlobFile),
    /// At the store, to be read from there by each who asks.
    Remote(Arc<dyn DurableBlobs>),
    /// In this node's cache, or on their way there.
    Cache(Arc<OpenBlob>),
}

/// The bytes of a part of a blob, in order.
pub struct ContentStream {
    source: Source,
    rest: Range<u64>,
    buffers: ReadBuffers,
}

enum Source {
    File(BlobFile),
    Remote(BlobStream),
    Cache(Box<registry::BlobStream>),
}

impl Hosting {
    /// Opens the bytes of a blob that the catalogue has; those of a store that is elsewhere come through the cache.
    pub(in crate::registry) async fn open_content(
        &self,
        digest: &Digest,
        size_bytes: u64,
        ranges: Option<&RangeSet>,
    ) -> Result<HostedContent> {
        let Some(cache) = &self.0.cache else { return self.open_stored(digest, size_bytes).await };
        let blob = Box::pin(cache.open(digest, size_bytes, ranges)).await?;
        if blob.size_bytes != Some(size_bytes) {
            return Err(HostingError::ContentMissing(Box::new(*digest)));
        }
        Ok(HostedContent { digest: *digest, size_bytes, place: Place::Cache(Arc::new(blob)) })
    }

    /// Opens the bytes of a blob that the catalogue has, as the store has them.
    pub(super) async fn open_stored(&self, digest: &Digest, size_bytes: u64) -> Result<HostedContent> {
        let blob = self.store.open(digest).await?;
        let missing = || HostingError::ContentMissing(Box::new(*digest));
        // A file of another size is damaged: nothing of it is given out.
        let blob = blob.filter(|blob| blob.size_bytes() == size_bytes).ok_or_else(missing)?;
        let place = match blob {
            HostedBlob::File(file) => Place::File(file),
            HostedBlob::Remote { .. } => Place::Remote(Arc::clone(&self.store)),
        };
        Ok(HostedContent { digest: *digest, size_bytes, place })
    }
}

impl HostedContent {
    /// The digest.
    pub const fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The size in bytes.
    pub const fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// How the cache came by it, where it was asked.
    pub fn served(&self) -> Option<&Served> {
        match &self.place {
            Place::Cache(blob) => Some(&blob.served),
            Place::File(_) | Place::Remote(_) => None,
        }
    }

    /// Reads a part, which lies within the size; several may be read one after the other.
    pub async fn read(&self, range: Range<u64>) -> Result<ContentStream, RegistryError> {
        let source = match &self.place {
            Place::File(file) => Source::File(file.clone()),
            Place::Remote(store) => {
                let stream = store.read(&self.digest, range.clone()).await.map_err(failed)?;
                let lost = || failed(HostedError::Unkept { digest: Box::new(self.digest) });
                Source::Remote(stream.ok_or_else(lost)?)
            }
            Place::Cache(blob) => Source::Cache(Box::new(blob.read(range.clone()).await?)),
        };
        Ok(ContentStream { source, rest: range, buffers: ReadBuffers::default() })
    }
}

impl ContentStream {
    /// Reads a part of a file.
    pub(in crate::registry) fn of_file(file: BlobFile, rest: Range<u64>) -> Self {
        Self { source: Source::File(file), rest, buffers: ReadBuffers::default() }
    }

    /// All bytes that are still to come.
    pub fn into_bytes(self) -> BoxStream<'static, Result<Bytes, RegistryError>> {
        stream::unfold(self, |mut content| async move {
            let part = content.next().await?;
            Some((part, content))
        })
        .boxed()
    }

    /// The next part; what lies in a file is not read. `None` at the end; an error means that the answer must be cut.
    pub async fn next_part(&mut self) -> Option<Result<BlobPart, RegistryError>> {
        match &mut self.source {
            Source::Cache(stream) => return stream.next_part().await,
            Source::File(_) if self.rest.is_empty() => return None,
            Source::File(file) => {
                let end = self.rest.end.min(self.rest.start + PART);
                if let Some(slice) = file.slice(self.rest.start..end) {
                    self.rest.start = end;
                    return Some(Ok(BlobPart::Stored(StoredPart::of_hosted(slice))));
                }
            }
            Source::Remote(_) => {}
        }
        Some(self.next().await?.map(BlobPart::Bytes))
    }

    /// The next bytes.
    pub async fn next(&mut self) -> Option<Result<Bytes, RegistryError>> {
        match &mut self.source {
            Source::Remote(stream) => Some(stream.next().await?.map_err(failed)),
            Source::Cache(stream) => stream.next().await,
            Source::File(_) if self.rest.is_empty() => None,
            Source::File(file) => Some(read_file(file, &mut self.rest, &mut self.buffers).await),
        }
    }
}

/// Reads the next bytes of a file.
async fn read_file(
    file: &BlobFile,
    rest: &mut Range<u64>,
    buffers: &mut ReadBuffers,
) -> Result<Bytes, RegistryError> {
    let length = usize::try_from((rest.end - rest.start).min(CHUNK)).unwrap_or(0);
    let bytes = buffers.read_exact_at(file, rest.start, length).await;
    let bytes = bytes.map_err(|error| RegistryError::Blobs(Arc::new(error)))?;
    rest.start += length as u64;
    Ok(bytes)
}

fn failed(error: HostedError) -> RegistryError {
    match error {
        HostedError::Disk(error) => RegistryError::Blobs(Arc::new(error)),
        error => RegistryError::HostedStore(Arc::new(error)),
    }
}
