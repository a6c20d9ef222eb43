//! `[[warm]]`: what is to be done when.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{WarmOrder, begin, cancel};
use crate::config::{WarmConfig, WarmSchedule};
use crate::oci::{Algorithm, Digest};
use crate::registry::core::Core;
use crate::runtime::Timestamp;

/// What identifiers of scheduled jobs begin with.
pub(super) const PREFIX: &str = "scheduled-";

/// How long after a failure a scheduled job is tried again.
const RETRY_AFTER: Duration = Duration::from_hours(1);

/// What is scheduled, and what failed lately.
#[derive(Default)]
pub(in crate::registry) struct Schedule {
    entries: Mutex<Vec<Entry>>,
    failed_at: Mutex<HashMap<String, Timestamp>>,
}

/// One `[[warm]]`.
#[derive(Clone)]
struct Entry {
    /// Tells what is ordered: an order that is changed is another one, and due.
    id: String,
    order: WarmOrder,
    schedule: WarmSchedule,
}

impl Schedule {
    pub(super) fn note_failure(&self, id: &str, at: Timestamp) {
        lock(&self.failed_at).insert(id.to_owned(), at);
    }
}

/// Replaces what is scheduled. A job of an entry that is gone is stopped.
pub(in crate::registry) fn replace(core: &Core, configs: &[WarmConfig]) {
    let entries: Vec<_> = configs.iter().map(Entry::of).collect();
    let old = std::mem::replace(&mut *lock(&core.warmer.schedule.entries), entries.clone());
    for gone in old.iter().filter(|old| !entries.iter().any(|new| new.id == old.id)) {
        cancel(core, &gone.id);
    }
}

/// Begins what is due.
pub(in crate::registry) async fn begin_due(core: &Arc<Core>) {
    let entries = lock(&core.warmer.schedule.entries).clone();
    for entry in entries {
        let now = core.clock.now();
        let failed_at = lock(&core.warmer.schedule.failed_at).get(&entry.id).copied();
        let failed_lately = failed_at.is_some_and(|at| at <= now && now.since(at) < RETRY_AFTER);
        if core.warmer.is_running(&entry.id) || failed_lately {
            continue;
        }
        let record = core.or_nothing(core.index.find_warm(&entry.id).await);
        if is_due(&entry.schedule, record.and_then(|record| record.finished_at), now) {
            lock(&core.warmer.schedule.failed_at).remove(&entry.id);
            begin(core, entry.id, entry.order).await;
        }
    }
}

/// Whether it is time, after it was done at `finished_at`. What was never done is due, and so is what was done
/// in the future: a clock was set back.
fn is_due(schedule: &WarmSchedule, finished_at: Option<Timestamp>, now: Timestamp) -> bool {
    let Some(finished_at) = finished_at.filter(|at| *at <= now) else { return true };
    match schedule {
        WarmSchedule::Every(pause) => now.since(finished_at) >= *pause,
        WarmSchedule::Daily(time) => finished_at < time.last_until(now),
    }
}

impl Entry {
    fn of(config: &WarmConfig) -> Self {
        let order = WarmOrder::of(config);
        let digest = Digest::of(Algorithm::Sha256, order.to_json().as_bytes());
        Self { id: format!("{PREFIX}{}", &digest.hex()[..16]), order, schedule: config.schedule }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: u64 = 3600 * 1000;

    #[test]
    fn what_was_never_done_or_long_ago_is_due() {
        let at = |hours: u64| Timestamp::from_millis(20_000 * 24 * HOUR_MS + hours * HOUR_MS);
        let every = WarmSchedule::Every(Duration::from_hours(6));
        let daily = WarmSchedule::Daily("03:00".parse().unwrap());
        for (schedule, finished, now, due) in [
            (&every, None, 0, true),
            (&every, Some(4), 9, false),
            (&every, Some(4), 10, true),
            (&every, Some(11), 10, true),
            (&daily, None, 0, true),
            (&daily, Some(2), 3, true),
            (&daily, Some(3), 26, false),
            (&daily, Some(4), 27, true),
        ] {
            assert_eq!(is_due(schedule, finished.map(at), at(now)), due, "{schedule:?} {finished:?} {now}");
        }
    }
}
