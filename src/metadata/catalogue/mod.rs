//! What hosted repositories hold: names, content, tags with their history, uploads, accounts, and the log of changes.
//!
//! One trait a subject; [`Catalogue`] is all of them. The statements are written once ([`SqlCatalogue`]) and run on
//! `SQLite`, a file of one node, and on `PostgreSQL`, which nodes share. Every method that changes something is one
//! transaction: dropped at an await point, it was done wholly or not at all; done again, it changes nothing more.
//! What a method acknowledged survives a power cut.

mod accounts;
mod blobs;
mod changes;
mod collection;
#[cfg(test)]
mod contract;
mod error;
mod manifests;
mod repositories;
mod sql;
mod tags;
mod uploads;

pub use accounts::{AccountName, AccountNameError, AccountRecord, Accounts, Role, SigningKeyRecord};
pub use blobs::{BlobRecord, HostedBlobs};
pub use changes::{Change, ChangeKind, ChangeLog};
pub use collection::{
    BlobSweep, Collection, CondemnedBlob, Horizon, LinkPlace, LinkSweep, Prospect, Purged, StrayBlob,
};
pub use error::{CatalogueError, Result};
pub use manifests::{ContentUse, HostedManifests, ManifestPush, ManifestRecord, MissingChildren, Referrer};
pub use repositories::{HostedRepositories, Namespace, Place, Presence};
#[cfg(test)]
pub(crate) use sql::commits;
pub use sql::{PostgresSettings, SqlCatalogue};
pub use tags::{DueTag, HostedTags, TagChange, TagCondition, TagState};
pub use uploads::{UploadRecord, UploadStep, Uploads};

use std::sync::Arc;

use crate::runtime::Timestamp;

/// When something was done, and by whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// When.
    pub at: Timestamp,
    /// Who: the name that the rights know.
    pub by: Arc<str>,
}

/// All that the catalogue can do.
pub trait Catalogue:
    HostedRepositories + HostedBlobs + HostedManifests + HostedTags + Uploads + ChangeLog + Collection + Accounts
{
}

impl<T> Catalogue for T where
    T: HostedRepositories
        + HostedBlobs
        + HostedManifests
        + HostedTags
        + Uploads
        + ChangeLog
        + Collection
        + Accounts
{
}
