//! Upstream registries: how a node asks them, and what it lets them do.
//!
//! One [`Upstream`] a configured registry. Every error says whose fault it is and keeps *absent*,
//! *forbidden*, *throttled*, *broken* and *unreachable* apart. What comes from upstream is not
//! verified here, and nothing is kept but tokens, addresses and connections.

mod accounts;
mod allowance;
mod answer;
mod attempt;
mod body;
mod budget;
pub mod challenge;
mod client;
mod connect;
mod credentials;
mod dns;
mod endpoints;
mod error;
mod exchange;
mod guard;
mod hold;
mod link;
mod logins;
mod metrics;
mod origin;
mod priority;
mod redirect;
mod slots;
#[cfg(test)]
mod tests;
mod tls;
mod token;
mod transport;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;

pub use body::TransferBody;
pub use endpoints::{EndpointState, EndpointStatus};
pub use error::{SetupError, UpstreamError};
pub use link::Link;
pub use metrics::UpstreamMetrics;
pub use priority::{Priority, Urgency};
pub use tls::{build_tls, load_native_roots};

use crate::config::{Credentials, UpstreamConfig};
use crate::oci::{Digest, MediaType, NextPage};
use crate::runtime::{Clock, Tasks};
use accounts::{Account, Accounts};
use connect::Connector;
use credentials::CredentialSource;
use dns::Dns;
use endpoints::{Endpoint, Limits};
use exchange::Exchange;
use guard::Guard;
use link::Switch;
use token::Authorizer;
use transport::Transport;

/// What the pseudonym in every outgoing `Via` header begins with; the node's id follows.
const VIA_PREFIX: &str = "1.1 tidegate-";

/// One upstream registry: its endpoints, tokens, health and limits.
///
/// All methods may be dropped at any await point; a shared token fetch goes on for those who wait.
pub struct Upstream {
    config: Arc<UpstreamConfig>,
    exchange: Exchange,
    tasks: Tasks,
}

/// What all upstreams of a node share.
pub struct UpstreamServices {
    dns: Arc<Dns>,
    roots: rustls::RootCertStore,
    metrics: UpstreamMetrics,
    tasks: Tasks,
    clock: Clock,
    via: HeaderValue,
}

impl UpstreamServices {
    /// Reads the machine's resolver configuration and certificate authorities, once. `node_id` goes
    /// into the `Via` header of every request.
    ///
    /// Blocks on small files.
    pub fn new(
        metrics: UpstreamMetrics,
        tasks: Tasks,
        clock: Clock,
        node_id: &str,
    ) -> Result<Self, SetupError> {
        let via = HeaderValue::from_str(&via_value(node_id))
            .map_err(|_invalid| SetupError::NodeId(node_id.to_owned()))?;
        let dns = Arc::new(Dns::from_system()?);
        Ok(Self { dns, roots: load_native_roots(), metrics, tasks, clock, via })
    }
}

/// The value of `Via` (RFC 9110, section 7.6.3) by which a node knows its own requests.
pub fn via_value(node_id: &str) -> String {
    format!("{VIA_PREFIX}{node_id}")
}

/// Whether a request with these `Via` lines was sent by the node itself: an upstream whose endpoint
/// leads back here. Such a request must be refused, or it would be asked for ever.
pub fn is_own_request<'a>(via_lines: impl IntoIterator<Item = &'a str>, node_id: &str) -> bool {
    let own = via_value(node_id);
    // HTTP/2 proxies on the way may rewrite the protocol and add comments, never the pseudonym.
    let pseudonym = |hop: &str| hop.split_ascii_whitespace().nth(1).map(str::to_owned);
    via_lines.into_iter().flat_map(|line| line.split(',')).any(|hop| pseudonym(hop) == pseudonym(&own))
}

/// What health shows of an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamStatus {
    /// The upstream's name.
    pub name: String,
    /// Whether it is asked at all.
    pub link: Link,
    /// Its endpoints as configured, in order.
    pub endpoints: Vec<EndpointStatus>,
}

impl UpstreamStatus {
    /// Whether at least one endpoint is used.
    pub fn is_usable(&self) -> bool {
        self.endpoints.iter().any(|endpoint| endpoint.state != EndpointState::Down)
    }

    /// How long it is left alone because it asked for that, at all endpoints and with all credentials.
    pub fn held_for(&self) -> Option<Duration> {
        let rests: Option<Vec<_>> = self.endpoints.iter().map(|endpoint| endpoint.held_for).collect();
        rests?.into_iter().min()
    }
}

/// What a HEAD for a manifest tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestHead {
    /// `Docker-Content-Digest`, where upstream sends it (ECR and others may not).
    pub digest: Option<Digest>,
    /// `Content-Type`.
    pub media_type: Option<MediaType>,
    /// `Content-Length`.
    pub size_bytes: Option<u64>,
}

/// A manifest as upstream sent it; nothing is verified yet.
#[derive(Clone, Debug)]
pub struct FetchedManifest {
    /// What the headers say.
    pub head: ManifestHead,
    /// The body, byte for byte.
    pub body: Bytes,
}

/// The beginning of a blob transfer.
pub struct BlobTransfer {
    /// The position of the first byte that [`Self::body`] gives: that asked for, or 0 where
    /// upstream ignores ranges.
    pub offset: u64,
    /// The size of the whole blob in bytes, where upstream says.
    pub total_bytes: Option<u64>,
    /// The bytes.
    pub body: TransferBody,
}

