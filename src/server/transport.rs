//! The bytes of one connection, watched: who waits for whom, and since when.
//!
//! The protocol engine knows no time-out for a client that takes no byte, and mixes up idle
//! connections with slow request heads. [`Activity`] keeps what is needed to tell them apart.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use prometheus::IntCounter;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::transmit::{Carrier, Outbox, Transmitter, find_mark, poll_write_before_more};

/// The protocol that a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

/// For how long the parties of a connection may keep each other waiting.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// For a request's head, from its first byte (of a new connection: from its beginning).
    pub(super) head: Duration,
    /// Between requests.
    pub(super) idle: Duration,
    /// For a client to take another byte of an answer.
    pub(super) write: Duration,
}

/// What is to become of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It goes on; look again at this time.
    Wait(Instant),
    /// It was idle for too long: close it in good order.
    CloseIdle,
    /// The client is too slow: cut it.
    Cut(CutReason),
}

/// Why a connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CutReason {
    /// The head of a request did not come in time.
    SlowHead,
    /// The client took no byte of an answer for too long.
    NotReading,
}

/// What happens on one connection. Times are milliseconds since its beginning.
#[derive(Debug)]
pub(super) struct Activity {
    beginning: Instant,
    /// Requests whose answer has not been produced in full.
    running: AtomicUsize,
    /// Bodies that have handed a part to the protocol engine and were not asked for the next.
    bodies_waiting: AtomicUsize,
    /// The transport did not take what there was to write.
    write_blocked: AtomicBool,
    /// The transport (TLS) holds bytes that the socket did not take.
    flush_blocked: AtomicBool,
    /// When the client last took something, or the wait for it began.
    progress_ms: AtomicU64,
    /// When the last answer ended.
    idle_since_ms: AtomicU64,
    /// When the head that is being read began; `NONE` where none is.
    head_since_ms: AtomicU64,
}

const NONE: u64 = u64::MAX;

impl Activity {
    /// A connection that begins now, and whose first head is due.
    pub(super) fn new() -> Self {
        Self {
            beginning: Instant::now(),
            running: AtomicUsize::new(0),
            bodies_waiting: AtomicUsize::new(0),
            write_blocked: AtomicBool::new(false),
            flush_blocked: AtomicBool::new(false),
            progress_ms: AtomicU64::new(0),
            idle_since_ms: AtomicU64::new(0),
            head_since_ms: AtomicU64::new(0),
        }
    }

    /// Notes that a request's head has come in whole; the request runs until the guard is dropped.
    pub(super) fn begin_request(self: &Arc<Self>) -> Running {
        self.running.fetch_add(1, Ordering::SeqCst);
        self.head_since_ms.store(NONE, Ordering::SeqCst);
        Running(Arc::clone(self))
    }

    /// Says what is to become of the connection at `now`.
    pub(super) fn judge(&self, now: Instant, patience: &Patience) -> Verdict {
        let until = |since_ms: &AtomicU64, patience: Duration, late: Verdict| {
            let due = self.beginning + Duration::from_millis(since_ms.load(Ordering::SeqCst)) + patience;
            if now >= due { late } else { Verdict::Wait(due) }
        };
        let waits_for_client = self.write_blocked.load(Ordering::SeqCst)
            || self.flush_blocked.load(Ordering::SeqCst)
            || self.bodies_waiting.load(Ordering::SeqCst) > 0;
        if waits_for_client {
            until(&self.progress_ms, patience.write, Verdict::Cut(CutReason::NotReading))
        } else if self.running.load(Ordering::SeqCst) > 0 {
            // Bodies of HTTP/2 begin to wait in tasks of their own, so this has to be looked at.
            Verdict::Wait(now + patience.write / 2)
        } else if self.head_since_ms.load(Ordering::SeqCst) != NONE {
            until(&self.head_since_ms, patience.head, Verdict::Cut(CutReason::SlowHead))
        } else {
            until(&self.idle_since_ms, patience.idle, Verdict::CloseIdle)
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.beginning.elapsed().as_millis()).unwrap_or(NONE - 1)
    }

    fn record_progress(&self) {
        self.progress_ms.store(self.now_ms(), Ordering::SeqCst);
    }

