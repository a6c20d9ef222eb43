//! Pulls: several tables, one transaction.

use async_trait::async_trait;

use super::rows::record_repository;
use super::{SqliteIndex, content, pins, proofs, tags};
use crate::metadata::{PullRecord, PullRecords, RepositoryId, Result};

#[async_trait]
impl PullRecords for SqliteIndex {
    async fn record_pull(&self, repository: &RepositoryId, pull: &PullRecord) -> Result<()> {
        let mut transaction = self.begin().await?;
        let id = record_repository(&mut transaction, repository).await?;
        content::upsert(&mut transaction, &pull.content).await?;
        for proof in &pull.proofs {
            proofs::upsert(&mut transaction, id, proof).await?;
        }
        pins::extend(&mut transaction, pull).await?;
        if let Some(observed) = &pull.tag {
            tags::upsert(&mut transaction, id, observed).await?;
        }
        Ok(transaction.commit().await?)
    }
}
