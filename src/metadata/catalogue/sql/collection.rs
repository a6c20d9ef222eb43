//! What goes. Candidates are looked for without locks, and looked at again under them.

use async_trait::async_trait;

use super::SqlCatalogue;
use super::session::Session;
use super::values::{Row, values};
use super::{foresight, purge};
use crate::metadata::catalogue::{
    BlobSweep, ChangeKind, Collection, CondemnedBlob, Horizon, LinkPlace, LinkSweep, Prospect, Purged,
    Result, Stamp, StrayBlob,
};
use crate::oci::Digest;
use crate::runtime::Timestamp;

/// What is true of a row of `manifest_link`, called `link`, that is past its retention at `$1`; the grace time began at
/// `$2`. Whether another manifest of the repository holds it is left out.
macro_rules! past {
    () => {
        "NOT EXISTS (
            SELECT 1 FROM tag WHERE tag.repository_id = link.repository_id AND tag.digest = link.digest)
         AND EXISTS (
            SELECT 1 FROM repository JOIN namespace ON namespace.name = repository.namespace
            WHERE repository.id = link.repository_id AND repository.purged_at IS NULL
                AND (link.deleted_at + restore_for_ms < $1
                    OR (link.deleted_at IS NULL AND keeps_untagged = 0 AND link.loose_since + restore_for_ms < $1
                        AND NOT EXISTS (
                            SELECT 1 FROM content_use
                            WHERE content_use.repository_id = link.repository_id
                                AND content_use.digest = link.digest
                                AND (used_at >= $2 OR used_at + restore_for_ms >= $1))
                        AND EXISTS (
                            SELECT 1 FROM manifest
                            WHERE manifest.digest = link.digest AND recorded_at < $2))))"
    };
}
pub(super) use past;

/// That no manifest of the repository lists it and that its subject, which keeps what was not deleted, is not there.
macro_rules! unheld {
    () => {
        "NOT EXISTS (
            SELECT 1 FROM manifest_edge JOIN manifest_link AS listing ON listing.digest = parent
            WHERE child = link.digest AND kind = 'manifest' AND listing.repository_id = link.repository_id)
         AND (link.deleted_at IS NOT NULL OR link.subject IS NULL OR NOT EXISTS (
            SELECT 1 FROM manifest_link AS about
            WHERE about.repository_id = link.repository_id AND about.digest = link.subject))"
    };
}

macro_rules! candidates {
    () => {
        concat!(
            "SELECT link.repository_id, repository.name, link.digest FROM manifest_link AS link
             JOIN repository ON repository.id = link.repository_id WHERE ",
            past!(),
            " AND ",
            unheld!()
        )
    };
}

/// That a row of `blob_link`, called `link`, was neither made nor asked for since the grace time began at `$1`, and that
/// no manifest of the repository lists the blob.
macro_rules! unlisted {
    () => {
        "link.linked_at < $1
         AND NOT EXISTS (
            SELECT 1 FROM content_use WHERE content_use.repository_id = link.repository_id
                AND content_use.digest = link.digest AND used_at >= $1)
         AND NOT EXISTS (
            SELECT 1 FROM manifest_edge JOIN manifest_link ON manifest_link.digest = parent
            WHERE child = link.digest AND kind = 'blob' AND manifest_link.repository_id = link.repository_id)"
    };
}
pub(super) use unlisted;

#[async_trait]
impl Collection for SqlCatalogue {
    async fn seal_due_places(&self, now: Timestamp, limit: u32, stamp: &Stamp) -> Result<u32> {
        purge::seal_due_places(self, now, limit, stamp).await
    }

    async fn purge_sealed(&self, limit: u32) -> Result<Purged> {
        purge::purge_sealed(self, limit).await
    }

    async fn collect_manifests(&self, horizon: Horizon, limit: u32, stamp: &Stamp) -> Result<u32> {
        let Horizon { now, grace_since } = horizon;
        let mut candidates = Vec::new();
        for statement in [
            concat!(candidates!(), " AND link.deleted_at < $1 ORDER BY link.deleted_at LIMIT $3"),
            concat!(candidates!(), " AND link.loose_since < $1 ORDER BY link.loose_since LIMIT $3"),
        ] {
            let rows = self.read().await?.fetch(statement, values![now, grace_since, limit]).await?;
            candidates.extend(rows);
        }
        let mut collected = 0;
        for row in candidates {
            let place = read_place(&row)?;
            let mut session = self.begin().await?;
            if remove_manifest(&mut session, place, horizon).await? {
                let name = row.text("name")?;
                session.note(ChangeKind::ManifestCollected, &name, None, Some(&place.digest), stamp);
                session.commit().await?;
                collected += 1;
            }
        }
        Ok(collected)
    }

