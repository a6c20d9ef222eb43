//! One request and its answer, as the access log and the metrics see it.
//!
//! The record is made when the request's head is there and travels with the answer's body: dropping
//! it, wherever that happens, is the end of the request and writes the line.

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::USER_AGENT;
use http::request::Parts;
use http::{HeaderValue, Method, Response, Uri, Version};
use tokio::time::Instant;

use super::body::{BodyError, ResponseBody};
use super::metrics::{ContentLabel, ServerMetrics};
use super::respond::{Fault, chain_of};
use crate::auth::RequestId;
use crate::registry::{CacheResult, Served};

/// How an answer was come by; travels with the response.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    upstream: Arc<str>,
    kind: ContentLabel,
    result: CacheResult,
}

impl Outcome {
    pub(super) fn new(kind: ContentLabel, served: &Served) -> Self {
        Self { upstream: Arc::clone(&served.upstream), kind, result: served.result }
    }
}

/// One request that runs.
pub(super) struct Exchange {
    metrics: ServerMetrics,
    started: Instant,
    id: RequestId,
    client: SocketAddr,
    method: Method,
    uri: Uri,
    protocol: &'static str,
    user_agent: Option<HeaderValue>,
    route: &'static str,
    /// `None` until there is an answer.
    status: Option<u16>,
    outcome: Option<Outcome>,
    fault: Option<Fault>,
    sent_bytes: u64,
    first_byte: Option<Duration>,
    is_complete: bool,
}

impl Exchange {
    /// Begins the record of a request.
    pub(super) fn begin(metrics: &ServerMetrics, parts: &Parts, client: SocketAddr, id: RequestId) -> Self {
        Self {
            metrics: metrics.clone(),
            started: Instant::now(),
            id,
            client,
            method: parts.method.clone(),
            uri: parts.uri.clone(),
            protocol: protocol_name(parts.version),
            user_agent: parts.headers.get(USER_AGENT).cloned(),
            route: UNKNOWN_ROUTE,
            status: None,
            outcome: None,
            fault: None,
            sent_bytes: 0,
            first_byte: None,
            is_complete: false,
        }
    }

    /// Notes what is asked for.
    pub(super) const fn set_route(&mut self, route: &'static str) {
        self.route = route;
    }

    /// Notes the answer, and lets its body carry the record to its end.
    pub(super) fn answer(
        mut self,
        method: &Method,
        mut response: Response<ResponseBody>,
    ) -> Response<ResponseBody> {
        let status = response.status().as_u16();
        self.status = Some(status);
        self.outcome = response.extensions_mut().remove::<Outcome>();
        self.fault = response.extensions_mut().remove::<Fault>();
        self.metrics.record_answer(self.route, method, status);
        if let Some(outcome) = &self.outcome {
            self.metrics.record_cache(&outcome.upstream, outcome.kind, outcome.result);
        }
        response.map(|body| body.recorded_by(self))
    }

    /// Notes bytes that were handed to the connection.
    pub(super) fn record_sent(&mut self, bytes: usize) {
        self.record_first_byte();
        self.sent_bytes += bytes as u64;
        self.metrics.record_sent(self.outcome.as_ref().map(|outcome| outcome.result), bytes as u64);
    }

    /// Notes that the answer is cut short.
    pub(super) fn record_failure(&mut self, error: &BodyError) {
        self.fault = Some(Fault { class: "cut", text: chain_of(error).into() });
    }

    /// Notes that all of the answer was handed to the connection.
    pub(super) fn record_complete(&mut self) {
        self.record_first_byte();
        self.is_complete = true;
    }

