//! From the name in a request to the repository that it means.
//!
//! The look-up is closed: a registry that is not configured is an error at once, and no name, address
//! or connection is ever looked for outside.

mod table;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::RegistryError;
use crate::metadata::RepositoryId;
use crate::oci::RepositoryName;
use crate::upstream::{Upstream, UpstreamError};
use table::{Meaning, NameTable};

/// What a request says of its repository, as parsed from path and query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spelling<'a> {
    /// `?ns=`, percent-decoded.
    pub ns: Option<&'a str>,
    /// The host in front of `/v2/`: `/docker.io/v2/…`.
    pub prefix: Option<&'a str>,
    /// The name between `/v2/` and the endpoint's word, percent-decoded.
    pub name: &'a str,
    /// The names under which the client reached this server (`Host`, `external_url`): an `ns` that
    /// equals one says nothing.
    pub own_hosts: &'a [&'a str],
}

/// A repository that content can be asked of.
#[derive(Clone)]
pub struct Repository {
    /// The upstream and the name there.
    pub id: RepositoryId,
    /// The upstream.
    pub upstream: Arc<Upstream>,
    /// Whether the request named its registry in any way. One that did not may mean another upstream
    /// than the default (some lazy pullers omit `ns` on blobs).
    pub explicit: bool,
}

/// The closed set of registries that names can mean.
pub struct Names {
    upstreams: Vec<Arc<Upstream>>,
    table: NameTable,
}

impl Names {
    /// Takes the configured upstreams.
    pub fn new(upstreams: Vec<Arc<Upstream>>) -> Self {
        let table = NameTable::new(upstreams.iter().map(|upstream| upstream.config().into()).collect());
        Self { upstreams, table }
    }

    /// Finds the repository that a request means, in the order of the reference documentation:
    /// `ns`, first component, (hosted namespace,) default upstream. Never looks anything up outside.
    ///
    /// A configured registry in the path (prefix or first component) wins over `ns`, and is stripped
    /// once. Errors: the registry is unknown or there is no default, the name is invalid, or the
    /// upstream's rules exclude the repository.
    pub fn resolve(&self, spelling: &Spelling<'_>) -> Result<Repository, RegistryError> {
        let Meaning { upstream, id, explicit } = self.table.resolve(spelling)?;
        Ok(Repository { id, upstream: Arc::clone(&self.upstreams[upstream]), explicit })
    }

    /// The name in a request that says no registry in any way: it means a hosted repository, where there is a namespace
    /// of its first component, and the default upstream otherwise.
    pub fn find_unqualified<'a>(&self, spelling: &Spelling<'a>) -> Option<&'a str> {
        self.table.find_unqualified(spelling)
    }

    /// Whether `host` is the name or an alias of a registry: decides whether `/v2/<host>/` exists.
    pub fn knows(&self, host: &str) -> bool {
        self.table.find(host).is_some()
    }

    /// The upstream with that name or alias.
    pub fn find_upstream(&self, host: &str) -> Option<&Arc<Upstream>> {
        self.table.find(host).map(|place| &self.upstreams[place])
    }

    /// All upstreams, in the order of the configuration.
    pub fn upstreams(&self) -> &[Arc<Upstream>] {
        &self.upstreams
    }

    /// How any client can spell a repository, whatever the default: `docker.io/library/nginx`. These are
    /// the catalogue's names; [`Self::resolve`] reads them back.
    pub fn client_name(&self, id: &RepositoryId) -> String {
        self.table.client_name(id)
    }

    /// Reads a name of the catalogue, as [`Self::client_name`] wrote it, whether it can be pulled or not.
    pub fn read_client_name(&self, text: &str) -> Option<RepositoryId> {
        self.table.read_client_name(text)
    }

    /// Finds the repository of an id from the node's index, if its upstream is still configured and
    /// its rules still allow it. It counts as explicit: it needs no second guess.
    pub fn find_repository(&self, id: &RepositoryId) -> Option<Repository> {
        let place = self.upstreams.iter().position(|upstream| *upstream.config().name == *id.upstream)?;
        self.table.allows(place, &id.name).then(|| Repository {
            id: id.clone(),
            upstream: Arc::clone(&self.upstreams[place]),
            explicit: true,
        })
    }
}

impl fmt::Debug for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.id.fmt(f)
    }
}

impl Repository {
    /// The name at the upstream.
    pub const fn name(&self) -> &RepositoryName {
        &self.id.name
    }

    /// That its upstream was waited for in vain.
    pub(super) fn unanswered(&self, patience: Duration) -> UpstreamError {
        UpstreamError::Unreachable {
            upstream: self.upstream.config().name.clone(),
            reason: format!("no answer within {patience:?}"),
        }
    }
}

#[cfg(test)]
mod tests;
