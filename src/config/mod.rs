//! The configuration: values as they are used, made once from file, environment and flags.
//!
//! Nobody else reads the environment. Each section is a file of its own. [`Config::load`] goes from
//! the sources (`document`, `environment`, flags) through `settings` (values by key, with their
//! origins, after the table in `keys`) to the values (`assemble`), and reports every fault at once.
//!
//! Relative paths are relative to the working directory, wherever they are written.

mod assemble;
mod assemble_auth;
mod assemble_credentials;
mod assemble_hosted;
mod assemble_secret;
mod assemble_token;
mod assemble_warm;
mod auth;
mod builtin;
mod checks;
mod difference;
mod document;
mod environment;
mod fault;
mod files;
pub mod glob;
mod hosted_store;
mod keys;
mod limits;
mod load;
mod logging;
mod metadata;
mod quantity;
mod scalar;
mod secret;
mod server;
mod settings;
mod show;
mod storage;
#[cfg(test)]
mod tests;
mod upstream;
mod warm;

pub use auth::AuthConfig;
pub use difference::Difference;
pub use fault::{Fault, Faults, Origin, Position};
pub use hosted_store::{HostedStoreConfig, ObjectStoreConfig};
pub use limits::Timeouts;
pub use load::{DEFAULT_FILE, Flags, Loaded, Sources};
pub use logging::{LogFormat, LoggingConfig};
pub use metadata::DatabaseConfig;
pub use secret::Secret;
pub use server::{ServerConfig, TlsConfig};
pub use settings::Settings;
pub use show::Entry;
pub use storage::{MinFree, ScrubConfig, StorageConfig};
pub use upstream::{Credentials, Freshness, Prefetch, UpstreamConfig};
pub use warm::{WarmConfig, WarmSchedule};

/// Parses a size as keys have it, such as `10MiB`; the error says what is wrong and the remedy.
pub fn parse_size(text: &str) -> Result<u64, String> {
    quantity::parse_size(text).map_err(|problem| format!("{}: {}", problem.reason, problem.remedy))
}

/// Parses a duration as keys have it, such as `30d`; the error says what is wrong and the remedy.
pub fn parse_duration(text: &str) -> Result<std::time::Duration, String> {
    quantity::parse_duration(text).map_err(|problem| format!("{}: {}", problem.reason, problem.remedy))
}

/// Checks a token of the admin API; the error says what is wrong and the remedy, and quotes nothing of it.
pub fn check_token(text: &str) -> Result<(), String> {
    assemble_token::check(text).map_err(|problem| format!("{}: {}", problem.reason, problem.remedy))
}

/// The whole configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// `[server]`
    pub server: ServerConfig,
    /// `[auth]`
    pub auth: AuthConfig,
    /// `[storage]`
    pub storage: StorageConfig,
    /// `[metadata]`; `None` where the catalogue is a file under the storage path.
    pub database: Option<DatabaseConfig>,
    /// `[logging]`
    pub logging: LoggingConfig,
    /// `[site]` `name`
    pub site_name: String,
    /// `[site]` `bundle_keys`, as they are written.
    pub bundle_keys: Vec<String>,
    /// `[[upstream]]`, in order; at most one is the default.
    pub upstreams: Vec<UpstreamConfig>,
    /// `[[warm]]`, in order.
    pub warm: Vec<WarmConfig>,
}
