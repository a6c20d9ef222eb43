//! Whose fault it is when upstream gives no content.

use std::path::PathBuf;
use std::time::Duration;

use super::priority::Priority;

/// Why upstream gave no content. The classes stay apart all the way to the client.
#[derive(Clone, Debug, thiserror::Error)]
pub enum UpstreamError {
    /// Upstream says that it does not exist: 404.
    #[error("upstream {upstream} does not have it")]
    Absent {
        /// The upstream's name.
        upstream: String,
    },
    /// Upstream answers 401 for a token that was just granted. Docker Hub, quay.io and GitLab say so of
    /// what does not exist and of what is private, and do not tell which.
    #[error("upstream {upstream} does not have it, or does not show it")]
    Withheld {
        /// The upstream's name.
        upstream: String,
    },
    /// Upstream refuses: 403, or the token realm refuses this node's credentials.
    #[error("upstream {upstream} refuses access: {reason}")]
    Forbidden {
        /// The upstream's name.
        upstream: String,
        /// What it said, safe to show.
        reason: String,
    },
    /// Upstream refuses whatever this node asks: bad credentials, a blocked address. See
    /// [`super::Upstream::weigh_refusal`].
    #[error("upstream {upstream} lets this node in no more: {reason}")]
    Barred {
        /// The upstream's name.
        upstream: String,
        /// What it said, safe to show.
        reason: String,
    },
    /// Upstream throttles: 429.
    #[error("upstream {upstream} throttles")]
    Throttled {
        /// The upstream's name.
        upstream: String,
        /// How long it asks to wait, capped.
        retry_after: Option<Duration>,
    },
    /// Upstream was not asked: what is left of what it allows is kept for the more urgent.
    #[error("upstream {upstream} was not asked: what is left of its limit is kept for more urgent requests")]
    Reserved {
        /// The upstream's name.
        upstream: String,
        /// How urgent the question was.
        priority: Priority,
        /// When to look again.
        retry_after: Duration,
    },
    /// Upstream answers, but with nothing that can be used: 5xx, HTML, a redirect that is not
    /// allowed, a digest that does not match, a body cut short.
    #[error("upstream {upstream} is broken: {reason}")]
    Broken {
        /// The upstream's name.
        upstream: String,
        /// What is wrong, safe to show.
        reason: String,
    },
    /// Upstream does not answer: no address, no connection, TLS failure, silence, breaker open.
    #[error("upstream {upstream} is unreachable: {reason}")]
    Unreachable {
        /// The upstream's name.
        upstream: String,
        /// What was tried, safe to show.
        reason: String,
    },
    /// Upstream was not asked: this node is offline for it.
    #[error("this node is offline for upstream {upstream}")]
    Offline {
        /// The upstream's name.
        upstream: String,
    },
}

impl UpstreamError {
    /// The class as one word: for logs, metrics and `Cache-Status`.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Absent { .. } | Self::Withheld { .. } => "absent",
            Self::Forbidden { .. } => "forbidden",
            Self::Barred { .. } => "barred",
            Self::Throttled { .. } | Self::Reserved { .. } => "throttled",
            Self::Broken { .. } => "broken",
            Self::Unreachable { .. } => "unreachable",
            Self::Offline { .. } => "offline",
        }
    }

    /// Whether it says something about upstream only, and nothing about the content.
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::Absent { .. } | Self::Withheld { .. } | Self::Forbidden { .. } => false,
            Self::Barred { .. }
            | Self::Throttled { .. }
            | Self::Reserved { .. }
            | Self::Broken { .. }
            | Self::Unreachable { .. }
            | Self::Offline { .. } => true,
        }
    }
}

impl UpstreamError {
    /// Whether it says only that the question was not urgent enough to be asked, so that who asks with `priority` is to
    /// ask again.
    pub fn spares_less_urgent_than(&self, priority: Priority) -> bool {
        matches!(self, Self::Reserved { priority: refused, .. } if priority < *refused)
    }
}

