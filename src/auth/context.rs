//! The context that every use case takes first.

use std::fmt;

/// On whose behalf something happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Actor {
    /// A client that did not say who it is.
    Anonymous,
    /// The node itself: revalidation, eviction.
    System,
}

/// Names one request in logs and answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(String);

impl RequestId {
    /// A fresh random identifier: 16 hex digits.
    pub fn random() -> Self {
        Self(format!("{:016x}", fastrand::u64(..)))
    }

    /// Takes the identifier that a client or proxy gave, where it is harmless: at most 64 letters,
    /// digits, `-`, `_` and `.`.
    pub fn from_client(text: &str) -> Option<Self> {
        let is_harmless = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let good = !text.is_empty() && text.len() <= 64 && text.bytes().all(is_harmless);
        good.then(|| Self(text.to_owned()))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a use case knows of the request that it serves.
#[derive(Clone, Debug)]
pub struct RequestContext {
    /// Who asks.
    pub actor: Actor,
    /// Which request.
    pub request_id: RequestId,
}

impl RequestContext {
    /// The context of work that the node does on its own.
    pub fn system() -> Self {
        Self { actor: Actor::System, request_id: RequestId::random() }
    }

    /// The context of an anonymous client's request.
    pub const fn anonymous(request_id: RequestId) -> Self {
        Self { actor: Actor::Anonymous, request_id }
    }
}
