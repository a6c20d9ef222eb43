//! How a node identifies itself to an upstream: by one user, by a helper, or by several users in turn.

use std::path::{Path, PathBuf};

use super::Credentials;
use super::fault::{Faults, Origin, Problem};
use super::files::{self, FileKind};
use super::keys::Section;
use super::settings::Table;

const UPSTREAM: Section = Section::Upstream;

/// Puts the credentials of an upstream together, which is called `path` in faults. `None` where a fault says why.
pub(super) fn assemble(
    table: &Table,
    path: &str,
    directory: &Path,
    faults: &mut Faults,
) -> Option<Vec<Credentials>> {
    let mut single = Login { section: UPSTREAM, table, path: path.to_owned(), directory, faults };
    if table.credentials.is_empty() {
        return single.credentials().map(|credentials| vec![credentials]);
    }
    let mut is_good = true;
    for key in ["username", "password", "password_file", "credential_helper"] {
        if table.is_given(UPSTREAM, key) {
            let reason = format!("{key} and credentials are both given");
            single.fault(key, reason, "move this user into credentials, or remove credentials");
            is_good = false;
        }
    }
    let several: Option<Vec<_>> = table
        .credentials
        .iter()
        .enumerate()
        .map(|(index, table)| {
            let path = format!("{path}.credentials[{index}]");
            let mut login = Login { section: Section::UpstreamCredentials, table, path, directory, faults };
            login.require_username();
            login.credentials()
        })
        // All of them are looked at, to report every fault.
        .collect::<Vec<_>>()
        .into_iter()
        .collect();
    several.filter(|_| is_good)
}

/// One user, in a table of its own or in that of its upstream.
struct Login<'a> {
    section: Section,
    table: &'a Table,
    path: String,
    directory: &'a Path,
    faults: &'a mut Faults,
}

impl Login<'_> {
    fn is_given(&self, key: &str) -> bool {
        self.table.is_given(self.section, key)
    }

    fn fault(&mut self, key: &str, reason: impl Into<String>, remedy: impl Into<String>) {
        let origin = match self.table.origin_of(self.section, key) {
            Origin::Default => self.table.origin.clone().unwrap_or(Origin::Default),
            origin => origin,
        };
        self.faults.push(&origin, format!("{}.{key}", self.path), Problem::new(reason, remedy));
    }

    /// Of several users, none may be nobody.
    fn require_username(&mut self) {
        if !["username", "password", "password_file"].iter().any(|key| self.is_given(key)) {
            self.fault("username", "the user has no name", "add username and password_file");
        }
    }

    /// `None` where a fault says why.
    fn credentials(&mut self) -> Option<Credentials> {
        let [username, password, file, helper] =
            ["username", "password", "password_file", "credential_helper"].map(|key| self.is_given(key));
        let mut good = true;
        if password && file {
            self.fault("password", "password and password_file are both given", "remove one of them");
            good = false;
        }
        if helper && (username || password || file) {
            let remedy = "remove it, or remove username, password and password_file";
            let reason = "the helper knows user and password, and they are given too";
            self.fault("credential_helper", reason, remedy);
            good = false;
        } else if username && !password && !file {
            self.fault("username", "username is given without a password", "add password_file or password");
            good = false;
        } else if (password || file) && !username {
            let key = if password { "password" } else { "password_file" };
            self.fault(key, format!("{key} is given without username"), "add username");
            good = false;
        }
        let path = self.password_file();
        if !good {
            return None;
        }
        let username = self.table.one::<String>(self.section, "username");
        if let Some(helper) = self.table.one(self.section, "credential_helper") {
            return Some(Credentials::Helper { helper });
        }
        match (self.table.one(self.section, "password"), path, username) {
            (Some(password), _, Some(username)) => Some(Credentials::Password { username, password }),
            (None, Some(path), Some(username)) => Some(Credentials::PasswordFile { username, path }),
            _ => Some(Credentials::Anonymous),
        }
    }

    fn password_file(&mut self) -> Option<PathBuf> {
        let path = self.directory.join(self.table.one::<PathBuf>(self.section, "password_file")?);
        if let Err(Problem { reason, remedy }) = files::check(&path, FileKind::Secret) {
            self.fault("password_file", reason, remedy);
        }
        Some(path)
    }
}
