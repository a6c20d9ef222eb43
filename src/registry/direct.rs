//! Bytes that pass through: for one client, straight from their supplier, without the disk.
//!
//! Used where the disk cannot take a blob, or should not. The digest is computed all the same and the
//! last part held back until it agrees: slower than a fill, never less safe.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::RegistryError;
use super::core::Core;
use super::fill::HELD_BACK;
use super::supplier::{Supplier, SupplierError, SupplyBody};
use super::transfer::Transfer;
use crate::blobs::{BlobError, BlobFile};
use crate::oci::{Algorithm, Digest, Hasher};
use crate::upstream::Urgency;

/// How much of a file is hashed at once, in bytes: no longer than a task may keep its thread.
const HASH_CHUNK: u64 = 128 * 1024;

/// A whole blob on its way from its supplier to one client; gives the bytes of a range of it.
pub(super) struct Direct {
    core: Arc<Core>,
    supplier: Supplier,
    digest: Digest,
    transfer: Transfer,
    /// `None` once the digest was compared.
    hasher: Option<Hasher>,
    /// Parts that came but may not be given yet.
    held: VecDeque<Bytes>,
    held_bytes: u64,
    /// The position of the first held byte.
    position: u64,
    /// What the client wants; open-ended where the size is unknown.
    range: Range<u64>,
}

impl Direct {
    /// Asks for the blob, to give `range` of it.
    pub(super) async fn open(
        core: &Arc<Core>,
        supplier: &Supplier,
        digest: &Digest,
        range: Range<u64>,
        size_bytes: Option<u64>,
    ) -> Result<Self, SupplierError> {
        let hasher = Hasher::new(digest.algorithm());
        Self::resume(core, supplier, digest, range, size_bytes, (0, hasher)).await
    }

    /// Goes on where the disk had to be given up: what the reader was given before is hashed from `file`
    /// and the rest comes from the supplier. Without a file that can be read, all comes from there again.
    pub(super) async fn take_over(
        core: &Arc<Core>,
        supplier: &Supplier,
        digest: &Digest,
        range: Range<u64>,
        size_bytes: Option<u64>,
        file: Option<BlobFile>,
    ) -> Result<Self, SupplierError> {
        let hashed = match file {
            Some(file) => hash_beginning(&file, digest.algorithm(), range.start).await.ok(),
            None => None,
        };
        let from =
            hashed.map_or_else(|| (0, Hasher::new(digest.algorithm())), |hasher| (range.start, hasher));
        Self::resume(core, supplier, digest, range, size_bytes, from).await
    }

    async fn resume(
        core: &Arc<Core>,
        supplier: &Supplier,
        digest: &Digest,
        range: Range<u64>,
        size_bytes: Option<u64>,
        (position, hasher): (u64, Hasher),
    ) -> Result<Self, SupplierError> {
        let transfer = Transfer::open(Urgency::CLIENT, supplier, digest, position, size_bytes).await?;
        Ok(Self {
            core: Arc::clone(core),
            supplier: supplier.clone(),
            digest: *digest,
            transfer,
            hasher: Some(hasher),
            held: VecDeque::new(),
            held_bytes: 0,
            position,
            range,
        })
    }

    /// The next bytes of the range; `None` when all were given and the digest agrees.
    pub(super) async fn next(&mut self) -> Option<Result<Bytes, RegistryError>> {
        loop {
            if let Some(part) = self.release() {
                return Some(Ok(part));
            }
            if self.position >= self.range.end {
                return None;
            }
            self.hasher.as_ref()?;
            match self.transfer.next().await {
                Some(Ok(bytes)) => {
                    if let Some(hasher) = self.hasher.as_mut() {
                        hasher.update(&bytes);
                    }
                    self.held_bytes += bytes.len() as u64;
                    self.held.push_back(bytes);
                }
                Some(Err(error)) => return Some(Err(RegistryError::from_blob_fetch(error, &self.digest))),
                None => {
                    if let Err(error) = self.verify() {
                        return Some(Err(error));
                    }
                }
            }
        }
    }

