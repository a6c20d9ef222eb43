//! A real registry as upstream: `docker-registry` over the fixtures, open or guarded.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::child::Owned;
use crate::tools;

/// Who may read from a registry, and how.
pub(crate) enum Access {
    /// Everybody, over plain HTTP.
    Anonymous,
    /// Who knows a password, over TLS.
    Password {
        /// What `htpasswd` made.
        htpasswd: PathBuf,
        /// PEM file of the server's certificate.
        certificate: PathBuf,
        /// PEM file of its key.
        key: PathBuf,
    },
    /// Who has a token, over plain HTTP.
    Token {
        /// Where tokens are given out.
        realm: String,
        /// Who gives them out, and for which service.
        names: TokenNames,
        /// PEM file of the certificate that tokens are signed with.
        certificate: PathBuf,
    },
}

/// The names that a token and a registry must agree on.
#[derive(Clone, Copy)]
pub(crate) struct TokenNames {
    pub(crate) service: &'static str,
    pub(crate) issuer: &'static str,
}

/// Whether content can be pushed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Writes {
    Allowed,
    Denied,
}

/// A running registry.
pub(crate) struct Registry {
    process: Owned,
    pub(crate) address: SocketAddr,
}

impl Registry {
    /// Starts a registry on a free port; its configuration and its log are in `directory`.
    pub(crate) fn start(directory: &Path, storage: &Path, writes: Writes, access: &Access) -> Self {
        let configuration = directory.join("registry.json");
        let text = configuration_text(storage, writes, access).to_string();
        fs::write(&configuration, text).expect("write the configuration of the registry");
        let program = tools::path("docker-registry");
        let mut process =
            Owned::start("docker-registry", &program, &directory.join("registry.log"), |command| {
                command.arg("serve").arg(&configuration);
            });
        let address = process.wait_for("its address", |log| {
            let (_, rest) = log.split_once("listening on ")?;
            rest.split(['"', ',', ' ']).next()?.parse().ok()
        });
        Self { process, address }
    }

    /// How many requests it has answered whose path ends with `end`; for a blob or a manifest, its digest or tag.
    pub(crate) fn count(&self, methods: &[&str], end: &str) -> usize {
        self.requests()
            .iter()
            .filter(|(method, path)| methods.contains(&&**method) && path.ends_with(end))
            .count()
    }

    /// The requests it has answered, in order: method and path.
    pub(crate) fn requests(&self) -> Vec<(String, String)> {
        // Lines of the access log are in Apache's format: `… "GET /v2/… HTTP/1.1" 200 …`.
        let log = self.process.log_text();
        let lines = log.lines().filter(|line| line.starts_with("127.0.0.1 - "));
        lines
            .filter_map(|line| {
                let mut words = line.split('"').nth(1)?.split(' ');
                Some((words.next()?.to_owned(), words.next()?.to_owned()))
            })
            .collect()
    }

    /// Stops it; what asks it then is refused a connection.
    pub(crate) fn stop(&mut self) {
        self.process.stop();
    }
}

/// The configuration: YAML, of which JSON is a part.
fn configuration_text(storage: &Path, writes: Writes, access: &Access) -> Value {
    let mut configuration = json!({
        "version": 0.1,
        "log": {"level": "info"},
        "storage": {
            "filesystem": {"rootdirectory": storage},
            "maintenance": {
                "readonly": {"enabled": writes == Writes::Denied},
                "uploadpurging": {"enabled": false},
            },
        },
        "http": {"addr": "127.0.0.1:0"},
    });
    match access {
        Access::Anonymous => {}
        Access::Password { htpasswd, certificate, key } => {
            configuration["http"]["tls"] = json!({"certificate": certificate, "key": key});
            configuration["auth"] = json!({"htpasswd": {"realm": "tests", "path": htpasswd}});
        }
        Access::Token { realm, names, certificate } => {
            configuration["auth"] = json!({"token": {
                "realm": realm,
                "service": names.service,
                "issuer": names.issuer,
                "rootcertbundle": certificate,
            }});
        }
    }
    configuration
}
