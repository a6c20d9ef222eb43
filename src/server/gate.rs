//! Who asks for hosted content: what a client shows, and what it is told where that is not enough.

use std::net::IpAddr;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{HeaderValue, Method, Uri};
use http_body::Body;

use super::challenge::{self, Origin, Transport};
use super::distribution::Answer;
use super::respond::Problem;
use super::route::{Operation, Route, Target};
use super::token;
use crate::auth::policy::{Action, Refused, Visibility};
use crate::auth::{Authenticator, RequestContext, RequestId, Scope};
use crate::oci::RepositoryName;
use crate::registry::hosted::Hosting;

/// Finds out who asks.
pub(super) struct Gate {
    pub(super) authenticator: Authenticator,
    /// The URL that clients use, where it is configured.
    pub(super) external_url: Option<Uri>,
    /// How requests come.
    pub(super) transport: Transport,
}

impl Gate {
    /// The context of whoever sent a request; of who shows nothing, an anonymous one.
    pub(super) async fn admit(
        &self,
        parts: &Parts,
        route: &Route,
        id: RequestId,
        client: IpAddr,
    ) -> Result<RequestContext, Problem> {
        let shown = parts.headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
        let actor = self.authenticator.authenticate(shown, client).await;
        let actor = actor.map_err(|error| {
            challenge::fail(&error, self.origin(parts).as_ref(), scope_of(route).as_deref())
        })?;
        Ok(RequestContext::of(actor, id))
    }

    /// What a client is told that may not do what it asked for.
    pub(super) fn refuse(&self, refused: Refused, parts: &Parts, route: &Route) -> Problem {
        challenge::refuse(refused, self.origin(parts).as_ref(), scope_of(route).as_deref())
    }

    /// Fails where a client that asks for the API's base has not shown who it is: some never do later, if nobody asks
    /// for it here.
    pub(super) async fn require_login(
        &self,
        parts: &Parts,
        route: &Route,
        id: RequestId,
        client: IpAddr,
    ) -> Result<(), Problem> {
        // Who could not log in is not told to: most of what is here needs no login.
        if parts.headers.get(AUTHORIZATION).is_none() && !self.authenticator.can_issue().await {
            return Ok(());
        }
        let context = self.admit(parts, route, id, client).await?;
        if context.is_anonymous() {
            return Err(self.refuse(Refused::Unauthenticated, parts, route));
        }
        Ok(())
    }

    /// Answers the token endpoint.
    pub(super) async fn answer_token<B>(
        &self,
        hosting: &Hosting,
        parts: &Parts,
        route: &Route,
        client: IpAddr,
        body: &mut B,
    ) -> Answer
    where
        B: Body<Data = Bytes> + Send + Unpin,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let visibility_of = |scope: &Scope| {
            let namespace = scope.repository.as_str().split('/').next().unwrap_or_default();
            // Content of upstreams is for anybody.
            if hosting.hosts(namespace) { hosting.visibility(&scope.repository) } else { Visibility::Public }
        };
        if parts.method == Method::POST {
            let form = token::read_form(body).await?;
            token::answer_post(&self.authenticator, &form, client, &visibility_of).await
        } else {
            let shown = parts.headers.get(AUTHORIZATION);
            token::answer_get(&self.authenticator, shown, &route.query, client, &visibility_of).await
        }
    }

    fn origin(&self, parts: &Parts) -> Option<Origin> {
        Origin::of(parts, self.external_url.as_ref(), self.transport)
    }
}

/// The scope that a request needs, by the repository's name as the client spells it; of a mount also the one to read
/// where the blob is, without which it cannot be made.
fn scope_of(route: &Route) -> Option<String> {
    let Target::Repository { name, operation } = &route.target else { return None };
    let own = challenge::scope_of(name, route.action());
    let from = match operation {
        Operation::StartUpload => route.parameter("mount").and(route.parameter("from")),
        _ => None,
    };
    Some(match from.filter(|from| from.parse::<RepositoryName>().is_ok()) {
        Some(from) => format!("{own} {}", challenge::scope_of(from, Action::Pull)),
        None => own,
    })
}
