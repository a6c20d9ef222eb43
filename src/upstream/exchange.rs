//! One question to an upstream: endpoints in turn, and what becomes of the answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::HeaderValue;
use http::{HeaderMap, Method, Response, StatusCode};
use hyper::body::Incoming;

use super::accounts::{Account, Accounts};
use super::answer::{self, Extent, WantedRange};
use super::attempt::{Attempt, Health};
use super::body::{CountedBody, TransferBody};
use super::budget::{Budget, Change, Cost, Place, Refusal};
use super::endpoints::{Endpoint, in_order};
use super::error::Fault;
use super::guard::Guard;
use super::hold::News;
use super::link::Link;
use super::metrics::UpstreamMetrics;
use super::priority::{Priority, Urgency};
use super::slots::Slot;
use super::transport::Transport;
use crate::runtime::{Clock, Timestamp};

/// What is asked for; the word is the metrics' label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Manifest,
    Blob,
    Tags,
    Referrers,
    /// The API's base: whether this node is let in at all.
    Base,
}

impl Kind {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Manifest => "manifest",
            Self::Blob => "blob",
            Self::Tags => "tags",
            Self::Referrers => "referrers",
            Self::Base => "base",
        }
    }
}

/// What becomes of the answer's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// It is dropped.
    Drop,
    /// It is read whole, so many bytes at most.
    Read(usize),
    /// It is handed on as it comes.
    Stream,
}

/// A question.
pub(super) struct Ask<'a> {
    pub(super) urgency: &'a Urgency,
    pub(super) kind: Kind,
    pub(super) method: Method,
    /// For the base: the repository that was refused.
    pub(super) repository: &'a str,
    /// What follows `/v2/<repository>/`, with its query.
    pub(super) rest: String,
    pub(super) accept: Option<HeaderValue>,
    pub(super) range: Option<WantedRange>,
    pub(super) plan: Plan,
}

impl Ask<'_> {
    pub(super) fn cost(&self) -> Cost {
        match self.kind {
            Kind::Manifest if self.method == Method::GET => Cost::Pull,
            Kind::Blob => Cost::Blob,
            _ => Cost::Look,
        }
    }
}

/// An answer that is what was asked for, as far as its head shows.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) extent: Extent,
    pub(super) body: AnswerBody,
}

/// The body by the question's plan.
pub(super) enum AnswerBody {
    Dropped,
    Whole(Bytes),
    Stream(TransferBody),
}

/// Everything that asking one upstream needs.
pub(super) struct Exchange {
    pub(super) upstream: Arc<str>,
    pub(super) endpoints: Vec<Arc<Endpoint>>,
    pub(super) guard: Arc<Guard>,
    pub(super) transport: Arc<Transport>,
    pub(super) accounts: Accounts,
    pub(super) metrics: UpstreamMetrics,
    pub(super) clock: Clock,
}

impl Exchange {
    /// Asks the endpoints in turn until one answers; reports the most telling fault if none does.
    pub(super) async fn ask(&self, ask: &Ask<'_>) -> Result<Answer, Fault> {
        if self.transport.switch().link() == Link::Offline {
            // Said here as well, so that nobody waits for a slot first.
            return Err(Fault::Offline);
        }
        let mut telling: Option<Fault> = None;
        for endpoint in in_order(&self.endpoints) {
            let fault = match Box::pin(self.ask_endpoint(&endpoint, ask)).await {
                Ok(answer) => return Ok(answer),
                Err(fault) if !fault.is_transient() => return Err(fault),
                Err(fault) => fault,
            };
            tracing::debug!(
                upstream.name = %self.upstream, upstream.endpoint = endpoint.base(), kind = ask.kind.as_str(),
                error = %fault.summary(), "upstream endpoint failed"
            );
            telling = Some(match telling {
                Some(before) => before.or_more_telling(fault),
                None => fault,
            });
        }
        Err(telling.unwrap_or_else(|| Fault::unreachable("no endpoint is configured")))
    }

    async fn ask_endpoint(&self, endpoint: &Arc<Endpoint>, ask: &Ask<'_>) -> Result<Answer, Fault> {
        // In this order, so that nobody waits for a slot of an endpoint that is down, or wants no request.
        let pass = endpoint.admit()?;
        self.require_budget(endpoint, ask)?;
        let slot = endpoint.acquire_slot(ask.urgency, self.transport.timeouts().first_byte).await?;
        let (outcome, health) = self.ask_with_accounts(endpoint, ask).await;
        match &outcome {
            Err(fault) if health == Health::Failed => pass.fail(fault),
            _ if health == Health::Unasked => drop(pass),
            _ => pass.succeed(),
        }
        let response = outcome?;
        self.finish(endpoint, ask, response, slot).await
    }

    /// Fails where no credential lets the question through.
    fn require_budget(&self, endpoint: &Endpoint, ask: &Ask<'_>) -> Result<(), Fault> {
        let (cost, priority) = (ask.cost(), ask.urgency.now());
        let checks = endpoint.budgets().iter().map(|budget| budget.check(cost, priority));
        let checks: Result<Vec<Refusal>, ()> = checks.map(|check| check.err().ok_or(())).collect();
        match checks.ok().and_then(mildest) {
            Some(refusal) => Err(self.refuse(refusal, priority)),
            None => Ok(()),
        }
    }

    fn refuse(&self, refusal: Refusal, priority: Priority) -> Fault {
        self.metrics.count_refusal(&self.upstream, priority, refusal.as_str());
        refusal.into_fault(priority)
    }

