//! What is counted of content at rest.

use prometheus::{IntCounter, IntCounterVec, Opts};

use super::damage::{Damage, FoundBy};
use super::heal::Healed;
use crate::registry::metrics::Maker;

/// Counters of content at rest.
#[derive(Clone, Debug)]
pub(in crate::registry) struct IntegrityMetrics {
    damaged: IntCounterVec,
    heals: IntCounterVec,
    verified: IntCounterVec,
    verified_bytes: IntCounterVec,
    index_replaced: IntCounter,
}

impl IntegrityMetrics {
    /// Makes the counters and registers them.
    pub(in crate::registry) fn new(make: &Maker<'_>) -> prometheus::Result<Self> {
        let opts = Opts::new(
            "content_damaged_total",
            "Stored items that were found damaged, by what was wrong and who found it",
        );
        let damaged = make.register(IntCounterVec::new(opts, &["cause", "found_by"])?)?;
        let heals = make.counters(
            "content_heals_total",
            "Damaged items that the node had come back by itself: from memory or upstream; or why it could not",
            "outcome",
        )?;
        let verified = make.counters(
            "content_verified_total",
            "Stored items compared with their digest, by whom",
            "by",
        )?;
        let verified_bytes = make.counters(
            "content_verified_bytes_total",
            "Bytes of stored items read to compare them with their digest, by whom",
            "by",
        )?;
        let index_replaced = make.counter(
            "index_replaced_total",
            "Damaged indexes that were set aside and built anew from the disk",
        )?;
        for by in FoundBy::ALL {
            verified.with_label_values(&[by.as_str()]);
            verified_bytes.with_label_values(&[by.as_str()]);
            for cause in Damage::ALL {
                damaged.with_label_values(&[cause.as_str(), by.as_str()]);
            }
        }
        for outcome in Healed::LABELS {
            heals.with_label_values(&[outcome]);
        }
        Ok(Self { damaged, heals, verified, verified_bytes, index_replaced })
    }

    pub(super) fn damaged(&self, cause: Damage, by: FoundBy) {
        self.damaged.with_label_values(&[cause.as_str(), by.as_str()]).inc();
    }

    pub(super) fn healed(&self, healed: &Healed) {
        self.heals.with_label_values(&[healed.as_str()]).inc();
    }

    pub(super) fn verified(&self, by: FoundBy) {
        self.verified.with_label_values(&[by.as_str()]).inc();
    }

    pub(super) fn verified_bytes(&self, by: FoundBy, bytes: u64) {
        self.verified_bytes.with_label_values(&[by.as_str()]).inc_by(bytes);
    }

    pub(super) fn index_replaced(&self) {
        self.index_replaced.inc();
    }
}
