//! Blobs on this node's disk, looked at before they are trusted.

use bytes::Bytes;

use super::core::Core;
use crate::blobs::{BlobError, BlobFile};
use crate::oci::Digest;

/// A blob of up to this size is kept in memory: a copy of it costs less than the way to its file.
const SMALL_BLOB: u64 = 64 * 1024;

/// A blob that is stored here.
pub(super) enum Stored {
    /// In memory, with the right digest.
    Small(Bytes),
    /// On the disk, with the right size.
    File(BlobFile),
}

impl Stored {
    pub(super) fn size_bytes(&self) -> u64 {
        match self {
            Self::Small(bytes) => bytes.len() as u64,
            Self::File(file) => file.size_bytes(),
        }
    }
}

/// Finds a stored blob. A small one comes from memory, where it gets only with its digest compared.
pub(super) async fn find_stored(core: &Core, digest: &Digest) -> Result<Option<Stored>, BlobError> {
    if let Some(bytes) = core.memory.small_blobs.get(digest).await {
        return Ok(Some(Stored::Small(bytes)));
    }
    let Some(file) = open_whole(core, digest).await? else { return Ok(None) };
    if file.size_bytes() > SMALL_BLOB {
        return Ok(Some(Stored::File(file)));
    }
    let bytes = file.read_exact_at(0, usize::try_from(file.size_bytes()).unwrap_or(0)).await?;
    if Digest::of(digest.algorithm(), &bytes) != *digest {
        tracing::error!(
            blob.digest = %digest,
            "stored content does not have its digest, it is removed and fetched again"
        );
        discard(core, digest).await;
        return Ok(None);
    }
    core.memory.small_blobs.insert(*digest, bytes.clone()).await;
    Ok(Some(Stored::Small(bytes)))
}

/// Opens a stored blob. A file of another size than the index says was damaged: it is removed and counts
/// as missing, also where it cannot be removed.
pub(super) async fn open_whole(core: &Core, digest: &Digest) -> Result<Option<BlobFile>, BlobError> {
    let Some(file) = core.blobs.open(digest).await? else { return Ok(None) };
    // An index that fails or does not know it gives no reason to distrust it.
    let Some(expected_bytes) = find_size(core, digest).await else { return Ok(Some(file)) };
    if expected_bytes == file.size_bytes() {
        return Ok(Some(file));
    }
    tracing::error!(
        blob.digest = %digest,
        expected_bytes,
        found_bytes = file.size_bytes(),
        "stored content has the wrong size, it is removed and fetched again"
    );
    discard(core, digest).await;
    Ok(None)
}

/// Removes damaged content, which counts as missing from then on.
pub(super) async fn discard(core: &Core, digest: &Digest) {
    core.metrics.integrity_failure("store");
    core.images.note_change();
    match core.blobs.remove(digest).await {
        Ok(_was_stored) => {
            if let Err(error) = core.index.remove_content(&[*digest]).await {
                core.report_metadata(&error);
            }
        }
        // The row stays: without it, the file would be trusted by its name.
        Err(error) => core.report_disk(&error),
    }
}

/// What the index says of a blob's size; from memory, once it said so.
async fn find_size(core: &Core, digest: &Digest) -> Option<u64> {
    if let Some(size_bytes) = core.memory.sizes.get(digest).await {
        return Some(size_bytes);
    }
    let record = core.or_nothing(core.index.find_content(digest).await)?;
    core.memory.sizes.insert(*digest, record.size_bytes).await;
    Some(record.size_bytes)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::events::LocalEvents;
    use crate::metadata::sqlite::SqliteIndex;
    use crate::metadata::{
        AccessProof, AccessProofs, ContentIndex, ContentKind, ContentRecord, RepositoryId, Segment,
    };
    use crate::oci::Algorithm;
    use crate::registry::memory_blobs::MemoryBlobs;
    use crate::registry::{
        CacheMetrics, CacheParts, Evictor, Names, Registry, RegistryMetrics, Services, UseLog,
    };
    use crate::runtime::{Clock, Tasks, Timestamp};

    struct Node {
        index: Arc<SqliteIndex>,
        blobs: Arc<MemoryBlobs>,
        registry: Registry,
    }

    impl Node {
        async fn new() -> Self {
            let index = Arc::new(SqliteIndex::in_memory().await.unwrap());
            let blobs = Arc::new(MemoryBlobs::default());
            let (events, clock) = (Arc::new(LocalEvents::default()), Clock::manual(Timestamp::default()));
            let parts = CacheParts {
                index: index.clone(),
                blobs: blobs.clone(),
                events: events.clone(),
                clock: clock.clone(),
            };
            let metrics = prometheus::Registry::new();
            let registry = Registry::new(Services {
                index: index.clone(),
                blobs: blobs.clone(),
                events,
                clock: clock.clone(),
                tasks: Tasks::new(),
                evictor: Arc::new(Evictor::new(parts, CacheMetrics::new(&metrics).unwrap(), 1 << 30)),
                uses: Arc::new(UseLog::new(index.clone(), clock)),
                metrics: RegistryMetrics::new(&metrics).unwrap(),
                names: Names::new(Vec::new()),
                memory_bytes: 1 << 20,
            });
            Self { index, blobs, registry }
        }
    }

    fn digest() -> Digest {
        Digest::of(Algorithm::Sha256, b"whole")
    }

    fn record(size_bytes: u64) -> ContentRecord {
        ContentRecord {
            digest: digest(),
            kind: ContentKind::Blob,
            size_bytes,
            media_type: None,
            stored_at: Timestamp::default(),
            last_used_at: Timestamp::default(),
            segment: Segment::Probation,
        }
    }

    #[tokio::test]
    async fn a_damaged_file_that_cannot_be_removed_is_never_trusted() {
        let node = Node::new().await;
        node.index.record_content(&[record(100)]).await.unwrap();
        node.blobs.put_sized(digest(), 99);
        node.blobs.stick(digest());
        for _ in 0..2 {
            assert!(open_whole(&node.registry.0, &digest()).await.unwrap().is_none());
        }
    }

    #[tokio::test]
    async fn an_index_that_fails_hides_no_file_and_knows_no_proof() {
        let node = Node::new().await;
        let repository = RepositoryId { upstream: "up.test".into(), name: "team/app".parse().unwrap() };
        let proof =
            AccessProof { digest: digest(), kind: ContentKind::Blob, size_bytes: Some(5), media_type: None };
        node.index.record_proofs(&repository, std::slice::from_ref(&proof)).await.unwrap();
        node.blobs.put_sized(digest(), 5);
        node.index.close().await;
        let core = &node.registry.0;
        assert!(open_whole(core, &digest()).await.unwrap().is_some());
        assert_eq!(core.find_proof(&repository, ContentKind::Blob, &digest()).await, None);
        core.record_proofs(&repository, vec![proof.clone()]).await;
        let remembered = core.find_proof(&repository, ContentKind::Blob, &digest()).await;
        assert_eq!(remembered, Some(proof), "what the index does not take is remembered");
    }
}
