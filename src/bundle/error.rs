//! What can be wrong with a bundle.

use super::{KeyError, PublicKey};
use crate::oci::Digest;

/// The result of reading a bundle.
pub type Result<T> = std::result::Result<T, BundleError>;

/// Why a file is no bundle that can be used.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// It is something else, or was packed again by another tool.
    #[error("this is not a bundle of tidegate: entry {expected} is expected, and there is {found}")]
    NotABundle {
        /// What has to be there.
        expected: String,
        /// What is there, in words.
        found: String,
    },
    /// It was made by a later version.
    #[error("the bundle has version {0} of the format, and this program reads version 1: update it")]
    Version(u64),
    /// It ends too early.
    #[error("the bundle is cut off within {0}: copy it again")]
    Truncated(String),
    /// Something follows its end.
    #[error("there is more data behind the bundle's end: copy it again")]
    Trailing,
    /// Bytes between the entries are not what they have to be.
    #[error("the bundle is damaged at {0}: copy it again")]
    Damaged(String),
    /// The description is larger than any that is taken.
    #[error("{entry} has {size_bytes} bytes, more than the {limit_bytes} that are read: split the bundle")]
    TooLarge {
        /// The entry.
        entry: &'static str,
        /// What it announces.
        size_bytes: u64,
        /// What is read.
        limit_bytes: usize,
    },
    /// The description is not JSON of the right shape.
    #[error("the description of the bundle's contents cannot be read")]
    Unreadable(#[source] serde_json::Error),
    /// The description contradicts itself.
    #[error("the description of the bundle's contents is wrong: {0}")]
    Contradiction(String),
    /// Content does not have its digest.
    #[error("the content of {expected} in the bundle has the digest {found}: copy the bundle again")]
    Digest {
        /// The digest that the description says.
        expected: Box<Digest>,
        /// That of the content.
        found: Box<Digest>,
    },
    /// The signature does not fit, or is malformed.
    #[error("the bundle's signature is not valid: it was altered, or signed by somebody else")]
    Signature,
    /// A signature is wanted, and there is none.
    #[error("the bundle is not signed, and a signature by {wanted} is required")]
    Unsigned {
        /// The keys that would do.
        wanted: String,
    },
    /// It is signed with another key.
    #[error("the bundle is signed by {found}, and a signature by {wanted} is required")]
    OtherKey {
        /// The key that signed it.
        found: PublicKey,
        /// The keys that would do.
        wanted: String,
    },
    /// The key that it names is none.
    #[error("the bundle names a key that is none")]
    Key(#[source] KeyError),
}

impl BundleError {
    /// A description that contradicts itself.
    pub(super) fn contradiction(text: impl Into<String>) -> Self {
        Self::Contradiction(text.into())
    }
}
