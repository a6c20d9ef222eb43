//! The tables `namespace` and `repository`.

use async_trait::async_trait;

use super::SqlCatalogue;
use super::session::Session;
use super::values::{Row, values};
use crate::metadata::catalogue::{
    CatalogueError, ChangeKind, HostedRepositories, Namespace, Place, Presence, Result, Stamp,
};
use crate::oci::RepositoryName;

#[async_trait]
impl HostedRepositories for SqlCatalogue {
    async fn create_namespace(&self, name: &Namespace, stamp: &Stamp) -> Result<()> {
        let mut session = self.begin().await?;
        let created = session
            .execute(
                "INSERT INTO namespace (name, created_at, created_by) VALUES ($1, $2, $3)
                 ON CONFLICT (name) DO NOTHING",
                values![name.as_str(), stamp.at, &*stamp.by],
            )
            .await?;
        if created > 0 {
            session.note(ChangeKind::NamespaceCreated, name.as_str(), None, None, stamp);
        } else {
            revive_namespace(&mut session, name, stamp).await?;
        }
        Ok(session.commit().await?)
    }

    async fn delete_namespace(&self, name: &Namespace, stamp: &Stamp) -> Result<()> {
        let mut session = self.begin().await?;
        let deleted = session
            .execute(
                "UPDATE namespace SET deleted_at = $2, deleted_by = $3 WHERE name = $1 AND deleted_at IS NULL",
                values![name.as_str(), stamp.at, &*stamp.by],
            )
            .await?;
        if deleted == 0 {
            return Err(CatalogueError::NamespaceUnknown);
        }
        session.note(ChangeKind::NamespaceDeleted, name.as_str(), None, None, stamp);
        Ok(session.commit().await?)
    }

    async fn restore_namespace(&self, name: &Namespace, stamp: &Stamp) -> Result<()> {
        let mut session = self.begin().await?;
        if !revive_namespace(&mut session, name, stamp).await? {
            require_namespace(&mut session, name).await?;
        }
        Ok(session.commit().await?)
    }

    async fn list_namespaces(
        &self,
        presence: Presence,
        after: Option<&Namespace>,
        limit: u32,
    ) -> Result<Vec<Place<Namespace>>> {
        let mut session = self.read().await?;
        let rows = session
            .fetch(
                "SELECT name, created_at, created_by, deleted_at, deleted_by FROM namespace
                 WHERE name > $1 AND (deleted_at IS NULL) = ($2 = 1) ORDER BY name LIMIT $3",
                values![after.map_or("", Namespace::as_str), is_live(presence), limit],
            )
            .await?;
        rows.iter().map(read_place).collect()
    }

    async fn create_repository(&self, name: &RepositoryName, stamp: &Stamp) -> Result<()> {
        let mut session = self.begin().await?;
        let namespace = Namespace::of(name);
        require_namespace(&mut session, &namespace).await?;
        let created = session
            .execute(
                "INSERT INTO repository (name, namespace, created_at, created_by) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (name) DO NOTHING",
                values![name, namespace.as_str(), stamp.at, &*stamp.by],
            )
            .await?;
        if created > 0 {
            session.note(ChangeKind::RepositoryCreated, name.as_str(), None, None, stamp);
        } else {
            revive_repository(&mut session, name, stamp).await?;
        }
        Ok(session.commit().await?)
    }

    async fn find_repository(&self, name: &RepositoryName) -> Result<Option<Place<RepositoryName>>> {
        let mut session = self.read().await?;
        let row = session
            .find(
                "SELECT repository.name, repository.created_at, repository.created_by, repository.deleted_at,
                    repository.deleted_by
                 FROM repository JOIN namespace ON namespace.name = repository.namespace
                 WHERE repository.name = $1 AND repository.deleted_at IS NULL AND namespace.deleted_at IS NULL",
                values![name],
            )
            .await?;
        row.as_ref().map(read_place).transpose()
    }

