//! Why a request line asks for nothing that there is.

use http::StatusCode;

use crate::oci::{DigestError, ErrorCode, NameError, TagError};

/// Why a request line asks for nothing that there is. Its text is for the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// The path has empty or dot segments, or escapes that are broken, doubled or of control
    /// characters.
    #[error("the path is malformed: {0}")]
    PathMalformed(&'static str),
    /// The repository name breaks the grammar or is too long.
    #[error("{0}")]
    NameInvalid(#[from] NameError),
    /// The digest is malformed or of an unknown algorithm.
    #[error("{0}")]
    DigestInvalid(#[from] DigestError),
    /// A tag and a digest at once, which is no reference in a path.
    #[error("a path takes a tag or a digest, not tag@digest: ask for the digest alone")]
    TagAndDigest,
    /// A tag that breaks the grammar was to be written.
    #[error("{0}")]
    TagInvalid(TagError),
    /// A tag that breaks the grammar was asked for: it cannot exist.
    #[error("manifest unknown: {0}")]
    TagUnknown(TagError),
    /// Nothing is served under this path.
    #[error("nothing is served under this path")]
    NoEndpoint,
    /// The path would be one of the registry API if `/v2/` were in it.
    #[error(
        "the path has no /v2/ in it: configure the mirror's URL as <this server>/v2/{registry} with override_path, or as <this server> alone"
    )]
    NoVersion {
        /// The first component, which is taken for the registry.
        registry: String,
    },
    /// The path is of the registry API of 2013.
    #[error("version 1 of the registry API is not served")]
    VersionOne,
    /// The path takes other methods.
    #[error("this path takes no such method")]
    MethodNotAllowed {
        /// The value of the `Allow` header.
        allow: &'static str,
    },
}

impl RouteError {
    /// The code for the error JSON.
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::PathMalformed(_) | Self::NameInvalid(_) => ErrorCode::NameInvalid,
            Self::DigestInvalid(_) | Self::TagAndDigest => ErrorCode::DigestInvalid,
            Self::TagInvalid(_) => ErrorCode::TagInvalid,
            Self::TagUnknown(_) => ErrorCode::ManifestUnknown,
            Self::NoEndpoint | Self::NoVersion { .. } => ErrorCode::NameUnknown,
            Self::VersionOne | Self::MethodNotAllowed { .. } => ErrorCode::Unsupported,
        }
    }

    /// The status of the answer.
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::PathMalformed(_)
            | Self::NameInvalid(_)
            | Self::DigestInvalid(_)
            | Self::TagAndDigest
            | Self::TagInvalid(_) => StatusCode::BAD_REQUEST,
            Self::TagUnknown(_) | Self::NoEndpoint | Self::NoVersion { .. } | Self::VersionOne => {
                StatusCode::NOT_FOUND
            }
            Self::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
        }
    }

    /// The value of the `Allow` header, where the status needs one.
    pub const fn allow(&self) -> Option<&'static str> {
        match self {
            Self::MethodNotAllowed { allow } => Some(allow),
            _ => None,
        }
    }
}
