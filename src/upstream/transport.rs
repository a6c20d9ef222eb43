//! One request, one answer: pooled connections, HTTP/1.1 and 2, time-outs, the node's own headers.
//!
//! Statuses, redirects and authentication are the exchange's.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, HeaderValue, USER_AGENT, VIA};
use http::{Extensions, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{CaptureConnection, capture_connection};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::{Instant, timeout};

use super::connect::{ConnectError, Connector, Uses};
use super::error::{Fault, chain};
use super::link::{Link, Switch};
use super::metrics::UpstreamMetrics;
use super::tls;
use crate::config::Timeouts;

/// Sends requests for one upstream.
pub(super) struct Transport {
    upstream: String,
    connector: Connector,
    pools: ArcSwap<Pools>,
    switch: Switch,
    timeouts: Timeouts,
    via: HeaderValue,
    metrics: UpstreamMetrics,
}

/// Connections, those that wait for their next request included.
struct Pools {
    api: Client<Connector, Full<Bytes>>,
    storage: Client<Connector, Full<Bytes>>,
}

/// Which pool a request takes its connection from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pool {
    /// Registries and token services: HTTP/2 where they speak it, many small requests.
    Api,
    /// Where redirects of blobs lead: HTTP/1.1, because stores limit the rate of one connection.
    Storage,
}

impl Transport {
    pub(super) fn new(
        upstream: String,
        connector: Connector,
        switch: Switch,
        timeouts: Timeouts,
        via: HeaderValue,
        metrics: UpstreamMetrics,
    ) -> Self {
        let pools = ArcSwap::from_pointee(Pools::new(&connector));
        Self { upstream, connector, pools, switch, timeouts, via, metrics }
    }

    pub(super) const fn switch(&self) -> &Switch {
        &self.switch
    }

    /// Takes the upstream off the network, or back; says whether that changed anything. What runs ends
    /// when it is taken off, and connections that wait are closed at once rather than some time later.
    pub(super) fn set_link(&self, link: Link) -> bool {
        let is_changed = self.switch.set(link);
        if is_changed && link == Link::Offline {
            self.pools.store(Arc::new(Pools::new(&self.connector)));
        }
        is_changed
    }

    pub(super) const fn timeouts(&self) -> Timeouts {
        self.timeouts
    }

