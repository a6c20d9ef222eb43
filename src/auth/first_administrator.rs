//! The account that the first start creates, so that somebody can create what else there is.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{PasswordError, Passwords, random_bytes};
use crate::config::Secret;
use crate::metadata::catalogue::{AccountName, AccountRecord, Accounts, CatalogueError, Role, Stamp};
use crate::runtime::{Clock, Tasks};

/// What the account is called.
pub const FIRST_ADMINISTRATOR: &str = "admin";

/// The file under the storage path that has its password, where none was configured.
pub const INITIAL_PASSWORD_FILE: &str = "initial-administrator-password";

/// Creates the first account.
pub struct FirstAdministrator {
    /// The accounts.
    pub accounts: Arc<dyn Accounts>,
    /// What hashes the password.
    pub passwords: Passwords,
    /// The time.
    pub clock: Clock,
    /// Where files are written.
    pub tasks: Tasks,
    /// The storage path, which this process alone uses.
    pub folder: PathBuf,
    /// The password that is configured.
    pub configured: Option<Secret>,
}

/// Why there is no first account.
#[derive(Debug, thiserror::Error)]
pub enum FirstAdministratorError {
    /// The accounts cannot be read or written.
    #[error("accounts cannot be read or written")]
    Accounts(#[from] CatalogueError),
    /// The password cannot be hashed.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// The file of the password cannot be read or written.
    #[error("initial password of the administrator: {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
}

type Result<T> = std::result::Result<T, FirstAdministratorError>;

impl FirstAdministrator {
    /// Creates the account where there is none at all, and says whether it did. The log then names the file of the
    /// password, which is durable before the account is.
    ///
    /// Dropped or killed at any point, it may be called again, and no password is lost: a file that is there already is
    /// used. Of several nodes one creates the account, and the others remove the file that they wrote. A file whose
    /// password is not the account's (any more) is removed.
    pub async fn ensure(&self) -> Result<bool> {
        let is_created = self.accounts.list_accounts(None, 1).await?.is_empty() && self.create().await?;
        if is_created && self.configured.is_none() {
            let path = self.path();
            tracing::info!(
                account.name = FIRST_ADMINISTRATOR,
                path = %path.display(),
                "created the first account, {FIRST_ADMINISTRATOR}: its password is in {}. Log in, keep it, and remove the file",
                path.display()
            );
        } else {
            self.remove_stale_file().await?;
        }
        Ok(is_created)
    }

    async fn create(&self) -> Result<bool> {
        let password = match &self.configured {
            Some(password) => password.clone(),
            None => self.on_disk(find_or_write).await?,
        };
        let password_hash = Some(self.passwords.hash(&password).await?);
        let by = Arc::from(AccountName::SYSTEM);
        let account = AccountRecord {
            name: administrator(),
            password_hash,
            role: Role::Administrator,
            created: Stamp { at: self.clock.now(), by },
            disabled_at: None,
        };
        let is_created = self.accounts.create_first_account(&account).await?;
        if is_created && self.configured.is_some() {
            tracing::info!(
                account.name = FIRST_ADMINISTRATOR,
                "created the first account, {FIRST_ADMINISTRATOR}, with the configured password"
            );
        }
        Ok(is_created)
    }

    /// Removes the file where its password is not that of the account.
    async fn remove_stale_file(&self) -> Result<()> {
        let Some(password) = self.on_disk(find).await? else { return Ok(()) };
        let account = self.accounts.find_account(&administrator()).await?;
        let hash = account.and_then(|account| account.password_hash);
        if !self.passwords.verify(&password, hash.as_ref()).await? {
            self.on_disk(|path| fs::remove_file(path)).await?;
        }
        Ok(())
    }

    fn path(&self) -> PathBuf {
        self.folder.join(INITIAL_PASSWORD_FILE)
    }

    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
    ) -> Result<T> {
        let path = self.path();
        let running = self.tasks.spawn_blocking({
            let path = path.clone();
            move || work(&path)
        });
        let done = running.await.unwrap_or_else(|broken| Err(io::Error::other(broken)));
        done.map_err(|source| FirstAdministratorError::File { path, source })
    }
}

fn administrator() -> AccountName {
    FIRST_ADMINISTRATOR.parse().expect("the name is a good one")
}

/// Reads the password; an empty file is none.
fn find(path: &Path) -> io::Result<Option<Secret>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim()).filter(|text| !text.is_empty()).map(Secret::new)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads the password that an earlier start has written, or writes a new one for this user alone. It is durable then,
/// also where that start did not get so far.
fn find_or_write(path: &Path) -> io::Result<Secret> {
    let password = match find(path)? {
        Some(password) => password,
        None => write(path)?,
    };
    File::open(path)?.sync_all()?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()?;
    Ok(password)
}

fn write(path: &Path) -> io::Result<Secret> {
    let password = random_password()?;
    let unfinished = path.with_extension("unfinished");
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&unfinished)?;
    writeln!(file, "{}", password.expose())?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    Ok(password)
}

/// 130 bits that are one word to a mouse, and that no shell takes for anything else.
fn random_password() -> io::Result<Secret> {
    let bytes: [u8; 26] = random_bytes()?;
    Ok(Secret::new(bytes.map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).iter().collect::<String>()))
}

/// Digits and letters that are not mistaken for one another.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
