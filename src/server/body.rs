//! Bodies of answers: small ones at hand, large ones as they come.
//!
//! A body of known size that ends early, or goes on, is an error: the protocol engine then cuts the
//! connection (HTTP/2: resets the stream), so that no client takes a part for the whole.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use futures_util::stream::{self, BoxStream, StreamExt as _};
use http_body::{Body, Frame, SizeHint};

use super::exchange::Exchange;
use super::transmit::{Outbox, Piece};
use crate::registry::hosted::ContentStream;
use crate::registry::{BlobPart, BlobStream, RegistryError};

/// The body of an answer.
pub(super) struct ResponseBody {
    content: Content,
    /// Records what is sent; the answer's end is when the body is dropped.
    exchange: Option<Exchange>,
}

enum Content {
    /// Nothing, or nothing more.
    Empty,
    /// All at hand.
    Whole(Bytes),
    /// Comes as it is asked for.
    Stream { parts: PieceStream, remaining_bytes: Option<u64> },
}

/// The parts of a body, in order.
pub(super) type PieceStream = BoxStream<'static, Result<Piece, RegistryError>>;

/// Why an answer is cut short.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    /// Its source failed.
    #[error(transparent)]
    Source(#[from] RegistryError),
    /// Its source ended before the size that was announced.
    #[error("body ended {missing_bytes} bytes early")]
    Short {
        /// What is missing.
        missing_bytes: u64,
    },
    /// Its source has more than the size that was announced.
    #[error("body is longer than announced")]
    Long,
}

impl ResponseBody {
    /// No content.
    pub(super) const fn empty() -> Self {
        Self { content: Content::Empty, exchange: None }
    }

    /// Content at hand.
    pub(super) fn whole(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let content = if bytes.is_empty() { Content::Empty } else { Content::Whole(bytes) };
        Self { content, exchange: None }
    }

    /// Content that comes; of `size_bytes`, where that is known.
    pub(super) fn stream(parts: PieceStream, size_bytes: Option<u64>) -> Self {
        let content = match size_bytes {
            Some(0) => Content::Empty,
            remaining_bytes => Content::Stream { parts, remaining_bytes },
        };
        Self { content, exchange: None }
    }

    /// Lets `exchange` record what is sent from now on.
    pub(super) fn recorded_by(mut self, mut exchange: Exchange) -> Self {
        if matches!(self.content, Content::Empty) {
            exchange.record_complete();
        }
        self.exchange = Some(exchange);
        self
    }

    /// The size in bytes, where it is known.
    pub(super) fn size_bytes(&self) -> Option<u64> {
        match &self.content {
            Content::Empty => Some(0),
            Content::Whole(bytes) => Some(bytes.len() as u64),
            Content::Stream { remaining_bytes, .. } => *remaining_bytes,
        }
    }

    fn poll_part(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Piece, BodyError>>> {
        match &mut self.content {
            Content::Empty => Poll::Ready(None),
            Content::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                self.content = Content::Empty;
                Poll::Ready(Some(Ok(bytes.into())))
            }
            Content::Stream { parts, remaining_bytes } => {
                let part = ready!(parts.as_mut().poll_next(context));
                let part = accept_part(part, remaining_bytes);
                if *remaining_bytes == Some(0) || !matches!(part, Some(Ok(_))) {
                    self.content = Content::Empty;
                }
                Poll::Ready(part)
            }
        }
    }
}

/// Holds a part against what was announced.
fn accept_part(
    part: Option<Result<Piece, RegistryError>>,
    remaining_bytes: &mut Option<u64>,
) -> Option<Result<Piece, BodyError>> {
    match (part, remaining_bytes) {
        (Some(Err(error)), _) => Some(Err(BodyError::Source(error))),
        (Some(Ok(piece)), None) => Some(Ok(piece)),
        (Some(Ok(piece)), Some(remaining)) => match remaining.checked_sub(piece.remaining() as u64) {
            Some(rest) => {
                *remaining = rest;
                Some(Ok(piece))
            }
            None => Some(Err(BodyError::Long)),
        },
        (None, Some(missing_bytes @ 1..)) => Some(Err(BodyError::Short { missing_bytes: *missing_bytes })),
        (None, Some(0) | None) => None,
    }
}

