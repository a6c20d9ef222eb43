//! From what a client shows to who it is.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use moka::sync::Cache;
use ring::hmac;
use tokio::time::Instant;

use super::policy::Refused;
use super::throttle::Throttle;
use super::{Account, Actor, Credentials, PasswordError, Passwords, Rights, Tokens, random_bytes};
use crate::config::Secret;
use crate::metadata::catalogue::{AccountName, Accounts, CatalogueError, Role};
use crate::runtime::{Clock, SingleFlight, Tasks};

/// Finds out who a client is. Cloning gives another handle.
///
/// A password that was compared is remembered for a minute, right or wrong, by a code that only this process
/// can compute: the hash is slow by design, and clients show their password with every request. So on other nodes a
/// changed password, a new account or a disabled one counts after that time, at the latest.
#[derive(Clone)]
pub struct Authenticator(pub(super) Arc<Inner>);

/// What an [`Authenticator`] stands on.
pub struct AuthenticatorServices {
    /// The accounts.
    pub accounts: Arc<dyn Accounts>,
    /// What compares passwords.
    pub passwords: Passwords,
    /// The time.
    pub clock: Clock,
    /// Where passwords are looked up: who leaves meanwhile does not stop it.
    pub tasks: Tasks,
    /// How long a token is good for.
    pub token_lifetime: Duration,
}

pub(super) struct Inner {
    accounts: Arc<dyn Accounts>,
    passwords: Passwords,
    pub(super) clock: Clock,
    tokens: OnceLock<Tokens>,
    token_lifetime: Duration,
    remembered: Cache<Code, Remembered>,
    running: SingleFlight<(u64, Code), Result<Verdict, AuthenticationError>>,
    /// What codes are computed with.
    code_key: hmac::Key,
    /// What was remembered under another number is forgotten.
    generation: AtomicU64,
    throttle: Throttle,
}

/// Why nobody knows who a client is.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AuthenticationError {
    /// The client has to do something about it.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The accounts cannot be read.
    #[error("accounts cannot be read")]
    Accounts(#[source] Arc<CatalogueError>),
    /// The password can be compared with nothing.
    #[error("password cannot be compared")]
    Password(#[source] PasswordError),
}

impl AuthenticationError {
    /// Whether trying again may help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Refused(refused) => matches!(refused, Refused::TooManyAttempts { .. }),
            Self::Accounts(error) => error.is_transient(),
            Self::Password(_) => false,
        }
    }
}

impl From<CatalogueError> for AuthenticationError {
    fn from(error: CatalogueError) -> Self {
        Self::Accounts(Arc::new(error))
    }
}

impl From<PasswordError> for AuthenticationError {
    fn from(error: PasswordError) -> Self {
        match error {
            PasswordError::Busy => Refused::TooManyAttempts { wait: BUSY_PAUSE }.into(),
            error => Self::Password(error),
        }
    }
}

/// Stands for a name and a password.
type Code = [u8; 32];

/// An answer to a name and a password.
#[derive(Clone)]
enum Verdict {
    Right { name: AccountName, role: Role },
    Wrong,
}

#[derive(Clone)]
struct Remembered {
    verdict: Verdict,
    generation: u64,
    since: Instant,
}

impl Authenticator {
    /// Puts it together. Reads nothing yet: the catalogue may be away.
    pub fn new(services: AuthenticatorServices) -> Result<Self, AuthenticationError> {
        let AuthenticatorServices { accounts, passwords, clock, tasks, token_lifetime } = services;
        let code_key: [u8; 32] = random_bytes().map_err(no_numbers)?;
        Ok(Self(Arc::new(Inner {
            accounts,
            passwords,
            clock,
            tokens: OnceLock::new(),
            token_lifetime,
            remembered: Cache::builder().max_capacity(MAX_REMEMBERED).time_to_live(REMEMBERED_FOR).build(),
            running: SingleFlight::new(tasks),
            code_key: hmac::Key::new(hmac::HMAC_SHA256, &code_key),
            generation: AtomicU64::new(0),
            throttle: Throttle::new(),
        })))
    }

    /// Reads the key that tokens are signed with, or makes the first one; from memory, once that was done.
    pub(super) async fn tokens(&self) -> Result<&Tokens, AuthenticationError> {
        let inner = &*self.0;
        if let Some(tokens) = inner.tokens.get() {
            return Ok(tokens);
        }
        let candidate = Tokens::candidate(inner.clock.now()).map_err(no_numbers)?;
        // Whoever does the same meanwhile gets the same key.
        let key = inner.accounts.find_or_create_signing_key(&candidate).await?;
        Ok(inner.tokens.get_or_init(|| Tokens::new(&key, inner.token_lifetime)))
    }

    /// Whether somebody who has no token can get one: not while the catalogue is away that this process has read nothing
    /// of yet.
    pub async fn can_issue(&self) -> bool {
        self.tokens().await.is_ok()
    }

    /// Finds out who sent a request: `authorization` is the value of the header, `client` the address it came from.
    ///
    /// May be dropped at any await point: what was begun goes on, and is remembered.
    pub async fn authenticate(
        &self,
        authorization: Option<&[u8]>,
        client: IpAddr,
    ) -> Result<Actor, AuthenticationError> {
        match Credentials::parse(authorization) {
            Credentials::Anonymous => Ok(Actor::Anonymous),
            Credentials::Bearer(token) => self.read_token(&token).await,
            Credentials::Basic { name, password } => {
                let (name, role) = self.require_password(&name, &password, client).await?;
                Ok(Actor::Account(Arc::new(Account { name, rights: Rights::Role(role) })))
            }
            Credentials::Other => Err(Refused::Unauthenticated.into()),
        }
    }

