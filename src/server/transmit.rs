//! Parts of files leave by sendfile(2), on connections where nothing has to be done to the bytes.
//!
//! The protocol engine queues buffers and hands them to the connection in order. In the place of a part of a
//! file it queues a *mark*: a buffer as long as the part, whose bytes do not exist. The body puts the part
//! itself into the connection's [`Outbox`]; the connection recognises the mark among the slices that it is to
//! write, sends the part instead, and reports as many bytes written. Framing, keep-alive and back-pressure
//! stay the engine's.

use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures_util::stream::{BoxStream, StreamExt as _};
use prometheus::IntCounter;
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
use tokio::io::{AsyncRead, AsyncWrite, Interest};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::server::TlsStream;

use crate::blobs::is_socket_error;
use crate::registry::{RegistryError, StoredPart};

/// What the protocol engine queues.
#[derive(Debug)]
pub(super) enum Piece {
    /// Bytes to send.
    Bytes(Bytes),
    /// The place of a part of a file; only [`Outbox::put`] makes it.
    Mark { remaining: usize },
}

/// The address of this byte is what marks are recognised by. It is never sent.
static MARK: [u8; 1] = *b"!";

impl From<Bytes> for Piece {
    fn from(bytes: Bytes) -> Self {
        Self::Bytes(bytes)
    }
}

/// A mark shows one byte, however long it is: the engine goes by [`Buf::remaining`].
impl Buf for Piece {
    fn remaining(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Mark { remaining } => *remaining,
        }
    }

    fn chunk(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Mark { remaining: 0 } => &[],
            Self::Mark { .. } => &MARK,
        }
    }

    fn advance(&mut self, count: usize) {
        match self {
            Self::Bytes(bytes) => bytes.advance(count),
            Self::Mark { remaining } => *remaining -= count,
        }
    }
}

/// The parts of files that a connection is to send, in the order of their marks. Cloning gives another
/// handle. A request carries it where its answer may use it.
#[derive(Clone, Default)]
pub(super) struct Outbox(Arc<Mutex<VecDeque<StoredPart>>>);

impl Outbox {
    /// Takes a part; the mark must be the next that the protocol engine is given.
    pub(super) fn put(&self, part: StoredPart) -> Piece {
        let range = part.slice.range();
        let remaining = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(part);
        Piece::Mark { remaining }
    }

    fn take(&self) -> Option<StoredPart> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

/// A byte stream to a client that may be able to send files.
pub(super) trait Carrier: AsyncRead + AsyncWrite + Unpin {
    /// The socket, where bytes leave as they are.
    fn plain_socket(&self) -> Option<&TcpStream>;
}

impl Carrier for TcpStream {
    fn plain_socket(&self) -> Option<&TcpStream> {
        Some(self)
    }
}

impl Carrier for TlsStream<TcpStream> {
    fn plain_socket(&self) -> Option<&TcpStream> {
        None
    }
}

/// The index of the first mark among slices.
pub(super) fn find_mark(slices: &[IoSlice<'_>]) -> Option<usize> {
    slices.iter().position(|slice| std::ptr::eq(slice.as_ptr(), MARK.as_ptr()))
}

/// Sends the parts of an [`Outbox`].
pub(super) struct Transmitter {
    outbox: Outbox,
    sent: IntCounter,
    current: Option<Transmission>,
}

/// One part on its way.
struct Transmission {
    part: StoredPart,
    state: State,
}

enum State {
    /// It has not been looked whether the part is in the page cache.
    New,
    /// A thread that may block brings it there.
    Loading(JoinHandle<io::Result<()>>),
    /// It is sent from its file.
    Sending,
    /// The file cannot be sent: the rest is read, from the file or from upstream.
    Reading { parts: BoxStream<'static, Result<Bytes, RegistryError>>, next: Bytes },
}

impl Transmitter {
    /// `sent` counts what leaves by sendfile(2).
    pub(super) const fn new(outbox: Outbox, sent: IntCounter) -> Self {
        Self { outbox, sent, current: None }
    }

    /// Gets the next part ready to be sent without waiting for the disk.
    pub(super) fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.current.is_none() {
            let part = self.outbox.take();
            let part = part.ok_or_else(|| io::Error::other("a mark has no part of a file"))?;
            self.current = Some(Transmission { part, state: State::New });
        }
        match &mut self.current {
            Some(transmission) => transmission.poll_ready(context),
            None => Poll::Ready(Ok(())),
        }
    }

    /// Sends from the part that is ready what the socket takes. Nothing was sent where the part has to be
    /// got ready in another way: [`Transmitter::poll_ready`] is to be called again.
    pub(super) fn poll_send(
        &mut self,
        context: &mut Context<'_>,
        socket: &TcpStream,
    ) -> Poll<io::Result<usize>> {
        let Some(transmission) = &mut self.current else { return Poll::Ready(Ok(0)) };
        let count = if let State::Reading { next, .. } = &mut transmission.state {
            let count = ready!(poll_io(context, socket, || socket.try_write(next)))?;
            next.advance(count);
            transmission.part.slice.skip(count);
            count
        } else {
            let count = ready!(transmission.poll_sendfile(context, socket))?;
            self.sent.inc_by(count as u64);
            count
        };
        if transmission.part.slice.is_empty() {
            self.current = None;
        }
        Poll::Ready(Ok(count))
    }
}

impl Transmission {
    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match &mut self.state {
                State::Sending => return Poll::Ready(Ok(())),
                State::Reading { next, .. } if next.has_remaining() => return Poll::Ready(Ok(())),
                State::New if self.part.slice.is_resident() => self.state = State::Sending,
                State::New => {
                    let slice = self.part.slice.clone();
                    // Untracked: it ends by itself and leaves nothing that shutdown should wait for.
                    self.state = State::Loading(tokio::task::spawn_blocking(move || slice.load()));
                }
                State::Loading(load) => match ready!(Pin::new(load).poll(context)) {
                    Ok(Ok(())) => self.state = State::Sending,
                    Ok(Err(_)) | Err(_) => self.read_instead(),
                },
                State::Reading { parts, next } => match ready!(parts.poll_next_unpin(context)) {
                    Some(Ok(bytes)) => *next = bytes,
                    Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                    None => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                },
            }
        }
    }

