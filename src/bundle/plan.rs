//! What images come to, before it is a bundle.

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};

use super::{Base, Contents, Image, Item, ItemKind, Referrers, Request};
use crate::oci::Digest;

/// All that images need to be pulled elsewhere: names, lists of referrers, and content.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Manifests by their names.
    pub images: Vec<Image>,
    /// Which manifests refer to which.
    pub referrers: Vec<Referrers>,
    /// The content, in any order; each once.
    pub items: Vec<Item>,
    /// What people should know of it.
    pub notes: Vec<String>,
}

impl Plan {
    /// Adds another plan. What is in both comes once; of a name that is in both, this plan's meaning stays.
    pub fn merge(&mut self, other: Self) {
        let names: HashSet<_> = self.images.iter().map(ToString::to_string).collect();
        self.images.extend(other.images.into_iter().filter(|image| !names.contains(&image.to_string())));
        let known: HashSet<_> =
            self.referrers.iter().map(|list| (list.repository.clone(), list.subject)).collect();
        let is_new = |list: &Referrers| !known.contains(&(list.repository.clone(), list.subject));
        self.referrers.extend(other.referrers.into_iter().filter(is_new));
        let mut items: BTreeMap<Digest, Item> =
            std::mem::take(&mut self.items).into_iter().map(|item| (item.digest, item)).collect();
        for item in other.items {
            add_item(&mut items, item);
        }
        self.items = items.into_values().collect();
        self.notes.extend(other.notes);
    }

    /// The contents of a bundle that carries all of it; or, with the contents of a bundle that the other side
    /// has, what that lacks.
    pub fn into_contents(self, request: Request, base: Option<(Base, &Contents)>) -> Contents {
        let Self { mut images, mut referrers, mut items, notes: _ } = self;
        images.sort_by_key(ToString::to_string);
        referrers
            .sort_by(|one, other| (&one.repository, one.subject).cmp(&(&other.repository, other.subject)));
        items.sort_by_key(|item| (item.kind, item.digest));
        let there: HashSet<Digest> = base
            .iter()
            .flat_map(|(_, contents)| contents.content.iter().chain(&contents.from_base))
            .map(|item| item.digest)
            .collect();
        let (from_base, content) = items.into_iter().partition(|item| there.contains(&item.digest));
        Contents {
            version: Contents::VERSION,
            signed_by: None,
            base: base.map(|(base, _)| base),
            request,
            images,
            referrers,
            content,
            from_base,
        }
    }
}

/// Adds an item to others. What is both a manifest and a blob of something else is a manifest.
pub fn add_item(items: &mut BTreeMap<Digest, Item>, item: Item) {
    let known = items.get(&item.digest).map(|known| known.kind);
    if known.is_none() || item.kind == ItemKind::Manifest {
        items.insert(item.digest, item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::Role;
    use crate::oci::{Algorithm, MediaType};

    fn digest(text: &str) -> Digest {
        Digest::of(Algorithm::Sha256, text.as_bytes())
    }

    fn blob(text: &str) -> Item {
        let (digest, size_bytes) = (digest(text), text.len() as u64);
        Item { kind: ItemKind::Blob, digest, size_bytes, media_type: None }
    }

    fn manifest(text: &str) -> Item {
        let media_type = MediaType::parse("application/vnd.oci.image.manifest.v1+json");
        Item { kind: ItemKind::Manifest, media_type, ..blob(text) }
    }

    fn image(tag: &str, text: &str) -> Image {
        Image {
            repository: "docker.io/library/a".parse().unwrap(),
            tag: Some(tag.parse().unwrap()),
            digest: digest(text),
            observed_at_ms: 1,
            role: Role::Image,
        }
    }

    fn plan(images: &[(&str, &str)], items: Vec<Item>) -> Plan {
        let images = images.iter().map(|(tag, text)| image(tag, text)).collect();
        Plan { images, items, ..Plan::default() }
    }

    #[test]
    fn what_several_images_share_comes_once() {
        let mut all = plan(&[("1", "one")], vec![manifest("one"), blob("base"), blob("odd")]);
        let other = plan(&[("2", "two"), ("1", "two")], vec![manifest("two"), blob("base"), manifest("odd")]);
        all.merge(other);
        let contents = all.into_contents(Request::default(), None);
        assert!(contents.to_json().is_ok());
        assert_eq!(contents.images, [image("1", "one"), image("2", "two")]);
        assert_eq!(contents.content.len(), 4);
        let odd = contents.content.iter().find(|item| item.digest == digest("odd")).unwrap();
        assert_eq!(odd.kind, ItemKind::Manifest);
    }

    #[test]
    fn a_delta_holds_what_the_base_and_its_own_bases_lack() {
        let old = plan(&[("1", "one")], vec![manifest("one"), blob("base")]);
        let mut old = old.into_contents(Request::default(), None);
        old.base = Some(Base { id: digest("older"), file: "older.tar".to_owned() });
        old.from_base = vec![blob("oldest")];
        let new = plan(&[("2", "two")], vec![manifest("two"), blob("base"), blob("oldest"), blob("new")]);
        let base = Base { id: digest("old"), file: "old.tar".to_owned() };
        let contents = new.into_contents(Request::default(), Some((base, &old)));
        assert!(contents.to_json().is_ok());
        assert_eq!(contents.content, [manifest("two"), blob("new")]);
        let mut left = vec![blob("base"), blob("oldest")];
        left.sort_by_key(|item| item.digest);
        assert_eq!(contents.from_base, left);
    }
}
