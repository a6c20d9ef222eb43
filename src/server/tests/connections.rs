//! Protocols, bodies that fail, places, and the drain.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use tokio::net::TcpStream;
use tokio::sync::{Mutex, Notify};
use tokio::time::timeout;

use super::clients::{Http1, Http2};
use super::{LONG, TestServer, fed_body, no_body, say_version, settings};
use crate::registry::RegistryError;
use crate::runtime::Tasks;
use crate::server::body::ResponseBody;
use crate::server::listener::{Listener, ListenerSettings};

const GET: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";

#[tokio::test]
async fn one_port_speaks_both_versions() {
    let server = TestServer::start(settings(), say_version);
    let mut http1 = Http1::connect(server.address).await;
    for _ in 0..2 {
        assert_eq!(http1.ask(GET).await.1, "HTTP/1.1");
    }
    let mut http2 = Http2::connect(server.address, &Tasks::new()).await;
    assert_eq!(http2.get("/").await, (200, "HTTP/2.0".into()));
    assert_eq!(server.open_connections.get(), 2);
    server.shutdown.cancel();
    assert!(server.end().await, "idle connections do not hold up the end");
}

#[tokio::test]
async fn a_request_that_comes_byte_by_byte_is_understood() {
    let server = TestServer::start(settings(), say_version);
    let mut http1 = Http1::connect(server.address).await;
    http1.0.set_nodelay(true).unwrap();
    // Begins like the preface of HTTP/2.
    for byte in "PROPFIND / HTTP/1.1\r\nHost: test\r\n\r".chars() {
        http1.send(&byte.to_string()).await;
    }
    assert_eq!(http1.ask("\n").await.1, "HTTP/1.1");
}

#[tokio::test]
async fn every_configured_address_is_listened_on() {
    let addresses = ["127.0.0.1:0".parse().unwrap(), "127.0.0.1:0".parse().unwrap()];
    let listener = Listener::bind(&addresses).unwrap();
    let bound = listener.local_addrs().to_vec();
    assert!(bound.iter().all(|address| address.port() != 0) && bound[0] != bound[1]);
    let taken = Listener::bind(&bound[..1]).unwrap_err();
    assert_eq!(taken.to_string(), format!("listen on {}", bound[0]));
    let tasks = Tasks::new();
    let service = |request, _client| say_version(request);
    tasks.spawn(listener.serve(settings(), service, tasks.shutdown_token().clone()));
    for address in bound {
        assert_eq!(Http1::connect(address).await.ask(GET).await.1, "HTTP/1.1");
    }
}

/// A service that gives out one prepared body.
fn give(body: ResponseBody) -> TestServer {
    let body = Arc::new(Mutex::new(Some(body)));
    TestServer::start(settings(), move |_request| {
        let body = Arc::clone(&body);
        async move { Response::new(body.lock().await.take().unwrap()) }
    })
}

#[tokio::test]
async fn a_body_that_fails_ends_http1_short_of_its_length() {
    for size_bytes in [Some(10), None] {
        let (parts, body) = fed_body(size_bytes);
        let server = give(body);
        let mut client = Http1::connect(server.address).await;
        client.send(GET).await;
        parts.send(Ok(Bytes::from_static(b"abc"))).await.unwrap();
        parts.send(Err(RegistryError::Internal)).await.unwrap();
        let answer = String::from_utf8(client.read_to_end().await).unwrap();
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        // With a length, 7 bytes are missing; without one, the last chunk is.
        assert_eq!(body, if size_bytes.is_some() { "abc" } else { "3\r\nabc\r\n" });
    }
}