    fn poll_sendfile(&mut self, context: &mut Context<'_>, socket: &TcpStream) -> Poll<io::Result<usize>> {
        let slice = &mut self.part.slice;
        match ready!(poll_io(context, socket, || slice.send_to(socket))) {
            Ok(count @ 1..) => Poll::Ready(Ok(count)),
            Err(error) if is_socket_error(&error) => Poll::Ready(Err(error)),
            // The file ends early, fails, or cannot be sent from where it lies.
            Ok(0) | Err(_) => {
                self.read_instead();
                Poll::Ready(Ok(0))
            }
        }
    }

    fn read_instead(&mut self) {
        self.state = State::Reading { parts: self.part.read_instead(), next: Bytes::new() };
    }
}

/// Writes bytes that more will follow at once: the system may keep them back to fill a segment.
pub(super) fn poll_write_before_more(
    context: &mut Context<'_>,
    socket: &TcpStream,
    slices: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    poll_io(context, socket, || {
        let sent = sendmsg(socket, slices, &mut SendAncillaryBuffer::default(), SendFlags::MORE);
        sent.map_err(io::Error::from)
    })
}

/// Tries until the socket takes something, or would block.
fn poll_io(
    context: &mut Context<'_>,
    socket: &TcpStream,
    mut attempt: impl FnMut() -> io::Result<usize>,
) -> Poll<io::Result<usize>> {
    loop {
        ready!(socket.poll_write_ready(context))?;
        match socket.try_io(Interest::WRITABLE, &mut attempt) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return Poll::Ready(done),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_as_long_as_its_part_and_shows_one_byte() {
        let mut mark = Piece::Mark { remaining: 5_000_000 };
        assert_eq!((mark.remaining(), mark.chunk().len()), (5_000_000, 1));
        mark.advance(4_999_999);
        assert_eq!((mark.remaining(), mark.chunk().len()), (1, 1));
        mark.advance(1);
        assert!(!mark.has_remaining() && mark.chunk().is_empty());
    }

    #[test]
    fn marks_are_found_by_their_place_not_by_their_content() {
        let (mark, same) = (Piece::Mark { remaining: 7 }, Piece::from(Bytes::copy_from_slice(&MARK)));
        let head = IoSlice::new(b"HTTP/1.1 200 OK");
        let slices = [head, IoSlice::new(same.chunk()), IoSlice::new(mark.chunk()), IoSlice::new(b"\r\n")];
        assert_eq!(find_mark(&slices), Some(2));
        assert_eq!(find_mark(&slices[..2]), None);
    }
}
