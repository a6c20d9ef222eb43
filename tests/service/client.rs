//! A small HTTP client that hides nothing: no retries, no redirects, no decoding.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Version};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::harness::within_patience;

/// Whom to ask, and how. Every call makes its own connection.
#[derive(Clone)]
pub(crate) struct Client {
    address: SocketAddr,
    http2: bool,
    tls: Option<Arc<rustls::ClientConfig>>,
}

/// A request before it is sent.
pub(crate) struct Call {
    client: Client,
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Bytes,
}

/// An answer whose body has not been read.
pub(crate) struct Open {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) version: Version,
    body: Incoming,
}

/// An answer read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// An answer that was cut short: what came of it.
#[derive(Debug)]
pub(crate) struct Cut {
    pub(crate) received: Bytes,
}

impl Client {
    /// HTTP/1.1 in clear text.
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address, http2: false, tls: None }
    }

    /// HTTP/2, in clear text by prior knowledge.
    pub(crate) fn http2(mut self) -> Self {
        self.http2 = true;
        self
    }

    /// Over TLS.
    pub(crate) fn tls(mut self, config: Arc<rustls::ClientConfig>) -> Self {
        self.tls = Some(config);
        self
    }

    pub(crate) fn get(&self, path: &str) -> Call {
        self.call(Method::GET, path)
    }

    pub(crate) fn head(&self, path: &str) -> Call {
        self.call(Method::HEAD, path)
    }

    pub(crate) fn call(&self, method: Method, path: &str) -> Call {
        Call {
            client: self.clone(),
            method,
            path: path.to_owned(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
        }
    }

    /// The protocol that a TLS handshake agrees on.
    pub(crate) async fn agreed_protocol(&self) -> Option<String> {
        let stream = self.secure(TcpStream::connect(self.address).await.unwrap()).await;
        let agreed = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
        agreed.map(|protocol| String::from_utf8(protocol).unwrap())
    }

    /// Whether a TLS handshake succeeds with what this client trusts.
    pub(crate) async fn accepts_certificate(&self) -> bool {
        self.try_secure(TcpStream::connect(self.address).await.unwrap()).await.is_ok()
    }

    /// Sends these bytes as they are and reads until the other side closes.
    pub(crate) async fn exchange(&self, bytes: impl AsRef<[u8]>) -> String {
        within_patience("an answer to raw bytes", async {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            stream.write_all(bytes.as_ref()).await.unwrap();
            let mut answer = Vec::new();
            // A reset after the answer is as good as a close.
            let _ = stream.read_to_end(&mut answer).await;
            String::from_utf8_lossy(&answer).into_owned()
        })
        .await
    }

    /// Opens a connection for several requests, one after the other.
    pub(crate) async fn connect(&self) -> hyper::client::conn::http1::SendRequest<Full<Bytes>> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        sender
    }

    async fn secure(&self, stream: TcpStream) -> TlsStream<TcpStream> {
        self.try_secure(stream).await.unwrap()
    }

    async fn try_secure(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let name = rustls_pki_types::ServerName::IpAddress(self.address.ip().into());
        let config = Arc::clone(self.tls.as_ref().unwrap());
        tokio_rustls::TlsConnector::from(config).connect(name, stream).await
    }

    async fn send<T>(&self, stream: T, request: Request<Full<Bytes>>) -> hyper::Result<Open>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let stream = TokioIo::new(stream);
        let response = if self.http2 {
            let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
            builder.initial_stream_window_size(1 << 20).initial_connection_window_size(1 << 20);
            let (mut sender, connection) = builder.handshake(stream).await?;
            tokio::spawn(connection);
            sender.send_request(request).await?
        } else {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
            tokio::spawn(connection);
            sender.send_request(request).await?
        };
        let (parts, body) = response.into_parts();
        Ok(Open { status: parts.status.as_u16(), headers: parts.headers, version: parts.version, body })
    }
}

