//! The functions that decide: may this actor do this to that?

use std::time::Duration;

use super::{Account, Actions, Actor, RequestContext, Rights};
use crate::metadata::catalogue::Role;
use crate::oci::RepositoryName;

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

/// Who may read a hosted repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visibility {
    /// Anybody.
    Public,
    /// Who has a right to.
    Private,
}

/// That something of hosted content is not allowed, by what the client can do about it. The texts are for clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The client has not said who it is.
    #[error("authentication is required: log in, for instance with \"docker login\"")]
    Unauthenticated,
    /// What the client said of who it is, is wrong.
    #[error("user name or password is wrong: log in again")]
    WrongCredentials,
    /// The client showed a token that is not good, or not any more.
    #[error("the token is invalid or has expired: ask for a new one")]
    InvalidToken,
    /// The client showed a good token that does not grant this; another one may.
    #[error(
        "the token does not grant this: ask for one with this scope, or log in as an account that has the right"
    )]
    InsufficientScope,
    /// The account has no right to this, whatever it shows.
    #[error("the account has no right to this: ask an administrator for it")]
    Denied,
    /// Too many attempts to log in have failed, or are waiting.
    #[error("too many attempts to log in: try again in {} s", seconds(*wait))]
    TooManyAttempts {
        /// How long to wait.
        wait: Duration,
    },
}

/// Fails unless the context's actor may do `action` to what is cached of upstreams.
pub const fn require(context: &RequestContext, action: Action) -> Result<(), ReadOnly> {
    match (&context.actor, action) {
        (_, Action::Pull | Action::List) | (Actor::System | Actor::Administrator, _) => Ok(()),
        (Actor::Anonymous | Actor::Guest | Actor::Account(_), Action::Push | Action::Delete) => Err(ReadOnly),
    }
}

/// Fails unless the context's actor may do `action` to a hosted repository.
pub fn require_hosted(
    context: &RequestContext,
    action: Action,
    repository: &RepositoryName,
    visibility: Visibility,
) -> Result<(), Refused> {
    let wanted = Actions::from(action);
    if rights_of_anybody(visibility).contains(wanted) {
        return Ok(());
    }
    let (rights, refused) = match &context.actor {
        Actor::System | Actor::Administrator => return Ok(()),
        Actor::Anonymous => return Err(Refused::Unauthenticated),
        Actor::Guest => return Err(Refused::InsufficientScope),
        Actor::Account(account) => match &account.rights {
            Rights::Role(role) => (rights_of_role(*role, repository), Refused::Denied),
            Rights::Token(grants) => (grants.of(repository), Refused::InsufficientScope),
        },
    };
    if rights.contains(wanted) { Ok(()) } else { Err(refused) }
}

/// Fails unless the context's actor may manage the registry. Tokens are about repositories, so an account has to show
/// its password.
pub fn require_administrator(context: &RequestContext) -> Result<(), Refused> {
    match &context.actor {
        Actor::System | Actor::Administrator => Ok(()),
        Actor::Anonymous | Actor::Guest => Err(Refused::Unauthenticated),
        Actor::Account(account) => match **account {
            Account { rights: Rights::Role(Role::Administrator), .. } => Ok(()),
            Account { rights: Rights::Role(Role::Member) | Rights::Token(_), .. } => Err(Refused::Denied),
        },
    }
}

/// What anybody may do to a repository.
pub(super) const fn rights_of_anybody(visibility: Visibility) -> Actions {
    match visibility {
        Visibility::Public => Actions::PULL,
        Visibility::Private => Actions::NONE,
    }
}

/// What an account may do to a repository by its role. Permissions by namespace and repository join here.
pub(super) const fn rights_of_role(role: Role, _repository: &RepositoryName) -> Actions {
    match role {
        Role::Administrator => Actions::ALL,
        Role::Member => Actions::NONE,
    }
}

