//! Policies that evict what has the lowest rank, where only a use changes a rank.

use std::collections::BTreeSet;

use super::{Policy, Room};
use crate::trace::{Item, Request};

/// What an item's rank is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rank {
    /// When it came (FIFO).
    Arrival,
    /// When it was last used (LRU).
    LastUse,
    /// How often it was used since it came, then when (LFU).
    Uses,
    /// As `Uses`, on top of the rank of what was evicted last (LFU with dynamic aging): old fame fades.
    /// This is GDSF with a cost that is the size, which aims at bytes.
    AgedUses,
    /// As `AgedUses`, with the uses divided by the size (GDSF with a cost of one), which aims at objects.
    AgedUsesPerByte,
}

/// A cache that evicts by rank.
pub(crate) struct Ranked {
    rank: Rank,
    room: Room,
    /// What is here: its rank, and its uses.
    entries: Vec<Option<(Key, u32)>>,
    order: BTreeSet<(Key, usize)>,
    /// The rank of what was evicted last.
    age: f64,
}

/// A rank that is no negative number, in an order that `f64` itself does not have; then the last use.
type Key = (u64, u64);

impl Ranked {
    pub(crate) fn new(rank: Rank, items: usize, capacity_bytes: u64) -> Self {
        let entries = vec![None; items];
        Self { rank, room: Room::new(capacity_bytes), entries, order: BTreeSet::new(), age: 0.0 }
    }

    #[expect(clippy::cast_precision_loss, reason = "ranks are estimates")]
    fn key(&self, request: Request, item: Item, uses: u32) -> Key {
        let rank = match self.rank {
            Rank::Arrival | Rank::LastUse => 0.0,
            Rank::Uses => f64::from(uses),
            Rank::AgedUses => self.age + f64::from(uses),
            Rank::AgedUsesPerByte => self.age + f64::from(uses) / item.size_bytes as f64,
        };
        (rank.to_bits(), request.at_ms)
    }

    fn insert(&mut self, request: Request, item: Item, uses: u32) {
        let key = self.key(request, item, uses);
        self.entries[request.item] = Some((key, uses));
        self.order.insert((key, request.item));
    }
}

impl Policy for Ranked {
    fn request(&mut self, request: Request, items: &[Item]) -> bool {
        let item = items[request.item];
        if let Some((key, uses)) = self.entries[request.item] {
            if self.rank != Rank::Arrival {
                self.order.remove(&(key, request.item));
                self.insert(request, item, uses + 1);
            }
            return true;
        }
        if item.size_bytes > self.room.capacity_bytes {
            return false;
        }
        self.room.used_bytes += item.size_bytes;
        // Room is made before the new item has a place: as the one with fewest uses it would go at once.
        while self.room.is_over() {
            let Some(((rank, _), victim)) = self.order.pop_first() else { break };
            self.entries[victim] = None;
            self.age = f64::from_bits(rank);
            self.room.used_bytes -= items[victim].size_bytes;
        }
        self.insert(request, item, 1);
        false
    }
}
