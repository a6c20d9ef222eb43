//! Notes what clients ask for, and writes it to the catalogue in batches: a pull waits for no transaction.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::{Hosting, Result};
use crate::metadata::catalogue::ContentUse;
use crate::oci::{Digest, RepositoryName};
use crate::runtime::Timestamp;

/// Uses that are not written yet, the last of each content.
#[derive(Debug, Default)]
pub(super) struct Uses(Mutex<HashMap<(RepositoryName, Digest), Timestamp>>);

impl Uses {
    fn note(&self, repository: &RepositoryName, digest: &Digest, at: Timestamp) {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = noted.get_mut(&(repository.clone(), *digest)) {
            *last = at;
        } else if noted.len() < MOST_NOTED {
            noted.insert((repository.clone(), *digest), at);
        }
    }

    fn take(&self) -> Vec<ContentUse> {
        let noted = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let to_use = |((repository, digest), used_at)| ContentUse { repository, digest, used_at };
        noted.into_iter().map(to_use).collect()
    }
}

impl Hosting {
    /// Notes that a client asks a repository for content now: a manifest, or a blob, which it may be about to rely on
    /// instead of pushing it. Waits for nothing.
    pub fn note_use(&self, repository: &RepositoryName, digest: &Digest) {
        self.0.uses.note(repository, digest, self.clock.now());
    }

    /// Writes the uses that were noted. Those that cannot be written are noted again.
    pub async fn flush_uses(&self) -> Result<()> {
        let uses = self.0.uses.take();
        for (start, batch) in uses.chunks(BATCH).enumerate() {
            if let Err(error) = self.catalogue.record_uses(batch).await {
                for ContentUse { repository, digest, used_at } in &uses[start * BATCH..] {
                    self.0.uses.note(repository, digest, *used_at);
                }
                return Err(error.into());
            }
        }
        Ok(())
    }
}

/// How many uses are noted at most; more than that between two flushes are lost.
const MOST_NOTED: usize = 100_000;

/// How many are written in one transaction.
const BATCH: usize = 500;