fn seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::auth::{Grants, RequestId};

    fn context(actor: Actor) -> RequestContext {
        RequestContext::of(actor, RequestId::random())
    }

    fn account(rights: Rights) -> Actor {
        Actor::Account(Arc::new(Account { name: "somebody".parse().unwrap(), rights }))
    }

    fn token(text: &str, actions: Actions) -> Actor {
        let mut grants = Grants::default();
        grants.add(&text.parse().unwrap(), actions);
        account(Rights::Token(grants))
    }

    #[test]
    fn everybody_may_do_to_hosted_content_what_the_table_says() {
        use Action::{Delete, List, Pull, Push};
        use Refused::{Denied, InsufficientScope, Unauthenticated};
        use Visibility::{Private, Public};
        let here: RepositoryName = "team/app".parse().unwrap();
        let (administrator, member) =
            (account(Rights::Role(Role::Administrator)), account(Rights::Role(Role::Member)));
        for (actor, visibility, action, expected) in [
            (Actor::System, Private, Delete, Ok(())),
            (Actor::Administrator, Private, Push, Ok(())),
            (Actor::Anonymous, Public, Pull, Ok(())),
            (Actor::Anonymous, Public, List, Ok(())),
            (Actor::Anonymous, Private, Pull, Err(Unauthenticated)),
            (Actor::Anonymous, Private, List, Err(Unauthenticated)),
            (Actor::Anonymous, Public, Push, Err(Unauthenticated)),
            (Actor::Guest, Public, Pull, Ok(())),
            (Actor::Guest, Private, Pull, Err(InsufficientScope)),
            (Actor::Guest, Public, Delete, Err(InsufficientScope)),
            (administrator.clone(), Private, Pull, Ok(())),
            (administrator.clone(), Private, Push, Ok(())),
            (administrator, Private, Delete, Ok(())),
            (member.clone(), Public, Pull, Ok(())),
            (member.clone(), Private, Pull, Err(Denied)),
            (member, Public, Push, Err(Denied)),
            (token("team/app", Actions::PUSH), Private, Push, Ok(())),
            (token("team/app", Actions::PUSH), Private, Pull, Err(InsufficientScope)),
            (token("team/app", Actions::ALL), Private, Delete, Ok(())),
            (token("team/app", Actions::PULL), Private, List, Ok(())),
            (token("team/other", Actions::ALL), Private, Pull, Err(InsufficientScope)),
            (token("team/app/deep", Actions::ALL), Private, Pull, Err(InsufficientScope)),
            (token("team", Actions::ALL), Private, Pull, Err(InsufficientScope)),
        ] {
            let told = format!("{actor:?} {action:?} {visibility:?}");
            assert_eq!(require_hosted(&context(actor), action, &here, visibility), expected, "{told}");
        }
    }

    #[test]
    fn administrators_alone_manage_and_only_by_password() {
        for (actor, expected) in [
            (Actor::System, Ok(())),
            (Actor::Administrator, Ok(())),
            (account(Rights::Role(Role::Administrator)), Ok(())),
            (account(Rights::Role(Role::Member)), Err(Refused::Denied)),
            (token("team/app", Actions::ALL), Err(Refused::Denied)),
            (Actor::Anonymous, Err(Refused::Unauthenticated)),
            (Actor::Guest, Err(Refused::Unauthenticated)),
        ] {
            let told = format!("{actor:?}");
            assert_eq!(require_administrator(&context(actor)), expected, "{told}");
        }
    }

    #[test]
    fn what_is_cached_is_read_only_whoever_asks() {
        for actor in [Actor::Anonymous, Actor::Guest, account(Rights::Role(Role::Administrator))] {
            let context = context(actor);
            assert_eq!(require(&context, Action::Pull), Ok(()));
            assert_eq!(require(&context, Action::Push), Err(ReadOnly));
        }
    }

    #[test]
    fn a_client_is_told_whole_seconds_to_wait() {
        let text = Refused::TooManyAttempts { wait: Duration::from_millis(1001) }.to_string();
        assert_eq!(text, "too many attempts to log in: try again in 2 s");
    }
}
