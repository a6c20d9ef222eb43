//! Values that the suite records.

use std::sync::Arc;
use std::time::Duration;

use crate::metadata::{
    AccessProof, ContentKind, ContentRecord, ObservedTag, PullRecord, RepositoryId, Segment, TagObservation,
};
use crate::oci::{AcceptClass, Algorithm, Digest, MediaType};
use crate::runtime::Timestamp;

/// A moment some seconds after a fixed one.
pub(in crate::metadata) fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(1_790_000_000_000).after(Duration::from_secs(seconds))
}

/// The digest of a text.
pub(in crate::metadata) fn digest(text: &str) -> Digest {
    Digest::of(Algorithm::Sha256, text.as_bytes())
}

/// A repository of an upstream.
pub(in crate::metadata) fn repository(upstream: &str, name: &str) -> RepositoryId {
    RepositoryId { upstream: Arc::from(upstream), name: name.parse().unwrap() }
}

/// A blob on probation that was stored and last used at one moment.
pub(in crate::metadata) fn blob(text: &str, size_bytes: u64, seconds: u64) -> ContentRecord {
    ContentRecord {
        digest: digest(text),
        kind: ContentKind::Blob,
        size_bytes,
        media_type: None,
        stored_at: at(seconds),
        last_used_at: at(seconds),
        segment: Segment::Probation,
    }
}

/// A proof that says nothing but that the content is there.
pub(in crate::metadata) fn proof(text: &str, kind: ContentKind) -> AccessProof {
    AccessProof { digest: digest(text), kind, size_bytes: None, media_type: None }
}

/// A manifest with two layers, pulled by a tag.
pub(in crate::metadata) fn pull(text: &str, tag: &str) -> PullRecord {
    let content = ContentRecord {
        kind: ContentKind::Manifest,
        media_type: Some(MediaType::OCI_MANIFEST),
        ..blob(text, 500, 0)
    };
    let layers = ["one", "two"].map(|layer| proof(&format!("{text} {layer}"), ContentKind::Blob));
    let mut proofs = vec![proof(text, ContentKind::Manifest)];
    proofs.extend(layers);
    let observation = TagObservation {
        digest: content.digest,
        media_type: MediaType::OCI_MANIFEST,
        size_bytes: content.size_bytes,
        checked_at: at(0),
        missing_since: None,
    };
    let tag = Some(ObservedTag { tag: tag.parse().unwrap(), class: AcceptClass::Any, observation });
    PullRecord { content, proofs, tag }
}
