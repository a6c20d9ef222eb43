//! A blob's bytes from its supplier in one piece, however often that breaks on the way.

use std::time::Duration;

use bytes::Bytes;

use super::supplier::{Supplier, SupplierError, SupplyBody};
use crate::oci::Digest;
use crate::runtime::Backoff;
use crate::upstream::{UpstreamError, Urgency};

/// How many breaks without progress in between end a transfer.
const MAX_BREAKS: u32 = 5;

/// What counts as progress between two breaks, in bytes.
const PROGRESS: u64 = 64 * 1024;

/// The longest pause that a throttling upstream is granted in mid-transfer. Where it wants a longer one, there is no sense
/// in asking before.
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// Bytes of one blob from one supplier, from a position to the end. A break is mended by asking for
/// the rest (`Range`), at another endpoint where there is one; the reader only sees a pause.
pub(super) struct Transfer {
    urgency: Urgency,
    supplier: Supplier,
    digest: Digest,
    /// The position of the next byte to give.
    position: u64,
    total_bytes: Option<u64>,
    /// `None` between a break and the next attempt.
    body: Option<SupplyBody>,
    /// Bytes of `body` that were given before: upstream ignored the range.
    skip: u64,
    breaks: u32,
    position_at_break: u64,
    backoff: Backoff,
}

impl Transfer {
    /// Asks for the blob from `position` on. `expected_bytes` is the size that a manifest or the catalogue states:
    /// a different one at the supplier is an error.
    pub(super) async fn open(
        urgency: Urgency,
        supplier: &Supplier,
        digest: &Digest,
        position: u64,
        expected_bytes: Option<u64>,
    ) -> Result<Self, SupplierError> {
        let mut transfer = Self {
            urgency,
            supplier: supplier.clone(),
            digest: *digest,
            position,
            total_bytes: expected_bytes,
            body: None,
            skip: 0,
            breaks: 0,
            position_at_break: position,
            backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(2)),
        };
        transfer.ask().await?;
        Ok(transfer)
    }

    /// The size of the whole blob, where anybody says.
    pub(super) const fn total_bytes(&self) -> Option<u64> {
        self.total_bytes
    }

    /// The next bytes; `None` when all have come. Dropped at an await point, the attempt that ran is
    /// lost but the position is kept.
    pub(super) async fn next(&mut self) -> Option<Result<Bytes, SupplierError>> {
        loop {
            match self.next_part().await {
                Ok(Some(bytes)) => match self.accept(bytes) {
                    Ok(Some(bytes)) => return Some(Ok(bytes)),
                    Ok(None) => {}
                    Err(error) => return Some(Err(error)),
                },
                Ok(None) if self.total_bytes.is_none_or(|total| self.position == total) => return None,
                Ok(None) => {
                    let error = self.supplier.broken("the body ended early");
                    if let Err(error) = self.recover(error).await {
                        return Some(Err(error));
                    }
                }
                Err(error) => {
                    if let Err(error) = self.recover(error).await {
                        return Some(Err(error));
                    }
                }
            }
        }
    }

    async fn next_part(&mut self) -> Result<Option<Bytes>, SupplierError> {
        if self.body.is_none() {
            self.ask().await?;
        }
        match self.body.as_mut() {
            Some(body) => body.next().await.transpose(),
            None => Ok(None),
        }
    }

    /// Begins an attempt at the present position.
    async fn ask(&mut self) -> Result<(), SupplierError> {
        if self.total_bytes.is_some_and(|total| total == self.position && total > 0) {
            // Everything has come; there is no range that could be asked for.
            return Ok(());
        }
        let supply = self.supplier.open(&self.urgency, &self.digest, self.position, self.total_bytes).await?;
        match (self.total_bytes, supply.total_bytes) {
            (Some(expected), Some(found)) if expected != found => {
                let reason = format!("the blob has {found} bytes where {expected} are expected");
                return Err(self.supplier.broken(reason));
            }
            (None, found) => self.total_bytes = found,
            _ => {}
        }
        let Some(skip) = self.position.checked_sub(supply.offset) else {
            return Err(self.supplier.broken("the transfer begins past the position asked for"));
        };
        self.skip = skip;
        self.body = Some(supply.body);
        Ok(())
    }

    /// Takes a part in: drops what was given before, refuses what is too much.
    fn accept(&mut self, mut bytes: Bytes) -> Result<Option<Bytes>, SupplierError> {
        let known = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len());
        self.skip -= known as u64;
        let bytes = bytes.split_off(known);
        self.position += bytes.len() as u64;
        if self.total_bytes.is_some_and(|total| self.position > total) {
            return Err(self.supplier.broken("the body is longer than the blob"));
        }
        Ok(if bytes.is_empty() { None } else { Some(bytes) })
    }

    /// Pauses before the next attempt, or gives the error back when there is no sense in one.
    async fn recover(&mut self, error: SupplierError) -> Result<(), SupplierError> {
        self.body = None;
        if self.position >= self.position_at_break + PROGRESS {
            self.breaks = 0;
            self.backoff.reset();
        }
        self.position_at_break = self.position;
        self.breaks += 1;
        let asked = match &error {
            SupplierError::Upstream(UpstreamError::Throttled { retry_after, .. }) => {
                retry_after.unwrap_or_default()
            }
            SupplierError::Upstream(UpstreamError::Reserved { retry_after, .. }) => *retry_after,
            _ => Duration::ZERO,
        };
        let is_offline = matches!(error, SupplierError::Upstream(UpstreamError::Offline { .. }));
        let is_over = is_offline || !error.is_transient() || asked > MAX_PAUSE;
        if is_over || self.breaks > MAX_BREAKS {
            return Err(error);
        }
        tracing::info!(
            upstream.name = %self.supplier.label(),
            repository.name = self.supplier.repository().map(|repository| display(repository.name())),
            blob.digest = %self.digest,
            blob.position = self.position,
            error = %error,
            "transfer broke, asking for the rest"
        );
        tokio::time::sleep(self.backoff.next_pause().max(asked)).await;
        Ok(())
    }
}
