//! The client against small scripted registries on loopback sockets.

mod authentication;
mod content;
mod failures;
mod offline;
mod redirects;
mod throttling;

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;

use super::*;
use crate::config::{Credentials, Freshness, Prefetch, Timeouts};
use crate::oci::{AcceptClass, Algorithm, Reference, RepositoryName};
use crate::runtime::Timestamp;

/// What a server saw of a request.
#[derive(Clone, Debug)]
struct Seen {
    method: Method,
    target: String,
    headers: HeaderMap,
    version: Version,
}

impl Seen {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn authorization(&self) -> &str {
        self.header("authorization")
    }
}

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// A scripted server. It answers until the test's runtime ends.
struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    async fn start(script: impl Fn(&Seen) -> Response<Body> + Send + Sync + 'static) -> Self {
        Self::start_with(None, script).await
    }

    async fn start_with(
        tls: Option<tokio_rustls::TlsAcceptor>,
        script: impl Fn(&Seen) -> Response<Body> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (tasks, script, log) = (Tasks::new(), Arc::new(script), Arc::clone(&seen));
        let connections = tasks.clone();
        tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (script, log, tls) = (Arc::clone(&script), Arc::clone(&log), tls.clone());
                connections.spawn(async move {
                    let service = service_fn(move |request: Request<Incoming>| {
                        let seen = Seen {
                            method: request.method().clone(),
                            target: request.uri().path_and_query().unwrap().to_string(),
                            headers: request.headers().clone(),
                            version: request.version(),
                        };
                        log.lock().unwrap().push(seen.clone());
                        let answer = script(&seen);
                        async move { Ok::<_, Infallible>(answer) }
                    });
                    let builder = auto::Builder::new(TokioExecutor::new());
                    // Clients that go away are part of the tests.
                    let _ = match tls {
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => builder.serve_connection(TokioIo::new(stream), service).await,
                            Err(_) => Ok(()),
                        },
                        None => builder.serve_connection(TokioIo::new(stream), service).await,
                    };
                });
            }
        });
        Self { address, seen }
    }

    /// The server's URL under a name that the tests' resolver knows.
    fn url(&self, host: &str) -> String {
        format!("http://{host}:{}", self.address.port())
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    fn count(&self, part: &str) -> usize {
        self.seen().iter().filter(|seen| seen.target.contains(part)).count()
    }
}

fn answer(status: u16, headers: &[(&'static str, &str)], body: impl Into<Bytes>) -> Response<Body> {
    let body = Full::new(body.into()).map_err(|never| match never {}).boxed_unsync();
    with_headers(status, headers, body)
}

fn ok(body: impl Into<Bytes>) -> Response<Body> {
    answer(200, &[], body)
}

fn streaming(
    status: u16,
    headers: &[(&'static str, &str)],
    parts: impl Stream<Item = std::io::Result<Bytes>> + Send + 'static,
) -> Response<Body> {
    with_headers(status, headers, StreamBody::new(parts.map(|part| part.map(Frame::data))).boxed_unsync())
}

fn with_headers(status: u16, headers: &[(&'static str, &str)], body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    for (name, value) in headers {
        response.headers_mut().append(*name, HeaderValue::from_str(value).unwrap());
    }
    response
}

const START: Timestamp = Timestamp::from_millis(1_800_000_000_000);

fn services(clock: Clock) -> UpstreamServices {
    let loopback = || vec![IpAddr::V4(Ipv4Addr::LOCALHOST)];
    let hosts = ["registry.test", "auth.registry.test", "mirror.test", "cdn.elsewhere.test", "evil.example"];
    UpstreamServices {
        dns: Arc::new(Dns::from_table(hosts.map(|host| (host, loopback())))),
        roots: rustls::RootCertStore::empty(),
        metrics: UpstreamMetrics::new(&prometheus::Registry::new()).unwrap(),
        tasks: Tasks::new(),
        clock,
        via: HeaderValue::from_static("1.1 tidegate-test"),
    }
}

fn config(endpoints: &[String]) -> UpstreamConfig {
    UpstreamConfig {
        name: "up".into(),
        endpoints: endpoints.iter().map(|endpoint| endpoint.parse().unwrap()).collect(),
        aliases: vec![],
        default: false,
        library_prefix: false,
        offline: false,
        platforms: Vec::new(),
        prefetch: Prefetch::Off,
        credentials: vec![Credentials::Anonymous],
        ca_file: None,
        trusted_hosts: vec![],
        allow: vec!["*".into()],
        deny: vec![],
        freshness: Freshness {
            fresh_for: Duration::ZERO,
            stale_while_revalidate: Duration::ZERO,
            stale_if_error: Duration::ZERO,
            negative_for: Duration::ZERO,
            keep_deleted: Duration::ZERO,
            pin_deleted: false,
        },
        timeouts: Timeouts {
            connect: Duration::from_secs(5),
            first_byte: Duration::from_secs(5),
            silence: Duration::from_secs(5),
            miss: Duration::from_secs(5),
        },
        max_concurrent_requests: 64,
    }
}

fn upstream_with(endpoints: &[String], change: impl FnOnce(&mut UpstreamConfig)) -> (Upstream, Clock) {
    let clock = Clock::manual(START);
    let mut config = config(endpoints);
    change(&mut config);
    (Upstream::new(config, &services(clock.clone())).unwrap(), clock)
}

fn upstream(server: &Server) -> Upstream {
    upstream_with(&[server.url("registry.test")], |_| ()).0
}

fn repository() -> RepositoryName {
    "library/nginx".parse().unwrap()
}

fn tag() -> Reference {
    "latest".parse().unwrap()
}

fn digest() -> Digest {
    Digest::of(Algorithm::Sha256, b"blob")
}

async fn fetch(upstream: &Upstream) -> Result<FetchedManifest, UpstreamError> {
    upstream.fetch_manifest(&Urgency::CLIENT, &repository(), &tag(), &AcceptClass::Any).await
}

async fn read(mut transfer: BlobTransfer) -> Result<Vec<u8>, UpstreamError> {
    let mut whole = Vec::new();
    while let Some(part) = transfer.body.next().await {
        whole.extend_from_slice(&part?);
    }
    Ok(whole)
}

async fn read_blob(upstream: &Upstream) -> Result<Vec<u8>, UpstreamError> {
    read(upstream.open_blob(&Urgency::CLIENT, &repository(), &digest(), 0).await?).await
}

fn kind<T>(outcome: &Result<T, UpstreamError>) -> &'static str {
    outcome.as_ref().map_or_else(UpstreamError::kind, |_| "ok")
}

#[test]
fn a_node_knows_its_own_requests() {
    let own = via_value("n1");
    assert!(is_own_request([own.as_str()], "n1"));
    assert!(is_own_request(["1.1 proxy, 2.0 tidegate-n1, 1.1 other"], "n1"));
    assert!(!is_own_request(["1.1 tidegate-n12", "1.1 tidegate-", "tidegate-n1"], "n1"));
}

#[tokio::test]
async fn what_cannot_be_set_up_says_so() {
    let services = services(Clock::manual(START));
    for endpoints in [vec![], vec!["/path".to_owned()], vec!["https://user:secret@host".to_owned()]] {
        let error = Upstream::new(config(&endpoints), &services).err().unwrap();
        assert!(
            matches!(error, SetupError::Endpoint { .. }) && !error.to_string().contains("secret"),
            "{error}"
        );
    }
    let mut missing = config(&["https://registry.test".into()]);
    missing.ca_file = Some("/nowhere/ca.pem".into());
    assert!(matches!(Upstream::new(missing, &services), Err(SetupError::ReadCaFile { .. })));
}
