//! Use cases: lists of tags, of referrers, of repositories.
//!
//! Listings come from upstream and are kept briefly; while upstream is away, the last ones seen serve.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::core::Core;
use super::freshness::{Verdict, judge};
use super::memory::Question;
use super::referrers;
use super::{
    CacheResult, ReferrerList, RegistryError, Repository, RepositoryList, Served, Staleness, TagList,
};
use crate::auth::{RequestContext, policy};
use crate::metadata::{Listing, ListingKind};
use crate::oci::{Digest, NextPage};
use crate::runtime::Joined;
use crate::upstream::UpstreamError;

/// What upstream answered, for all who asked the same.
pub(super) type Answer = Result<Arc<Page>, UpstreamError>;

/// The largest `n` that ECR takes.
const ECR_PAGE_LIMIT: u64 = 1000;

/// One page of a listing, as kept in the index.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Page {
    pub(super) content: Content,
    /// The query of the next page.
    pub(super) next: Option<Vec<(String, String)>>,
}

/// What a page holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Content {
    Tags(Vec<String>),
    Referrers { index: String, filtered: bool },
}

/// Lists tags; see [`super::Registry::list_tags`].
pub(super) async fn tags(
    core: &Arc<Core>,
    context: &RequestContext,
    repository: &Repository,
    query: &[(String, String)],
) -> Result<TagList, RegistryError> {
    policy::require(context, policy::Action::Pull)?;
    if query.iter().any(|(name, value)| name == "n" && value == "0") {
        let served = Served::new(CacheResult::Hit, &repository.id.upstream);
        return Ok(TagList { tags: Vec::new(), next: None, served });
    }
    let endpoints = &repository.upstream.config().endpoints;
    let hosts: Vec<_> = endpoints.iter().filter_map(|endpoint| endpoint.host()).collect();
    let query = clamp_page(&hosts, query);
    let lookup = Lookup { core, repository, subject: Subject::Tags, query };
    let (page, served) = match lookup.find().await {
        Ok(found) => found,
        Err(error) if error.is_transient() => match observed_tags(core, repository, &error).await {
            Some(found) => found,
            None => return Err(RegistryError::from_listing(error, &repository.id)),
        },
        Err(error) => return Err(RegistryError::from_listing(error, &repository.id)),
    };
    match &page.content {
        Content::Tags(tags) => Ok(TagList { tags: tags.clone(), next: page.next.clone(), served }),
        Content::Referrers { .. } => Err(RegistryError::Internal),
    }
}

/// Lists referrers; see [`super::Registry::list_referrers`].
pub(super) async fn referrers(
    core: &Arc<Core>,
    context: &RequestContext,
    repository: &Repository,
    digest: &Digest,
    query: &[(String, String)],
) -> Result<ReferrerList, RegistryError> {
    policy::require(context, policy::Action::Pull)?;
    let lookup = Lookup { core, repository, subject: Subject::Referrers(*digest), query: query.to_vec() };
    match lookup.find().await {
        Ok((page, served)) => match &page.content {
            Content::Referrers { index, filtered } => Ok(ReferrerList {
                body: Bytes::from(index.clone()),
                filtered: *filtered,
                next: page.next.clone(),
                served,
            }),
            Content::Tags(_) => Err(RegistryError::Internal),
        },
        Err(UpstreamError::Absent { .. }) => {
            referrers::by_tag(core, context, repository, digest, query).await
        }
        Err(error) => {
            // While upstream is away it cannot say that it has no such list; the tag may be kept all the same. That
            // it is not says nothing: the answer then tells why upstream could not.
            if error.is_transient()
                && let Ok(list) = referrers::by_tag(core, context, repository, digest, query).await
            {
                return Ok(list);
            }
            Err(RegistryError::from_upstream(error, || RegistryError::ManifestUnknown(digest.to_string())))
        }
    }
}

