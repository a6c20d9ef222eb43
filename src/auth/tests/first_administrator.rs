//! First starts: alone, side by side, killed at every point.

use std::fs;
use std::future::{Future as _, poll_fn};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::pin::pin;
use std::task::Poll;

use super::*;
use crate::auth::INITIAL_PASSWORD_FILE;
use crate::metadata::catalogue::Role;

impl Node {
    fn password_file(&self) -> PathBuf {
        self.folder.path().join(INITIAL_PASSWORD_FILE)
    }

    fn password_on_disk(&self) -> Option<String> {
        Some(fs::read_to_string(self.password_file()).ok()?.trim().to_owned())
    }

    /// The names of all files but the catalogue's.
    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| !name.starts_with(SqlCatalogue::FILE_NAME)).collect()
    }
}

#[tokio::test]
async fn the_first_start_writes_a_password_that_works_and_later_ones_do_nothing() {
    let node = Node::begin().await;
    assert!(node.first_administrator(None).ensure().await.unwrap());
    let password = node.password_on_disk().unwrap();
    assert_eq!(password.len(), 26);
    assert!(node.is_password(&password).await);
    let mode = fs::metadata(node.password_file()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let accounts = node.catalogue.list_accounts(None, 9).await.unwrap();
    assert_eq!((accounts.len(), accounts[0].role), (1, Role::Administrator));
    assert_eq!(&*accounts[0].created.by, "system");

    for configured in [None, Some("another password")] {
        assert!(!node.first_administrator(configured).ensure().await.unwrap());
        assert!(node.is_password(&password).await);
        assert_eq!(node.password_on_disk().as_ref(), Some(&password));
    }
    // The file ends with its use.
    let hash = node.passwords.hash(&Secret::new("chosen by somebody")).await.unwrap();
    node.catalogue.set_password(&accounts[0].name, &hash).await.unwrap();
    assert!(!node.first_administrator(None).ensure().await.unwrap());
    assert_eq!(node.files(), Vec::<String>::new());
}

#[tokio::test]
async fn the_log_names_the_file_once_and_no_secret() {
    let client = Ipv4Addr::new(192, 0, 2, 7).into();
    let (node, log) = (Node::begin().await, tempfile::NamedTempFile::new().unwrap());
    let guard = crate::telemetry::logging::capture(Arc::new(log.reopen().unwrap()));
    for _ in 0..2 {
        node.first_administrator(None).ensure().await.unwrap();
    }
    let password = node.password_on_disk().unwrap();
    let authenticator = node.authenticator().await;
    for (name, shown) in [("admin", password.as_str()), ("admin", "hunter2"), ("hunter3", "hunter2")] {
        let _answer = authenticator.authenticate(Some(&basic(name, shown)), client).await;
    }
    let _refused = authenticator.authenticate(Some(b"Bearer hunter4"), client).await;
    drop(guard);
    let text = fs::read_to_string(log.path()).unwrap();
    assert_eq!(text.matches(&*node.password_file().display().to_string()).count(), 2, "{text}");
    assert_eq!(text.lines().filter(|line| line.contains(INITIAL_PASSWORD_FILE)).count(), 1, "{text}");
    assert_eq!(text.matches("wrong credentials were shown").count(), 2, "{text}");
    for secret in [password.as_str(), "hunter", "argon2"] {
        assert!(!text.contains(secret), "{text}");
    }
}

#[tokio::test]
async fn a_configured_password_is_taken_and_no_file_is_written() {
    let node = Node::begin().await;
    assert!(node.first_administrator(Some("configured")).ensure().await.unwrap());
    assert!(node.is_password("configured").await);
    assert_eq!(node.files(), Vec::<String>::new());
}

#[tokio::test]
async fn of_several_nodes_one_creates_the_account_and_keeps_its_file() {
    let first = Node::begin().await;
    let nodes = [first.beside(), first.beside(), first.beside(), first];
    let started: Vec<_> = nodes
        .iter()
        .map(|node| {
            let administrator = node.first_administrator(None);
            node.tasks.spawn(async move { administrator.ensure().await })
        })
        .collect();
    let mut created = 0;
    for (task, node) in started.into_iter().zip(&nodes) {
        let is_created = task.await.unwrap().unwrap();
        created += usize::from(is_created);
        assert_eq!(node.password_on_disk().is_some(), is_created);
        if let Some(password) = node.password_on_disk() {
            assert!(node.is_password(&password).await);
        }
    }
    assert_eq!(created, 1);
}

#[tokio::test]
async fn a_start_that_ends_at_any_point_loses_no_password() {
    for polls in 0.. {
        let node = Node::begin().await;
        let killed = Tasks::new();
        let is_finished = {
            let mut administrator = node.first_administrator(None);
            administrator.tasks = killed.clone();
            administrator.passwords = Passwords::new(killed.clone());
            let mut start = pin!(administrator.ensure());
            let mut left = polls;
            poll_fn(|context| {
                if left == 0 {
                    return Poll::Ready(false);
                }
                left -= 1;
                start.as_mut().poll(context).map(|_| true)
            })
            .await
        };
        // What was begun on other threads ends, as it does before the next process begins.
        assert!(killed.shut_down(Duration::from_secs(30)).await);
        node.first_administrator(None).ensure().await.unwrap();
        let password = node.password_on_disk().unwrap();
        assert!(node.is_password(&password).await, "after {polls} polls");
        assert_eq!(node.catalogue.list_accounts(None, 9).await.unwrap().len(), 1);
        assert_eq!(node.files(), [INITIAL_PASSWORD_FILE]);
        if is_finished {
            assert!(polls >= 4, "nothing was interrupted");
            return;
        }
    }
}

#[tokio::test]
async fn what_a_killed_start_left_half_written_does_no_harm() {
    for (name, text) in [(INITIAL_PASSWORD_FILE, ""), ("initial-administrator-password.unfinished", "abc")] {
        let node = Node::begin().await;
        fs::write(node.folder.path().join(name), text).unwrap();
        assert!(node.first_administrator(None).ensure().await.unwrap());
        let password = node.password_on_disk().unwrap();
        assert_eq!(password.len(), 26);
        assert!(node.is_password(&password).await);
        assert_eq!(node.files(), [INITIAL_PASSWORD_FILE]);
    }
}

#[tokio::test]
async fn a_folder_that_takes_no_file_gets_no_account() {
    let node = Node::begin().await;
    fs::create_dir(node.folder.path().join("initial-administrator-password.unfinished")).unwrap();
    let failed = node.first_administrator(None).ensure().await.unwrap_err();
    assert!(failed.to_string().contains(INITIAL_PASSWORD_FILE), "{failed}");
    assert_eq!(node.catalogue.list_accounts(None, 9).await.unwrap(), []);
}
