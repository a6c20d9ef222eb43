//! Accounts, and the keys that tokens are signed with.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use async_trait::async_trait;

use super::{Result, Stamp};
use crate::config::Secret;
use crate::runtime::Timestamp;

/// The name of an account: up to 64 lower-case letters, digits, and `.`, `_` and `-` between them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountName(Arc<str>);

/// That a text is no name of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccountNameError {
    /// It breaks the grammar.
    #[error(
        "the name of an account has up to 64 lower-case letters, digits, \".\", \"_\" and \"-\", and begins with a letter or digit"
    )]
    Malformed,
    /// Histories call others than accounts so.
    #[error("no account is called so: \"anonymous\", \"administrator\" and \"system\" stand for others")]
    Reserved,
}

impl AccountName {
    /// Who did something, as histories have it, where nobody said who.
    pub const ANONYMOUS: &'static str = "anonymous";
    /// Who did something, as histories have it, where that came through the administrator's API.
    pub const ADMINISTRATOR: &'static str = "administrator";
    /// Who did something, as histories have it, where the node did it by itself.
    pub const SYSTEM: &'static str = "system";

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as stamps have it.
    pub fn to_shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }
}

impl FromStr for AccountName {
    type Err = AccountNameError;

    fn from_str(text: &str) -> std::result::Result<Self, AccountNameError> {
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let begins_well = text.bytes().next().is_some_and(is_plain);
        let is_good = |byte: u8| is_plain(byte) || matches!(byte, b'.' | b'_' | b'-');
        if text.len() > MAX_NAME_BYTES || !begins_well || !text.bytes().all(is_good) {
            return Err(AccountNameError::Malformed);
        }
        if matches!(text, Self::ANONYMOUS | Self::ADMINISTRATOR | Self::SYSTEM) {
            return Err(AccountNameError::Reserved);
        }
        Ok(Self(Arc::from(text)))
    }
}

impl fmt::Display for AccountName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for AccountName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What an account may do everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Everything.
    Administrator,
    /// What anybody may, and what it has been permitted.
    Member,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 2] = [Self::Administrator, Self::Member];

    /// The word for it in the database and in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Administrator => "administrator",
            Self::Member => "member",
        }
    }
}

/// An account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountRecord {
    /// Its name.
    pub name: AccountName,
    /// The hash of its password, a PHC string; without one, nobody can log in by password.
    pub password_hash: Option<Secret>,
    /// What it may do everywhere.
    pub role: Role,
    /// When it was created, and by whom.
    pub created: Stamp,
    /// Since when it may do nothing.
    pub disabled_at: Option<Timestamp>,
}

/// A key that tokens are signed with.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningKeyRecord {
    /// Its name in tokens.
    pub id: String,
    /// The key itself.
    pub secret: Vec<u8>,
    /// When it was made.
    pub created_at: Timestamp,
}

impl fmt::Debug for SigningKeyRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKeyRecord").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Keeps accounts. They are not in the log of changes.
#[async_trait]
pub trait Accounts: Send + Sync {
    /// Creates an account where there is none at all, and says whether it did. Of several nodes that try at once, one
    /// does.
    async fn create_first_account(&self, account: &AccountRecord) -> Result<bool>;

    /// Finds an account, disabled or not.
    async fn find_account(&self, name: &AccountName) -> Result<Option<AccountRecord>>;

    /// Lists accounts in the order of their names.
    async fn list_accounts(&self, after: Option<&AccountName>, limit: u32) -> Result<Vec<AccountRecord>>;

    /// Replaces the password of an account. Fails where there is none.
    async fn set_password(&self, name: &AccountName, hash: &Secret) -> Result<()>;

    /// Finds the newest key that tokens are signed with; where there is none, the candidate becomes it. All nodes get
    /// the same.
    async fn find_or_create_signing_key(&self, candidate: &SigningKeyRecord) -> Result<SigningKeyRecord>;
}

const MAX_NAME_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_accounts_are_plain_and_stand_for_nobody_else() {
        for good in ["a", "admin", "0", "jane.doe", "ci-bot_2", "a..b", &"x".repeat(64)] {
            assert_eq!(good.parse::<AccountName>().unwrap().as_str(), good);
        }
        for bad in ["", ".a", "-a", "_a", "Admin", "a b", "a/b", "a:b", "a@b", "\u{e9}", &"x".repeat(65)] {
            assert_eq!(bad.parse::<AccountName>(), Err(AccountNameError::Malformed), "{bad}");
        }
        for reserved in ["anonymous", "administrator", "system"] {
            assert_eq!(reserved.parse::<AccountName>(), Err(AccountNameError::Reserved), "{reserved}");
        }
    }
}
