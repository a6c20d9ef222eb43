//! One question on its way through one endpoint: authentication, redirects, second tries.
//!
//! Every second try happens at most once, so that a confused registry cannot keep a request busy.

use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, AUTHORIZATION, LOCATION, RANGE, WWW_AUTHENTICATE};
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use http_body_util::Full;
use hyper::body::Incoming;

use super::accounts::Account;
use super::answer;
use super::budget::{Budget, Place};
use super::challenge;
use super::endpoints::Endpoint;
use super::error::Fault;
use super::exchange::{Ask, Exchange, Kind};
use super::origin::Origin;
use super::redirect;
use super::token::{Grant, Scheme};
use super::transport::Pool;
use crate::runtime::Timestamp;

/// One question on its way through one endpoint.
pub(super) struct Attempt<'a> {
    exchange: &'a Exchange,
    endpoint: &'a Endpoint,
    /// Who asks.
    account: &'a Account,
    budget: &'a Budget,
    /// When the budget let it through.
    asked_at: Timestamp,
    ask: &'a Ask<'a>,
    url: Uri,
    origin: Origin,
    redirects: usize,
    grant: Option<Arc<Grant>>,
    /// Whether the grant was got for an answer of this attempt.
    is_fresh: bool,
    /// Whether a suspected old token was replaced already.
    renewed: bool,
    /// Whether an expired redirect was taken up anew already.
    resolved_again: bool,
    /// How long upstream is left alone for what it answered last.
    held_for: Option<Duration>,
    stage: Stage,
    /// What was seen of the endpoint itself; redirect targets and token services do not count.
    pub(super) health: Health,
}

/// What an attempt shows of its endpoint's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    Unasked,
    Answered,
    Failed,
}

/// What an attempt is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The question.
    Asking,
    /// Getting a grant for it.
    LoggingIn,
}

/// What comes after an answer.
enum Step {
    Done(Response<Incoming>),
    Again,
}

impl<'a> Attempt<'a> {
    pub(super) fn new(
        exchange: &'a Exchange,
        endpoint: &'a Endpoint,
        (account, budget): (&'a Account, &'a Budget),
        asked_at: Timestamp,
        ask: &'a Ask<'a>,
    ) -> Self {
        Self {
            exchange,
            endpoint,
            account,
            budget,
            asked_at,
            ask,
            url: Uri::default(),
            origin: endpoint.origin().clone(),
            redirects: 0,
            grant: None,
            is_fresh: false,
            renewed: false,
            resolved_again: false,
            held_for: None,
            stage: Stage::Asking,
            health: Health::Unasked,
        }
    }

    pub(super) async fn run(&mut self) -> Result<Response<Incoming>, Fault> {
        self.start().await?;
        loop {
            let response = self.send().await?;
            match self.judge(response).await? {
                Step::Done(response) => return Ok(response),
                Step::Again => {}
            }
        }
    }

    /// Whether another credential may do better where this one met with `fault`.
    pub(super) fn is_about_account(&self, fault: &Fault) -> bool {
        match fault {
            Fault::Throttled(_) | Fault::LoginRefused | Fault::Credentials(_) => true,
            // A realm may refuse by 403 what it takes of another.
            Fault::Forbidden(_) => self.stage == Stage::LoggingIn,
            _ => false,
        }
    }

    /// Turns to the endpoint's own URL.
    async fn start(&mut self) -> Result<(), Fault> {
        let base = self.endpoint.base();
        let url = match self.ask.kind {
            Kind::Base => format!("{base}/v2/"),
            _ => format!("{base}/v2/{}/{}", self.ask.repository, self.ask.rest),
        };
        let url = url.parse().map_err(|_unshown| Fault::broken("the question makes no URL"))?;
        self.redirects = 0;
        self.enter(url, self.endpoint.origin().clone()).await
    }

