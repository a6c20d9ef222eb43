//! What tokens grant, and to whom none is issued.

use super::*;
use crate::auth::policy::{Action, Visibility, require_hosted};
use crate::auth::{
    Account, Actor, AskedScopes, Credentials, Grants, RequestContext, RequestId, Rights, Scope, TokenRequest,
};

/// `open/…` and what is not hosted may be read by anybody.
fn visibility_of(scope: &Scope) -> Visibility {
    if scope.repository.as_str().starts_with("closed/") { Visibility::Private } else { Visibility::Public }
}

fn request(credentials: Credentials, scopes: &[&str]) -> TokenRequest {
    TokenRequest { credentials, scopes: AskedScopes::parse(scopes.iter().copied()), client: CLIENT }
}

/// What the token grants, in the words of scopes; `None` where it was issued to nobody in particular.
async fn granted(authenticator: &Authenticator, request: &TokenRequest) -> (Option<String>, Actor) {
    let issued = authenticator.issue(request, &visibility_of).await.unwrap();
    assert_eq!(issued.expires_in, Duration::from_mins(5));
    let header = format!("Bearer {}", issued.token.expose());
    let actor = authenticator.authenticate(Some(header.as_bytes()), CLIENT).await.unwrap();
    let grants = match &actor {
        Actor::Account(account) => match &account.rights {
            Rights::Token(grants) => Some(tell(grants)),
            Rights::Role(_) => panic!("{actor:?}"),
        },
        _ => None,
    };
    (grants, actor)
}

fn tell(grants: &Grants) -> String {
    let each = grants.iter().map(|(name, actions)| format!("{name}:{actions:?}"));
    each.collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn a_token_grants_what_is_asked_for_and_allowed() {
    let node = Node::begin().await;
    let authenticator = node.authenticator().await;
    let admin = || Credentials::of_password("admin", PASSWORD);
    for (scopes, expected) in [
        (&[][..], ""),
        (&["repository:closed/app:pull,push"], "closed/app:pull,push"),
        (&["repository:closed/app:pull", "repository:closed/app:push"], "closed/app:pull,push"),
        (&["repository:closed/a:* repository:open/b:pull"], "closed/a:pull,push,delete open/b:pull"),
        (&["repository:127.0.0.1:5000/closed/a:pull", "registry:catalog:*", "x"], "closed/a:pull"),
    ] {
        let (grants, actor) = granted(&authenticator, &request(admin(), scopes)).await;
        assert_eq!(grants.as_deref(), Some(expected), "{scopes:?}");
        assert_eq!(&*actor.name(), "admin");
    }
    // All nodes take it, and it allows what it says.
    let request = request(admin(), &["repository:closed/app:push"]);
    let issued = authenticator.issue(&request, &visibility_of).await.unwrap();
    let other = node.beside().authenticator().await;
    let header = format!("Bearer {}", issued.token.expose());
    let actor = other.authenticate(Some(header.as_bytes()), CLIENT).await.unwrap();
    let context = RequestContext::of(actor, RequestId::random());
    let app = "closed/app".parse().unwrap();
    assert_eq!(require_hosted(&context, Action::Push, &app, Visibility::Private), Ok(()));
    let refused = require_hosted(&context, Action::Delete, &app, Visibility::Private);
    assert_eq!(refused, Err(Refused::InsufficientScope));
    node.clock.advance(Duration::from_mins(6));
    let expired = authenticator.authenticate(Some(header.as_bytes()), CLIENT).await;
    assert_eq!(refusal(expired), Refused::InvalidToken);
}

#[tokio::test]
async fn who_has_no_credentials_gets_a_token_that_grants_what_anybody_may() {
    let node = Node::begin().await;
    let authenticator = node.authenticator().await;
    for scopes in [&[][..], &["repository:closed/app:pull,push"], &["repository:open/app:pull"]] {
        let (_, actor) = granted(&authenticator, &request(Credentials::Anonymous, scopes)).await;
        assert_eq!(actor, Actor::Guest);
    }
}

#[tokio::test]
async fn credentials_of_elsewhere_are_refused_unless_anybody_may_have_what_is_asked_for() {
    let node = Node::begin().await;
    let authenticator = node.authenticator().await;
    let elsewhere = || Credentials::of_password("somebody", "of another registry");
    for (scopes, is_issued) in [
        (&["repository:open/app:pull"][..], true),
        (&["repository:library/alpine:pull repository:docker.io/library/alpine:pull"], true),
        (&["repository:open/app:pull,push"], false),
        (&["repository:closed/app:"], false),
        (&["repository:open/app:pull", "repository:closed/app:pull"], false),
        (&["repository:open/app:pull", "registry:catalog:*"], false),
        (&[], false),
    ] {
        let issued = authenticator.issue(&request(elsewhere(), scopes), &visibility_of).await;
        if is_issued {
            let header = format!("Bearer {}", issued.unwrap().token.expose());
            let actor = authenticator.authenticate(Some(header.as_bytes()), CLIENT).await;
            assert_eq!(actor.unwrap(), Actor::Guest, "{scopes:?}");
        } else {
            assert_eq!(refusal(issued), Refused::WrongCredentials, "{scopes:?}");
        }
    }
    // However many of them there are, nobody has to wait for the sake of open content.
    for number in 0..50 {
        let credentials = Credentials::of_password("somebody", &format!("{number}"));
        let request = request(credentials, &["repository:open/app:pull"]);
        authenticator.issue(&request, &visibility_of).await.unwrap();
    }
    let right = authenticator.authenticate(Some(&basic("admin", PASSWORD)), CLIENT).await;
    let Actor::Account(account) = right.unwrap() else { panic!("no account") };
    assert!(matches!(*account, Account { rights: Rights::Role(_), .. }));
}

#[tokio::test]
async fn a_token_buys_no_other_token() {
    let node = Node::begin().await;
    let authenticator = node.authenticator().await;
    let admin = Credentials::of_password("admin", PASSWORD);
    let scope = "repository:closed/app:pull";
    let issued = authenticator.issue(&request(admin, &[scope]), &visibility_of).await.unwrap();
    for credentials in [Credentials::Bearer(issued.token), Credentials::Other] {
        let again = authenticator.issue(&request(credentials, &[scope]), &visibility_of).await;
        assert_eq!(refusal(again), Refused::WrongCredentials);
    }
}

#[tokio::test]
async fn nothing_that_is_issued_prints() {
    let node = Node::begin().await;
    let authenticator = node.authenticator().await;
    let request = request(Credentials::of_password("admin", PASSWORD), &["repository:closed/app:pull"]);
    let issued = authenticator.issue(&request, &visibility_of).await.unwrap();
    let shown = format!("{request:?} {issued:?}");
    assert!(!shown.contains(PASSWORD) && !shown.contains("eyJ"), "{shown}");
}
