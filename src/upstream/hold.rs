//! A hold: upstream asked to be left alone for a while. Pure, from moments to verdicts.

use std::time::Duration;

use super::error::Fault;
use crate::runtime::Timestamp;

/// What upstream said when it asked to be left alone; who is held back is told the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// 429.
    Throttled,
    /// 503 with `Retry-After`.
    Unavailable,
}

/// What is left of a hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rest {
    pub(super) cause: Cause,
    /// Never zero.
    pub(super) pause: Duration,
}

/// What an answer that asks for a hold changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// There was none.
    Begun,
    /// Who tried whether it was over was told that it is not.
    Again,
    /// Others were told the same at the same time.
    Nothing,
}

/// Whether something is left alone, and until when.
#[derive(Debug, Default)]
pub(super) struct Hold(Option<Held>);

#[derive(Debug)]
struct Held {
    cause: Cause,
    begun: Timestamp,
    until: Timestamp,
    /// How often in a row upstream asked for it again when it was over.
    repeats: u32,
    /// Until then, others wait for what one request finds that tries whether it is over.
    probing_until: Timestamp,
}

impl Rest {
    /// What those are told who are held back.
    pub(super) fn into_fault(self) -> Fault {
        match self.cause {
            Cause::Throttled => Fault::Throttled(Some(self.pause)),
            Cause::Unavailable => Fault::broken("it answered 503 and asked to be left alone for a while"),
        }
    }
}

impl Hold {
    /// What is left of it.
    pub(super) fn rest(&self, now: Timestamp) -> Option<Rest> {
        let held = self.0.as_ref()?;
        let until = held.until.max(held.probing_until);
        // A clock that was set back must not prolong it.
        let is_in_force = held.begun <= now && now < until;
        is_in_force.then(|| Rest { cause: held.cause, pause: until.since(now) })
    }

    /// Lets a request through, unless there is a hold. After one, the first request tries whether it is over; others
    /// are held back for a moment more, so that a crowd does not find out together.
    pub(super) fn admit(&mut self, now: Timestamp) -> Result<(), Rest> {
        if let Some(rest) = self.rest(now) {
            return Err(rest);
        }
        if let Some(held) = &mut self.0 {
            held.begun = held.begun.min(now);
            held.until = held.until.min(now);
            held.probing_until = now.after(PROBE);
        }
        Ok(())
    }

    /// Begins it, or prolongs it: the request that was let through at `asked_at` is told so at `now`, and perhaps for how
    /// long. Gives what is left of it.
    pub(super) fn begin(
        &mut self,
        cause: Cause,
        asked_at: Timestamp,
        now: Timestamp,
        told: Option<Duration>,
    ) -> (Duration, News) {
        let (begun, until, repeats, news) = match &self.0 {
            Some(held) if held.begun <= now && asked_at < held.until => {
                let until = held.until.max(now.after(told.unwrap_or_default().min(LONGEST)));
                (held.begun, until, held.repeats, News::Nothing)
            }
            Some(held) => {
                let repeats = held.repeats.saturating_add(1);
                (now, now.after(pause(told, repeats)), repeats, News::Again)
            }
            None => (now, now.after(pause(told, 0)), 0, News::Begun),
        };
        self.0 = Some(Held { cause, begun, until, repeats, probing_until: begun });
        (until.since(now), news)
    }

    /// Ends it, if upstream gave something to the request that was let through at `asked_at` to try. Says whether
    /// there was one.
    pub(super) fn end(&mut self, asked_at: Timestamp) -> bool {
        self.end_if(|held| asked_at >= held.until)
    }

    /// Ends it, if upstream said so in answer to a request that was let through after it began.
    pub(super) fn end_early(&mut self, asked_at: Timestamp) -> bool {
        self.end_if(|held| asked_at > held.begun)
    }

    fn end_if(&mut self, is_over: impl FnOnce(&Held) -> bool) -> bool {
        self.0.take_if(|held| is_over(held)).is_some()
    }
}

