//! `[auth]`, from its keys and the file that they name.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::fault::{Faults, Problem};
use super::files::{self, FileKind};
use super::keys::Section;
use super::settings::Table;
use super::{AuthConfig, Secret};

const AUTH: Section = Section::Auth;

/// A shorter password is guessed too soon (NIST SP 800-63B).
const LEAST_CHARACTERS: usize = 8;

/// Far below what servers and proxies take as a header.
const MOST_BYTES: usize = 1024;

/// What was allowed once is allowed for so long, whatever is taken away from the account.
const LONGEST_LIFETIME: Duration = Duration::from_hours(1);

/// Builds the section. `None` only where `faults` says why, or a default is missing.
pub(super) fn assemble(table: &Table, directory: &Path, faults: &mut Faults) -> Option<AuthConfig> {
    let administrator_password = assemble_password(table, directory, faults);
    let token_lifetime = table.one(AUTH, "token_lifetime")?;
    if token_lifetime > LONGEST_LIFETIME {
        let problem =
            Problem::new("that is too long", "write at most \"1h\": clients ask for new ones by themselves");
        faults.push(&table.origin_of(AUTH, "token_lifetime"), "auth.token_lifetime", problem);
    }
    Some(AuthConfig { administrator_password, token_lifetime })
}

fn assemble_password(table: &Table, directory: &Path, faults: &mut Faults) -> Option<Secret> {
    let mut fault = |name: &str, problem: Problem| {
        faults.push(&table.origin_of(AUTH, name), format!("auth.{name}"), problem);
    };
    if table.is_given(AUTH, "administrator_password") && table.is_given(AUTH, "administrator_password_file") {
        let reason = "administrator_password and administrator_password_file are both given";
        fault("administrator_password", Problem::new(reason, "remove one of them"));
        return None;
    }
    let (name, password) = match table.one::<PathBuf>(AUTH, "administrator_password_file") {
        Some(path) => ("administrator_password_file", read(&directory.join(path))),
        None => ("administrator_password", Ok(table.one::<Secret>(AUTH, "administrator_password")?)),
    };
    match password.and_then(|password| check(password.expose()).map(|()| password)) {
        Ok(password) => Some(password),
        Err(problem) => {
            fault(name, problem);
            None
        }
    }
}

fn read(path: &Path) -> Result<Secret, Problem> {
    files::check(path, FileKind::Secret)?;
    // It was readable just now; what is not text is too short.
    let text = fs::read_to_string(path).unwrap_or_default();
    Ok(Secret::new(text.trim_end_matches(['\r', '\n'])))
}

/// Checks that a password is not easily guessed, and that clients can send it. Never quotes it.
fn check(password: &str) -> Result<(), Problem> {
    const REMEDY: &str = "write 8 to 1024 letters, digits and other characters on one line, such as what \
        `openssl rand -base64 18` prints";
    if password.chars().count() < LEAST_CHARACTERS || password.len() > MOST_BYTES {
        return Err(Problem::new("the password is too short or too long", REMEDY));
    }
    if password.contains(char::is_control) {
        return Err(Problem::new("the password holds control characters", REMEDY));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_long_enough_and_one_line() {
        for good in ["12345678", "pass word", "éééééééé", "a:b:c:d:e", &"x".repeat(1024)] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in ["", "1234567", "12345678\n", "1234\t5678", &"x".repeat(1025)] {
            let problem = check(bad).unwrap_err();
            assert!(bad.is_empty() || !format!("{problem:?}").contains(bad), "{problem:?}");
        }
    }
}
