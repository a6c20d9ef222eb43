//! Hashes of passwords: argon2id, written as PHC strings.
//!
//! A hash takes 19 MiB and tens of milliseconds by design, so it runs on threads that may block, two at once, and no
//! more wait than can be served while they wait.

use std::io;
use std::sync::Arc;

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{Error as HashError, PasswordHasher as _, PasswordVerifier as _};
use argon2::{Algorithm, Argon2, Params, Version};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::random_bytes;
use crate::config::Secret;
use crate::runtime::Tasks;

/// Hashes passwords and compares them with hashes. Cloning gives another handle.
#[derive(Clone, Debug)]
pub struct Passwords {
    tasks: Tasks,
    /// Those that run.
    workers: Arc<Semaphore>,
    /// Those that run or wait.
    places: Arc<Semaphore>,
}

/// Why a password was neither hashed nor compared.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PasswordError {
    /// Too many others wait.
    #[error("too many passwords are being compared")]
    Busy,
    /// The hash is none, or one of another kind or cost than are made here.
    #[error("hash of password is unreadable")]
    Unreadable,
    /// It cannot be hashed: the system gave no random numbers, or the password is longer than 4 GiB.
    #[error("hash password")]
    Failed(#[source] Arc<io::Error>),
    /// The thread did not finish.
    #[error("hashing of a password was broken off")]
    Interrupted,
}

impl Passwords {
    /// Hashing on threads of `tasks`.
    pub fn new(tasks: Tasks) -> Self {
        Self {
            tasks,
            workers: Arc::new(Semaphore::new(WORKERS)),
            places: Arc::new(Semaphore::new(WORKERS + MAX_WAITING)),
        }
    }

    /// Hashes a password with a salt of its own.
    ///
    /// Dropped, it may go on in the background, to no effect.
    pub async fn hash(&self, password: &Secret) -> Result<Secret, PasswordError> {
        let password = password.clone();
        self.run(move || hash(&password)).await?
    }

    /// Whether it is the password behind `hash`; never without one, but that takes as long, so that the time does not
    /// tell which accounts there are.
    ///
    /// Dropped, it may go on in the background, to no effect.
    pub async fn verify(&self, password: &Secret, hash: Option<&Secret>) -> Result<bool, PasswordError> {
        let (password, hash) = (password.clone(), hash.cloned());
        self.run(move || match hash {
            Some(hash) => verify(&password, hash.expose()),
            None => verify(&password, NOBODYS_HASH).map(|_whatever| false),
        })
        .await?
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, PasswordError> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok().ok_or(PasswordError::Busy)?;
        let worker =
            Arc::clone(&self.workers).acquire_owned().await.ok().ok_or(PasswordError::Interrupted)?;
        // The work holds both, whatever becomes of who waits for it.
        let held: [OwnedSemaphorePermit; 2] = [place, worker];
        let running = self.tasks.spawn_blocking(move || {
            let done = work();
            drop(held);
            done
        });
        running.await.ok().ok_or(PasswordError::Interrupted)
    }
}

fn hash(password: &Secret) -> Result<Secret, PasswordError> {
    let failed = |error| PasswordError::Failed(Arc::new(error));
    let salt: [u8; 16] = random_bytes().map_err(failed)?;
    let hash: Result<PasswordHash, _> = hasher().hash_password_with_salt(password.expose().as_bytes(), &salt);
    hash.map(|hash| Secret::new(hash.to_string()))
        .map_err(|error| failed(io::Error::other(error.to_string())))
}

fn verify(password: &Secret, hash: &str) -> Result<bool, PasswordError> {
    let hash = PasswordHash::new(hash).ok().ok_or(PasswordError::Unreadable)?;
    // Whoever can write to the database is not to choose how much memory this takes.
    let params = Params::try_from(&hash).ok().ok_or(PasswordError::Unreadable)?;
    if params.m_cost() > MOST_MEMORY_KIB || params.t_cost() > MOST_PASSES {
        return Err(PasswordError::Unreadable);
    }
    match hasher().verify_password(password.expose().as_bytes(), &hash) {
        Ok(()) => Ok(true),
        Err(HashError::PasswordInvalid) => Ok(false),
        Err(_other) => Err(PasswordError::Unreadable),
    }
}

