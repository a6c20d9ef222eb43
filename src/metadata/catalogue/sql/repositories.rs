//! The tables `namespace` and `repository`.

use async_trait::async_trait;

use super::SqlCatalogue;
use super::session::Session;
use super::values::{Row, values};
use crate::metadata::MetadataError;
use crate::metadata::catalogue::{
    CatalogueError, ChangeKind, HostedRepositories, Namespace, Place, Presence, Result, Stamp,
};
use crate::oci::RepositoryName;
use crate::runtime::Timestamp;

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
        if created > 0 || begin_anew(&mut session, name, stamp).await? {
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
                 WHERE name > $1 AND (deleted_at IS NULL) = ($2 = 1) AND purged_at IS NULL
                 ORDER BY name LIMIT $3",
                values![after.map_or("", Namespace::as_str), is_live(presence), limit],
            )
            .await?;
        rows.iter().map(read_place).collect()
    }

    async fn find_namespace(&self, name: &Namespace) -> Result<Option<Place<Namespace>>> {
        let mut session = self.read().await?;
        let row = session
            .find(
                "SELECT name, created_at, created_by, deleted_at, deleted_by FROM namespace
                 WHERE name = $1 AND deleted_at IS NULL",
                values![name.as_str()],
            )
            .await?;
        row.as_ref().map(read_place).transpose()
    }

    async fn find_deleted_namespace(&self, name: &Namespace) -> Result<Option<Place<Namespace>>> {
        let mut session = self.read().await?;
        let row = session
            .find(
                "SELECT name, created_at, created_by, deleted_at, deleted_by FROM namespace
                 WHERE name = $1 AND deleted_at IS NOT NULL AND purged_at IS NULL",
                values![name.as_str()],
            )
            .await?;
        row.as_ref().map(read_place).transpose()
    }

    async fn find_namespace_end(&self, name: &Namespace) -> Result<Option<Timestamp>> {
        let mut session = self.read().await?;
        let row = session
            .find(
                "SELECT deleted_at + restore_for_ms AS ends_at FROM namespace
                 WHERE name = $1 AND deleted_at IS NOT NULL AND purged_at IS NULL",
                values![name.as_str()],
            )
            .await?;
        Ok(row.map(|row| row.timestamp("ends_at")).transpose()?)
    }

    async fn find_namespace_policy(&self, name: &Namespace) -> Result<Option<String>> {
        let mut session = self.read().await?;
        let row = session
            .find(
                "SELECT policy FROM namespace WHERE name = $1 AND deleted_at IS NULL",
                values![name.as_str()],
            )
            .await?;
        Ok(row.map(|row| row.text("policy")).transpose()?)
    }

    async fn set_namespace_policy(&self, name: &Namespace, policy: &str, stamp: &Stamp) -> Result<()> {
        let Retention { restore_for_ms, keep_untagged } = Retention::read(policy)?;
        let mut session = self.begin().await?;
        let changed = session
            .execute(
                "UPDATE namespace SET policy = $2, restore_for_ms = $3, keeps_untagged = $4
                 WHERE name = $1 AND deleted_at IS NULL AND policy <> $2",
                values![name.as_str(), policy, restore_for_ms, u32::from(keep_untagged)],
            )
            .await?;
        if changed > 0 {
            session.note(ChangeKind::NamespaceChanged, name.as_str(), None, None, stamp);
        } else {
            require_namespace(&mut session, name).await?;
        }
        Ok(session.commit().await?)
    }

    async fn list_namespace_policies(&self) -> Result<Vec<(Namespace, String)>> {
        let mut session = self.read().await?;
        let rows = session
            .fetch("SELECT name, policy FROM namespace WHERE deleted_at IS NULL ORDER BY name", vec![])
            .await?;
        rows.iter().map(|row| Ok((row.parsed("name")?, row.text("policy")?))).collect()
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

    async fn find_deleted_repository(&self, name: &RepositoryName) -> Result<Option<Place<RepositoryName>>> {
        let mut session = self.read().await?;
        let row = session
            .find(
                "SELECT name, created_at, created_by, deleted_at, deleted_by FROM repository
                 WHERE name = $1 AND deleted_at IS NOT NULL",
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
                    AND namespace.deleted_at IS NULL AND repository.purged_at IS NULL
                 ORDER BY repository.name LIMIT $3",
                values![after.map_or("", RepositoryName::as_str), is_live(presence), limit],
            )
            .await?;
        rows.iter().map(read_place).collect()
    }
}

/// What a policy says of how long what is deleted can come back. The statements that remove look at it under their
/// locks, so that it lies in columns beside the policy.
#[derive(Debug, serde::Deserialize)]
#[serde(default)]
struct Retention {
    restore_for_ms: u64,
    keep_untagged: bool,
}

impl Default for Retention {
    fn default() -> Self {
        Self { restore_for_ms: TWO_WEEKS_MS, keep_untagged: false }
    }
}

impl Retention {
    fn read(policy: &str) -> Result<Self> {
        let read = serde_json::from_str(policy);
        Ok(read.ok().ok_or(MetadataError::Unreadable { column: "policy" })?)
    }
}

/// The default of the column `restore_for_ms`, and of the policy.
const TWO_WEEKS_MS: u64 = 14 * 24 * 3600 * 1000;

/// Takes the name of a namespace whose last repositories are being removed, and says whether there was one.
async fn begin_anew(session: &mut Session, name: &Namespace, stamp: &Stamp) -> Result<bool> {
    let begun = session
        .execute(
            "UPDATE namespace SET created_at = $2, created_by = $3, deleted_at = NULL, deleted_by = NULL,
                purged_at = NULL, policy = '{}', restore_for_ms = $4, keeps_untagged = 0
             WHERE name = $1 AND purged_at IS NOT NULL",
            values![name.as_str(), stamp.at, &*stamp.by, TWO_WEEKS_MS],
        )
        .await?;
    Ok(begun > 0)
}

/// Restores a namespace that was deleted, and says whether there was one.
async fn revive_namespace(session: &mut Session, name: &Namespace, stamp: &Stamp) -> Result<bool> {
    let revived = session
        .execute(
            "UPDATE namespace SET deleted_at = NULL, deleted_by = NULL
             WHERE name = $1 AND deleted_at IS NOT NULL AND purged_at IS NULL",
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
