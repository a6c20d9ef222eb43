//! `[server]`: where to listen and for how long to be patient.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::Secret;

/// `[server]`
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Addresses of the registry API.
    pub listen: Vec<SocketAddr>,
    /// Address of metrics, health and the admin API.
    pub admin_listen: SocketAddr,
    /// What callers of the admin API have to show; without it, only this machine may call.
    pub admin_token: Option<Secret>,
    /// The URL that clients use, where it cannot be told from their requests.
    pub external_url: Option<http::Uri>,
    /// TLS for `listen`; clear text without.
    pub tls: Option<TlsConfig>,
    /// The most connections at once; further ones wait to be accepted.
    pub max_connections: usize,
    /// How long a client may take for its request head, and an idle connection is kept (90 s and
    /// more: clients keep theirs as long).
    pub header_timeout: Duration,
    /// How long a connection may be idle between requests.
    pub idle_timeout: Duration,
    /// How long a client may take no byte of an answer.
    pub write_timeout: Duration,
    /// How long running requests may go on after SIGTERM.
    pub drain_timeout: Duration,
}

/// `[server] tls`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// PEM file: the certificate and its chain.
    pub certificate: PathBuf,
    /// PEM file: the private key.
    pub private_key: PathBuf,
}
