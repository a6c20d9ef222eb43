//! The tables `tag_history` and `tag`.

use async_trait::async_trait;

use super::SqlCatalogue;
use super::lookups::{find_repository, has_manifest, lock_repository, require_repository};
use super::manifests::revive;
use super::session::Session;
use super::values::{Row, values};
use crate::metadata::catalogue::{
    CatalogueError, ChangeKind, DueTag, HostedTags, Result, Stamp, TagChange, TagCondition, TagState,
};
use crate::oci::{Digest, RepositoryName, Tag};
use crate::runtime::Timestamp;

/// All about the tags of the repository `$1`, to be narrowed down.
macro_rules! states {
    () => {
        "SELECT tag.tag, tag.digest, history_id, changed_at, changed_by, tag.expires_at, used_at FROM tag
         JOIN tag_history ON tag_history.id = history_id
         LEFT JOIN content_use ON content_use.repository_id = tag.repository_id AND content_use.digest = tag.digest
         WHERE tag.repository_id = $1"
    };
}

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
        move_tag(&mut session, (id, repository), tag, Target::plain(digest), stamp).await?;
        Ok(session.commit().await?)
    }

    async fn find_tag(&self, repository: &RepositoryName, tag: &Tag) -> Result<Option<Digest>> {
        let mut session = self.read().await?;
        let Some(id) = find_repository(&mut session, repository).await? else { return Ok(None) };
        Ok(find_current(&mut session, id, tag).await?.map(|current| current.digest))
    }

    async fn find_tag_state(&self, repository: &RepositoryName, tag: &Tag) -> Result<Option<TagState>> {
        let mut session = self.read().await?;
        let Some(id) = find_repository(&mut session, repository).await? else { return Ok(None) };
        let row = session.find(concat!(states!(), " AND tag.tag = $2"), values![id, tag]).await?;
        row.as_ref().map(read_state).transpose()
    }

    async fn list_tag_states(
        &self,
        repository: &RepositoryName,
        last: Option<&Tag>,
        limit: u32,
    ) -> Result<Vec<TagState>> {
        let mut session = self.read().await?;
        let id = require_repository(&mut session, repository).await?;
        let rows = session
            .fetch(
                concat!(states!(), " AND tag.tag > $2 ORDER BY tag.tag LIMIT $3"),
                values![id, last.map_or("", Tag::as_str), limit],
            )
            .await?;
        rows.iter().map(read_state).collect()
    }

    async fn set_tag_expiry(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        expires_at: Option<Timestamp>,
        stamp: &Stamp,
    ) -> Result<()> {
        let mut session = self.begin().await?;
        let id = lock_repository(&mut session, repository).await?;
        let current = find_current(&mut session, id, tag).await?.ok_or(CatalogueError::TagUnknown)?;
        set_expiry(&mut session, (id, repository), tag, &current, expires_at, stamp).await?;
        Ok(session.commit().await?)
    }

    async fn list_due_tags(&self, now: Timestamp, limit: u32) -> Result<Vec<DueTag>> {
        let mut session = self.read().await?;
        let rows = session
            .fetch(
                "SELECT repository.name, tag.tag FROM tag JOIN repository ON repository.id = tag.repository_id
                 JOIN namespace ON namespace.name = repository.namespace
                 WHERE tag.expires_at <= $1 AND repository.deleted_at IS NULL AND namespace.deleted_at IS NULL
                 ORDER BY tag.expires_at, repository.name, tag.tag LIMIT $2",
                values![now, limit],
            )
            .await?;
        rows.iter()
            .map(|row| Ok(DueTag { repository: row.parsed("name")?, tag: row.parsed("tag")? }))
            .collect()
    }

    async fn retract_tag(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        condition: TagCondition,
        stamp: &Stamp,
    ) -> Result<bool> {
        let mut session = self.begin().await?;
        let id = lock_repository(&mut session, repository).await?;
        let Some(current) = find_current(&mut session, id, tag).await? else { return Ok(false) };
        let is_met = match condition {
            TagCondition::Unmoved(number) => current.number == number,
            TagCondition::Due(now) => current.expires_at.is_some_and(|expires_at| expires_at <= now),
        };
        if is_met {
            move_tag(&mut session, (id, repository), tag, Target::Nothing, stamp).await?;
            session.commit().await?;
        }
        Ok(is_met)
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
                "SELECT id, digest, changed_at, changed_by, expires_at, EXISTS (
                    SELECT 1 FROM manifest_link AS link
                    WHERE link.repository_id = $1 AND link.digest = tag_history.digest) AS is_restorable
                 FROM tag_history WHERE repository_id = $1 AND tag = $2 AND id < $3 ORDER BY id DESC LIMIT $4",
                values![id, tag, before.unwrap_or(u64::MAX), limit],
            )
            .await?;
        rows.iter().map(read_change).collect()
    }

    async fn delete_tag(&self, repository: &RepositoryName, tag: &Tag, stamp: &Stamp) -> Result<()> {
        let mut session = self.begin().await?;
        let id = lock_repository(&mut session, repository).await?;
        if !move_tag(&mut session, (id, repository), tag, Target::Nothing, stamp).await? {
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
                "SELECT expires_at FROM tag_history WHERE repository_id = $1 AND tag = $2 AND digest = $3
                 ORDER BY id DESC LIMIT 1",
                values![id, tag, digest],
            )
            .await?;
        let expires_at = pointed.ok_or(CatalogueError::TagUnknown)?.optional_timestamp("expires_at")?;
        let is_current =
            find_current(&mut session, id, tag).await?.is_some_and(|current| current.digest == *digest);
        revive(&mut session, (id, repository), digest, stamp).await?;
        if !has_manifest(&mut session, id, digest).await? {
            return Err(CatalogueError::ManifestUnknown);
        }
        if !is_current {
            let target = Target::Manifest { digest, expires_at: expires_at.filter(|at| *at > stamp.at) };
            move_tag(&mut session, (id, repository), tag, target, stamp).await?;
        }
        Ok(session.commit().await?)
    }
}

