//! Stored content by repository: over `content`, `proof`, `tag` and `listing`.

use async_trait::async_trait;
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use super::SqliteIndex;
use super::rows::{read, read_content, read_number, read_parsed, read_repository, read_timestamp, to_column};
use crate::metadata::{
    ContentKind, Forgotten, Holding, HoldingFilter, Holdings, ListingKind, MetadataError, RepositoryId,
    Result, UpstreamHoldings,
};
use crate::oci::{Digest, Tag};
use crate::runtime::Timestamp;

#[async_trait]
impl Holdings for SqliteIndex {
    async fn list_holdings(
        &self,
        filter: &HoldingFilter,
        after: Option<(&RepositoryId, &Digest)>,
        limit: u32,
    ) -> Result<Vec<Holding>> {
        let moment = |at: Option<Timestamp>| at.map(|at| to_column(at.as_millis()));
        let id = filter.repository.as_ref();
        let rows = sqlx::query(
            "SELECT DISTINCT repository.upstream, repository.name, content.digest, content.kind,
                content.size_bytes, content.media_type, stored_at, last_used_at, segment, verified_at,
                (SELECT group_concat(DISTINCT tag) FROM tag
                 WHERE tag.repository_id = repository.id AND tag.digest = content.digest) AS tags,
                EXISTS (SELECT 1 FROM pin_content WHERE pin_content.digest = content.digest) AS is_pinned
             FROM repository
             JOIN proof ON proof.repository_id = repository.id
             JOIN content ON content.digest = proof.digest
             WHERE (?1 IS NULL OR repository.upstream = ?1)
               AND (?2 IS NULL OR (repository.upstream = ?2 AND repository.name = ?3))
               AND (?4 IS NULL OR EXISTS (SELECT 1 FROM tag WHERE tag.repository_id = repository.id
                    AND tag.tag = ?4 AND tag.digest = content.digest))
               AND (?5 IS NULL OR content.digest = ?5)
               AND (?6 IS NULL OR content.kind = ?6)
               AND (?7 IS NULL OR stored_at <= ?7)
               AND (?8 IS NULL OR last_used_at <= ?8)
               AND (?9 IS NULL OR content.size_bytes >= ?9)
               AND (repository.upstream, repository.name, content.digest) > (?10, ?11, ?12)
             ORDER BY repository.upstream, repository.name, content.digest LIMIT ?13",
        )
        .bind(filter.upstream.as_deref())
        .bind(id.map(|id| &*id.upstream))
        .bind(id.map(|id| id.name.as_str()))
        .bind(filter.tag.as_ref().map(Tag::as_str))
        .bind(filter.digest.map(|digest| digest.to_string()))
        .bind(filter.kind.map(ContentKind::as_str))
        .bind(moment(filter.stored_by))
        .bind(moment(filter.unused_since))
        .bind(filter.least_bytes.map(to_column))
        .bind(after.map_or("", |(id, _)| &id.upstream))
        .bind(after.map_or("", |(id, _)| id.name.as_str()))
        .bind(after.map(|(_, digest)| digest.to_string()).unwrap_or_default())
        .bind(limit)
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(read_holding).collect()
    }

    async fn sum_holdings(&self) -> Result<Vec<UpstreamHoldings>> {
        // An upstream of which nothing is stored any more is listed for its tags.
        let rows = sqlx::query(
            "SELECT upstream,
                (SELECT count(DISTINCT repository_id || ':' || tag) FROM tag
                 JOIN repository AS own ON own.id = repository_id WHERE own.upstream = known.upstream) AS tags,
                count(CASE WHEN kind = ?1 THEN 1 END) AS manifests,
                count(CASE WHEN kind <> ?1 THEN 1 END) AS blobs,
                coalesce(sum(size_bytes), 0) AS bytes,
                coalesce(sum(CASE WHEN digest IN (SELECT digest FROM pin_content) THEN size_bytes END), 0)
                    AS pinned_bytes
             FROM (SELECT DISTINCT upstream FROM repository) AS known
             LEFT JOIN (SELECT DISTINCT upstream AS holder, content.digest, content.kind, content.size_bytes
                FROM repository JOIN proof ON proof.repository_id = repository.id
                JOIN content ON content.digest = proof.digest) ON holder = upstream
             GROUP BY upstream ORDER BY upstream",
        )
        .bind(ContentKind::Manifest.as_str())
        .fetch_all(&self.readers)
        .await?;
        let all = sqlx::query(
            "SELECT '' AS upstream,
                (SELECT count(DISTINCT repository_id || ':' || tag) FROM tag) AS tags,
                count(CASE WHEN kind = ?1 THEN 1 END) AS manifests,
                count(CASE WHEN kind <> ?1 THEN 1 END) AS blobs,
                coalesce(sum(size_bytes), 0) AS bytes,
                coalesce(sum(CASE WHEN digest IN (SELECT digest FROM pin_content) THEN size_bytes END), 0)
                    AS pinned_bytes
             FROM content",
        )
        .bind(ContentKind::Manifest.as_str())
        .fetch_one(&self.readers)
        .await?;
        rows.iter().chain([&all]).map(read_sums).collect()
    }

