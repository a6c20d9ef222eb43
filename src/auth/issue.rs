//! Tokens for those who ask: the token endpoint's use case.

use std::net::IpAddr;
use std::time::Duration;

use super::policy::{Refused, Visibility, rights_of_anybody, rights_of_role};
use super::token::Shown;
use super::{Actions, AskedScopes, AuthenticationError, Authenticator, Credentials, Grants, Scope};
use crate::config::Secret;
use crate::metadata::catalogue::{AccountName, Role};
use crate::runtime::Timestamp;

/// Who asks for a token, and what for.
#[derive(Clone, Debug)]
pub struct TokenRequest {
    /// What the client shows of who it is.
    pub credentials: Credentials,
    /// What it asks for.
    pub scopes: AskedScopes,
    /// The address it came from.
    pub client: IpAddr,
}

/// A token, as its receiver has to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedToken {
    /// The token.
    pub token: Secret,
    /// How long it is good for.
    pub expires_in: Duration,
    /// Since when.
    pub issued_at: Timestamp,
}

impl Authenticator {
    /// Issues a token that grants what is asked for, as far as who asks may do it. `visibility_of` says who may read
    /// what a scope names; content of upstreams is [`Visibility::Public`].
    ///
    /// Where all that is asked for is to read what anybody may read, the credentials are not looked at: clients send
    /// those of other registries to mirrors, and would go elsewhere if they were refused. Who asks for nothing at all
    /// wants to know whether its credentials are right (`docker login`).
    ///
    /// May be dropped at any await point, as [`Authenticator::authenticate`].
    pub async fn issue(
        &self,
        request: &TokenRequest,
        visibility_of: &(dyn Fn(&Scope) -> Visibility + Sync),
    ) -> Result<IssuedToken, AuthenticationError> {
        let is_open = |scope: &Scope| {
            !scope.actions.is_empty() && rights_of_anybody(visibility_of(scope)).contains(scope.actions)
        };
        let account = match &request.credentials {
            Credentials::Anonymous => None,
            _ if request.scopes.are_all(is_open) => None,
            Credentials::Basic { name, password } => {
                Some(self.require_password(name, password, request.client).await?)
            }
            // A token does not buy another one, which would have no end.
            Credentials::Bearer(_) | Credentials::Other => return Err(Refused::WrongCredentials.into()),
        };
        let grants = grants_of(account.as_ref(), &request.scopes, visibility_of);
        let shown = Shown { account: account.map(|(name, _)| name), grants };
        let (tokens, issued_at) = (self.tokens().await?, self.0.clock.now());
        Ok(IssuedToken { token: tokens.issue(&shown, issued_at), expires_in: tokens.lifetime(), issued_at })
    }
}

/// What of the scopes somebody may do.
fn grants_of(
    account: Option<&(AccountName, Role)>,
    scopes: &AskedScopes,
    visibility_of: &(dyn Fn(&Scope) -> Visibility + Sync),
) -> Grants {
    let mut grants = Grants::default();
    for scope in scopes.iter() {
        let own = account.map_or(Actions::NONE, |(_, role)| rights_of_role(*role, &scope.repository));
        let rights = own.or(rights_of_anybody(visibility_of(scope)));
        grants.add(&scope.repository, scope.actions.and(rights));
    }
    grants
}
