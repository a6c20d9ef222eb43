//! Stored content by the repositories that have it: what there is, who shares it, and how it is forgotten.

use std::sync::Arc;

use async_trait::async_trait;

use super::{ContentKind, ContentRecord, RepositoryId, Result};
use crate::oci::{Digest, Tag};
use crate::runtime::Timestamp;

/// Stored content as one repository has it. What several repositories have is one holding of each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// The repository.
    pub repository: RepositoryId,
    /// The content.
    pub content: ContentRecord,
    /// The repository's tags that were last seen at it, in lexical order.
    pub tags: Vec<Tag>,
    /// When its bytes were last compared with its digest; `None` for what was found on the disk and never looked at.
    pub verified_at: Option<Timestamp>,
    /// Whether a pin covers the content.
    pub is_pinned: bool,
}

/// Which holdings are meant: all that agree with every part that is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HoldingFilter {
    /// Only of this upstream.
    pub upstream: Option<Arc<str>>,
    /// Only of this repository.
    pub repository: Option<RepositoryId>,
    /// Only what this tag was last seen at.
    pub tag: Option<Tag>,
    /// Only this content.
    pub digest: Option<Digest>,
    /// Only blobs, or only manifests.
    pub kind: Option<ContentKind>,
    /// Only what was stored then or before.
    pub stored_by: Option<Timestamp>,
    /// Only what was last used then or before.
    pub unused_since: Option<Timestamp>,
    /// Only what has so many bytes or more.
    pub least_bytes: Option<u64>,
}

/// How much an upstream's repositories hold; what several of them share counts once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamHoldings {
    /// The upstream; empty for all content together, whoever holds it.
    pub upstream: String,
    /// How many tags were seen.
    pub tags: u64,
    /// How many manifests are stored.
    pub manifests: u64,
    /// How many blobs are stored.
    pub blobs: u64,
    /// The bytes of both.
    pub bytes: u64,
    /// How many of them are pinned.
    pub pinned_bytes: u64,
}

/// What one repository is to forget.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// Content that it has to show anew that it has.
    pub proofs: Vec<Digest>,
    /// Tags.
    pub tags: Vec<Tag>,
}

/// Lists stored content by repository, and forgets it.
#[async_trait]
pub trait Holdings: Send + Sync {
    /// Holdings in order of (upstream, repository, digest), after `after`.
    async fn list_holdings(
        &self,
        filter: &HoldingFilter,
        after: Option<(&RepositoryId, &Digest)>,
        limit: u32,
    ) -> Result<Vec<Holding>>;

    /// The sums of each upstream, in order of names, and after them those of everything.
    async fn sum_holdings(&self) -> Result<Vec<UpstreamHoldings>>;

    /// What several repositories have shown to have, stored or not, with how many they are.
    async fn list_shared(&self) -> Result<Vec<(Digest, u64)>>;

    /// Withdraws proofs, forgets tags and, where it forgets a tag, the kept lists of tags.
    async fn forget(&self, repository: &RepositoryId, forgotten: &Forgotten) -> Result<()>;

    /// Forgets all that was known of a repository: proofs, tags, lists.
    async fn forget_repository(&self, repository: &RepositoryId) -> Result<()>;

    /// Every repository of which anything is known, in order of (upstream, name).
    async fn list_known_repositories(&self, upstream: Option<&str>) -> Result<Vec<RepositoryId>>;
}
