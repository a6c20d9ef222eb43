//! Limits of logins: token realms that want to be left alone for a while, kept apart from what registries allow.
//!
//! One for each credential. A realm that throttles does not stop those who hold a token, and a registry that throttles
//! does not stop logins.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use http::{HeaderMap, StatusCode};

use super::answer::retry_after;
use super::error::Fault;
use super::hold::{Cause, Hold, News};
use super::metrics::UpstreamMetrics;
use super::origin::Origin;
use crate::runtime::{Clock, Timestamp};

/// The realms that one credential was shown to.
pub(super) struct Logins {
    upstream: String,
    holds: Mutex<HashMap<Origin, Hold>>,
    metrics: UpstreamMetrics,
    clock: Clock,
}

impl Logins {
    pub(super) fn new(upstream: String, metrics: UpstreamMetrics, clock: Clock) -> Self {
        Self { upstream, holds: Mutex::default(), metrics, clock }
    }

    /// Lets a login through, unless its realm wants none; says when that was.
    pub(super) fn admit(&self, realm: &Origin) -> Result<Timestamp, Fault> {
        let now = self.clock.now();
        match self.lock().get_mut(realm).map(|hold| hold.admit(now)) {
            Some(Err(rest)) => Err(rest.into_fault()),
            _ => Ok(now),
        }
    }

    /// Learns from the answer to a login that was let through at `asked_at`.
    pub(super) fn observe(
        &self,
        realm: &Origin,
        asked_at: Timestamp,
        status: StatusCode,
        headers: &HeaderMap,
    ) {
        let now = self.clock.now();
        let told = retry_after(headers, now);
        let cause = match status.as_u16() {
            429 => Cause::Throttled,
            503 if told.is_some() => Cause::Unavailable,
            _ => {
                let mut holds = self.lock();
                if !status.is_server_error() && holds.get_mut(realm).is_some_and(|hold| hold.end(asked_at)) {
                    holds.remove(realm);
                }
                return;
            }
        };
        let mut holds = self.lock();
        if holds.len() >= MOST_REALMS {
            // A registry names its realms as it likes.
            holds.retain(|_, hold| hold.rest(now).is_some());
            if holds.len() >= MOST_REALMS {
                return;
            }
        }
        let (pause, news) = holds.entry(realm.clone()).or_default().begin(cause, asked_at, now, told);
        drop(holds);
        if news != News::Nothing {
            self.metrics.count_hold(&self.upstream, "login");
        }
        if news == News::Begun {
            tracing::warn!(
                upstream.name = %self.upstream, realm = %realm, status = status.as_u16(), pause_s = pause.as_secs(),
                "token service throttles, it is left alone for a while"
            );
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Origin, Hold>> {
        self.holds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many realms are remembered that want to be left alone.
const MOST_REALMS: usize = 64;
