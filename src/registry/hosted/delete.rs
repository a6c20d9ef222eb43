//! Use cases: something is taken from a hosted repository. What is deleted can be restored for some time.

use super::{Hosting, Result};
use crate::auth::RequestContext;
use crate::auth::policy::Action;
use crate::oci::{Digest, Reference, RepositoryName, Tag};

impl Hosting {
    /// Deletes a tag, or a manifest with all tags that point to it. Says which tags went.
    pub async fn delete_manifest(
        &self,
        context: &RequestContext,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<Vec<Tag>> {
        self.require(context, Action::Delete, repository)?;
        let stamp = self.stamp(context);
        match reference {
            Reference::Tag(tag) => {
                let current = self.catalogue.find_tag(repository, tag).await?;
                self.policy_of(repository).await?.require_mutable(tag, current.as_ref(), None)?;
                self.commit(self.catalogue.delete_tag(repository, tag, &stamp)).await?;
                Ok(vec![tag.clone()])
            }
            Reference::Digest(digest) => {
                self.require_no_immutable_tag(repository, digest).await?;
                self.commit(self.catalogue.delete_manifest(repository, digest, &stamp)).await
            }
        }
    }

    /// Fails where a tag that may not be deleted points to the manifest.
    async fn require_no_immutable_tag(&self, repository: &RepositoryName, digest: &Digest) -> Result<()> {
        let allowed = self.policy_of(repository).await?;
        let mut last: Option<Tag> = None;
        while !allowed.immutable_tags.is_empty() {
            let states = self.catalogue.list_tag_states(repository, last.as_ref(), PAGE).await?;
            for state in states.iter().filter(|state| state.digest == *digest) {
                allowed.require_mutable(&state.tag, Some(digest), None)?;
            }
            if states.len() < PAGE as usize {
                break;
            }
            last = states.last().map(|state| state.tag.clone());
        }
        Ok(())
    }

    /// Takes a blob from the repository. Its bytes stay for the grace time of the collection.
    pub async fn delete_blob(
        &self,
        context: &RequestContext,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<()> {
        self.require(context, Action::Delete, repository)?;
        self.commit(self.catalogue.delete_blob(repository, digest)).await
    }
}

/// How many tags are looked at at once.
const PAGE: u32 = 1000;