    /// Sends a request and waits for the head of its answer; counts it. `kind` is a metric label.
    pub(super) async fn send(
        &self,
        kind: &'static str,
        pool: Pool,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, Fault> {
        let headers = request.headers_mut();
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        headers.insert(VIA, self.via.clone());
        // Compressed content has another digest and another size.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let method = request.method().clone();
        let pools = self.pools.load_full();
        let client = if pool == Pool::Api { &pools.api } else { &pools.storage };
        let start = Instant::now();
        let answer = self.switch.run(self.exchange(client, request)).await?;
        let code = match &answer {
            Ok(response) => response.status().as_str().to_owned(),
            Err(Fault::Unreachable(_)) => "unreachable".to_owned(),
            Err(_) => "broken".to_owned(),
        };
        self.metrics.record_request(&self.upstream, kind, method.as_str(), &code, start.elapsed());
        answer
    }

    /// Sends a request, and once more where it met a connection that the server was just closing:
    /// such a request was not answered, and ours may all be repeated (RFC 9110, section 9.2.2).
    async fn exchange(
        &self,
        client: &Client<Connector, Full<Bytes>>,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, Fault> {
        match self.try_exchange(client, request.clone()).await {
            Err(Failure { was_hung_up_on: true, .. }) => self.try_exchange(client, request).await,
            outcome => outcome,
        }
        .map_err(|failure| failure.fault)
    }

    async fn try_exchange(
        &self,
        client: &Client<Connector, Full<Bytes>>,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, Failure> {
        let mut connection = capture_connection(&mut request);
        let mut answer = std::pin::pin!(client.request(request));
        // The connector limits itself, but a request may also wait for a connection that another
        // request makes.
        let connected = async {
            let _ = timeout(self.timeouts.connect + GRACE, connection.wait_for_connection_metadata()).await;
        };
        let early = tokio::select! {
            biased;
            answer = &mut answer => Some(answer),
            () = connected => None,
        };
        let is_first = begin_use(&connection);
        let answer = match early {
            Some(answer) => Ok(answer),
            None if is_first.is_none() => {
                return Err(unanswered(format!("no connection within {:?}", self.timeouts.connect)));
            }
            None => timeout(self.timeouts.first_byte, answer).await,
        };
        let Ok(answer) = answer else {
            poison(&connection);
            return Err(unanswered(format!("no answer within {:?}", self.timeouts.first_byte)));
        };
        answer.map_err(|error| Failure {
            was_hung_up_on: is_first == Some(false) && is_hang_up(&error),
            fault: fault_of(&error),
        })
    }
}

impl Pools {
    /// Without a connection.
    fn new(connector: &Connector) -> Self {
        let build = |protocols: &[&str]| {
            let tls = tls::speaking(&connector.tls, protocols);
            build_client(Connector { tls, ..connector.clone() })
        };
        Self { api: build(&["h2", "http/1.1"]), storage: build(&["http/1.1"]) }
    }
}

/// Why there is no answer.
struct Failure {
    fault: Fault,
    /// Whether the server closed a connection that had served before.
    was_hung_up_on: bool,
}

fn unanswered(reason: String) -> Failure {
    Failure { fault: Fault::Unreachable(reason), was_hung_up_on: false }
}

/// Whether this is the connection's first request; `None` where there is no connection.
fn begin_use(connection: &CaptureConnection) -> Option<bool> {
    let mut extras = Extensions::new();
    connection.connection_metadata().as_ref()?.get_extras(&mut extras);
    Some(extras.get::<Uses>().is_none_or(Uses::begin))
}

fn is_hang_up(error: &hyper_util::client::legacy::Error) -> bool {
    error.source().and_then(|cause| cause.downcast_ref::<hyper::Error>()).is_some_and(|error| {
        error.is_incomplete_message()
            || error.source().is_some_and(<dyn std::error::Error>::is::<std::io::Error>)
    })
}

/// Keeps a silent connection from being used again; an HTTP/2 connection would be shared.
fn poison(connection: &CaptureConnection) {
    if let Some(connected) = &*connection.connection_metadata() {
        connected.poison();
    }
}

fn build_client(connector: Connector) -> Client<Connector, Full<Bytes>> {
    // Connection tasks hold nothing that shutdown must wait for: they end with their client.
    Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(MAX_IDLE)
        .http2_initial_stream_window_size(STREAM_WINDOW_BYTES)
        .http2_initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_max_header_list_size(MAX_HEADER_BYTES)
        .http2_keep_alive_interval(Duration::from_secs(20))
        .http2_keep_alive_timeout(Duration::from_secs(10))
        .build(connector)
}

fn fault_of(error: &hyper_util::client::legacy::Error) -> Fault {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(error) = cause.downcast_ref::<ConnectError>() {
            return match error {
                // A redirect or realm that points inside: upstream answers, but with nonsense.
                ConnectError::Refused(_) => Fault::broken(error.to_string()),
                ConnectError::Failed(_) => Fault::unreachable(error.to_string()),
            };
        }
        if cause.downcast_ref::<hyper::Error>().is_some_and(|error| error.is_parse() && !error.is_timeout()) {
            return Fault::broken(format!("the answer is not HTTP: {}", chain(cause)));
        }
        source = cause.source();
    }
    Fault::unreachable(format!("no answer: {}", chain(error)))
}

const AGENT: &str = concat!("tidegate/", env!("CARGO_PKG_VERSION"));
const GRACE: Duration = Duration::from_millis(100);
/// Shorter than the 60 s after which most servers and load balancers close.
const IDLE: Duration = Duration::from_secs(45);
const MAX_IDLE: usize = 32;
/// A slow reader may hold so much of a body in memory.
const STREAM_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;
const MAX_HEADER_BYTES: u32 = 64 * 1024;
