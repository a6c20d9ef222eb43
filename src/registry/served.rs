//! How an answer was come by: the same words in log, header and metric.

use std::sync::Arc;
use std::time::Duration;

use crate::runtime::Timestamp;
use crate::upstream::UpstreamError;

/// The result of looking into the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CacheResult {
    /// From the cache, no question asked.
    Hit,
    /// Fetched from upstream for this request.
    Miss,
    /// Fetched from upstream by an earlier request that still ran.
    Collapsed,
    /// From the cache although its time is over: upstream is being asked, or cannot be asked.
    Stale,
    /// From the cache after upstream confirmed it.
    Revalidated,
    /// Passed through without being kept.
    Bypass,
}

impl CacheResult {
    /// The word in logs, metrics and headers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Collapsed => "collapsed",
            Self::Stale => "stale",
            Self::Revalidated => "revalidated",
            Self::Bypass => "bypass",
        }
    }
}

/// Why an answer is stale.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Staleness {
    /// When upstream last confirmed the content; `None` where nobody knows.
    pub checked_at: Option<Timestamp>,
    /// What keeps a newer answer away.
    pub cause: StaleCause,
}

/// What keeps a newer answer away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StaleCause {
    /// Upstream is being asked in the background: nothing is wrong.
    Asking,
    /// Upstream cannot be asked, or not in time; the word is the class of its error.
    Trouble(&'static str),
    /// This node is offline for upstream.
    Offline,
    /// Upstream has deleted it.
    Deleted {
        /// When that was noticed.
        since: Timestamp,
    },
}

impl StaleCause {
    /// What an error of upstream means for an answer that is here.
    pub(super) const fn of(error: &UpstreamError) -> Self {
        match error {
            UpstreamError::Offline { .. } => Self::Offline,
            error => Self::Trouble(error.kind()),
        }
    }
}

/// How an answer was come by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// The result of looking into the cache.
    pub result: CacheResult,
    /// The upstream's name.
    pub upstream: Arc<str>,
    /// The time since upstream confirmed a tag's answer: the `Age` header.
    pub age: Option<Duration>,
    /// Set where the result is [`CacheResult::Stale`].
    pub staleness: Option<Staleness>,
    /// Whether a fetched answer is kept.
    pub stored: bool,
}

impl Served {
    /// An answer without age: what never goes stale, or was just fetched.
    pub(super) fn new(result: CacheResult, upstream: &Arc<str>) -> Self {
        Self { result, upstream: Arc::clone(upstream), age: None, staleness: None, stored: false }
    }
}
