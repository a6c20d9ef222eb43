//! Runs the server: stores, services and listeners from a configuration.
//!
//! The only place that names concrete back ends. Everything is bound and opened before the first
//! connection is accepted, and taken down in the opposite order.

mod hosting;
mod workers;

use std::num::NonZero;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use self::hosting::Opened;
use crate::blobs::{Blobs, LocalBlobs};
use crate::bundle::PublicKey;
use crate::config::{Config, Loaded, Sources, UpstreamConfig};
use crate::events::{Events, LocalEvents};
use crate::metadata::NodeIndex;
use crate::metadata::catalogue::SqlCatalogue;
use crate::metadata::sqlite::{SqliteIndex, Start};
use crate::registry::hosted::Hosting;
use crate::registry::{
    CacheMetrics, CacheParts, Evictor, Names, Registry, RegistryMetrics, Services, UseLog,
};
use crate::runtime::{Clock, Cores, Tasks};
use crate::server::{
    AdminAccess, Advice, CertificateReload, Condition, ReadinessCheck, Server, ServerMetrics, ServerServices,
};
use crate::telemetry::Metrics;
use crate::telemetry::logging::{self, LogHandle};
use crate::upstream::{Link, Upstream, UpstreamMetrics, UpstreamServices, UpstreamStatus};

/// How long background work may take to end once no client is left.
const BACKGROUND_PATIENCE: Duration = Duration::from_secs(10);

/// How long the index may take to fold its log into its file.
const INDEX_PATIENCE: Duration = Duration::from_secs(10);

/// The stack of services, and what a reload and the end need of it.
struct App {
    registry: Registry,
    server: Server,
    certificates: CertificateReload,
    access: AdminAccess,
    upstreams: UpstreamServices,
    evictor: Arc<Evictor>,
    uses: Arc<UseLog>,
    index: Arc<SqliteIndex>,
    catalogue: Arc<SqlCatalogue>,
    tasks: Tasks,
    /// Last: what lives on them is used until the end.
    cores: Cores,
}

/// Serves until it is told to stop; `sources` are what a reload reads again.
pub async fn serve(loaded: Loaded, sources: Sources) -> anyhow::Result<()> {
    let log = logging::init(&loaded.config.logging);
    raise_file_limit();
    // Before anything is announced: a signal that comes right after the announcement must be heard.
    let mut hang_ups = signal(SignalKind::hangup()).context("listen for SIGHUP")?;
    let stop = stop_signal()?;
    let app = App::start(&loaded.config).await?;
    app.announce();
    app.run(loaded, &sources, &log, &mut hang_ups, stop).await
}

impl App {
    async fn start(config: &Config) -> anyhow::Result<Self> {
        let (tasks, clock) = (Tasks::new(), Clock::system());
        let metrics = Metrics::new(clock.now()).context("make the metrics")?;
        let path = &config.storage.path;
        let blobs: Arc<dyn Blobs> =
            Arc::new(LocalBlobs::open(path, &tasks).context("open the storage directory")?);
        let index_path = path.join(SqliteIndex::FILE_NAME);
        let index = SqliteIndex::open(&index_path, &clock).await;
        let index = Arc::new(index.with_context(|| format!("open the index {}", index_path.display()))?);
        let events: Arc<dyn Events> = Arc::new(LocalEvents::default());
        let parts = CacheParts {
            index: Arc::clone(&index) as Arc<dyn NodeIndex>,
            blobs: Arc::clone(&blobs),
            events: Arc::clone(&events),
            clock: clock.clone(),
        };
        let cache_metrics = CacheMetrics::new(metrics.registry()).context("make the cache's metrics")?;
        let evictor = Arc::new(Evictor::new(parts.clone(), cache_metrics, config.storage.max_size_bytes));
        evictor.set_min_free(config.storage.min_free);
        let uses = Arc::new(UseLog::new(Arc::clone(&parts.index), clock.clone()));
        let node_id = format!("{}-{:016x}", config.site_name, fastrand::u64(..));
        let upstream_metrics =
            UpstreamMetrics::new(metrics.registry()).context("make the upstreams' metrics")?;
        let upstreams = UpstreamServices::new(upstream_metrics, tasks.clone(), clock.clone(), &node_id)
            .context("prepare connections to upstreams")?;
        let registry = Registry::new(Services {
            index: Arc::clone(&parts.index),
            blobs,
            events,
            clock: clock.clone(),
            tasks: tasks.clone(),
            evictor: Arc::clone(&evictor),
            uses: Arc::clone(&uses),
            metrics: RegistryMetrics::new(metrics.registry()).context("make the registry's metrics")?,
            names: build_names(&config.upstreams, &upstreams)?,
            memory_bytes: config.storage.memory_bytes,
        });
        workers::spawn_upkeep(&tasks, &registry, &parts, &evictor, &uses);
        registry.replace_warm_schedule(&config.warm);
        registry.replace_bundle_keys(bundle_keys(config)?);
        // Before anybody can ask for a job of before.
        registry.resume_warm().await;
        workers::spawn_warm_worker(&tasks, &registry, clock.clone());
        registry.set_scrub(&config.storage.scrub);
        if index.start() == Start::Anew {
            registry.note_index_replaced();
        }
        workers::spawn_background(&tasks, &registry, &evictor, parts);
        let Opened { hosting, authenticator, catalogue } =
            hosting::open(config, &tasks, &clock, &metrics, &registry).await?;
        let cores = Cores::start(thread::available_parallelism().map_or(1, NonZero::get));
        let cores = cores.context("start the threads of connections")?;
        let services = ServerServices {
            registry: Arc::new(registry.clone()),
            advice: advice(&registry, &hosting),
            hosting,
            authenticator,
            metrics: ServerMetrics::new(metrics.registry()).context("make the server's metrics")?,
            metrics_registry: metrics.registry().clone(),
            node_id,
            tasks: tasks.clone(),
            cores: cores.clone(),
            readiness: readiness(&registry, &index, config),
        };
        let server = Server::bind(&config.server, services).context("listen")?;
        // What reads much at once does not compete with the start.
        workers::spawn_integrity_workers(&tasks, &registry, &clock);
        let (certificates, access) = (server.certificate_reload(), server.admin_access());
        Ok(Self {
            registry,
            server,
            certificates,
            access,
            upstreams,
            evictor,
            uses,
            index,
            catalogue,
            tasks,
            cores,
        })
    }

