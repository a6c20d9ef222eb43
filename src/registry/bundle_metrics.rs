//! What is counted of bundles, on their way out and in.

use prometheus::{IntCounter, IntCounterVec};

use super::export::{ExportError, PlanOutcome};
use super::import::ImportOutcome;
use super::metrics::Maker;

/// Counters of bundles.
#[derive(Clone, Debug)]
pub(super) struct BundleMetrics {
    plans: IntCounterVec,
    export_bytes: IntCounter,
    imports: IntCounterVec,
    import_bytes: IntCounterVec,
}

impl BundleMetrics {
    /// Makes the counters and registers them.
    pub(super) fn new(make: &Maker<'_>) -> prometheus::Result<Self> {
        let plans = make.counters(
            "bundle_plans_total",
            "Images that were to be planned for a bundle, by how it went",
            "result",
        )?;
        let export_bytes =
            make.counter("bundle_export_bytes_total", "Bytes of content given out for bundles")?;
        let imports = make.counters("bundle_imports_total", "Bundles imported, by how it went", "result")?;
        let import_bytes = make.counters(
            "bundle_import_bytes_total",
            "Bytes of content of bundles that were imported, by whether it was here before",
            "content",
        )?;
        for outcome in PlanOutcome::ALL {
            plans.with_label_values(&[outcome.as_str()]);
        }
        for outcome in ImportOutcome::ALL {
            imports.with_label_values(&[outcome.as_str()]);
        }
        for content in [NEW, KNOWN] {
            import_bytes.with_label_values(&[content]);
        }
        Ok(Self { plans, export_bytes, imports, import_bytes })
    }

    /// Counts a plan.
    pub(super) fn planned<T>(&self, planned: &Result<T, ExportError>) {
        self.plans.with_label_values(&[PlanOutcome::of(planned).as_str()]).inc();
    }

    /// The counter of bytes given out.
    pub(super) fn export_bytes(&self) -> IntCounter {
        self.export_bytes.clone()
    }

    /// Counts an import.
    pub(super) fn imported(&self, outcome: ImportOutcome) {
        self.imports.with_label_values(&[outcome.as_str()]).inc();
    }

    /// Counts what an import brought, and what of it was here.
    pub(super) fn content_imported(&self, new_bytes: u64, known_bytes: u64) {
        self.import_bytes.with_label_values(&[NEW]).inc_by(new_bytes);
        self.import_bytes.with_label_values(&[KNOWN]).inc_by(known_bytes);
    }
}

const NEW: &str = "new";
const KNOWN: &str = "known";
