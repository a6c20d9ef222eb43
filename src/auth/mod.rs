//! Who asks, and what they may do.
//!
//! What is cached of upstreams serves anybody, and nobody is asked who they are. Hosted content has accounts: a password
//! ([`Credentials`]) or a token that was issued for one ([`Tokens`]) is turned into an [`Actor`] by the
//! [`Authenticator`], every use case takes a [`RequestContext`] with it, and [`policy`] alone decides.
//!
//! No secret that passes through here prints: passwords, hashes and tokens are [`Secret`](crate::config::Secret)s.

mod authenticate;
mod context;
mod credentials;
mod first_administrator;
mod issue;
mod password;
pub mod policy;
mod scope;
#[cfg(test)]
pub(crate) mod tests;
mod throttle;
mod token;

pub use authenticate::{AuthenticationError, Authenticator, AuthenticatorServices};
pub use context::{Account, Actor, RequestContext, RequestId, Rights};
pub use credentials::Credentials;
pub use first_administrator::{
    FIRST_ADMINISTRATOR, FirstAdministrator, FirstAdministratorError, INITIAL_PASSWORD_FILE,
};
pub use issue::{IssuedToken, TokenRequest};
pub use password::{PasswordError, Passwords};
pub use scope::{Actions, AskedScopes, Grants, Scope};
pub use token::{SERVICE, Tokens};

use std::io;

use ring::rand::{SecureRandom as _, SystemRandom};

/// Random bytes that nobody can guess.
fn random_bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_unspecified| io::Error::other("the system gives no random numbers"))?;
    Ok(bytes)
}
