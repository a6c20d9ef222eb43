//! Use cases: what there is in hosted repositories.

use super::{Hosting, Result};
use crate::auth::RequestContext;
use crate::auth::policy::Action;
use crate::metadata::catalogue::{CatalogueError, Presence, Referrer};
use crate::oci::{Digest, RepositoryName, Tag};

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The items, in order.
    pub items: Vec<T>,
    /// Whether there are more behind the last.
    pub has_more: bool,
}

/// One page of what refers to a manifest.
pub type ReferrerPage = Page<Referrer>;

impl<T> Page<T> {
    /// Makes a page of at most `limit` items of what was asked for with one item more.
    fn of(mut items: Vec<T>, limit: u32) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let has_more = items.len() > limit;
        items.truncate(limit);
        Self { items, has_more }
    }
}

impl Hosting {
    /// Lists the tags of a repository in lexical order, from behind `last`, which need not be there.
    pub async fn list_tags(
        &self,
        context: &RequestContext,
        repository: &RepositoryName,
        last: Option<&Tag>,
        limit: u32,
    ) -> Result<Page<Tag>> {
        self.require(context, Action::Pull, repository)?;
        let tags = self.catalogue.list_tags(repository, last, limit.saturating_add(1)).await?;
        if tags.is_empty() && self.catalogue.find_repository(repository).await?.is_none() {
            return Err(CatalogueError::RepositoryUnknown.into());
        }
        Ok(Page::of(tags, limit))
    }

    /// Lists what refers to a manifest, which need not be there.
    pub async fn list_referrers(
        &self,
        context: &RequestContext,
        repository: &RepositoryName,
        subject: &Digest,
        artifact_type: Option<&str>,
        after: Option<&Digest>,
        limit: u32,
    ) -> Result<ReferrerPage> {
        self.require(context, Action::Pull, repository)?;
        let limit_and_one = limit.saturating_add(1);
        let referrers =
            self.catalogue.list_referrers(repository, subject, artifact_type, after, limit_and_one).await?;
        Ok(Page::of(referrers, limit))
    }

    /// Lists the repositories that the actor may pull from, in the order of their names.
    pub async fn list_repositories(
        &self,
        context: &RequestContext,
        after: Option<&RepositoryName>,
        limit: u32,
    ) -> Result<Page<RepositoryName>> {
        let mut names = Vec::new();
        let mut after = after.cloned();
        loop {
            let page = self.catalogue.list_repositories(Presence::Live, after.as_ref(), SCAN).await?;
            let is_last = page.len() < SCAN as usize;
            after = page.last().map(|place| place.name.clone());
            let shown = page.into_iter().map(|place| place.name);
            names.extend(shown.filter(|name| self.require(context, Action::Pull, name).is_ok()));
            if is_last || names.len() as u64 > u64::from(limit) {
                return Ok(Page::of(names, limit));
            }
        }
    }
}

/// How many repositories are looked at at once.
const SCAN: u32 = 1000;
