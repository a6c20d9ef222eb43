//! What may be asked of one endpoint with one credential: holds that upstream asked for, and what is left of what it
//! allows, which the less urgent leave to the more urgent.
//!
//! Logins have limits of their own and are no part of it: see [`super::token`].

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{HeaderMap, StatusCode};

use super::allowance::{Allowance, Counts, Told};
use super::answer::retry_after;
use super::error::Fault;
use super::hold::{Cause, Hold, News, Rest};
use super::priority::Priority;
use crate::runtime::{Clock, Timestamp};

/// What a question costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cost {
    /// A manifest's content: what Docker Hub counts.
    Pull,
    /// A blob, which may come from another host.
    Blob,
    /// Anything else.
    Look,
}

/// Where an answer comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The endpoint itself.
    Endpoint,
    /// Where it redirects to.
    Elsewhere,
}

/// The budget.
pub(super) struct Budget {
    state: Mutex<State>,
    clock: Clock,
}

#[derive(Default)]
struct State {
    /// Upstream wants no request at all.
    everything: Hold,
    /// It wants none that it counts as a pull.
    pulls: Hold,
    /// Where its blobs are wants no request.
    blobs: Hold,
    allowance: Option<Allowance>,
    /// When a hold was told as new the last time; and whether that it is over is still to be told.
    told_at: Option<Timestamp>,
    is_end_awaited: bool,
}

/// Why a question is not asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Upstream asked for a pause.
    Held(Rest),
    /// What is left is for the more urgent; when to look again.
    Reserved(Duration),
}

impl Refusal {
    /// When to ask again.
    pub(super) const fn pause(self) -> Duration {
        match self {
            Self::Held(rest) => rest.pause,
            Self::Reserved(pause) => pause,
        }
    }

    /// The metric label.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Held(_) => "held",
            Self::Reserved(_) => "reserved",
        }
    }

    /// What those are told who ask with this priority.
    pub(super) fn into_fault(self, priority: Priority) -> Fault {
        match self {
            Self::Held(rest) => rest.into_fault(),
            Self::Reserved(pause) => Fault::Reserved(priority, pause),
        }
    }
}

/// What an answer changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    /// A hold is in force, so long.
    pub(super) hold: Option<(Duration, News)>,
    /// A hold is over that was told as new.
    pub(super) is_over_at_last: bool,
    /// Upstream said how much it allows.
    pub(super) is_told: bool,
}

impl Budget {
    pub(super) fn new(clock: Clock) -> Self {
        Self { state: Mutex::default(), clock }
    }

    /// Whether a question would be let through now.
    pub(super) fn check(&self, cost: Cost, priority: Priority) -> Result<(), Refusal> {
        self.lock().check(cost, priority, self.clock.now())
    }

    /// Lets a question through and counts it; says when that was.
    pub(super) fn admit(&self, cost: Cost, priority: Priority) -> Result<Timestamp, Refusal> {
        let now = self.clock.now();
        let mut state = self.lock();
        state.check(cost, priority, now)?;
        for hold in state.holds(cost) {
            hold.admit(now).map_err(Refusal::Held)?;
        }
        if let Some(allowance) =
            state.allowance.as_mut().filter(|allowance| is_counted(allowance.counts(), cost))
        {
            allowance.spend();
        }
        Ok(now)
    }

    /// Learns from the head of an answer to a question that was let through at `asked_at`.
    pub(super) fn observe(
        &self,
        (cost, asked_at): (Cost, Timestamp),
        place: Place,
        status: StatusCode,
        headers: &HeaderMap,
    ) -> Change {
        let now = self.clock.now();
        let mut state = self.lock();
        let told = if place == Place::Endpoint { Told::read(headers, now) } else { None };
        if let Some(told) = told {
            state.allowance = Some(Allowance::new(told, now, state.allowance.as_ref()));
        }
        let wait = retry_after(headers, now);
        let cause = match status.as_u16() {
            429 => Some(Cause::Throttled),
            503 if wait.is_some() => Some(Cause::Unavailable),
            _ => None,
        };
        let is_told = told.is_some();
        if let Some(cause) = cause {
            let Some(hold) = state.hold_for(cost, place, told) else {
                return Change { is_told, ..Change::default() };
            };
            let wait = wait.or_else(|| told.and_then(|told| told.wait()));
            let (pause, mut news) = hold.begin(cause, asked_at, now, wait);
            if news == News::Begun && !state.is_worth_telling(now) {
                news = News::Again;
            }
            return Change { hold: Some((pause, news)), is_told, ..Change::default() };
        }
        let is_over = state.note_answer((cost, asked_at), place, status, told);
        let is_over_at_last = is_over && std::mem::take(&mut state.is_end_awaited);
        Change { hold: None, is_over_at_last, is_told }
    }

