//! The credentials of one upstream, used in turn.
//!
//! The one in use is kept, so that its tokens serve on, until it is held back, refused, or another has twice as much
//! left. One that is refused is used last for a while.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::budget::{Budget, Cost};
use super::priority::Priority;
use super::token::Authorizer;
use crate::config::Credentials;
use crate::runtime::{Clock, Timestamp};

/// One credential.
pub(super) struct Account {
    /// Whose it is, for logs.
    name: String,
    pub(super) authorizer: Authorizer,
    /// Since when it is set aside.
    refused_at: Mutex<Option<Timestamp>>,
}

/// All credentials of an upstream; at least one, which may be none at all.
pub(super) struct Accounts {
    upstream: String,
    list: Vec<Account>,
    current: AtomicUsize,
    clock: Clock,
}

impl Account {
    pub(super) fn new(credentials: &Credentials, authorizer: Authorizer) -> Self {
        let name = match credentials {
            Credentials::Anonymous => "nobody".to_owned(),
            Credentials::Password { username, .. } | Credentials::PasswordFile { username, .. } => {
                username.clone()
            }
            Credentials::Helper { helper } => format!("docker-credential-{helper}"),
        };
        Self { name, authorizer, refused_at: Mutex::default() }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    fn is_aside(&self, now: Timestamp) -> bool {
        let refused_at = *self.refused_at.lock().unwrap_or_else(PoisonError::into_inner);
        // In the future: the clock was set back.
        refused_at.is_some_and(|refused_at| refused_at <= now && now.since(refused_at) < ASIDE)
    }
}

impl Accounts {
    pub(super) const fn new(upstream: String, list: Vec<Account>, clock: Clock) -> Self {
        Self { upstream, list, current: AtomicUsize::new(0), clock }
    }

    /// All of them with their places, in the order in which to use them for a question; `budgets` are those of the
    /// endpoint that is asked.
    pub(super) fn in_turn(
        &self,
        budgets: &[Budget],
        cost: Cost,
        priority: Priority,
    ) -> Vec<(usize, &Account)> {
        let mut order: Vec<_> = self.list.iter().enumerate().collect();
        if order.len() < 2 {
            return order;
        }
        let (now, current) = (self.clock.now(), self.current.load(Ordering::Relaxed) % order.len());
        order.rotate_left(current);
        order.sort_by_cached_key(|(place, account)| {
            let budget = budgets.get(*place);
            let is_refused = budget.is_some_and(|budget| budget.check(cost, priority).is_err());
            // What is not known is worth a try.
            let left = budget.and_then(Budget::remaining).unwrap_or(u64::MAX);
            let weight = if *place == current { left.saturating_mul(2) } else { left };
            (account.is_aside(now), is_refused, std::cmp::Reverse(weight))
        });
        order
    }

    /// Notes that upstream let this one in: it is used on.
    pub(super) fn note_use(&self, place: usize) {
        self.current.store(place, Ordering::Relaxed);
        let Some(account) = self.list.get(place) else { return };
        let refused_at = account.refused_at.lock().unwrap_or_else(PoisonError::into_inner).take();
        if refused_at.is_some() {
            tracing::info!(upstream.name = %self.upstream, credential = %account.name, "credential is accepted again");
        }
    }

    /// Notes that upstream refuses this one. Told once; where it is the only one, there is nothing to set it aside for.
    pub(super) fn note_refusal(&self, place: usize) {
        let Some(account) = self.list.get(place).filter(|_| self.list.len() > 1) else { return };
        let mut refused_at = account.refused_at.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = refused_at.is_none();
        *refused_at = Some(self.clock.now());
        if is_new {
            tracing::warn!(
                upstream.name = %self.upstream, credential = %account.name,
                "upstream refuses this credential, others are used"
            );
        }
    }
}

/// How long a credential is used last that was refused.
const ASIDE: Duration = Duration::from_mins(5);
