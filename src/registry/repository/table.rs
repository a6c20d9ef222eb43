//! The pure part of finding what a name means.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use super::Spelling;
use crate::config::{UpstreamConfig, glob};
use crate::metadata::RepositoryId;
use crate::oci::RepositoryName;
use crate::registry::RegistryError;

/// Where the official images of Docker Hub live.
const LIBRARY: &str = "library/";

/// The longest host that is repeated to a client or in a log line, in bytes.
const MAX_SHOWN_LENGTH: usize = 255;

/// What a name needs to know of one upstream.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) name: Arc<str>,
    pub(super) aliases: Vec<String>,
    pub(super) default: bool,
    pub(super) library_prefix: bool,
    pub(super) allow: Vec<String>,
    pub(super) deny: Vec<String>,
}

/// Which upstream and repository a name means: a closed look-up in memory.
#[derive(Debug)]
pub(super) struct NameTable {
    entries: Vec<Entry>,
    /// Normalised names and aliases. Of two upstreams with one name the first counts.
    hosts: HashMap<String, usize>,
    default: Option<usize>,
}

/// What a name means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Meaning {
    /// The upstream's place in the table.
    pub(super) upstream: usize,
    pub(super) id: RepositoryId,
    /// Whether the request named its registry in any way.
    pub(super) explicit: bool,
}

impl NameTable {
    pub(super) fn new(entries: Vec<Entry>) -> Self {
        let mut hosts = HashMap::new();
        for (place, entry) in entries.iter().enumerate() {
            hosts.entry(normalize(&entry.name).into_owned()).or_insert(place);
            for alias in &entry.aliases {
                hosts.entry(normalize(alias).into_owned()).or_insert(place);
            }
        }
        let default = entries.iter().position(|entry| entry.default);
        Self { entries, hosts, default }
    }

    /// The place of the upstream with that name or alias, in any case, default ports left out.
    pub(super) fn find(&self, host: &str) -> Option<usize> {
        self.hosts.get(&*normalize(host)).copied()
    }

