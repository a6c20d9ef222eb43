//! The policies that are compared, each over items by number.

mod bound;
mod clairvoyant;
mod ranked;
mod s3fifo;
mod segmented;
mod sieve;

pub(crate) use bound::most_hits;
pub(crate) use clairvoyant::Clairvoyant;
pub(crate) use ranked::{Rank, Ranked};
pub(crate) use s3fifo::S3Fifo;
pub(crate) use segmented::{Rules, Segmented};
pub(crate) use sieve::Sieve;

use crate::trace::{Item, Request};

/// A cache with its policy.
pub(crate) trait Policy {
    /// Serves a request: `true` where the item was here. Otherwise it has been fetched since, and may be
    /// kept. An item larger than the cache passes through.
    fn request(&mut self, request: Request, items: &[Item]) -> bool;
}

/// Bytes in use, and how many there may be.
#[derive(Clone, Copy, Debug)]
struct Room {
    used_bytes: u64,
    capacity_bytes: u64,
}

impl Room {
    const fn new(capacity_bytes: u64) -> Self {
        Self { used_bytes: 0, capacity_bytes }
    }

    const fn is_over(&self) -> bool {
        self.used_bytes > self.capacity_bytes
    }
}
