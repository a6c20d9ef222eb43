//! What a rule makes of an answer: everything that upstreams do to those who ask them.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};

use super::Gate;
use super::answer::Answer;

/// A change of the right answer, or an answer of its own. Positions count in the content, not in
/// the transfer: a resumed transfer meets them where the first one would have.
#[derive(Clone, Default)]
pub(crate) struct Then {
    status: Option<StatusCode>,
    headers: Vec<(HeaderName, HeaderValue)>,
    without: Vec<HeaderName>,
    body: Option<Bytes>,
    pub(super) ignores_range: bool,
    head_gate: Option<Gate>,
    head_delay: Option<Duration>,
    pace: Pace,
    closes: bool,
}

/// How a body goes out.
#[derive(Clone, Default)]
pub(crate) struct Pace {
    pub(super) gate: Option<Gate>,
    pub(super) bytes_per_second: Option<u64>,
    pub(super) cut_at: Option<u64>,
    pub(super) stall_at: Option<u64>,
    pub(super) flip_at: Option<u64>,
    pub(super) repeated: Option<u64>,
    pub(super) chunked: bool,
    pub(super) drips_head: bool,
}

/// The right answer, to be spoilt by what follows.
pub(crate) fn serve() -> Then {
    Then::default()
}

/// An answer of this status, without content.
pub(crate) fn status(code: u16) -> Then {
    Then { status: Some(StatusCode::from_u16(code).unwrap()), body: Some(Bytes::new()), ..Then::default() }
}

/// The web page that proxies and load balancers answer with.
pub(crate) fn web_page(code: u16) -> Then {
    status(code).header("content-type", "text/html").body("<html><body><h1>Bad Gateway</h1></body></html>")
}

/// A redirect to this place.
pub(crate) fn redirect(code: u16, location: &str) -> Then {
    status(code).header("location", location)
}

/// No answer at all: the connection is closed.
pub(crate) fn hang_up() -> Then {
    Then { closes: true, ..Then::default() }
}

impl Then {
    /// Sets a header, instead of what would be there.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.parse().unwrap(), value.parse().unwrap()));
        self
    }

    /// Leaves a header out.
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.without.push(name.parse().unwrap());
        self
    }

    /// Answers with this body.
    pub(crate) fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = Some(body.into());
        self
    }

    /// Repeats the body until it is this long, without holding it in memory.
    pub(crate) fn repeated_to(mut self, size_bytes: u64) -> Self {
        self.pace.repeated = Some(size_bytes);
        self
    }

    /// Answers 200 and the whole, whatever range was asked for.
    pub(crate) fn ignoring_range(mut self) -> Self {
        self.ignores_range = true;
        self
    }

    /// Sends no length: chunked.
    pub(crate) fn chunked(mut self) -> Self {
        self.pace.chunked = true;
        self
    }

    /// Sends the head only when the gate is open.
    pub(crate) fn hold_head(mut self, gate: &Gate) -> Self {
        self.head_gate = Some(gate.clone());
        self
    }

    /// Sends the head after this time.
    pub(crate) fn delay_head(mut self, delay: Duration) -> Self {
        self.head_delay = Some(delay);
        self
    }

    /// Sends the head byte by byte, ten a second.
    pub(crate) fn drip_head(mut self) -> Self {
        self.pace.drips_head = true;
        self
    }

    /// Sends the body as far as the gate is open.
    pub(crate) fn hold_body(mut self, gate: &Gate) -> Self {
        self.pace.gate = Some(gate.clone());
        self
    }

    /// Sends so many bytes a second.
    pub(crate) fn rate(mut self, bytes_per_second: u64) -> Self {
        self.pace.bytes_per_second = Some(bytes_per_second);
        self
    }

    /// Closes the connection before the byte at this position.
    pub(crate) fn cut_at(mut self, position: u64) -> Self {
        self.pace.cut_at = Some(position);
        self
    }

    /// Goes silent before the byte at this position.
    pub(crate) fn stall_at(mut self, position: u64) -> Self {
        self.pace.stall_at = Some(position);
        self
    }

    /// Flips the bits of the byte at this position.
    pub(crate) fn flip_at(mut self, position: u64) -> Self {
        self.pace.flip_at = Some(position);
        self
    }

    /// Waits for as long as the head is held; `None` where the connection is to be closed.
    pub(super) async fn apply(&self, right: Answer) -> Option<Answer> {
        if let Some(gate) = &self.head_gate {
            gate.arrive();
            gate.wait_open().await;
        }
        if let Some(delay) = self.head_delay {
            tokio::time::sleep(delay).await;
        }
        if self.closes {
            return None;
        }
        let mut answer = right;
        if let Some(body) = &self.body {
            answer.replace_body(body.clone(), self.pace.repeated);
        }
        if let Some(status) = self.status {
            answer.status = status;
        }
        for name in &self.without {
            answer.headers.remove(name);
        }
        for (name, value) in &self.headers {
            answer.headers.insert(name.clone(), value.clone());
        }
        if self.pace.chunked {
            answer.headers.remove(header::CONTENT_LENGTH);
        }
        answer.pace = self.pace.clone();
        Some(answer)
    }
}
