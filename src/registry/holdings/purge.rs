//! Use case: an administrator purges content, exactly what a query says.
//!
//! What a repository is to lose is chosen first, then forgotten, and at last removed where no other
//! repository has it. Crashed in between, there is content that nobody has shown to have, which eviction
//! removes in its time; never the other way round.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{HoldingQuery, resolve};
use crate::auth::{RequestContext, policy};
use crate::events::Event;
use crate::metadata::{ContentKind, ContentRecord, Forgotten, HoldingFilter, RepositoryId};
use crate::oci::{Digest, Tag};
use crate::registry::RegistryError;
use crate::registry::core::Core;
use crate::registry::image::Catalogue;

/// How many holdings are read at once.
const PAGE: u32 = 1000;

/// What is to be purged.
#[derive(Clone, Debug, Default)]
pub struct PurgeOrder {
    /// Which holdings. One that says nothing means everything.
    pub query: HoldingQuery,
    /// Whether only to tell what would be purged.
    pub dry_run: bool,
}

/// What was purged, or would be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    /// Holdings that their repositories lost.
    pub holdings: u64,
    /// Tags that were forgotten.
    pub tags: u64,
    /// Manifests removed from the disk.
    pub manifests: u64,
    /// Blobs removed from the disk.
    pub blobs: u64,
    /// The bytes of both.
    pub bytes: u64,
    /// Content that stays because something that was not chosen uses it.
    pub shared: u64,
    /// Its bytes.
    pub shared_bytes: u64,
    /// Content that stays because it is pinned.
    pub pinned: u64,
    /// Its bytes.
    pub pinned_bytes: u64,
    /// Content that the disk would not let go.
    pub stuck: u64,
}

/// Purges; see [`crate::registry::Registry::purge`].
pub(in crate::registry) async fn run(
    core: &Core,
    context: &RequestContext,
    order: &PurgeOrder,
) -> Result<Purged, RegistryError> {
    policy::require(context, policy::Action::Delete)?;
    // What is in use right now must not look unused.
    core.uses.flush().await?;
    let filter = resolve(core, &order.query).await?;
    // What is pinned meanwhile is pinned after.
    let _turn = core.pin_turn.acquire().await;
    let pinned = core.index.list_pinned_content().await?.into_iter().collect();
    let mut selection = Selection { pinned, ..Selection::default() };
    if is_wide(&filter) {
        selection.choose_whole(core, &filter).await?;
    } else {
        selection.choose(core, &filter).await?;
    }
    let (removed, mut purged) = selection.judge(core).await?;
    if order.dry_run {
        return Ok(purged);
    }
    selection.forget(core).await?;
    tell_everybody(core).await;
    let (_evicted, stuck) = core.evictor.purge(removed).await?;
    // Once more: who read before and was slow may have remembered after.
    tell_everybody(core).await;
    purged.stuck = stuck;
    tracing::info!(
        purged.holdings = purged.holdings,
        purged.tags = purged.tags,
        purged.manifests = purged.manifests,
        purged.blobs = purged.blobs,
        purged.bytes = purged.bytes,
        "content was purged by the administrator",
    );
    Ok(purged)
}

async fn tell_everybody(core: &Core) {
    core.memory.forget_all();
    core.images.note_change();
    core.events.publish(Event::Purged).await;
}

/// Whether whole repositories are meant, with all that is known of them.
fn is_wide(filter: &HoldingFilter) -> bool {
    let HoldingFilter { upstream, repository, .. } = filter;
    let wide = HoldingFilter {
        upstream: upstream.clone(),
        repository: repository.clone(),
        ..HoldingFilter::default()
    };
    *filter == wide
}

