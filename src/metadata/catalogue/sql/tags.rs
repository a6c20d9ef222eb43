//! The tables `tag_history` and `tag`.

use async_trait::async_trait;

use super::SqlCatalogue;
use super::lookups::{find_repository, has_manifest, lock_repository};
use super::manifests::revive;
use super::session::Session;
use super::values::{Row, values};
use crate::metadata::catalogue::{CatalogueError, ChangeKind, HostedTags, Result, Stamp, TagChange};
use crate::oci::{Digest, RepositoryName, Tag};
use crate::runtime::Timestamp;

#[async_trait]
impl HostedTags for SqlCatalogue {
    async fn put_tag(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        digest: &Digest,
        stamp: &Stamp,
    ) -> Result<()> {
        let mut session = self.begin().await?;
        let id = lock_repository(&mut session, repository).await?;
        if !has_manifest(&mut session, id, digest).await? {
            return Err(CatalogueError::ManifestUnknown);
        }
        move_tag(&mut session, (id, repository), tag, Some(digest), stamp).await?;
        Ok(session.commit().await?)
    }

    async fn find_tag(&self, repository: &RepositoryName, tag: &Tag) -> Result<Option<Digest>> {
        let mut session = self.read().await?;
        let Some(id) = find_repository(&mut session, repository).await? else { return Ok(None) };
        find_current(&mut session, id, tag).await
    }

    async fn find_tag_at(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        at: Timestamp,
    ) -> Result<Option<Digest>> {
        let mut session = self.read().await?;
        let Some(id) = find_repository(&mut session, repository).await? else { return Ok(None) };
        let row = session
            .find(
                "SELECT digest FROM tag_history WHERE repository_id = $1 AND tag = $2 AND changed_at <= $3
                 ORDER BY id DESC LIMIT 1",
                values![id, tag, at],
            )
            .await?;
        let Some(row) = row else { return Ok(None) };
        Ok(row.optional("digest")?)
    }

    async fn list_tags(
        &self,
        repository: &RepositoryName,
        last: Option<&Tag>,
        limit: u32,
    ) -> Result<Vec<Tag>> {
        let mut session = self.read().await?;
        let Some(id) = find_repository(&mut session, repository).await? else {
            return Err(CatalogueError::RepositoryUnknown);
        };
        let rows = session
            .fetch(
                "SELECT tag FROM tag WHERE repository_id = $1 AND tag > $2 ORDER BY tag LIMIT $3",
                values![id, last.map_or("", Tag::as_str), limit],
            )
            .await?;
        rows.iter().map(|row| Ok(row.parsed("tag")?)).collect()
    }

    async fn list_tag_history(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<TagChange>> {
        let mut session = self.read().await?;
        let Some(id) = find_repository(&mut session, repository).await? else { return Ok(Vec::new()) };
        let rows = session
            .fetch(
                "SELECT id, digest, changed_at, changed_by FROM tag_history
                 WHERE repository_id = $1 AND tag = $2 AND id < $3 ORDER BY id DESC LIMIT $4",
                values![id, tag, before.unwrap_or(u64::MAX), limit],
            )
            .await?;
        rows.iter().map(read_change).collect()
    }

    async fn delete_tag(&self, repository: &RepositoryName, tag: &Tag, stamp: &Stamp) -> Result<()> {
        let mut session = self.begin().await?;
        let id = lock_repository(&mut session, repository).await?;
        if !move_tag(&mut session, (id, repository), tag, None, stamp).await? {
            return Err(CatalogueError::TagUnknown);
        }
        Ok(session.commit().await?)
    }

    async fn restore_tag(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        digest: &Digest,
        stamp: &Stamp,
    ) -> Result<()> {
        let mut session = self.begin().await?;
        let id = lock_repository(&mut session, repository).await?;
        let pointed = session
            .find(
                "SELECT digest FROM tag_history WHERE repository_id = $1 AND tag = $2 AND digest = $3 LIMIT 1",
                values![id, tag, digest],
            )
            .await?;
        pointed.ok_or(CatalogueError::TagUnknown)?;
        revive(&mut session, (id, repository), digest, stamp).await?;
        if !has_manifest(&mut session, id, digest).await? {
            return Err(CatalogueError::ManifestUnknown);
        }
        move_tag(&mut session, (id, repository), tag, Some(digest), stamp).await?;
        Ok(session.commit().await?)
    }
}

/// Appends to a tag's history what it points to from now on, unless it does already; says whether it did not. Needs the
/// repository's lock.
pub(super) async fn move_tag(
    session: &mut Session,
    (id, repository): (u64, &RepositoryName),
    tag: &Tag,
    digest: Option<&Digest>,
    stamp: &Stamp,
) -> Result<bool> {
    if find_current(session, id, tag).await?.as_ref() == digest {
        return Ok(false);
    }
    // A moment is never before that of the row before it, so that "as of" and the order of the rows agree.
    let row = session
        .find(
            "INSERT INTO tag_history (repository_id, tag, digest, changed_at, changed_by)
             SELECT $1, $2, $3, CASE WHEN latest > $4 THEN latest ELSE $4 END, $5
             FROM (SELECT (SELECT changed_at FROM tag_history WHERE repository_id = $1 AND tag = $2
                ORDER BY id DESC LIMIT 1) AS latest) AS earlier
             RETURNING id",
            values![id, tag, digest, stamp.at, &*stamp.by],
        )
        .await?;
    let number = row.map(|row| row.number("id")).transpose()?.unwrap_or_default();
    let kind = if let Some(digest) = digest {
        session
            .execute(
                "INSERT INTO tag (repository_id, tag, digest, history_id) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (repository_id, tag) DO UPDATE SET
                    digest = excluded.digest, history_id = excluded.history_id",
                values![id, tag, digest, number],
            )
            .await?;
        ChangeKind::TagMoved
    } else {
        session.execute("DELETE FROM tag WHERE repository_id = $1 AND tag = $2", values![id, tag]).await?;
        ChangeKind::TagDeleted
    };
    session.note(kind, repository.as_str(), Some(tag), digest, stamp);
    Ok(true)
}

async fn find_current(session: &mut Session, repository: u64, tag: &Tag) -> Result<Option<Digest>> {
    let row = session
        .find("SELECT digest FROM tag WHERE repository_id = $1 AND tag = $2", values![repository, tag])
        .await?;
    Ok(row.map(|row| row.parsed("digest")).transpose()?)
}

fn read_change(row: &Row) -> Result<TagChange> {
    Ok(TagChange {
        number: row.number("id")?,
        digest: row.optional("digest")?,
        stamp: row.stamp("changed_at", "changed_by")?,
    })
}
