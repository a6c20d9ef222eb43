//! SIEVE (Zhang et al., NSDI 2024): a queue that a hand goes over, which spares what was used since.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};

use super::{Policy, Room};
use crate::trace::{Item, Request};

/// A cache with SIEVE.
pub(crate) struct Sieve {
    room: Room,
    /// What is here: its place in the queue, and whether it was used since the hand passed.
    entries: Vec<Option<(u64, bool)>>,
    /// The queue, the oldest first.
    queue: BTreeMap<u64, usize>,
    /// The place that the hand was at last.
    hand: Option<u64>,
    next_place: u64,
}

impl Sieve {
    pub(crate) fn new(items: usize, capacity_bytes: u64) -> Self {
        let entries = vec![None; items];
        Self { room: Room::new(capacity_bytes), entries, queue: BTreeMap::new(), hand: None, next_place: 0 }
    }

    fn evict(&mut self, items: &[Item]) {
        loop {
            let after = self.hand.map_or(Unbounded, Excluded);
            let found = self.queue.range((after, Unbounded)).next().or_else(|| self.queue.iter().next());
            let Some((place, victim)) = found.map(|(place, item)| (*place, *item)) else { return };
            self.hand = Some(place);
            match &mut self.entries[victim] {
                Some((_, was_used)) if *was_used => *was_used = false,
                entry => {
                    *entry = None;
                    self.queue.remove(&place);
                    self.room.used_bytes -= items[victim].size_bytes;
                    return;
                }
            }
        }
    }
}

impl Policy for Sieve {
    fn request(&mut self, request: Request, items: &[Item]) -> bool {
        if let Some((_, was_used)) = &mut self.entries[request.item] {
            *was_used = true;
            return true;
        }
        let size_bytes = items[request.item].size_bytes;
        if size_bytes > self.room.capacity_bytes {
            return false;
        }
        self.room.used_bytes += size_bytes;
        while self.room.is_over() {
            self.evict(items);
        }
        self.entries[request.item] = Some((self.next_place, false));
        self.queue.insert(self.next_place, request.item);
        self.next_place += 1;
        false
    }
}
