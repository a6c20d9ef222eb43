//! Metrics of the cache's size.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// Why content was evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EvictionReason {
    /// The cache held more than its budget.
    Budget,
    /// The disk was full although the budget was not.
    DiskFull,
    /// Less was free on the disk than is to be.
    DiskLow,
    /// The administrator said so.
    Purge,
    /// A bundle that is imported needs the room.
    Import,
}

impl EvictionReason {
    /// All of them.
    const ALL: [Self; 5] = [Self::Budget, Self::DiskFull, Self::DiskLow, Self::Purge, Self::Import];

    /// The word in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Budget => "budget",
            Self::DiskFull => "disk_full",
            Self::DiskLow => "disk_low",
            Self::Purge => "purge",
            Self::Import => "import",
        }
    }
}

/// Metrics of the cache's size. Names get their prefix from the registry.
#[derive(Clone, Debug)]
pub struct CacheMetrics {
    /// Bytes of cached content.
    pub(super) bytes: IntGauge,
    /// The budget of bytes.
    pub(super) budget_bytes: IntGauge,
    /// Pins.
    pub(super) pins: IntGauge,
    /// Bytes of stored content that pins cover.
    pub(super) pinned_bytes: IntGauge,
    /// Items evicted, by reason.
    pub(super) evictions: IntCounterVec,
    /// Bytes evicted.
    pub(super) evicted_bytes: IntCounter,
}

impl CacheMetrics {
    /// Makes and registers the metrics. Fails where one of their names is taken.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let evictions = Opts::new("cache_evictions_total", "Items evicted from the cache, by reason.");
        let metrics = Self {
            bytes: IntGauge::new("cache_bytes", "Bytes of cached content.")?,
            budget_bytes: IntGauge::new("cache_budget_bytes", "The byte budget of cached content.")?,
            pins: IntGauge::new("cache_pins", "Images that are pinned.")?,
            pinned_bytes: IntGauge::new("cache_pinned_bytes", "Bytes of cached content that is pinned.")?,
            evictions: IntCounterVec::new(evictions, &["reason"])?,
            evicted_bytes: IntCounter::new("cache_evicted_bytes_total", "Bytes evicted from the cache.")?,
        };
        // A series that begins at zero shows its first increase.
        for reason in EvictionReason::ALL {
            metrics.evictions.with_label_values(&[reason.as_str()]);
        }
        registry.register(Box::new(metrics.bytes.clone()))?;
        registry.register(Box::new(metrics.budget_bytes.clone()))?;
        registry.register(Box::new(metrics.pins.clone()))?;
        registry.register(Box::new(metrics.pinned_bytes.clone()))?;
        registry.register(Box::new(metrics.evictions.clone()))?;
        registry.register(Box::new(metrics.evicted_bytes.clone()))?;
        Ok(metrics)
    }
}

/// A count of bytes as a gauge's value.
pub(super) fn gauge_value(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