#[tokio::test]
async fn a_body_that_fails_resets_its_stream_and_no_other() {
    let (parts, body) = fed_body(Some(10));
    let body = Arc::new(Mutex::new(Some(body)));
    let server = TestServer::start(settings(), move |_request| {
        let body = Arc::clone(&body);
        async move {
            let body = body.lock().await.take();
            Response::new(body.unwrap_or_else(|| ResponseBody::whole("fine")))
        }
    });
    let mut client = Http2::connect(server.address, &Tasks::new()).await;
    let request = Request::get("http://test/").body(no_body()).unwrap();
    let mut response = client.send(request).await.unwrap();
    parts.send(Ok(Bytes::from_static(b"abc"))).await.unwrap();
    assert_eq!(response.frame().await.unwrap().unwrap().into_data().unwrap(), "abc");
    parts.send(Err(RegistryError::Internal)).await.unwrap();
    assert!(response.frame().await.unwrap().is_err());
    assert_eq!(client.get("/").await.1, "fine");
}

#[tokio::test]
async fn further_connections_wait_for_a_place() {
    let server = TestServer::start(ListenerSettings { max_connections: 1, ..settings() }, say_version);
    let mut first = Http1::connect(server.address).await;
    first.ask(GET).await;
    let mut second = Http1::connect(server.address).await;
    second.send(GET).await;
    // The first is still served, so the second had its chance and was not.
    first.ask(GET).await;
    assert_eq!(server.open_connections.get(), 1);
    drop(first);
    assert!(second.read_head().await.starts_with("HTTP/1.1 200"));
}

/// A service whose one answer waits until the test lets it go on.
struct Held {
    server: TestServer,
    begun: Arc<Notify>,
    release: Arc<Notify>,
}

impl Held {
    fn start(settings: ListenerSettings) -> Self {
        let (begun, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (tell, wait) = (Arc::clone(&begun), Arc::clone(&release));
        let server = TestServer::start(settings, move |_request| {
            let (tell, wait) = (Arc::clone(&tell), Arc::clone(&wait));
            async move {
                tell.notify_one();
                wait.notified().await;
                Response::new(ResponseBody::whole("finished"))
            }
        });
        Self { server, begun, release }
    }
}

#[tokio::test]
async fn the_drain_lets_running_answers_finish_and_takes_no_new_ones() {
    let held = Held::start(settings());
    let mut client = Http1::connect(held.server.address).await;
    client.send(GET).await;
    held.begun.notified().await;
    held.server.shutdown.cancel();
    // The listening socket closes while the answer still runs.
    let refused = async { while TcpStream::connect(held.server.address).await.is_ok() {} };
    timeout(LONG, refused).await.unwrap();
    held.release.notify_one();
    let (head, body) = client.ask("").await;
    assert!(head.contains("connection: close"), "{head}");
    assert_eq!(body, "finished");
    assert!(client.read_to_end().await.is_empty());
    assert!(held.server.end().await);
}

#[tokio::test]
async fn the_drain_lets_running_streams_of_http2_finish() {
    let held = Held::start(settings());
    let tasks = Tasks::new();
    let mut client = Http2::connect(held.server.address, &tasks).await;
    let answer = tasks.spawn(async move { client.get("/").await });
    held.begun.notified().await;
    held.server.shutdown.cancel();
    held.release.notify_one();
    assert_eq!(answer.await.unwrap(), (200, "finished".into()));
    assert!(held.server.end().await);
}

#[tokio::test]
async fn the_drain_is_bounded() {
    let drain_timeout = std::time::Duration::from_millis(50);
    let held = Held::start(ListenerSettings { drain_timeout, ..settings() });
    let mut client = Http1::connect(held.server.address).await;
    client.send(GET).await;
    held.begun.notified().await;
    held.server.shutdown.cancel();
    assert!(client.read_to_end().await.is_empty());
    assert!(!held.server.end().await);
}

#[tokio::test]
async fn a_panic_ends_one_connection_and_not_the_server() {
    let server = TestServer::start(settings(), |request| async move {
        assert!(request.uri().path() != "/panic", "on purpose");
        Response::new(ResponseBody::whole("fine"))
    });
    let mut client = Http1::connect(server.address).await;
    client.send("GET /panic HTTP/1.1\r\nHost: test\r\n\r\n").await;
    assert!(client.read_to_end().await.is_empty());
    assert_eq!(Http1::connect(server.address).await.ask(GET).await.1, "fine");
}
