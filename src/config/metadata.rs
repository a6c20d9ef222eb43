//! `[metadata]`: where the catalogue is, where that is not a file under the storage path.

use super::Secret;

/// `[metadata]`
#[derive(Clone, Debug)]
pub struct DatabaseConfig {
    /// `postgres://user:password@host:port/database`
    pub url: Secret,
    /// The most connections of this node to it.
    pub max_connections: u32,
}
