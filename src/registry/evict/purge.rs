//! Removal of what an administrator names.

use super::{BATCH, Evicted, EvictionReason, Evictor, Run, Stuck};
use crate::metadata::ContentRecord;
use crate::registry::UpkeepError;

impl Evictor {
    /// Removes these items, whatever the policy thinks of them, and says how many the disk would not let go.
    ///
    /// Fails where too many of them cannot be removed. Dropped at an await point, it leaves at most rows
    /// without files, which the next run removes.
    pub async fn purge(&self, records: Vec<ContentRecord>) -> Result<(Evicted, u64), UpkeepError> {
        let _turn = self.turn.acquire().await;
        let reason = EvictionReason::Purge;
        let mut run =
            Run { reason, forgotten_bytes: 0, evicted: Evicted::default(), stuck: Stuck::default() };
        for batch in records.chunks(BATCH as usize) {
            self.remove(batch.to_vec(), &mut run).await?;
        }
        Ok((run.evicted, u64::from(run.stuck.count())))
    }
}
