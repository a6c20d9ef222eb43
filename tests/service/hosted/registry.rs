//! A node that hosts: started, with namespaces, and with those who may talk to it.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::actor::Actor;
use crate::client::Answer;
use crate::harness::{Section, Setup, Tidegate, files_in};
use crate::upstream::Upstream;

/// A node with two namespaces: from `acme` anybody may pull, from `secret` nobody without a credential.
pub(crate) struct Hosted {
    pub(crate) tidegate: Tidegate,
    pub(super) upstream: Upstream,
    pub(super) password: String,
}

impl Hosted {
    pub(super) async fn start() -> Self {
        Self::start_with(|setup| setup).await
    }

    /// The same where things are made to go wrong: the log may warn.
    pub(super) async fn start_for_trouble() -> Self {
        Self::start_with(Setup::with_warnings).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(Setup) -> Setup) -> Self {
        let upstream = Upstream::start().await;
        let tidegate = change(Setup::new().upstream(Section::hub(&upstream))).start().await;
        // A database may be slower than the start waits for.
        tidegate.wait_for_log("created the first account").await;
        let file = tidegate.data().join("initial-administrator-password");
        let password =
            std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let hosted = Self { tidegate, upstream, password: password.trim().to_owned() };
        hosted.create_namespace(&json!({ "name": "acme", "anonymous_pull": true })).await;
        hosted.create_namespace(&json!({ "name": "secret" })).await;
        hosted
    }

    /// Creates a namespace through the admin API.
    pub(super) async fn create_namespace(&self, order: &Value) {
        let call = self.tidegate.admin().call(http::Method::POST, "/api/v1/namespaces");
        let answer = call.header("content-type", "application/json").body(order.to_string()).send().await;
        assert!([200, 201].contains(&answer.status), "{answer:?}");
    }

    // ---- who talks to it

    /// The administrator, who shows the password with every request.
    pub(crate) fn administrator(&self) -> Actor {
        self.user("admin", &self.password)
    }

    /// Somebody with a name and a password, right or wrong.
    pub(super) fn user(&self, name: &str, password: &str) -> Actor {
        self.actor(Some(format!("Basic {}", STANDARD.encode(format!("{name}:{password}")))))
    }

    /// Somebody without a credential.
    pub(super) fn anonymous(&self) -> Actor {
        self.actor(None)
    }

    /// Somebody with a token of exactly these scopes, which the administrator was given.
    pub(super) async fn bearer(&self, scopes: &[&str]) -> Actor {
        let answer = self.token(Some("admin"), scopes).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let token = answer.json();
        let token = token["token"].as_str().unwrap_or_else(|| panic!("no token in {token}"));
        self.actor(Some(format!("Bearer {token}")))
    }

    /// Asks for a token of these scopes, as this user or as nobody.
    pub(super) async fn token(&self, user: Option<&str>, scopes: &[&str]) -> Answer {
        let mut path = format!("/token?service={}", self.tidegate.address());
        for scope in scopes {
            path.extend(["&scope=", &scope.replace(':', "%3A").replace('/', "%2F")]);
        }
        let actor = match user {
            Some(name) => self.user(name, &self.password),
            None => self.anonymous(),
        };
        actor.get(&path).send().await
    }

    /// Somebody who sends this `Authorization`.
    pub(super) fn actor(&self, authorization: Option<String>) -> Actor {
        Actor::new(self.tidegate.address(), authorization)
    }

    // ---- looking at it

    /// The files of hosted content, uploads among them.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let mut files = files_in(&self.tidegate.data().join("hosted"));
        files.sort();
        files
    }

    /// The files that have this digest for a name, wherever they are.
    pub(super) fn files_of(&self, digest: &str) -> Vec<PathBuf> {
        let (_, hexadecimal) = digest.split_once(':').unwrap();
        let named = |path: &PathBuf| {
            path.file_name().is_some_and(|name| name.to_string_lossy().contains(hexadecimal))
        };
        self.files().into_iter().filter(named).collect()
    }
}
