//! Hits of policies over traces.

use std::ops::AddAssign;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::policy::{Clairvoyant, Policy, Rank, Ranked, Rules, S3Fifo, Segmented, Sieve, most_hits};
use crate::trace::{Item, Trace};

/// What was requested, and how much of it was here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hits {
    requests: u64,
    served: u64,
    requested_bytes: u64,
    served_bytes: u64,
}

impl Hits {
    /// Counts a request.
    pub(crate) fn count(&mut self, item: Item, is_hit: bool) {
        self.requests += 1;
        self.requested_bytes += item.size_bytes;
        if is_hit {
            self.served += 1;
            self.served_bytes += item.size_bytes;
        }
    }

    /// The object and the byte hit ratio.
    #[expect(clippy::cast_precision_loss, reason = "ratios to four places")]
    pub(crate) fn ratios(&self) -> Ratios {
        Ratios {
            objects: self.served as f64 / self.requests.max(1) as f64,
            bytes: self.served_bytes as f64 / self.requested_bytes.max(1) as f64,
        }
    }
}

impl AddAssign for Hits {
    fn add_assign(&mut self, other: Self) {
        self.requests += other.requests;
        self.served += other.served;
        self.requested_bytes += other.requested_bytes;
        self.served_bytes += other.served_bytes;
    }
}

/// Hits as shares of what was requested.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Ratios {
    /// Of the requests.
    pub(crate) objects: f64,
    /// Of the bytes: what upstream was spared.
    pub(crate) bytes: f64,
}

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contender {
    /// A policy that evicts by rank.
    Ranked(Rank),
    /// SIEVE.
    Sieve,
    /// S3-FIFO.
    S3Fifo,
    /// Segmented LRU with these rules.
    Segmented(Rules),
    /// Belady's rule.
    Clairvoyant,
    /// The upper bound.
    Bound,
}

impl Contender {
    fn policy(self, trace: &Trace, capacity_bytes: u64) -> Option<Box<dyn Policy>> {
        let items = trace.items.len();
        Some(match self {
            Self::Ranked(rank) => Box::new(Ranked::new(rank, items, capacity_bytes)),
            Self::Sieve => Box::new(Sieve::new(items, capacity_bytes)),
            Self::S3Fifo => Box::new(S3Fifo::new(items, capacity_bytes)),
            Self::Segmented(rules) => Box::new(Segmented::new(rules, items, capacity_bytes)),
            Self::Clairvoyant => Box::new(Clairvoyant::new(trace, capacity_bytes)),
            Self::Bound => return None,
        })
    }
}

/// The hits of a policy, from an empty cache on.
pub(crate) fn replay(trace: &Trace, capacity_bytes: u64, contender: Contender) -> Hits {
    let mut hits = Hits::default();
    let Some(mut policy) = contender.policy(trace, capacity_bytes) else { return hits };
    for request in &trace.requests {
        let is_hit = policy.request(*request, &trace.items);
        hits.count(trace.items[request.item], is_hit);
    }
    hits
}

/// The ratios of each contender (rows) at each capacity (columns), on all processors.
pub(crate) fn table(trace: &Trace, capacities: &[u64], contenders: &[Contender]) -> Vec<Vec<Ratios>> {
    let cells = Mutex::new(vec![vec![Ratios::default(); capacities.len()]; contenders.len()]);
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let cell = next.fetch_add(1, Ordering::Relaxed);
                    let (row, column) = (cell / capacities.len(), cell % capacities.len());
                    let Some(contender) = contenders.get(row) else { break };
                    let ratios = ratios(trace, capacities[column], *contender);
                    let mut cells = cells.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    cells[row][column] = ratios;
                }
            });
        }
    });
    cells.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn ratios(trace: &Trace, capacity_bytes: u64, contender: Contender) -> Ratios {
    if contender != Contender::Bound {
        return replay(trace, capacity_bytes, contender).ratios();
    }
    let (objects, bytes) = most_hits(trace, capacity_bytes);
    let requested_bytes: u64 =
        trace.requests.iter().map(|request| trace.items[request.item].size_bytes).sum();
    #[expect(clippy::cast_precision_loss, reason = "ratios to four places")]
    Ratios { objects: objects / trace.requests.len() as f64, bytes: bytes / requested_bytes as f64 }
}
