//! Which manifests of a repository use which content.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::catalogue::Catalogue;
use crate::oci::Digest;

/// Which stored manifests of a repository use which content: what they list, and what refers to them.
#[derive(Default)]
pub(in crate::registry) struct Uses {
    parts: HashMap<Digest, BTreeSet<Digest>>,
    users: HashMap<Digest, BTreeSet<Digest>>,
    /// What goes with nothing else.
    tagged: HashSet<Digest>,
}

impl Catalogue<'_> {
    /// Reads every stored manifest.
    pub(in crate::registry) async fn uses(mut self) -> Uses {
        let mut uses = Uses { tagged: self.tagged_digests().collect(), ..Uses::default() };
        for (subject, referrers) in &self.referrers {
            for referrer in referrers {
                uses.note(*subject, *referrer);
            }
        }
        for digest in self.stored().to_vec() {
            let Some(node) = self.find(&digest).await else { continue };
            for part in node.manifest.manifests.iter().chain(&node.manifest.blobs) {
                uses.note(digest, part.digest);
            }
            if let Some(subject) = &node.manifest.subject {
                uses.note(subject.digest, digest);
            }
        }
        uses
    }
}

impl Uses {
    fn note(&mut self, user: Digest, part: Digest) {
        self.parts.entry(user).or_default().insert(part);
        self.users.entry(part).or_default().insert(user);
    }

    /// Adds what only the chosen manifests use, and no tag points to.
    pub(in crate::registry) fn take_along(&self, chosen: &mut BTreeSet<Digest>) {
        let mut rest: Vec<_> = chosen.iter().copied().collect();
        while let Some(user) = rest.pop() {
            for part in self.parts.get(&user).into_iter().flatten() {
                // The last of several users comes here, too, once it is chosen.
                if !self.tagged.contains(part) && !self.has_other_users(part, chosen) && chosen.insert(*part)
                {
                    rest.push(*part);
                }
            }
        }
    }

    /// All that is below some manifests, and refers to them.
    pub(in crate::registry) fn all_below(&self, roots: &BTreeSet<Digest>) -> BTreeSet<Digest> {
        let (mut all, mut rest) = (roots.clone(), roots.iter().copied().collect::<Vec<_>>());
        while let Some(user) = rest.pop() {
            let parts = self.parts.get(&user).into_iter().flatten();
            rest.extend(parts.filter(|part| all.insert(**part)));
        }
        all
    }

    /// Never takes these along.
    pub(in crate::registry) fn keep(&mut self, content: &BTreeSet<Digest>) {
        self.tagged.extend(content);
    }

    /// Whether a manifest that is not chosen uses it.
    pub(in crate::registry) fn has_other_users(&self, part: &Digest, chosen: &BTreeSet<Digest>) -> bool {
        self.users.get(part).is_some_and(|users| !users.is_subset(chosen))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Algorithm;

    fn digest(text: &str) -> Digest {
        Digest::of(Algorithm::Sha256, text.as_bytes())
    }

    fn set(texts: &[&str]) -> BTreeSet<Digest> {
        texts.iter().map(|text| digest(text)).collect()
    }

    #[test]
    fn what_is_chosen_takes_along_what_nothing_else_uses() {
        let mut uses = Uses::default();
        for (user, parts) in [
            ("index", &["amd64", "arm64", "signature", "tagged"][..]),
            ("other", &["arm64"]),
            ("amd64", &["base", "top"]),
            ("arm64", &["base", "arm"]),
            ("signature", &["top", "note"]),
            ("tagged", &["own"]),
        ] {
            for part in parts {
                uses.note(digest(user), digest(part));
            }
        }
        uses.tagged.insert(digest("tagged"));
        let take_along = |uses: &Uses, chosen: &[&str]| {
            let mut chosen = set(chosen);
            uses.take_along(&mut chosen);
            chosen
        };
        assert_eq!(take_along(&uses, &["index"]), set(&["index", "amd64", "signature", "top", "note"]));
        assert_eq!(take_along(&uses, &["amd64"]), set(&["amd64"]), "all that it uses is used elsewhere");
        let both = ["index", "other", "amd64", "arm64", "signature", "base", "top", "arm", "note"];
        assert_eq!(take_along(&uses, &["index", "other"]), set(&both));
        uses.keep(&set(&["note", "arm64"]));
        assert_eq!(
            take_along(&uses, &["index", "other"]),
            set(&["index", "other", "amd64", "signature", "top"])
        );
        assert_eq!(uses.all_below(&set(&["other"])), set(&["other", "arm64", "base", "arm"]));
        assert!(uses.has_other_users(&digest("base"), &set(&["amd64"])));
        assert!(!uses.has_other_users(&digest("base"), &set(&["amd64", "arm64"])));
    }
}
