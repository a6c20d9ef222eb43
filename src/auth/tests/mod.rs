//! Accounts over a catalogue in a file: who gets in, who does not, and what tokens grant.

mod authenticate;
mod first_administrator;
mod issue;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tempfile::TempDir;

use super::{
    AuthenticationError, Authenticator, AuthenticatorServices, FIRST_ADMINISTRATOR, FirstAdministrator,
    Passwords,
};
use crate::auth::policy::Refused;
use crate::config::Secret;
use crate::metadata::catalogue::{Accounts as _, SqlCatalogue};
use crate::runtime::{Clock, Tasks, Timestamp};

/// An address that clients come from.
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

pub(crate) const PASSWORD: &str = "correct horse";

/// A node, and a folder that has its catalogue; nodes may share one.
pub(crate) struct Node {
    folder: TempDir,
    catalogue: SqlCatalogue,
    passwords: Passwords,
    clock: Clock,
    tasks: Tasks,
}

impl Node {
    pub(crate) async fn begin() -> Self {
        let catalogue_folder = TempDir::new().unwrap();
        let path = catalogue_folder.path().join(SqlCatalogue::FILE_NAME);
        let catalogue = SqlCatalogue::open(&path).await.unwrap();
        Self::over(catalogue, catalogue_folder)
    }

    pub(crate) const fn catalogue(&self) -> &SqlCatalogue {
        &self.catalogue
    }

    /// Another node with the same catalogue.
    fn beside(&self) -> Self {
        Self::over(self.catalogue.clone(), TempDir::new().unwrap())
    }

    fn over(catalogue: SqlCatalogue, folder: TempDir) -> Self {
        let tasks = Tasks::new();
        let clock = Clock::manual(Timestamp::from_millis(1_790_000_000_000));
        Self { folder, catalogue, passwords: Passwords::new(tasks.clone()), clock, tasks }
    }

    fn first_administrator(&self, configured: Option<&str>) -> FirstAdministrator {
        FirstAdministrator {
            accounts: Arc::new(self.catalogue.clone()),
            passwords: self.passwords.clone(),
            clock: self.clock.clone(),
            tasks: self.tasks.clone(),
            folder: self.folder.path().to_owned(),
            configured: configured.map(Secret::new),
        }
    }

    /// A node with an administrator, whose password is [`PASSWORD`].
    pub(crate) async fn authenticator(&self) -> Authenticator {
        self.first_administrator(Some(PASSWORD)).ensure().await.unwrap();
        let services = AuthenticatorServices {
            accounts: Arc::new(self.catalogue.clone()),
            passwords: self.passwords.clone(),
            clock: self.clock.clone(),
            tasks: self.tasks.clone(),
            token_lifetime: Duration::from_mins(5),
        };
        Authenticator::new(services).unwrap()
    }

    /// Whether the administrator's password is this one, as the catalogue has it.
    async fn is_password(&self, password: &str) -> bool {
        let name = FIRST_ADMINISTRATOR.parse().unwrap();
        let account = self.catalogue.find_account(&name).await.unwrap().unwrap();
        self.passwords.verify(&Secret::new(password), account.password_hash.as_ref()).await.unwrap()
    }
}

pub(crate) fn basic(name: &str, password: &str) -> Vec<u8> {
    format!("Basic {}", STANDARD.encode(format!("{name}:{password}"))).into_bytes()
}

/// What a client is told, where it is refused.
fn refusal<T: std::fmt::Debug>(result: Result<T, AuthenticationError>) -> Refused {
    match result {
        Err(AuthenticationError::Refused(refused)) => refused,
        other => panic!("{other:?}"),
    }
}
