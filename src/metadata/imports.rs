//! What an imported bundle brings, in one transaction.

use async_trait::async_trait;

use super::{AccessProof, ContentRecord, Listing, ListingKind, ObservedTag, RepositoryId, Result};
use crate::oci::Digest;

/// All that a bundle brings.
#[derive(Clone, Debug)]
pub struct ImportRecord {
    /// Content that is stored here.
    pub content: Vec<ContentRecord>,
    /// What repositories have shown.
    pub repositories: Vec<ImportedRepository>,
    /// What becomes of tags that are known from elsewhere.
    pub rule: TagRule,
}

/// What a bundle says of one repository.
#[derive(Clone, Debug)]
pub struct ImportedRepository {
    /// The repository.
    pub id: RepositoryId,
    /// That it has manifests, and all that they list.
    pub proofs: Vec<AccessProof>,
    /// Its tags.
    pub tags: Vec<ObservedTag>,
    /// Pages of listings with their keys.
    pub listings: Vec<(ListingKind, String, Listing)>,
}

/// Which of two observations of a tag counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TagRule {
    /// The later one.
    #[default]
    Later,
    /// That of the bundle.
    Bundle,
}

/// What became of a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TagFate {
    /// It was not known.
    New,
    /// It pointed there already.
    Same,
    /// It pointed to another manifest, and was seen there earlier, or was to be replaced.
    Moved {
        /// That manifest.
        from: Digest,
    },
    /// It points to another manifest, was seen there later, and stays.
    Kept {
        /// That manifest.
        at: Digest,
    },
}

impl TagFate {
    /// The word in answers and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Same => "same",
            Self::Moved { .. } => "moved",
            Self::Kept { .. } => "kept",
        }
    }
}

/// Records imports.
#[async_trait]
pub trait ImportRecords: Send + Sync {
    /// Records all of it, or nothing, and says what became of each tag, in order. Of listings that are known, later
    /// ones stay. A tag counts as known where it was seen by any accept class, and the latest of these counts.
    async fn record_import(&self, import: &ImportRecord) -> Result<Vec<Vec<TagFate>>>;
}
