//! Use cases: a client pulls from a hosted repository.

use super::{HostedContent, Hosting, HostingError, Result};
use crate::auth::RequestContext;
use crate::auth::policy::Action;
use crate::metadata::catalogue::{BlobRecord, CatalogueError, ManifestRecord};
use crate::oci::{Digest, RangeSet, Reference, RepositoryName, Tag};

/// A manifest of a hosted repository.
pub type HostedManifest = ManifestRecord;

impl Hosting {
    /// Finds a manifest by tag or digest.
    ///
    /// Errors: the actor may not; the repository has no such manifest; the catalogue failed.
    pub async fn pull_manifest(
        &self,
        context: &RequestContext,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<HostedManifest> {
        self.require(context, Action::Pull, repository)?;
        let digest = match reference {
            Reference::Digest(digest) => *digest,
            Reference::Tag(tag) => match self.catalogue.find_tag(repository, tag).await? {
                Some(digest) => digest,
                None => return Err(self.explain_missing(repository, tag).await?),
            },
        };
        let found = self.catalogue.find_manifest(repository, &digest).await?;
        let found = found.ok_or(CatalogueError::ManifestUnknown)?;
        self.note_use(repository, &digest);
        Ok(found)
    }

    /// Why there is no such tag: of one that was deleted, how it comes back.
    async fn explain_missing(&self, repository: &RepositoryName, tag: &Tag) -> Result<HostingError> {
        Ok(match self.find_deleted_tag(repository, tag).await? {
            Some(deleted) => HostingError::Deleted {
                repository: repository.clone(),
                tag: tag.clone(),
                deleted: Box::new(deleted),
            },
            None => CatalogueError::ManifestUnknown.into(),
        })
    }

    /// Finds a blob without opening it.
    pub async fn stat_blob(
        &self,
        context: &RequestContext,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<BlobRecord> {
        self.require(context, Action::Pull, repository)?;
        let found = self.catalogue.find_blob(repository, digest).await?;
        let found = found.ok_or(CatalogueError::BlobUnknown(*digest))?;
        // Who hears that it is here may not push it again.
        self.note_use(repository, digest);
        Ok(found)
    }

    /// The URL at the store by which a client that may pull a blob gets it by itself; `None` where clients are sent nowhere.
    pub async fn find_redirect(
        &self,
        context: &RequestContext,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<String>> {
        let Some(valid_for) = self.redirect_for else { return Ok(None) };
        self.stat_blob(context, repository, digest).await?;
        Ok(self.store.presign(digest, valid_for).await?)
    }

    /// Opens a blob. `ranges` is what the client will read of it; `None` is all.
    pub async fn open_blob(
        &self,
        context: &RequestContext,
        repository: &RepositoryName,
        digest: &Digest,
        ranges: Option<&RangeSet>,
    ) -> Result<HostedContent> {
        let record = self.stat_blob(context, repository, digest).await?;
        self.open_content(digest, record.size_bytes, ranges).await
    }
}