    /// Ends the holds that a question was to try: it met with another trouble, which is now what is to be told.
    pub(super) fn end_holds(&self, cost: Cost, asked_at: Timestamp) {
        for hold in self.lock().holds(cost) {
            hold.end(asked_at);
        }
    }

    /// How much is left, as far as upstream says.
    pub(super) fn remaining(&self) -> Option<u64> {
        self.lock().allowance.as_ref()?.remaining(self.clock.now())
    }

    /// How much upstream allows, as far as it says.
    pub(super) fn limit(&self) -> Option<u64> {
        self.lock().allowance.as_ref().map(Allowance::limit)
    }

    /// What is left of a hold of all requests.
    pub(super) fn rest(&self) -> Option<Duration> {
        self.lock().everything.rest(self.clock.now()).map(|rest| rest.pause)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn check(&mut self, cost: Cost, priority: Priority, now: Timestamp) -> Result<(), Refusal> {
        let rests = self.holds(cost).into_iter().filter_map(|hold| hold.rest(now));
        match rests.max_by_key(|rest| rest.pause) {
            Some(rest) => Err(Refusal::Held(rest)),
            None => self.require_share(cost, priority, now),
        }
    }

    /// The holds that concern a question.
    fn holds(&mut self, cost: Cost) -> Vec<&mut Hold> {
        match cost {
            Cost::Pull => vec![&mut self.everything, &mut self.pulls],
            Cost::Blob => vec![&mut self.everything, &mut self.blobs],
            Cost::Look => vec![&mut self.everything],
        }
    }

    /// Whether a new hold is one for the operator. Where limits are of seconds, holds come and go.
    fn is_worth_telling(&mut self, now: Timestamp) -> bool {
        let is_due = self.told_at.is_none_or(|told_at| told_at > now || now.since(told_at) >= TELL_EVERY);
        if is_due {
            (self.told_at, self.is_end_awaited) = (Some(now), true);
        }
        is_due
    }

    /// What is held when a question is answered so; nothing where that says nothing about this upstream.
    fn hold_for(&mut self, cost: Cost, place: Place, told: Option<Told>) -> Option<&mut Hold> {
        match (place, cost, told) {
            (Place::Elsewhere, Cost::Blob, _) => Some(&mut self.blobs),
            (Place::Elsewhere, ..) => None,
            (_, Cost::Pull, Some(told)) if told.counts == Counts::Pulls => Some(&mut self.pulls),
            _ => Some(&mut self.everything),
        }
    }

    /// Ends holds that an answer shows to be over.
    fn note_answer(
        &mut self,
        (cost, asked_at): (Cost, Timestamp),
        place: Place,
        status: StatusCode,
        told: Option<Told>,
    ) -> bool {
        if status == StatusCode::UNAUTHORIZED || status.is_server_error() {
            // Comes before anything is counted, or says nothing of it.
            return false;
        }
        let mut is_over = false;
        if place == Place::Endpoint {
            is_over |= self.everything.end(asked_at);
        }
        if cost == Cost::Blob && status.is_success() {
            is_over |= self.blobs.end(asked_at);
        }
        if cost == Cost::Pull {
            is_over |= self.pulls.end(asked_at);
        } else if told.is_some_and(|told| told.counts == Counts::Pulls && told.remaining > 0) {
            is_over |= self.pulls.end_early(asked_at);
        }
        is_over
    }

    /// Refuses the less urgent what is kept for the more urgent. Clients spend to the end, and beyond what was told:
    /// upstream knows better.
    fn require_share(&self, cost: Cost, priority: Priority, now: Timestamp) -> Result<(), Refusal> {
        let allowance = self.allowance.as_ref().filter(|allowance| is_counted(allowance.counts(), cost));
        let Some(allowance) = allowance else { return Ok(()) };
        let reserve = u128::from(allowance.limit()) * u128::from(priority.reserve_percent());
        match allowance.remaining(now) {
            Some(remaining) if u128::from(remaining) * 100 < reserve => {
                Err(Refusal::Reserved(allowance.pause(now)))
            }
            _ => Ok(()),
        }
    }
}

fn is_counted(counts: Counts, cost: Cost) -> bool {
    counts == Counts::Requests || cost == Cost::Pull
}

const TELL_EVERY: Duration = Duration::from_mins(5);

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::super::hold::LONGEST;
    use super::*;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    fn budget() -> (Budget, Clock) {
        let clock = Clock::manual(Timestamp::from_millis(784_111_777_000)); // Sun, 06 Nov 1994 08:49:37 GMT
        (Budget::new(clock.clone()), clock)
    }