    async fn collect_links(
        &self,
        grace_since: Timestamp,
        after: Option<LinkPlace>,
        limit: u32,
    ) -> Result<LinkSweep> {
        let (repository, digest) = start_of(after);
        let looked_at = self
            .read()
            .await?
            .fetch(
                concat!(
                    "SELECT repository_id, digest, (",
                    unlisted!(),
                    ") AS goes FROM (SELECT repository_id, digest, linked_at FROM blob_link
                        WHERE (repository_id, digest) > ($2, $3) ORDER BY repository_id, digest LIMIT $4) AS link
                     ORDER BY repository_id, digest"
                ),
                values![grace_since, repository, digest.as_str(), limit],
            )
            .await?;
        let is_full = looked_at.len() == limit as usize;
        let next = looked_at.last().filter(|_| is_full).map(read_place).transpose()?;
        let mut collected = 0;
        for row in looked_at {
            if row.flag("goes")? && self.collect_link(read_place(&row)?, grace_since).await? {
                collected += 1;
            }
        }
        Ok(LinkSweep { collected, next })
    }

    async fn condemn_blobs(
        &self,
        grace_since: Timestamp,
        after: Option<&Digest>,
        limit: u32,
        at: Timestamp,
    ) -> Result<BlobSweep> {
        let after = after.map(Digest::to_string).unwrap_or_default();
        let looked_at = self
            .read()
            .await?
            .fetch(
                "SELECT digest, (recorded_at < $1 AND condemned_at IS NULL
                    AND NOT EXISTS (SELECT 1 FROM blob_link WHERE blob_link.digest = blob.digest)) AS goes
                 FROM blob WHERE digest > $2 ORDER BY digest LIMIT $3",
                values![grace_since, after.as_str(), limit],
            )
            .await?;
        let is_full = looked_at.len() == limit as usize;
        let next = looked_at.last().filter(|_| is_full).map(|row| row.parsed("digest")).transpose()?;
        let mut condemned = Vec::new();
        for row in looked_at {
            if row.flag("goes")? {
                condemned.extend(self.condemn(&row.parsed("digest")?, grace_since, at).await?);
            }
        }
        Ok(BlobSweep { condemned, next })
    }

    async fn find_unknown_blobs(&self, digests: &[Digest], grace_since: Timestamp) -> Result<Vec<Digest>> {
        let mut session = self.read().await?;
        let mut unknown = Vec::new();
        for digest in digests {
            let known = session
                .find(
                    "SELECT digest FROM blob WHERE digest = $1 UNION ALL
                     SELECT digest FROM blob_announcement WHERE digest = $1 AND announced_at >= $2",
                    values![digest, grace_since],
                )
                .await?;
            if known.is_none() {
                unknown.push(*digest);
            }
        }
        Ok(unknown)
    }

    async fn condemn_stray(&self, stray: &StrayBlob, grace_since: Timestamp, at: Timestamp) -> Result<bool> {
        let StrayBlob { digest, size_bytes, location } = stray;
        let mut session = self.begin().await?;
        if is_announced(&mut session, digest, grace_since).await? {
            return Ok(false);
        }
        let created = session
            .execute(
                "INSERT INTO blob (digest, size_bytes, recorded_at, condemned_at) VALUES ($1, $2, $3, $3)
                 ON CONFLICT (digest) DO NOTHING",
                values![digest, *size_bytes, at],
            )
            .await?;
        if created == 0 {
            return Ok(false);
        }
        session
            .execute(
                "INSERT INTO blob_location (digest, location, recorded_at) VALUES ($1, $2, $3)",
                values![digest, location.as_str(), at],
            )
            .await?;
        session.commit().await?;
        Ok(true)
    }

    async fn list_condemned_blobs(&self, limit: u32) -> Result<Vec<CondemnedBlob>> {
        let mut session = self.read().await?;
        let rows = session
            .fetch(
                "SELECT digest FROM blob WHERE condemned_at IS NOT NULL ORDER BY digest LIMIT $1",
                values![limit],
            )
            .await?;
        let mut blobs = Vec::new();
        for row in rows {
            blobs.extend(find_condemned(&mut session, &row.parsed("digest")?).await?);
        }
        Ok(blobs)
    }

    async fn forget_blob(&self, digest: &Digest) -> Result<()> {
        let mut session = self.begin().await?;
        if find_condemned(&mut session, digest).await?.is_some() {
            session.execute("DELETE FROM blob_location WHERE digest = $1", values![digest]).await?;
            session
                .execute("DELETE FROM blob WHERE digest = $1 AND condemned_at IS NOT NULL", values![digest])
                .await?;
        }
        Ok(session.commit().await?)
    }

    async fn forget_announcements(&self, grace_since: Timestamp, limit: u32) -> Result<u32> {
        let mut session = self.begin().await?;
        let forgotten = session
            .execute(
                "DELETE FROM blob_announcement WHERE announced_at < $1 AND digest IN (
                    SELECT digest FROM blob_announcement WHERE announced_at < $1 ORDER BY announced_at LIMIT $2)",
                values![grace_since, limit],
            )
            .await?;
        session.commit().await?;
        Ok(u32::try_from(forgotten).unwrap_or(u32::MAX))
    }

    async fn foresee_collection(&self, horizon: Horizon) -> Result<Prospect> {
        foresight::foresee(self, horizon).await
    }

    async fn take_lease(&self, name: &str, holder: &str, now: Timestamp, until: Timestamp) -> Result<bool> {
        let mut session = self.begin().await?;
        let taken = session
            .execute(
                "INSERT INTO lease (name, holder, ends_at) VALUES ($1, $2, $4)
                 ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, ends_at = excluded.ends_at
                    WHERE lease.holder = excluded.holder OR lease.ends_at < $3",
                values![name, holder, now, until],
            )
            .await?;
        session.commit().await?;
        Ok(taken > 0)
    }

    async fn end_lease(&self, name: &str, holder: &str) -> Result<()> {
        let mut session = self.begin().await?;
        session.execute("DELETE FROM lease WHERE name = $1 AND holder = $2", values![name, holder]).await?;
        Ok(session.commit().await?)
    }
}

