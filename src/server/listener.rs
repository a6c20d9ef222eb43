//! Accepts connections: on several addresses, up to a limit, until told to stop.
//!
//! Promises that running requests are finished before [`Listener::serve`] returns, or cut when the
//! drain time is over. Knows nothing of registries: the service is any function from request to
//! response.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use prometheus::{IntCounter, IntGauge};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::connection::{ConnectionSettings, serve_connection};
use super::metrics::ServerMetrics;
use super::tls::CertificateStore;
use super::transmit::Piece;
use super::transport::Patience;
use crate::config::ServerConfig;
use crate::runtime::{Backoff, Cores, Tasks};

/// Sockets that are bound and will accept.
#[derive(Debug)]
pub(super) struct Listener {
    sockets: Vec<TcpListener>,
    addresses: Vec<SocketAddr>,
}

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("listen on {address}")]
pub struct ListenError {
    /// The address as configured.
    pub address: SocketAddr,
    /// The system's error.
    #[source]
    pub source: io::Error,
}

/// How a listener treats its connections.
#[derive(Clone, Debug)]
pub(super) struct ListenerSettings {
    pub(super) patience: Patience,
    pub(super) max_connections: usize,
    pub(super) drain_timeout: Duration,
    /// Clear text without.
    pub(super) tls: Option<Arc<CertificateStore>>,
    pub(super) open_connections: IntGauge,
    /// Bytes that left by sendfile(2).
    pub(super) sendfile_bytes: IntCounter,
    pub(super) tasks: Tasks,
    /// Where connections run.
    pub(super) cores: Cores,
}

impl ListenerSettings {
    pub(super) fn new(
        config: &ServerConfig,
        tls: Option<Arc<CertificateStore>>,
        metrics: &ServerMetrics,
        tasks: Tasks,
        cores: Cores,
    ) -> Self {
        Self {
            patience: Patience {
                head: config.header_timeout,
                idle: config.idle_timeout,
                write: config.write_timeout,
            },
            max_connections: config.max_connections,
            drain_timeout: config.drain_timeout,
            tls,
            open_connections: metrics.open_connections(),
            sendfile_bytes: metrics.sendfile_bytes(),
            tasks,
            cores,
        }
    }
}

impl Listener {
    /// Binds all addresses; port 0 takes a free one. Needs a runtime around it.
    pub(super) fn bind(addresses: &[SocketAddr]) -> Result<Self, ListenError> {
        let mut listener = Self { sockets: Vec::new(), addresses: Vec::new() };
        for address in addresses {
            let bound = bind_socket(*address, addresses).and_then(|socket| {
                let socket = TcpListener::from_std(socket)?;
                Ok((socket.local_addr()?, socket))
            });
            let (local, socket) = bound.map_err(|source| ListenError { address: *address, source })?;
            listener.addresses.push(local);
            listener.sockets.push(socket);
        }
        Ok(listener)
    }

    /// The addresses in the order configured, with the ports that were taken.
    pub(super) fn local_addrs(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Accepts and serves until `shutdown`, then drains. Returns whether all requests were finished.
    pub(super) async fn serve<S, F, B>(
        self,
        settings: ListenerSettings,
        service: S,
        shutdown: CancellationToken,
    ) -> bool
    where
        S: Fn(Request<Incoming>, SocketAddr) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data = Piece> + Send + Unpin + 'static,
        B::Error: std::error::Error + Send + Sync,
    {
        let places = settings.max_connections.clamp(1, MAX_PLACES);
        let acceptor = Acceptor {
            places: Arc::new(Semaphore::new(places)),
            tls: settings.tls,
            connection: ConnectionSettings {
                patience: settings.patience,
                tasks: settings.tasks.clone(),
                drain: shutdown.clone(),
                sendfile_bytes: settings.sendfile_bytes,
            },
            cut: CancellationToken::new(),
            open_connections: settings.open_connections,
            cores: settings.cores,
            service,
        };
        let loops = self.sockets.into_iter().map(|socket| {
            let acceptor = acceptor.clone();
            settings.tasks.spawn(async move { acceptor.accept_all(socket).await })
        });
        join_all(loops.collect::<Vec<_>>()).await;
        // Whoever has all places is alone: no connection is left.
        let everyone = u32::try_from(places).unwrap_or(u32::MAX);
        let drained = timeout(settings.drain_timeout, acceptor.places.acquire_many(everyone)).await.is_ok();
        if !drained {
            acceptor.cut.cancel();
            let _ = timeout(CUT_PATIENCE, acceptor.places.acquire_many(everyone)).await;
        }
        drained
    }
}

/// Accepts connections of one socket, and starts a task for each.
#[derive(Clone)]
struct Acceptor<S> {
    places: Arc<Semaphore>,
    tls: Option<Arc<CertificateStore>>,
    connection: ConnectionSettings,
    /// Ends connections that did not drain in time.
    cut: CancellationToken,
    open_connections: IntGauge,
    cores: Cores,
    service: S,
}

impl<S, F, B> Acceptor<S>
where
    S: Fn(Request<Incoming>, SocketAddr) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Piece> + Send + Unpin + 'static,
    B::Error: std::error::Error + Send + Sync,
{
    async fn accept_all(&self, socket: TcpListener) {
        let drain = self.connection.drain.clone();
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
        let mut warned_at: Option<Instant> = None;
        loop {
            let accepted = tokio::select! {
                biased;
                () = drain.cancelled() => return,
                accepted = socket.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    backoff.reset();
                    // Taken after the connection, so that places are not held by sockets that wait.
                    let place = tokio::select! {
                        biased;
                        () = drain.cancelled() => return,
                        place = Arc::clone(&self.places).acquire_owned() => place,
                    };
                    let Ok(place) = place else { return };
                    self.spawn_connection(stream, peer, place);
                }
                Err(error) if concerns_one_connection(&error) => {}
                Err(error) => {
                    // Out of descriptors or memory. The connection stays in the queue, so accepting
                    // again at once would spin.
                    // Between failures some are accepted: as places fall free one by one.
                    if warned_at.is_none_or(|at| at.elapsed() >= WARNING_PAUSE) {
                        tracing::warn!(%error, "cannot accept connections, trying again until it works");
                        warned_at = Some(Instant::now());
                    }
                    tokio::time::sleep(Duration::from_millis(10) + backoff.next_pause()).await;
                }
            }
        }
    }

