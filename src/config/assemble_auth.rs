//! `[auth]`, from its keys and the file that they name.

use std::path::Path;
use std::time::Duration;

use super::fault::{Faults, Problem};
use super::keys::Section;
use super::settings::Table;
use super::{AuthConfig, assemble_secret};

const AUTH: Section = Section::Auth;

/// A shorter password is guessed too soon (NIST SP 800-63B).
const LEAST_CHARACTERS: usize = 8;

/// Far below what servers and proxies take as a header.
const MOST_BYTES: usize = 1024;

/// What was allowed once is allowed for so long, whatever is taken away from the account.
const LONGEST_LIFETIME: Duration = Duration::from_hours(1);

/// Builds the section. `None` only where `faults` says why, or a default is missing.
pub(super) fn assemble(table: &Table, directory: &Path, faults: &mut Faults) -> Option<AuthConfig> {
    let keys = ["administrator_password", "administrator_password_file"];
    let administrator_password = assemble_secret::assemble(table, AUTH, keys, directory, check, faults);
    let token_lifetime = table.one(AUTH, "token_lifetime")?;
    if token_lifetime > LONGEST_LIFETIME {
        let problem =
            Problem::new("that is too long", "write at most \"1h\": clients ask for new ones by themselves");
        faults.push(&table.origin_of(AUTH, "token_lifetime"), "auth.token_lifetime", problem);
    }
    Some(AuthConfig { administrator_password, token_lifetime })
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
