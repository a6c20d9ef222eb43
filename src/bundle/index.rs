//! `index.json` of a bundle: what other tools find its manifests by.

use std::collections::{HashMap, HashSet};

use serde_json::{Value, json};

use super::contents::{Contents, Image, Item, ItemKind};
use crate::oci::MediaType;

/// The content of the file `oci-layout`.
pub(super) const LAYOUT: &[u8] = b"{\"imageLayoutVersion\":\"1.0.0\"}";

/// The index over the manifests that lie in the bundle: those with names, and those that refer to others.
///
/// Of a delta, manifests that only the base has are left out: an index must not point to nothing.
pub(super) fn index_json(contents: &Contents) -> Vec<u8> {
    let manifests = contents.content.iter().filter(|item| item.kind == ItemKind::Manifest);
    let here: HashMap<String, &Item> = manifests.map(|item| (item.digest.to_string(), item)).collect();
    let mut listed = HashSet::new();
    let mut manifests = Vec::new();
    for image in &contents.images {
        let digest = image.digest.to_string();
        if let Some(item) = here.get(&digest) {
            manifests.push(describe(item, image));
            listed.insert(digest);
        }
    }
    for descriptor in contents.referrers.iter().flat_map(|list| &list.descriptors) {
        let digest = descriptor["digest"].as_str().filter(|digest| here.contains_key(*digest));
        if digest.is_some_and(|digest| listed.insert(digest.to_owned())) {
            manifests.push(descriptor.clone());
        }
    }
    let index =
        json!({ "schemaVersion": 2, "mediaType": MediaType::OCI_INDEX.as_str(), "manifests": manifests });
    let mut text = index.to_string();
    text.push('\n');
    text.into_bytes()
}

fn describe(item: &Item, image: &Image) -> Value {
    let name = image.to_string();
    json!({
        "mediaType": item.media_type.as_ref().map(MediaType::as_str),
        "digest": item.digest.to_string(),
        "size": item.size_bytes,
        // The second is containerd's: it takes the first for a tag alone.
        "annotations": { "org.opencontainers.image.ref.name": name, "io.containerd.image.name": name },
    })
}