    /// Asks and is answered; whether it was asked at all.
    fn ask(budget: &Budget, cost: Cost, status: u16, lines: &[(&'static str, &str)]) -> bool {
        let Ok(asked_at) = budget.admit(cost, Priority::Client) else { return false };
        let status = StatusCode::from_u16(status).unwrap();
        budget.observe((cost, asked_at), Place::Endpoint, status, &headers(lines));
        true
    }

    #[test]
    fn every_retry_after_holds_and_none_for_ever() {
        for (value, least, most) in [
            (Some("7"), 7, 8),
            (Some("Sun, 06 Nov 1994 08:50:37 GMT"), 60, 66),
            (Some("1000000000000"), 900, 900),
            (Some("99999999999999999999999999"), 900, 900),
            (Some("Fri, 31 Dec 9999 23:59:59 GMT"), 900, 900),
            (Some("0"), 1, 1),
            (Some("Sun, 06 Nov 1994 08:00:00 GMT"), 1, 1),
            (Some("-5"), 1, 2),
            (Some("soon"), 1, 2),
            (None, 1, 2),
        ] {
            let (budget, clock) = budget();
            let lines: Vec<_> = value.map(|value| ("retry-after", value)).into_iter().collect();
            assert!(ask(&budget, Cost::Look, 429, &lines));
            let Err(Refusal::Held(rest)) = budget.check(Cost::Look, Priority::Client) else {
                panic!("{value:?}")
            };
            assert_eq!(rest.cause, Cause::Throttled);
            assert!(rest.pause >= Duration::from_secs(least), "{value:?}: {rest:?}");
            assert!(rest.pause <= Duration::from_secs(most), "{value:?}: {rest:?}");
            clock.advance(LONGEST);
            assert!(ask(&budget, Cost::Look, 200, &[]), "{value:?}");
            assert!(ask(&budget, Cost::Look, 200, &[]), "{value:?}");
        }
    }

    #[test]
    fn a_503_holds_only_where_it_says_for_how_long_and_stays_what_it_is() {
        let (budget, _) = budget();
        assert!(ask(&budget, Cost::Look, 503, &[]));
        assert!(ask(&budget, Cost::Look, 503, &[("retry-after", "30")]));
        let refusal = budget.check(Cost::Blob, Priority::Client).unwrap_err();
        assert!(matches!(refusal.into_fault(Priority::Client), Fault::Broken(_)), "{refusal:?}");
    }

    #[test]
    fn holds_that_come_and_go_are_told_now_and_then() {
        let (budget, clock) = budget();
        let mut told = Vec::new();
        for round in 0..400 {
            for status in [429, 200] {
                let asked_at = budget.admit(Cost::Look, Priority::Client).unwrap();
                let status = StatusCode::from_u16(status).unwrap();
                let change =
                    budget.observe((Cost::Look, asked_at), Place::Endpoint, status, &HeaderMap::new());
                if matches!(change.hold, Some((_, News::Begun))) || change.is_over_at_last {
                    told.push((round, status.as_u16()));
                }
                clock.advance(Duration::from_secs(2));
            }
        }
        let expected = [0, 75, 150, 225, 300, 375].map(|round| [(round, 429), (round, 200)]);
        assert_eq!(told, expected.concat());
    }

    #[test]
    fn another_trouble_ends_a_hold_that_was_over_and_none_that_was_not() {
        let (budget, clock) = budget();
        assert!(ask(&budget, Cost::Pull, 429, &[("retry-after", "10")]));
        budget.end_holds(Cost::Pull, Timestamp::from_millis(784_111_777_000));
        assert!(budget.check(Cost::Pull, Priority::Client).is_err());
        clock.advance(Duration::from_secs(20));
        let asked_at = budget.admit(Cost::Pull, Priority::Client).unwrap();
        assert!(budget.check(Cost::Pull, Priority::Client).is_err(), "one tries");
        budget.end_holds(Cost::Pull, asked_at);
        assert!(budget.check(Cost::Pull, Priority::Client).is_ok());
    }

    const DOCKER: (&str, &str) = ("docker-ratelimit-source", "192.0.2.1");

    #[test]
    fn where_only_manifests_count_all_else_goes_on() {
        let (budget, clock) = budget();
        let none = [("ratelimit-limit", "100;w=21600"), ("ratelimit-remaining", "0;w=21600"), DOCKER];
        assert!(ask(&budget, Cost::Pull, 429, &none));
        assert!(!ask(&budget, Cost::Pull, 200, &[]));
        assert!(ask(&budget, Cost::Look, 200, &none) && ask(&budget, Cost::Blob, 200, &[]));
        assert!(!ask(&budget, Cost::Pull, 200, &[]));
        // HEAD reports that there is something again.
        clock.advance(Duration::from_millis(1));
        let some = [("ratelimit-limit", "100;w=21600"), ("ratelimit-remaining", "5;w=21600"), DOCKER];
        assert!(ask(&budget, Cost::Look, 200, &some));
        assert!(ask(&budget, Cost::Pull, 200, &[]));
        assert_eq!((budget.remaining(), budget.limit()), (Some(4), Some(100)));
        // Without that word, it is about everything.
        assert!(ask(&budget, Cost::Pull, 429, &[]));
        assert!(!ask(&budget, Cost::Look, 200, &[]) && !ask(&budget, Cost::Blob, 200, &[]));
    }

    #[test]
    fn a_store_that_throttles_holds_blobs_alone() {
        let (budget, _) = budget();
        let asked_at = budget.admit(Cost::Blob, Priority::Client).unwrap();
        let status = StatusCode::TOO_MANY_REQUESTS;
        budget.observe((Cost::Blob, asked_at), Place::Elsewhere, status, &headers(&[("retry-after", "9")]));
        assert!(!ask(&budget, Cost::Blob, 200, &[]));
        assert!(ask(&budget, Cost::Pull, 200, &[]));
    }

    #[test]
    fn what_is_left_goes_to_clients_before_revalidation_before_what_is_ahead() {
        let (budget, _) = budget();
        let classes =
            |budget: &Budget, cost: Cost| Priority::ALL.map(|priority| budget.check(cost, priority).is_ok());
        for (remaining, expected) in [
            ("100", [true, true, true]),
            ("30", [true, true, true]),
            ("29", [true, true, false]),
            ("9", [true, false, false]),
            ("0", [true, false, false]),
        ] {
            let lines = [("ratelimit-limit", "100;w=21600"), ("ratelimit-remaining", remaining), DOCKER];
            assert!(ask(&budget, Cost::Look, 200, &lines));
            assert_eq!(classes(&budget, Cost::Pull), expected, "{remaining}");
            assert_eq!(classes(&budget, Cost::Look), [true; 3], "HEAD costs nothing there");
            let lines = [
                ("ratelimit", &*format!("\"all\";r={remaining};t=50")),
                ("ratelimit-policy", "\"all\";q=100"),
            ];
            assert!(ask(&budget, Cost::Look, 200, &lines));
            assert_eq!(classes(&budget, Cost::Blob), expected, "{remaining}");
        }
        let refusal = budget.check(Cost::Look, Priority::Ahead).unwrap_err();
        assert_eq!(refusal, Refusal::Reserved(Duration::from_secs(50)));
    }

    #[test]
    fn what_is_on_its_way_counts_before_upstream_tells() {
        let (budget, _) = budget();
        let lines = [("ratelimit-limit", "100;w=21600"), ("ratelimit-remaining", "32"), DOCKER];
        assert!(ask(&budget, Cost::Look, 200, &lines));
        let admitted = (0..10).filter(|_| budget.admit(Cost::Pull, Priority::Ahead).is_ok()).count();
        assert_eq!(admitted, 3);
    }
}