/// How long upstream is left alone: as long as it says, a little longer by chance, so that many nodes that were told
/// the same do not come back together. Where it does not say, longer each time.
fn pause(told: Option<Duration>, repeats: u32) -> Duration {
    let pause = match told {
        Some(told) => told.max(LEAST) + (told / 10).min(MOST_JITTER).mul_f64(fastrand::f64()),
        None => UNTOLD.saturating_mul(1 << repeats.min(16)).min(LONGEST).mul_f64(0.5 + 0.5 * fastrand::f64()),
    };
    pause.min(LONGEST)
}

/// However long upstream says.
pub(super) const LONGEST: Duration = Duration::from_mins(15);
/// However short.
const LEAST: Duration = Duration::from_secs(1);
/// The longest first hold where upstream does not say.
const UNTOLD: Duration = Duration::from_secs(2);
const MOST_JITTER: Duration = Duration::from_secs(5);
/// How long the outcome of a try is waited for.
const PROBE: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_millis(1_000_000);

    fn after(seconds: u64) -> Timestamp {
        START.after(Duration::from_secs(seconds))
    }

    fn begin(hold: &mut Hold, at: Timestamp, told: Option<u64>) -> (Duration, News) {
        hold.begin(Cause::Throttled, at, at, told.map(Duration::from_secs))
    }

    #[test]
    fn it_lasts_as_long_as_upstream_says_within_reason() {
        for (told, least, most) in [(0, 1, 1), (60, 60, 66), (3000, 900, 900), (u64::MAX / 1000, 900, 900)] {
            let mut hold = Hold::default();
            let (pause, news) = begin(&mut hold, START, Some(told));
            assert_eq!(news, News::Begun);
            assert!((least..=most).contains(&pause.as_secs()), "{told}: {pause:?}");
            assert_eq!(hold.rest(START).unwrap().pause, pause);
            assert!(hold.admit(START.after(pause.mul_f64(0.99))).is_err());
            assert!(hold.admit(START.after(pause)).is_ok());
        }
    }

    #[test]
    fn without_a_word_it_is_longer_each_time_and_short_again_after_an_answer() {
        let (mut hold, mut now) = (Hold::default(), START);
        for repeats in 0..20 {
            hold.admit(now).unwrap();
            let (pause, news) = begin(&mut hold, now, None);
            assert_eq!(news, if repeats == 0 { News::Begun } else { News::Again });
            let most = (2_u64 << repeats.min(10)).min(900);
            assert!(pause <= Duration::from_secs(most), "{repeats}: {pause:?}");
            assert!(pause >= Duration::from_secs(most) / 2, "{repeats}: {pause:?}");
            now = now.after(pause);
        }
        hold.admit(now).unwrap();
        assert!(hold.end(now));
        assert!(begin(&mut hold, now, None).0 <= UNTOLD);
    }

    #[test]
    fn a_burst_counts_once_and_the_longest_word_counts() {
        let mut hold = Hold::default();
        begin(&mut hold, START, Some(10));
        let late = hold.begin(Cause::Throttled, START, after(2), Some(Duration::from_secs(100)));
        assert_eq!(late, (Duration::from_secs(100), News::Nothing));
        let (rest, _) = hold.begin(Cause::Throttled, START, after(3), None);
        assert_eq!(rest, Duration::from_secs(99));
        assert!(!hold.end(START), "an answer to what was asked before says nothing");
    }

    #[test]
    fn after_it_one_request_tries_and_others_wait_a_moment() {
        let mut hold = Hold::default();
        let (pause, _) = begin(&mut hold, START, Some(10));
        let over = START.after(pause);
        assert!(hold.admit(over).is_ok());
        assert!(hold.admit(over).is_err());
        assert!(hold.admit(over.after(PROBE)).is_ok(), "the one that tried is gone");
        assert!(hold.end(over));
        assert!(hold.admit(over).is_ok() && hold.admit(over).is_ok());
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_prolong_it() {
        let mut hold = Hold::default();
        begin(&mut hold, after(100_000), Some(10));
        assert!(hold.admit(START).is_ok());
        assert_eq!(begin(&mut hold, START, Some(10)).1, News::Again);
        assert!(hold.admit(after(5)).is_err());
        assert!(hold.admit(after(20)).is_ok());
        assert!(hold.end(after(20)));
    }
}
