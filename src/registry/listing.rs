//! Use cases: lists of tags, of referrers, of repositories.
//!
//! Listings come from upstream and are kept briefly; while upstream is away, the last ones seen serve.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::core::Core;
use super::freshness::{Verdict, judge};
use super::memory::Question;
use super::patience;
use super::referrers;
use super::together;
use super::{
    CacheResult, ReferrerList, RegistryError, Repository, RepositoryList, Served, StaleCause, Staleness,
    TagList,
};
use crate::auth::{RequestContext, policy};
use crate::metadata::{Listing, ListingKind};
use crate::oci::{Digest, Manifest, MediaType, NextPage, Tag};
use crate::runtime::{Joined, Timestamp};
use crate::upstream::{Priority, UpstreamError, Urgency};

/// What upstream answered, for all who asked the same.
pub(super) type Answer = Result<Arc<Page>, UpstreamError>;

/// The parameter of a query that asks for one type of referrers.
const ARTIFACT_TYPE: &str = "artifactType";

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
    let lookup = Lookup::new(core, context, repository, Subject::Tags, query);
    let (page, served) = match lookup.find().await {
        Ok(found) => found,
        Err(error) if error.is_transient() => match observed_tags(&lookup, &error).await {
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
    let lookup = Lookup::new(core, context, repository, Subject::Referrers(*digest), query.to_vec());
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
        Err(UpstreamError::Absent { .. } | UpstreamError::Withheld { .. }) => {
            referrers::by_tag(core, context, repository, digest, query).await
        }
        Err(error) => {
            if error.is_transient()
                && let Some(list) = lookup.filter_kept(&error).await
            {
                return Ok(list);
            }
            // While upstream is away it cannot say that it has no such list; the tag may be kept all the same. That
            // it is not says nothing: the answer then tells why upstream could not.
            if error.is_transient()
                && let Some(list) = referrers::by_known_tag(core, repository, digest, query, &error).await
            {
                return Ok(list);
            }
            Err(RegistryError::from_referrers(error, digest))
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

/// What could be served without asking.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kept {
    Nothing,
    Page,
}

#[derive(Clone)]
struct Lookup {
    core: Arc<Core>,
    /// How urgent it is where nothing is kept.
    priority: Priority,
    repository: Repository,
    subject: Subject,
    query: Vec<(String, String)>,
}

impl Lookup {
    fn new(
        core: &Arc<Core>,
        context: &RequestContext,
        repository: &Repository,
        subject: Subject,
        query: Vec<(String, String)>,
    ) -> Self {
        let priority = patience::priority_of(context);
        Self { core: Arc::clone(core), priority, repository: repository.clone(), subject, query }
    }

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
        let Some((page, listing)) = kept else {
            return match patience::for_a_miss(&self.repository, self.ask(Kept::Nothing)).await?? {
                Joined::Led(page) => Ok((page, self.fetched(CacheResult::Miss))),
                Joined::Followed(page) => Ok((page, self.fetched(CacheResult::Collapsed))),
            };
        };
        match self.ask_for_news().await {
            Ok(Joined::Led(page)) => Ok((page, self.fetched(CacheResult::Miss))),
            Ok(Joined::Followed(page)) => Ok((page, self.fetched(CacheResult::Collapsed))),
            Err(error) => {
                let is_too_old =
                    judge(self.core.clock.now(), listing.fetched_at, &clocks) == Verdict::AskOnly;
                let is_offline = matches!(error, UpstreamError::Offline { .. });
                if is_offline || error.is_transient() && !is_too_old {
                    return Ok((page, self.stale(Some(listing.fetched_at), &error)));
                }
                Err(error)
            }
        }
    }

    /// Takes the referrers of one artifact type from the kept page of all: upstream, which would filter them,
    /// just failed with `error`.
    async fn filter_kept(&self, error: &UpstreamError) -> Option<ReferrerList> {
        let (filter, rest): (Vec<_>, Vec<_>) =
            self.query.iter().cloned().partition(|(name, _)| name == ARTIFACT_TYPE);
        let (_, artifact_type) = filter.first()?;
        let all = Self { query: rest, ..self.clone() };
        let (page, listing) = all.find_kept().await?;
        let clocks = self.repository.upstream.config().freshness;
        let is_too_old = judge(self.core.clock.now(), listing.fetched_at, &clocks) == Verdict::AskOnly;
        let is_offline = matches!(error, UpstreamError::Offline { .. });
        // Of a page of several, the others would be missing.
        if is_too_old && !is_offline || page.next.is_some() {
            return None;
        }
        let Content::Referrers { index, .. } = &page.content else { return None };
        let body = referrers::filter(&Bytes::from(index.clone()), artifact_type)?;
        let served = self.stale(Some(listing.fetched_at), error);
        Some(ReferrerList { body, filtered: true, next: None, served })
    }

    /// Asks briefly; while upstream is in trouble, in the background.
    async fn ask_for_news(&self) -> Result<Joined<Arc<Page>>, UpstreamError> {
        let question = self.question();
        if let Some(trouble) = self.core.memory.find_trouble(&question).await {
            if trouble.is_due {
                let lookup = self.clone();
                // One question for all who are served meanwhile; what it finds is kept, or remembered.
                self.core.tasks.spawn(async move { drop(lookup.ask(Kept::Page).await) });
            }
            return Err(trouble.error);
        }
        match patience::for_news(&self.repository, self.ask(Kept::Page)).await {
            Ok(answer) => answer,
            Err(slow) => {
                self.core.memory.remember_failure(question, slow.clone(), Duration::ZERO).await;
                Err(slow)
            }
        }
    }

    fn fetched(&self, result: CacheResult) -> Served {
        Served { stored: true, ..Served::new(result, &self.repository.id.upstream) }
    }

    fn stale(&self, fetched_at: Option<Timestamp>, error: &UpstreamError) -> Served {
        let staleness = Staleness { checked_at: fetched_at, cause: StaleCause::of(error) };
        Served {
            age: fetched_at.map(|fetched_at| self.core.clock.now().since(fetched_at)),
            staleness: Some(staleness),
            ..Served::new(CacheResult::Stale, &self.repository.id.upstream)
        }
    }

    async fn find_kept(&self) -> Option<(Arc<Page>, Listing)> {
        let found = self.core.index.find_listing(&self.repository.id, self.kind(), &self.key()).await;
        let listing = self.core.or_nothing(found)?;
        let page = serde_json::from_slice(&listing.body).ok()?;
        Some((Arc::new(page), listing))
    }

    async fn ask(&self, kept: Kept) -> Result<Joined<Arc<Page>>, UpstreamError> {
        let question = self.question();
        if let Some(error) =
            self.core.memory.find_failure(&question).await.filter(|error| !error.is_transient())
        {
            return Err(error);
        }
        let priority = match kept {
            Kept::Nothing => self.priority,
            Kept::Page => self.priority.max(Priority::Revalidation),
        };
        let run = || {
            let lookup = self.clone();
            async move { lookup.ask_upstream(kept, priority).await }
        };
        let key = (question, self.key());
        let upstream = &self.repository.id.upstream;
        together::ask(&self.core.listing_flights, key, upstream, priority, run).await
    }

    async fn ask_upstream(&self, kept: Kept, priority: Priority) -> Answer {
        let (core, repository, urgency) = (&self.core, &self.repository, Urgency::fixed(priority));
        let mut fetched = fetch(&urgency, repository, &self.subject, &self.query).await;
        if let (Kept::Page, Err(error)) = (kept, &fetched) {
            let weighed = repository.upstream.weigh_refusal(&urgency, repository.name(), error.clone()).await;
            fetched = Err(weighed);
        }
        match &fetched {
            Ok(page) => {
                keep(core, repository, self.kind(), &self.key(), page).await;
                core.memory.forget_failure(&self.question()).await;
            }
            // Known without asking; clients that ask the same may be let through.
            Err(
                UpstreamError::Offline { .. } | UpstreamError::Reserved { priority: Priority::Ahead, .. },
            ) => {}
            Err(error) => {
                let negative_for = repository.upstream.config().freshness.negative_for;
                core.memory.remember_failure(self.question(), error.clone(), negative_for).await;
            }
        }
        fetched.map(Arc::new)
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
    urgency: &Urgency,
    repository: &Repository,
    subject: &Subject,
    query: &[(String, String)],
) -> Result<Page, UpstreamError> {
    let next = |next: Option<NextPage>| next.map(|next| next.query);
    match subject {
        Subject::Tags => {
            let page = repository.upstream.fetch_tags(urgency, repository.name(), query).await?;
            Ok(Page { content: Content::Tags(page.tags), next: next(page.next) })
        }
        Subject::Referrers(digest) => {
            let page = repository.upstream.fetch_referrers(urgency, repository.name(), digest, query).await?;
            let index = String::from_utf8(page.body.into()).map_err(|_not_text| UpstreamError::Broken {
                upstream: repository.upstream.config().name.clone(),
                reason: "the list of referrers is not UTF-8".to_owned(),
            })?;
            Ok(Page { content: Content::Referrers { index, filtered: page.filtered }, next: next(page.next) })
        }
    }
}

/// A page of referrers as upstream would give it, with its key: from somewhere else than upstream.
pub(super) fn referrers_page(
    subject: &Digest,
    descriptors: &[serde_json::Value],
    fetched_at: Timestamp,
) -> Option<(String, Listing)> {
    let index = serde_json::json!({ "schemaVersion": 2, "mediaType": MediaType::OCI_INDEX.as_str(), "manifests": descriptors });
    let content = Content::Referrers { index: index.to_string(), filtered: false };
    let body = serde_json::to_vec(&Page { content, next: None }).ok()?;
    let query: [(String, String); 0] = [];
    Some((serde_json::json!([subject.to_string(), query]).to_string(), Listing { body, fetched_at }))
}

/// Reads a kept page of referrers: what they refer to, and their digests.
pub(super) fn read_referrers(key: &str, listing: &Listing) -> Option<(Digest, Vec<Digest>)> {
    let (subject, _query): (String, Vec<(String, String)>) = serde_json::from_str(key).ok()?;
    let page: Page = serde_json::from_slice(&listing.body).ok()?;
    let Content::Referrers { index, .. } = page.content else { return None };
    let listed = Manifest::parse(index.as_bytes()).ok()?.manifests;
    Some((subject.parse().ok()?, listed.into_iter().map(|referrer| referrer.digest).collect()))
}

async fn keep(core: &Core, repository: &Repository, kind: ListingKind, key: &str, page: &Page) {
    let Ok(body) = serde_json::to_vec(page) else { return };
    let listing = Listing { body, fetched_at: core.clock.now() };
    if let Err(error) = core.index.record_listing(&repository.id, kind, key, &listing).await {
        core.report_metadata(&error);
    }
    core.images.note_change();
}

/// The tags that were pulled through this node: better than nothing while upstream is away.
async fn observed_tags(lookup: &Lookup, error: &UpstreamError) -> Option<(Arc<Page>, Served)> {
    let found = lookup.core.index.list_tags(&lookup.repository.id).await;
    let tags = lookup.core.or_nothing(found);
    if tags.is_empty() {
        return None;
    }
    let page = paginate(tags.iter().map(Tag::as_str), &lookup.query);
    Some((Arc::new(page), lookup.stale(None, error)))
}

/// The page that `n` and `last` ask for, of tags in lexical order.
fn paginate<'a>(tags: impl Iterator<Item = &'a str>, query: &[(String, String)]) -> Page {
    let find = |name: &str| query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let limit = find("n").and_then(|n| n.parse().ok()).unwrap_or(usize::MAX);
    let mut rest = tags.filter(|tag| find("last").is_none_or(|last| *tag > last));
    let tags: Vec<_> = rest.by_ref().take(limit).map(str::to_owned).collect();
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let has_more = rest.next().is_some();
    let next =
        tags.last().filter(|_| has_more).map(|last| vec![pair("n", &limit.to_string()), pair("last", last)]);
    Page { content: Content::Tags(tags), next }
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

    #[test]
    fn observed_tags_come_in_the_pages_that_are_asked_for() {
        let page = |query: &[(&str, &str)]| {
            let query: Vec<_> = query.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
            let page = paginate(["1", "2", "3"].into_iter(), &query);
            let Content::Tags(tags) = page.content else { panic!("no tags") };
            let next = page.next.map(|next| next.iter().map(|(a, b)| format!("{a}={b}")).collect::<Vec<_>>());
            (tags.join(","), next.map(|next| next.join("&")))
        };
        assert_eq!(page(&[]), ("1,2,3".to_owned(), None));
        assert_eq!(page(&[("n", "2")]), ("1,2".to_owned(), Some("n=2&last=2".to_owned())));
        assert_eq!(page(&[("n", "2"), ("last", "2")]), ("3".to_owned(), None));
        assert_eq!(page(&[("n", "3")]), ("1,2,3".to_owned(), None));
        assert_eq!(page(&[("last", "9")]), (String::new(), None));
    }

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
