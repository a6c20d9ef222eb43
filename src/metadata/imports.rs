//! What an imported bundle brings, in one transaction.

use async_trait::async_trait;

use super::{AccessProof, ContentRecord, Listing, ListingKind, ObservedTag, RepositoryId, Result};

/// All that a bundle brings.
#[derive(Clone, Debug, Default)]
pub struct ImportRecord {
    /// Content that is stored here.
    pub content: Vec<ContentRecord>,
    /// What repositories have shown.
    pub repositories: Vec<ImportedRepository>,
}

/// What a bundle says of one repository.
#[derive(Clone, Debug)]
pub struct ImportedRepository {
    /// The repository.
    pub id: RepositoryId,
    /// That it has manifests, and all that they list.
    pub proofs: Vec<AccessProof>,
    /// Its tags; with `true` also in place of a later observation.
    pub tags: Vec<(ObservedTag, bool)>,
    /// Pages of listings with their keys.
    pub listings: Vec<(ListingKind, String, Listing)>,
}

/// Records imports.
#[async_trait]
pub trait ImportRecords: Send + Sync {
    /// Records all of it, or nothing. Content comes into the protected segment, known or not. Of tags and
    /// listings that are known, later ones stay, but for tags that are to be replaced.
    async fn record_import(&self, import: &ImportRecord) -> Result<()>;
}
