//! The endpoints of one upstream: order, health, circuit breaker, and how much at once.
//!
//! The breaker is pure; the endpoint around it adds the lock, metrics and logs.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::budget::Budget;
use super::error::Fault;
use super::metrics::UpstreamMetrics;
use super::origin::Origin;
use super::priority::Urgency;
use super::slots::{Slot, Slots};
use crate::runtime::{Backoff, Clock, Timestamp};

/// How an endpoint does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointState {
    /// It is used.
    Up,
    /// One request tries whether it is back.
    Probing,
    /// Its breaker is open: nothing is sent to it for now.
    Down,
}

impl EndpointState {
    /// The state as one word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Probing => "probing",
            Self::Down => "down",
        }
    }
}

/// What health shows of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointStatus {
    /// Its base URL.
    pub endpoint: String,
    /// How it does.
    pub state: EndpointState,
    /// Since when.
    pub since: Timestamp,
    /// The last failure, safe to show; kept after recovery.
    pub last_error: Option<String>,
    /// How much longer it is left alone because it asked for that.
    pub held_for: Option<Duration>,
}

/// How much may be asked of an endpoint.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) concurrent_requests: usize,
    /// With how many credentials; each has a budget of its own.
    pub(super) credentials: usize,
}

/// One endpoint.
pub(super) struct Endpoint {
    upstream: Arc<str>,
    base: String,
    origin: Origin,
    slots: Slots,
    /// By credential.
    budgets: Vec<Budget>,
    breaker: Mutex<Breaker>,
    clock: Clock,
    metrics: UpstreamMetrics,
}

impl Endpoint {
    /// `None` where the URL is not one of `http` or `https` with a host.
    pub(super) fn new(
        upstream: Arc<str>,
        url: &http::Uri,
        Limits { concurrent_requests, credentials }: Limits,
        clock: Clock,
        metrics: UpstreamMetrics,
    ) -> Option<Self> {
        let origin = Origin::of(url)?;
        let path = url.path().trim_end_matches('/');
        // `https://registry/v2/` is how many write it.
        let path = path.strip_suffix("/v2").unwrap_or(path);
        let base = format!("{origin}{path}");
        metrics.record_state(&upstream, &base, true);
        Some(Self {
            upstream,
            base,
            origin,
            slots: Slots::new(concurrent_requests.max(1)),
            budgets: (0..credentials.max(1)).map(|_| Budget::new(clock.clone())).collect(),
            breaker: Mutex::new(Breaker::new(clock.now())),
            clock,
            metrics,
        })
    }

    /// The URL that paths are added to, without a slash at its end.
    pub(super) fn base(&self) -> &str {
        &self.base
    }

    pub(super) const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// What may be asked of it, by credential.
    pub(super) fn budgets(&self) -> &[Budget] {
        &self.budgets
    }

    pub(super) fn status(&self) -> EndpointStatus {
        let breaker = self.lock();
        EndpointStatus {
            endpoint: self.base.clone(),
            state: breaker.state(),
            since: breaker.since,
            last_error: breaker.last_error.clone(),
            held_for: self.held_for(),
        }
    }

    /// How long nothing is asked of it, with none of the credentials.
    fn held_for(&self) -> Option<Duration> {
        let rests: Option<Vec<_>> = self.budgets.iter().map(Budget::rest).collect();
        rests?.into_iter().min()
    }

    /// Waits for a slot, which is held for as long as the answer's body comes.
    pub(super) async fn acquire_slot(&self, urgency: &Urgency, patience: Duration) -> Result<Slot, Fault> {
        let slot = self.slots.acquire(urgency, patience).await;
        slot.ok_or_else(|| Fault::unreachable(format!("all connections to {} are busy", self.origin)))
    }

    /// Asks the breaker. The pass must be settled; one that is dropped says nothing about health.
    pub(super) fn admit(self: &Arc<Self>) -> Result<Pass, Fault> {
        let mut breaker = self.lock();
        if breaker.admit(Instant::now(), self.clock.now()) {
            return Ok(Pass { endpoint: Arc::clone(self), is_settled: false });
        }
        let reason = breaker.last_error.as_deref().unwrap_or("it failed");
        Err(Fault::unreachable(format!("{} is left alone for now: {reason}", self.origin)))
    }

    /// Remembers that a transfer broke, so that the next request prefers another endpoint. One that this
    /// node ended by going offline says nothing against the endpoint.
    pub(super) fn record_broken_transfer(&self, fault: &Fault) {
        if *fault == Fault::Offline {
            return;
        }
        let mut breaker = self.lock();
        breaker.suspect(Instant::now());
        breaker.last_error = Some(fault.summary());
    }