impl Call {
    /// Adds a header line; several of one name are sent as several lines.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
        self.headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value);
        self
    }

    pub(crate) fn range(self, value: &str) -> Self {
        self.header("range", value)
    }

    /// Adds one `Accept` line a type.
    pub(crate) fn accept(self, types: &[&str]) -> Self {
        types.iter().fold(self, |call, media_type| call.header("accept", media_type))
    }

    pub(crate) fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Waits for the head of the answer.
    pub(crate) async fn open(self) -> Open {
        let path = self.path.clone();
        self.try_open().await.unwrap_or_else(|error| panic!("{path}: {error:?}"))
    }

    /// Waits for the head of the answer, or for the connection to fail or to end without one.
    pub(crate) async fn try_open(self) -> io::Result<Open> {
        let client = self.client;
        let mut request = Request::builder().method(self.method).uri(if client.http2 {
            let scheme = if client.tls.is_some() { "https" } else { "http" };
            format!("{scheme}://{}{}", client.address, self.path)
        } else {
            self.path.clone()
        });
        *request.headers_mut().unwrap() = self.headers;
        if !client.http2 && !request.headers_ref().unwrap().contains_key("host") {
            request = request.header("host", client.address.to_string());
        }
        let request = request.body(Full::new(self.body)).unwrap();
        // Boxed, as every test holds one of these.
        let answer = Box::pin(async {
            let stream = TcpStream::connect(client.address).await?;
            stream.set_nodelay(true)?;
            let answer = if client.tls.is_some() {
                client.send(client.secure(stream).await, request).await
            } else {
                client.send(stream, request).await
            };
            answer.map_err(io::Error::other)
        });
        within_patience(&format!("the head of an answer to {}", self.path), answer).await
    }

    /// Waits for the whole answer.
    pub(crate) async fn send(self) -> Answer {
        self.open().await.finish().await
    }

    /// Waits for the whole answer; the error where it was cut short.
    pub(crate) async fn try_send(self) -> Result<Answer, Cut> {
        match self.try_open().await {
            Ok(open) => open.try_finish().await,
            Err(_) => Err(Cut { received: Bytes::new() }),
        }
    }
}

impl Open {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        text_of(&self.headers, name)
    }

    /// The next bytes; `None` at the end, the error where the answer is cut.
    pub(crate) async fn next(&mut self) -> Option<hyper::Result<Bytes>> {
        loop {
            let frame = within_patience("the next bytes of a body", self.body.frame()).await?;
            match frame.map(hyper::body::Frame::into_data) {
                Ok(Ok(data)) if data.is_empty() => {}
                Ok(Ok(data)) => return Some(Ok(data)),
                Ok(Err(_trailers)) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// Reads until so many bytes have come.
    pub(crate) async fn read_at_least(&mut self, count: usize) -> Bytes {
        let mut received = BytesMut::new();
        while received.len() < count {
            let next = self.next().await.unwrap_or_else(|| panic!("body ends after {}", received.len()));
            received.extend_from_slice(&next.unwrap());
        }
        received.freeze()
    }

    /// Whether the rest of the body is exactly this; reads without keeping.
    pub(crate) async fn equals(&mut self, expected: &[u8]) -> bool {
        let mut at = 0;
        while let Some(Ok(data)) = self.next().await {
            if expected.get(at..at + data.len()) != Some(&data[..]) {
                return false;
            }
            at += data.len();
        }
        at == expected.len()
    }

    /// Reads to the end.
    pub(crate) async fn finish(self) -> Answer {
        self.try_finish()
            .await
            .unwrap_or_else(|cut| panic!("the answer was cut after {} bytes", cut.received.len()))
    }

    /// Reads to the end; the error where the answer is cut short.
    pub(crate) async fn try_finish(mut self) -> Result<Answer, Cut> {
        let mut received = BytesMut::new();
        loop {
            match self.next().await {
                Some(Ok(data)) => received.extend_from_slice(&data),
                Some(Err(_)) => return Err(Cut { received: received.freeze() }),
                None => break,
            }
        }
        Ok(Answer { status: self.status, headers: self.headers, body: received.freeze() })
    }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        text_of(&self.headers, name)
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {}", String::from_utf8_lossy(&self.body)))
    }

    /// The code of an OCI error; fails unless the body is error JSON.
    pub(crate) fn error_code(&self) -> String {
        assert_eq!(self.header("content-type").map(essence), Some("application/json"), "{self:?}");
        let error = &self.json()["errors"][0];
        assert!(error["message"].is_string(), "{error}");
        error["code"].as_str().unwrap_or_else(|| panic!("no code in {error}")).to_owned()
    }

    /// Fails unless this is the refusal of this status and code.
    #[track_caller]
    pub(crate) fn assert_error(&self, status: u16, code: &str) {
        assert_eq!((self.status, self.error_code().as_str()), (status, code), "{self:?}");
    }

    pub(crate) fn cache_status(&self) -> &str {
        self.header("cache-status").unwrap_or_default()
    }
}

/// A media type without parameters.
fn essence(value: &str) -> &str {
    value.split(';').next().unwrap_or_default().trim()
}

fn text_of<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap())
}
