//! What is counted of collections, and of tags that went by themselves.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Registry};

use super::{CollectionOutcome, Removals};
use crate::registry::metrics::Maker;
use crate::runtime::Timestamp;

/// Counters of what goes by itself.
#[derive(Clone, Debug)]
pub struct CollectionMetrics {
    runs: IntCounterVec,
    removed: IntCounterVec,
    freed_bytes: IntCounter,
    ended: IntGauge,
    tags: IntCounterVec,
}

/// By what a tag went.
#[derive(Clone, Copy, Debug)]
pub(in crate::registry::hosted) enum Rule {
    /// Its time was over.
    Expiry,
    /// A rule of its namespace.
    Prune,
}

impl Rule {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Expiry => "expiry",
            Self::Prune => "prune",
        }
    }
}

impl CollectionMetrics {
    /// Makes the counters and registers them.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let make = Maker::over(registry);
        let runs = make.counters(
            "collection_runs_total",
            "Collections of hosted content, by how they ended",
            "outcome",
        )?;
        let removed =
            make.counters("collection_removed_total", "What collections removed, by what it was", "kind")?;
        let freed_bytes =
            make.counter("collection_freed_bytes_total", "Bytes of hosted content that collections removed")?;
        let ended = make.register(IntGauge::new(
            "collection_completed_timestamp_seconds",
            "When a collection last came to its end, in seconds since 1970; 0 if none did since the start",
        )?)?;
        let tags = make.counters(
            "hosted_tags_removed_total",
            "Tags that went by themselves, by which rule",
            "rule",
        )?;
        for outcome in CollectionOutcome::ALL {
            runs.with_label_values(&[outcome.as_str()]);
        }
        for (kind, _) in counts(&Removals::default()) {
            removed.with_label_values(&[kind]);
        }
        for rule in [Rule::Expiry, Rule::Prune] {
            tags.with_label_values(&[rule.as_str()]);
        }
        Ok(Self { runs, removed, freed_bytes, ended, tags })
    }

    pub(super) fn ended(&self, outcome: CollectionOutcome, at: Timestamp) {
        self.runs.with_label_values(&[outcome.as_str()]).inc();
        if outcome == CollectionOutcome::Complete {
            self.ended.set(i64::try_from(at.as_millis() / 1000).unwrap_or(i64::MAX));
        }
    }

    /// Counts what is new since it was counted last.
    pub(super) fn removed(&self, before: &Removals, after: &Removals) {
        for ((kind, old), (_, new)) in counts(before).into_iter().zip(counts(after)) {
            self.removed.with_label_values(&[kind]).inc_by(new.saturating_sub(old));
        }
        self.freed_bytes.inc_by(after.freed_bytes().saturating_sub(before.freed_bytes()));
    }

    pub(in crate::registry::hosted) fn tags_removed(&self, rule: Rule, count: u64) {
        self.tags.with_label_values(&[rule.as_str()]).inc_by(count);
    }
}

fn counts(removed: &Removals) -> [(&'static str, u64); 6] {
    [
        ("repository", removed.repositories),
        ("manifest", removed.manifests),
        ("link", removed.links),
        ("blob", removed.blobs),
        ("stray", removed.strays),
        ("upload", removed.uploads),
    ]
}