/// Lists repositories; see [`super::Registry::list_repositories`].
pub(super) async fn repositories(
    core: &Arc<Core>,
    context: &RequestContext,
    last: Option<&str>,
    limit: u32,
) -> Result<RepositoryList, RegistryError> {
    policy::require(context, policy::Action::List)?;
    let names = core.names.load_full();
    let after = last.and_then(|last| names.read_client_name(last));
    // One more than asked for tells whether there are more.
    let mut found = core.index.list_repositories(after.as_ref(), limit.saturating_add(1)).await?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = found.len() > limit;
    found.truncate(limit);
    Ok(RepositoryList { names: found.iter().map(|id| names.client_name(id)).collect(), more })
}

#[derive(Clone)]
enum Subject {
    Tags,
    Referrers(Digest),
}

struct Lookup<'a> {
    core: &'a Arc<Core>,
    repository: &'a Repository,
    subject: Subject,
    query: Vec<(String, String)>,
}

impl Lookup<'_> {
    /// Finds a page: kept and fresh, from upstream, or kept and stale.
    async fn find(&self) -> Result<(Arc<Page>, Served), UpstreamError> {
        let clocks = self.repository.upstream.config().freshness;
        let name = &self.repository.id.upstream;
        let kept = self.find_kept().await;
        if let Some((page, listing)) = &kept
            && judge(self.core.clock.now(), listing.fetched_at, &clocks) == Verdict::Fresh
        {
            return Ok((Arc::clone(page), Served::new(CacheResult::Hit, name)));
        }
        match (self.ask().await, kept) {
            (Ok(Joined::Led(page)), _) => {
                Ok((page, Served { stored: true, ..Served::new(CacheResult::Miss, name) }))
            }
            (Ok(Joined::Followed(page)), _) => {
                Ok((page, Served { stored: true, ..Served::new(CacheResult::Collapsed, name) }))
            }
            (Err(error), Some((page, listing)))
                if error.is_transient()
                    && judge(self.core.clock.now(), listing.fetched_at, &clocks) != Verdict::AskOnly =>
            {
                let staleness = Staleness { checked_at: listing.fetched_at, error: Some(error.kind()) };
                let age = Some(self.core.clock.now().since(listing.fetched_at));
                let served =
                    Served { age, staleness: Some(staleness), ..Served::new(CacheResult::Stale, name) };
                Ok((page, served))
            }
            (Err(error), _) => Err(error),
        }
    }

    async fn find_kept(&self) -> Option<(Arc<Page>, Listing)> {
        let found = self.core.index.find_listing(&self.repository.id, self.kind(), &self.key()).await;
        let listing = self.core.or_nothing(found)?;
        let page = serde_json::from_slice(&listing.body).ok()?;
        Some((Arc::new(page), listing))
    }

    async fn ask(&self) -> Result<Joined<Arc<Page>>, UpstreamError> {
        let question = self.question();
        if let Some(error) = self.core.memory.find_failure(&question).await {
            return Err(error);
        }
        let (core, repository) = (Arc::clone(self.core), self.repository.clone());
        let (subject, query, kind, key) = (self.subject.clone(), self.query.clone(), self.kind(), self.key());
        let flight_key = (question.clone(), key.clone());
        let run = move || async move {
            let fetched = fetch(&repository, &subject, &query).await;
            match &fetched {
                Ok(page) => keep(&core, &repository, kind, &key, page).await,
                Err(error) if !error.is_transient() => {
                    let negative_for = repository.upstream.config().freshness.negative_for;
                    core.memory.remember_failure(question, error.clone(), negative_for).await;
                }
                Err(_) => {}
            }
            fetched.map(Arc::new)
        };
        match self.core.listing_flights.run(flight_key, run).await {
            Some(Joined::Led(answer)) => answer.map(Joined::Led),
            Some(Joined::Followed(answer)) => answer.map(Joined::Followed),
            None => Err(UpstreamError::Broken {
                upstream: self.repository.upstream.config().name.clone(),
                reason: "asking it ended in an internal fault".to_owned(),
            }),
        }
    }

    fn question(&self) -> Question {
        match &self.subject {
            Subject::Tags => Question::Tags(self.repository.id.clone()),
            Subject::Referrers(digest) => Question::Referrers(self.repository.id.clone(), *digest),
        }
    }

    const fn kind(&self) -> ListingKind {
        match self.subject {
            Subject::Tags => ListingKind::Tags,
            Subject::Referrers(_) => ListingKind::Referrers,
        }
    }

    /// Tells the pages of one repository apart: the subject and the query, both unambiguous as JSON.
    fn key(&self) -> String {
        let subject = match &self.subject {
            Subject::Tags => String::new(),
            Subject::Referrers(digest) => digest.to_string(),
        };
        serde_json::json!([subject, self.query]).to_string()
    }
}

