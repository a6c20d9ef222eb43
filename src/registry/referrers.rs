//! Referrers of an upstream that does not list them: the tag scheme (OCI distribution specification,
//! "Referrers Tag Schema").

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use super::core::Core;
use super::{PulledManifest, ReferrerList, RegistryError, Repository, Want, manifest};
use crate::auth::RequestContext;
use crate::oci::{AcceptClass, Digest, Reference, Tag};
use crate::upstream::UpstreamError;

/// Finds referrers in the index that the tag `<algorithm>-<hex>` points to, and filters them.
pub(super) async fn by_tag(
    core: &Arc<Core>,
    context: &RequestContext,
    repository: &Repository,
    digest: &Digest,
    query: &[(String, String)],
) -> Result<ReferrerList, RegistryError> {
    let unknown = || RegistryError::ManifestUnknown(digest.to_string());
    let reference: Reference = fallback_tag(digest).parse().map_err(|_not_a_tag| unknown())?;
    let pulled = manifest::pull(core, context, repository, &reference, &AcceptClass::Any, Want::Body).await?;
    list(pulled, query).ok_or_else(unknown)
}

/// Finds the same in what is kept here, without asking: upstream just failed with `error`.
pub(super) async fn by_known_tag(
    core: &Arc<Core>,
    repository: &Repository,
    digest: &Digest,
    query: &[(String, String)],
    error: &UpstreamError,
) -> Option<ReferrerList> {
    let tag: Tag = fallback_tag(digest).parse().ok()?;
    list(manifest::find_known(core, repository, &tag, error).await?, query)
}

fn list(pulled: PulledManifest, query: &[(String, String)]) -> Option<ReferrerList> {
    let body = pulled.body.filter(|_| pulled.media_type.is_index())?;
    let artifact_type = query.iter().find(|(name, _)| name == "artifactType").map(|(_, value)| value);
    let filtered = artifact_type.is_some();
    let body = match artifact_type {
        Some(artifact_type) => filter(&body, artifact_type)?,
        None => body,
    };
    Some(ReferrerList { body, filtered, next: None, served: pulled.served })
}

/// The tag of the scheme: the encoded part is cut at 64 characters.
fn fallback_tag(digest: &Digest) -> String {
    let mut hex = digest.hex();
    hex.truncate(64);
    format!("{}-{hex}", digest.algorithm().as_str())
}

/// Keeps the descriptors of one artifact type; `None` where the index is no index.
pub(super) fn filter(index: &Bytes, artifact_type: &str) -> Option<Bytes> {
    let mut index: Value = serde_json::from_slice(index).ok()?;
    let manifests = index.get_mut("manifests")?.as_array_mut()?;
    manifests
        .retain(|descriptor| descriptor.get("artifactType").and_then(Value::as_str) == Some(artifact_type));
    serde_json::to_vec(&index).ok().map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Algorithm;

    #[test]
    fn the_fallback_tag_is_a_tag_for_both_algorithms() {
        let short = fallback_tag(&Digest::of(Algorithm::Sha256, b""));
        assert_eq!(short, "sha256-e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        let long = fallback_tag(&Digest::of(Algorithm::Sha512, b""));
        assert_eq!(long.len(), "sha512-".len() + 64);
        assert!(long.parse::<Reference>().is_ok());
    }

    #[test]
    fn only_descriptors_of_the_artifact_type_stay() {
        let index =
            Bytes::from(r#"{"schemaVersion":2,"manifests":[{"artifactType":"a"},{"artifactType":"b"},{}]}"#);
        let filtered = filter(&index, "b").unwrap();
        let value: Value = serde_json::from_slice(&filtered).unwrap();
        assert_eq!(value["manifests"], serde_json::json!([{"artifactType": "b"}]));
        assert_eq!(filter(&Bytes::from("[]"), "b"), None);
    }
}
