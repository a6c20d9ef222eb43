//! How imports end, for the metrics.

use super::{ImportError, Imported};
use crate::registry::bundle_metrics::BundleMetrics;

/// How an import ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::registry) enum ImportOutcome {
    /// It is here.
    Imported,
    /// The file is no bundle that can be believed, or served here.
    Refused,
    /// What it goes on from is not here.
    BaseMissing,
    /// It does not fit.
    NoRoom,
    /// Another one was being imported.
    Busy,
    /// It did not come to its end.
    BrokenOff,
    /// The disk or the index failed.
    Failed,
}

impl ImportOutcome {
    /// All of them.
    pub(in crate::registry) const ALL: [Self; 7] = [
        Self::Imported,
        Self::Refused,
        Self::BaseMissing,
        Self::NoRoom,
        Self::Busy,
        Self::BrokenOff,
        Self::Failed,
    ];

    /// The metric label.
    pub(in crate::registry) const fn as_str(self) -> &'static str {
        match self {
            Self::Imported => "imported",
            Self::Refused => "refused",
            Self::BaseMissing => "base_missing",
            Self::NoRoom => "no_room",
            Self::Busy => "busy",
            Self::BrokenOff => "broken_off",
            Self::Failed => "failed",
        }
    }

    const fn of(error: &ImportError) -> Self {
        match error {
            ImportError::Busy => Self::Busy,
            ImportError::Bundle(_)
            | ImportError::Name { .. }
            | ImportError::Incomplete { .. }
            | ImportError::Stray(_)
            | ImportError::TooManyManifests { .. }
            | ImportError::TooManyParts { .. } => Self::Refused,
            ImportError::Source(_) | ImportError::Silent { .. } => Self::BrokenOff,
            ImportError::OverBudget { .. } | ImportError::NoRoom { .. } => Self::NoRoom,
            ImportError::BaseMissing { .. } | ImportError::BaseAltered { .. } => Self::BaseMissing,
            ImportError::Gone(_) | ImportError::Store(_) | ImportError::Index(_) | ImportError::Internal => {
                Self::Failed
            }
        }
    }
}

/// Counts an import when this is dropped: one that nobody ended was broken off.
pub(super) struct Count {
    metrics: BundleMetrics,
    outcome: ImportOutcome,
}

impl Count {
    pub(super) fn new(metrics: &BundleMetrics) -> Self {
        Self { metrics: metrics.clone(), outcome: ImportOutcome::BrokenOff }
    }

    /// Notes how the import ended, and counts what it brought.
    pub(super) fn end(mut self, ended: &Result<Imported, ImportError>) {
        self.outcome = match ended {
            Ok(imported) => {
                let known_bytes = imported.bytes.saturating_sub(imported.new_bytes);
                self.metrics.content_imported(imported.new_bytes, known_bytes);
                ImportOutcome::Imported
            }
            Err(error) => ImportOutcome::of(error),
        };
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        self.metrics.imported(self.outcome);
    }
}
