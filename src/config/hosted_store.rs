//! `storage.object_store`: where hosted content is kept, where that is not a local directory.

use std::path::PathBuf;

use super::secret::Secret;

/// `[storage] object_store`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostedStoreConfig {
    /// The store.
    pub store: ObjectStoreConfig,
    /// Further certificate authorities that its certificate may be of.
    pub ca_file: Option<PathBuf>,
    /// Whether what was stored is read back and compared, and not only its size.
    pub reads_back: bool,
    /// Whether clients are sent to the store for blobs.
    pub redirects: bool,
}

/// An object store, by its URL and what else is to be known to use it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectStoreConfig {
    /// `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`.
    pub url: String,
    /// Everything else, by the names that the stores' own tools have for it, in lower case, with or without the
    /// provider's prefix: `endpoint`, `region`, `aws_access_key_id`, `allow_http`, … Any of it may be a secret.
    pub options: Vec<(String, Secret)>,
}
