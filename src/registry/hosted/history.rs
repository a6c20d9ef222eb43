//! What tags were, and how what was deleted comes back.

use super::{Hosting, HostingError, NamespacePolicy, Result};
use crate::auth::{RequestContext, policy};
use crate::metadata::catalogue::{CatalogueError, TagChange, TagState};
use crate::oci::{Digest, RepositoryName, Tag};
use crate::runtime::Timestamp;

/// A tag that points nowhere and did so before: what there is to say to who pulls it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeletedTag {
    /// What it pointed to last.
    pub digest: Digest,
    /// When it was deleted.
    pub at: Timestamp,
    /// Who deleted it; "expiry" and "prune" are rules.
    pub by: String,
    /// Until when it can be restored for certain.
    pub restorable_until: Timestamp,
}

impl NamespacePolicy {
    /// Fails where a tag may not come to point to `new` (nowhere, where there is none) because it points to `current`.
    /// What changes nothing is allowed.
    pub fn require_mutable<D: Copy + PartialEq>(
        &self,
        tag: &Tag,
        current: Option<D>,
        new: Option<D>,
    ) -> Result<()> {
        if current.is_some() && current != new && self.is_immutable(tag) {
            return Err(HostingError::Immutable { tag: tag.to_string() });
        }
        Ok(())
    }
}

impl Hosting {
    /// Lists the tags of a repository with what they point to, in lexical order.
    pub async fn list_tag_states(
        &self,
        context: &RequestContext,
        repository: &RepositoryName,
        last: Option<&Tag>,
        limit: u32,
    ) -> Result<Vec<TagState>> {
        policy::require_administrator(context)?;
        Ok(self.catalogue.list_tag_states(repository, last, limit).await?)
    }

    /// Lists everything that a tag ever pointed to, with who and when, the last first, from before the row `before`.
    pub async fn list_tag_history(
        &self,
        context: &RequestContext,
        repository: &RepositoryName,
        tag: &Tag,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<TagChange>> {
        policy::require_administrator(context)?;
        self.require_repository(repository).await?;
        Ok(self.catalogue.list_tag_history(repository, tag, before, limit).await?)
    }

    /// Finds what a tag pointed to at a moment.
    pub async fn find_tag_at(
        &self,
        context: &RequestContext,
        repository: &RepositoryName,
        tag: &Tag,
        at: Timestamp,
    ) -> Result<Option<Digest>> {
        policy::require_administrator(context)?;
        self.require_repository(repository).await?;
        Ok(self.catalogue.find_tag_at(repository, tag, at).await?)
    }

    /// Deletes a tag. It can be restored.
    pub async fn delete_tag(
        &self,
        context: &RequestContext,
        repository: &RepositoryName,
        tag: &Tag,
    ) -> Result<DeletedTag> {
        policy::require_administrator(context)?;
        let current = self.catalogue.find_tag(repository, tag).await?;
        self.policy_of(repository).await?.require_mutable(tag, current, None)?;
        self.catalogue.delete_tag(repository, tag, &self.stamp(context)).await?;
        let deleted = self.find_deleted_tag(repository, tag).await?;
        deleted.ok_or_else(|| {
            HostingError::Conflict(format!("tag {tag} was pushed again at once by somebody else"))
        })
    }

    /// Points a tag to what it pointed to once: to `digest`, or to what it pointed to last where none is said. Says to
    /// what.
    pub async fn restore_tag(
        &self,
        context: &RequestContext,
        repository: &RepositoryName,
        tag: &Tag,
        digest: Option<&Digest>,
    ) -> Result<TagState> {
        policy::require_administrator(context)?;
        let current = self.catalogue.find_tag(repository, tag).await?;
        let digest = match digest {
            Some(digest) => *digest,
            None if current.is_some() => {
                return Err(HostingError::Invalid(format!(
                    "tag {tag} is not deleted: say the digest to restore it to"
                )));
            }
            None => self.find_last(repository, tag).await?.ok_or(CatalogueError::TagUnknown)?.0,
        };
        self.policy_of(repository).await?.require_mutable(tag, current, Some(digest))?;
        match self.catalogue.restore_tag(repository, tag, &digest, &self.stamp(context)).await {
            Err(CatalogueError::ManifestUnknown) => {
                return Err(HostingError::Gone { tag: tag.to_string(), digest: Box::new(digest) });
            }
            done => done?,
        }
        let state = self.catalogue.find_tag_state(repository, tag).await?;
        Ok(state.ok_or(CatalogueError::TagUnknown)?)
    }

    /// What can be said of a tag that points nowhere: `None` where it never pointed anywhere, or where it can be restored
    /// to nothing any more. Whoever may pull from the repository may know.
    pub async fn find_deleted_tag(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
    ) -> Result<Option<DeletedTag>> {
        let Some((digest, last)) = self.find_last(repository, tag).await? else { return Ok(None) };
        let restore_for = self.policy_of(repository).await?.restore_for();
        let (at, by) = (last.stamp.at, last.stamp.by.to_string());
        Ok(Some(DeletedTag { digest, at, by, restorable_until: at.after(restore_for) }))
    }

    /// The row by which a tag was deleted, and what it pointed to before, if that can still be restored.
    async fn find_last(&self, repository: &RepositoryName, tag: &Tag) -> Result<Option<(Digest, TagChange)>> {
        let rows = self.catalogue.list_tag_history(repository, tag, None, 2).await?;
        let [deletion, last] = rows.as_slice() else { return Ok(None) };
        let digest = last.digest.filter(|_| deletion.digest.is_none() && last.is_restorable);
        Ok(digest.map(|digest| (digest, deletion.clone())))
    }

    async fn require_repository(&self, repository: &RepositoryName) -> Result<()> {
        let found = self.catalogue.find_repository(repository).await?;
        found.map(drop).ok_or(HostingError::Catalogue(CatalogueError::RepositoryUnknown))
    }
}
