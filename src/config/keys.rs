//! The table of every key: name, type, default, effect, and whether a reload applies it.
//!
//! It drives parsing, the naming of the nearest key, `config show` and reloading; a test holds
//! `config/tidegate.toml` to it.

use std::time::Duration;

use super::checks;
use super::scalar::Item;

/// A section of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Section {
    Server,
    ServerTls,
    Auth,
    Storage,
    ObjectStore,
    Metadata,
    Events,
    Logging,
    Site,
    Upstream,
    UpstreamCredentials,
    Warm,
}

impl Section {
    /// All of them, in the order of the file.
    pub(super) const ALL: [Self; 12] = [
        Self::Server,
        Self::ServerTls,
        Self::Auth,
        Self::Storage,
        Self::ObjectStore,
        Self::Metadata,
        Self::Events,
        Self::Logging,
        Self::Site,
        Self::Upstream,
        Self::UpstreamCredentials,
        Self::Warm,
    ];

    /// The path of its table.
    pub(super) const fn path(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::ServerTls => "server.tls",
            Self::Auth => "auth",
            Self::Storage => "storage",
            Self::ObjectStore => "storage.object_store",
            Self::Metadata => "metadata",
            Self::Events => "events",
            Self::Logging => "logging",
            Self::Site => "site",
            Self::Upstream => "upstream",
            Self::UpstreamCredentials => "upstream.credentials",
            Self::Warm => "warm",
        }
    }

    /// Whether it is a list of tables: `[[upstream]]`.
    pub(super) const fn is_list(self) -> bool {
        matches!(self, Self::Upstream | Self::UpstreamCredentials | Self::Warm)
    }

    /// Its keys.
    pub(super) fn keys(self) -> impl Iterator<Item = &'static Key> + Clone {
        KEYS.iter().filter(move |key| key.section == self)
    }

    /// The key of that name.
    pub(super) fn find_key(self, name: &str) -> Option<&'static Key> {
        self.keys().find(|key| key.name == name)
    }
}

/// When a changed value takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reload {
    /// On SIGHUP.
    Live,
    /// When the process starts anew.
    Restart,
}

/// A key of the configuration.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) section: Section,
    pub(super) name: &'static str,
    pub(super) item: Item,
    pub(super) is_list: bool,
    /// The default as an environment variable would say it.
    pub(super) default: Option<&'static str>,
    pub(super) reload: Reload,
    /// What it does, in a few words.
    pub(super) effect: &'static str,
}

impl Key {
    /// `storage.max_size`; for upstreams `upstream.name`, whichever it is.
    pub(super) fn path(&self) -> String {
        format!("{}.{}", self.section.path(), self.name)
    }

    /// The environment variable, without the choice of an upstream.
    pub(super) fn variable(&self) -> String {
        let section = self.section.path().to_ascii_uppercase().replace('.', "__");
        format!("TIDEGATE_{section}__{}", self.name.to_ascii_uppercase())
    }
}

const fn one(section: Section, name: &'static str, item: Item, effect: &'static str) -> Key {
    Key { section, name, item, is_list: false, default: None, reload: Reload::Live, effect }
}

const fn list(section: Section, name: &'static str, item: Item, effect: &'static str) -> Key {
    Key { section, name, item, is_list: true, default: None, reload: Reload::Live, effect }
}

impl Key {
    const fn or(mut self, default: &'static str) -> Self {
        self.default = Some(default);
        self
    }

    const fn at_start(mut self) -> Self {
        self.reload = Reload::Restart;
        self
    }
}

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);
const KIB: u64 = 1 << 10;
const USE_IN_PROCESS: &str = "remove it: events stay in the process";

use Item::{Address, Choice, Count, Flag, Path, Secret, Size, Text, Unsupported, Url};
use Section::{
    Auth, Events, Logging, Metadata, ObjectStore, Server, ServerTls, Site, Storage, Upstream,
    UpstreamCredentials, Warm,
};

