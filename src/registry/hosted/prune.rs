//! Tags that go by the rules of their namespace's policy.
//!
//! [`choose`] decides; a dry run and a real one differ in nothing else than that one of them deletes what was chosen.
//! What goes can be restored, as if somebody had deleted it.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::time::Duration;

use super::collect::Rule;
use super::{Glob, Hosting, NamespacePolicy, PruneRule, Result};
use crate::auth::{RequestContext, policy};
use crate::metadata::catalogue::{CatalogueError, Namespace, Presence, Stamp, TagCondition, TagState};
use crate::oci::{Digest, RepositoryName, Tag};
use crate::registry::image::subject_of;
use crate::runtime::Timestamp;

/// Which tags are to go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PruneOrder {
    /// Only of this namespace.
    pub namespace: Option<Namespace>,
    /// Whether they are only told.
    pub dry_run: bool,
}

/// A tag that went, or would.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrunedTag {
    /// Its repository.
    pub repository: RepositoryName,
    /// The tag.
    pub tag: Tag,
    /// What it points to.
    pub digest: Digest,
}

/// What came of the rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// How many repositories have rules.
    pub repositories: u64,
    /// How many tags they have.
    pub looked_at: u64,
    /// How many of them went, or would.
    pub removed: u64,
    /// Which; not more than ten thousand are told.
    pub tags: Vec<PrunedTag>,
}

impl Hosting {
    /// Deletes the tags that rules say are to go, or tells them. A tag that moves meanwhile stays.
    pub async fn prune(&self, context: &RequestContext, order: &PruneOrder) -> Result<Pruned> {
        policy::require_administrator(context)?;
        // What was asked for just now must not look unused.
        self.flush_uses().await?;
        let mut pruned = Pruned::default();
        let mut last: Option<RepositoryName> = None;
        loop {
            let page = self.catalogue.list_repositories(Presence::Live, last.as_ref(), PAGE).await?;
            for place in &page {
                if order.namespace.as_ref().is_none_or(|only| *only == Namespace::of(&place.name)) {
                    self.prune_repository(&place.name, order, &mut pruned).await?;
                }
            }
            match page.last() {
                Some(place) if page.len() == PAGE as usize => last = Some(place.name.clone()),
                _ => break,
            }
        }
        if pruned.removed > 0 && !order.dry_run {
            self.0.collector.metrics.tags_removed(Rule::Prune, pruned.removed);
            tracing::info!(
                tags.removed = pruned.removed,
                "tags were pruned by the rules of their namespaces"
            );
        }
        Ok(pruned)
    }

    async fn prune_repository(
        &self,
        repository: &RepositoryName,
        order: &PruneOrder,
        pruned: &mut Pruned,
    ) -> Result<()> {
        let allowed = self.policy_of(repository).await?;
        if allowed.prune.is_empty() {
            return Ok(());
        }
        let Some(tags) = self.read_tags(repository).await? else { return Ok(()) };
        pruned.repositories += 1;
        pruned.looked_at += tags.len() as u64;
        let now = self.clock.now();
        for state in choose(&allowed, repository, &tags, now) {
            if !order.dry_run {
                let stamp = Stamp { at: now, by: "prune".into() };
                let condition = TagCondition::Unmoved(state.number);
                match self.catalogue.retract_tag(repository, &state.tag, condition, &stamp).await {
                    Ok(true) => {}
                    // It moved, or somebody was faster.
                    Ok(false) | Err(CatalogueError::RepositoryUnknown) => continue,
                    Err(error) => return Err(error.into()),
                }
            }
            pruned.removed += 1;
            if pruned.tags.len() < MOST_TOLD {
                let TagState { tag, digest, .. } = state.clone();
                pruned.tags.push(PrunedTag { repository: repository.clone(), tag, digest });
            }
        }
        Ok(())
    }