    /// Asks an endpoint with one credential after the other, while another may do better.
    async fn ask_with_accounts(
        &self,
        endpoint: &Endpoint,
        ask: &Ask<'_>,
    ) -> (Result<Response<Incoming>, Fault>, Health) {
        let (cost, mut refusals) = (ask.cost(), Vec::new());
        let mut telling: Option<(Fault, Health)> = None;
        for (place, account) in self.accounts.in_turn(endpoint.budgets(), cost, ask.urgency.now()) {
            let Some(budget) = endpoint.budgets().get(place) else { continue };
            // Again: upstream may have asked for a pause while a slot was waited for.
            let asked_at = match budget.admit(cost, ask.urgency.now()) {
                Ok(asked_at) => asked_at,
                Err(refusal) => {
                    refusals.push(refusal);
                    continue;
                }
            };
            let mut attempt = Attempt::new(self, endpoint, (account, budget), asked_at, ask);
            let fault = match attempt.run().await {
                Ok(response) => {
                    self.accounts.note_use(place);
                    return (Ok(response), attempt.health);
                }
                Err(fault) => fault,
            };
            if fault == Fault::LoginRefused {
                self.accounts.note_refusal(place);
            }
            if attempt.health == Health::Failed {
                budget.end_holds(cost, asked_at);
            }
            if !attempt.is_about_account(&fault) {
                return (Err(fault), attempt.health);
            }
            telling = match telling {
                // What may pass is worth more than that a credential is refused.
                Some(before) if before.0.is_transient() || !fault.is_transient() => Some(before),
                _ => Some((fault, attempt.health)),
            };
        }
        match (telling, mildest(refusals)) {
            (Some((fault, health)), None) => (Err(fault), health),
            (Some((fault, health)), Some(_)) if fault.is_transient() => (Err(fault), health),
            (told, Some(refusal)) => {
                let health = told.map_or(Health::Unasked, |(_, health)| health);
                (Err(self.refuse(refusal, ask.urgency.now())), health)
            }
            (None, None) => (Err(Fault::broken("no credential is configured")), Health::Unasked),
        }
    }

    /// Has a budget learn from an answer, and tells what that changed.
    pub(super) fn observe(
        &self,
        (endpoint, account): (&Endpoint, &Account),
        budget: &Budget,
        (cost, asked_at): (Cost, Timestamp),
        place: Place,
        response: &Response<Incoming>,
    ) -> Change {
        let change = budget.observe((cost, asked_at), place, response.status(), response.headers());
        if change.is_told {
            let sum = |amount: fn(&Budget) -> Option<u64>| {
                endpoint.budgets().iter().filter_map(amount).fold(0, u64::saturating_add)
            };
            self.metrics.record_allowance(&self.upstream, sum(Budget::remaining), sum(Budget::limit));
        }
        let (upstream, endpoint, credential) = (&self.upstream, endpoint.base(), account.name());
        if let Some((pause, news)) = change.hold
            && news != News::Nothing
        {
            self.metrics.count_hold(upstream, "pull");
            let status = response.status().as_u16();
            if news == News::Begun {
                tracing::warn!(
                    upstream.name = %upstream, upstream.endpoint = endpoint, credential, status, pause_ms = millis(pause),
                    "upstream throttles, it is left alone for a while"
                );
            } else {
                tracing::debug!(
                    upstream.name = %upstream, upstream.endpoint = endpoint, credential, status, pause_ms = millis(pause),
                    "upstream throttles again"
                );
            }
        }
        if change.is_over_at_last {
            tracing::info!(
                upstream.name = %upstream, upstream.endpoint = endpoint, credential, "upstream throttles no more"
            );
        }
        change
    }

    /// Checks the head and treats the body by plan.
    async fn finish(
        &self,
        endpoint: &Arc<Endpoint>,
        ask: &Ask<'_>,
        response: Response<Incoming>,
        slot: Slot,
    ) -> Result<Answer, Fault> {
        let (head, body) = response.into_parts();
        if ask.kind == Kind::Referrers && answer::is_web_page(&head.headers) {
            return Err(Fault::Absent);
        }
        answer::check_content(&head.headers)?;
        let extent = answer::find_extent(&head, ask.range)?;
        let body = self.count(body);
        let body = match ask.plan {
            Plan::Drop => AnswerBody::Dropped,
            Plan::Read(cap_bytes) => {
                let whole = body.read_whole(cap_bytes).await;
                AnswerBody::Whole(whole.inspect_err(|fault| endpoint.record_broken_transfer(fault))?)
            }
            Plan::Stream => AnswerBody::Stream(TransferBody::new(
                Arc::clone(&self.upstream),
                body,
                extent.length_bytes,
                Arc::clone(endpoint),
                slot,
            )),
        };
        Ok(Answer { status: head.status, headers: head.headers, extent, body })
    }

    pub(super) fn count(&self, body: Incoming) -> CountedBody {
        let bytes = self.metrics.bytes_of(&self.upstream);
        let switch = self.transport.switch().clone();
        CountedBody::new(body, self.transport.timeouts().silence, bytes, switch)
    }
}

/// That which leaves the most: what is only reserved is there for the more urgent; else that which is over first.
fn mildest(refusals: Vec<Refusal>) -> Option<Refusal> {
    refusals.into_iter().min_by_key(|refusal| (matches!(refusal, Refusal::Held(_)), refusal.pause()))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
