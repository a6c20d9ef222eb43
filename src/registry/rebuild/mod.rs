//! Brings the index in agreement with what lies on disk.
//!
//! Needed when the index is new or was lost; otherwise only crashes leave the two apart. Runs in the
//! background while the node serves, in bounded memory, and may be stopped and run again at any time.
//! Rights are not rebuilt: no file says which repository it came from, so upstream is asked again.

#[cfg(test)]
mod tests;

use crate::blobs::{BlobError, FoundBlob};
use crate::events::Event;
use crate::metadata::{ContentKind, ContentRecord, Segment};
use crate::oci::{Digest, Manifest, MediaType};
use crate::registry::{CacheParts, UpkeepError};
use crate::runtime::{Tasks, Timestamp};

/// Compares index and disk.
pub struct Rebuild {
    parts: CacheParts,
    tasks: Tasks,
}

/// What a run found and did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rebuilt {
    /// Items on disk that the index lacked, now recorded.
    pub recorded: u64,
    /// Items in the index that were not on disk, now forgotten.
    pub forgotten: u64,
    /// Files whose content was not what their name says, now removed.
    pub damaged: u64,
    /// Files that could not be read, left as they are.
    pub unreadable: u64,
    /// Whether it went through to the end; `false` where shutdown came first.
    pub finished: bool,
}

/// What looking at a file told.
#[derive(Debug, PartialEq, Eq)]
enum Looked {
    Content(ContentKind, Option<MediaType>),
    Damaged,
    Gone,
}

impl Rebuild {
    /// A rebuild that stops when `tasks` shut down.
    pub const fn new(parts: CacheParts, tasks: Tasks) -> Self {
        Self { parts, tasks }
    }

    /// Runs what is needed at start: everything for an index that was never compared with the disk
    /// to the end, else only the search for files without rows (rows without files are found by
    /// those who open them).
    pub async fn run_at_start(&self) -> Result<Rebuilt, UpkeepError> {
        if self.parts.index.find_rebuilt_at().await?.is_some() {
            self.sweep().await
        } else {
            self.run().await
        }
    }

    /// Records files without rows, then forgets rows without files.
    pub async fn run(&self) -> Result<Rebuilt, UpkeepError> {
        let mut rebuilt = self.sweep().await?;
        if rebuilt.finished {
            self.forget_lost(&mut rebuilt).await?;
        }
        if rebuilt.finished {
            self.parts.index.record_rebuilt(self.parts.clock.now()).await?;
        }
        Ok(rebuilt)
    }

    /// Records files without rows.
    ///
    /// Meets fills that have their file but not yet their row: both then record the same.
    pub async fn sweep(&self) -> Result<Rebuilt, UpkeepError> {
        let mut rebuilt = Rebuilt::default();
        let mut found = self.parts.blobs.list().await?;
        while let Some(batch) = found.recv().await {
            if self.tasks.shutdown_token().is_cancelled() {
                return Ok(rebuilt);
            }
            for blobs in batch?.chunks(PAGE) {
                self.record_unknown(blobs, &mut rebuilt).await?;
            }
        }
        rebuilt.finished = true;
        Ok(rebuilt)
    }

    async fn record_unknown(&self, found: &[FoundBlob], rebuilt: &mut Rebuilt) -> Result<(), UpkeepError> {
        let mut records = Vec::new();
        for blob in found {
            if self.parts.index.find_content(&blob.digest).await?.is_some() {
                continue;
            }
            match self.look_at(&blob.digest, blob.size_bytes).await {
                Ok(Looked::Content(kind, media_type)) => {
                    records.push(self.to_record(blob, kind, media_type));
                }
                Ok(Looked::Damaged) => self.remove_damaged(&blob.digest, rebuilt).await?,
                Ok(Looked::Gone) => {}
                Err(error) => note_unreadable(&blob.digest, error, rebuilt)?,
            }
        }
        if !records.is_empty() {
            rebuilt.recorded += records.len() as u64;
            self.parts.index.record_content(&records).await?;
            // Nobody knows that they are what their names say, nor that they are whole.
            let digests: Vec<_> = records.iter().map(|record| record.digest).collect();
            self.parts.index.record_verified(&digests, Timestamp::default()).await?;
        }
        Ok(())
    }

    fn to_record(&self, blob: &FoundBlob, kind: ContentKind, media_type: Option<MediaType>) -> ContentRecord {
        // A file from the future (a clock was wrong) would be the last to be evicted for ever.
        let stored_at = blob.modified_at.min(self.parts.clock.now());
        ContentRecord {
            digest: blob.digest,
            kind,
            size_bytes: blob.size_bytes,
            media_type,
            stored_at,
            last_used_at: stored_at,
            segment: Segment::Probation,
        }
    }

