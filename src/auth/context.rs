//! The context that every use case takes first.

use std::fmt;
use std::sync::Arc;

use super::Grants;
use crate::metadata::catalogue::{AccountName, Role};

/// On whose behalf something happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Actor {
    /// A client that did not say who it is.
    Anonymous,
    /// A client that showed a token which was issued to nobody in particular.
    Guest,
    /// A client that showed who it is.
    Account(Arc<Account>),
    /// Whoever may use the administrator's API.
    Administrator,
    /// The node itself: revalidation, eviction.
    System,
}

/// Who a client is, and by what it showed that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The account.
    pub name: AccountName,
    /// What it may do just now.
    pub rights: Rights,
}

/// What an account may do just now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rights {
    /// All that its role allows: it showed its password.
    Role(Role),
    /// What its token grants, which was less than or all of its rights when the token was issued.
    Token(Grants),
}

impl Actor {
    /// The name that histories have: that of the account, or the word for who has none.
    pub fn name(&self) -> Arc<str> {
        match self {
            Self::Anonymous | Self::Guest => Arc::from(AccountName::ANONYMOUS),
            Self::Account(account) => account.name.to_shared(),
            Self::Administrator => Arc::from(AccountName::ADMINISTRATOR),
            Self::System => Arc::from(AccountName::SYSTEM),
        }
    }
}

/// Names one request in logs and answers.
///
/// Kept in place: a request costs no allocation for its name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RequestId {
    /// The first `length` bytes count, all of them ASCII; the rest is zero.
    bytes: [u8; MAX_ID_BYTES],
    length: u8,
}

/// The longest identifier that is taken from a client, in bytes.
const MAX_ID_BYTES: usize = 64;

impl RequestId {
    /// A fresh random identifier: 16 hex digits.
    pub fn random() -> Self {
        let mut id = Self { bytes: [0; MAX_ID_BYTES], length: 16 };
        let number = fastrand::u64(..);
        for (place, digit) in id.bytes[..16].iter_mut().enumerate() {
            *digit = b"0123456789abcdef"[(number >> (60 - 4 * place) & 15) as usize];
        }
        id
    }

    /// Takes the identifier that a client or proxy gave, where it is harmless: at most 64 letters,
    /// digits, `-`, `_` and `.`.
    pub fn from_client(text: &str) -> Option<Self> {
        let is_harmless = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let good = !text.is_empty() && text.len() <= MAX_ID_BYTES && text.bytes().all(is_harmless);
        let length = u8::try_from(text.len()).ok().filter(|_| good)?;
        let mut bytes = [0; MAX_ID_BYTES];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Some(Self { bytes, length })
    }

    /// The identifier as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..usize::from(self.length)]).unwrap_or_default()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
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

    /// The context of an administrator's request.
    pub fn administrator() -> Self {
        Self { actor: Actor::Administrator, request_id: RequestId::random() }
    }

    /// The context of a request of whoever was authenticated.
    pub const fn of(actor: Actor, request_id: RequestId) -> Self {
        Self { actor, request_id }
    }

    /// Whether the client has shown nothing.
    pub fn is_anonymous(&self) -> bool {
        self.actor == Actor::Anonymous
    }

    /// The context of an anonymous client's request.
    pub const fn anonymous(request_id: RequestId) -> Self {
        Self { actor: Actor::Anonymous, request_id }
    }
}
