//! One question to an upstream: endpoints in turn, and what becomes of the answer.

use std::sync::Arc;

use bytes::Bytes;
use http::header::HeaderValue;
use http::{HeaderMap, Method, Response, StatusCode};
use hyper::body::Incoming;
use tokio::sync::OwnedSemaphorePermit;

use super::answer::{self, Extent, WantedRange};
use super::attempt::{Attempt, Health};
use super::body::{CountedBody, TransferBody};
use super::endpoints::{Endpoint, in_order};
use super::error::Fault;
use super::guard::Guard;
use super::link::Link;
use super::metrics::UpstreamMetrics;
use super::token::Authorizer;
use super::transport::Transport;
use crate::runtime::Clock;

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
    pub(super) authorizer: Authorizer,
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
        // In this order, so that nobody waits for a slot of an endpoint that is down.
        let pass = endpoint.admit()?;
        let slot = endpoint.acquire_slot(self.transport.timeouts().first_byte).await?;
        let mut attempt = Attempt::new(self, endpoint, ask);
        let outcome = attempt.run().await;
        match &outcome {
            Err(fault) if attempt.health == Health::Failed => pass.fail(fault),
            _ if attempt.health == Health::Unasked => drop(pass),
            _ => pass.succeed(),
        }
        let response = outcome?;
        self.finish(endpoint, ask, response, slot).await
    }

    /// Checks the head and treats the body by plan.
    async fn finish(
        &self,
        endpoint: &Arc<Endpoint>,
        ask: &Ask<'_>,
        response: Response<Incoming>,
        slot: OwnedSemaphorePermit,
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