/// What is to go.
#[derive(Default)]
struct Selection {
    /// The content that each repository loses.
    chosen: BTreeMap<RepositoryId, BTreeSet<Digest>>,
    /// What it is to forget of it; `None` is everything.
    forgotten: BTreeMap<RepositoryId, Option<Forgotten>>,
    records: HashMap<Digest, ContentRecord>,
    /// Content that is not chosen because another tag points to it, or a manifest that stays uses it.
    used_otherwise: BTreeSet<Digest>,
    /// All that any pin covers.
    pinned: BTreeSet<Digest>,
    /// What of it would have been chosen, with its bytes.
    spared: BTreeMap<Digest, u64>,
    tags: u64,
}

impl Selection {
    async fn choose_whole(&mut self, core: &Core, filter: &HoldingFilter) -> Result<(), RegistryError> {
        self.find_chosen(core, filter).await?;
        let repositories = match &filter.repository {
            Some(id) => vec![id.clone()],
            None => core.index.list_known_repositories(filter.upstream.as_deref()).await?,
        };
        for id in repositories {
            self.forget_whole(core, id).await?;
        }
        if *filter != HoldingFilter::default() {
            return Ok(());
        }
        // Everything: also what no repository has shown to have.
        let mut after = None;
        loop {
            let page = core.index.list_content(after.as_ref(), PAGE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.digest);
            let free = page.into_iter().filter(|record| !self.pinned.contains(&record.digest));
            self.records.extend(free.map(|record| (record.digest, record)));
        }
    }

    /// A repository is forgotten but for what is pinned of it.
    async fn forget_whole(&mut self, core: &Core, id: RepositoryId) -> Result<(), RegistryError> {
        let tagged = core.index.list_tagged(&id).await?;
        let pinned: BTreeSet<_> = tagged
            .iter()
            .filter(|(_, digest)| self.pinned.contains(digest))
            .map(|(tag, _)| tag.as_str())
            .collect();
        let mut tags: Vec<Tag> =
            tagged.iter().map(|(tag, _)| tag).filter(|tag| !pinned.contains(tag.as_str())).cloned().collect();
        tags.dedup();
        self.tags += tags.len() as u64;
        let forgotten = if self.spared.is_empty() && pinned.is_empty() {
            None
        } else {
            let proofs = self.chosen.get(&id).into_iter().flatten().copied().collect();
            Some(Forgotten { proofs, tags })
        };
        self.forgotten.insert(id, forgotten);
        Ok(())
    }

    async fn choose(&mut self, core: &Core, filter: &HoldingFilter) -> Result<(), RegistryError> {
        self.find_chosen(core, filter).await?;
        if let Some(tag) = &filter.tag {
            self.choose_tag(core, filter, tag).await?;
        }
        for (id, chosen) in &mut self.chosen {
            let mut uses = Catalogue::load(core, id).await?.uses().await;
            uses.keep(&self.pinned);
            if filter.tag.is_some() {
                // A platform with a tag of its own: the tag goes, the index keeps what it lists.
                let meant = chosen.clone();
                let used = chosen.extract_if(.., |digest| uses.has_other_users(digest, &meant));
                self.used_otherwise.extend(used);
            }
            if filter.tag.is_some() || filter.digest.is_some() {
                // An image is meant, and not single items of it.
                uses.take_along(chosen);
            }
            let forgotten = self.forgotten.entry(id.clone()).or_default().get_or_insert_default();
            // What a manifest that stays lists can be had again without a question.
            let lost = chosen.iter().filter(|digest| !uses.has_other_users(digest, chosen));
            forgotten.proofs = lost.copied().collect();
            for (tag, digest) in core.index.list_tagged(id).await? {
                if chosen.contains(&digest) && !forgotten.tags.contains(&tag) {
                    forgotten.tags.push(tag);
                }
            }
        }
        self.tags = self.forgotten.values().flatten().map(|forgotten| forgotten.tags.len() as u64).sum();
        let taken: BTreeSet<_> = self.chosen.values().flatten().copied().collect();
        for digest in taken.into_iter().chain(filter.digest) {
            if !self.records.contains_key(&digest)
                && !self.pinned.contains(&digest)
                && let Some(record) = core.index.find_content(&digest).await?
            {
                self.records.insert(digest, record);
            }
        }
        Ok(())
    }

