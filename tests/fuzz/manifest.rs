//! Manifests: never a panic, never a view of two kinds at once.

use tidegate::oci::Manifest;

#[test]
fn manifest() {
    crate::target!("manifest", |input: &[u8]| {
        let Ok(manifest) = Manifest::parse(input) else { return };
        assert!(manifest.manifests.is_empty() || manifest.blobs.is_empty());
        assert!(manifest.manifests.len().max(manifest.blobs.len()) <= Manifest::MAX_DESCRIPTORS + 1);
        if manifest.media_type.is_some_and(|media_type| media_type.is_index()) {
            assert!(manifest.blobs.is_empty());
        }
    });
}
