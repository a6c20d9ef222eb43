//! The words of the OCI specifications as types: what is malformed cannot be carried further in.
//!
//! Pure: no I/O, no clock, no knowledge of HTTP beyond the grammar of header values and queries.

mod accept;
mod descriptor;
mod digest;
mod error_code;
mod image_pattern;
mod link;
mod manifest;
mod media_type;
mod name;
mod platform;
mod pushed_manifest;
mod query;
mod range;
mod reference;

pub use accept::AcceptClass;
pub use descriptor::Descriptor;
pub use digest::{Algorithm, Digest, DigestError, Hasher};
pub use error_code::ErrorCode;
pub use image_pattern::{ImagePattern, ImagePatternError, Selector};
pub use link::{Link, NextPage};
pub use manifest::{Manifest, ManifestError};
pub use media_type::MediaType;
pub use name::{NameError, RepositoryName};
pub use platform::{Platform, PlatformError};
pub use pushed_manifest::{PushedManifest, PushedManifestError};
pub use query::{decode_query, encode_query};
pub use range::{ByteRange, ContentRange, RangeError, RangeSet};
pub use reference::{Reference, ReferenceError, Tag, TagError};