    /// All tags of a repository; `None` where it is gone by now.
    async fn read_tags(&self, repository: &RepositoryName) -> Result<Option<Vec<TagState>>> {
        let mut tags: Vec<TagState> = Vec::new();
        loop {
            let last = tags.last().map(|state| &state.tag);
            let page = match self.catalogue.list_tag_states(repository, last, PAGE).await {
                Err(CatalogueError::RepositoryUnknown) => return Ok(None),
                page => page?,
            };
            let is_full = page.len() == PAGE as usize;
            tags.extend(page);
            if !is_full {
                return Ok(Some(tags));
            }
        }
    }
}

/// The tags that go at a moment, of all that a repository has.
///
/// A tag of the schemes for referrers (`sha256-….sig`) that is about an image with tags here follows that: no rule to
/// remove means it, and it goes with the last of the image's tags, unless a rule keeps it.
pub(super) fn choose<'a>(
    policy: &NamespacePolicy,
    repository: &RepositoryName,
    tags: &'a [TagState],
    now: Timestamp,
) -> Vec<&'a TagState> {
    let tagged: HashSet<_> = tags.iter().map(|state| state.digest).collect();
    let is_companion = |state: &TagState| subject_of(&state.tag).is_some_and(|about| tagged.contains(&about));
    let mut going = HashSet::new();
    for rule in policy.prune.iter().filter(|rule| matches!(rule, PruneRule::Remove { .. })) {
        let meant = tags.iter().filter(|state| !is_companion(state));
        going.extend(select(rule, repository, meant, now).into_iter().map(|state| &state.tag));
    }
    going.retain(|tag| !policy.is_immutable(tag));
    let mut kept = HashSet::new();
    for rule in policy.prune.iter().filter(|rule| matches!(rule, PruneRule::Keep { .. })) {
        kept.extend(select(rule, repository, tags.iter(), now).into_iter().map(|state| &state.tag));
    }
    going.retain(|tag| !kept.contains(tag));
    let stays: HashSet<_> =
        tags.iter().filter(|state| !going.contains(&state.tag)).map(|state| state.digest).collect();
    let follows = |state: &TagState| {
        let is_left =
            subject_of(&state.tag).is_some_and(|about| tagged.contains(&about) && !stays.contains(&about));
        is_left && !kept.contains(&state.tag) && !policy.is_immutable(&state.tag)
    };
    tags.iter().filter(|state| going.contains(&state.tag) || follows(state)).collect()
}

/// The tags that all of a rule is true of.
fn select<'a>(
    rule: &PruneRule,
    repository: &RepositoryName,
    tags: impl Iterator<Item = &'a TagState>,
    now: Timestamp,
) -> Vec<&'a TagState> {
    let (PruneRule::Remove { repositories, tags: names, .. }
    | PruneRule::Keep { repositories, tags: names, .. }) = rule;
    if !is_meant(repositories, repository.as_str()) {
        return Vec::new();
    }
    let mut meant: Vec<_> = tags.filter(|state| is_meant(names, state.tag.as_str())).collect();
    meant.sort_by_key(|state| (Reverse(state.since.at), state.tag.clone()));
    let is_true = |(rank, state): &(usize, &TagState)| match rule {
        PruneRule::Remove { all_but_newest, older_than_ms, not_pulled_for_ms, .. } => {
            all_but_newest.is_none_or(|count| *rank >= count as usize)
                && older_than_ms.is_none_or(|time| age(state, now) >= Duration::from_millis(time))
                && not_pulled_for_ms.is_none_or(|time| rest(state, now) >= Duration::from_millis(time))
        }
        PruneRule::Keep { newest, younger_than_ms, pulled_within_ms, .. } => {
            newest.is_none_or(|count| *rank < count as usize)
                && younger_than_ms.is_none_or(|time| age(state, now) <= Duration::from_millis(time))
                && pulled_within_ms.is_none_or(|time| rest(state, now) <= Duration::from_millis(time))
        }
    };
    meant.into_iter().enumerate().filter(is_true).map(|(_, state)| state).collect()
}

