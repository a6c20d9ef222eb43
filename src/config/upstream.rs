//! `[[upstream]]`: a registry that content comes from.

use std::path::PathBuf;
use std::time::Duration;

use super::{Secret, Timeouts};
use crate::oci::Platform;

/// One `[[upstream]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamConfig {
    /// The name that clients use: `docker.io`.
    pub name: String,
    /// Base URLs (scheme, host, port, optional path), tried in order.
    pub endpoints: Vec<http::Uri>,
    /// Other names of the same registry.
    pub aliases: Vec<String>,
    /// Whether names that carry no registry go here.
    pub default: bool,
    /// Whether `nginx` means `library/nginx`.
    pub library_prefix: bool,
    /// Whether no packet may leave for it, as the configuration has it: its own word, or else that of
    /// the site.
    pub offline: bool,
    /// Platforms that its images are to be complete for: its own word, or else that of the site. Empty: those
    /// that were pulled here.
    pub platforms: Vec<Platform>,
    /// What is fetched before clients ask for it.
    pub prefetch: Prefetch,
    /// How this node identifies itself: in several ways, used in turn; never none.
    pub credentials: Vec<Credentials>,
    /// PEM file with further certificate authorities.
    pub ca_file: Option<PathBuf>,
    /// Further hosts (`host` or `host:port`) that may receive credentials or redirects.
    pub trusted_hosts: Vec<String>,
    /// Globs over repository names that may be pulled.
    pub allow: Vec<String>,
    /// Globs over repository names that may not; wins over `allow`.
    pub deny: Vec<String>,
    /// The clocks of tags.
    pub freshness: Freshness,
    /// Time-outs towards it.
    pub timeouts: Timeouts,
    /// The most requests at once to one endpoint.
    pub max_concurrent_requests: usize,
}

/// What is fetched before clients ask for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prefetch {
    /// Nothing.
    Off,
    /// The configuration and layers of a manifest that a client pulled and that was not here.
    Layers,
}

/// How a node identifies itself to an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// Not at all.
    Anonymous,
    /// By name and password from the configuration.
    Password {
        /// The user.
        username: String,
        /// The password or token.
        password: Secret,
    },
    /// By name and a password in a file, read anew when it changes.
    PasswordFile {
        /// The user.
        username: String,
        /// The file; a trailing line break does not count.
        path: PathBuf,
    },
    /// By what `docker-credential-<helper> get` prints.
    Helper {
        /// The part after `docker-credential-`.
        helper: String,
    },
}

/// The clocks of tags and of absence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freshness {
    /// A tag is served without asking for this long.
    pub fresh_for: Duration,
    /// Then served at once for this long while asking in the background.
    pub stale_while_revalidate: Duration,
    /// And still served for this long while upstream is down, throttled or broken.
    pub stale_if_error: Duration,
    /// Absence is remembered for this long.
    pub negative_for: Duration,
    /// What upstream has deleted is still served for this long; zero is not at all.
    pub keep_deleted: Duration,
    /// Whether what it has deleted, and was asked for here after that, is pinned, which keeps it for good.
    pub pin_deleted: bool,
}