    /// The name, where the request says no registry in any way.
    pub(super) fn find_unqualified<'a>(&self, spelling: &Spelling<'a>) -> Option<&'a str> {
        let ns = spelling.ns.filter(|ns| !ns.is_empty() && !self.is_own(ns, spelling.own_hosts));
        if ns.is_some() {
            return None;
        }
        match self.split(spelling, None) {
            Ok((None, name)) => Some(name),
            Ok((Some(_), _)) | Err(_) => None,
        }
    }

    pub(super) fn resolve(&self, spelling: &Spelling<'_>) -> Result<Meaning, RegistryError> {
        let ns = spelling.ns.filter(|ns| !ns.is_empty() && !self.is_own(ns, spelling.own_hosts));
        let (by_path, name) = self.split(spelling, ns)?;
        let upstream = match (by_path, ns) {
            (Some(place), None) => place,
            // The path wins: it was written by whoever set the mirror up, `ns` by the client's habit.
            (Some(place), Some(ns)) => {
                if self.find(ns) != Some(place) {
                    let upstream = &self.entries[place].name;
                    tracing::debug!(%upstream, "the registry in the path wins over another in ns");
                }
                place
            }
            (None, Some(ns)) => self.find(ns).ok_or_else(|| unknown(ns))?,
            (None, None) => self.default.ok_or(RegistryError::NoDefaultRegistry)?,
        };
        let id = self.identify(upstream, name)?;
        Ok(Meaning { upstream, id, explicit: ns.is_some() || by_path.is_some() })
    }

    /// Finds the upstream that the path names, if it names one, and the rest of the name.
    fn split<'a>(
        &self,
        spelling: &Spelling<'a>,
        ns: Option<&str>,
    ) -> Result<(Option<usize>, &'a str), RegistryError> {
        let name = spelling.name;
        if let Some(prefix) = spelling.prefix {
            let place = self.find(prefix).ok_or_else(|| unknown(prefix))?;
            return Ok((Some(place), name));
        }
        let Some((first, rest)) = name.split_once('/') else { return Ok((None, name)) };
        match (self.find(first), ns) {
            (Some(place), None) => Ok((Some(place), rest)),
            // An alias without a dot may as well be a namespace of the registry that `ns` names.
            (Some(place), Some(ns)) if is_host(first) || self.find(ns) == Some(place) => {
                Ok((Some(place), rest))
            }
            (None, None) if is_host(first) => Err(unknown(first)),
            // With the registry told by `ns`, a component with a dot is part of the repository's name:
            // `gcr.io/google.com/cloudsdktool/cloud-sdk`.
            _ => Ok((None, name)),
        }
    }

    /// Whether `ns` is this server's own name, which clients send when they know it by several. A
    /// configured registry stays one, also where its name leads here.
    fn is_own(&self, ns: &str, own_hosts: &[&str]) -> bool {
        let wanted = normalize(ns);
        self.find(ns).is_none() && own_hosts.iter().any(|own| normalize(own) == wanted)
    }

    /// How any client can spell the repository, whatever the default: with the upstream's name in
    /// front, or an alias where the name has a port, which no client's names can have there.
    pub(super) fn client_name(&self, id: &RepositoryId) -> String {
        let entry = self.entries.iter().find(|entry| entry.name == id.upstream);
        let spellable = entry
            .into_iter()
            .flat_map(|entry| std::iter::once(&*entry.name).chain(entry.aliases.iter().map(String::as_str)));
        let host = spellable.into_iter().find(|host| host.parse::<RepositoryName>().is_ok());
        format!("{}/{}", host.unwrap_or(&id.upstream), id.name)
    }

    /// Reads what [`Self::client_name`] wrote; of an upstream that is gone, too: the place in the order
    /// counts, not what is there.
    pub(super) fn read_client_name(&self, text: &str) -> Option<RepositoryId> {
        let (host, name) = text.split_once('/')?;
        let upstream =
            self.find(host).map_or_else(|| host.into(), |place| Arc::clone(&self.entries[place].name));
        Some(RepositoryId { upstream, name: name.parse().ok()? })
    }

    /// The repository of that name at an upstream, if the upstream's rules allow it.
    fn identify(&self, upstream: usize, name: &str) -> Result<RepositoryId, RegistryError> {
        let entry = &self.entries[upstream];
        let is_short = entry.library_prefix && !name.contains('/');
        let full = if is_short { Cow::Owned(format!("{LIBRARY}{name}")) } else { Cow::Borrowed(name) };
        let name = full.parse().map_err(|error| RegistryError::NameInvalid(format!("{error}")))?;
        let id = RepositoryId { upstream: Arc::clone(&entry.name), name };
        if entry.allows(&id.name) { Ok(id) } else { Err(RegistryError::Excluded(id.to_string())) }
    }

    /// Whether the upstream at that place allows the repository.
    pub(super) fn allows(&self, upstream: usize, name: &RepositoryName) -> bool {
        self.entries[upstream].allows(name)
    }
}

impl From<&UpstreamConfig> for Entry {
    fn from(config: &UpstreamConfig) -> Self {
        Self {
            name: config.name.as_str().into(),
            aliases: config.aliases.clone(),
            default: config.default,
            library_prefix: config.library_prefix,
            allow: config.allow.clone(),
            deny: config.deny.clone(),
        }
    }
}

impl Entry {
    /// Deny wins. Where `nginx` means `library/nginx`, rules may be written either way.
    fn allows(&self, name: &RepositoryName) -> bool {
        let full = name.as_str();
        let short = full.strip_prefix(LIBRARY).filter(|short| self.library_prefix && !short.contains('/'));
        let hits = |pattern: &String| {
            glob::matches(pattern, full) || short.is_some_and(|short| glob::matches(pattern, short))
        };
        self.allow.iter().any(hits) && !self.deny.iter().any(hits)
    }
}

/// A host as it is looked up: lower-case, without the port that its scheme implies.
fn normalize(host: &str) -> Cow<'_, str> {
    let host = host.trim();
    let host = host.strip_suffix(":443").or_else(|| host.strip_suffix(":80")).unwrap_or(host);
    if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    }
}

fn is_host(component: &str) -> bool {
    component.contains(['.', ':']) || component.eq_ignore_ascii_case("localhost")
}

fn unknown(host: &str) -> RegistryError {
    let is_shown = host.len() <= MAX_SHOWN_LENGTH && !host.contains(char::is_control);
    RegistryError::UnknownRegistry(if is_shown { host.to_owned() } else { "of that name".to_owned() })
}