fn hasher() -> Argon2<'static> {
    Argon2::new(Algorithm::Argon2id, Version::V0x13, PARAMS)
}

/// What OWASP recommends at least: 19 MiB, two passes, one lane.
const PARAMS: Params = Params::DEFAULT;

/// What nobody's password hashes to, at the same cost.
const NOBODYS_HASH: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5J3Mgc2FsdCE$bm9ib2R5J3MgcGFzc3dvcmQgaGFzaGVzIHRvIHRoaXM";

/// Each takes a processor and [`PARAMS`]' memory.
const WORKERS: usize = 2;

/// At some 30 ms each, the last one waits for a second.
const MAX_WAITING: usize = 64;

/// Room for parameters of later versions.
const MOST_MEMORY_KIB: u32 = 128 * 1024;
const MOST_PASSES: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_password_alone_matches_its_hash() {
        let passwords = Passwords::new(Tasks::new());
        let secret = Secret::new("correct horse battery staple");
        let hash = passwords.hash(&secret).await.unwrap();
        assert!(hash.expose().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", hash.expose());
        assert!(passwords.verify(&secret, Some(&hash)).await.unwrap());
        assert!(!passwords.verify(&Secret::new("correct horse"), Some(&hash)).await.unwrap());
        assert!(!passwords.verify(&secret, None).await.unwrap());
        let again = passwords.hash(&secret).await.unwrap();
        assert_ne!(again, hash, "each has a salt of its own");
    }

    #[test]
    fn nobodys_hash_costs_what_others_do() {
        let hash = PasswordHash::new(NOBODYS_HASH).unwrap();
        let params = Params::try_from(&hash).unwrap();
        assert_eq!(
            (params.m_cost(), params.t_cost(), params.p_cost()),
            (PARAMS.m_cost(), PARAMS.t_cost(), PARAMS.p_cost())
        );
        assert_eq!((PARAMS.m_cost(), PARAMS.t_cost(), PARAMS.p_cost()), (19 * 1024, 2, 1));
        assert_eq!(hash.hash.unwrap().len(), 32);
        assert!(!verify(&Secret::new(""), NOBODYS_HASH).unwrap());
    }

    #[test]
    fn hashes_of_other_kinds_and_costs_are_refused() {
        for hash in [
            "",
            "password",
            "$2b$12$abcdefghijklmnopqrstuuSAmPlEHaShOfBcRyPtXXXXXXXXXXXXX",
            "$argon2id$v=19$m=4294967295,t=2,p=1$bm9ib2R5J3Mgc2FsdCE$bm9ib2R5J3MgcGFzc3dvcmQgaGFzaGVzIHRvIHRoaXM",
            "$argon2id$v=19$m=19456,t=4294967295,p=1$bm9ib2R5J3Mgc2FsdCE$bm9ib2R5J3MgcGFzc3dvcmQgaGFzaGVzIHRvIHRoaXM",
        ] {
            let verified = verify(&Secret::new("password"), hash);
            assert!(matches!(verified, Err(PasswordError::Unreadable)), "{hash}: {verified:?}");
        }
    }

    #[tokio::test]
    async fn no_more_run_and_wait_than_there_are_places() {
        let passwords = Passwords::new(Tasks::new());
        let held = Arc::clone(&passwords.workers).acquire_many_owned(2).await.unwrap();
        let secret = Secret::new("x");
        let mut waiting: Vec<_> =
            (0..WORKERS + MAX_WAITING).map(|_| Box::pin(passwords.verify(&secret, None))).collect();
        for one in &mut waiting {
            assert!(futures_util::poll!(one.as_mut()).is_pending());
        }
        let one_more = passwords.verify(&secret, None).await;
        assert!(matches!(one_more, Err(PasswordError::Busy)), "{one_more:?}");
        waiting.truncate(1);
        drop(held);
        assert!(!waiting.remove(0).await.unwrap());
        assert!(!passwords.verify(&secret, None).await.unwrap());
    }
}
