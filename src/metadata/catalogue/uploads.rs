//! Uploads that are on their way.

use async_trait::async_trait;

use super::{Result, Stamp};
use crate::oci::RepositoryName;
use crate::runtime::Timestamp;

/// An upload, as far as its bytes are safe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadRecord {
    /// Its id, which cannot be guessed.
    pub id: String,
    /// How many bytes there are.
    pub offset_bytes: u64,
    /// Where the hash of them stands, as the caller wrote it.
    pub hash_state: Vec<u8>,
    /// When it was started, and by whom.
    pub started: Stamp,
    /// When something last came.
    pub touched_at: Timestamp,
}

/// What came of an upload, and is safe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadStep {
    /// The offset before.
    pub from_bytes: u64,
    /// The offset from now on.
    pub to_bytes: u64,
    /// Where the hash stands there.
    pub hash_state: Vec<u8>,
    /// When.
    pub at: Timestamp,
}

/// Keeps uploads. They are no content yet, so that the log of changes does not know them.
#[async_trait]
pub trait Uploads: Send + Sync {
    /// Records a new upload; one that is there already is left as it is.
    async fn start_upload(&self, repository: &RepositoryName, id: &str, stamp: &Stamp) -> Result<()>;

    /// Finds an upload of a repository.
    async fn find_upload(&self, repository: &RepositoryName, id: &str) -> Result<Option<UploadRecord>>;

    /// Moves an upload on. Of two steps from one place the second one fails; the same step again is no fault.
    async fn advance_upload(&self, repository: &RepositoryName, id: &str, step: &UploadStep) -> Result<()>;

    /// Forgets an upload, of whatever repository, that nothing came for since `before`; says whether it did.
    async fn remove_silent_upload(&self, id: &str, before: Timestamp) -> Result<bool>;

    /// Forgets an upload. Fails where there is none.
    async fn remove_upload(&self, repository: &RepositoryName, id: &str) -> Result<()>;

    /// Lists uploads of all repositories that nothing came for since `before`, the longest silent first.
    async fn list_silent_uploads(
        &self,
        before: Timestamp,
        limit: u32,
    ) -> Result<Vec<(RepositoryName, UploadRecord)>>;
}