    /// A tag goes also where nothing is stored of it; what another tag points to stays.
    async fn choose_tag(
        &mut self,
        core: &Core,
        filter: &HoldingFilter,
        tag: &Tag,
    ) -> Result<(), RegistryError> {
        let HoldingFilter { upstream, repository, .. } = filter.clone();
        let only_tag =
            HoldingFilter { upstream, repository, tag: Some(tag.clone()), ..HoldingFilter::default() };
        let repositories = match &filter.repository {
            Some(id) => vec![id.clone()],
            None => core.index.list_known_repositories(filter.upstream.as_deref()).await?,
        };
        for id in repositories {
            let tagged = core.index.list_tagged(&id).await?;
            let chosen = self.chosen.entry(id.clone()).or_default();
            let is_pinned = tagged.iter().any(|(other, digest)| other == tag && self.pinned.contains(digest));
            let is_meant = (*filter == only_tag || !chosen.is_empty()) && !is_pinned;
            if is_meant && tagged.iter().any(|(other, _)| other == tag) {
                let forgotten = Forgotten { proofs: Vec::new(), tags: vec![tag.clone()] };
                self.forgotten.insert(id.clone(), Some(forgotten));
            }
            for (_, digest) in tagged.iter().filter(|(other, _)| other != tag) {
                if chosen.remove(digest) {
                    self.used_otherwise.insert(*digest);
                }
            }
            if chosen.is_empty() {
                self.chosen.remove(&id);
            }
        }
        Ok(())
    }

    async fn find_chosen(&mut self, core: &Core, filter: &HoldingFilter) -> Result<(), RegistryError> {
        let mut last: Option<(RepositoryId, Digest)> = None;
        loop {
            let after = last.as_ref().map(|(id, digest)| (id, digest));
            let page = core.index.list_holdings(filter, after, PAGE).await?;
            let Some(end) = page.last() else { return Ok(()) };
            last = Some((end.repository.clone(), end.content.digest));
            for holding in page {
                let digest = holding.content.digest;
                if holding.is_pinned {
                    self.spared.insert(digest, holding.content.size_bytes);
                    continue;
                }
                self.chosen.entry(holding.repository).or_default().insert(digest);
                self.records.insert(digest, holding.content);
            }
        }
    }

    /// What goes from the disk, because nobody else has it, and what all this comes to.
    async fn judge(&self, core: &Core) -> Result<(Vec<ContentRecord>, Purged), RegistryError> {
        let shared: HashMap<_, _> = core.index.list_shared().await?.into_iter().collect();
        let mut losers: HashMap<Digest, u64> = HashMap::new();
        for digest in self.chosen.values().flatten() {
            *losers.entry(*digest).or_default() += 1;
        }
        let mut purged = Purged { tags: self.tags, ..Purged::default() };
        purged.holdings = losers.values().sum();
        purged.pinned = self.spared.len() as u64;
        purged.pinned_bytes = self.spared.values().sum();
        let mut removed = Vec::new();
        for (digest, record) in &self.records {
            let lost = losers.get(digest).copied().unwrap_or(0);
            let stays = shared.get(digest).is_some_and(|holders| lost < *holders);
            if stays || self.used_otherwise.contains(digest) && lost == 0 {
                purged.shared += 1;
                purged.shared_bytes += record.size_bytes;
                continue;
            }
            match record.kind {
                ContentKind::Manifest => purged.manifests += 1,
                ContentKind::Blob => purged.blobs += 1,
            }
            purged.bytes += record.size_bytes;
            removed.push(record.clone());
        }
        Ok((removed, purged))
    }

    async fn forget(&self, core: &Core) -> Result<(), RegistryError> {
        for (id, forgotten) in &self.forgotten {
            match forgotten {
                Some(forgotten) => core.index.forget(id, forgotten).await?,
                None => core.index.forget_repository(id).await?,
            }
        }
        Ok(())
    }
}
