//! The namespaces that are hosted here, in memory: every name of a request is held against them.

use std::collections::HashMap;

use arc_swap::ArcSwap;

use super::{Hosting, NamespacePolicy, Result};
use crate::auth::policy::Visibility;
use crate::metadata::catalogue::Namespace;

/// The namespaces that are there, by name.
#[derive(Debug, Default)]
pub(super) struct Namespaces(ArcSwap<Known>);

#[derive(Debug, Default)]
struct Known {
    /// The number of the last change that this agrees with.
    as_of: u64,
    by_name: HashMap<String, Visibility>,
}

impl Namespaces {
    pub(super) fn contains(&self, name: &str) -> bool {
        let known = self.0.load();
        !known.by_name.is_empty() && known.by_name.contains_key(name)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.load().by_name.is_empty()
    }

    pub(super) fn visibility(&self, name: &str) -> Visibility {
        self.0.load().by_name.get(name).copied().unwrap_or(Visibility::Private)
    }
}

impl Hosting {
    /// Reads the namespaces from the catalogue, if anything has changed there since the last time. Meant to be called
    /// after changes and every few seconds: other nodes change them, too.
    pub async fn refresh_namespaces(&self) -> Result<()> {
        let as_of = self.catalogue.last_change().await?;
        let known = self.0.namespaces.0.load();
        if known.as_of == as_of && as_of > 0 {
            return Ok(());
        }
        let policies = self.catalogue.list_namespace_policies().await?;
        let visibility = |(name, policy): (Namespace, String)| {
            // One that cannot be read opens nothing.
            let is_public = NamespacePolicy::parse(&policy).is_ok_and(|policy| policy.anonymous_pull);
            let visibility = if is_public { Visibility::Public } else { Visibility::Private };
            (name.as_str().to_owned(), visibility)
        };
        let by_name = policies.into_iter().map(visibility).collect();
        self.0.namespaces.0.store(std::sync::Arc::new(Known { as_of, by_name }));
        Ok(())
    }
}
