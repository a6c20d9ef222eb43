//! Connections: resolve, check every address with the guard, connect to those, then TLS.
//!
//! What is checked is what is connected to; there is no second look-up in between.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use http::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::dns::Dns;
use super::error::chain;
use super::guard::Guard;
use super::origin::Origin;

/// Makes connections for the pool of one upstream.
#[derive(Clone)]
pub(super) struct Connector {
    pub(super) dns: Arc<Dns>,
    pub(super) guard: Arc<Guard>,
    pub(super) tls: Arc<rustls::ClientConfig>,
    /// For all of it: names, connection, TLS.
    pub(super) timeout: Duration,
}

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ConnectError {
    /// The guard admits none of the host's addresses.
    #[error("{0} is not a public address; name the host in trusted_hosts if it is to be used")]
    Refused(String),
    /// No address, no answer, or a TLS failure.
    #[error("{0}")]
    Failed(String),
}

impl Connector {
    async fn connect(&self, url: &Uri) -> Result<Stream, ConnectError> {
        let origin = Origin::of(url).ok_or_else(|| ConnectError::Failed("not an http URL".to_owned()))?;
        let found = self.dns.find_addresses(&origin.host).await.map_err(ConnectError::Failed)?;
        let admitted: Vec<SocketAddr> = found
            .iter()
            .filter(|address| self.guard.admits(&origin.host, origin.port, **address))
            .map(|address| SocketAddr::new(*address, origin.port))
            .collect();
        if admitted.is_empty() {
            return Err(ConnectError::Refused(show_refused(&origin.host, &found)));
        }
        let failed =
            |error: &io::Error| ConnectError::Failed(format!("connect to {origin}: {}", chain(error)));
        let stream = race(admitted, TcpStream::connect).await.map_err(|error| failed(&error))?;
        stream.set_nodelay(true).map_err(|error| failed(&error))?;
        if !origin.secure {
            return Ok(Stream::Plain(stream));
        }
        let name = ServerName::try_from(origin.host.clone())
            .map_err(|error| ConnectError::Failed(format!("connect to {origin}: {error}")))?;
        let secured = TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream).await;
        Ok(Stream::Tls(Box::new(secured.map_err(|error| failed(&error))?)))
    }
}

fn show_refused(host: &str, found: &[IpAddr]) -> String {
    match found.first() {
        Some(address) if address.to_string() != host => format!("{host} ({address})"),
        _ => host.to_owned(),
    }
}

/// Tries the addresses in order, 250 ms apart or as soon as one fails, and takes the first that
/// answers (RFC 8305, section 5).
async fn race<C, F, S>(addresses: Vec<SocketAddr>, connect: C) -> io::Result<S>
where
    C: Fn(SocketAddr) -> F,
    F: Future<Output = io::Result<S>>,
{
    let mut waiting = addresses.into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    loop {
        attempts.extend(waiting.next().map(&connect));
        let more = waiting.len() > 0;
        tokio::select! {
            attempt = attempts.next() => match attempt {
                Some(Ok(stream)) => return Ok(stream),
                Some(Err(error)) => last = error,
                None => return Err(last),
            },
            () = tokio::time::sleep(ATTEMPT_DELAY), if more => {}
        }
    }
}

/// RFC 8305, section 8.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

impl tower_service::Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = ConnectError;
    type Future = BoxFuture<'static, Result<TokioIo<Stream>, ConnectError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, url: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move {
            let limit = connector.timeout;
            let late = |_elapsed| {
                let host = url.host().unwrap_or_default();
                ConnectError::Failed(format!("no connection to {host} within {limit:?}"))
            };
            let connected = tokio::time::timeout(limit, connector.connect(&url)).await.map_err(late)?;
            connected.map(TokioIo::new)
        })
    }
}

/// A connection, with or without TLS.
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// How many requests a connection has carried.
#[derive(Clone, Debug, Default)]
pub(super) struct Uses(Arc<AtomicU64>);

impl Uses {
    /// Counts one more and says whether it is the first.
    pub(super) fn begin(&self) -> bool {
        self.0.fetch_add(1, Ordering::Relaxed) == 0
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        let connected = Connected::new().extra(Uses::default());
        match self {
            Self::Tls(stream) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => {
                connected.negotiated_h2()
            }
            _ => connected,
        }
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain(_) => "Plain",
            Self::Tls(_) => "Tls",
        })
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, buffer),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(context, buffers),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(context, buffers),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    fn addresses(count: u16) -> Vec<SocketAddr> {
        (1..=count).map(|port| SocketAddr::from(([127, 0, 0, 1], port))).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_address_costs_a_quarter_of_a_second() {
        let start = Instant::now();
        let winner = race(addresses(3), async |address| match address.port() {
            3 => Ok(address.port()),
            _ => std::future::pending().await,
        });
        assert_eq!(winner.await.unwrap(), 3);
        assert_eq!(start.elapsed(), 2 * ATTEMPT_DELAY);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusing_address_costs_nothing() {
        let start = Instant::now();
        let winner = race(addresses(2), async |address| match address.port() {
            2 => Ok(2),
            _ => Err(io::Error::from(io::ErrorKind::ConnectionRefused)),
        });
        assert_eq!(winner.await.unwrap(), 2);
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_error_is_reported_when_no_address_answers() {
        let failed =
            race(addresses(2), async |_| Err::<(), _>(io::Error::from(io::ErrorKind::ConnectionRefused)));
        assert_eq!(failed.await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
}
