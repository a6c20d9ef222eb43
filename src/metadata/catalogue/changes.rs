//! The log of all changes.

use async_trait::async_trait;

use super::{Result, Stamp};
use crate::oci::{Digest, Tag};

/// A change, as the log has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its number: 1, 2, 3, … in the order in which the changes became visible.
    pub number: u64,
    /// What happened.
    pub kind: ChangeKind,
    /// The namespace or repository.
    pub place: String,
    /// The tag, where it happened to one.
    pub tag: Option<Tag>,
    /// The manifest, where there is one.
    pub digest: Option<Digest>,
    /// When, and by whom.
    pub stamp: Stamp,
}

/// What may happen. Blobs come and go unlogged: they count once a manifest lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChangeKind {
    /// A namespace was created.
    NamespaceCreated,
    /// A namespace was deleted.
    NamespaceDeleted,
    /// A namespace was restored.
    NamespaceRestored,
    /// What a namespace allows was changed.
    NamespaceChanged,
    /// A deleted namespace was removed for good, with all its repositories.
    NamespacePurged,
    /// A repository was created.
    RepositoryCreated,
    /// A repository was deleted.
    RepositoryDeleted,
    /// A repository was restored.
    RepositoryRestored,
    /// A deleted repository was removed for good.
    RepositoryPurged,
    /// A manifest came into a repository.
    ManifestPushed,
    /// A manifest was deleted from a repository.
    ManifestDeleted,
    /// A deleted manifest came back.
    ManifestRestored,
    /// A manifest was collected: it cannot come back.
    ManifestCollected,
    /// A tag points elsewhere.
    TagMoved,
    /// A tag was deleted.
    TagDeleted,
    /// It was said when a tag goes by itself, or that it does not.
    TagExpirySet,
}

impl ChangeKind {
    /// All kinds.
    pub const ALL: [Self; 16] = [
        Self::NamespaceCreated,
        Self::NamespaceDeleted,
        Self::NamespaceRestored,
        Self::NamespaceChanged,
        Self::NamespacePurged,
        Self::RepositoryCreated,
        Self::RepositoryDeleted,
        Self::RepositoryRestored,
        Self::RepositoryPurged,
        Self::ManifestPushed,
        Self::ManifestDeleted,
        Self::ManifestRestored,
        Self::ManifestCollected,
        Self::TagMoved,
        Self::TagDeleted,
        Self::TagExpirySet,
    ];

    /// The word for it in the database and in logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NamespaceCreated => "namespace_created",
            Self::NamespaceDeleted => "namespace_deleted",
            Self::NamespaceRestored => "namespace_restored",
            Self::NamespaceChanged => "namespace_changed",
            Self::NamespacePurged => "namespace_purged",
            Self::RepositoryCreated => "repository_created",
            Self::RepositoryDeleted => "repository_deleted",
            Self::RepositoryRestored => "repository_restored",
            Self::RepositoryPurged => "repository_purged",
            Self::ManifestPushed => "manifest_pushed",
            Self::ManifestDeleted => "manifest_deleted",
            Self::ManifestRestored => "manifest_restored",
            Self::ManifestCollected => "manifest_collected",
            Self::TagMoved => "tag_moved",
            Self::TagDeleted => "tag_deleted",
            Self::TagExpirySet => "tag_expiry_set",
        }
    }
}

/// Reads the log. A row is in it if and only if its change was made.
#[async_trait]
pub trait ChangeLog: Send + Sync {
    /// Lists changes after the number `after` in the order of their numbers. None with a smaller number than one that
    /// was listed becomes visible later.
    async fn list_changes(&self, after: u64, limit: u32) -> Result<Vec<Change>>;

    /// The number of the last change; 0 where nothing happened yet.
    async fn last_change(&self) -> Result<u64>;
}
