//! How this node identifies itself to one upstream: from the configuration, a file, or a
//! `docker-credential-*` helper.
//!
//! Files are read anew when they change, helpers asked anew when they are old, and both when
//! upstream rejects what they said.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::time::{Instant, timeout};

use super::error::{Fault, printable};
use crate::config::{Credentials, Secret};
use crate::runtime::{Joined, SingleFlight, Tasks};

/// What is shown to a token service or, by Basic, to a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Login {
    /// Name and password.
    Password { username: String, password: Secret },
    /// An OAuth 2 refresh token, which helpers give under the name `<token>`.
    IdentityToken(Secret),
}

impl Login {
    /// The value of `Authorization` for Basic (RFC 7617); `None` for a refresh token.
    pub(super) fn to_basic(&self) -> Option<HeaderValue> {
        let Self::Password { username, password } = self else { return None };
        let text = STANDARD.encode(format!("{username}:{}", password.expose()));
        let mut value = HeaderValue::from_str(&format!("Basic {text}")).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

/// Where an upstream's login comes from.
pub(super) struct CredentialSource {
    place: Arc<Place>,
    known: Mutex<Option<Known>>,
    version: AtomicU64,
    readings: SingleFlight<(), Result<Option<Known>, Fault>>,
}

enum Place {
    Fixed(Option<Arc<Login>>),
    File { username: String, path: PathBuf },
    Helper { program: OsString, server_url: String },
}

#[derive(Clone)]
struct Known {
    login: Option<Arc<Login>>,
    stamp: Option<Stamp>,
    read_at: Instant,
}

/// What changes when a file changes.
type Stamp = (Option<SystemTime>, u64);

impl CredentialSource {
    /// `server_url` is what a helper is asked for.
    pub(super) fn new(credentials: &Credentials, server_url: String, tasks: Tasks) -> Self {
        let place = match credentials {
            Credentials::Anonymous => Place::Fixed(None),
            Credentials::Password { username, password } => Place::Fixed(Some(Arc::new(Login::Password {
                username: username.clone(),
                password: password.clone(),
            }))),
            Credentials::PasswordFile { username, path } => {
                Place::File { username: username.clone(), path: path.clone() }
            }
            Credentials::Helper { helper } => {
                Place::Helper { program: format!("docker-credential-{helper}").into(), server_url }
            }
        };
        Self {
            place: Arc::new(place),
            known: Mutex::new(None),
            version: AtomicU64::new(0),
            readings: SingleFlight::new(tasks),
        }
    }

    /// A number that changes whenever the login does: tokens of another number are not used.
    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The login in force, `None` where there is none.
    pub(super) async fn current(&self) -> Result<Option<Arc<Login>>, Fault> {
        if let Place::Fixed(login) = &*self.place {
            return Ok(login.clone());
        }
        let known = self.lock().clone();
        let is_current = match (&known, &*self.place) {
            (Some(known), Place::File { path, .. }) => known.stamp == stamp_of(path).await,
            (Some(known), _) => known.read_at.elapsed() < HELPER_MEMORY,
            (None, _) => false,
        };
        match known {
            Some(known) if is_current => Ok(known.login),
            _ => self.read().await,
        }
    }

    /// The login after upstream rejected one: read anew, `None` where it is still the same.
    pub(super) async fn find_other_than(&self, rejected: &Login) -> Result<Option<Arc<Login>>, Fault> {
        if let Place::Fixed(_) = &*self.place {
            return Ok(None);
        }
        Ok(self.read().await?.filter(|login| **login != *rejected))
    }

    async fn read(&self) -> Result<Option<Arc<Login>>, Fault> {
        let place = Arc::clone(&self.place);
        let reading = self.readings.run((), move || async move { read_from(&place).await }).await;
        let known = reading.map_or_else(|| Err(unreadable("reading them failed")), Joined::into_inner)?;
        let login = known.as_ref().and_then(|known| known.login.clone());
        let mut slot = self.lock();
        let before = slot.as_ref().and_then(|known| known.login.clone());
        if slot.is_some() && before != login {
            self.version.fetch_add(1, Ordering::AcqRel);
        }
        *slot = known;
        Ok(login)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn read_from(place: &Place) -> Result<Option<Known>, Fault> {
    let (login, stamp) = match place {
        Place::Fixed(_) => return Ok(None),
        Place::File { username, path } => {
            // Taken before reading: a change in between is then seen next time.
            let stamp = stamp_of(path).await;
            let password = Secret::new(read_secret(path).await?);
            (Some(Login::Password { username: username.clone(), password }), stamp)
        }
        Place::Helper { program, server_url } => (ask_helper(program, server_url).await?, None),
    };
    Ok(Some(Known { login: login.map(Arc::new), stamp, read_at: Instant::now() }))
}

async fn stamp_of(path: &Path) -> Option<Stamp> {
    let metadata = tokio::fs::metadata(path).await.ok()?;
    Some((metadata.modified().ok(), metadata.len()))
}

async fn read_secret(path: &Path) -> Result<String, Fault> {
    let reading = async {
        let mut text = String::new();
        tokio::fs::File::open(path).await?.take(MAX_BYTES).read_to_string(&mut text).await?;
        Ok::<_, std::io::Error>(text)
    };
    let text = timeout(FILE_PATIENCE, reading).await.map_err(|_elapsed| unreadable("the file is silent"))?;
    let text = text.map_err(|error| unreadable(&format!("read {}: {error}", path.display())))?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
}

/// Asks a helper by the protocol of docker-credential-helpers: the server's URL in, JSON out.
async fn ask_helper(program: &OsString, server_url: &str) -> Result<Option<Login>, Fault> {
    let name = program.to_string_lossy();
    let failed = |why: &str| unreadable(&format!("{name}: {why}"));
    let asking = async {
        let mut child = Command::new(program)
            .arg("get")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        if let Some(mut input) = child.stdin.take() {
            // A helper that does not read its input closes it; what it prints counts.
            let _ = input.write_all(format!("{server_url}\n").as_bytes()).await;
        }
        let mut output = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            stdout.take(MAX_BYTES).read_to_end(&mut output).await?;
        }
        Ok::<_, std::io::Error>((child.wait().await?, output))
    };
    let (status, output) = timeout(HELPER_PATIENCE, asking)
        .await
        .map_err(|_elapsed| failed("no answer in time"))?
        .map_err(|error| failed(&error.to_string()))?;
    if !status.success() {
        // The one failure that is an answer; helpers print it on their standard output.
        if String::from_utf8_lossy(&output).contains("credentials not found") {
            return Ok(None);
        }
        return Err(failed("it failed"));
    }
    let answer: HelperAnswer =
        serde_json::from_slice(&output).map_err(|_unshown| failed("its answer is not readable"))?;
    let secret = Secret::new(answer.secret);
    Ok(Some(if answer.username == "<token>" {
        Login::IdentityToken(secret)
    } else {
        Login::Password { username: answer.username, password: secret }
    }))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperAnswer {
    username: String,
    secret: String,
}

/// It is this node's fault, but says nothing about content: cached content may still serve.
fn unreadable(why: &str) -> Fault {
    Fault::Credentials(printable(&format!("this node's credentials cannot be read: {why}")))
}

const MAX_BYTES: u64 = 64 * 1024;
const FILE_PATIENCE: Duration = Duration::from_secs(5);
const HELPER_PATIENCE: Duration = Duration::from_secs(30);
/// Helpers keep what lasts themselves; this only keeps them from being started too often.
const HELPER_MEMORY: Duration = Duration::from_mins(10);

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn password(text: &str) -> Login {
        Login::Password { username: "u".into(), password: Secret::new(text) }
    }

    #[tokio::test]
    async fn a_changed_password_file_is_read_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        std::fs::write(&path, "one\n").unwrap();
        let config = Credentials::PasswordFile { username: "u".into(), path: path.clone() };
        let source = CredentialSource::new(&config, String::new(), Tasks::new());
        assert_eq!(*source.current().await.unwrap().unwrap(), password("one"));
        assert!(source.find_other_than(&password("one")).await.unwrap().is_none());
        let version = source.version();
        std::fs::write(&path, "another\r\n").unwrap();
        assert_eq!(*source.current().await.unwrap().unwrap(), password("another"));
        assert_ne!(source.version(), version);
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(source.current().await, Err(Fault::Credentials(_))));
    }

    async fn ask_script(script: &str) -> Result<Option<Login>, Fault> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("docker-credential-test");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        // Another test's fork may hold the script open for writing for a moment (ETXTBSY).
        for _ in 0..50 {
            match ask_helper(&path.clone().into(), "https://registry.test").await {
                Err(Fault::Credentials(why)) if why.contains("busy") => tokio::task::yield_now().await,
                answer => return answer,
            }
        }
        panic!("the script stays busy")
    }

    #[tokio::test]
    async fn helpers_answer_in_json() {
        let echo = r#"read url; printf '{"ServerURL":"x","Username":"u","Secret":"%s"}' "$url""#;
        assert_eq!(ask_script(echo).await, Ok(Some(password("https://registry.test"))));
        let token = r#"echo '{"Username":"<token>","Secret":"refresh"}'"#;
        assert_eq!(ask_script(token).await, Ok(Some(Login::IdentityToken(Secret::new("refresh")))));
        let nothing = "echo 'credentials not found in native keychain'; exit 1";
        assert_eq!(ask_script(nothing).await, Ok(None));
    }

    #[tokio::test]
    async fn a_helper_that_fails_or_babbles_is_a_fault_that_shows_no_secret() {
        for script in
            ["exit 3", "echo s3cret", "yes s3cret | head -c 1000000", "echo '{\"Secret\":\"s3cret\"}'"]
        {
            let Err(Fault::Credentials(why)) = ask_script(script).await else { panic!("{script}") };
            assert!(!why.contains("s3cret"), "{why}");
        }
        let missing = ask_helper(&"docker-credential-there-is-none".into(), "x").await;
        assert!(matches!(missing, Err(Fault::Credentials(_))));
    }
}
