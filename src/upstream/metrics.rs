//! What is counted about upstreams.

use std::time::Duration;

use prometheus::{HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry};

use super::link::Link;
use super::priority::Priority;

/// The counters of all upstreams. Labels are names from the configuration and closed sets.
#[derive(Clone, Debug)]
pub struct UpstreamMetrics {
    requests: IntCounterVec,
    durations: HistogramVec,
    bytes: IntCounterVec,
    states: IntGaugeVec,
    remaining: IntGaugeVec,
    limits: IntGaugeVec,
    holds: IntCounterVec,
    refusals: IntCounterVec,
    offline: IntGaugeVec,
}

impl UpstreamMetrics {
    /// Registers them; the registry adds the prefix to the names.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let metrics = Self {
            requests: IntCounterVec::new(
                Opts::new(
                    "upstream_requests_total",
                    "Requests sent to upstream, redirects and tokens included; code is the status, or why there is none",
                ),
                &["upstream", "kind", "method", "code"],
            )?,
            durations: HistogramVec::new(
                HistogramOpts::new(
                    "upstream_request_duration_seconds",
                    "Time to the head of upstream's answer",
                )
                .buckets(vec![0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0]),
                &["upstream", "kind"],
            )?,
            bytes: IntCounterVec::new(
                Opts::new("upstream_bytes_total", "Bytes of bodies received from upstream"),
                &["upstream"],
            )?,
            states: IntGaugeVec::new(
                Opts::new("upstream_state", "1 while the endpoint is used, 0 while its breaker is open"),
                &["upstream", "endpoint"],
            )?,
            remaining: IntGaugeVec::new(
                Opts::new(
                    "upstream_rate_limit_remaining",
                    "Pulls that upstream still allows, as it last said, with all credentials together",
                ),
                &["upstream"],
            )?,
            limits: IntGaugeVec::new(
                Opts::new(
                    "upstream_rate_limit",
                    "Pulls that upstream allows in its window, as it last said, with all credentials together",
                ),
                &["upstream"],
            )?,
            holds: IntCounterVec::new(
                Opts::new(
                    "upstream_holds_total",
                    "Times that upstream asked to be left alone for a while, by what was limited",
                ),
                &["upstream", "limit"],
            )?,
            refusals: IntCounterVec::new(
                Opts::new(
                    "upstream_refusals_total",
                    "Questions that this node did not ask: upstream is left alone (held), or what it still allows is kept for more urgent ones (reserved)",
                ),
                &["upstream", "priority", "reason"],
            )?,
            offline: IntGaugeVec::new(
                Opts::new("upstream_offline", "1 while this node is offline for the upstream"),
                &["upstream"],
            )?,
        };
        registry.register(Box::new(metrics.requests.clone()))?;
        registry.register(Box::new(metrics.durations.clone()))?;
        registry.register(Box::new(metrics.bytes.clone()))?;
        registry.register(Box::new(metrics.states.clone()))?;
        registry.register(Box::new(metrics.remaining.clone()))?;
        registry.register(Box::new(metrics.limits.clone()))?;
        registry.register(Box::new(metrics.holds.clone()))?;
        registry.register(Box::new(metrics.refusals.clone()))?;
        registry.register(Box::new(metrics.offline.clone()))?;
        Ok(metrics)
    }

    pub(super) fn record_request(
        &self,
        upstream: &str,
        kind: &str,
        method: &str,
        code: &str,
        took: Duration,
    ) {
        self.requests.with_label_values(&[upstream, kind, method, code]).inc();
        self.durations.with_label_values(&[upstream, kind]).observe(took.as_secs_f64());
    }

    pub(super) fn bytes_of(&self, upstream: &str) -> IntCounter {
        self.bytes.with_label_values(&[upstream])
    }

    pub(super) fn record_state(&self, upstream: &str, endpoint: &str, is_usable: bool) {
        self.states.with_label_values(&[upstream, endpoint]).set(i64::from(is_usable));
    }

    pub(super) fn record_link(&self, upstream: &str, link: Link) {
        self.offline.with_label_values(&[upstream]).set(i64::from(link == Link::Offline));
    }

    pub(super) fn record_allowance(&self, upstream: &str, remaining: u64, limit: u64) {
        let gauge = |number| i64::try_from(number).unwrap_or(i64::MAX);
        self.remaining.with_label_values(&[upstream]).set(gauge(remaining));
        self.limits.with_label_values(&[upstream]).set(gauge(limit));
    }

    /// `limit` is what upstream limits: pulls, or logins.
    pub(super) fn count_hold(&self, upstream: &str, limit: &str) {
        self.holds.with_label_values(&[upstream, limit]).inc();
    }

    pub(super) fn count_refusal(&self, upstream: &str, priority: Priority, reason: &str) {
        self.refusals.with_label_values(&[upstream, priority.as_str(), reason]).inc();
    }
}