async fn fetch(
    repository: &Repository,
    subject: &Subject,
    query: &[(String, String)],
) -> Result<Page, UpstreamError> {
    let next = |next: Option<NextPage>| next.map(|next| next.query);
    match subject {
        Subject::Tags => {
            let page = repository.upstream.fetch_tags(repository.name(), query).await?;
            Ok(Page { content: Content::Tags(page.tags), next: next(page.next) })
        }
        Subject::Referrers(digest) => {
            let page = repository.upstream.fetch_referrers(repository.name(), digest, query).await?;
            let index = String::from_utf8(page.body.into()).map_err(|_not_text| UpstreamError::Broken {
                upstream: repository.upstream.config().name.clone(),
                reason: "the list of referrers is not UTF-8".to_owned(),
            })?;
            Ok(Page { content: Content::Referrers { index, filtered: page.filtered }, next: next(page.next) })
        }
    }
}

async fn keep(core: &Core, repository: &Repository, kind: ListingKind, key: &str, page: &Page) {
    let Ok(body) = serde_json::to_vec(page) else { return };
    let listing = Listing { body, fetched_at: core.clock.now() };
    if let Err(error) = core.index.record_listing(&repository.id, kind, key, &listing).await {
        core.report_metadata(&error);
    }
}

/// The tags that were pulled through this node: better than nothing while upstream is away.
async fn observed_tags(
    core: &Core,
    repository: &Repository,
    error: &UpstreamError,
) -> Option<(Arc<Page>, Served)> {
    let tags = core.or_nothing(core.index.list_tags(&repository.id).await);
    if tags.is_empty() {
        return None;
    }
    let tags = tags.iter().map(ToString::to_string).collect();
    let staleness = Staleness { checked_at: crate::runtime::Timestamp::default(), error: Some(error.kind()) };
    let served =
        Served { staleness: Some(staleness), ..Served::new(CacheResult::Stale, &repository.id.upstream) };
    Some((Arc::new(Page { content: Content::Tags(tags), next: None }), served))
}

/// Keeps `n` within what ECR takes; it refuses larger ones, and its `Link` leads on all the same.
fn clamp_page(hosts: &[&str], query: &[(String, String)]) -> Vec<(String, String)> {
    let is_ecr = hosts.iter().any(|host| *host == "public.ecr.aws" || host.ends_with(".amazonaws.com"));
    let clamp = |(name, value): &(String, String)| {
        let too_many = is_ecr && name == "n" && value.parse().is_ok_and(|n: u64| n > ECR_PAGE_LIMIT);
        (name.clone(), if too_many { ECR_PAGE_LIMIT.to_string() } else { value.clone() })
    };
    query.iter().map(clamp).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checklist 88.
    #[test]
    fn pages_are_clamped_towards_ecr_and_nobody_else() {
        for (host, n, asked) in [
            ("public.ecr.aws", "10000", "1000"),
            ("1.dkr.ecr.eu-west-1.amazonaws.com", "1001", "1000"),
            ("public.ecr.aws", "1000", "1000"),
            ("registry-1.docker.io", "10000", "10000"),
        ] {
            let query = [("n".to_owned(), n.to_owned()), ("last".to_owned(), "20000".to_owned())];
            let clamped = clamp_page(&[host], &query);
            let expected = [("n".to_owned(), asked.to_owned()), ("last".to_owned(), "20000".to_owned())];
            assert_eq!(clamped, expected, "{host}");
        }
    }
}
