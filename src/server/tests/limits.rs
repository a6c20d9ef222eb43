//! Sizes of heads, and slow clients.

use std::time::Duration;

use http::{Request, Response};
use tokio::io::AsyncReadExt as _;
use tokio::time::timeout;

use super::clients::{Http1, Http2};
use super::{LONG, TestServer, endless_body, no_body, say_version, settings};
use crate::runtime::Tasks;
use crate::server::body::ResponseBody;
use crate::server::listener::ListenerSettings;
use crate::server::transport::Patience;

const SHORT: Duration = Duration::from_millis(100);
const GET: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";

fn with_patience(head: Duration, idle: Duration, write: Duration) -> ListenerSettings {
    ListenerSettings { patience: Patience { head, idle, write }, ..settings() }
}

#[tokio::test]
async fn a_header_of_64_kib_is_taken_and_a_longer_one_refused() {
    let server = TestServer::start(settings(), say_version);
    for (length, status) in [(64 * 1024, 200), (80 * 1024, 431)] {
        let value = "x".repeat(length);
        let mut http1 = Http1::connect(server.address).await;
        http1.send(&format!("GET / HTTP/1.1\r\nHost: test\r\nAuthorization: {value}\r\n\r\n")).await;
        assert!(http1.read_head().await.starts_with(&format!("HTTP/1.1 {status} ")));

        let mut http2 = Http2::connect(server.address, &Tasks::new()).await;
        let request = Request::get("http://test/").header("authorization", value).body(no_body()).unwrap();
        let answered = http2.send(request).await;
        // Told of the limit before it asks, a client may refuse by itself.
        assert_eq!(answered.map_or(431, |response| response.status().as_u16()), status);
    }
}

#[tokio::test]
async fn a_hundred_headers_are_taken_and_no_more() {
    let server = TestServer::start(settings(), say_version);
    for (count, status) in [(99, 200), (100, 431)] {
        let headers = "X-Y: z\r\n".repeat(count);
        let request = format!("GET / HTTP/1.1\r\nHost: test\r\n{headers}\r\n");
        let mut client = Http1::connect(server.address).await;
        client.send(&request).await;
        assert!(client.read_head().await.starts_with(&format!("HTTP/1.1 {status} ")), "{count}");
    }
}

#[tokio::test]
async fn a_head_that_does_not_come_is_cut() {
    let server = TestServer::start(with_patience(SHORT, LONG, LONG), say_version);
    for start in ["", "G", "GET / HTTP/1.1\r\nHost: te", "PRI * HT"] {
        let mut client = Http1::connect(server.address).await;
        client.send(start).await;
        assert!(client.read_to_end().await.is_empty(), "{start}");
    }
    // The second head of a connection, too, and not before an answer is through.
    let mut client = Http1::connect(server.address).await;
    client.ask(GET).await;
    client.send("GET / HT").await;
    assert!(client.read_to_end().await.is_empty());
}

#[tokio::test]
async fn an_idle_connection_closes_after_its_time_and_a_busy_one_does_not() {
    let server = TestServer::start(with_patience(LONG, SHORT, LONG), |request| async move {
        if request.uri().path() == "/slow" {
            tokio::time::sleep(SHORT * 4).await;
        }
        Response::new(ResponseBody::whole("done"))
    });
    let mut client = Http1::connect(server.address).await;
    let (_, body) = client.ask("GET /slow HTTP/1.1\r\nHost: test\r\n\r\n").await;
    assert_eq!(body, "done");
    assert!(client.read_to_end().await.is_empty());

    let mut client = Http2::connect(server.address, &Tasks::new()).await;
    assert_eq!(client.get("/slow").await.1, "done");
    let closed = async {
        let ask = || Request::get("http://test/").body(no_body()).unwrap();
        while client.send(ask()).await.is_ok() {
            tokio::time::sleep(SHORT * 2).await;
        }
    };
    timeout(LONG, closed).await.expect("idle connections of HTTP/2 close, too");
}

#[tokio::test]
async fn a_client_that_takes_no_byte_is_cut() {
    let serve = |_request| async { Response::new(endless_body()) };
    let settings = with_patience(LONG, LONG, SHORT * 2);
    let tasks = settings.tasks.clone();
    let server = TestServer::start(settings, serve);
    let mut client = Http1::connect(server.address).await;
    client.send(GET).await;
    // The answer has begun, and the rest stays unread.
    client.read_head().await;
    wait_for_no_connection(&server).await;

    // HTTP/2: the window of the stream is full, and nobody opens it.
    let mut client = Http2::connect(server.address, &Tasks::new()).await;
    let _unread = client.send(Request::get("http://test/").body(no_body()).unwrap()).await.unwrap();
    wait_for_no_connection(&server).await;
    server.shutdown.cancel();
    assert!(tasks.shut_down(LONG).await, "the tasks of its streams have ended, too");
}

async fn wait_for_no_connection(server: &TestServer) {
    let ended = async {
        while server.open_connections.get() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, ended).await.expect("the connection is cut");
}

#[tokio::test]
async fn a_slow_client_that_takes_bytes_is_not_cut() {
    let serve = |_request| async { Response::new(endless_body()) };
    let server = TestServer::start(with_patience(LONG, LONG, SHORT * 3), serve);
    let mut client = Http1::connect(server.address).await;
    client.send(GET).await;
    let mut buffer = vec![0; 4 * 1024 * 1024];
    let until = tokio::time::Instant::now() + SHORT * 9;
    while tokio::time::Instant::now() < until {
        // Far more than all buffers on the way is taken each time, so the server gets on.
        timeout(LONG, client.0.read_exact(&mut buffer)).await.unwrap().unwrap();
        tokio::time::sleep(SHORT).await;
    }
}

#[tokio::test]
async fn an_answer_may_take_its_time() {
    let serve = |_request| async {
        let (parts, body) = super::fed_body(Some(2));
        Tasks::new().spawn(async move {
            for _ in 0..2 {
                tokio::time::sleep(SHORT * 4).await;
                let _ = parts.send(Ok("x".into())).await;
            }
        });
        Response::new(body)
    };
    let server = TestServer::start(with_patience(SHORT, SHORT, SHORT), serve);
    assert_eq!(Http1::connect(server.address).await.ask(GET).await.1, "xx");
    assert_eq!(Http2::connect(server.address, &Tasks::new()).await.get("/").await.1, "xx");
}
