//! Segmented LRU by the rules of `tidegate::registry::Evictor`, without its index: fast enough to try
//! other numbers. A test and every run compare it with the evictor itself.

use std::collections::BTreeSet;

use super::{Policy, Room};
use crate::trace::{Item, Request};

/// The numbers of the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    /// The share of the cache that protected items may take.
    pub(crate) protected_percent: u64,
    /// How long after an item came a use moves it to protected.
    pub(crate) second_use_after_ms: u64,
    /// Whether blobs go before all manifests.
    pub(crate) manifests_last: bool,
    /// Whether an item that was evicted before comes back protected.
    pub(crate) remembers_evicted: bool,
}

impl Rules {
    /// Those of the evictor.
    pub(crate) const TIDEGATE: Self = Self {
        protected_percent: 50,
        second_use_after_ms: 3_600_000,
        manifests_last: true,
        remembers_evicted: false,
    };
}

/// A cache with segmented LRU.
pub(crate) struct Segmented {
    rules: Rules,
    room: Room,
    protected_bytes: u64,
    entries: Vec<Option<Entry>>,
    /// The order of eviction: manifests after blobs, and in each probation after protected.
    segments: [[BTreeSet<(u64, usize)>; 2]; 2],
    was_evicted: Vec<bool>,
}

#[derive(Clone, Copy)]
struct Entry {
    stored_ms: u64,
    ordered_ms: u64,
    is_protected: bool,
}

impl Segmented {
    pub(crate) fn new(rules: Rules, items: usize, capacity_bytes: u64) -> Self {
        Self {
            rules,
            room: Room::new(capacity_bytes),
            protected_bytes: 0,
            entries: vec![None; items],
            segments: Default::default(),
            was_evicted: vec![false; items],
        }
    }

    fn kind(&self, item: Item) -> usize {
        usize::from(item.is_manifest && self.rules.manifests_last)
    }

    fn insert(&mut self, number: usize, entry: Entry, item: Item) {
        let kind = self.kind(item);
        self.segments[kind][usize::from(entry.is_protected)].insert((entry.ordered_ms, number));
        if entry.is_protected {
            self.protected_bytes += item.size_bytes;
        }
        self.entries[number] = Some(entry);
    }

    fn remove(&mut self, number: usize, item: Item) -> Option<Entry> {
        let entry = self.entries[number].take()?;
        let kind = self.kind(item);
        self.segments[kind][usize::from(entry.is_protected)].remove(&(entry.ordered_ms, number));
        if entry.is_protected {
            self.protected_bytes -= item.size_bytes;
        }
        Some(entry)
    }

    /// Moves what protected has too much of to the end of probation.
    fn demote(&mut self, items: &[Item]) {
        let limit_bytes = self.room.capacity_bytes / 100 * self.rules.protected_percent;
        while self.protected_bytes > limit_bytes {
            let Some((_, number)) = self.segments[0][1].first().copied() else { break };
            let Some(entry) = self.remove(number, items[number]) else { break };
            let after = self.segments[0][0].last().map_or(0, |(ordered_ms, _)| ordered_ms + 1);
            let ordered_ms = entry.ordered_ms.max(after);
            self.insert(number, Entry { ordered_ms, is_protected: false, ..entry }, items[number]);
        }
    }

    /// Evicts down to 2 % below the capacity.
    fn evict(&mut self, items: &[Item]) {
        let wanted_bytes = self.room.capacity_bytes / 100 * 98;
        while self.room.used_bytes > wanted_bytes {
            let mut order = self.segments.iter().flatten();
            let Some((_, victim)) = order.find_map(BTreeSet::first).copied() else { break };
            self.remove(victim, items[victim]);
            self.room.used_bytes -= items[victim].size_bytes;
            self.was_evicted[victim] = true;
        }
    }
}

impl Policy for Segmented {
    fn request(&mut self, request: Request, items: &[Item]) -> bool {
        let (number, item) = (request.item, items[request.item]);
        if let Some(entry) = self.remove(number, item) {
            let is_protected =
                entry.is_protected || request.at_ms - entry.stored_ms >= self.rules.second_use_after_ms;
            let ordered_ms = entry.ordered_ms.max(request.at_ms);
            self.insert(number, Entry { ordered_ms, is_protected, ..entry }, item);
            return true;
        }
        if item.size_bytes > self.room.capacity_bytes {
            return false;
        }
        let is_protected = self.rules.remembers_evicted && self.was_evicted[number];
        let entry = Entry { stored_ms: request.at_ms, ordered_ms: request.at_ms, is_protected };
        self.insert(number, entry, item);
        self.room.used_bytes += item.size_bytes;
        if self.room.is_over() {
            self.demote(items);
            self.evict(items);
        }
        false
    }
}