/// A page of `tags/list`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagsPage {
    /// Valid tags in upstream's order; `null` and malformed entries are left out.
    pub tags: Vec<String>,
    /// Where the next page starts, if there is one.
    pub next: Option<NextPage>,
}

/// A page of `referrers/`.
#[derive(Clone, Debug)]
pub struct ReferrersPage {
    /// The index JSON as upstream sent it.
    pub body: Bytes,
    /// Whether upstream filtered by artifact type (`OCI-Filters-Applied`).
    pub filtered: bool,
    /// Where the next page starts, if there is one.
    pub next: Option<NextPage>,
}

impl Upstream {
    /// Sets an upstream up; nothing is sent yet. Reads `ca_file`.
    pub fn new(config: UpstreamConfig, shared: &UpstreamServices) -> Result<Self, SetupError> {
        let name: Arc<str> = config.name.as_str().into();
        let endpoints = build_endpoints(&name, &config, shared)?;
        let origins = endpoints.iter().map(|endpoint| endpoint.origin().clone());
        let guard = Arc::new(Guard::new(origins, &config.trusted_hosts));
        let connector = Connector {
            dns: Arc::clone(&shared.dns),
            guard: Arc::clone(&guard),
            tls: Arc::new(build_tls(
                &shared.roots,
                config.ca_file.as_deref(),
                &format!("upstream {}", config.name),
            )?),
            timeout: config.timeouts.connect,
        };
        let (via, metrics) = (shared.via.clone(), shared.metrics.clone());
        let link = if config.offline { Link::Offline } else { Link::Online };
        metrics.record_link(&name, link);
        let transport = Arc::new(Transport::new(
            config.name.clone(),
            connector,
            Switch::new(link),
            config.timeouts,
            via,
            metrics.clone(),
        ));
        let server_url = helper_url(&config, &endpoints);
        let account = |credentials: &Credentials| {
            let source = CredentialSource::new(credentials, server_url.clone(), shared.tasks.clone());
            let authorizer = Authorizer::new(
                config.name.clone(),
                Arc::clone(&transport),
                Arc::clone(&guard),
                source,
                (shared.clock.clone(), shared.tasks.clone(), metrics.clone()),
            );
            Account::new(credentials, authorizer)
        };
        let clock = shared.clock.clone();
        let accounts = config.credentials.iter().map(account).collect();
        let accounts = Accounts::new(config.name.clone(), accounts, clock.clone());
        let exchange = Exchange { upstream: name, endpoints, guard, transport, accounts, metrics, clock };
        Ok(Self { config: Arc::new(config), exchange, tasks: shared.tasks.clone() })
    }

    /// The configuration in force.
    pub fn config(&self) -> &UpstreamConfig {
        &self.config
    }

    /// How the endpoints do, as seen by the requests so far; asks nobody.
    pub fn status(&self) -> UpstreamStatus {
        let endpoints = self.exchange.endpoints.iter().map(|endpoint| endpoint.status()).collect();
        UpstreamStatus { name: self.config.name.clone(), link: self.link(), endpoints }
    }

    /// Whether it is asked at all.
    pub fn link(&self) -> Link {
        self.exchange.transport.switch().link()
    }

    /// Takes it off the network, or back. Off the network, every question fails at once as
    /// [`UpstreamError::Offline`], transfers that run are cut, and connections are closed.
    pub fn set_link(&self, link: Link) {
        if self.exchange.transport.set_link(link) {
            self.exchange.metrics.record_link(&self.config.name, link);
            tracing::info!(upstream.name = %self.config.name, link = link.as_str(), "upstream was switched");
        }
    }

    /// Fails at once where this node is offline for it.
    pub fn require_online(&self) -> Result<(), UpstreamError> {
        match self.link() {
            Link::Online => Ok(()),
            Link::Offline => Err(UpstreamError::Offline { upstream: self.config.name.clone() }),
        }
    }
}

fn build_endpoints(
    name: &Arc<str>,
    config: &UpstreamConfig,
    shared: &UpstreamServices,
) -> Result<Vec<Arc<Endpoint>>, SetupError> {
    let unusable = |endpoint: String| SetupError::Endpoint { upstream: config.name.clone(), endpoint };
    if config.endpoints.is_empty() {
        return Err(unusable(String::new()));
    }
    let build = |url: &http::Uri| {
        let limits = Limits {
            concurrent_requests: config.max_concurrent_requests,
            credentials: config.credentials.len(),
        };
        let (clock, metrics) = (shared.clock.clone(), shared.metrics.clone());
        let endpoint = Endpoint::new(Arc::clone(name), url, limits, clock, metrics);
        // Without its authority, which may hold a password.
        endpoint.map(Arc::new).ok_or_else(|| unusable(url.host().unwrap_or_default().to_owned()))
    };
    config.endpoints.iter().map(build).collect()
}

/// What a credential helper is asked for. Docker Hub's entry has its old index address everywhere.
fn helper_url(config: &UpstreamConfig, endpoints: &[Arc<Endpoint>]) -> String {
    if config.name == "docker.io" {
        return "https://index.docker.io/v1/".to_owned();
    }
    let origin = endpoints.first().map(|endpoint| endpoint.origin().to_string()).unwrap_or_default();
    origin.split_once("://").map_or(origin.clone(), |(_, authority)| authority.to_owned())
}
