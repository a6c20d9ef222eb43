//! What could be done with the future known.

use std::collections::BTreeSet;

use super::{Policy, Room};
use crate::trace::{Item, Request, Trace};

/// Belady's rule: evicts what is used again last, and does not keep what is used again later than
/// all that would have to go. Best where all items have one size; here, what can be reached at least.
pub(crate) struct Clairvoyant {
    room: Room,
    /// For each request, the number of the next one of the same item.
    next: Vec<usize>,
    now: usize,
    /// When what is here is used next.
    entries: Vec<Option<usize>>,
    order: BTreeSet<(usize, usize)>,
}

impl Clairvoyant {
    pub(crate) fn new(trace: &Trace, capacity_bytes: u64) -> Self {
        let mut seen = vec![NEVER; trace.items.len()];
        let mut next = vec![NEVER; trace.requests.len()];
        for (now, request) in trace.requests.iter().enumerate().rev() {
            next[now] = seen[request.item];
            seen[request.item] = now;
        }
        let entries = vec![None; trace.items.len()];
        Self { room: Room::new(capacity_bytes), next, now: 0, entries, order: BTreeSet::new() }
    }

    fn remove(&mut self, item: usize, next: usize, items: &[Item]) {
        self.order.remove(&(next, item));
        self.entries[item] = None;
        self.room.used_bytes -= items[item].size_bytes;
    }
}

impl Policy for Clairvoyant {
    fn request(&mut self, request: Request, items: &[Item]) -> bool {
        let next = self.next[self.now];
        self.now += 1;
        let known = self.entries[request.item];
        if let Some(before) = known {
            self.remove(request.item, before, items);
        }
        let size_bytes = items[request.item].size_bytes;
        if next == NEVER || size_bytes > self.room.capacity_bytes {
            return known.is_some();
        }
        self.room.used_bytes += size_bytes;
        self.entries[request.item] = Some(next);
        self.order.insert((next, request.item));
        while self.room.is_over() {
            let Some((next, victim)) = self.order.last().copied() else { break };
            self.remove(victim, next, items);
        }
        known.is_some()
    }
}

/// No request.
const NEVER: usize = usize::MAX;
