//! What a manifest needs beside itself to be complete.

use std::collections::HashMap;

use serde::Deserialize;

use super::Platform;
use crate::oci::{Descriptor, Digest, Manifest, ManifestError};

/// What a manifest lists, as far as it is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needs {
    /// Manifests.
    pub manifests: Vec<Descriptor>,
    /// Configuration and layers.
    pub blobs: Vec<Descriptor>,
    /// The platforms that an index lists, whether wanted or not.
    pub platforms: Vec<Platform>,
    /// The manifest that it refers to, if any.
    pub subject: Option<Digest>,
}

/// The platforms of an index, which the parsed view leaves out.
#[derive(Deserialize)]
struct Index {
    #[serde(default)]
    manifests: Option<Vec<Listed>>,
}

#[derive(Deserialize)]
struct Listed {
    digest: String,
    #[serde(default)]
    platform: Option<ListedPlatform>,
}

#[derive(Deserialize)]
struct ListedPlatform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    variant: Option<String>,
}

/// Reads what a manifest needs. Of an index, manifests of other platforms than the wanted ones (none: all)
/// are left out; what is of no platform is always wanted. Layers that registries do not hold (foreign,
/// non-distributable) are never.
pub fn needs(manifest: &[u8], wanted: &[Platform]) -> Result<Needs, ManifestError> {
    let view = Manifest::parse(manifest)?;
    let mut platforms = HashMap::<String, Vec<Option<Platform>>>::new();
    if !view.manifests.is_empty() {
        let index: Index = serde_json::from_slice(manifest).map_err(ManifestError::Malformed)?;
        for listed in index.manifests.into_iter().flatten() {
            let platform = listed.platform.and_then(|platform| {
                Platform::of_index(&platform.os, &platform.architecture, platform.variant.as_deref())
            });
            platforms.entry(listed.digest).or_default().push(platform);
        }
    }
    let is_wanted = |descriptor: &Descriptor| {
        let of = platforms.get(&descriptor.digest.to_string());
        wanted.is_empty()
            || of.is_none_or(|of| {
                of.iter().any(|of| of.as_ref().is_none_or(|of| wanted.iter().any(|wanted| wanted.admits(of))))
            })
    };
    let mut told: Vec<_> = platforms.values().flatten().flatten().cloned().collect();
    told.sort();
    told.dedup();
    let mut manifests = view.manifests;
    manifests.retain(is_wanted);
    let mut blobs = view.blobs;
    blobs.retain(|blob| !is_foreign(blob));
    Ok(Needs { manifests, blobs, platforms: told, subject: view.subject.map(|subject| subject.digest) })
}

fn is_foreign(blob: &Descriptor) -> bool {
    let media_type = blob.media_type.as_str();
    media_type.contains(".foreign.") || media_type.contains(".nondistributable.")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::oci::Algorithm;

    fn listed(text: &str, platform: &serde_json::Value) -> serde_json::Value {
        let digest = Digest::of(Algorithm::Sha256, text.as_bytes()).to_string();
        json!({ "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": 1, "platform": platform })
    }

    #[test]
    fn only_wanted_platforms_are_needed_and_all_that_is_of_none() {
        let index = json!({ "schemaVersion": 2, "manifests": [
            listed("amd64", &json!({ "os": "linux", "architecture": "amd64" })),
            listed("arm64", &json!({ "os": "linux", "architecture": "arm64", "variant": "v8" })),
            listed("attestation", &json!({ "os": "unknown", "architecture": "unknown" })),
            listed("none", &serde_json::Value::Null),
        ] });
        let index = serde_json::to_vec(&index).unwrap();
        assert_eq!(needs(&index, &[]).unwrap().manifests.len(), 4);
        let wanted = needs(&index, &["linux/arm64".parse().unwrap()]).unwrap();
        let expected = ["arm64", "attestation", "none"];
        let digests: Vec<_> = wanted.manifests.iter().map(|manifest| manifest.digest).collect();
        assert_eq!(digests, expected.map(|text| Digest::of(Algorithm::Sha256, text.as_bytes())));
        let told: Vec<_> = wanted.platforms.iter().map(ToString::to_string).collect();
        assert_eq!(told, ["linux/amd64", "linux/arm64/v8"]);
    }

    #[test]
    fn layers_that_no_registry_holds_are_not_needed() {
        let layer = |kind: &str| {
            let digest = Digest::of(Algorithm::Sha256, kind.as_bytes()).to_string();
            json!({ "mediaType": format!("application/vnd.oci.image.layer.{kind}v1.tar"), "digest": digest, "size": 1 })
        };
        let image = json!({ "schemaVersion": 2, "layers": [layer(""), layer("nondistributable.")] });
        assert_eq!(needs(&serde_json::to_vec(&image).unwrap(), &[]).unwrap().blobs.len(), 1);
    }
}
