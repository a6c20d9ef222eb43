//! Listings (tags, referrers) as upstream last gave them: for answers while it is away.

use async_trait::async_trait;

use super::{RepositoryId, Result};
use crate::runtime::Timestamp;

/// What is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ListingKind {
    /// `tags/list`.
    Tags,
    /// `referrers/`.
    Referrers,
}

impl ListingKind {
    /// The word in logs, metrics and the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tags => "tags",
            Self::Referrers => "referrers",
        }
    }
}

/// One page of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The page as the use case serialized it.
    pub body: Vec<u8>,
    /// When upstream gave it.
    pub fetched_at: Timestamp,
}

/// How many pages of one repository and kind are kept.
pub const MAX_PAGES: u32 = 256;

/// Keeps pages of listings.
#[async_trait]
pub trait Listings: Send + Sync {
    /// Records a page in place of an earlier one; `key` tells pages of one repository and kind apart.
    /// Beyond [`MAX_PAGES`] of a repository and kind, the oldest go: keys hold what clients ask for.
    async fn record_listing(
        &self,
        repository: &RepositoryId,
        kind: ListingKind,
        key: &str,
        listing: &Listing,
    ) -> Result<()>;

    /// Finds a page.
    async fn find_listing(
        &self,
        repository: &RepositoryId,
        kind: ListingKind,
        key: &str,
    ) -> Result<Option<Listing>>;

    /// Forgets a page.
    async fn remove_listing(&self, repository: &RepositoryId, kind: ListingKind, key: &str) -> Result<()>;

    /// Forgets up to `limit` pages that were fetched before a moment and says how many there were:
    /// keys hold what clients ask for, so the table would grow without end.
    async fn remove_listings_before(&self, before: Timestamp, limit: u32) -> Result<u64>;
}
