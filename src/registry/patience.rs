//! How urgent questions are, and how long clients wait for upstream. What they wait for goes on without them.

use std::future::Future;
use std::time::Duration;

use super::repository::Repository;
use super::supplier::{Supplier, SupplierError};
use crate::auth::{Actor, RequestContext};
use crate::upstream::{Priority, UpstreamError};

/// How long a client waits for upstream while there is an answer that may be served stale.
const WITH_AN_ANSWER: Duration = Duration::from_millis(1500);

/// How urgent it is to get what is not here.
pub(super) fn priority_of(context: &RequestContext) -> Priority {
    if context.actor == Actor::System { Priority::Ahead } else { Priority::Client }
}

/// Waits for an upstream that has what nobody has here; `miss_timeout` at most, so that clients try
/// elsewhere in good time.
pub(super) async fn for_a_miss<T>(
    repository: &Repository,
    asked: impl Future<Output = T>,
) -> Result<T, UpstreamError> {
    wait(repository, repository.upstream.config().timeouts.miss, asked).await
}

/// Waits as long for who gives a blob that nobody has here.
pub(super) async fn for_a_supply<T>(
    supplier: &Supplier,
    asked: impl Future<Output = T>,
) -> Result<T, SupplierError> {
    tokio::time::timeout(supplier.patience(), asked).await.map_err(|_elapsed| supplier.is_late())
}

/// Waits for an upstream whose last answer is here: briefly.
pub(super) async fn for_news<T>(
    repository: &Repository,
    asked: impl Future<Output = T>,
) -> Result<T, UpstreamError> {
    wait(repository, WITH_AN_ANSWER, asked).await
}

async fn wait<T>(
    repository: &Repository,
    patience: Duration,
    asked: impl Future<Output = T>,
) -> Result<T, UpstreamError> {
    tokio::time::timeout(patience, asked).await.map_err(|_elapsed| repository.unanswered(patience))
}