/// What a tag is to point to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target<'a> {
    /// Nothing: it is deleted.
    Nothing,
    /// A manifest, until the tag goes by itself.
    Manifest { digest: &'a Digest, expires_at: Option<Timestamp> },
}

impl<'a> Target<'a> {
    /// A manifest, for good.
    const fn plain(digest: &'a Digest) -> Self {
        Self::Manifest { digest, expires_at: None }
    }

    const fn parts(self) -> (Option<&'a Digest>, Option<Timestamp>) {
        match self {
            Self::Nothing => (None, None),
            Self::Manifest { digest, expires_at } => (Some(digest), expires_at),
        }
    }
}

/// What a tag points to.
struct Current {
    digest: Digest,
    number: u64,
    expires_at: Option<Timestamp>,
}

/// Fails where a tag points to another manifest. Needs the repository's lock.
pub(super) async fn require_unmoved(
    session: &mut Session,
    repository: u64,
    tag: &Tag,
    digest: &Digest,
) -> Result<()> {
    match find_current(session, repository, tag).await? {
        Some(current) if current.digest != *digest => Err(CatalogueError::TagImmutable(tag.clone())),
        _ => Ok(()),
    }
}

/// Appends to a tag's history what it points to from now on, unless it does already; says whether it did not. When it
/// expires is as the target says in either case. Needs the repository's lock.
pub(super) async fn move_tag(
    session: &mut Session,
    (id, repository): (u64, &RepositoryName),
    tag: &Tag,
    target: Target<'_>,
    stamp: &Stamp,
) -> Result<bool> {
    let (digest, expires_at) = target.parts();
    let current = find_current(session, id, tag).await?;
    if current.as_ref().map(|current| &current.digest) == digest {
        if let Some(current) = current {
            set_expiry(session, (id, repository), tag, &current, expires_at, stamp).await?;
        }
        return Ok(false);
    }
    let number = append(session, id, tag, target, stamp).await?;
    if let Some(current) = &current {
        session
            .execute(
                "UPDATE manifest_link SET loose_since = $3 WHERE repository_id = $1 AND digest = $2",
                values![id, &current.digest, stamp.at],
            )
            .await?;
    }
    let kind = if let Some(digest) = digest {
        session
            .execute(
                "INSERT INTO tag (repository_id, tag, digest, history_id, expires_at) VALUES ($1, $2, $3, $4, $5)
                 ON CONFLICT (repository_id, tag) DO UPDATE SET
                    digest = excluded.digest, history_id = excluded.history_id, expires_at = excluded.expires_at",
                values![id, tag, digest, number, expires_at],
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

/// Appends the row, and gives its number.
async fn append(
    session: &mut Session,
    repository: u64,
    tag: &Tag,
    target: Target<'_>,
    stamp: &Stamp,
) -> Result<u64> {
    let (digest, expires_at) = target.parts();
    // A moment is never before that of the row before it, so that "as of" and the order of the rows agree.
    let row = session
        .find(
            "INSERT INTO tag_history (repository_id, tag, digest, changed_at, changed_by, expires_at)
             SELECT $1, $2, $3, CASE WHEN latest > $4 THEN latest ELSE $4 END, $5, $6
             FROM (SELECT (SELECT changed_at FROM tag_history WHERE repository_id = $1 AND tag = $2
                ORDER BY id DESC LIMIT 1) AS latest) AS earlier
             RETURNING id",
            values![repository, tag, digest, stamp.at, &*stamp.by, expires_at],
        )
        .await?;
    Ok(row.map(|row| row.number("id")).transpose()?.unwrap_or_default())
}

/// Says when a tag goes by itself, in its row and in its last one of the history.
async fn set_expiry(
    session: &mut Session,
    (id, repository): (u64, &RepositoryName),
    tag: &Tag,
    current: &Current,
    expires_at: Option<Timestamp>,
    stamp: &Stamp,
) -> Result<()> {
    if current.expires_at == expires_at {
        return Ok(());
    }
    for statement in [
        "UPDATE tag SET expires_at = $2 WHERE history_id = $1 AND repository_id = $3 AND tag = $4",
        "UPDATE tag_history SET expires_at = $2 WHERE id = $1 AND repository_id = $3 AND tag = $4",
    ] {
        session.execute(statement, values![current.number, expires_at, id, tag]).await?;
    }
    session.note(ChangeKind::TagExpirySet, repository.as_str(), Some(tag), Some(&current.digest), stamp);
    Ok(())
}

async fn find_current(session: &mut Session, repository: u64, tag: &Tag) -> Result<Option<Current>> {
    let row = session
        .find(
            "SELECT digest, history_id, expires_at FROM tag WHERE repository_id = $1 AND tag = $2",
            values![repository, tag],
        )
        .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Current {
        digest: row.parsed("digest")?,
        number: row.number("history_id")?,
        expires_at: row.optional_timestamp("expires_at")?,
    }))
}

fn read_change(row: &Row) -> Result<TagChange> {
    Ok(TagChange {
        number: row.number("id")?,
        digest: row.optional("digest")?,
        stamp: row.stamp("changed_at", "changed_by")?,
        expires_at: row.optional_timestamp("expires_at")?,
        is_restorable: row.flag("is_restorable")?,
    })
}

fn read_state(row: &Row) -> Result<TagState> {
    Ok(TagState {
        tag: row.parsed("tag")?,
        digest: row.parsed("digest")?,
        number: row.number("history_id")?,
        since: row.stamp("changed_at", "changed_by")?,
        expires_at: row.optional_timestamp("expires_at")?,
        used_at: row.optional_timestamp("used_at")?,
    })
}
