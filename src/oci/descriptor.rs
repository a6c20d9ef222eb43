//! Descriptors (OCI image specification, "Content Descriptors").

use super::{Digest, MediaType, Platform};

/// What a manifest says of content that it lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// The type of the content.
    pub media_type: MediaType,
    /// The digest of the content.
    pub digest: Digest,
    /// Its size in bytes; `None` in manifests of schema 1, which do not say it.
    pub size_bytes: Option<u64>,
    /// What a manifest of an index is made for; `None` where the index does not say.
    pub platform: Option<Platform>,
}