impl SqlCatalogue {
    /// Removes a link that is still loose, and says whether it did.
    async fn collect_link(&self, place: LinkPlace, grace_since: Timestamp) -> Result<bool> {
        let LinkPlace { repository, digest } = place;
        let mut session = self.begin().await?;
        lock_repository(&mut session, repository).await?;
        let removed = session
            .execute(
                concat!(
                    "DELETE FROM blob_link WHERE repository_id = $2 AND digest = $3 AND EXISTS (
                        SELECT 1 FROM blob_link AS link WHERE link.repository_id = $2 AND link.digest = $3 AND ",
                    unlisted!(),
                    ")"
                ),
                values![grace_since, repository, &digest],
            )
            .await?;
        if removed > 0 {
            forget_use(&mut session, place).await?;
            session.commit().await?;
        }
        Ok(removed > 0)
    }

    /// Condemns a blob that still has no links, and that nobody is about to put.
    async fn condemn(
        &self,
        digest: &Digest,
        grace_since: Timestamp,
        at: Timestamp,
    ) -> Result<Option<CondemnedBlob>> {
        let mut session = self.begin().await?;
        if is_announced(&mut session, digest, grace_since).await? {
            return Ok(None);
        }
        // Whoever is linking it has it locked until the link can be seen.
        session.lock("SELECT digest FROM blob WHERE digest = $1 FOR UPDATE", values![digest]).await?;
        let count = session
            .execute(
                "UPDATE blob SET condemned_at = $3
                 WHERE digest = $1 AND recorded_at < $2 AND condemned_at IS NULL
                    AND NOT EXISTS (SELECT 1 FROM blob_link WHERE blob_link.digest = $1)",
                values![digest, grace_since, at],
            )
            .await?;
        if count == 0 {
            return Ok(None);
        }
        let blob = find_condemned(&mut session, digest).await?;
        session.commit().await?;
        Ok(blob)
    }
}

/// Whether somebody announced since the grace time began that they put a blob. Where not, an older announcement goes with
/// this transaction, and whoever announces meanwhile waits for its end, and then sees what it did.
async fn is_announced(session: &mut Session, digest: &Digest, grace_since: Timestamp) -> Result<bool> {
    let row = session
        .find(
            "INSERT INTO blob_announcement (digest, announced_at) VALUES ($1, 0)
             ON CONFLICT (digest) DO UPDATE SET announced_at = blob_announcement.announced_at
             RETURNING announced_at",
            values![digest],
        )
        .await?;
    let announced_at = row.map(|row| row.timestamp("announced_at")).transpose()?.unwrap_or_default();
    if announced_at >= grace_since && announced_at > Timestamp::default() {
        return Ok(true);
    }
    session.execute("DELETE FROM blob_announcement WHERE digest = $1", values![digest]).await?;
    Ok(false)
}

