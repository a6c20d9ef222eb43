//! Content that this registry hosts: the durable store of its blobs, and uploads on their way there.
//!
//! What is in the store is whole, verified and durable: a [`StagedBlob`] is the only way in, and there is none
//! whose digest was not compared. Who may see content, and what is still needed, is the catalogue's to know.

#[cfg(test)]
pub(crate) mod contract;
#[cfg(test)]
mod crash_tests;
mod directory;
mod error;
#[cfg(test)]
mod faulty;
mod journal;
mod object;
mod parts;
mod provider;
#[cfg(test)]
mod s3_server;
mod sessions;
mod staged;
mod step;
mod transport;
mod upload;
mod upload_id;
#[cfg(test)]
mod upload_tests;
mod uploads;

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use tokio::sync::mpsc;

pub use directory::BlobDirectory;
pub use error::{HostedError, Result, UploadError};
pub use object::{Confirmation, ObjectBlobs, ObjectSettings};
pub use staged::StagedBlob;
pub use step::{Step, Steps, Witness};
pub use upload::Upload;
pub use upload_id::{UploadId, UploadIdError};
pub use uploads::{Removed, Uploads};

use super::{BlobFile, FoundBlob};
use crate::oci::Digest;

/// Content on its way to a reader.
pub type BlobStream = BoxStream<'static, Result<Bytes>>;

/// All content of a store in the order of digests, in parts of bounded size.
pub type BlobListing = mpsc::Receiver<Result<Vec<FoundBlob>>>;

/// Stored content, and how to come by its bytes.
#[derive(Clone, Debug)]
pub enum HostedBlob {
    /// A file of this machine.
    File(BlobFile),
    /// Bytes to be fetched, by [`DurableBlobs::read`] or from where [`DurableBlobs::presign`] says.
    Remote {
        /// The size of the content in bytes.
        size_bytes: u64,
    },
}

impl HostedBlob {
    /// The size of the content in bytes.
    pub const fn size_bytes(&self) -> u64 {
        match self {
            Self::File(file) => file.size_bytes(),
            Self::Remote { size_bytes } => *size_bytes,
        }
    }
}

/// Keeps hosted content by digest, for good.
///
/// The same content may be put at the same time and again. Whoever deletes content sees to it that nobody puts the
/// same meanwhile: a put may find it there, and rely on it.
#[async_trait]
pub trait DurableBlobs: fmt::Debug + Send + Sync {
    /// Whether content has to be fetched from elsewhere, so that a copy of it on this machine is worth having.
    fn is_remote(&self) -> bool;

    /// Takes content in. When this returns, it survives the end of the process and of the machine.
    ///
    /// After an error it was not taken, or may have been: it must not be acknowledged. Where the store was at fault,
    /// the upload is kept, to be completed again; where this machine's disk was, it is given up: a failed fsync may
    /// have dropped the pages it failed on. Dropped at its await point, it goes on by itself.
    async fn put(&self, staged: StagedBlob) -> Result<()>;

    /// Looks at content without its bytes; `None` where it is not stored.
    async fn find(&self, digest: &Digest) -> Result<Option<FoundBlob>>;

    /// Opens content; `None` where it is not stored.
    async fn open(&self, digest: &Digest) -> Result<Option<HostedBlob>>;

    /// Reads a part of content, which lies within its size. `None` where it is not stored.
    async fn read(&self, digest: &Digest, range: Range<u64>) -> Result<Option<BlobStream>>;

    /// Removes content; who has its file open reads on. What was not stored is no error. After a power cut it may be
    /// there again.
    async fn delete(&self, digest: &Digest) -> Result<()>;

    /// Lists what comes after a digest, or everything. What is put or deleted meanwhile may or may not be listed.
    async fn list(&self, after: Option<&Digest>) -> Result<BlobListing>;

    /// A URL by which anybody can get content for some time; `None` where the store gives no such URLs. Does not look
    /// whether the content is stored.
    async fn presign(&self, digest: &Digest, valid_for: Duration) -> Result<Option<String>>;
}
