//! What a node knows of its content: the index of cached items, tags as observed, proofs of access. And what hosted
//! repositories hold: the [`catalogue`].
//!
//! One trait a subject; [`NodeIndex`] is all of them. `SQLite` stands behind them today. Every method
//! is one transaction: dropped at an await point, it was done wholly or not at all.

mod care;
pub mod catalogue;
mod content;
#[cfg(test)]
mod contract;
mod error;
mod holdings;
mod images;
mod imports;
mod listings;
mod pins;
mod proofs;
mod pulls;
pub mod sqlite;
mod tags;
mod verification;
mod warm;

use std::fmt;
use std::sync::Arc;

pub use care::IndexCare;
pub use content::{ContentIndex, ContentKind, ContentRecord, ContentUse, SECOND_USE_AFTER, Segment};
pub use error::{MetadataError, Result};
pub use holdings::{Forgotten, Holding, HoldingFilter, Holdings, UpstreamHoldings};
pub use images::ImageRecords;
pub use imports::{ImportRecord, ImportRecords, ImportedRepository, TagFate, TagRule};
pub use listings::{Listing, ListingKind, Listings, MAX_PAGES};
pub use pins::{PinReason, PinRecord, PinStatus, PinnedSums, Pins};
pub use proofs::{AccessProof, AccessProofs};
pub use pulls::{ObservedTag, PullRecord, PullRecords};
pub use tags::{TagObservation, TagObservations};
pub use verification::Verifications;
pub use warm::{WarmRecord, WarmRecords};

use crate::oci::RepositoryName;

/// A repository of an upstream: the unit of rights.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepositoryId {
    /// The upstream's configured name.
    pub upstream: Arc<str>,
    /// The repository's name there.
    pub name: RepositoryName,
}

impl fmt::Display for RepositoryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.upstream, self.name)
    }
}

impl fmt::Debug for RepositoryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// All that a node's index can do.
pub trait NodeIndex:
    ContentIndex
    + TagObservations
    + AccessProofs
    + Listings
    + PullRecords
    + ImageRecords
    + WarmRecords
    + Holdings
    + Pins
    + Verifications
    + IndexCare
    + ImportRecords
{
}

impl<T> NodeIndex for T where
    T: ContentIndex
        + TagObservations
        + AccessProofs
        + Listings
        + PullRecords
        + ImageRecords
        + WarmRecords
        + Holdings
        + Pins
        + Verifications
        + IndexCare
        + ImportRecords
{
}