    /// Logs the one line that says where the server listens.
    fn announce(&self) {
        let addresses: Vec<_> = self.server.local_addrs().iter().map(ToString::to_string).collect();
        let admin = self.server.admin_addr().map_or_else(String::new, |address| address.to_string());
        tracing::info!(server.addresses = %addresses.join(","), admin.address = %admin, "ready");
    }

    async fn run(
        self,
        mut loaded: Loaded,
        sources: &Sources,
        log: &LogHandle,
        hang_ups: &mut Signal,
        stop: impl Future<Output = ()>,
    ) -> anyhow::Result<()> {
        let Self {
            registry,
            server,
            certificates,
            access,
            upstreams,
            evictor,
            uses,
            index,
            catalogue,
            tasks,
            cores,
        } = self;
        let shutdown = CancellationToken::new();
        let mut served = tasks.spawn(server.serve(shutdown.clone()));
        tokio::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                // Only a fault ends it before it was told to.
                ended = &mut served => return Err(server_fault(ended)),
                Some(()) = hang_ups.recv() => {
                    let reload = Reload { registry: &registry, certificates: &certificates, access: &access, upstreams: &upstreams, evictor: &evictor, log };
                    reload.run(&mut loaded, sources);
                }
            }
        }
        tracing::info!("stopping: running requests are finished, no new ones are taken");
        shutdown.cancel();
        let drained = served.await.context("the server's task panicked")?;
        if !drained {
            tracing::warn!("some requests were cut: they did not end within server.drain_timeout");
        }
        if let Err(error) = uses.flush().await {
            tracing::warn!(error = %error, "the last uses are not recorded");
        }
        if !tasks.shut_down(BACKGROUND_PATIENCE).await {
            tracing::warn!("background work did not end in time");
        }
        if tokio::time::timeout(INDEX_PATIENCE, index.close()).await.is_err() {
            tracing::warn!("the index was not closed in time; its log is played at the next start");
        }
        if tokio::time::timeout(INDEX_PATIENCE, catalogue.close()).await.is_err() {
            tracing::warn!("the catalogue was not closed in time; its log is played at the next start");
        }
        drop(cores);
        tracing::info!("stopped");
        Ok(())
    }
}

fn server_fault(ended: Result<bool, tokio::task::JoinError>) -> anyhow::Error {
    match ended {
        Ok(_drained) => anyhow::anyhow!("the server ended although nobody told it to"),
        Err(panicked) => anyhow::Error::new(panicked).context("the server's task panicked"),
    }
}

/// What a reload of the configuration changes.
struct Reload<'a> {
    registry: &'a Registry,
    certificates: &'a CertificateReload,
    access: &'a AdminAccess,
    upstreams: &'a UpstreamServices,
    evictor: &'a Evictor,
    log: &'a LogHandle,
}

