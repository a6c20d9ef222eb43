//! The two clocks of a tag: pure, from moments and settings to a decision.
//!
//! A digest never changes and has no clock. A tag is *fresh* while no question needs to be asked, then
//! *usable while asking*, then *usable only if asking fails*, and at last of no use (RFC 5861's terms).

use std::time::Duration;

use crate::config::Freshness;
use crate::runtime::Timestamp;

/// What may be done with an answer of some age.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Serve it, ask nothing.
    Fresh,
    /// Serve it, ask in the background.
    ServeAndAsk,
    /// Ask first; serve it where upstream cannot answer.
    AskFirst,
    /// Ask first; it is too old to be served.
    AskOnly,
}

/// Judges an answer that upstream last confirmed at `checked_at`.
pub(super) fn judge(now: Timestamp, checked_at: Timestamp, clocks: &Freshness) -> Verdict {
    let age = age(now, checked_at);
    let while_asking = clocks.fresh_for.saturating_add(clocks.stale_while_revalidate);
    if age < clocks.fresh_for {
        Verdict::Fresh
    } else if age < while_asking {
        Verdict::ServeAndAsk
    } else if age < clocks.fresh_for.saturating_add(clocks.stale_if_error) {
        Verdict::AskFirst
    } else {
        Verdict::AskOnly
    }
}

/// The age of an answer. A moment in the future (the clock was set back) counts as very old: asking once
/// too often is harmless, never asking again is not.
pub(super) fn age(now: Timestamp, checked_at: Timestamp) -> Duration {
    if checked_at > now { Duration::MAX } else { now.since(checked_at) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLOCKS: Freshness = Freshness {
        fresh_for: Duration::from_mins(1),
        stale_while_revalidate: Duration::from_secs(30),
        stale_if_error: Duration::from_hours(1),
        negative_for: Duration::from_secs(10),
        keep_deleted: Duration::from_secs(10),
        pin_deleted: false,
    };

    #[test]
    fn each_clock_begins_where_the_one_before_ends() {
        let checked_at = Timestamp::from_millis(1_000_000);
        let cases = [
            (0, Verdict::Fresh),
            (59_999, Verdict::Fresh),
            (60_000, Verdict::ServeAndAsk),
            (89_999, Verdict::ServeAndAsk),
            (90_000, Verdict::AskFirst),
            (3_659_999, Verdict::AskFirst),
            (3_660_000, Verdict::AskOnly),
        ];
        for (later_ms, verdict) in cases {
            let now = Timestamp::from_millis(1_000_000 + later_ms);
            assert_eq!(judge(now, checked_at, &CLOCKS), verdict, "after {later_ms} ms");
        }
    }

    #[test]
    fn with_all_clocks_at_zero_upstream_is_always_asked() {
        let zero = Freshness {
            fresh_for: Duration::ZERO,
            stale_while_revalidate: Duration::ZERO,
            stale_if_error: Duration::ZERO,
            ..CLOCKS
        };
        let now = Timestamp::from_millis(5);
        assert_eq!(judge(now, now, &zero), Verdict::AskOnly);
    }

    #[test]
    fn a_clock_that_was_set_back_makes_nothing_fresh_for_ever() {
        let (earlier, later) = (Timestamp::from_millis(1), Timestamp::from_millis(2));
        assert_eq!(judge(earlier, later, &CLOCKS), Verdict::AskOnly);
    }
}
