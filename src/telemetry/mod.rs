//! What the program tells about itself: its log and its metrics.
//!
//! Components own their metrics and register them with [`Metrics::registry`]; this module only
//! makes the registry and writes it out.

mod line_format;
mod line_writer;
pub mod logging;
mod metrics;
mod process;

pub use metrics::Metrics;