    fn is_suspect(&self, now: Instant) -> bool {
        self.lock().is_suspect(now)
    }

    fn settle(&self, update: impl FnOnce(&mut Breaker, Instant, Timestamp)) {
        let mut breaker = self.lock();
        let before = breaker.state();
        update(&mut breaker, Instant::now(), self.clock.now());
        let after = breaker.state();
        let reason = breaker.last_error.clone().unwrap_or_default();
        drop(breaker);
        match (before, after) {
            (EndpointState::Up, EndpointState::Down) => {
                self.metrics.record_state(&self.upstream, &self.base, false);
                tracing::warn!(
                    upstream.name = %self.upstream, upstream.endpoint = %self.base, error = %reason,
                    "upstream endpoint is down"
                );
            }
            (EndpointState::Down | EndpointState::Probing, EndpointState::Up) => {
                self.metrics.record_state(&self.upstream, &self.base, true);
                tracing::info!(
                    upstream.name = %self.upstream, upstream.endpoint = %self.base,
                    "upstream endpoint is up again"
                );
            }
            _ => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The endpoints in the order in which to try them: as configured, those that just failed last.
pub(super) fn in_order(endpoints: &[Arc<Endpoint>]) -> Vec<Arc<Endpoint>> {
    let now = Instant::now();
    let mut ordered = endpoints.to_vec();
    ordered.sort_by_cached_key(|endpoint| endpoint.is_suspect(now));
    ordered
}

/// The breaker's leave to send one request.
pub(super) struct Pass {
    endpoint: Arc<Endpoint>,
    is_settled: bool,
}

impl Pass {
    /// The endpoint answered.
    pub(super) fn succeed(mut self) {
        self.is_settled = true;
        self.endpoint.settle(|breaker, _, at| breaker.succeed(at));
    }

    /// The endpoint did not answer, or with an error of its own.
    pub(super) fn fail(mut self, fault: &Fault) {
        self.is_settled = true;
        self.endpoint.settle(|breaker, now, at| breaker.fail(now, at, fault.summary()));
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if !self.is_settled {
            self.endpoint.settle(|breaker, now, _| breaker.abandon(now));
        }
    }
}

/// A circuit breaker: closed, open for a jittered and growing while, half open for one probe.
#[derive(Debug)]
struct Breaker {
    circuit: Circuit,
    failures: u32,
    backoff: Backoff,
    since: Timestamp,
    last_error: Option<String>,
    suspect_until: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Circuit {
    Closed,
    Open { until: Instant },
    HalfOpen,
}

impl Breaker {
    /// So many failures in a row open it.
    const THRESHOLD: u32 = 5;
    /// It stays open at least this long, so that jitter never makes it useless.
    const MIN_PAUSE: Duration = Duration::from_millis(500);
    const BASE_PAUSE: Duration = Duration::from_secs(1);
    const MAX_PAUSE: Duration = Duration::from_secs(30);
    /// How long another endpoint is preferred after a failure.
    const SUSPICION: Duration = Duration::from_secs(10);

    const fn new(since: Timestamp) -> Self {
        Self {
            circuit: Circuit::Closed,
            failures: 0,
            backoff: Backoff::new(Self::BASE_PAUSE, Self::MAX_PAUSE),
            since,
            last_error: None,
            suspect_until: None,
        }
    }

    const fn state(&self) -> EndpointState {
        match self.circuit {
            Circuit::Closed => EndpointState::Up,
            Circuit::Open { .. } => EndpointState::Down,
            Circuit::HalfOpen => EndpointState::Probing,
        }
    }

    fn admit(&mut self, now: Instant, at: Timestamp) -> bool {
        match self.circuit {
            Circuit::Closed => true,
            Circuit::Open { until } if until <= now => {
                self.circuit = Circuit::HalfOpen;
                self.since = at;
                true
            }
            Circuit::Open { .. } | Circuit::HalfOpen => false,
        }
    }

    fn succeed(&mut self, at: Timestamp) {
        self.failures = 0;
        if self.circuit != Circuit::Closed {
            self.circuit = Circuit::Closed;
            self.since = at;
            self.suspect_until = None;
            self.backoff.reset();
        }
    }

    fn fail(&mut self, now: Instant, at: Timestamp, reason: String) {
        self.failures = self.failures.saturating_add(1);
        self.last_error = Some(reason);
        self.suspect(now);
        let opens = match self.circuit {
            Circuit::Closed => self.failures >= Self::THRESHOLD,
            Circuit::HalfOpen => true,
            // Requests from before it opened; they change nothing.
            Circuit::Open { .. } => false,
        };
        if opens {
            self.circuit = Circuit::Open { until: now + Self::MIN_PAUSE + self.backoff.next_pause() };
            self.since = at;
        }
    }

    /// A probe that was dropped leaves the question open for the next request.
    fn abandon(&mut self, now: Instant) {
        if self.circuit == Circuit::HalfOpen {
            self.circuit = Circuit::Open { until: now };
        }
    }

    fn suspect(&mut self, now: Instant) {
        self.suspect_until = Some(now + Self::SUSPICION);
    }

    fn is_suspect(&self, now: Instant) -> bool {
        self.circuit != Circuit::Closed || self.suspect_until.is_some_and(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Timestamp = Timestamp::from_millis(1);

    fn open_breaker() -> Breaker {
        let mut breaker = Breaker::new(AT);
        for _ in 0..Breaker::THRESHOLD {
            assert!(breaker.admit(Instant::now(), AT));
            breaker.fail(Instant::now(), AT, "refused".into());
        }
        breaker
    }

    #[tokio::test(start_paused = true)]
    async fn failures_in_a_row_open_the_breaker_and_a_success_between_does_not() {
        let mut breaker = Breaker::new(AT);
        for _ in 0..3 * Breaker::THRESHOLD {
            breaker.fail(Instant::now(), AT, "refused".into());
            breaker.succeed(AT);
        }
        assert_eq!(breaker.state(), EndpointState::Up);
        assert_eq!(open_breaker().state(), EndpointState::Down);
    }

    #[tokio::test(start_paused = true)]
    async fn an_open_breaker_lets_one_probe_through_after_its_pause() {
        let mut breaker = open_breaker();
        assert!(!breaker.admit(Instant::now(), AT));
        tokio::time::advance(Breaker::MIN_PAUSE + Breaker::BASE_PAUSE).await;
        assert!(breaker.admit(Instant::now(), AT));
        assert_eq!(breaker.state(), EndpointState::Probing);
        assert!(!breaker.admit(Instant::now(), AT), "one probe at a time");
        breaker.succeed(AT);
        assert_eq!(breaker.state(), EndpointState::Up);
        assert!(!breaker.is_suspect(Instant::now()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_probe_opens_it_again_and_a_dropped_one_leaves_the_question_open() {
        let mut breaker = open_breaker();
        tokio::time::advance(Breaker::MIN_PAUSE + Breaker::BASE_PAUSE).await;
        assert!(breaker.admit(Instant::now(), AT));
        breaker.abandon(Instant::now());
        assert!(breaker.admit(Instant::now(), AT));
        breaker.fail(Instant::now(), AT, "refused".into());
        assert!(!breaker.admit(Instant::now(), AT));
        tokio::time::advance(Breaker::MIN_PAUSE + Breaker::MAX_PAUSE).await;
        assert!(breaker.admit(Instant::now(), AT));
    }

    fn endpoint(url: &str, slots: usize) -> Arc<Endpoint> {
        let metrics = UpstreamMetrics::new(&prometheus::Registry::new()).unwrap();
        let url = url.parse().unwrap();
        let limits = Limits { concurrent_requests: slots, credentials: 1 };
        Arc::new(Endpoint::new("up".into(), &url, limits, Clock::manual(AT), metrics).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_that_just_failed_is_tried_last() {
        let endpoints = [endpoint("http://a", 1), endpoint("http://b", 1)];
        let order =
            || in_order(&endpoints).iter().map(|endpoint| endpoint.base().to_owned()).collect::<Vec<_>>();
        assert_eq!(order(), ["http://a", "http://b"]);
        endpoints[0].record_broken_transfer(&Fault::broken("cut"));
        assert_eq!(order(), ["http://b", "http://a"]);
        assert_eq!(endpoints[0].status().last_error.as_deref(), Some("cut"));
        tokio::time::advance(Breaker::SUSPICION).await;
        assert_eq!(order(), ["http://a", "http://b"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_endpoint_is_waited_for_but_not_for_ever() {
        let endpoint = endpoint("http://a", 1);
        let patience = Duration::from_secs(1);
        let client = Urgency::CLIENT;
        let acquire = || endpoint.acquire_slot(&client, patience);
        let slot = acquire().await.unwrap();
        assert!(matches!(acquire().await, Err(Fault::Unreachable(_))));
        drop(slot);
        assert!(acquire().await.is_ok());
    }

    #[tokio::test]
    async fn a_base_url_may_end_like_a_registry_s() {
        for (url, base) in [
            ("https://r", "https://r"),
            ("https://r/", "https://r"),
            ("https://r/v2/", "https://r"),
            ("http://r:5000/cache/hub/", "http://r:5000/cache/hub"),
        ] {
            assert_eq!(endpoint(url, 1).base(), base);
        }
    }
}
