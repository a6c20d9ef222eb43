//! Error codes (OCI distribution specification, "Error Codes").

/// The closed set of codes that a client is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The blob is not known to the registry.
    BlobUnknown,
    /// The upload cannot go on as asked.
    BlobUploadInvalid,
    /// The upload is not known to the registry.
    BlobUploadUnknown,
    /// The digest is malformed, or does not match the content.
    DigestInvalid,
    /// The manifest lists content that is not known to the repository.
    ManifestBlobUnknown,
    /// The manifest is malformed.
    ManifestInvalid,
    /// The manifest is not known to the registry.
    ManifestUnknown,
    /// The repository name is malformed.
    NameInvalid,
    /// The repository, or its registry, is not known.
    NameUnknown,
    /// The requested range cannot be served.
    RangeInvalid,
    /// The content is of another size than was said, or too large.
    SizeInvalid,
    /// The tag is malformed.
    TagInvalid,
    /// The request needs authentication.
    Unauthorized,
    /// The request is refused.
    Denied,
    /// The operation is not supported.
    Unsupported,
    /// Too many requests.
    TooManyRequests,
    /// Upstream is broken or cannot be reached, or this node is at fault.
    Unavailable,
    /// This node failed.
    Unknown,
}

impl ErrorCode {
    /// The code as it stands in the error JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BlobUnknown => "BLOB_UNKNOWN",
            Self::BlobUploadInvalid => "BLOB_UPLOAD_INVALID",
            Self::BlobUploadUnknown => "BLOB_UPLOAD_UNKNOWN",
            Self::DigestInvalid => "DIGEST_INVALID",
            Self::ManifestBlobUnknown => "MANIFEST_BLOB_UNKNOWN",
            Self::ManifestInvalid => "MANIFEST_INVALID",
            Self::ManifestUnknown => "MANIFEST_UNKNOWN",
            Self::NameInvalid => "NAME_INVALID",
            Self::NameUnknown => "NAME_UNKNOWN",
            Self::RangeInvalid => "RANGE_INVALID",
            Self::SizeInvalid => "SIZE_INVALID",
            Self::TagInvalid => "TAG_INVALID",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::Denied => "DENIED",
            Self::Unsupported => "UNSUPPORTED",
            Self::TooManyRequests => "TOOMANYREQUESTS",
            Self::Unavailable => "UNAVAILABLE",
            Self::Unknown => "UNKNOWN",
        }
    }
}
