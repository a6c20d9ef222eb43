//! One connection: finds out the protocol, runs it, and ends it when it is time.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt as _;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::GracefulConnection;
use prometheus::IntCounter;
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::transmit::{Carrier, Piece};
use super::transport::{Activity, CutReason, Patience, Protocol, Transport, Verdict, Watched};
use crate::runtime::Tasks;

/// A request head may be this long: 64 KiB for one header, and room for the rest.
///
/// A request for 1,024 ranges has a header of about 20 KiB; tokens of large directories are longer.
pub(super) const MAX_HEAD_BYTES: usize = 72 * 1024;

/// A client of HTTP/2 may have this many requests running on one connection.
const MAX_STREAMS: u32 = 256;

/// What all connections of a listener share.
#[derive(Clone, Debug)]
pub(super) struct ConnectionSettings {
    pub(super) patience: Patience,
    pub(super) tasks: Tasks,
    /// Running requests are finished, no new ones are taken.
    pub(super) drain: CancellationToken,
    /// Bytes that left by sendfile(2).
    pub(super) sendfile_bytes: IntCounter,
}

/// How a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectionError {
    #[error("the client was too slow: {0:?}")]
    Cut(CutReason),
    #[error("no request head came in time")]
    NoHead,
    #[error("read from client")]
    Io(#[source] io::Error),
    #[error("protocol engine")]
    Engine(#[source] hyper::Error),
}

/// Serves a connection until either side ends it.
///
/// May be dropped at any await point: the connection is then cut, and running answers with it.
pub(super) async fn serve_connection<T, S, F, B>(
    io: T,
    settings: &ConnectionSettings,
    service: S,
) -> Result<(), ConnectionError>
where
    T: Carrier + Send + 'static,
    S: Fn(Request<Incoming>) -> F + Send + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Piece> + Send + Unpin + 'static,
    B::Error: std::error::Error + Send + Sync,
{
    let activity = Arc::new(Activity::new());
    // Of its own: each poll locks a token, and the cores would pass that of all connections to and fro.
    let drain = settings.drain.child_token();
    let detected = timeout(settings.patience.head, Transport::detect(io, Arc::clone(&activity)));
    let transport = tokio::select! {
        biased;
        detected = detected => detected.map_err(|_elapsed| ConnectionError::NoHead)?,
        () = drain.cancelled() => return Ok(()),
    };
    let mut transport = transport.map_err(ConnectionError::Io)?;
    let protocol = transport.protocol();
    let outbox = transport.carry_files(&settings.sendfile_bytes);
    let watched = Arc::clone(&activity);
    let service = service_fn(move |mut request: Request<Incoming>| {
        let running = watched.begin_request();
        if let Some(outbox) = &outbox {
            request.extensions_mut().insert(outbox.clone());
        }
        // Not an async block, which would keep room for the future twice.
        service(request).map(|answer| Ok::<_, Infallible>(answer.map(|body| Watched::new(body, running))))
    });
    let io = TokioIo::new(transport);
    match protocol {
        Protocol::Http1 => {
            let connection = http1::Builder::new()
                .header_read_timeout(None)
                .max_header_size(MAX_HEAD_BYTES)
                .serve_connection(io, service);
            drive(connection, &activity, &drain, settings).await
        }
        Protocol::Http2 => {
            let connection = http2::Builder::new(Executor(settings.tasks.clone()))
                .max_header_list_size(u32::try_from(MAX_HEAD_BYTES).unwrap_or(u32::MAX))
                .max_concurrent_streams(MAX_STREAMS)
                .serve_connection(io, service);
            drive(connection, &activity, &drain, settings).await
        }
    }
}

async fn drive<C>(
    connection: C,
    activity: &Activity,
    drain: &CancellationToken,
    settings: &ConnectionSettings,
) -> Result<(), ConnectionError>
where
    C: GracefulConnection<Error = hyper::Error>,
{
    let mut connection = pin!(connection);
    let mut drain = pin!(drain.cancelled());
    let mut watch = Watch {
        activity,
        patience: &settings.patience,
        alarm: Box::pin(sleep_until(Instant::now() + settings.patience.head)),
        close_by: None,
    };
    poll_fn(|context| {
        loop {
            // Polled before the drain is looked at: a request that has arrived is served.
            if let Poll::Ready(result) = connection.as_mut().poll(context) {
                return Poll::Ready(result.map_err(ConnectionError::Engine));
            }
            if watch.close_by.is_none() && drain.as_mut().poll(context).is_ready() {
                watch.close_by = Some(Deadline::Drain);
                connection.as_mut().graceful_shutdown();
                continue;
            }
            match watch.poll(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(reason)) => return Poll::Ready(Err(ConnectionError::Cut(reason))),
                Poll::Ready(None) if watch.close_by.is_none() => {
                    watch.close_by = Some(Deadline::At(Instant::now() + CLOSING_PATIENCE));
                    connection.as_mut().graceful_shutdown();
                }
                // It did not end although nothing runs: the client does not answer.
                Poll::Ready(None) => return Poll::Ready(Ok(())),
            }
        }
    })
    .await
}

/// How long a client may take to answer the announcement that an idle connection closes.
const CLOSING_PATIENCE: Duration = Duration::from_secs(5);

/// By when a connection that was told to end has to end.
#[derive(Clone, Copy, Debug)]
enum Deadline {
    /// When the listener's drain time is over; the listener sees to it.
    Drain,
    At(Instant),
}

/// Looks at a connection's activity when the time comes.
struct Watch<'a> {
    activity: &'a Activity,
    patience: &'a Patience,
    alarm: Pin<Box<Sleep>>,
    close_by: Option<Deadline>,
}

impl Watch<'_> {
    /// Ready with the reason to cut the connection, or with `None` where it is to be closed for
    /// having been idle.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<CutReason>> {
        loop {
            let now = Instant::now();
            let next = match (self.activity.judge(now, self.patience), self.close_by) {
                (Verdict::Cut(reason), _) => return Poll::Ready(Some(reason)),
                (Verdict::CloseIdle, Some(Deadline::At(end))) if now < end => end,
                (Verdict::CloseIdle, _) => return Poll::Ready(None),
                (Verdict::Wait(at), _) => at,
            };
            // Later times need no new alarm: when it rings, the activity is looked at anew.
            if next < self.alarm.deadline() || self.alarm.is_elapsed() {
                self.alarm.as_mut().reset(next);
            }
            if self.alarm.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

/// Runs the streams of HTTP/2 as tasks that the process knows of.
#[derive(Clone, Debug)]
struct Executor(Tasks);

impl<F> hyper::rt::Executor<F> for Executor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        self.0.spawn_here(async move {
            if AssertUnwindSafe(stream).catch_unwind().await.is_err() {
                tracing::error!("an HTTP/2 stream panicked while it sent an answer");
            }
        });
    }
}
