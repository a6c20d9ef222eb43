//! Use case: this node goes offline for upstreams, and back, while it runs.
//!
//! What is said at run time wins over the configuration, also over one that is read again: who renews a
//! certificate does not mean to put a node back on a line that somebody took it off.

use std::collections::HashMap;
use std::sync::{Arc, MutexGuard, PoisonError};

use super::RegistryError;
use super::core::Core;
use super::repository::Names;
use crate::upstream::{Link, Upstream};

/// What was said at run time; the more specific word counts.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    all: Option<Link>,
    by_upstream: HashMap<String, Link>,
}

/// Whether this node is offline for an upstream, and who says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkStatus {
    /// The upstream's name.
    pub upstream: String,
    /// Whether it is asked at all.
    pub link: Link,
    /// Whether that was said at run time; else the configuration says it.
    pub is_switched: bool,
}

impl Wishes {
    fn find(&self, upstream: &str) -> Option<Link> {
        self.by_upstream.get(upstream).copied().or(self.all)
    }

    fn link_of(&self, upstream: &Upstream) -> Link {
        let configured = if upstream.config().offline { Link::Offline } else { Link::Online };
        self.find(&upstream.config().name).unwrap_or(configured)
    }

    fn apply(&self, names: &Names) {
        for upstream in names.upstreams() {
            upstream.set_link(self.link_of(upstream));
        }
    }
}

/// Sees to it that new upstreams are as they were switched, and that what still runs with an old one
/// ends where its successor is offline.
pub(super) fn replace_names(core: &Core, names: Names) {
    let wishes = lock(core);
    wishes.apply(&names);
    let old = core.names.swap(Arc::new(names));
    let new = core.names.load();
    for upstream in old.upstreams() {
        let is_offline_now = |other: &Arc<Upstream>| {
            other.config().name == upstream.config().name && other.link() == Link::Offline
        };
        if new.upstreams().iter().any(is_offline_now) {
            upstream.set_link(Link::Offline);
        }
    }
}

pub(super) fn links(core: &Core) -> Vec<LinkStatus> {
    let wishes = lock(core);
    let status = |upstream: &Arc<Upstream>| LinkStatus {
        upstream: upstream.config().name.clone(),
        link: upstream.link(),
        is_switched: wishes.find(&upstream.config().name).is_some(),
    };
    core.names.load().upstreams().iter().map(status).collect()
}

pub(super) fn switch(core: &Core, upstream: Option<&str>, wish: Option<Link>) -> Result<(), RegistryError> {
    let mut wishes = lock(core);
    let names = core.names.load_full();
    match upstream {
        None => *wishes = Wishes { all: wish, by_upstream: HashMap::new() },
        Some(host) => {
            let found = names.find_upstream(host);
            let name =
                found.ok_or_else(|| RegistryError::UnknownRegistry(host.to_owned()))?.config().name.clone();
            match wish {
                Some(link) => wishes.by_upstream.insert(name, link),
                None => wishes.by_upstream.remove(&name),
            };
        }
    }
    wishes.apply(&names);
    Ok(())
}

fn lock(core: &Core) -> MutexGuard<'_, Wishes> {
    core.wishes.lock().unwrap_or_else(PoisonError::into_inner)
}
