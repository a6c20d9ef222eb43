//! What no policy can do better.

use crate::trace::Trace;

/// An upper bound of the hits that any policy can have, also with the future known: of objects and of
/// bytes, as two numbers that need not be reached by one policy.
///
/// PFOO-L of Berger, Beckmann and Harchol-Balter (SIGMETRICS 2018). To hit, an item must be kept from one
/// request to the next, which takes its size times the requests in between. All requests together have the
/// cache's size times their number of that. The bound takes the intervals that cost least for what they
/// bring, as if only the sum had to fit, not each moment.
pub(crate) fn most_hits(trace: &Trace, capacity_bytes: u64) -> (f64, f64) {
    let mut last = vec![None; trace.items.len()];
    let mut intervals = Vec::new();
    for (now, request) in trace.requests.iter().enumerate() {
        if let Some(before) = last[request.item].replace(now) {
            let size_bytes = trace.items[request.item].size_bytes;
            if size_bytes <= capacity_bytes {
                intervals.push(Interval { size_bytes, length: now - before });
            }
        }
    }
    let total = u128::from(capacity_bytes) * trace.requests.len() as u128;
    intervals.sort_unstable_by_key(Interval::cost);
    let objects = take(&intervals, total, |_| 1.0);
    // Bytes for their cost: the size cancels out.
    intervals.sort_unstable_by_key(|interval| interval.length);
    #[expect(clippy::cast_precision_loss, reason = "a share to three places")]
    let bytes = take(&intervals, total, |interval| interval.size_bytes as f64);
    (objects, bytes)
}

struct Interval {
    size_bytes: u64,
    /// In requests.
    length: usize,
}

impl Interval {
    fn cost(&self) -> u128 {
        u128::from(self.size_bytes) * self.length as u128
    }
}

/// What the first intervals bring whose costs sum up to `total`.
fn take(intervals: &[Interval], total: u128, worth: impl Fn(&Interval) -> f64) -> f64 {
    let (mut spent, mut gained) = (0_u128, 0.0);
    for interval in intervals {
        spent += interval.cost();
        gained += worth(interval);
        // The last one counts whole: more than its part, so that this stays a bound.
        if spent > total {
            break;
        }
    }
    gained
}
