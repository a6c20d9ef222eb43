//! The bytes of a hosted blob, wherever the store has them.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _};

use super::{Hosting, HostingError, Result};
use crate::blobs::hosted::{BlobStream, DurableBlobs, HostedBlob, HostedError};
use crate::blobs::{BlobFile, ReadBuffers};
use crate::oci::Digest;
use crate::registry::{BlobPart, RegistryError, StoredPart};

/// How much is read from a file at once where its bytes have to be seen.
const CHUNK: u64 = 128 * 1024;

/// How much of a file is given out at once to be sent.
const PART: u64 = 2 * 1024 * 1024;

/// An opened blob of a hosted repository.
#[derive(Clone)]
pub struct HostedContent {
    digest: Digest,
    blob: HostedBlob,
    store: Arc<dyn DurableBlobs>,
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
}

impl Hosting {
    /// Opens the bytes of a blob that the catalogue has.
    pub(super) async fn open_content(&self, digest: &Digest, size_bytes: u64) -> Result<HostedContent> {
        let blob = self.store.open(digest).await?;
        let missing = || HostingError::ContentMissing(Box::new(*digest));
        // A file of another size is damaged: nothing of it is given out.
        let blob = blob.filter(|blob| blob.size_bytes() == size_bytes).ok_or_else(missing)?;
        Ok(HostedContent { digest: *digest, blob, store: Arc::clone(&self.store) })
    }
}

impl HostedContent {
    /// The digest.
    pub const fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The size in bytes.
    pub const fn size_bytes(&self) -> u64 {
        self.blob.size_bytes()
    }

    /// Reads a part, which lies within the size; several may be read one after the other.
    pub async fn read(&self, range: Range<u64>) -> Result<ContentStream, RegistryError> {
        let source = match &self.blob {
            HostedBlob::File(file) => Source::File(file.clone()),
            HostedBlob::Remote { .. } => {
                let stream = self.store.read(&self.digest, range.clone()).await.map_err(failed)?;
                Source::Remote(stream.ok_or(RegistryError::BlobUnknown(self.digest))?)
            }
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
        if let Source::File(file) = &self.source {
            if self.rest.is_empty() {
                return None;
            }
            let end = self.rest.end.min(self.rest.start + PART);
            if let Some(slice) = file.slice(self.rest.start..end) {
                self.rest.start = end;
                return Some(Ok(BlobPart::Stored(StoredPart::of_hosted(slice))));
            }
        }
        Some(self.next().await?.map(BlobPart::Bytes))
    }

    /// The next bytes.
    pub async fn next(&mut self) -> Option<Result<Bytes, RegistryError>> {
        match &mut self.source {
            Source::Remote(stream) => Some(stream.next().await?.map_err(failed)),
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