    async fn delete_repository(&self, name: &RepositoryName, stamp: &Stamp) -> Result<()> {
        let mut session = self.begin().await?;
        let deleted = session
            .execute(
                "UPDATE repository SET deleted_at = $2, deleted_by = $3 WHERE name = $1 AND deleted_at IS NULL
                    AND EXISTS (SELECT 1 FROM namespace
                        WHERE namespace.name = repository.namespace AND namespace.deleted_at IS NULL)",
                values![name, stamp.at, &*stamp.by],
            )
            .await?;
        if deleted == 0 {
            return Err(CatalogueError::RepositoryUnknown);
        }
        session.note(ChangeKind::RepositoryDeleted, name.as_str(), None, None, stamp);
        Ok(session.commit().await?)
    }

    async fn restore_repository(&self, name: &RepositoryName, stamp: &Stamp) -> Result<()> {
        let mut session = self.begin().await?;
        require_namespace(&mut session, &Namespace::of(name)).await?;
        if !revive_repository(&mut session, name, stamp).await? {
            let known = session.find("SELECT name FROM repository WHERE name = $1", values![name]).await?;
            known.ok_or(CatalogueError::RepositoryUnknown)?;
        }
        Ok(session.commit().await?)
    }

    async fn list_repositories(
        &self,
        presence: Presence,
        after: Option<&RepositoryName>,
        limit: u32,
    ) -> Result<Vec<Place<RepositoryName>>> {
        let mut session = self.read().await?;
        let rows = session
            .fetch(
                "SELECT repository.name, repository.created_at, repository.created_by, repository.deleted_at,
                    repository.deleted_by
                 FROM repository JOIN namespace ON namespace.name = repository.namespace
                 WHERE repository.name > $1 AND (repository.deleted_at IS NULL) = ($2 = 1)
                    AND namespace.deleted_at IS NULL
                 ORDER BY repository.name LIMIT $3",
                values![after.map_or("", RepositoryName::as_str), is_live(presence), limit],
            )
            .await?;
        rows.iter().map(read_place).collect()
    }
}

/// Restores a namespace that was deleted, and says whether there was one.
async fn revive_namespace(session: &mut Session, name: &Namespace, stamp: &Stamp) -> Result<bool> {
    let revived = session
        .execute(
            "UPDATE namespace SET deleted_at = NULL, deleted_by = NULL WHERE name = $1 AND deleted_at IS NOT NULL",
            values![name.as_str()],
        )
        .await?;
    if revived > 0 {
        session.note(ChangeKind::NamespaceRestored, name.as_str(), None, None, stamp);
    }
    Ok(revived > 0)
}

/// Restores a repository that was deleted, and says whether there was one.
async fn revive_repository(session: &mut Session, name: &RepositoryName, stamp: &Stamp) -> Result<bool> {
    let revived = session
        .execute(
            "UPDATE repository SET deleted_at = NULL, deleted_by = NULL WHERE name = $1 AND deleted_at IS NOT NULL",
            values![name],
        )
        .await?;
    if revived > 0 {
        session.note(ChangeKind::RepositoryRestored, name.as_str(), None, None, stamp);
    }
    Ok(revived > 0)
}

/// Fails where the namespace is not there; one that is stays until this transaction ends.
async fn require_namespace(session: &mut Session, name: &Namespace) -> Result<()> {
    session.lock("SELECT name FROM namespace WHERE name = $1 FOR SHARE", values![name.as_str()]).await?;
    let live = session
        .find("SELECT name FROM namespace WHERE name = $1 AND deleted_at IS NULL", values![name.as_str()])
        .await?;
    live.map(|_| ()).ok_or(CatalogueError::NamespaceUnknown)
}

/// The presence as a number for a statement: the engines differ in truth values.
const fn is_live(presence: Presence) -> u32 {
    match presence {
        Presence::Live => 1,
        Presence::Deleted => 0,
    }
}

fn read_place<N: std::str::FromStr>(row: &Row) -> Result<Place<N>> {
    Ok(Place {
        name: row.parsed("name")?,
        created: row.stamp("created_at", "created_by")?,
        deleted: row.optional_stamp("deleted_at", "deleted_by")?,
    })
}