fn is_meant(globs: &[Glob], name: &str) -> bool {
    globs.is_empty() || globs.iter().any(|glob| glob.matches(name))
}

/// For how long a tag has pointed where it points.
const fn age(state: &TagState, now: Timestamp) -> Duration {
    now.since(state.since.at)
}

/// For how long it was neither pulled nor put there.
fn rest(state: &TagState, now: Timestamp) -> Duration {
    now.since(state.used_at.unwrap_or_default().max(state.since.at))
}

/// How many tags or repositories are read with one question.
const PAGE: u32 = 1000;

/// How many tags are told.
const MOST_TOLD: usize = 10_000;

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::*;
    use crate::oci::Algorithm;

    const HOUR_MS: u64 = 3_600_000;
    const NOW: Timestamp = Timestamp::from_millis(1000 * HOUR_MS);

    fn hours_ago(hours: u64) -> Timestamp {
        Timestamp::from_millis(NOW.as_millis() - hours * HOUR_MS)
    }

    fn state(tag: &str, image: &str, pushed: u64, used: Option<u64>) -> TagState {
        TagState {
            tag: tag.parse().unwrap(),
            digest: Digest::of(Algorithm::Sha256, image.as_bytes()),
            number: 1,
            since: Stamp { at: hours_ago(pushed), by: "somebody".into() },
            expires_at: None,
            used_at: used.map(hours_ago),
        }
    }

    fn names(policy: &str, tags: &[TagState]) -> Vec<String> {
        let policy = NamespacePolicy::parse(policy).unwrap();
        let chosen = choose(&policy, &"acme/app".parse().unwrap(), tags, NOW);
        chosen.iter().map(|state| state.tag.to_string()).collect()
    }

    #[test]
    fn rules_mean_what_they_say() {
        let tags = [
            state("pr-1", "a", 50, Some(1)),
            state("pr-2", "b", 40, None),
            state("pr-3", "c", 10, None),
            state("v1", "d", 90, None),
            state("v2", "e", 80, Some(60)),
        ];
        let table: [(&str, &[&str]); 9] = [
            (r#"{"action":"remove","all_but_newest":2}"#, &["pr-1", "v1", "v2"]),
            (r#"{"action":"remove","tags":["pr-*"],"all_but_newest":2}"#, &["pr-1"]),
            (r#"{"action":"remove","older_than_ms":144000000}"#, &["pr-1", "pr-2", "v1", "v2"]),
            (r#"{"action":"remove","not_pulled_for_ms":144000000}"#, &["pr-2", "v1", "v2"]),
            (r#"{"action":"remove","tags":["v*"],"older_than_ms":144000000,"all_but_newest":1}"#, &["v1"]),
            (r#"{"action":"remove","repositories":["acme/ci"],"all_but_newest":1}"#, &[]),
            (r#"{"action":"remove","all_but_newest":1},{"action":"keep","tags":["v*"]}"#, &["pr-1", "pr-2"]),
            (
                r#"{"action":"remove","older_than_ms":1},{"action":"keep","tags":["v*"],"newest":1}"#,
                &["pr-1", "pr-2", "pr-3", "v1"],
            ),
            (
                r#"{"action":"remove","older_than_ms":1},{"action":"keep","pulled_within_ms":36000000}"#,
                &["pr-2", "v1", "v2"],
            ),
        ];
        for (rules, expected) in table {
            assert_eq!(names(&format!(r#"{{"prune":[{rules}]}}"#), &tags), expected, "{rules}");
        }
        let immutable = r#"{"immutable_tags":["v*"],"prune":[{"action":"remove","older_than_ms":1}]}"#;
        assert_eq!(names(immutable, &tags), ["pr-1", "pr-2", "pr-3"]);
    }

    #[test]
    fn signatures_go_with_the_last_tag_of_their_image() {
        let about =
            |image: &str| Digest::of(Algorithm::Sha256, image.as_bytes()).to_string().replace(':', "-");
        let tags = [
            state("old", "a", 50, None),
            state("new", "b", 1, None),
            state("also-new", "a", 1, None),
            state(&format!("{}.sig", about("a")), "signature", 50, None),
            state(&format!("{}.sig", about("gone")), "orphan", 50, None),
        ];
        let rule = r#"{"prune":[{"action":"remove","older_than_ms":36000000}]}"#;
        let orphan = format!("{}.sig", about("gone"));
        assert_eq!(names(rule, &tags), ["old", orphan.as_str()]);
        let without = [tags[0].clone(), tags[1].clone(), tags[3].clone()];
        assert_eq!(names(rule, &without), ["old".to_owned(), format!("{}.sig", about("a"))]);
        let kept = r#"{"prune":[{"action":"remove","older_than_ms":1},{"action":"keep","tags":["*.sig"]}]}"#;
        assert_eq!(names(kept, &without), ["old", "new"]);
    }

    #[test]
    fn random_rules_never_touch_what_is_kept_and_leave_nothing_for_a_second_run() {
        for seed in 0..2000 {
            let random = &mut Rng::with_seed(seed);
            let policy = random_policy(random);
            let tags: Vec<_> = (0..random.u32(0..12)).map(|number| random_tag(random, number)).collect();
            let repository = ["acme/app", "acme/ci"][random.usize(0..2)].parse().unwrap();
            let going: Vec<_> = choose(&policy, &repository, &tags, NOW).into_iter().cloned().collect();
            for rule in policy.prune.iter().filter(|rule| matches!(rule, PruneRule::Keep { .. })) {
                for kept in select(rule, &repository, tags.iter(), NOW) {
                    assert!(!going.contains(kept), "seed {seed}: {kept:?} is kept by {rule:?}");
                }
            }
            assert!(going.iter().all(|state| !policy.is_immutable(&state.tag)), "seed {seed}");
            let has_rule = policy.prune.iter().any(|rule| matches!(rule, PruneRule::Remove { .. }));
            assert!(has_rule || going.is_empty(), "seed {seed}");
            let rest: Vec<_> = tags.iter().filter(|state| !going.contains(state)).cloned().collect();
            let again = choose(&policy, &repository, &rest, NOW);
            assert!(again.is_empty(), "seed {seed}: {again:?} goes only now");
        }
    }

    fn random_tag(random: &mut Rng, number: u32) -> TagState {
        let word = ["v", "pr-", "nightly-"][random.usize(0..3)];
        let image = random.u32(0..6).to_string();
        let used = random.bool().then(|| random.u64(0..200));
        state(&format!("{word}{number}"), &image, random.u64(0..200), used)
    }

    fn random_policy(random: &mut Rng) -> NamespacePolicy {
        let glob = |text: &str| Glob::try_from(text.to_owned()).unwrap();
        let mut prune = Vec::new();
        for _ in 0..random.u32(0..5) {
            let tags = match random.u32(0..4) {
                0 => vec![],
                1 => vec![glob("v*"), glob("pr-*")],
                2 => vec![glob("*1")],
                _ => vec![glob("nightly-*")],
            };
            let repositories = if random.bool() { vec![] } else { vec![glob("*/app")] };
            let mut count = || random.bool().then(|| random.u32(0..5));
            let (first, second, third) = (count(), count(), count());
            let time = |hours: Option<u32>| hours.map(|hours| u64::from(hours) * 40 * HOUR_MS);
            prune.push(if random.bool() {
                PruneRule::Remove {
                    repositories,
                    tags,
                    all_but_newest: first,
                    older_than_ms: time(second),
                    not_pulled_for_ms: time(third),
                }
            } else {
                PruneRule::Keep {
                    repositories,
                    tags,
                    newest: first,
                    younger_than_ms: time(second),
                    pulled_within_ms: time(third),
                }
            });
        }
        let immutable_tags = if random.bool() { vec![] } else { vec![glob("*2")] };
        NamespacePolicy { immutable_tags, prune, ..NamespacePolicy::default() }
    }
}
