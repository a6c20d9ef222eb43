//! S3-FIFO (Yang et al., SOSP 2023): a small queue for what is new, a main queue, and the memory of what
//! left the small one. Its queues count bytes here.

use std::collections::VecDeque;

use super::{Policy, Room};
use crate::trace::{Item, Request};

/// A cache with S3-FIFO.
pub(crate) struct S3Fifo {
    room: Room,
    small: Queue,
    main: Queue,
    /// What left the small queue; holds as many bytes as the main one.
    ghosts: Queue,
    /// Which queue an item is in.
    places: Vec<Place>,
    /// The uses since an item came or was last spared, 3 at most.
    uses: Vec<u8>,
}

#[derive(Default)]
struct Queue {
    items: VecDeque<usize>,
    bytes: u64,
}

impl Queue {
    fn push(&mut self, item: usize, items: &[Item]) {
        self.items.push_back(item);
        self.bytes += items[item].size_bytes;
    }

    fn pop(&mut self, items: &[Item]) -> Option<usize> {
        let item = self.items.pop_front()?;
        self.bytes -= items[item].size_bytes;
        Some(item)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Nowhere,
    Cached,
    Ghost,
}

impl S3Fifo {
    pub(crate) fn new(items: usize, capacity_bytes: u64) -> Self {
        Self {
            room: Room::new(capacity_bytes),
            small: Queue::default(),
            main: Queue::default(),
            ghosts: Queue::default(),
            places: vec![Place::Nowhere; items],
            uses: vec![0; items],
        }
    }

    fn evict(&mut self, items: &[Item]) {
        if self.small.bytes > self.room.capacity_bytes / 10 || self.main.items.is_empty() {
            self.leave_small(items);
        } else {
            self.leave_main(items);
        }
    }

    fn leave_small(&mut self, items: &[Item]) {
        let Some(item) = self.small.pop(items) else { return };
        if self.uses[item] > 1 {
            self.uses[item] = 0;
            self.main.push(item, items);
            return;
        }
        self.room.used_bytes -= items[item].size_bytes;
        self.places[item] = Place::Ghost;
        self.ghosts.push(item, items);
        while self.ghosts.bytes > self.room.capacity_bytes / 10 * 9 {
            let Some(forgotten) = self.ghosts.pop(items) else { break };
            if self.places[forgotten] == Place::Ghost {
                self.places[forgotten] = Place::Nowhere;
            }
        }
    }

    fn leave_main(&mut self, items: &[Item]) {
        let Some(item) = self.main.pop(items) else { return };
        if self.uses[item] > 0 {
            self.uses[item] -= 1;
            self.main.push(item, items);
        } else {
            self.room.used_bytes -= items[item].size_bytes;
            self.places[item] = Place::Nowhere;
        }
    }
}

impl Policy for S3Fifo {
    fn request(&mut self, request: Request, items: &[Item]) -> bool {
        let item = request.item;
        if self.places[item] == Place::Cached {
            self.uses[item] = (self.uses[item] + 1).min(3);
            return true;
        }
        let size_bytes = items[item].size_bytes;
        if size_bytes > self.room.capacity_bytes {
            return false;
        }
        self.room.used_bytes += size_bytes;
        let is_known = self.places[item] == Place::Ghost;
        while self.room.is_over() {
            self.evict(items);
        }
        self.places[item] = Place::Cached;
        self.uses[item] = 0;
        let queue = if is_known { &mut self.main } else { &mut self.small };
        queue.push(item, items);
        false
    }
}
