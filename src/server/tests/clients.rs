//! Clients for tests: HTTP/1.1 by hand, HTTP/2 by hyper.

use std::net::SocketAddr;

use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{LONG, RequestBody};
use crate::runtime::Tasks;

/// A connection of HTTP/1.1.
pub(super) struct Http1<T = TcpStream>(pub(super) T);

impl Http1 {
    pub(super) async fn connect(address: SocketAddr) -> Self {
        Self(TcpStream::connect(address).await.unwrap())
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Http1<T> {
    pub(super) async fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    /// Asks, and reads head and body of an answer that has a `Content-Length`.
    pub(super) async fn ask(&mut self, head: &str) -> (String, String) {
        self.send(head).await;
        let answer = self.read_head().await;
        let length = answer
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |value| value.parse().unwrap());
        let mut body = vec![0; length];
        timeout(LONG, self.0.read_exact(&mut body)).await.unwrap().unwrap();
        (answer, String::from_utf8(body).unwrap())
    }

    pub(super) async fn read_head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(timeout(LONG, self.0.read_u8()).await.unwrap().unwrap());
        }
        String::from_utf8(head).unwrap()
    }

    /// Reads to the end of the connection; a reset is an end, too.
    pub(super) async fn read_to_end(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let _ = timeout(LONG, self.0.read_to_end(&mut bytes)).await.expect("the connection ends");
        bytes
    }
}

/// A connection of HTTP/2.
pub(super) struct Http2(http2::SendRequest<RequestBody>);

impl Http2 {
    /// Speaks HTTP/2 in clear text, with prior knowledge.
    pub(super) async fn connect(address: SocketAddr, tasks: &Tasks) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap(), tasks).await
    }

    pub(super) async fn over<T>(io: T, tasks: &Tasks) -> Self
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) =
            http2::Builder::new(TokioExecutor::new()).handshake(TokioIo::new(io)).await.unwrap();
        tasks.spawn(connection);
        Self(sender)
    }

    pub(super) async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, hyper::Error> {
        timeout(LONG, self.0.send_request(request)).await.unwrap()
    }

    /// Asks for a path; gives status and body.
    pub(super) async fn get(&mut self, path: &str) -> (u16, String) {
        let request = Request::get(format!("http://test{path}")).body(super::no_body()).unwrap();
        let response = self.send(request).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }
}