    /// The next part that may be given: all but the last [`HELD_BACK`] bytes while the digest is open.
    fn release(&mut self) -> Option<Bytes> {
        loop {
            let keep = if self.hasher.is_some() { HELD_BACK } else { 0 };
            let first = self.held.front()?.len() as u64;
            if self.held_bytes < first + keep {
                return None;
            }
            let part = self.held.pop_front()?;
            let begin = self.position;
            self.held_bytes -= first;
            self.position += first;
            let wanted = clip(&self.range, begin, first);
            if !wanted.is_empty() {
                return Some(part.slice(wanted));
            }
        }
    }

    fn verify(&mut self) -> Result<(), RegistryError> {
        let found = self.hasher.take().map(Hasher::finish);
        if found == Some(self.digest) {
            return Ok(());
        }
        self.held.clear();
        self.core.metrics.integrity_failure("transfer");
        let reason = format!("the blob's content does not have digest {}", self.digest);
        let error = self.supplier.altered(&self.digest, reason);
        Err(RegistryError::from_blob_fetch(error, &self.digest))
    }
}

/// Whether a range may be given although the digest of the whole is open: none may that reaches into
/// the part that would be held back.
pub(super) const fn is_clear_of_end(range: &Range<u64>, size_bytes: u64) -> bool {
    range.end <= size_bytes.saturating_sub(HELD_BACK)
}

async fn hash_beginning(file: &BlobFile, algorithm: Algorithm, length: u64) -> Result<Hasher, BlobError> {
    let mut hasher = Hasher::new(algorithm);
    let mut hashed = 0;
    while hashed < length {
        let next = (length - hashed).min(HASH_CHUNK);
        hasher.update(&file.read_exact_at(hashed, usize::try_from(next).unwrap_or(0)).await?);
        hashed += next;
    }
    Ok(hasher)
}

/// The indices of a part that lie in `range`, where the part begins at position `begin`.
fn clip(range: &Range<u64>, begin: u64, length: u64) -> Range<usize> {
    let index = |position: u64| usize::try_from(position.clamp(begin, begin + length) - begin).unwrap_or(0);
    index(range.start)..index(range.end)
}

/// A small range that passes through: neither kept nor verified, and so never one that reaches into the
/// part that would be held back.
pub(super) struct Passing {
    body: SupplyBody,
    supplier: Supplier,
    digest: Digest,
    missing_bytes: u64,
}

impl Passing {
    /// Asks for the range alone, of a blob of `size_bytes`.
    pub(super) async fn open(
        supplier: &Supplier,
        digest: &Digest,
        range: Range<u64>,
        size_bytes: u64,
    ) -> Result<Self, SupplierError> {
        let missing_bytes = range.end - range.start;
        let supply = supplier.open_range(digest, range).await?;
        if supply.total_bytes.is_some_and(|total| total != size_bytes) {
            return Err(supplier.broken("the blob has another size than expected"));
        }
        Ok(Self { body: supply.body, supplier: supplier.clone(), digest: *digest, missing_bytes })
    }

    /// The next bytes; `None` when the range is complete.
    pub(super) async fn next(&mut self) -> Option<Result<Bytes, RegistryError>> {
        let error = match self.body.next().await {
            Some(Ok(part)) if part.len() as u64 <= self.missing_bytes => {
                self.missing_bytes -= part.len() as u64;
                return Some(Ok(part));
            }
            None if self.missing_bytes == 0 => return None,
            Some(Err(error)) => error,
            Some(Ok(_)) | None => {
                self.supplier.broken("the range's body has another length than its head says")
            }
        };
        Some(Err(RegistryError::from_blob_fetch(error, &self.digest)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_part_inside_the_range_is_given() {
        assert_eq!(clip(&(5..10), 0, 5), 5..5);
        assert_eq!(clip(&(5..10), 0, 6), 5..6);
        assert_eq!(clip(&(5..10), 4, 100), 1..6);
        assert_eq!(clip(&(5..10), 10, 3), 0..0);
        assert_eq!(clip(&(5..u64::MAX), 8, 3), 0..3);
    }
}