    /// Replaces the password of an account; this node forgets at once what it remembers of the one before. Fails with
    /// [`CatalogueError::AccountUnknown`] where there is no such account.
    ///
    /// Dropped, it was done or not; what is remembered may then count until its time is over.
    pub async fn set_password(
        &self,
        name: &AccountName,
        password: &Secret,
    ) -> Result<(), AuthenticationError> {
        let hash = self.0.passwords.hash(password).await?;
        self.0.accounts.set_password(name, &hash).await?;
        self.forget();
        Ok(())
    }

    /// Forgets which passwords were right and wrong: after accounts were changed otherwise.
    pub fn forget(&self) {
        self.0.generation.fetch_add(1, Ordering::SeqCst);
    }

    async fn read_token(&self, token: &Secret) -> Result<Actor, AuthenticationError> {
        let shown = self.tokens().await?.read(token, self.0.clock.now()).map_err(|fault| {
            tracing::debug!(%fault, "a token was refused");
            Refused::InvalidToken
        })?;
        Ok(match shown.account {
            Some(name) => Actor::Account(Arc::new(Account { name, rights: Rights::Token(shown.grants) })),
            None => Actor::Guest,
        })
    }

    /// Finds the account of a name and a password, or fails.
    pub(super) async fn require_password(
        &self,
        name: &str,
        password: &Secret,
        client: IpAddr,
    ) -> Result<(AccountName, Role), AuthenticationError> {
        let code = self.0.code_of(name, password);
        let generation = self.0.generation.load(Ordering::SeqCst);
        let verdict = match self.0.find_remembered(&code, generation) {
            Some(verdict) => verdict,
            None => self.compare(name, password, client, (generation, code)).await?,
        };
        match verdict {
            Verdict::Right { name, role } => Ok((name, role)),
            Verdict::Wrong => Err(Refused::WrongCredentials.into()),
        }
    }

    /// Compares a password, once for all who show it now.
    async fn compare(
        &self,
        name: &str,
        password: &Secret,
        client: IpAddr,
        key: (u64, Code),
    ) -> Result<Verdict, AuthenticationError> {
        let account = name.parse::<AccountName>().ok();
        let throttle = &self.0.throttle;
        throttle.check(account.as_ref(), client).map_err(|wait| Refused::TooManyAttempts { wait })?;
        let (inner, password) = (Arc::clone(&self.0), password.clone());
        let compared = self.0.running.run(key, move || async move {
            let verdict = inner.find_verdict(account.as_ref(), &password).await?;
            inner.record(&verdict, account.as_ref(), client);
            let (generation, code) = key;
            inner
                .remembered
                .insert(code, Remembered { verdict: verdict.clone(), generation, since: Instant::now() });
            Ok(verdict)
        });
        let compared = compared.await.ok_or(AuthenticationError::Password(PasswordError::Interrupted))?;
        compared.into_inner()
    }
}

fn no_numbers(error: std::io::Error) -> AuthenticationError {
    AuthenticationError::Password(PasswordError::Failed(Arc::new(error)))
}

impl Inner {
    fn code_of(&self, name: &str, password: &Secret) -> Code {
        let mut context = hmac::Context::with_key(&self.code_key);
        context.update(&name.len().to_be_bytes());
        context.update(name.as_bytes());
        context.update(password.expose().as_bytes());
        let mut code = [0; 32];
        code.copy_from_slice(context.sign().as_ref());
        code
    }

    fn find_remembered(&self, code: &Code, generation: u64) -> Option<Verdict> {
        let remembered = self.remembered.get(code)?;
        let is_good = remembered.generation == generation && remembered.since.elapsed() < REMEMBERED_FOR;
        is_good.then_some(remembered.verdict)
    }

    async fn find_verdict(
        &self,
        account: Option<&AccountName>,
        password: &Secret,
    ) -> Result<Verdict, AuthenticationError> {
        let record = match account {
            Some(name) => self.accounts.find_account(name).await?,
            None => None,
        };
        let record = record.filter(|record| record.disabled_at.is_none());
        let hash = record.as_ref().and_then(|record| record.password_hash.as_ref());
        let is_right = self.passwords.verify(password, hash).await?;
        Ok(match record {
            Some(record) if is_right => Verdict::Right { name: record.name, role: record.role },
            _ => Verdict::Wrong,
        })
    }

    fn record(&self, verdict: &Verdict, account: Option<&AccountName>, client: IpAddr) {
        match verdict {
            Verdict::Right { name, .. } => self.throttle.record_success(name, client),
            Verdict::Wrong => {
                self.throttle.record_failure(account, client);
                // Not the name: people type their password into the wrong field.
                tracing::info!(client.address = %client, "wrong credentials were shown");
            }
        }
    }
}

/// For how long a password that was compared is not compared again.
const REMEMBERED_FOR: Duration = Duration::from_mins(1);

/// Each is some hundred bytes.
const MAX_REMEMBERED: u64 = 10_000;

/// When those who wait now will have been served.
const BUSY_PAUSE: Duration = Duration::from_secs(1);
