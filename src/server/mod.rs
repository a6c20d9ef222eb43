//! The HTTP edge: listeners, the OCI distribution API, health and metrics.
//!
//! The only module that knows requests and responses. It turns requests into calls of the registry's
//! use cases, and what these return, errors included, into answers.

mod admin;
mod body;
mod challenge;
mod conditional;
mod connection;
mod dispatch;
mod distribution;
mod exchange;
mod gate;
mod hosted;
mod listener;
mod metrics;
mod provenance;
mod ranges;
mod respond;
pub mod route;
#[cfg(test)]
mod tests;
mod tls;
mod token;
mod transmit;
mod transport;

use std::net::SocketAddr;
use std::sync::Arc;

use http::Uri;
use prometheus::IntGauge;
use tokio_util::sync::CancellationToken;

pub use admin::{AdminAccess, Advice, Condition, ReadinessCheck};
pub use listener::ListenError;
pub use metrics::ServerMetrics;
pub use tls::TlsError;

use self::admin::Admin;
use self::challenge::Transport;
use self::dispatch::{Dispatcher, Front};
use self::gate::Gate;
use self::listener::{Listener, ListenerSettings};
use self::tls::CertificateStore;
use crate::auth::Authenticator;
use crate::config::{ServerConfig, TlsConfig};
use crate::registry::Registry;
use crate::registry::hosted::Hosting;
use crate::runtime::{Cores, Tasks};

/// What the server needs of the process around it.
pub struct ServerServices {
    /// The use cases.
    pub registry: Arc<Registry>,
    /// Those of what is hosted here.
    pub hosting: Hosting,
    /// Finds out who asks for that.
    pub authenticator: Authenticator,
    /// What the server counts; made once, registered in `metrics_registry`.
    pub metrics: ServerMetrics,
    /// What `/metrics` shows.
    pub metrics_registry: prometheus::Registry,
    /// The name that this node puts into `Via` of its requests to upstreams: a request that comes
    /// back with it went round in a circle. Without spaces and commas.
    pub node_id: String,
    /// The tasks of the process.
    pub tasks: Tasks,
    /// Where connections run.
    pub cores: Cores,
    /// What has to work for `/health/ready` to say yes.
    pub readiness: Vec<ReadinessCheck>,
    /// What `/health/ready` tells beside that.
    pub advice: Advice,
}

/// The listeners, bound but not accepting yet.
pub struct Server {
    registry_listener: Listener,
    admin_listener: Listener,
    certificates: Option<Arc<CertificateStore>>,
    access: AdminAccess,
    settings: ListenerSettings,
    external_host: Option<String>,
    external_url: Option<Uri>,
    services: ServerServices,
}

/// Why a server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// An address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Replaces the certificate of a running server.
#[derive(Clone, Debug)]
pub struct CertificateReload(Option<Arc<CertificateStore>>);

impl CertificateReload {
    /// Reads the certificate anew, for connections from now on; does nothing where the server was
    /// bound without TLS. An error changes nothing.
    pub fn reload(&self, config: &TlsConfig) -> Result<(), TlsError> {
        self.0.as_ref().map_or(Ok(()), |store| store.reload(config))
    }
}

impl Server {
    /// Reads the certificate and binds all addresses; port 0 takes a free one. Needs a tokio runtime
    /// around it. Connections that arrive before [`Server::serve`] wait.
    pub fn bind(config: &ServerConfig, services: ServerServices) -> Result<Self, BindError> {
        let certificates = config.tls.as_ref().map(CertificateStore::load).transpose()?.map(Arc::new);
        let registry_listener = Listener::bind(&config.listen)?;
        let admin_listener = Listener::bind(&[config.admin_listen])?;
        let settings = ListenerSettings::new(
            config,
            certificates.clone(),
            &services.metrics,
            services.tasks.clone(),
            services.cores.clone(),
        );
        let external_host = config.external_url.as_ref().and_then(|url| url.authority());
        let external_host = external_host.map(ToString::to_string);
        let access = AdminAccess::default();
        access.set_token(config.admin_token.as_ref());
        Ok(Self {
            registry_listener,
            admin_listener,
            certificates,
            access,
            settings,
            external_host,
            external_url: config.external_url.clone(),
            services,
        })
    }

    /// The addresses of the registry API, in the order configured.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        self.registry_listener.local_addrs()
    }

    /// The address of health and metrics.
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin_listener.local_addrs().first().copied()
    }

    /// What replaces the certificate later.
    pub fn certificate_reload(&self) -> CertificateReload {
        CertificateReload(self.certificates.clone())
    }

    /// What changes the token of the administrator's API later.
    pub fn admin_access(&self) -> AdminAccess {
        self.access.clone()
    }

    /// Serves until `shutdown`, then finishes the requests that run, for `drain_timeout` at most.
    /// Returns whether all of them were finished.
    ///
    /// Health and metrics are answered until the end; a server that drains is not ready.
    pub async fn serve(self, shutdown: CancellationToken) -> bool {
        let Self { services, settings, access, .. } = self;
        let admin = Arc::new(Admin {
            metrics: services.metrics_registry,
            access,
            checks: services.readiness,
            advice: services.advice,
            shutdown: shutdown.clone(),
        });
        let (registry, hosting) = (Arc::clone(&services.registry), services.hosting.clone());
        let admin_settings = settings.for_admin();
        let end = CancellationToken::new();
        let admin_task = services.tasks.spawn(self.admin_listener.serve(
            admin_settings,
            move |request, client| {
                let (admin, registry, hosting) = (Arc::clone(&admin), Arc::clone(&registry), hosting.clone());
                async move { admin::answer(&admin, &registry, &hosting, request, client).await }
            },
            end.clone(),
        ));
        let dispatcher = Arc::new(Dispatcher {
            registry: services.registry,
            hosting: services.hosting,
            gate: Gate {
                authenticator: services.authenticator,
                external_url: self.external_url,
                transport: if self.certificates.is_some() { Transport::Tls } else { Transport::Clear },
            },
            front: Front { metrics: services.metrics, node_id: services.node_id },
            external_host: self.external_host,
        });
        let service = move |request, client| Arc::clone(&dispatcher).dispatch(request, client);
        let drained = self.registry_listener.serve(settings, service, shutdown).await;
        end.cancel();
        if admin_task.await.is_err() {
            tracing::error!("the task of the administrator's listener panicked");
        }
        drained
    }
}

impl ListenerSettings {
    /// The administrator's listener: clear text, its connections not counted, and not waited for.
    fn for_admin(&self) -> Self {
        Self {
            tls: None,
            cores: Cores::default(),
            open_connections: IntGauge::new("admin_connections", "not shown")
                .expect("the name and help of this gauge are well-formed"),
            drain_timeout: std::time::Duration::from_secs(1),
            ..self.clone()
        }
    }
}
