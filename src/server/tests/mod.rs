//! Tests over real sockets, with small services in the place of the registry.

mod clients;
mod connections;
mod front;
mod limits;
mod tls;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use prometheus::{IntCounter, IntGauge};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::body::ResponseBody;
use super::listener::{Listener, ListenerSettings};
use super::tls::CertificateStore;
use super::transmit::Piece;
use super::transport::Patience;
use crate::registry::RegistryError;
use crate::runtime::{Cores, Tasks};

/// No test waits longer for anything.
const LONG: Duration = Duration::from_secs(30);

/// A listener that serves.
struct TestServer {
    address: SocketAddr,
    shutdown: CancellationToken,
    served: JoinHandle<bool>,
    open_connections: IntGauge,
}

fn settings() -> ListenerSettings {
    ListenerSettings {
        patience: Patience { head: LONG, idle: LONG, write: LONG },
        max_connections: 100,
        drain_timeout: LONG,
        tls: None,
        open_connections: IntGauge::new("open", "open").unwrap(),
        sendfile_bytes: IntCounter::new("sent", "sent").unwrap(),
        tasks: Tasks::new(),
        cores: Cores::default(),
    }
}

fn with_tls(store: &Arc<CertificateStore>) -> ListenerSettings {
    ListenerSettings { tls: Some(Arc::clone(store)), ..settings() }
}

impl TestServer {
    fn start<S, F>(settings: ListenerSettings, service: S) -> Self
    where
        S: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<ResponseBody>> + Send + 'static,
    {
        let listener = Listener::bind(&["127.0.0.1:0".parse().unwrap()]).unwrap();
        let address = listener.local_addrs()[0];
        let shutdown = CancellationToken::new();
        let tasks = settings.tasks.clone();
        let open_connections = settings.open_connections.clone();
        let service = move |request, _client| service(request);
        let served = tasks.spawn(listener.serve(settings, service, shutdown.clone()));
        Self { address, shutdown, served, open_connections }
    }

    /// Waits for the end of a server that was told to stop. Returns whether it drained.
    async fn end(self) -> bool {
        timeout(LONG, self.served).await.unwrap().unwrap()
    }
}

/// Answers with the protocol of the request.
async fn say_version(request: Request<Incoming>) -> Response<ResponseBody> {
    Response::new(ResponseBody::whole(format!("{:?}", request.version())))
}

type Part = Result<Bytes, RegistryError>;

/// A body whose parts come through a channel.
fn fed_body(size_bytes: Option<u64>) -> (mpsc::Sender<Part>, ResponseBody) {
    let (sender, receiver) = mpsc::channel(1);
    let parts = futures_util::stream::unfold(receiver, |mut receiver: mpsc::Receiver<Part>| async move {
        receiver.recv().await.map(|part| (part, receiver))
    });
    let pieces = parts.map(|part| part.map(Piece::Bytes));
    (sender, ResponseBody::stream(pieces.boxed(), size_bytes))
}

/// A body that never ends, of parts of 64 KiB.
fn endless_body() -> ResponseBody {
    let part = Bytes::from(vec![7; 64 * 1024]);
    let parts = futures_util::stream::repeat_with(move || Ok(Piece::Bytes(part.clone())));
    ResponseBody::stream(parts.boxed(), None)
}

/// A request body at hand.
type RequestBody = Full<Bytes>;

fn no_body() -> RequestBody {
    Full::new(Bytes::new())
}
