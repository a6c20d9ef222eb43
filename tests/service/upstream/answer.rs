//! An answer before it is on the wire, and its body piece by piece.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::json;

use super::then::Pace;

/// How much of a body is written at once.
const PIECE: u64 = 32 * 1024;

/// An answer: head, body, and how the body goes out.
pub(crate) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    body: Bytes,
    /// The length of the body where it is repeated beyond its own.
    length: u64,
    /// The position of the body's first byte in the content.
    offset: u64,
    pub(super) pace: Pace,
}

/// What comes next of a body.
pub(super) enum Piece {
    Bytes(Bytes),
    /// The body is complete.
    End,
    /// The connection is to be closed here.
    Cut,
}

impl Answer {
    /// An answer with this body.
    pub(super) fn new(status: StatusCode, content_type: &str, body: impl Into<Bytes>) -> Self {
        let body = body.into();
        let mut headers = HeaderMap::new();
        headers.insert("docker-distribution-api-version", HeaderValue::from_static("registry/2.0"));
        headers.insert(header::CONTENT_TYPE, content_type.parse().unwrap());
        headers.insert(header::CONTENT_LENGTH, body.len().into());
        let length = body.len() as u64;
        Self { status, headers, body, length, offset: 0, pace: Pace::default() }
    }

    /// An error as registries tell it.
    pub(super) fn error(status: StatusCode, code: &str) -> Self {
        let body = json!({ "errors": [{ "code": code, "message": format!("scripted {code}") }] });
        Self::new(status, "application/json", body.to_string())
    }

    /// Adds a header.
    pub(super) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.insert(name, value.parse().unwrap());
        self
    }

    /// Says where in the content the body begins.
    pub(super) fn at(mut self, offset: u64) -> Self {
        self.offset = offset;
        self
    }

    pub(super) fn replace_body(&mut self, body: Bytes, repeated: Option<u64>) {
        self.length = repeated.unwrap_or(body.len() as u64);
        self.headers.insert(header::CONTENT_LENGTH, self.length.into());
        self.body = body;
        self.offset = 0;
    }

    /// Waits until the piece at this place of the body may go out.
    pub(super) async fn next_piece(&self, sent: u64) -> Piece {
        let pace = &self.pace;
        let position = self.offset + sent;
        if let Some(gate) = &pace.gate
            && sent == 0
        {
            gate.arrive();
        }
        if pace.stall_at.is_some_and(|at| at <= position) {
            std::future::pending::<()>().await;
        }
        if pace.cut_at.is_some_and(|at| at <= position) {
            return Piece::Cut;
        }
        let mut end = self.offset + self.length;
        if position >= end {
            return Piece::End;
        }
        if let Some(gate) = &pace.gate {
            end = end.min(gate.wait_beyond(position).await);
        }
        for limit in [pace.stall_at, pace.cut_at].into_iter().flatten() {
            end = end.min(limit);
        }
        let mut length = PIECE.min(end - position);
        if let Some(rate) = pace.bytes_per_second {
            length = length.min((rate / 10).max(1));
            tokio::time::sleep(std::time::Duration::from_micros(length * 1_000_000 / rate)).await;
        }
        Piece::Bytes(self.piece(sent, length, pace.flip_at))
    }

    fn piece(&self, sent: u64, length: u64, flip_at: Option<u64>) -> Bytes {
        let own = self.body.len() as u64;
        let start = sent % own;
        let length = length.min(own - start);
        let piece = self.body.slice(to_index(start)..to_index(start + length));
        let position = self.offset + sent;
        match flip_at {
            Some(at) if (position..position + length).contains(&at) => {
                let mut flipped = BytesMut::from(piece);
                flipped[to_index(at - position)] ^= 0xff;
                flipped.freeze()
            }
            _ => piece,
        }
    }
}

pub(super) fn to_index(position: u64) -> usize {
    usize::try_from(position).unwrap()
}
