//! The metrics registry: every name gets the prefix `tidegate_`.

use prometheus::{IntGaugeVec, Opts, Registry, TextEncoder};

use super::process::ProcessCollector;
use crate::runtime::Timestamp;

/// The process's metrics.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
}

impl Metrics {
    /// A registry with `build_info` and the process's own figures; `started` is when it began.
    ///
    /// Fails only where two metrics have one name.
    pub fn new(started: Timestamp) -> Result<Self, prometheus::Error> {
        let registry = Registry::new_custom(Some("tidegate".to_owned()), None)?;
        let options = Opts::new("build_info", "The version that runs; the value is always 1.");
        let build_info = IntGaugeVec::new(options, &["version"])?;
        build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        registry.register(Box::new(build_info))?;
        registry.register(Box::new(ProcessCollector::new(started)?))?;
        Ok(Self { registry })
    }

    /// Where components register their metrics; names go without the prefix.
    pub const fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Everything in the Prometheus text format (`text/plain; version=0.0.4`).
    pub fn encode(&self) -> String {
        let mut text = String::new();
        if let Err(error) = TextEncoder::new().encode_utf8(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "metrics are incomplete: one of them cannot be written");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_the_prefix_and_the_process_tells_its_figures() {
        let metrics = Metrics::new(Timestamp::from_millis(1_500)).unwrap();
        let counter = prometheus::IntCounter::new("things_total", "Things.").unwrap();
        metrics.registry().register(Box::new(counter.clone())).unwrap();
        counter.inc_by(3);
        let text = metrics.encode();
        let value = |name: &str| {
            let line = text.lines().find(|line| line.split([' ', '{']).next() == Some(name));
            line.and_then(|line| line.rsplit(' ').next()).and_then(|value| value.parse::<f64>().ok())
        };
        assert_eq!(value("tidegate_things_total"), Some(3.0));
        assert_eq!(value("tidegate_build_info"), Some(1.0));
        assert_eq!(value("tidegate_process_start_time_seconds"), Some(1.5));
        for name in ["process_resident_memory_bytes", "process_open_fds", "process_max_fds"] {
            assert!(value(&format!("tidegate_{name}")).is_some_and(|value| value > 1.0), "{name}: {text}");
        }
        assert!(value("tidegate_process_cpu_seconds_total").is_some(), "{text}");
        assert!(text.lines().all(|line| line.starts_with('#') || line.starts_with("tidegate_")), "{text}");
        assert!(
            text.contains(&format!("tidegate_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION")))
        );
    }
}
