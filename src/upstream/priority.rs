//! On whose behalf upstream is asked: what is scarce goes first to those who wait.

use tokio_util::sync::CancellationToken;

/// Who wants an answer, the most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// A client waits for what is not here.
    Client,
    /// What is here is compared with upstream; it can be served meanwhile.
    Revalidation,
    /// Nobody waits for it yet: warmed or prefetched.
    Ahead,
}

impl Priority {
    /// All of them, the most urgent first.
    pub(super) const ALL: [Self; 3] = [Self::Client, Self::Revalidation, Self::Ahead];

    /// The metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Revalidation => "revalidation",
            Self::Ahead => "ahead",
        }
    }

    /// The share of a budget, in percent, that it leaves to those before it.
    pub(super) const fn reserve_percent(self) -> u64 {
        match self {
            Self::Client => 0,
            Self::Revalidation => 10,
            Self::Ahead => 30,
        }
    }
}

/// A priority that may rise while upstream is being asked: a client joins those who wait.
#[derive(Clone, Debug)]
pub struct Urgency {
    priority: Priority,
    hurry: Option<CancellationToken>,
}

impl Urgency {
    /// A client waits.
    pub const CLIENT: Self = Self::fixed(Priority::Client);

    /// One that stays as it is.
    pub const fn fixed(priority: Priority) -> Self {
        Self { priority, hurry: None }
    }

    /// One that is a client's as soon as `hurry` is cancelled.
    pub const fn until_hurried(priority: Priority, hurry: CancellationToken) -> Self {
        Self { priority, hurry: Some(hurry) }
    }

    /// The priority at present.
    pub fn now(&self) -> Priority {
        let is_hurried = self.hurry.as_ref().is_some_and(CancellationToken::is_cancelled);
        if is_hurried { Priority::Client } else { self.priority }
    }

    /// Waits until it has risen; for ever where it cannot.
    pub(super) async fn risen(&self) {
        match &self.hurry {
            Some(hurry) if self.now() != Priority::Client => hurry.cancelled().await,
            _ => std::future::pending().await,
        }
    }
}
