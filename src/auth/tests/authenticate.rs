//! Credentials that are right, wrong, repeated, old and too many.

use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::time::advance;

use super::*;
use crate::auth::{Account, Actor, Rights};
use crate::metadata::catalogue::Role;

fn administrator() -> Actor {
    let name = FIRST_ADMINISTRATOR.parse().unwrap();
    Actor::Account(Arc::new(Account { name, rights: Rights::Role(Role::Administrator) }))
}

#[tokio::test]
async fn whoever_shows_the_password_is_the_account() {
    let node = Node::begin().await;
    let authenticator = node.authenticator().await;
    assert_eq!(authenticator.authenticate(None, CLIENT).await.unwrap(), Actor::Anonymous);
    let empty = authenticator.authenticate(Some(&basic("", "")), CLIENT).await;
    assert_eq!(empty.unwrap(), Actor::Anonymous);
    let right = authenticator.authenticate(Some(&basic("admin", PASSWORD)), CLIENT).await;
    assert_eq!(right.unwrap(), administrator());
    for (name, password) in
        [("admin", "wrong"), ("admin", ""), ("nobody", PASSWORD), ("Admin", PASSWORD), ("", PASSWORD)]
    {
        let wrong = authenticator.authenticate(Some(&basic(name, password)), CLIENT).await;
        assert_eq!(refusal(wrong), Refused::WrongCredentials, "{name}:{password}");
    }
    let other = authenticator.authenticate(Some(b"Negotiate x"), CLIENT).await;
    assert_eq!(refusal(other), Refused::Unauthenticated);
    let bad_token = authenticator.authenticate(Some(b"Bearer a.b.c"), CLIENT).await;
    assert_eq!(refusal(bad_token), Refused::InvalidToken);
}

#[tokio::test]
async fn a_password_that_was_right_is_not_compared_again_for_a_minute() {
    let node = Node::begin().await;
    let authenticator = node.authenticator().await;
    let header = basic("admin", PASSWORD);
    authenticator.authenticate(Some(&header), CLIENT).await.unwrap();
    // Behind this node's back, as another node does it.
    let name = FIRST_ADMINISTRATOR.parse().unwrap();
    let hash = node.passwords.hash(&Secret::new("another")).await.unwrap();
    node.catalogue.set_password(&name, &hash).await.unwrap();
    tokio::time::pause();
    advance(Duration::from_secs(59)).await;
    assert!(authenticator.authenticate(Some(&header), CLIENT).await.is_ok());
    advance(Duration::from_secs(1)).await;
    tokio::time::resume();
    let old = authenticator.authenticate(Some(&header), CLIENT).await;
    assert_eq!(refusal(old), Refused::WrongCredentials);
}

#[tokio::test]
async fn a_password_that_is_replaced_counts_at_once_and_the_old_one_no_more() {
    let node = Node::begin().await;
    let authenticator = node.authenticator().await;
    let name = FIRST_ADMINISTRATOR.parse().unwrap();
    let (old, new) = (basic("admin", PASSWORD), basic("admin", "battery staple"));
    authenticator.authenticate(Some(&old), CLIENT).await.unwrap();
    assert!(authenticator.authenticate(Some(&new), CLIENT).await.is_err());
    authenticator.set_password(&name, &Secret::new("battery staple")).await.unwrap();
    let refused = authenticator.authenticate(Some(&old), CLIENT).await;
    assert_eq!(refusal(refused), Refused::WrongCredentials);
    assert!(authenticator.authenticate(Some(&new), CLIENT).await.is_ok());
    let nobody = authenticator.set_password(&"nobody".parse().unwrap(), &Secret::new("x")).await;
    assert!(matches!(nobody, Err(AuthenticationError::Accounts(_))), "{nobody:?}");
}

#[tokio::test]
async fn guessing_ends_in_a_pause_that_is_over_once() {
    let node = Node::begin().await;
    let authenticator = node.authenticator().await;
    for attempt in 0..6 {
        // The same again tells nobody anything new, and does not count.
        for _ in 0..3 {
            let wrong =
                authenticator.authenticate(Some(&basic("admin", &format!("{attempt}"))), CLIENT).await;
            assert_eq!(refusal(wrong), Refused::WrongCredentials);
        }
    }
    let right = basic("admin", PASSWORD);
    let refused = refusal(authenticator.authenticate(Some(&right), CLIENT).await);
    assert!(matches!(refused, Refused::TooManyAttempts { .. }), "{refused:?}");
    let elsewhere = Ipv4Addr::new(192, 0, 2, 2).into();
    assert!(authenticator.authenticate(Some(&right), elsewhere).await.is_ok());
    // From here on, that it is right is known here.
    assert!(authenticator.authenticate(Some(&right), CLIENT).await.is_ok());
    let refused = refusal(authenticator.authenticate(Some(&basic("admin", "x")), CLIENT).await);
    assert!(matches!(refused, Refused::TooManyAttempts { .. }), "{refused:?}");
    tokio::time::pause();
    advance(Duration::from_secs(1)).await;
    tokio::time::resume();
    let wrong = authenticator.authenticate(Some(&basic("admin", "x")), CLIENT).await;
    assert_eq!(refusal(wrong), Refused::WrongCredentials);
}

#[tokio::test]
async fn an_account_that_cannot_be_looked_up_is_no_refusal() {
    let node = Node::begin().await;
    let authenticator = node.authenticator().await;
    node.catalogue.close().await;
    let failed = authenticator.authenticate(Some(&basic("admin", PASSWORD)), CLIENT).await;
    assert!(matches!(failed, Err(AuthenticationError::Accounts(_))), "{failed:?}");
}
