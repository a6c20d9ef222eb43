//! What the HTTP edge counts. All labels are closed sets: never a repository, a path or a client.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::Method;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
};

use crate::registry::CacheResult;

/// The metrics of the registry API. Cloning gives another handle to the same numbers.
#[derive(Clone, Debug)]
pub struct ServerMetrics(Arc<Numbers>);

#[derive(Debug)]
struct Numbers {
    /// Requests answered, by route, method and status code.
    requests: IntCounterVec,
    /// Time from a request's head to the end of its answer, by route.
    duration: HistogramVec,
    /// Bytes of bodies sent, by where they came from.
    bytes_from_cache: IntCounter,
    bytes_from_upstream: IntCounter,
    /// Look-ups in the cache, by upstream, kind of content and result.
    cache_requests: IntCounterVec,
    /// Connections to the registry API that are open now.
    open_connections: IntGauge,
    /// Bytes of bodies that left by sendfile(2).
    sendfile_bytes: IntCounter,
    /// The figures of each route that was asked for, so that a request looks up no labels.
    routes: [OnceLock<RouteNumbers>; ROUTES.len()],
}

/// The figures of one route.
#[derive(Debug)]
struct RouteNumbers {
    duration: Histogram,
    /// Of GET that is answered by 200: nearly all there are.
    usual: OnceLock<IntCounter>,
}

/// The routes that have places of their own.
const ROUTES: [&str; 4] = ["manifest", "blob", "base", "tags"];

impl ServerMetrics {
    /// Makes the metrics and registers them. An error means that a name is taken.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let requests = IntCounterVec::new(
            Opts::new("requests_total", "Requests answered, by route, method and status code."),
            &["route", "method", "code"],
        )?;
        let duration = HistogramVec::new(
            HistogramOpts::new(
                "request_duration_seconds",
                "Time from the head of a request to the end of its answer, by route.",
            )
            .buckets(DURATION_BUCKETS.to_vec()),
            &["route"],
        )?;
        let bytes = IntCounterVec::new(
            Opts::new("response_bytes_total", "Bytes of bodies sent, by where they came from."),
            &["source"],
        )?;
        let cache_requests = IntCounterVec::new(
            Opts::new("cache_requests_total", "Look-ups in the cache, by upstream, kind and result."),
            &["upstream", "kind", "result"],
        )?;
        let open_connections =
            IntGauge::new("open_connections", "Connections to the registry API that are open now.")?;
        let sendfile_bytes = IntCounter::new(
            "sendfile_bytes_total",
            "Bytes of bodies that went from file to socket without being read.",
        )?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(duration.clone()))?;
        registry.register(Box::new(bytes.clone()))?;
        registry.register(Box::new(cache_requests.clone()))?;
        registry.register(Box::new(open_connections.clone()))?;
        registry.register(Box::new(sendfile_bytes.clone()))?;
        Ok(Self(Arc::new(Numbers {
            requests,
            duration,
            bytes_from_cache: bytes.with_label_values(&["cache"]),
            bytes_from_upstream: bytes.with_label_values(&["upstream"]),
            cache_requests,
            open_connections,
            sendfile_bytes,
            routes: Default::default(),
        })))
    }

    pub(super) fn record_answer(&self, route: &'static str, method: &Method, status: u16) {
        let counter = || {
            let mut digits = [0; 3];
            let labels = [route, method_label(method), code_label(status, &mut digits)];
            self.0.requests.with_label_values(&labels)
        };
        match self.find_route(route) {
            Some(numbers) if method == Method::GET && status == 200 => {
                numbers.usual.get_or_init(counter).inc();
            }
            _ => counter().inc(),
        }
    }

    fn find_route(&self, route: &'static str) -> Option<&RouteNumbers> {
        let place = ROUTES.iter().position(|known| *known == route)?;
        Some(self.0.routes[place].get_or_init(|| RouteNumbers {
            duration: self.0.duration.with_label_values(&[route]),
            usual: OnceLock::new(),
        }))
    }

    pub(super) fn record_cache(&self, upstream: &str, kind: ContentLabel, result: CacheResult) {
        self.0.cache_requests.with_label_values(&[upstream, kind.as_str(), result.as_str()]).inc();
    }

    pub(super) fn record_duration(&self, route: &'static str, duration: Duration) {
        match self.find_route(route) {
            Some(numbers) => numbers.duration.observe(duration.as_secs_f64()),
            None => self.0.duration.with_label_values(&[route]).observe(duration.as_secs_f64()),
        }
    }

    /// Counts bytes of an answer of this result.
    pub(super) fn record_sent(&self, result: Option<CacheResult>, bytes: u64) {
        let counter = match result {
            Some(CacheResult::Miss | CacheResult::Collapsed | CacheResult::Bypass) => {
                &self.0.bytes_from_upstream
            }
            Some(CacheResult::Hit | CacheResult::Stale | CacheResult::Revalidated) | None => {
                &self.0.bytes_from_cache
            }
        };
        counter.inc_by(bytes);
    }

    pub(super) fn open_connections(&self) -> IntGauge {
        self.0.open_connections.clone()
    }

    pub(super) fn sendfile_bytes(&self) -> IntCounter {
        self.0.sendfile_bytes.clone()
    }
}

/// The kind of content that a request asked the cache for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ContentLabel {
    Manifest,
    Blob,
    Tags,
    Referrers,
}

impl ContentLabel {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Manifest => "manifest",
            Self::Blob => "blob",
            Self::Tags => "tags",
            Self::Referrers => "referrers",
        }
    }
}

/// Clients can invent methods, so all but the standard ones share a label.
pub(super) fn method_label(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

fn code_label(status: u16, digits: &mut [u8; 3]) -> &str {
    for (index, digit) in digits.iter_mut().rev().enumerate() {
        let power = [1, 10, 100][index];
        *digit = b'0' + u8::try_from(status / power % 10).unwrap_or_default();
    }
    std::str::from_utf8(digits).unwrap_or("000")
}

/// From a hit in memory to a layer of many gigabytes.
const DURATION_BUCKETS: [f64; 12] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_closed_sets() {
        let registry = Registry::new();
        let metrics = ServerMetrics::new(&registry).unwrap();
        let invented = Method::from_bytes(b"BREW").unwrap();
        metrics.record_answer("blob", &invented, 405);
        metrics.record_cache("docker.io", ContentLabel::Tags, CacheResult::Collapsed);
        metrics.record_sent(Some(CacheResult::Miss), 7);
        metrics.record_sent(Some(CacheResult::Stale), 5);
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        for line in [
            r#"requests_total{code="405",method="other",route="blob"} 1"#,
            r#"cache_requests_total{kind="tags",result="collapsed",upstream="docker.io"} 1"#,
            r#"response_bytes_total{source="upstream"} 7"#,
            r#"response_bytes_total{source="cache"} 5"#,
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }
}
