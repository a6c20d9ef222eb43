//! Bodies of upstream's answers: streamed with a limit for silence, or read whole with a cap.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use prometheus::IntCounter;
use tokio::time::{Instant, timeout};

use super::UpstreamError;
use super::endpoints::Endpoint;
use super::error::{Fault, chain};
use super::link::Switch;
use super::slots::Slot;

/// The bytes of a transfer: ends with `None`, or with the error that cut it.
///
/// Dropping it before its end closes the connection (HTTP/1.1) or resets the stream (HTTP/2).
pub struct TransferBody {
    upstream: Arc<str>,
    body: CountedBody,
    /// What is still to come, where upstream said.
    remaining: Option<u64>,
    /// Told when the transfer fails, so that the next one goes elsewhere first.
    endpoint: Arc<Endpoint>,
    /// The slot at the endpoint, taken for as long as bytes come.
    slot: Option<Slot>,
    ended: bool,
}

impl TransferBody {
    pub(super) const fn new(
        upstream: Arc<str>,
        body: CountedBody,
        length: Option<u64>,
        endpoint: Arc<Endpoint>,
        slot: Slot,
    ) -> Self {
        Self { upstream, body, remaining: length, endpoint, slot: Some(slot), ended: false }
    }

    /// The next bytes, `None` at a clean end; waits no longer than the time-out for silence.
    ///
    /// A body shorter or longer than announced ends with an error. After the end or an error there
    /// is only `None`. May be dropped at any point; no bytes are lost.
    pub async fn next(&mut self) -> Option<Result<Bytes, UpstreamError>> {
        if self.ended {
            return None;
        }
        let part = self.body.next().await;
        let outcome = self.check(part);
        if !matches!(outcome, Some(Ok(_))) {
            self.ended = true;
            self.slot = None;
        }
        outcome.map(|part| {
            part.map_err(|fault| {
                self.endpoint.record_broken_transfer(&fault);
                fault.at(&self.upstream)
            })
        })
    }

    fn check(&mut self, part: Option<Result<Bytes, Fault>>) -> Option<Result<Bytes, Fault>> {
        match (part, &mut self.remaining) {
            (Some(Ok(bytes)), Some(remaining)) => match remaining.checked_sub(bytes.len() as u64) {
                Some(left) => {
                    *remaining = left;
                    Some(Ok(bytes))
                }
                None => Some(Err(Fault::broken("the body is longer than announced"))),
            },
            // A transfer delimited by the connection's end shows a cut only by its count.
            (None, Some(remaining)) if *remaining > 0 => {
                Some(Err(Fault::broken(format!("the body ended {remaining} bytes early"))))
            }
            (part, _) => part,
        }
    }
}

/// A body whose bytes are counted and whose silence is limited; it ends when its upstream goes offline.
pub(super) struct CountedBody {
    body: Incoming,
    silence: Duration,
    bytes: IntCounter,
    switch: Switch,
    /// How long upstream was waited for since the last progress, and how much has come meanwhile.
    waited: Duration,
    come_bytes: usize,
}

impl CountedBody {
    pub(super) const fn new(body: Incoming, silence: Duration, bytes: IntCounter, switch: Switch) -> Self {
        Self { body, silence, bytes, switch, waited: Duration::ZERO, come_bytes: 0 }
    }

    /// The next bytes, never empty; trailers are left out. An upstream that gives them one by one is
    /// silent, too: time counts until there is some progress.
    pub(super) async fn next(&mut self) -> Option<Result<Bytes, Fault>> {
        loop {
            let start = Instant::now();
            let patience = self.silence.saturating_sub(self.waited);
            let frame = match self.switch.run(timeout(patience, self.body.frame())).await {
                Ok(Ok(frame)) => frame?,
                Err(offline) => return Some(Err(offline)),
                Ok(Err(_elapsed)) => {
                    return Some(Err(Fault::unreachable(format!("silent for {:?}", self.silence))));
                }
            };
            self.waited += start.elapsed();
            match frame.map(http_body::Frame::into_data) {
                Ok(Ok(bytes)) if !bytes.is_empty() => {
                    self.bytes.inc_by(bytes.len() as u64);
                    self.come_bytes += bytes.len();
                    if self.come_bytes >= PROGRESS_BYTES {
                        (self.waited, self.come_bytes) = (Duration::ZERO, 0);
                    }
                    return Some(Ok(bytes));
                }
                Ok(_) => {}
                Err(error) => {
                    return Some(Err(Fault::broken(format!("the body was cut: {}", chain(&error)))));
                }
            }
        }
    }

    /// Reads the whole body, `cap_bytes` at most: the one place where a body is read whole.
    pub(super) async fn read_whole(mut self, cap_bytes: usize) -> Result<Bytes, Fault> {
        let too_long = || Fault::broken(format!("the body is longer than {cap_bytes} bytes"));
        let announced = http_body::Body::size_hint(&self.body).lower();
        if announced > cap_bytes as u64 {
            return Err(too_long());
        }
        let mut whole = BytesMut::new();
        while let Some(part) = self.next().await {
            let part = part?;
            if whole.len() + part.len() > cap_bytes {
                return Err(too_long());
            }
            whole.extend_from_slice(&part);
        }
        Ok(whole.freeze())
    }

    /// Reads away a short body that nobody wants, so that its connection can be used again.
    pub(super) async fn drain(self) {
        const WORTH_READING_BYTES: usize = 16 * 1024;
        const WORTH_WAITING: Duration = Duration::from_millis(500);
        // A failure only means that the connection is closed instead.
        let _ = timeout(WORTH_WAITING, self.read_whole(WORTH_READING_BYTES)).await;
    }
}

/// How much of a body is worth waiting for.
const PROGRESS_BYTES: usize = 1024;