    fn record_first_byte(&mut self) {
        if self.first_byte.is_none() {
            self.first_byte = Some(self.started.elapsed());
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let duration = self.started.elapsed();
        self.metrics.record_duration(self.route, duration);
        let method = escape(self.method.as_str().as_bytes());
        let path = escape(self.uri.path().as_bytes());
        let agent = self.user_agent.as_ref().map(|agent| escape(agent.as_bytes()));
        let outcome = self.outcome.as_ref();
        let fault = self.fault.as_ref();
        let end = if self.is_complete { "complete" } else { "aborted" };
        tracing::info!(
            target: "tidegate::access",
            {
                request.id = %self.id,
                client.address = %address_text(self.client),
                request.method = &*method,
                request.path = &*path,
                request.protocol = self.protocol,
                user_agent = agent.as_deref(),
                route = self.route,
                response.status = self.status,
                sent_bytes = self.sent_bytes,
                duration_ms = milliseconds(duration),
                first_byte_ms = self.first_byte.map(milliseconds),
                upstream.name = outcome.map(|outcome| &*outcome.upstream),
                outcome = outcome.map(|outcome| outcome.result.as_str()),
                end,
                error.class = fault.map(|fault| fault.class),
                error.text = fault.map(|fault| &*fault.text),
            },
            "{method} {path} {}", StatusText(self.status),
        );
    }
}

/// The status, or a dash where the client left before there was one.
struct StatusText(Option<u16>);

impl fmt::Display for StatusText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(status) => status.fmt(f),
            None => f.write_str("-"),
        }
    }
}

/// The address as `Display` writes it. Nearly all have four numbers, which are put together without the formatter's
/// detours: every request has one.
fn address_text(address: SocketAddr) -> String {
    let SocketAddr::V4(address) = address else { return address.to_string() };
    let mut text = String::with_capacity("255.255.255.255:65535".len());
    let mut number = itoa::Buffer::new();
    for (octet, end) in address.ip().octets().into_iter().zip([".", ".", ".", ":"]) {
        text.push_str(number.format(octet));
        text.push_str(end);
    }
    text.push_str(number.format(address.port()));
    text
}

/// Three decimals: hits take well under a millisecond.
fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

const fn protocol_name(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "HTTP/0.9",
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_11 => "HTTP/1.1",
        Version::HTTP_2 => "HTTP/2",
        _ => "other",
    }
}

/// Text of a client's for one line of a log: printable, and not endless.
fn escape(text: &[u8]) -> Cow<'_, str> {
    let is_plain = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\'' | b'\\');
    // Every byte is looked at, without a branch: many at once.
    if text.len() <= MAX_LOGGED_BYTES
        && text.iter().fold(true, |so_far, byte| so_far & is_plain(byte))
        && let Ok(plain) = std::str::from_utf8(text)
    {
        return Cow::Borrowed(plain);
    }
    let shown = &text[..text.len().min(MAX_LOGGED_BYTES)];
    let mut escaped = shown.escape_ascii().to_string();
    if shown.len() < text.len() {
        escaped.push_str("...");
    }
    Cow::Owned(escaped)
}

/// The route of requests that ask for nothing that there is.
const UNKNOWN_ROUTE: &str = "unknown";

const MAX_LOGGED_BYTES: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_send_cannot_break_a_log_line() {
        assert_eq!(escape(b"curl/8\x1b[31m\r\n"), "curl/8\\x1b[31m\\r\\n");
        assert_eq!(escape("/é".as_bytes()), "/\\xc3\\xa9");
        assert_eq!(escape(b"it's \"x\""), "it\\'s \\\"x\\\"");
        assert_eq!(escape(b"/v2/a~b"), "/v2/a~b");
        assert_eq!(escape(&[b'a'; 600]).len(), MAX_LOGGED_BYTES + 3);
    }

    #[test]
    fn an_address_is_written_as_everywhere() {
        for text in ["0.0.0.0:0", "255.255.255.255:65535", "10.0.200.7:5000", "[::1]:80", "[fe80::1%3]:443"] {
            let address = text.parse::<SocketAddr>().unwrap();
            assert_eq!(address_text(address), address.to_string());
        }
    }
}
