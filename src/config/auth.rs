//! `[auth]`: the first account, and tokens.

use std::time::Duration;

use super::Secret;

/// `[auth]`
#[derive(Clone, Debug)]
pub struct AuthConfig {
    /// The password of the first account when it is created; without it, a random one is written to a file.
    pub administrator_password: Option<Secret>,
    /// How long a token for clients is good for.
    pub token_lifetime: Duration,
}