    async fn list_shared(&self) -> Result<Vec<(Digest, u64)>> {
        let rows = sqlx::query(
            "SELECT digest, count(DISTINCT repository_id) AS holders FROM proof
             GROUP BY digest HAVING count(DISTINCT repository_id) > 1",
        )
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(|row| Ok((read_parsed(row, "digest")?, read_number(row, "holders")?))).collect()
    }

    async fn forget(&self, repository: &RepositoryId, forgotten: &Forgotten) -> Result<()> {
        let mut transaction = self.begin().await?;
        let Some(id) = find_id(&mut transaction, repository).await? else { return Ok(()) };
        for digest in &forgotten.proofs {
            sqlx::query("DELETE FROM proof WHERE repository_id = ? AND digest = ?")
                .bind(id)
                .bind(digest.to_string())
                .execute(&mut *transaction)
                .await?;
        }
        for tag in &forgotten.tags {
            sqlx::query("DELETE FROM tag WHERE repository_id = ? AND tag = ?")
                .bind(id)
                .bind(tag.as_str())
                .execute(&mut *transaction)
                .await?;
        }
        if !forgotten.tags.is_empty() {
            sqlx::query("DELETE FROM listing WHERE repository_id = ? AND kind = ?")
                .bind(id)
                .bind(ListingKind::Tags.as_str())
                .execute(&mut *transaction)
                .await?;
        }
        Ok(transaction.commit().await?)
    }

    async fn forget_repository(&self, repository: &RepositoryId) -> Result<()> {
        let mut transaction = self.begin().await?;
        let Some(id) = find_id(&mut transaction, repository).await? else { return Ok(()) };
        for statement in [
            "DELETE FROM proof WHERE repository_id = ?",
            "DELETE FROM tag WHERE repository_id = ?",
            "DELETE FROM listing WHERE repository_id = ?",
        ] {
            sqlx::query(statement).bind(id).execute(&mut *transaction).await?;
        }
        Ok(transaction.commit().await?)
    }

    async fn list_known_repositories(&self, upstream: Option<&str>) -> Result<Vec<RepositoryId>> {
        let rows = sqlx::query(
            "SELECT upstream, name FROM repository
             WHERE (?1 IS NULL OR upstream = ?1)
               AND (EXISTS (SELECT 1 FROM proof WHERE repository_id = repository.id)
                OR EXISTS (SELECT 1 FROM tag WHERE repository_id = repository.id)
                OR EXISTS (SELECT 1 FROM listing WHERE repository_id = repository.id))
             ORDER BY upstream, name",
        )
        .bind(upstream)
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(read_repository).collect()
    }
}

/// Finds the number that stands for a repository.
async fn find_id(connection: &mut SqliteConnection, repository: &RepositoryId) -> Result<Option<i64>> {
    let id = sqlx::query_scalar("SELECT id FROM repository WHERE upstream = ? AND name = ?")
        .bind(&*repository.upstream)
        .bind(repository.name.as_str())
        .fetch_optional(connection)
        .await?;
    Ok(id)
}

fn read_holding(row: &SqliteRow) -> Result<Holding> {
    // No tag holds a comma.
    let tags = read::<Option<&str>>(row, "tags")?.unwrap_or_default();
    let tags = tags.split(',').filter(|tag| !tag.is_empty()).map(str::parse);
    let mut tags: Vec<Tag> = tags
        .collect::<std::result::Result<_, _>>()
        .map_err(|_fault| MetadataError::Unreadable { column: "tag" })?;
    tags.sort_by(|one, other| one.as_str().cmp(other.as_str()));
    Ok(Holding {
        repository: read_repository(row)?,
        content: read_content(row)?,
        tags,
        verified_at: Some(read_timestamp(row, "verified_at")?).filter(|at| *at > Timestamp::default()),
        is_pinned: read(row, "is_pinned")?,
    })
}

fn read_sums(row: &SqliteRow) -> Result<UpstreamHoldings> {
    Ok(UpstreamHoldings {
        upstream: read(row, "upstream")?,
        tags: read_number(row, "tags")?,
        manifests: read_number(row, "manifests")?,
        blobs: read_number(row, "blobs")?,
        bytes: read_number(row, "bytes")?,
        pinned_bytes: read_number(row, "pinned_bytes")?,
    })
}
