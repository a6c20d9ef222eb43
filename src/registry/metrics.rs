//! What the use cases count.

use prometheus::core::Collector;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use super::WarmedState;
use super::ahead::Reason;
use super::bundle_metrics::BundleMetrics;
use super::integrity::IntegrityMetrics;
use crate::blobs::DiskCause;

/// Counters of the use cases.
#[derive(Clone, Debug)]
pub struct RegistryMetrics {
    fills_in_progress: IntGauge,
    integrity_failures: IntCounterVec,
    disk_failures: IntCounterVec,
    disk_trouble: IntGaugeVec,
    disk_free_bytes: IntGauge,
    disk_min_free_bytes: IntGauge,
    index_failures: IntCounter,
    tags_deleted: IntCounterVec,
    images: IntGaugeVec,
    images_missing_bytes: IntGauge,
    ahead_bytes: IntCounterVec,
    images_warmed: IntCounterVec,
    prefetch_used: IntCounter,
    /// What is counted of content at rest.
    pub(super) integrity: IntegrityMetrics,
    pub(super) bundles: BundleMetrics,
}

/// Lowers the gauge again when the fill ends, however it ends.
pub(super) struct RunningFill(IntGauge);

impl Drop for RunningFill {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Makes metrics and registers them.
pub(super) struct Maker<'a>(&'a Registry);

impl<'a> Maker<'a> {
    pub(super) const fn over(registry: &'a Registry) -> Self {
        Self(registry)
    }

    pub(super) fn counter(&self, name: &str, help: &str) -> prometheus::Result<IntCounter> {
        self.register(IntCounter::new(name, help)?)
    }

    pub(super) fn counters(&self, name: &str, help: &str, label: &str) -> prometheus::Result<IntCounterVec> {
        self.register(IntCounterVec::new(Opts::new(name, help), &[label])?)
    }

    fn gauge(&self, name: &str, help: &str) -> prometheus::Result<IntGauge> {
        self.register(IntGauge::new(name, help)?)
    }

    fn gauges(&self, name: &str, help: &str, label: &str) -> prometheus::Result<IntGaugeVec> {
        self.register(IntGaugeVec::new(Opts::new(name, help), &[label])?)
    }

    pub(super) fn register<C: Collector + Clone + 'static>(&self, made: C) -> prometheus::Result<C> {
        self.0.register(Box::new(made.clone()))?;
        Ok(made)
    }
}

impl RegistryMetrics {
    /// Makes the counters and registers them.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let make = Maker::over(registry);
        let fills_in_progress = make.gauge("fills_in_progress", "Blobs being fetched from upstream now")?;
        let integrity_failures = make.counters(
            "integrity_failures_total",
            "Content whose digest or size was wrong, by where it was noticed",
            "where",
        )?;
        let disk_failures =
            make.counters("disk_failures_total", "Content that the disk could not keep, by cause", "cause")?;
        let disk_trouble =
            make.gauges("disk_trouble", "1 while the disk takes no content for this cause", "cause")?;
        let disk_free_bytes =
            make.gauge("disk_free_bytes", "Bytes that this process may still write to its disk")?;
        let disk_min_free_bytes =
            make.gauge("disk_min_free_bytes", "Free bytes below which content is evicted")?;
        let index_failures =
            make.counter("index_failures_total", "Reads and writes of the index that failed")?;
        let tags_deleted = make.counters(
            "tags_deleted_total",
            "Tags that upstream was found to have deleted while they were kept here",
            "upstream",
        )?;
        let images = make.gauges("images", "Images known here, by whether all of them is here", "state")?;
        let images_missing_bytes = make.gauge(
            "images_missing_bytes",
            "Bytes at least that images known here lack to be complete; shared blobs count each time",
        )?;
        let ahead_bytes = make.counters(
            "ahead_bytes_total",
            "Bytes of blobs fetched before any client asked, by why",
            "why",
        )?;
        let images_warmed = make.counters(
            "images_warmed_total",
            "Images that jobs of warming were done with, by how it went",
            "state",
        )?;
        let prefetch_used = make.counter(
            "prefetch_used_bytes_total",
            "Bytes of prefetched blobs that a client asked for later; counted within seconds",
        )?;
        for state in ["complete", "incomplete"] {
            images.with_label_values(&[state]);
            images_warmed.with_label_values(&[state]);
        }
        let integrity = IntegrityMetrics::new(&make)?;
        for reason in Reason::ALL {
            ahead_bytes.with_label_values(&[reason.as_str()]);
        }
        for place in ["fill", "transfer", "manifest", "store", "scrub", "verify"] {
            integrity_failures.with_label_values(&[place]);
        }
        for cause in DiskCause::ALL {
            disk_failures.with_label_values(&[cause.as_str()]);
            disk_trouble.with_label_values(&[cause.as_str()]);
        }
        Ok(Self {
            fills_in_progress,
            integrity_failures,
            disk_failures,
            disk_trouble,
            disk_free_bytes,
            disk_min_free_bytes,
            index_failures,
            tags_deleted,
            images,
            images_missing_bytes,
            ahead_bytes,
            images_warmed,
            prefetch_used,
            integrity,
            bundles: BundleMetrics::new(&make)?,
        })
    }

    pub(super) fn fill_started(&self) -> RunningFill {
        self.fills_in_progress.inc();
        RunningFill(self.fills_in_progress.clone())
    }

    /// Counts content that was not what its digest said. `place` is one of a closed set: `fill`,
    /// `transfer`, `manifest`, `store`, `scrub`, `verify`.
    pub(super) fn integrity_failure(&self, place: &'static str) {
        self.integrity_failures.with_label_values(&[place]).inc();
    }

    pub(super) fn tag_deleted(&self, upstream: &str) {
        self.tags_deleted.with_label_values(&[upstream]).inc();
    }

    pub(super) fn images_counted(&self, complete: u64, incomplete: u64, missing_bytes: u64) {
        let gauge = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.images.with_label_values(&["complete"]).set(gauge(complete));
        self.images.with_label_values(&["incomplete"]).set(gauge(incomplete));
        self.images_missing_bytes.set(gauge(missing_bytes));
    }

    pub(super) fn fetched_ahead(&self, reason: Reason, bytes: u64) {
        self.ahead_bytes.with_label_values(&[reason.as_str()]).inc_by(bytes);
    }

    /// The counter of prefetched bytes that a client asked for.
    pub(super) fn prefetch_used(&self) -> IntCounter {
        self.prefetch_used.clone()
    }

    /// Counts an image that a job is done with, whether it was complete before or is now.
    pub(super) fn image_warmed(&self, state: WarmedState) {
        if matches!(state, WarmedState::Complete | WarmedState::Incomplete) {
            self.images_warmed.with_label_values(&[state.as_str()]).inc();
        }
    }

    pub(super) fn index_failed(&self) {
        self.index_failures.inc();
    }

    pub(super) fn disk_failed(&self, cause: DiskCause) {
        self.disk_failures.with_label_values(&[cause.as_str()]).inc();
    }

    /// Shows whether (1) or not (0) the disk fails for a cause.
    pub(super) fn disk_trouble(&self, cause: DiskCause, value: i64) {
        self.disk_trouble.with_label_values(&[cause.as_str()]).set(value);
    }

    pub(super) fn disk_space(&self, free_bytes: u64, min_free_bytes: u64) {
        let value = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        self.disk_free_bytes.set(value(free_bytes));
        self.disk_min_free_bytes.set(value(min_free_bytes));
    }
}
