//! Use cases: an administrator looks at what is cached, and purges it.

mod purge;

use std::sync::Arc;
use std::time::Duration;

pub use purge::{PurgeOrder, Purged};

pub(super) use purge::run as purge;

use super::RegistryError;
use super::core::Core;
use crate::auth::{RequestContext, policy};
use crate::metadata::{ContentKind, ContentRecord, HoldingFilter, RepositoryId};
use crate::oci::{Digest, Tag};
use crate::registry::Spelling;
use crate::runtime::Timestamp;

/// Which holdings are asked for: those that agree with every part that is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HoldingQuery {
    /// Only of this upstream, by name or alias.
    pub upstream: Option<String>,
    /// Only of this repository, as any client can spell it.
    pub repository: Option<String>,
    /// Only what this tag was last seen at.
    pub tag: Option<Tag>,
    /// Only this content.
    pub digest: Option<Digest>,
    /// Only blobs, or only manifests.
    pub kind: Option<ContentKind>,
    /// Only what was stored so long ago, or longer.
    pub stored_for: Option<Duration>,
    /// Only what was not used for so long, or longer.
    pub unused_for: Option<Duration>,
    /// Only what has so many bytes or more.
    pub least_bytes: Option<u64>,
}

/// Stored content as one repository has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldContent {
    /// The repository, as any client can spell it: `docker.io/library/nginx`.
    pub repository: String,
    /// The content.
    pub content: ContentRecord,
    /// The repository's tags that were last seen at it.
    pub tags: Vec<Tag>,
    /// When its bytes were last compared with its digest; `None` for what was found on the disk and never looked at.
    pub verified_at: Option<Timestamp>,
    /// Whether a pin covers the content.
    pub is_pinned: bool,
}

/// A page of holdings, in order of repositories and digests.
#[derive(Clone, Debug)]
pub struct HoldingList {
    /// The holdings.
    pub holdings: Vec<HeldContent>,
    /// What the next page begins after; `None` at the end.
    pub next: Option<String>,
}

/// How much is cached, and how much may be.
#[derive(Clone, Debug)]
pub struct CacheStats {
    /// The sums of each upstream that is configured or of which something is known. What several
    /// repositories share counts once for each upstream.
    pub upstreams: Vec<HoldingSums>,
    /// The sums of everything, each content once; also of what no repository has shown to have yet.
    pub total: HoldingSums,
    /// The budget of `total.bytes`.
    pub budget_bytes: u64,
    /// How many pins there are.
    pub pins: u64,
    /// How much of the disk is to stay free.
    pub min_free_bytes: u64,
    /// How much of the disk is free; `None` where it does not say.
    pub free_bytes: Option<u64>,
}

/// The sums of an upstream, or of everything.
pub use crate::metadata::UpstreamHoldings as HoldingSums;

/// Sums up what is cached; see [`super::Registry::cache_stats`].
pub(super) async fn stats(core: &Core, context: &RequestContext) -> Result<CacheStats, RegistryError> {
    policy::require(context, policy::Action::List)?;
    let mut upstreams = core.index.sum_holdings().await?;
    let total = upstreams.pop().unwrap_or_default();
    for upstream in core.names.load().upstreams() {
        let name = &upstream.config().name;
        if !upstreams.iter().any(|sums| sums.upstream == *name) {
            upstreams.push(HoldingSums { upstream: name.clone(), ..HoldingSums::default() });
        }
    }
    upstreams.sort_by(|one, other| one.upstream.cmp(&other.upstream));
    let space = core.blobs.space().await.ok();
    Ok(CacheStats {
        upstreams,
        total,
        pins: core.index.sum_pinned().await?.pins,
        budget_bytes: core.evictor.budget_bytes(),
        min_free_bytes: core.evictor.min_free_bytes(space),
        free_bytes: space.map(|space| space.free_bytes),
    })
}

/// Lists holdings; see [`super::Registry::list_holdings`].
pub(super) async fn list(
    core: &Core,
    context: &RequestContext,
    query: &HoldingQuery,
    last: Option<&str>,
    limit: u32,
) -> Result<HoldingList, RegistryError> {
    policy::require(context, policy::Action::List)?;
    let names = core.names.load_full();
    let after = match last {
        None => None,
        Some(last) => {
            let place = last.rsplit_once('@').and_then(|(name, digest)| {
                Some((names.read_client_name(name)?, digest.parse::<Digest>().ok()?))
            });
            Some(place.ok_or_else(|| RegistryError::NameInvalid(format!("{last} ended no page")))?)
        }
    };
    let filter = resolve(core, query).await?;
    let after = after.as_ref().map(|(id, digest)| (id, digest));
    let found = core.index.list_holdings(&filter, after, limit).await?;
    let is_full = found.len() >= usize::try_from(limit).unwrap_or(usize::MAX);
    let next = found
        .last()
        .filter(|_| is_full)
        .map(|last| format!("{}@{}", names.client_name(&last.repository), last.content.digest));
    let held = found.into_iter().map(|holding| HeldContent {
        repository: names.client_name(&holding.repository),
        content: holding.content,
        tags: holding.tags,
        verified_at: holding.verified_at,
        is_pinned: holding.is_pinned,
    });
    Ok(HoldingList { holdings: held.collect(), next })
}

/// Finds what the names of a query mean. Registries count that are configured, and that were.
pub(super) async fn resolve(core: &Core, query: &HoldingQuery) -> Result<HoldingFilter, RegistryError> {
    let now = core.clock.now();
    let ago = |span: Duration| {
        let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        Timestamp::from_millis(now.as_millis().saturating_sub(millis))
    };
    let upstream = match &query.upstream {
        None => None,
        Some(host) => Some(find_upstream(core, host).await?),
    };
    let repository = match &query.repository {
        None => None,
        Some(name) => Some(find_repository(core, name).await?),
    };
    Ok(HoldingFilter {
        upstream,
        repository,
        tag: query.tag.clone(),
        digest: query.digest,
        kind: query.kind,
        stored_by: query.stored_for.map(ago),
        unused_since: query.unused_for.map(ago),
        least_bytes: query.least_bytes,
    })
}

async fn find_upstream(core: &Core, host: &str) -> Result<Arc<str>, RegistryError> {
    if let Some(upstream) = core.names.load().find_upstream(host) {
        return Ok(upstream.config().name.as_str().into());
    }
    if core.index.list_known_repositories(Some(host)).await?.is_empty() {
        return Err(RegistryError::UnknownRegistry(host.to_owned()));
    }
    Ok(host.into())
}

/// Finds the repository that a name means; also one that may not be pulled any more, if it is known.
pub(super) async fn find_repository(core: &Core, name: &str) -> Result<RepositoryId, RegistryError> {
    let names = core.names.load_full();
    let error = match names.resolve(&Spelling { ns: None, prefix: None, name, own_hosts: &[] }) {
        Ok(repository) => return Ok(repository.id),
        Err(error) => error,
    };
    // What may not be pulled any more, or whose registry is gone, can still be looked at and purged.
    let Some(id) = names.read_client_name(name) else { return Err(error) };
    if core.index.list_known_repositories(Some(&id.upstream)).await?.contains(&id) {
        Ok(id)
    } else {
        Err(error)
    }
}