impl Body for ResponseBody {
    type Data = Piece;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, BodyError>>> {
        let part = ready!(self.poll_part(context));
        let ended = matches!(self.content, Content::Empty);
        if let Some(exchange) = &mut self.exchange {
            match &part {
                Some(Ok(piece)) => exchange.record_sent(piece.remaining()),
                Some(Err(error)) => exchange.record_failure(error),
                None => {}
            }
            if ended && !matches!(part, Some(Err(_))) {
                exchange.record_complete();
            }
        }
        Poll::Ready(part.map(|part| part.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.content, Content::Empty)
    }

    fn size_hint(&self) -> SizeHint {
        self.size_bytes().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// The parts of an opened blob; those that lie in files go to the outbox, where there is one. Costs one
/// allocation a body and none a part.
pub(super) fn blob_pieces(blob: BlobStream, outbox: Option<Outbox>) -> PieceStream {
    let Some(outbox) = outbox else {
        return blob.into_bytes().map(|part| part.map(Piece::Bytes)).boxed();
    };
    stream::unfold((blob, outbox), |(mut blob, outbox)| async move {
        let piece = blob.next_part().await?.map(|part| match part {
            BlobPart::Bytes(bytes) => Piece::Bytes(bytes),
            BlobPart::Stored(part) => outbox.put(part),
        });
        Some((piece, (blob, outbox)))
    })
    .boxed()
}

/// The same of an opened blob that is hosted here.
pub(super) fn hosted_pieces(content: ContentStream, outbox: Option<Outbox>) -> PieceStream {
    let Some(outbox) = outbox else {
        return content.into_bytes().map(|part| part.map(Piece::Bytes)).boxed();
    };
    stream::unfold((content, outbox), |(mut content, outbox)| async move {
        let piece = content.next_part().await?.map(|part| match part {
            BlobPart::Bytes(bytes) => Piece::Bytes(bytes),
            BlobPart::Stored(part) => outbox.put(part),
        });
        Some((piece, (content, outbox)))
    })
    .boxed()
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    fn body_of(parts: &[&'static str], size_bytes: Option<u64>) -> ResponseBody {
        let parts =
            parts.iter().map(|part| Ok(Bytes::from_static(part.as_bytes()).into())).collect::<Vec<_>>();
        ResponseBody::stream(stream::iter(parts).boxed(), size_bytes)
    }

    #[tokio::test]
    async fn a_body_gives_just_what_was_announced() {
        for size_bytes in [Some(6), None] {
            let collected = body_of(&["abc", "def"], size_bytes).collect().await.unwrap();
            assert_eq!(collected.to_bytes(), "abcdef");
        }
        assert_eq!(body_of(&["abc"], Some(3)).size_hint().exact(), Some(3));
        assert!(ResponseBody::whole("").is_end_stream());
    }

    #[tokio::test]
    async fn a_body_that_is_shorter_or_longer_than_announced_fails() {
        let short = body_of(&["abc"], Some(4)).collect().await.unwrap_err();
        assert!(matches!(short, BodyError::Short { missing_bytes: 1 }));
        let long = body_of(&["abc", "de"], Some(4)).collect().await.unwrap_err();
        assert!(matches!(long, BodyError::Long));
    }

    #[tokio::test]
    async fn an_error_of_the_source_is_no_end() {
        let parts = [Ok(Bytes::from_static(b"abc").into()), Err(RegistryError::Internal)];
        let mut body = ResponseBody::stream(stream::iter(parts).boxed(), None);
        assert!(body.frame().await.unwrap().is_ok());
        assert!(matches!(body.frame().await.unwrap(), Err(BodyError::Source(_))));
        assert!(body.is_end_stream());
    }
}
