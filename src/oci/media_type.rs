//! Media types of manifests and of what they list.

use std::borrow::Cow;
use std::fmt;

/// A media type without parameters, lower-case: `application/vnd.oci.image.index.v1+json`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MediaType(Cow<'static, str>);

impl MediaType {
    /// OCI image manifest.
    pub const OCI_MANIFEST: Self = Self::known("application/vnd.oci.image.manifest.v1+json");
    /// OCI image index.
    pub const OCI_INDEX: Self = Self::known("application/vnd.oci.image.index.v1+json");
    /// Docker image manifest, schema 2.
    pub const DOCKER_MANIFEST: Self = Self::known("application/vnd.docker.distribution.manifest.v2+json");
    /// Docker manifest list.
    pub const DOCKER_LIST: Self = Self::known("application/vnd.docker.distribution.manifest.list.v2+json");
    /// Docker image manifest, schema 1, signed.
    pub const DOCKER_SCHEMA1_SIGNED: Self =
        Self::known("application/vnd.docker.distribution.manifest.v1+prettyjws");
    /// Docker image manifest, schema 1.
    pub const DOCKER_SCHEMA1: Self = Self::known("application/vnd.docker.distribution.manifest.v1+json");
    /// Anything: what blobs are served as.
    pub const OCTET_STREAM: Self = Self::known("application/octet-stream");

    /// All manifest types, in the order in which upstream is asked for them.
    pub const MANIFESTS: [Self; 6] = [
        Self::OCI_INDEX,
        Self::DOCKER_LIST,
        Self::OCI_MANIFEST,
        Self::DOCKER_MANIFEST,
        Self::DOCKER_SCHEMA1_SIGNED,
        Self::DOCKER_SCHEMA1,
    ];

    const fn known(text: &'static str) -> Self {
        Self(Cow::Borrowed(text))
    }

    /// Takes a `Content-Type` value: parameters are dropped, case is folded. `None` where it is no
    /// `type/subtype` of RFC 9110 tokens.
    pub fn parse(value: &str) -> Option<Self> {
        let essence = value.split(';').next().unwrap_or_default().trim();
        // Known types, which are nearly all there are, cost no look at each of their bytes, and nothing to clone.
        if let Some(known) = Self::MANIFESTS.into_iter().find(|known| known.0 == essence) {
            return Some(known);
        }
        let (kind, subtype) = essence.split_once('/')?;
        let is_token = |text: &str| {
            !text.is_empty()
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
        };
        if is_token(kind) && is_token(subtype) {
            let known = Self::MANIFESTS.into_iter().find(|known| known.0.eq_ignore_ascii_case(essence));
            Some(known.unwrap_or_else(|| Self(Cow::Owned(essence.to_ascii_lowercase()))))
        } else {
            None
        }
    }

    /// The type as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it lists manifests: an OCI index or a Docker manifest list.
    pub fn is_index(&self) -> bool {
        *self == Self::OCI_INDEX || *self == Self::DOCKER_LIST
    }

    /// Whether it is of the old schema 1, whose digest leaves the signatures out.
    pub fn is_schema1(&self) -> bool {
        *self == Self::DOCKER_SCHEMA1 || *self == Self::DOCKER_SCHEMA1_SIGNED
    }

    /// Whether it is one of the manifest types, so that the content belongs under `/manifests/`.
    pub fn is_manifest(&self) -> bool {
        Self::MANIFESTS.contains(self)
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