/// Why an upstream cannot be set up from its configuration.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// An endpoint is no absolute `http` or `https` URL, or there is none.
    #[error("upstream {upstream} has no usable endpoint: {endpoint:?}")]
    Endpoint {
        /// The upstream's name.
        upstream: String,
        /// The endpoint as configured; empty where there is none.
        endpoint: String,
    },
    /// The file with certificate authorities cannot be read.
    #[error("read certificate authorities of {whose} from {path}")]
    ReadCaFile {
        /// Whose connections they are for.
        whose: String,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file with certificate authorities holds none that can be used.
    #[error("no usable PEM certificate of {whose} in {path}")]
    NoCertificate {
        /// Whose connections they are for.
        whose: String,
        /// The file.
        path: PathBuf,
    },
    /// The TLS library refuses its settings.
    #[error("set up TLS of {whose}")]
    Tls {
        /// Whose connections it is for.
        whose: String,
        /// Why.
        source: rustls::Error,
    },
    /// The name resolver cannot be set up.
    #[error("set up the name resolver")]
    Resolver(#[source] hickory_resolver::net::NetError),
    /// The node's id cannot stand in a header.
    #[error("node id {0:?} cannot stand in a header")]
    NodeId(String),
}

/// An [`UpstreamError`] before it knows the upstream's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Absent,
    /// Absent, or not shown: a token that was just granted is no good for it.
    Withheld,
    Forbidden(String),
    /// Forbidden, for want of a login that nobody configured.
    LoginWanted,
    /// Forbidden: a login that this node has is not taken.
    LoginRefused,
    Throttled(Option<Duration>),
    /// Not asked; what is left is for those who are more urgent than this.
    Reserved(Priority, Duration),
    Broken(String),
    /// Broken here: this node's own credentials cannot be read.
    Credentials(String),
    /// Broken by a status that means nothing else.
    Status(u16),
    Unreachable(String),
    /// Not asked.
    Offline,
}

impl Fault {
    /// Broken, with a reason that may hold what upstream sent.
    pub(super) fn broken(reason: impl AsRef<str>) -> Self {
        Self::Broken(printable(reason.as_ref()))
    }

    /// Unreachable, with a reason that may hold what upstream sent.
    pub(super) fn unreachable(reason: impl AsRef<str>) -> Self {
        Self::Unreachable(printable(reason.as_ref()))
    }

    /// The same with the upstream's name.
    pub(super) fn at(self, upstream: &str) -> UpstreamError {
        let upstream = upstream.to_owned();
        match self {
            Self::Absent => UpstreamError::Absent { upstream },
            Self::Withheld => UpstreamError::Withheld { upstream },
            Self::Forbidden(reason) => UpstreamError::Forbidden { upstream, reason },
            Self::LoginWanted | Self::LoginRefused => {
                UpstreamError::Forbidden { upstream, reason: self.summary() }
            }
            Self::Throttled(retry_after) => UpstreamError::Throttled { upstream, retry_after },
            Self::Reserved(priority, retry_after) => {
                UpstreamError::Reserved { upstream, priority, retry_after }
            }
            Self::Broken(reason) | Self::Credentials(reason) => UpstreamError::Broken { upstream, reason },
            Self::Status(_) => UpstreamError::Broken { upstream, reason: self.summary() },
            Self::Unreachable(reason) => UpstreamError::Unreachable { upstream, reason },
            Self::Offline => UpstreamError::Offline { upstream },
        }
    }

    /// Whether another endpoint may do better.
    pub(super) const fn is_transient(&self) -> bool {
        !matches!(
            self,
            Self::Absent | Self::Withheld | Self::Forbidden(_) | Self::LoginWanted | Self::LoginRefused
        )
    }

    /// How much it tells a user whose every endpoint failed; the most telling fault is reported.
    const fn weight(&self) -> u8 {
        match self {
            Self::Unreachable(_) | Self::Offline => 0,
            Self::Broken(_) | Self::Credentials(_) | Self::Status(_) => 1,
            Self::Throttled(_) | Self::Reserved(..) => 2,
            Self::Absent | Self::Withheld | Self::Forbidden(_) | Self::LoginWanted | Self::LoginRefused => 3,
        }
    }

    /// The more telling of two, the first of equals.
    pub(super) fn or_more_telling(self, other: Self) -> Self {
        if other.weight() > self.weight() { other } else { self }
    }

    /// The class and reason in one text, for logs and status.
    pub(super) fn summary(&self) -> String {
        match self {
            Self::Absent => "absent".to_owned(),
            Self::Withheld => "it takes no token for it".to_owned(),
            Self::LoginWanted => "it asks for a login and none is configured".to_owned(),
            Self::LoginRefused => "it rejects this node's credentials".to_owned(),
            Self::Reserved(..) => "what is left of its limit is kept for more urgent requests".to_owned(),
            Self::Forbidden(reason)
            | Self::Broken(reason)
            | Self::Credentials(reason)
            | Self::Unreachable(reason) => reason.clone(),
            Self::Status(code) => format!("it answers {code}"),
            Self::Throttled(_) => "it throttles".to_owned(),
            Self::Offline => "this node is offline for it".to_owned(),
        }
    }
}

/// Text from outside as it may stand in a log or an error: no control characters, not long.
pub(super) fn printable(text: &str) -> String {
    const MAX_LETTERS: usize = 300;
    text.chars().take(MAX_LETTERS).map(|letter| if letter.is_control() { '?' } else { letter }).collect()
}

/// An error with its sources in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let next = error.to_string();
        // Many libraries repeat their source.
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        source = error.source();
    }
    printable(&text)
}
