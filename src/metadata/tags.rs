//! Tags as this node last saw them upstream.

use async_trait::async_trait;

use super::{RepositoryId, Result};
use crate::oci::{AcceptClass, Digest, MediaType, Tag};
use crate::runtime::Timestamp;

/// What a tag pointed to when upstream was last asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagObservation {
    /// The manifest.
    pub digest: Digest,
    /// Its type.
    pub media_type: MediaType,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// When upstream last confirmed it.
    pub checked_at: Timestamp,
    /// Since when upstream says that it does not have the tag any more; `None` while it has it.
    pub missing_since: Option<Timestamp>,
}

/// Keeps tags as observed, one observation for each accept class.
#[async_trait]
pub trait TagObservations: Send + Sync {
    /// Records what upstream said.
    async fn record_tag(
        &self,
        repository: &RepositoryId,
        tag: &Tag,
        class: &AcceptClass,
        observation: &TagObservation,
    ) -> Result<()>;

    /// Finds the last observation.
    async fn find_tag(
        &self,
        repository: &RepositoryId,
        tag: &Tag,
        class: &AcceptClass,
    ) -> Result<Option<TagObservation>>;

    /// Forgets a tag for all classes: upstream said that it does not exist.
    async fn remove_tag(&self, repository: &RepositoryId, tag: &Tag) -> Result<()>;

    /// All tags observed, in lexical order.
    async fn list_tags(&self, repository: &RepositoryId) -> Result<Vec<Tag>>;
}
