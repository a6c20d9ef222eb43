//! What a pulled manifest teaches, in one transaction.

use async_trait::async_trait;

use super::{AccessProof, ContentRecord, RepositoryId, Result, TagObservation};
use crate::oci::{AcceptClass, Tag};

/// A manifest that was fetched and stored.
#[derive(Clone, Debug)]
pub struct PullRecord {
    /// The manifest itself.
    pub content: ContentRecord,
    /// That the repository has it, and all that it lists.
    pub proofs: Vec<AccessProof>,
    /// The tag that it was pulled by, if it was.
    pub tag: Option<ObservedTag>,
}

/// A tag observation with its key.
#[derive(Clone, Debug)]
pub struct ObservedTag {
    /// The tag.
    pub tag: Tag,
    /// The accept class that it was asked for with.
    pub class: AcceptClass,
    /// What upstream said.
    pub observation: TagObservation,
}

/// Records pulls.
#[async_trait]
pub trait PullRecords: Send + Sync {
    /// Records content, proofs and tag: all or nothing.
    async fn record_pull(&self, repository: &RepositoryId, pull: &PullRecord) -> Result<()>;
}
