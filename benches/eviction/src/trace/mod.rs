//! What is requested of a cache, in order: made up after published figures, or read from a file.

mod images;
mod model;
mod pulls;
mod replay;
mod sizes;
mod statistics;

pub(crate) use model::{Model, VARIANTS};
pub(crate) use pulls::make;
pub(crate) use replay::read;
pub(crate) use statistics::Statistics;

/// An item of content; its number is its place in [`Trace::items`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    /// Its size in bytes, never 0.
    pub(crate) size_bytes: u64,
    /// Manifests are evicted after all blobs by Tidegate.
    pub(crate) is_manifest: bool,
}

/// One GET that is answered with the whole item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// When, in milliseconds since the trace began; no two requests have the same.
    pub(crate) at_ms: u64,
    /// The item's number.
    pub(crate) item: usize,
}

/// Requests in order of time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Trace {
    /// All items, each requested at least once.
    pub(crate) items: Vec<Item>,
    /// The requests.
    pub(crate) requests: Vec<Request>,
}

impl Trace {
    /// The bytes of all items: what a cache that never evicts would hold at the end.
    pub(crate) fn working_set_bytes(&self) -> u64 {
        self.items.iter().map(|item| item.size_bytes).sum()
    }

    /// The same requests, with no items but theirs.
    pub(crate) fn only_requested(self) -> Self {
        Self::tidy(&self.items, self.requests)
    }

    /// Puts requests in order, moves those of one millisecond apart, and drops items that nobody requests.
    fn tidy(items: &[Item], mut requests: Vec<Request>) -> Self {
        requests.sort_by_key(|request| request.at_ms);
        let mut numbers = vec![usize::MAX; items.len()];
        let mut tidy = Self::default();
        let mut next_ms = 0;
        for request in requests {
            if numbers[request.item] == usize::MAX {
                numbers[request.item] = tidy.items.len();
                tidy.items.push(items[request.item]);
            }
            let at_ms = request.at_ms.max(next_ms);
            next_ms = at_ms + 1;
            tidy.requests.push(Request { at_ms, item: numbers[request.item] });
        }
        tidy
    }
}
