//! The namespaces that are hosted here, in memory: every name of a request is held against them.
//!
//! Names without a registry that are none of these are names of the default upstream. So a node that cannot ask the
//! catalogue at its start must not guess: it goes by what it knew before, from a file, and a node that never knew any
//! says so.

use std::collections::HashMap;
use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};

use super::{Hosting, NamespacePolicy, Result};
use crate::auth::policy::Visibility;
use crate::metadata::catalogue::Namespace;

/// The namespaces that are there, by name.
#[derive(Debug, Default)]
pub(super) struct Namespaces {
    known: ArcSwap<Known>,
    /// The file in which they outlive the process.
    file: OnceLock<PathBuf>,
    /// Why the catalogue could not be asked the last time.
    outage: Mutex<Option<String>>,
}

#[derive(Debug, Default)]
struct Known {
    /// Whether they were ever read.
    were_read: bool,
    /// The number of the last change that this agrees with; 0 of what comes from the file.
    as_of: u64,
    by_name: HashMap<String, Visibility>,
}

/// What the file says of a namespace.
#[derive(Debug, Serialize, Deserialize)]
struct Remembered {
    name: String,
    is_public: bool,
}

impl Namespaces {
    pub(super) fn contains(&self, name: &str) -> bool {
        let known = self.known.load();
        !known.by_name.is_empty() && known.by_name.contains_key(name)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.known.load().by_name.is_empty()
    }

    pub(super) fn may_be_some(&self) -> bool {
        let known = self.known.load();
        !known.by_name.is_empty() || !known.were_read
    }

    pub(super) fn are_known(&self) -> bool {
        self.known.load().were_read
    }

    pub(super) fn visibility(&self, name: &str) -> Visibility {
        self.known.load().by_name.get(name).copied().unwrap_or(Visibility::Private)
    }

    fn note_outage(&self, outage: Option<String>) {
        *self.outage.lock().unwrap_or_else(PoisonError::into_inner) = outage;
    }
}

impl Hosting {
    /// Keeps the namespaces in a file, too, and takes from it what an earlier process knew. Blocks; meant for the start of
    /// the process, where the catalogue may be away.
    pub fn remember_namespaces_in(&self, file: PathBuf) {
        let namespaces = &self.0.namespaces;
        match read(&file) {
            Ok(Some(by_name)) => {
                namespaces.known.store(Arc::new(Known { were_read: true, as_of: 0, by_name }));
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(path = %file.display(), %error, "what was known of hosted namespaces cannot be read");
            }
        }
        let _only_once = namespaces.file.set(file);
    }

    /// Why the catalogue could not be asked the last time; `None` where it could.
    pub fn catalogue_outage(&self) -> Option<String> {
        self.0.namespaces.outage.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the namespaces from the catalogue, if anything has changed there since the last time. Meant to be called
    /// after changes and every few seconds: other nodes change them, too.
    pub async fn refresh_namespaces(&self) -> Result<()> {
        let refreshed = self.read_namespaces().await;
        let outage = refreshed.as_ref().err().map(|error| with_causes(error));
        self.0.namespaces.note_outage(outage);
        refreshed
    }

    async fn read_namespaces(&self) -> Result<()> {
        let namespaces = &self.0.namespaces;
        let as_of = self.catalogue.last_change().await?;
        let known = namespaces.known.load_full();
        if known.as_of == as_of && as_of > 0 {
            return Ok(());
        }
        let policies = self.catalogue.list_namespace_policies().await?;
        let visibility = |(name, policy): (Namespace, String)| {
            // One that cannot be read opens nothing.
            let is_public = NamespacePolicy::parse(&policy).is_ok_and(|policy| policy.anonymous_pull);
            let visibility = if is_public { Visibility::Public } else { Visibility::Private };
            (name.as_str().to_owned(), visibility)
        };
        let by_name: HashMap<_, _> = policies.into_iter().map(visibility).collect();
        let is_news = !known.were_read || known.by_name != by_name;
        let known = Arc::new(Known { were_read: true, as_of, by_name });
        namespaces.known.store(Arc::clone(&known));
        if let Some(file) = namespaces.file.get().filter(|_| is_news) {
            self.remember(file.clone(), known).await;
        }
        Ok(())
    }

    /// What cannot be written down is read from the catalogue after the next start, where that is there.
    async fn remember(&self, file: PathBuf, known: Arc<Known>) {
        let path = file.clone();
        let written = self.tasks.spawn_blocking(move || write(&file, &known)).await;
        if let Err(error) = written.unwrap_or_else(|panicked| Err(io::Error::other(panicked))) {
            tracing::warn!(path = %path.display(), %error, "what is known of hosted namespaces cannot be written down");
        }
    }
}

fn with_causes(error: &(dyn Error + 'static)) -> String {
    let causes: Vec<_> =
        std::iter::successors(Some(error), |error| (*error).source()).map(ToString::to_string).collect();
    causes.join(": ")
}

fn read(file: &Path) -> io::Result<Option<HashMap<String, Visibility>>> {
    let bytes = match std::fs::read(file) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let remembered: Vec<Remembered> = serde_json::from_slice(&bytes)?;
    let visibility = |is_public| if is_public { Visibility::Public } else { Visibility::Private };
    Ok(Some(remembered.into_iter().map(|one| (one.name, visibility(one.is_public))).collect()))
}

/// Replaces the file as a whole.
fn write(file: &Path, known: &Known) -> io::Result<()> {
    let one = |(name, visibility): (&String, &Visibility)| Remembered {
        name: name.clone(),
        is_public: *visibility == Visibility::Public,
    };
    let mut remembered: Vec<_> = known.by_name.iter().map(one).collect();
    remembered.sort_by(|one, other| one.name.cmp(&other.name));
    let new = file.with_extension("new");
    std::fs::write(&new, serde_json::to_vec(&remembered)?)?;
    std::fs::File::open(&new)?.sync_all()?;
    std::fs::rename(new, file)
}