    /// Turns to a URL. `Authorization` never goes along to another origin; what was granted for
    /// that origin before is used there.
    async fn enter(&mut self, url: Uri, origin: Origin) -> Result<(), Fault> {
        let is_elsewhere = self.url.authority().is_none() || origin != self.origin;
        (self.url, self.origin) = (url, origin);
        // Whether this node is let in shows only who asks for a token anew.
        if is_elsewhere && self.ask.kind != Kind::Base {
            let authorizer = &self.account.authorizer;
            let key = authorizer.key(&self.origin, self.ask.repository);
            self.stage = Stage::LoggingIn;
            self.grant = authorizer.current(&key).await?;
            self.stage = Stage::Asking;
            self.is_fresh = false;
        }
        Ok(())
    }

    fn is_at_endpoint(&self) -> bool {
        self.origin == *self.endpoint.origin()
    }

    async fn send(&mut self) -> Result<Response<Incoming>, Fault> {
        let mut request = Request::builder().method(self.ask.method.clone()).uri(self.url.clone());
        if let Some(accept) = &self.ask.accept {
            request = request.header(ACCEPT, accept);
        }
        if let Some(range) = self.ask.range {
            request = request.header(RANGE, range.to_header_value());
        }
        if let Some(grant) = &self.grant {
            request = request.header(AUTHORIZATION, grant.value());
        }
        let request = request
            .body(Full::default())
            .map_err(|_unshown| Fault::broken("the question makes no request"))?;
        let pool =
            if self.is_at_endpoint() || self.ask.kind != Kind::Blob { Pool::Api } else { Pool::Storage };
        tracing::debug!(
            upstream.name = %self.exchange.upstream, origin = %self.origin, kind = self.ask.kind.as_str(),
            repository.name = self.ask.repository, "asking upstream"
        );
        let answer = self.exchange.transport.send(self.ask.kind.as_str(), pool, request).await;
        if self.is_at_endpoint() {
            // 501 is about the method, not about health.
            let is_alive = answer.as_ref().is_ok_and(|response| {
                !response.status().is_server_error() || response.status() == StatusCode::NOT_IMPLEMENTED
            });
            self.health = match answer {
                Err(Fault::Offline) => Health::Unasked,
                _ if is_alive => Health::Answered,
                _ => Health::Failed,
            };
        }
        if let Ok(response) = &answer {
            self.observe(response);
        }
        answer
    }

    fn observe(&mut self, response: &Response<Incoming>) {
        let place = if self.is_at_endpoint() { Place::Endpoint } else { Place::Elsewhere };
        let (whom, what) = ((self.endpoint, self.account), (self.ask.cost(), self.asked_at));
        let change = self.exchange.observe(whom, self.budget, what, place, response);
        self.held_for = change.hold.map(|(pause, _)| pause);
    }

    async fn judge(&mut self, response: Response<Incoming>) -> Result<Step, Fault> {
        let (status, headers) = (response.status(), response.headers());
        let has_part = self.ask.range.is_some() && status == StatusCode::PARTIAL_CONTENT;
        if status == StatusCode::OK || has_part {
            return Ok(Step::Done(response));
        }
        if redirect::is_redirect(status) {
            let location = answer::single(headers, &LOCATION).map(str::to_owned);
            self.drain(response).await;
            return self.follow(status, location.as_deref()).await;
        }
        let fault = match answer::fault_of(status, headers, self.exchange.clock.now()) {
            Fault::Throttled(told) => Fault::Throttled(self.held_for.or(told)),
            fault => fault,
        };
        let challenges =
            if status == StatusCode::UNAUTHORIZED { Some(self.read_challenges(headers)) } else { None };
        self.drain(response).await;
        if let Some(scheme) = challenges.flatten()
            && self.can_answer(&scheme)
        {
            return self.authenticate(scheme).await;
        }
        if status == StatusCode::UNAUTHORIZED && self.is_fresh {
            // A token that was just granted is no good here: this is how Docker Hub, quay.io and
            // GitLab say that there is no such repository.
            return Err(self.rejection());
        }
        self.try_again(status, fault).await
    }

