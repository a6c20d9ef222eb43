//! What can be wrong with stored content, and how it is taken out of service.

use crate::blobs::BlobFile;
use crate::oci::Digest;
use crate::registry::core::Core;

/// What is wrong with stored content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// Its file is gone, and nobody here removed it.
    Missing,
    /// Its file is shorter than it was.
    Short,
    /// Its file is longer than it was.
    Long,
    /// Its file has the right size and another digest.
    Altered,
    /// Its file cannot be read, on a disk that otherwise works.
    Unreadable,
}

impl Damage {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Missing, Self::Short, Self::Long, Self::Altered, Self::Unreadable];

    /// The word in logs, answers and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Short => "short",
            Self::Long => "long",
            Self::Altered => "altered",
            Self::Unreadable => "unreadable",
        }
    }

    /// What a file of another size than it should have has suffered.
    pub(in crate::registry) const fn of_size(expected_bytes: u64, found_bytes: u64) -> Self {
        if found_bytes < expected_bytes { Self::Short } else { Self::Long }
    }
}

/// Who found damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FoundBy {
    /// Somebody who pulled it.
    Pull,
    /// The scrub.
    Scrub,
    /// A verification.
    Verify,
    /// An import that relied on it.
    Import,
}

impl FoundBy {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Pull, Self::Scrub, Self::Verify, Self::Import];

    /// The word in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Scrub => "scrub",
            Self::Verify => "verify",
            Self::Import => "import",
        }
    }
}

impl Core {
    /// Takes content out of service whose file is damaged: it is never given out again, and counts as missing.
    /// `file` is what was looked at, where it could be opened. `false` where that had gone already: evicted, replaced,
    /// or found by somebody else before.
    ///
    /// Copies in memory stay: they got there with their digest compared.
    pub(in crate::registry) async fn condemn(
        &self,
        digest: &Digest,
        damage: Damage,
        found_by: FoundBy,
        file: Option<&BlobFile>,
    ) -> bool {
        let Some(_removal) = self.evictor.begin_removal(digest) else { return false };
        match self.blobs.condemn(digest, file).await {
            Ok(false) => return false,
            Ok(true) => self.forget_damaged(digest).await,
            // The row stays: without it, a later process would trust the file by its name.
            Err(error) => self.report_disk(&error),
        }
        self.tell_of_damage(digest, damage, found_by);
        true
    }

    /// Takes content out of the index whose file is gone although nobody here removed it. `false` where that is not so.
    pub(in crate::registry) async fn condemn_missing(&self, digest: &Digest, found_by: FoundBy) -> bool {
        // As long as this lasts nobody else removes it: what has its row and no file has lost it.
        let Some(_removal) = self.evictor.begin_removal(digest) else { return false };
        if self.blobs.is_condemned(digest)
            || !matches!(self.index.find_content(digest).await, Ok(Some(_)))
            || !matches!(self.blobs.find_size(digest).await, Ok(None))
        {
            return false;
        }
        self.forget_damaged(digest).await;
        self.tell_of_damage(digest, Damage::Missing, found_by);
        true
    }

    async fn forget_damaged(&self, digest: &Digest) {
        if let Err(error) = self.evictor.forget_damaged(digest).await {
            tracing::warn!(content.digest = %digest, error = %error, "damaged content is still in the index");
        }
        // An index that was built from a file that had been cut knows a wrong one.
        self.memory.sizes.invalidate(digest).await;
    }

    fn tell_of_damage(&self, digest: &Digest, damage: Damage, found_by: FoundBy) {
        self.metrics.integrity_failure(match found_by {
            FoundBy::Pull | FoundBy::Import => "store",
            FoundBy::Scrub | FoundBy::Verify => found_by.as_str(),
        });
        self.metrics.integrity.damaged(damage, found_by);
        self.images.note_change();
        tracing::warn!(
            content.digest = %digest,
            damage.cause = damage.as_str(),
            damage.found_by = found_by.as_str(),
            "stored content is damaged: it is not served any more, and fetched again"
        );
    }
}