impl Reload<'_> {
    /// Reads the configuration again. A bad one changes nothing and is logged, fault by fault.
    fn run(&self, loaded: &mut Loaded, sources: &Sources) {
        let new = match Config::load(sources) {
            Ok(new) => new,
            Err(faults) => {
                for fault in &faults {
                    tracing::error!(fault = %fault, "configuration is not reloaded");
                }
                return;
            }
        };
        // Before the difference is looked at: certificates, keys and secrets change without the file.
        if let Err(error) = self.apply(&new.config) {
            tracing::error!(error = format!("{error:#}"), "configuration is not reloaded");
            return;
        }
        let difference = loaded.settings.difference(&new.settings);
        for key in &difference.restart {
            tracing::warn!(key, "this setting takes effect at the next start");
        }
        tracing::info!(changed = difference.live.join(","), "configuration was reloaded");
        *loaded = new;
    }

    fn apply(&self, config: &Config) -> anyhow::Result<()> {
        let names = build_names(&config.upstreams, self.upstreams)?;
        let bundle_keys = bundle_keys(config)?;
        if let Some(tls) = &config.server.tls {
            self.certificates.reload(tls).context("read the certificate")?;
        }
        self.log.set_level(&config.logging.level)?;
        self.access.set_token(config.server.admin_token.as_ref());
        self.registry.replace_names(names);
        self.registry.replace_warm_schedule(&config.warm);
        self.registry.set_scrub(&config.storage.scrub);
        self.registry.replace_bundle_keys(bundle_keys);
        self.evictor.set_budget(config.storage.max_size_bytes);
        self.evictor.set_min_free(config.storage.min_free);
        Ok(())
    }
}

fn bundle_keys(config: &Config) -> anyhow::Result<Vec<PublicKey>> {
    let parse = |text: &String| text.parse().with_context(|| format!("site.bundle_keys: \"{text}\""));
    config.bundle_keys.iter().map(parse).collect()
}

fn build_names(configs: &[UpstreamConfig], services: &UpstreamServices) -> anyhow::Result<Names> {
    let build = |config: &UpstreamConfig| {
        let upstream = Upstream::new(config.clone(), services);
        upstream.map(Arc::new).with_context(|| format!("prepare upstream {}", config.name))
    };
    let upstreams = configs.iter().map(build).collect::<anyhow::Result<Vec<_>>>()?;
    Ok(Names::new(upstreams))
}

/// What has to work for this node to be ready.
fn readiness(registry: &Registry, index: &Arc<SqliteIndex>, config: &Config) -> Vec<ReadinessCheck> {
    let index: Arc<dyn NodeIndex> = Arc::clone(index) as _;
    let registry = registry.clone();
    let path = config.storage.path.clone();
    vec![
        ReadinessCheck::new("index", move || {
            let (index, condition) = (Arc::clone(&index), registry.index_condition());
            async move {
                match condition {
                    Some(condition) => Err(condition),
                    None => index.content_bytes().await.map(drop).map_err(|error| error.to_string()),
                }
            }
        }),
        ReadinessCheck::new("storage", move || {
            let path = path.clone();
            async move {
                let metadata = tokio::fs::metadata(path.join("content")).await;
                metadata.map(drop).map_err(|error| format!("storage directory cannot be read: {error}"))
            }
        }),
    ]
}

/// What health tells of upstreams, of a disk that takes no content, and of the catalogue: a cache is ready without them.
fn advice(registry: &Registry, hosting: &Hosting) -> Advice {
    let (registry, hosting) = (registry.clone(), hosting.clone());
    Box::new(move || {
        let names = registry.names();
        let state = |upstream: &Arc<Upstream>| {
            let status = upstream.status();
            (format!("upstream {}", status.name), condition_of(status))
        };
        let disk = registry.disk_condition().map_or(Condition::Well, Condition::Degraded);
        let catalogue = hosting.catalogue_outage().map_or(Condition::Well, Condition::Degraded);
        let own = [("disk".to_owned(), disk), ("catalogue".to_owned(), catalogue)];
        own.into_iter().chain(names.upstreams().iter().map(state)).collect()
    })
}

fn condition_of(status: UpstreamStatus) -> Condition {
    if status.link == Link::Offline {
        return Condition::Offline(
            "this node is offline for it: only what is kept here is served".to_owned(),
        );
    }
    if let Some(pause) = status.held_for() {
        return Condition::Degraded(format!(
            "it throttles: it is left alone for {} s",
            pause.as_secs().max(1)
        ));
    }
    if status.is_usable() {
        return Condition::Well;
    }
    let errors = status.endpoints.into_iter().filter_map(|endpoint| endpoint.last_error);
    Condition::Degraded(errors.collect::<Vec<_>>().join("; "))
}

/// Lets the process have as many files open as it may: every connection is one, and the usual limit for
/// programs that ask for nothing is 1,024. What cannot be raised stays.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!(%error, limit = limit.current, "cannot raise the limit of open files");
    }
}

/// Waits for SIGTERM or SIGINT.
fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
