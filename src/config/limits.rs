//! Time-outs towards upstreams.

use std::time::Duration;

/// How long an upstream may take; there is no limit for a whole transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// To connect, TLS included.
    pub connect: Duration,
    /// From the request to the head of the answer.
    pub first_byte: Duration,
    /// Between two parts of a body that are worth the wait.
    pub silence: Duration,
    /// For a client, until what is not cached begins to come; the question goes on.
    pub miss: Duration,
}
