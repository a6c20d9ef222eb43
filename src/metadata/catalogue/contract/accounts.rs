//! Promises of [`Accounts`](crate::metadata::catalogue::Accounts).

use std::sync::Arc;

use super::{at, stamp};
use crate::config::Secret;
use crate::metadata::catalogue::{
    AccountName, AccountRecord, Catalogue, CatalogueError, Role, SigningKeyRecord,
};
use crate::runtime::Tasks;

type Subject = Arc<dyn Catalogue>;

fn account(name: &str, role: Role) -> AccountRecord {
    AccountRecord {
        name: name.parse().unwrap(),
        password_hash: Some(Secret::new(format!("$argon2id$of {name}"))),
        role,
        created: stamp(1),
        disabled_at: None,
    }
}

pub(in crate::metadata::catalogue) async fn the_first_account_is_created_once_whoever_tries(
    catalogue: &Subject,
) {
    let tasks = Tasks::new();
    let nodes: Vec<_> = (0..8)
        .map(|node| {
            let catalogue = Arc::clone(catalogue);
            let account = account(&format!("node{node}"), Role::Administrator);
            tasks.spawn(async move { catalogue.create_first_account(&account).await })
        })
        .collect();
    let mut created = 0;
    for node in nodes {
        created += usize::from(node.await.unwrap().unwrap());
    }
    assert_eq!(created, 1);
    assert_eq!(catalogue.list_accounts(None, 9).await.unwrap().len(), 1);
    let late = catalogue.create_first_account(&account("late", Role::Administrator)).await;
    assert!(!late.unwrap());
}

pub(in crate::metadata::catalogue) async fn an_account_is_found_and_listed_as_it_was_created(
    catalogue: &Subject,
) {
    let ours = AccountRecord { disabled_at: Some(at(7)), ..account("ours", Role::Member) };
    let name = &ours.name;
    assert_eq!(catalogue.find_account(name).await.unwrap(), None);
    let unknown = catalogue.set_password(name, &Secret::new("hash")).await;
    assert!(matches!(unknown, Err(CatalogueError::AccountUnknown)), "{unknown:?}");
    assert!(catalogue.create_first_account(&ours).await.unwrap());
    assert_eq!(catalogue.find_account(name).await.unwrap().as_ref(), Some(&ours));
    assert_eq!(catalogue.list_accounts(None, 9).await.unwrap(), std::slice::from_ref(&ours));
    assert_eq!(catalogue.list_accounts(Some(name), 9).await.unwrap(), []);
    let other: AccountName = "other".parse().unwrap();
    assert_eq!(catalogue.find_account(&other).await.unwrap(), None);

    catalogue.set_password(name, &Secret::new("another hash")).await.unwrap();
    let found = catalogue.find_account(name).await.unwrap().unwrap();
    assert_eq!(found, AccountRecord { password_hash: Some(Secret::new("another hash")), ..ours });
    assert!(!format!("{found:?}").contains("hash of") && !format!("{found:?}").contains("another"));
    assert_eq!(catalogue.last_change().await.unwrap(), 0);
}

pub(in crate::metadata::catalogue) async fn all_nodes_sign_with_the_same_key(catalogue: &Subject) {
    let tasks = Tasks::new();
    let candidate = |node: u8| SigningKeyRecord {
        id: format!("key{node}"),
        secret: vec![node; 32],
        created_at: at(node.into()),
    };
    let nodes: Vec<_> = (0..8)
        .map(|node| {
            let (catalogue, candidate) = (Arc::clone(catalogue), candidate(node));
            tasks.spawn(async move { catalogue.find_or_create_signing_key(&candidate).await })
        })
        .collect();
    let mut keys = Vec::new();
    for node in nodes {
        keys.push(node.await.unwrap().unwrap());
    }
    assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");
    let later = catalogue.find_or_create_signing_key(&candidate(9)).await.unwrap();
    assert_eq!(later, keys[0]);
    assert_eq!(later.secret, vec![later.id.as_bytes()[3] - b'0'; 32]);
}
