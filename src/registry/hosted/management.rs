//! Use cases of the administrator: namespaces and repositories come, go, and come back.

use super::{Hosting, HostingError, NamespacePolicy, Result};
use crate::auth::{RequestContext, policy};
use crate::metadata::catalogue::{CatalogueError, Namespace, Place, Presence};
use crate::oci::RepositoryName;
use crate::runtime::Timestamp;

/// A namespace with what it allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceRecord {
    /// The namespace.
    pub place: Place<Namespace>,
    /// Its policy.
    pub policy: NamespacePolicy,
}

/// A namespace or repository that was deleted, and until when it can be restored for certain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeletedPlace<N> {
    /// What was deleted.
    pub place: Place<N>,
    /// Until when.
    pub restorable_until: Timestamp,
}

impl Hosting {
    /// Lists the namespaces that are there, in the order of their names.
    pub async fn list_namespaces(
        &self,
        context: &RequestContext,
        after: Option<&Namespace>,
        limit: u32,
    ) -> Result<Vec<NamespaceRecord>> {
        policy::require_administrator(context)?;
        let mut records = Vec::new();
        for place in self.catalogue.list_namespaces(Presence::Live, after, limit).await? {
            // One that was deleted meanwhile is not there.
            if let Some(policy) = self.read_policy(&place.name).await? {
                records.push(NamespaceRecord { place, policy });
            }
        }
        Ok(records)
    }

    /// Lists the namespaces that were deleted and can be restored, in the order of their names.
    pub async fn list_deleted_namespaces(
        &self,
        context: &RequestContext,
        after: Option<&Namespace>,
        limit: u32,
    ) -> Result<Vec<DeletedPlace<Namespace>>> {
        policy::require_administrator(context)?;
        let mut deleted = Vec::new();
        for place in self.catalogue.list_namespaces(Presence::Deleted, after, limit).await? {
            if let Some(until) = self.catalogue.find_namespace_end(&place.name).await? {
                deleted.push(DeletedPlace { place, restorable_until: until });
            }
        }
        Ok(deleted)
    }

    /// Finds a namespace that is there.
    pub async fn find_namespace(
        &self,
        context: &RequestContext,
        name: &Namespace,
    ) -> Result<NamespaceRecord> {
        policy::require_administrator(context)?;
        let place = self.catalogue.find_namespace(name).await?.ok_or(CatalogueError::NamespaceUnknown)?;
        let policy = self.read_policy(name).await?.ok_or(CatalogueError::NamespaceUnknown)?;
        Ok(NamespaceRecord { place, policy })
    }

    /// Creates a namespace. One that is there is left as it is, and one that was deleted is to be restored by who
    /// knows what it holds: both are conflicts.
    pub async fn create_namespace(
        &self,
        context: &RequestContext,
        name: &Namespace,
        allowed: &NamespacePolicy,
    ) -> Result<NamespaceRecord> {
        policy::require_administrator(context)?;
        if self.catalogue.find_namespace(name).await?.is_some() {
            return Err(HostingError::Conflict(format!("namespace {name} is there already")));
        }
        if let Some(place) = self.catalogue.find_deleted_namespace(name).await? {
            let at = place.deleted.map(|deleted| deleted.at.to_rfc3339()).unwrap_or_default();
            return Err(HostingError::Conflict(format!(
                "namespace {name} was deleted at {at} and holds what it held: restore it instead"
            )));
        }
        let stamp = self.stamp(context);
        self.catalogue.create_namespace(name, &stamp).await?;
        self.catalogue.set_namespace_policy(name, &allowed.to_json(), &stamp).await?;
        self.refresh_namespaces().await?;
        tracing::info!(namespace.name = %name, by = &*stamp.by, "namespace was created");
        self.find_namespace(context, name).await
    }

    /// Replaces the policy of a namespace.
    pub async fn set_namespace_policy(
        &self,
        context: &RequestContext,
        name: &Namespace,
        allowed: &NamespacePolicy,
    ) -> Result<NamespaceRecord> {
        policy::require_administrator(context)?;
        let stamp = self.stamp(context);
        self.catalogue.set_namespace_policy(name, &allowed.to_json(), &stamp).await?;
        self.refresh_namespaces().await?;
        tracing::info!(namespace.name = %name, by = &*stamp.by, "policy of a namespace was set");
        self.find_namespace(context, name).await
    }