/// Every key, in the order of the file.
pub(super) static KEYS: &[Key] = &[
    list(Server, "listen", Address, "addresses of the registry API").or("127.0.0.1:5000").at_start(),
    one(Server, "admin_listen", Address, "address of metrics, health and the admin API")
        .or("127.0.0.1:5001")
        .at_start(),
    one(Server, "admin_token", Secret, "what callers of the admin API have to show"),
    one(Server, "admin_token_file", Path, "file that holds the token, read anew on SIGHUP"),
    one(Server, "external_url", Url, "the URL that clients use, where a proxy in front hides it").at_start(),
    one(Server, "max_connections", Count(1), "the most connections at once").or("4096").at_start(),
    one(Server, "header_timeout", Item::Duration(SECOND), "how long a client may take for a request's head")
        .or("30s")
        .at_start(),
    one(Server, "idle_timeout", Item::Duration(SECOND), "how long an idle connection is kept")
        .or("2m")
        .at_start(),
    one(Server, "write_timeout", Item::Duration(SECOND), "how long a client may take no byte of an answer")
        .or("5m")
        .at_start(),
    one(
        Server,
        "drain_timeout",
        Item::Duration(Duration::ZERO),
        "how long running requests may go on after SIGTERM",
    )
    .or("1m")
    .at_start(),
    one(ServerTls, "certificate", Path, "PEM file: the certificate and its chain"),
    one(ServerTls, "private_key", Path, "PEM file: the private key"),
    one(Auth, "administrator_password", Secret, "password of the first account, admin, when it is created")
        .at_start(),
    one(Auth, "administrator_password_file", Path, "file that holds that password").at_start(),
    one(
        Auth,
        "token_lifetime",
        Item::Duration(MINUTE),
        "how long a token for clients is good for, at most 1h",
    )
    .or("5m")
    .at_start(),
    one(Storage, "path", Path, "directory of cached blobs and embedded metadata").or("data").at_start(),
    one(Storage, "max_size", Size(KIB * KIB), "byte budget of cached blobs").or("50GiB"),
    one(Storage, "min_free", Text(checks::min_free), "what stays free on the disk, whoever fills it")
        .or("2%"),
    one(Storage, "memory", Size(KIB * KIB), "byte budget of manifests and resolutions in memory")
        .or("64MiB")
        .at_start(),
    one(
        Storage,
        "scrub_every",
        Item::Duration(Duration::ZERO),
        "how long after everything was compared with its digest it is again",
    )
    .or("7d"),
    one(Storage, "scrub_rate", Size(KIB), "the most bytes a second that are read for that").or("16MiB"),
    one(
        Storage,
        "collection_grace",
        Item::Duration(MINUTE),
        "how long what nobody needs is kept before the collection takes it",
    )
    .or("1d")
    .at_start(),
    one(ObjectStore, "url", Text(checks::object_store), "where hosted blobs are kept").at_start(),
    one(ObjectStore, "endpoint", Url, "where the store's API is, where the URL does not say").at_start(),
    one(ObjectStore, "region", Text(checks::not_empty), "region of the bucket (S3)").at_start(),
    one(ObjectStore, "access_key_id", Text(checks::not_empty), "name of the access key (S3)").at_start(),
    one(ObjectStore, "secret_access_key", Secret, "secret of the access key (S3)").at_start(),
    one(ObjectStore, "secret_access_key_file", Path, "file that holds that secret").at_start(),
    one(ObjectStore, "service_account_file", Path, "JSON file of the service account (Google)").at_start(),
    one(ObjectStore, "account_name", Text(checks::not_empty), "name of the storage account (Azure)")
        .at_start(),
    one(ObjectStore, "account_key", Secret, "key of the storage account (Azure)").at_start(),
    one(ObjectStore, "account_key_file", Path, "file that holds that key").at_start(),
    list(ObjectStore, "options", Secret, "further options, NAME=VALUE").or("").at_start(),
    one(ObjectStore, "ca_file", Path, "PEM file with further certificate authorities").at_start(),
    one(ObjectStore, "confirm", Choice(&["size", "content"]), "what is compared after a blob was stored")
        .or("size")
        .at_start(),
    one(ObjectStore, "redirect", Flag, "whether clients are sent to the store for blobs")
        .or("false")
        .at_start(),
    one(Metadata, "url", Secret, "PostgreSQL database of the catalogue, shared by all nodes").at_start(),
    one(Metadata, "url_file", Path, "file that holds that URL").at_start(),
    one(Metadata, "max_connections", Count(2), "the most connections of this node to it").or("16").at_start(),
    one(Events, "url", Unsupported(USE_IN_PROCESS), "shared message bus"),
    one(Logging, "format", Choice(&["text", "json"]), "text for people or json for machines")
        .or("text")
        .at_start(),
    one(Logging, "level", Text(checks::log_level), "log level, or levels by module").or("info"),
    one(Site, "name", Text(checks::site_name), "the name of this site").or("default").at_start(),
    one(Site, "offline", Flag, "whether no packet may leave for upstreams that do not say otherwise")
        .or("false"),
    list(Site, "platforms", Text(checks::platform), "platforms that images are to be complete for").or(""),
    list(
        Site,
        "bundle_keys",
        Text(checks::bundle_key),
        "public keys of which one has to sign what is imported",
    )
    .or(""),
    one(Upstream, "name", Text(checks::upstream_name), "the registry's name in image names"),
    list(Upstream, "endpoints", Url, "base URLs, tried in order"),
    list(Upstream, "aliases", Text(checks::upstream_name), "other names of the same registry").or(""),
    one(Upstream, "default", Flag, "whether names that carry no registry go here").or("false"),
    one(Upstream, "library_prefix", Flag, "whether nginx means library/nginx").or("false"),
    one(Upstream, "offline", Flag, "whether no packet may leave for it; else [site] says"),
    list(Upstream, "platforms", Text(checks::platform), "platforms that its images are to be complete for"),
    one(Upstream, "prefetch", Choice(&["off", "layers"]), "what is fetched before clients ask for it")
        .or("off"),
    one(Upstream, "username", Text(checks::not_empty), "user name towards the registry"),
    one(Upstream, "password", Secret, "password or token of that user"),
    one(Upstream, "password_file", Path, "file that holds the password, read anew when it changes"),
    one(
        Upstream,
        "credential_helper",
        Text(checks::credential_helper),
        "docker-credential-… program that knows user and password",
    ),
    one(Upstream, "ca_file", Path, "PEM file with further certificate authorities"),
    list(
        Upstream,
        "trusted_hosts",
        Text(checks::host),
        "further hosts that may receive credentials or redirects",
    )
    .or(""),
    list(Upstream, "allow", Text(checks::repository_glob), "globs over repository names that may be pulled")
        .or("*"),
    list(
        Upstream,
        "deny",
        Text(checks::repository_glob),
        "globs over repository names that may not; wins over allow",
    )
    .or(""),
    one(
        Upstream,
        "fresh_for",
        Item::Duration(Duration::ZERO),
        "how long a tag is served without asking upstream",
    )
    .or("1m"),
    one(
        Upstream,
        "stale_while_revalidate",
        Item::Duration(Duration::ZERO),
        "how long it is then served while asking in the background",
    )
    .or("1m"),
    one(
        Upstream,
        "stale_if_error",
        Item::Duration(Duration::ZERO),
        "how long it is still served while upstream is down",
    )
    .or("30d"),
    one(Upstream, "negative_for", Item::Duration(Duration::ZERO), "how long \"not found\" is remembered")
        .or("10s"),
    one(
        Upstream,
        "keep_deleted",
        Item::Duration(Duration::ZERO),
        "how long a tag that upstream has deleted is still served",
    )
    .or("30d"),
    one(
        Upstream,
        "pin_deleted",
        Flag,
        "whether an image that upstream deleted and that is in use here is pinned",
    )
    .or("false"),
    one(
        Upstream,
        "connect_timeout",
        Item::Duration(Duration::from_millis(1)),
        "the longest wait for a connection, TLS included",
    )
    .or("5s"),
    one(
        Upstream,
        "first_byte_timeout",
        Item::Duration(Duration::from_millis(1)),
        "the longest wait for the head of an answer",
    )
    .or("20s"),
    one(
        Upstream,
        "silence_timeout",
        Item::Duration(Duration::from_millis(1)),
        "the longest wait between two parts of a body",
    )
    .or("30s"),
    one(
        Upstream,
        "miss_timeout",
        Item::Duration(Duration::from_millis(1)),
        "the longest a client waits for the beginning of what is not cached",
    )
    .or("4s"),
    one(Upstream, "max_concurrent_requests", Count(1), "the most requests at once to one endpoint").or("64"),
    one(UpstreamCredentials, "username", Text(checks::not_empty), "user name, one of several used in turn"),
    one(UpstreamCredentials, "password", Secret, "password or token of that user"),
    one(
        UpstreamCredentials,
        "password_file",
        Path,
        "file that holds the password, read anew when it changes",
    ),
    list(Warm, "images", Text(checks::image_pattern), "images, or globs over their tags, to have here"),
    list(Warm, "platforms", Text(checks::platform), "platforms; else [[upstream]] or [site] says").or(""),
    one(Warm, "referrers", Flag, "whether signatures and other referrers are fetched, too").or("true"),
    one(Warm, "every", Item::Duration(Duration::from_mins(1)), "how long after the last time"),
    one(Warm, "daily", Text(checks::day_time), "at which time of the day, instead of every"),
    one(Warm, "window", Text(checks::day_window), "the part of the day in which it may be fetched"),
    one(Warm, "bandwidth", Size(KIB), "the most bytes a second"),
    one(Warm, "concurrency", Count(1), "the most blobs at once").or("4"),
];

/// The candidate that is most like `word`, where one is like enough to be meant.
pub(super) fn find_nearest<T: AsRef<str>>(word: &str, candidates: impl IntoIterator<Item = T>) -> Option<T> {
    let word = word.to_ascii_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&word, &candidate.as_ref().to_ascii_lowercase()), candidate))
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_passes_its_own_check() {
        for key in KEYS {
            let Some(default) = key.default else { continue };
            let parts = if key.is_list {
                default.split(',').filter(|part| !part.is_empty()).collect()
            } else {
                vec![default]
            };
            for part in parts {
                assert!(key.item.parse(part).is_ok(), "{}", key.path());
            }
        }
    }

    #[test]
    fn no_key_stands_twice() {
        let mut paths: Vec<_> = KEYS.iter().map(Key::path).collect();
        paths.sort();
        paths.dedup();
        assert_eq!(paths.len(), KEYS.len());
    }

    #[test]
    fn the_nearest_name_is_found_and_a_stranger_is_not() {
        let names = || Storage.keys().map(|key| key.name);
        assert_eq!(find_nearest("max_sise", names()), Some("max_size"));
        assert_eq!(find_nearest("maxsize", names()), Some("max_size"));
        assert_eq!(find_nearest("zzz", names()), None);
    }
}