    /// Second tries for tokens and signed URLs that expired without saying so.
    async fn try_again(&mut self, status: StatusCode, fault: Fault) -> Result<Step, Fault> {
        let is_refusal = matches!(status.as_u16(), 400 | 401 | 403);
        if is_refusal && !self.is_at_endpoint() && !self.resolved_again {
            self.resolved_again = true;
            self.start().await?;
            return Ok(Step::Again);
        }
        // ECR Public answers 400 without a challenge to an expired token.
        let is_suspect = is_refusal && !self.is_fresh && !self.renewed && self.suspects_token(status);
        if is_suspect && let Some(grant) = self.grant.clone() {
            self.renewed = true;
            return self.authenticate(grant.scheme().clone()).await;
        }
        let is_unknown_call = self.ask.kind == Kind::Referrers
            && (matches!(status.as_u16(), 400 | 405 | 501) || !self.is_at_endpoint());
        Err(if is_unknown_call { Fault::Absent } else { fault })
    }

    /// Whether a refusal may be for the token's age. A registry that knows no referrers answers
    /// 400 too, and one that forbids 403: a token that is hardly used is not fetched anew for that.
    fn suspects_token(&self, status: StatusCode) -> bool {
        let age = self.grant.as_ref().map(|grant| grant.age(self.exchange.clock.now()));
        let is_plain = status == StatusCode::BAD_REQUEST && self.ask.kind != Kind::Referrers;
        age.is_some_and(|age| is_plain || age >= Duration::from_secs(30))
    }

    async fn follow(&mut self, status: StatusCode, location: Option<&str>) -> Result<Step, Fault> {
        // ghcr.io sends those who ask for referrers to its web pages.
        if self.ask.kind == Kind::Referrers && status == StatusCode::SEE_OTHER {
            return Err(Fault::Absent);
        }
        let target = redirect::resolve(&self.url, location, self.redirects)
            .map_err(|refused| Fault::broken(refused.to_string()))?;
        let origin =
            Origin::of(&target).ok_or_else(|| Fault::broken(redirect::Refused::Malformed.to_string()))?;
        self.redirects += 1;
        self.enter(target, origin).await?;
        Ok(Step::Again)
    }

    fn read_challenges(&self, headers: &HeaderMap) -> Option<Scheme> {
        let lines = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|line| line.to_str().ok());
        let challenges = challenge::parse(lines);
        if self.ask.kind == Kind::Base {
            // A realm may give tokens for repositories only, as ghcr.io's does.
            let scheme = Scheme::choose(&challenges, None)?;
            let other = self.account.authorizer.find_other_scheme(&self.origin, self.ask.repository);
            return Some(other.filter(|_| matches!(scheme, Scheme::Bearer(_))).unwrap_or(scheme));
        }
        // Behind a redirect, the repository's name is another.
        let own_scope = self.is_at_endpoint().then(|| format!("repository:{}:pull", self.ask.repository));
        Scheme::choose(&challenges, own_scope.as_deref())
    }

    /// Whether answering the challenge can change anything.
    fn can_answer(&self, scheme: &Scheme) -> bool {
        let is_own = self.exchange.guard.is_own(&self.origin);
        match scheme {
            Scheme::Bearer(_) => !self.is_fresh,
            // Old credentials of a helper or file are found out by being rejected; once.
            Scheme::Basic => is_own && (!self.is_fresh || !self.renewed),
        }
    }

    async fn authenticate(&mut self, scheme: Scheme) -> Result<Step, Fault> {
        let authorizer = &self.account.authorizer;
        let repository = if self.ask.kind == Kind::Base { "" } else { self.ask.repository };
        let key = authorizer.key(&self.origin, repository);
        if self.is_fresh {
            self.renewed = true;
        } else if self.ask.kind == Kind::Base {
            authorizer.forget(&key).await;
        }
        self.stage = Stage::LoggingIn;
        self.grant = Some(authorizer.renew(&key, scheme, self.grant.as_ref()).await?);
        self.stage = Stage::Asking;
        self.is_fresh = true;
        Ok(Step::Again)
    }

    fn rejection(&self) -> Fault {
        match self.grant.as_ref().map(|grant| grant.scheme()) {
            Some(Scheme::Basic) => Fault::LoginRefused,
            _ => Fault::Withheld,
        }
    }

    async fn drain(&self, response: Response<Incoming>) {
        self.exchange.count(response.into_body()).drain().await;
    }
}
