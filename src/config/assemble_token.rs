//! The token of the admin API, from its key or its file.

use std::fs;
use std::path::{Path, PathBuf};

use super::Secret;
use super::fault::{Faults, Problem};
use super::files::{self, FileKind};
use super::keys::Section;
use super::settings::Table;

const SERVER: Section = Section::Server;

/// A shorter token could be guessed.
const LEAST_LENGTH: usize = 16;

/// Far below what servers and proxies take as a header.
const MOST_LENGTH: usize = 1024;

/// Finds the token; none where none is configured, or where `faults` says why.
pub(super) fn assemble(table: &Table, directory: &Path, faults: &mut Faults) -> Option<Secret> {
    let mut fault = |name: &str, problem: Problem| {
        faults.push(&table.origin_of(SERVER, name), format!("server.{name}"), problem);
    };
    if table.is_given(SERVER, "admin_token") && table.is_given(SERVER, "admin_token_file") {
        let reason = "admin_token and admin_token_file are both given";
        fault("admin_token", Problem::new(reason, "remove one of them"));
        return None;
    }
    let (name, token) = match table.one::<PathBuf>(SERVER, "admin_token_file") {
        Some(path) => {
            let name = "admin_token_file";
            match read(&directory.join(path)) {
                Ok(token) => (name, token),
                Err(problem) => {
                    fault(name, problem);
                    return None;
                }
            }
        }
        None => ("admin_token", table.one::<Secret>(SERVER, "admin_token")?),
    };
    if let Err(problem) = check(token.expose()) {
        fault(name, problem);
        return None;
    }
    Some(token)
}

fn read(path: &Path) -> Result<Secret, Problem> {
    files::check(path, FileKind::Token)?;
    // It was readable just now; what is not text is no token either.
    let text = fs::read_to_string(path).unwrap_or_default();
    Ok(Secret::new(text.trim()))
}

/// Checks that a token can be sent in a header and is not easily guessed. Never quotes it.
pub(super) fn check(token: &str) -> Result<(), Problem> {
    const REMEDY: &str = "write 16 to 1024 letters, digits and other printable ASCII characters, such as what \
        `openssl rand -hex 32` prints";
    if token.len() < LEAST_LENGTH || token.len() > MOST_LENGTH {
        return Err(Problem::new("the token is too short or too long", REMEDY));
    }
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Problem::new("the token holds what no header can carry", REMEDY));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_long_and_can_be_sent() {
        for good in ["0123456789abcdef", "Zm9vYmFyYmF6cXV4+/==", &"x".repeat(1024)] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in ["", "0123456789abcde", "0123456789 abcdef", "0123456789abcdé!", "a\nbcdefghijklmnopq"] {
            let problem = check(bad).unwrap_err();
            assert!(bad.is_empty() || !format!("{problem:?}").contains(bad), "{problem:?}");
        }
        assert!(check(&"x".repeat(1025)).is_err());
    }
}
