//! `[storage]`: where cached content lies and how much of it there may be.

use std::path::PathBuf;

/// `[storage]`
#[derive(Clone, Debug)]
pub struct StorageConfig {
    /// The node's own directory.
    pub path: PathBuf,
    /// The byte budget of cached content.
    pub max_size_bytes: u64,
    /// The byte budget of manifests and resolutions kept in memory.
    pub memory_bytes: u64,
}