/// Removes a manifest that is still past and that nothing holds, and its content where it was the last repository's.
async fn remove_manifest(session: &mut Session, place: LinkPlace, horizon: Horizon) -> Result<bool> {
    let LinkPlace { repository, digest } = place;
    lock_repository(session, repository).await?;
    let removed = session
        .find(
            concat!(
                "DELETE FROM manifest_link WHERE repository_id = $3 AND digest = $4 AND EXISTS (
                    SELECT 1 FROM manifest_link AS link WHERE link.repository_id = $3 AND link.digest = $4 AND ",
                past!(),
                " AND ",
                unheld!(),
                ") RETURNING CASE WHEN deleted_at IS NULL THEN loose_since ELSE deleted_at END AS since"
            ),
            values![horizon.now, horizon.grace_since, repository, &digest],
        )
        .await?;
    let Some(removed) = removed else { return Ok(false) };
    let since = removed.timestamp("since")?;
    // What only this one held has been without anything as long as this one.
    for statement in [
        "UPDATE manifest_link SET loose_since = $3
         WHERE repository_id = $1 AND loose_since IS NULL AND digest IN (
            SELECT child FROM manifest_edge WHERE parent = $2 AND kind = 'manifest')",
        "UPDATE manifest_link SET loose_since = $3
         WHERE repository_id = $1 AND loose_since IS NULL AND digest IN (
            SELECT digest FROM manifest_link WHERE repository_id = $1 AND subject = $2)",
    ] {
        session.execute(statement, values![repository, &digest, since]).await?;
    }
    forget_use(session, place).await?;
    forget_manifest(session, &digest).await?;
    Ok(true)
}

/// Removes the content of a manifest that no repository has any more.
pub(super) async fn forget_manifest(session: &mut Session, digest: &Digest) -> Result<()> {
    // Whoever is linking it has it locked until the link can be seen.
    session.lock("SELECT digest FROM manifest WHERE digest = $1 FOR UPDATE", values![digest]).await?;
    let rest = session.find("SELECT digest FROM manifest_link WHERE digest = $1 LIMIT 1", values![digest]);
    if rest.await?.is_none() {
        session.execute("DELETE FROM manifest_edge WHERE parent = $1", values![digest]).await?;
        session.execute("DELETE FROM manifest WHERE digest = $1", values![digest]).await?;
    }
    Ok(())
}

async fn forget_use(session: &mut Session, place: LinkPlace) -> Result<()> {
    session
        .execute(
            "DELETE FROM content_use WHERE repository_id = $1 AND digest = $2",
            values![place.repository, &place.digest],
        )
        .await?;
    Ok(())
}

async fn lock_repository(session: &mut Session, repository: u64) -> Result<()> {
    session.lock("SELECT id FROM repository WHERE id = $1 FOR NO KEY UPDATE", values![repository]).await?;
    Ok(())
}

async fn find_condemned(session: &mut Session, digest: &Digest) -> Result<Option<CondemnedBlob>> {
    let rows = session
        .fetch(
            "SELECT size_bytes, location FROM blob LEFT JOIN blob_location ON blob_location.digest = blob.digest
             WHERE blob.digest = $1 AND condemned_at IS NOT NULL ORDER BY location",
            values![digest],
        )
        .await?;
    let Some(first) = rows.first() else { return Ok(None) };
    let size_bytes = first.number("size_bytes")?;
    let mut locations = Vec::new();
    for row in &rows {
        locations.extend(row.optional_text("location")?);
    }
    Ok(Some(CondemnedBlob { digest: *digest, size_bytes, locations }))
}

/// Where a look at links begins, as values of a statement.
pub(super) fn start_of(after: Option<LinkPlace>) -> (u64, String) {
    after.map_or((0, String::new()), |place| (place.repository, place.digest.to_string()))
}

pub(super) fn read_place(row: &Row) -> Result<LinkPlace> {
    Ok(LinkPlace { repository: row.number("repository_id")?, digest: row.parsed("digest")? })
}
