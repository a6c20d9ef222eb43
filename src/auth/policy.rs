//! The one function that decides: may this actor do this to that?

use super::{Actor, RequestContext};

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Read content or metadata of a repository.
    Pull,
    /// List repositories.
    List,
    /// Add or change content of a repository.
    Push,
    /// Remove content of a repository.
    Delete,
}

/// That something is not allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is a cache of upstream registries: it is read-only")]
pub struct ReadOnly;

/// Fails unless the context's actor may do `action`.
pub const fn require(context: &RequestContext, action: Action) -> Result<(), ReadOnly> {
    match (&context.actor, action) {
        (_, Action::Pull | Action::List) | (Actor::System | Actor::Administrator, _) => Ok(()),
        (Actor::Anonymous, Action::Push | Action::Delete) => Err(ReadOnly),
    }
}
