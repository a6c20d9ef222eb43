//! Namespaces and repositories that are hosted here.

use std::fmt;
use std::str::FromStr;

use async_trait::async_trait;

use super::{Result, Stamp};
use crate::oci::{NameError, RepositoryName};
use crate::runtime::Timestamp;

/// The first component of the names of repositories that belong together: `team` of `team/app`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Namespace(RepositoryName);

impl Namespace {
    /// The namespace of a repository; a name of one component is a namespace of its own.
    pub fn of(repository: &RepositoryName) -> Self {
        let first = repository.split_first().and_then(|(first, _)| first.parse().ok());
        Self(first.unwrap_or_else(|| repository.clone()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl FromStr for Namespace {
    type Err = NameError;

    fn from_str(text: &str) -> std::result::Result<Self, NameError> {
        if text.contains('/') { Err(NameError::Malformed) } else { text.parse().map(Self) }
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A namespace or a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place<N> {
    /// Its name.
    pub name: N,
    /// When it was created, and by whom.
    pub created: Stamp,
    /// When it was deleted, and by whom; `None` while it is there.
    pub deleted: Option<Stamp>,
}

/// Which places a listing is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Those that are there.
    Live,
    /// Those that were deleted, and can be restored.
    Deleted,
}

/// Keeps namespaces and repositories. What is deleted keeps all that it holds, and is as unknown as what never was,
/// until it is restored.
#[async_trait]
pub trait HostedRepositories: Send + Sync {
    /// Creates a namespace; one that is there is left as it is, one that was deleted is restored.
    async fn create_namespace(&self, name: &Namespace, stamp: &Stamp) -> Result<()>;

    /// Deletes a namespace, and hides its repositories. Fails where there is none.
    async fn delete_namespace(&self, name: &Namespace, stamp: &Stamp) -> Result<()>;

    /// Restores a namespace; one that is there is left as it is. Its repositories are again what they were.
    async fn restore_namespace(&self, name: &Namespace, stamp: &Stamp) -> Result<()>;

    /// Lists namespaces in the order of their names.
    async fn list_namespaces(
        &self,
        presence: Presence,
        after: Option<&Namespace>,
        limit: u32,
    ) -> Result<Vec<Place<Namespace>>>;

    /// Finds a namespace that is there.
    async fn find_namespace(&self, name: &Namespace) -> Result<Option<Place<Namespace>>>;

    /// Finds a namespace that was deleted and can be restored.
    async fn find_deleted_namespace(&self, name: &Namespace) -> Result<Option<Place<Namespace>>>;

    /// Until when a namespace that was deleted can be restored for certain.
    async fn find_namespace_end(&self, name: &Namespace) -> Result<Option<Timestamp>>;

    /// Finds the policy of a namespace that is there: the JSON object that was set last, `{}` where none was.
    async fn find_namespace_policy(&self, name: &Namespace) -> Result<Option<String>>;

    /// Replaces the policy of a namespace; the same again changes nothing. Fails where there is no such namespace.
    async fn set_namespace_policy(&self, name: &Namespace, policy: &str, stamp: &Stamp) -> Result<()>;

    /// Lists the policies of all namespaces that are there, in the order of their names.
    async fn list_namespace_policies(&self) -> Result<Vec<(Namespace, String)>>;

    /// Creates a repository in a namespace that is there; one that is there is left as it is, one that was deleted is
    /// restored with all that it held.
    async fn create_repository(&self, name: &RepositoryName, stamp: &Stamp) -> Result<()>;

    /// Finds a repository that is there.
    async fn find_repository(&self, name: &RepositoryName) -> Result<Option<Place<RepositoryName>>>;

    /// Finds a repository that was deleted and can be restored.
    async fn find_deleted_repository(&self, name: &RepositoryName) -> Result<Option<Place<RepositoryName>>>;

    /// Deletes a repository. Fails where there is none.
    async fn delete_repository(&self, name: &RepositoryName, stamp: &Stamp) -> Result<()>;

    /// Restores a repository whose namespace is there; one that is there is left as it is.
    async fn restore_repository(&self, name: &RepositoryName, stamp: &Stamp) -> Result<()>;

    /// Lists repositories of namespaces that are there, in the order of their names.
    async fn list_repositories(
        &self,
        presence: Presence,
        after: Option<&RepositoryName>,
        limit: u32,
    ) -> Result<Vec<Place<RepositoryName>>>;
}