    fn record_write<T>(&self, result: &Poll<io::Result<T>>) {
        if result.is_ready() {
            self.write_blocked.store(false, Ordering::SeqCst);
            self.record_progress();
        } else if !self.write_blocked.swap(true, Ordering::SeqCst) {
            self.record_progress();
        }
    }

    /// A flush that is done is no progress: the engine flushes when there is nothing to send, too.
    fn record_flush<T>(&self, result: &Poll<io::Result<T>>) {
        if self.flush_blocked.swap(result.is_pending(), Ordering::SeqCst) != result.is_pending() {
            self.record_progress();
        }
    }

    /// Between requests of HTTP/1.1, the first byte begins a head.
    fn record_read(&self, protocol: Protocol) {
        if protocol == Protocol::Http1 && self.running.load(Ordering::SeqCst) == 0 {
            let now_ms = self.now_ms();
            let _ = self.head_since_ms.compare_exchange(NONE, now_ms, Ordering::SeqCst, Ordering::SeqCst);
        }
    }
}

/// A request that runs.
#[derive(Debug)]
pub(super) struct Running(Arc<Activity>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.idle_since_ms.store(self.0.now_ms(), Ordering::SeqCst);
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A body that tells the connection's [`Activity`] when it waits for the client.
pub(super) struct Watched<B> {
    body: B,
    waits: bool,
    running: Running,
}

impl<B> Watched<B> {
    pub(super) const fn new(body: B, running: Running) -> Self {
        Self { body, waits: false, running }
    }

    fn set_waits(&mut self, waits: bool) {
        if waits == self.waits {
            return;
        }
        self.waits = waits;
        let activity = &self.running.0;
        if waits {
            activity.record_progress();
            activity.bodies_waiting.fetch_add(1, Ordering::SeqCst);
        } else {
            activity.bodies_waiting.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl<B: Body + Unpin> Body for Watched<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        self.set_waits(false);
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if matches!(frame, Some(Ok(_))) {
            self.set_waits(true);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B> Drop for Watched<B> {
    fn drop(&mut self) {
        self.set_waits(false);
    }
}

/// A byte stream whose reads and writes are noted, and whose first bytes may have been read already.
pub(super) struct Transport<T> {
    io: T,
    read_ahead: Bytes,
    protocol: Protocol,
    activity: Arc<Activity>,
    transmitter: Option<Transmitter>,
}

impl<T: Carrier> Transport<T> {
    /// Reads as much as is needed to tell the protocol (RFC 9113, section 3.4: with prior knowledge,
    /// HTTP/2 begins with a preface that no HTTP/1.1 request begins with).
    pub(super) async fn detect(mut io: T, activity: Arc<Activity>) -> io::Result<Self> {
        // A whole head, mostly: more is read where a client sends the preface in pieces.
        let mut start = BytesMut::with_capacity(FIRST_READ);
        let protocol = loop {
            if start.starts_with(PREFACE) {
                break Protocol::Http2;
            }
            if start.len() >= PREFACE.len() || !PREFACE.starts_with(&start) {
                break Protocol::Http1;
            }
            if (&mut io).take(FIRST_READ as u64).read_buf(&mut start).await? == 0 {
                break Protocol::Http1;
            }
        };
        Ok(Self { io, read_ahead: start.freeze(), protocol, activity, transmitter: None })
    }

    /// Lets answers send parts of files, where the connection can: then they are to be put into the outbox.
    /// `sent` counts their bytes.
    pub(super) fn carry_files(&mut self, sent: &IntCounter) -> Option<Outbox> {
        if self.protocol != Protocol::Http1 {
            return None;
        }
        self.io.plain_socket()?;
        let outbox = Outbox::default();
        self.transmitter = Some(Transmitter::new(outbox.clone(), sent.clone()));
        Some(outbox)
    }

    /// Writes what stands before a mark, or else of the part of a file that the mark stands for.
    fn poll_transmit(
        &mut self,
        context: &mut Context<'_>,
        before: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let (Some(transmitter), Some(socket)) = (&mut self.transmitter, self.io.plain_socket()) else {
            return Poll::Ready(Err(io::Error::other("a connection that sends no files was given one")));
        };
        loop {
            // First of all: once the head is on its way, the file should follow at once.
            ready!(transmitter.poll_ready(context))?;
            let result = if before.is_empty() {
                transmitter.poll_send(context, socket)
            } else {
                poll_write_before_more(context, socket, before)
            };
            self.activity.record_write(&result);
            if !matches!(result, Poll::Ready(Ok(0))) {
                return result;
            }
        }
    }

    pub(super) const fn protocol(&self) -> Protocol {
        self.protocol
    }
}

impl<T: Carrier> AsyncRead for Transport<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read_ahead.has_remaining() {
            let count = self.read_ahead.len().min(buffer.remaining());
            buffer.put_slice(&self.read_ahead.split_to(count));
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(context, buffer))?;
        if buffer.filled().len() > before {
            self.activity.record_read(self.protocol);
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: Carrier> AsyncWrite for Transport<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write(context, bytes);
        self.activity.record_write(&result);
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Some(marked) = find_mark(slices) {
            return self.poll_transmit(context, &slices[..marked]);
        }
        let result = Pin::new(&mut self.io).poll_write_vectored(context, slices);
        self.activity.record_write(&result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.io).poll_flush(context);
        self.activity.record_flush(&result);
        result
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

/// How much is read at first, in bytes.
const FIRST_READ: usize = 2048;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience {
        head: Duration::from_secs(10),
        idle: Duration::from_secs(90),
        write: Duration::from_secs(59),
    };

    /// A moment before `limit` is over.
    fn shortly_before(limit: Duration) -> Duration {
        limit.saturating_sub(Duration::from_secs(1))
    }

    async fn judge_after(activity: &Activity, pause: Duration) -> Verdict {
        tokio::time::advance(pause).await;
        activity.judge(Instant::now(), &PATIENCE)
    }

    #[tokio::test(start_paused = true)]
    async fn each_wait_has_its_own_limit() {
        let activity = Arc::new(Activity::new());
        let second = Duration::from_secs(1);
        assert!(matches!(judge_after(&activity, shortly_before(PATIENCE.head)).await, Verdict::Wait(_)));
        assert_eq!(judge_after(&activity, second).await, Verdict::Cut(CutReason::SlowHead));

        let running = activity.begin_request();
        assert!(matches!(judge_after(&activity, second * 1000).await, Verdict::Wait(_)));

        activity.record_write(&Poll::<io::Result<usize>>::Pending);
        assert!(matches!(judge_after(&activity, shortly_before(PATIENCE.write)).await, Verdict::Wait(_)));
        assert_eq!(judge_after(&activity, second).await, Verdict::Cut(CutReason::NotReading));
        activity.record_write(&Poll::Ready(Ok(1)));
        assert!(matches!(judge_after(&activity, second * 1000).await, Verdict::Wait(_)));

        drop(running);
        assert!(matches!(judge_after(&activity, shortly_before(PATIENCE.idle)).await, Verdict::Wait(_)));
        assert_eq!(judge_after(&activity, second).await, Verdict::CloseIdle);
        activity.record_read(Protocol::Http2);
        assert_eq!(judge_after(&activity, second).await, Verdict::CloseIdle, "a ping is no request");
        activity.record_read(Protocol::Http1);
        assert!(matches!(judge_after(&activity, shortly_before(PATIENCE.head)).await, Verdict::Wait(_)));
        activity.record_read(Protocol::Http1);
        assert_eq!(judge_after(&activity, second).await, Verdict::Cut(CutReason::SlowHead), "trickling");
    }

    #[tokio::test(start_paused = true)]
    async fn a_flush_with_nothing_to_send_is_no_progress() {
        let activity = Arc::new(Activity::new());
        let _running = activity.begin_request();
        activity.record_write(&Poll::<io::Result<usize>>::Pending);
        tokio::time::advance(PATIENCE.write / 2).await;
        activity.record_flush(&Poll::Ready(Ok(())));
        let verdict = judge_after(&activity, PATIENCE.write / 2).await;
        assert_eq!(verdict, Verdict::Cut(CutReason::NotReading));
    }
}