    /// Deletes a namespace with all its repositories, which can be restored.
    pub async fn delete_namespace(
        &self,
        context: &RequestContext,
        name: &Namespace,
    ) -> Result<DeletedPlace<Namespace>> {
        policy::require_administrator(context)?;
        let stamp = self.stamp(context);
        self.catalogue.delete_namespace(name, &stamp).await?;
        self.refresh_namespaces().await?;
        tracing::info!(namespace.name = %name, by = &*stamp.by, "namespace was deleted");
        let place = self.catalogue.find_deleted_namespace(name).await?;
        let until = self.catalogue.find_namespace_end(name).await?;
        let (Some(place), Some(restorable_until)) = (place, until) else {
            return Err(HostingError::Conflict(format!(
                "namespace {name} was restored at once by somebody else"
            )));
        };
        Ok(DeletedPlace { place, restorable_until })
    }

    /// Restores a namespace with all that it held.
    pub async fn restore_namespace(
        &self,
        context: &RequestContext,
        name: &Namespace,
    ) -> Result<NamespaceRecord> {
        policy::require_administrator(context)?;
        let stamp = self.stamp(context);
        self.catalogue.restore_namespace(name, &stamp).await?;
        self.refresh_namespaces().await?;
        tracing::info!(namespace.name = %name, by = &*stamp.by, "namespace was restored");
        self.find_namespace(context, name).await
    }

    /// Lists the repositories that are there, in the order of their names.
    pub async fn list_hosted_repositories(
        &self,
        context: &RequestContext,
        after: Option<&RepositoryName>,
        limit: u32,
    ) -> Result<Vec<Place<RepositoryName>>> {
        policy::require_administrator(context)?;
        Ok(self.catalogue.list_repositories(Presence::Live, after, limit).await?)
    }

    /// Lists the repositories that were deleted and can be restored, in the order of their names. Those of a deleted
    /// namespace come back with that.
    pub async fn list_deleted_repositories(
        &self,
        context: &RequestContext,
        after: Option<&RepositoryName>,
        limit: u32,
    ) -> Result<Vec<DeletedPlace<RepositoryName>>> {
        policy::require_administrator(context)?;
        let mut deleted = Vec::new();
        for place in self.catalogue.list_repositories(Presence::Deleted, after, limit).await? {
            let policy = self.policy_of(&place.name).await?;
            deleted.push(deleted_place(place, &policy));
        }
        Ok(deleted)
    }

    /// Deletes a repository with all that it holds, which can be restored.
    pub async fn delete_repository(
        &self,
        context: &RequestContext,
        name: &RepositoryName,
    ) -> Result<DeletedPlace<RepositoryName>> {
        policy::require_administrator(context)?;
        let stamp = self.stamp(context);
        self.catalogue.delete_repository(name, &stamp).await?;
        tracing::info!(repository.name = %name, by = &*stamp.by, "repository was deleted");
        let place = self.catalogue.find_deleted_repository(name).await?;
        let place = place.ok_or_else(|| {
            HostingError::Conflict(format!("repository {name} was restored at once by somebody else"))
        })?;
        Ok(deleted_place(place, &self.policy_of(name).await?))
    }

    /// Restores a repository with all that it held.
    pub async fn restore_repository(
        &self,
        context: &RequestContext,
        name: &RepositoryName,
    ) -> Result<Place<RepositoryName>> {
        policy::require_administrator(context)?;
        let stamp = self.stamp(context);
        self.catalogue.restore_repository(name, &stamp).await?;
        tracing::info!(repository.name = %name, by = &*stamp.by, "repository was restored");
        let found = self.catalogue.find_repository(name).await?;
        found.ok_or(HostingError::Catalogue(CatalogueError::RepositoryUnknown))
    }

    /// The policy that holds in a repository; the default where its namespace is not there.
    pub async fn policy_of(&self, repository: &RepositoryName) -> Result<NamespacePolicy> {
        Ok(self.read_policy(&Namespace::of(repository)).await?.unwrap_or_default())
    }

    pub(super) async fn read_policy(&self, name: &Namespace) -> Result<Option<NamespacePolicy>> {
        let Some(text) = self.catalogue.find_namespace_policy(name).await? else { return Ok(None) };
        let read = NamespacePolicy::parse(&text);
        read.map(Some)
            .map_err(|fault| HostingError::Conflict(format!("the policy of {name} cannot be read: {fault}")))
    }
}

fn deleted_place(place: Place<RepositoryName>, policy: &NamespacePolicy) -> DeletedPlace<RepositoryName> {
    let deleted_at = place.deleted.as_ref().map(|deleted| deleted.at).unwrap_or_default();
    DeletedPlace { place, restorable_until: deleted_at.after(policy.restore_for()) }
}
