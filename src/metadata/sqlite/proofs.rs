//! The table `proof`.

use async_trait::async_trait;
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use super::SqliteIndex;
use super::rows::{
    read, read_kind, read_media_type, read_optional_number, read_parsed, read_repository, record_repository,
    to_column,
};
use crate::metadata::{AccessProof, AccessProofs, ContentKind, RepositoryId, Result};
use crate::oci::{Digest, MediaType, RepositoryName};

#[async_trait]
impl AccessProofs for SqliteIndex {
    async fn record_proofs(&self, repository: &RepositoryId, proofs: &[AccessProof]) -> Result<()> {
        let mut transaction = self.begin().await?;
        let id = record_repository(&mut transaction, repository).await?;
        for proof in proofs {
            upsert(&mut transaction, id, proof).await?;
        }
        Ok(transaction.commit().await?)
    }

    async fn find_proof(
        &self,
        repository: &RepositoryId,
        kind: ContentKind,
        digest: &Digest,
    ) -> Result<Option<AccessProof>> {
        let row = sqlx::query(
            "SELECT digest, kind, size_bytes, media_type FROM proof
             WHERE repository_id = (SELECT id FROM repository WHERE upstream = ? AND name = ?)
               AND digest = ? AND kind = ?",
        )
        .bind(&*repository.upstream)
        .bind(repository.name.as_str())
        .bind(digest.to_string())
        .bind(kind.as_str())
        .fetch_optional(&self.readers)
        .await?;
        row.as_ref().map(read_proof).transpose()
    }

    async fn remove_proof(
        &self,
        repository: &RepositoryId,
        kind: ContentKind,
        digest: &Digest,
    ) -> Result<()> {
        self.write(
            sqlx::query(
                "DELETE FROM proof
             WHERE repository_id = (SELECT id FROM repository WHERE upstream = ? AND name = ?)
               AND digest = ? AND kind = ?",
            )
            .bind(&*repository.upstream)
            .bind(repository.name.as_str())
            .bind(digest.to_string())
            .bind(kind.as_str()),
        )
        .await?;
        Ok(())
    }

    async fn list_upstreams_with_blob(&self, name: &RepositoryName, digest: &Digest) -> Result<Vec<String>> {
        let rows = sqlx::query(
            "SELECT upstream FROM repository WHERE name = ? AND EXISTS
                (SELECT 1 FROM proof WHERE repository_id = repository.id AND digest = ? AND kind = ?)
             ORDER BY upstream",
        )
        .bind(name.as_str())
        .bind(digest.to_string())
        .bind(ContentKind::Blob.as_str())
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(|row| read(row, "upstream")).collect()
    }

    async fn list_holders(&self, digest: &Digest) -> Result<Vec<(RepositoryId, AccessProof)>> {
        let rows = sqlx::query(
            "SELECT upstream, name, digest, kind, size_bytes, media_type
             FROM proof JOIN repository ON repository.id = repository_id
             WHERE digest = ? ORDER BY upstream, name, kind",
        )
        .bind(digest.to_string())
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(|row| Ok((read_repository(row)?, read_proof(row)?))).collect()
    }

    async fn list_repositories(&self, after: Option<&RepositoryId>, limit: u32) -> Result<Vec<RepositoryId>> {
        let rows = sqlx::query(
            "SELECT upstream, name FROM repository
             WHERE (upstream, name) > (?, ?)
               AND EXISTS (SELECT 1 FROM proof WHERE repository_id = repository.id)
             ORDER BY upstream, name LIMIT ?",
        )
        .bind(after.map_or("", |after| &after.upstream))
        .bind(after.map_or("", |after| after.name.as_str()))
        .bind(limit)
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(read_repository).collect()
    }
}

fn read_proof(row: &SqliteRow) -> Result<AccessProof> {
    Ok(AccessProof {
        digest: read_parsed(row, "digest")?,
        kind: read_kind(row)?,
        size_bytes: read_optional_number(row, "size_bytes")?,
        media_type: read_media_type(row)?,
    })
}

/// Records a proof within a transaction.
pub(super) async fn upsert(
    connection: &mut SqliteConnection,
    repository_id: i64,
    proof: &AccessProof,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO proof (repository_id, digest, kind, size_bytes, media_type) VALUES (?, ?, ?, ?, ?)
         ON CONFLICT (repository_id, digest, kind) DO UPDATE SET
            size_bytes = coalesce(excluded.size_bytes, size_bytes),
            media_type = coalesce(excluded.media_type, media_type)",
    )
    .bind(repository_id)
    .bind(proof.digest.to_string())
    .bind(proof.kind.as_str())
    .bind(proof.size_bytes.map(to_column))
    .bind(proof.media_type.as_ref().map(MediaType::as_str))
    .execute(connection)
    .await?;
    Ok(())
}