    async fn remove_damaged(&self, digest: &Digest, rebuilt: &mut Rebuilt) -> Result<(), UpkeepError> {
        tracing::warn!(blob.digest = %digest, "a stored file is not what its name says; it is removed");
        self.parts.blobs.remove(digest).await?;
        self.parts.events.publish(Event::ContentRemoved { digest: *digest }).await;
        rebuilt.damaged += 1;
        Ok(())
    }

    /// Tells manifests from blobs. Only verified content is ever renamed into place, so blobs are
    /// trusted by name; what may be a manifest is small, read anyway, and verified on the way.
    async fn look_at(&self, digest: &Digest, size_bytes: u64) -> Result<Looked, BlobError> {
        if size_bytes > MOST_MANIFEST_BYTES {
            return Ok(Looked::Content(ContentKind::Blob, None));
        }
        let Some(file) = self.parts.blobs.open(digest).await? else { return Ok(Looked::Gone) };
        let length = usize::try_from(file.size_bytes()).unwrap_or(0);
        if length == 0 || *file.read_exact_at(0, 1).await? != *b"{" {
            return Ok(Looked::Content(ContentKind::Blob, None));
        }
        let content = file.read_exact_at(0, length).await?;
        let digest = *digest;
        let looked = self.tasks.spawn_blocking(move || look_into(&digest, &content)).await;
        // An error says that a parser panicked on this content: then it is no manifest to us.
        Ok(looked.unwrap_or(Looked::Content(ContentKind::Blob, None)))
    }

    async fn forget_lost(&self, rebuilt: &mut Rebuilt) -> Result<(), UpkeepError> {
        rebuilt.finished = false;
        let mut after = None;
        loop {
            let page = self.parts.index.list_content(after.as_ref(), PAGE_ROWS).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.digest);
            if self.tasks.shutdown_token().is_cancelled() {
                return Ok(());
            }
            let mut lost = Vec::new();
            for record in page {
                match self.parts.blobs.open(&record.digest).await {
                    Ok(Some(_)) => {}
                    Ok(None) => lost.push(record),
                    Err(error) => note_unreadable(&record.digest, error, rebuilt)?,
                }
            }
            rebuilt.forgotten += self.forget(lost).await?;
        }
        rebuilt.finished = true;
        Ok(())
    }

    async fn forget(&self, lost: Vec<ContentRecord>) -> Result<u64, UpkeepError> {
        let digests: Vec<_> = lost.iter().map(|record| record.digest).collect();
        if digests.is_empty() {
            return Ok(0);
        }
        self.parts.index.remove_content(&digests).await?;
        let mut forgotten = 0;
        for record in lost {
            // Fetched again between the look and the removal: the row removed was the new one.
            if self.parts.blobs.open(&record.digest).await?.is_some() {
                self.parts.index.record_content(&[record]).await?;
            } else {
                forgotten += 1;
            }
        }
        Ok(forgotten)
    }
}

/// Goes around a file that cannot be read: one bad sector must not keep the rest out of the index.
/// Fails where there are too many: the disk is broken.
fn note_unreadable(digest: &Digest, error: BlobError, rebuilt: &mut Rebuilt) -> Result<(), UpkeepError> {
    rebuilt.unreadable += 1;
    if rebuilt.unreadable > MOST_UNREADABLE {
        return Err(error.into());
    }
    let error: &dyn std::error::Error = &error;
    tracing::warn!(blob.digest = %digest, error, "a stored file cannot be read; it is left out of the index");
    Ok(())
}

/// Blocks: parses and hashes up to [`MOST_MANIFEST_BYTES`].
fn look_into(digest: &Digest, content: &[u8]) -> Looked {
    let manifest = Manifest::parse(content).ok();
    let media_type = manifest.and_then(|manifest| manifest.media_type).filter(MediaType::is_manifest);
    // The digest of a signed schema 1 manifest leaves its signatures out.
    let is_verified = media_type.as_ref().is_some_and(MediaType::is_schema1)
        || Digest::of(digest.algorithm(), content) == *digest;
    match (is_verified, media_type) {
        (false, _) => Looked::Damaged,
        (true, None) => Looked::Content(ContentKind::Blob, None),
        (true, media_type) => Looked::Content(ContentKind::Manifest, media_type),
    }
}

/// The largest manifest that registries take (OCI distribution specification, "Pushing Manifests").
const MOST_MANIFEST_BYTES: u64 = 4 << 20;

/// How many files may be unreadable before a run gives up.
const MOST_UNREADABLE: u64 = 64;

/// How many files are recorded in one transaction.
const PAGE: usize = 256;

/// How many rows are looked at together.
const PAGE_ROWS: u32 = 256;