    fn spawn_connection(&self, stream: TcpStream, peer: SocketAddr, place: OwnedSemaphorePermit) {
        let acceptor = self.clone();
        // It was accepted on another runtime than it is served on.
        let stream = match stream.into_std() {
            Ok(stream) => stream,
            Err(error) => {
                tracing::debug!(%error, client.address = %peer, "cannot serve a connection");
                return;
            }
        };
        self.cores.spawn(&self.connection.tasks, async move {
            let _place = place;
            let _open = Open::new(&acceptor.open_connections);
            // Of its own, as the drain's is: both are looked at whenever the task runs.
            let cut = acceptor.cut.child_token();
            // Pinned where it stands: to pass it on would take its room twice, on every connection.
            let serve = pin!(acceptor.serve(stream, peer));
            let serve = AssertUnwindSafe(serve).catch_unwind();
            let ended = tokio::select! {
                ended = serve => ended,
                () = cut.cancelled() => return,
            };
            if ended.is_err() {
                tracing::error!(client.address = %peer, "a connection's task panicked");
            }
        });
    }

    async fn serve(self, stream: std::net::TcpStream, peer: SocketAddr) {
        let stream = match TcpStream::from_std(stream) {
            Ok(stream) => stream,
            Err(error) => {
                tracing::debug!(%error, client.address = %peer, "cannot serve a connection");
                return;
            }
        };
        // Heads and small bodies are written in one piece, so waiting for more never helps.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, client.address = %peer, "cannot set TCP_NODELAY");
        }
        let service = self.service;
        let service = move |request| service(request, peer);
        let result = match self.tls {
            None => serve_connection(stream, &self.connection, service).await,
            Some(store) => {
                let handshake = timeout(self.connection.patience.head, store.accept(stream));
                match handshake.await {
                    // Boxed: connections in clear text need not carry the room for it.
                    Ok(Ok(stream)) => Box::pin(serve_connection(stream, &self.connection, service)).await,
                    Ok(Err(error)) => {
                        tracing::debug!(%error, client.address = %peer, "TLS handshake failed");
                        return;
                    }
                    Err(_elapsed) => {
                        tracing::debug!(client.address = %peer, "TLS handshake took too long");
                        return;
                    }
                }
            }
        };
        if let Err(error) = result {
            let reason = std::error::Error::source(&error).map(ToString::to_string);
            tracing::debug!(%error, reason, client.address = %peer, "connection ended early");
        }
    }
}

/// Counts an open connection.
struct Open(IntGauge);

impl Open {
    fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn bind_socket(address: SocketAddr, all: &[SocketAddr]) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // `[::]` also takes IPv4 unless told not to; beside `0.0.0.0` of the same port it must not.
        let also_ipv4 = all.iter().any(|other| other.is_ipv4() && other.port() == address.port());
        socket.set_only_v6(also_ipv4)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}

/// Connections that the system keeps until they are accepted; the system may allow fewer.
const BACKLOG: i32 = 4096;

/// How often it is said that no connection can be accepted.
const WARNING_PAUSE: Duration = Duration::from_mins(1);

/// More places than descriptors that any system gives.
const MAX_PLACES: usize = 1 << 24;

/// How long cut connections may take to fall.
const CUT_PATIENCE: Duration = Duration::from_secs(5);
