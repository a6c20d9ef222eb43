//! `[logging]`: format and level of the log.

/// `[logging]`
#[derive(Clone, Debug)]
pub struct LoggingConfig {
    /// Text for people or JSON for machines.
    pub format: LogFormat,
    /// A `tracing` filter: `info`, `tidegate::registry=debug,info`.
    pub level: String,
}

/// How a log line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One line of text.
    Text,
    /// One JSON object a line.
    Json,
}
