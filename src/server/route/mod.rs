//! From a request line to what it asks for, and back to the client's own spelling of it.
//!
//! Pure: the raw path is split first and each segment percent-decoded once after, so that an escaped
//! slash can never move a word of the API. Paths are read from their right end, because repositories
//! may be named `tags`, `a/blobs` or `a/manifests/b`. Which registries exist is not known here.

mod error;
mod parse;
mod path;

use crate::auth::policy::Action;
use crate::oci::{Digest, Reference, encode_query};
use crate::registry::Spelling;

pub use error::RouteError;
pub use parse::parse;

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The registry's host in front of `/v2/`, percent-decoded: `/docker.io/v2/…`.
    pub prefix: Option<String>,
    /// `?ns=`, percent-decoded; `None` also where it is empty.
    pub ns: Option<String>,
    /// What is meant under `/v2/`.
    pub target: Target,
    /// The other parameters, percent-decoded, in order; unknown and repeated ones included.
    pub query: Vec<(String, String)>,
}

/// What is meant under `/v2/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `/v2/`, or `/v2/<registry>/`, which some clients ask in its place.
    Base {
        /// The single component behind `/v2/`: the path exists only where that names a registry.
        registry: Option<String>,
    },
    /// `/v2/_catalog`
    Catalog,
    /// `/token`: what challenges lead to.
    Token,
    /// `/v2/<name>/…`
    Repository {
        /// The name as the client spells it, percent-decoded, at most 255 bytes. It has the grammar of
        /// a repository name, except that its first component may be a host with upper case and port.
        name: String,
        /// What is to be done with it.
        operation: Operation,
    },
}

/// What is to be done with a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// GET or HEAD of a manifest.
    PullManifest(Reference),
    /// PUT of a manifest.
    PushManifest(Reference),
    /// DELETE of a manifest or tag.
    DeleteManifest(Reference),
    /// GET or HEAD of a blob.
    PullBlob(Digest),
    /// DELETE of a blob.
    DeleteBlob(Digest),
    /// GET or HEAD of the tags.
    ListTags,
    /// GET or HEAD of the referrers of a manifest.
    ListReferrers(Digest),
    /// POST: begin to push a blob.
    StartUpload,
    /// GET or HEAD: how far a push has come.
    StatUpload(String),
    /// PATCH: push a part.
    AppendUpload(String),
    /// PUT: finish a push.
    FinishUpload(String),
    /// DELETE: give a push up.
    CancelUpload(String),
}

impl Route {
    /// The kind of route as one word: the label of logs and metrics.
    pub const fn as_str(&self) -> &'static str {
        match &self.target {
            Target::Base { .. } => "base",
            Target::Catalog => "catalog",
            Target::Token => "token",
            Target::Repository { operation, .. } => operation.as_str(),
        }
    }

    /// What the actor must be allowed to do.
    pub const fn action(&self) -> Action {
        match &self.target {
            Target::Base { .. } | Target::Token => Action::Pull,
            Target::Catalog => Action::List,
            Target::Repository { operation, .. } => operation.action(),
        }
    }

    /// How the request names its repository, where it names one. `own_hosts` are the names under which
    /// the client reached this server.
    pub fn spelling<'a>(&'a self, own_hosts: &'a [&'a str]) -> Option<Spelling<'a>> {
        let Target::Repository { name, .. } = &self.target else { return None };
        Some(Spelling { ns: self.ns.as_deref(), prefix: self.prefix.as_deref(), name, own_hosts })
    }

    /// The first parameter of that name.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The path in the client's own spelling, with `ns` and `parameters` as its query: what `Link`
    /// takes for the next page. Relative to the server, so that it is of the origin that the client
    /// used. Safe in a header, whatever `parameters` hold; an `ns` among them is left out.
    pub fn link(&self, parameters: &[(String, String)]) -> String {
        self.with_query(self.path(), parameters)
    }

    /// The path of another operation on the same repository, in the client's own spelling and with
    /// its `ns`: what `Location` takes. `None` where the route is about no repository.
    pub fn location(&self, operation: &Operation) -> Option<String> {
        let Target::Repository { name, .. } = &self.target else { return None };
        let path = path::of_repository(self.prefix.as_deref(), name, operation);
        Some(self.with_query(path, &[]))
    }

    fn path(&self) -> String {
        let prefix = self.prefix.as_deref();
        match &self.target {
            Target::Base { registry } => path::of_base(prefix, registry.as_deref()),
            Target::Catalog => path::of_catalog(prefix),
            Target::Token => TOKEN_PATH.to_owned(),
            Target::Repository { name, operation } => path::of_repository(prefix, name, operation),
        }
    }

    fn with_query(&self, mut path: String, parameters: &[(String, String)]) -> String {
        let ours = self.ns.as_deref().map(|ns| (NS, ns));
        let others = parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let pairs: Vec<_> = others.filter(|(name, _)| *name != NS).chain(ours).collect();
        if !pairs.is_empty() {
            path.push('?');
            path.push_str(&encode_query(&pairs));
        }
        path
    }
}

impl Operation {
    const fn as_str(&self) -> &'static str {
        match self {
            Self::PullManifest(_) | Self::PushManifest(_) | Self::DeleteManifest(_) => "manifest",
            Self::PullBlob(_) | Self::DeleteBlob(_) => "blob",
            Self::ListTags => "tags",
            Self::ListReferrers(_) => "referrers",
            Self::StartUpload
            | Self::StatUpload(_)
            | Self::AppendUpload(_)
            | Self::FinishUpload(_)
            | Self::CancelUpload(_) => "upload",
        }
    }

    const fn action(&self) -> Action {
        match self {
            Self::PullManifest(_) | Self::PullBlob(_) | Self::ListTags | Self::ListReferrers(_) => {
                Action::Pull
            }
            Self::DeleteManifest(_) | Self::DeleteBlob(_) => Action::Delete,
            Self::PushManifest(_)
            | Self::StartUpload
            | Self::StatUpload(_)
            | Self::AppendUpload(_)
            | Self::FinishUpload(_)
            | Self::CancelUpload(_) => Action::Push,
        }
    }
}

/// Where tokens are issued, whatever registry they are for.
pub const TOKEN_PATH: &str = "/token";

/// The parameter that names the registry.
const NS: &str = "ns";

#[cfg(test)]
mod tests;
