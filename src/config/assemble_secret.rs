//! A secret that stands in its key, or in the file that `…_file` names.

use std::fs;
use std::path::{Path, PathBuf};

use super::Secret;
use super::fault::{Faults, Problem};
use super::files::{self, FileKind};
use super::keys::Section;
use super::settings::Table;

/// Reads the secret `key`, or the first line of the file `file_key`, and checks it. `None` where neither is given, or
/// where `faults` says why.
pub(super) fn assemble(
    table: &Table,
    section: Section,
    [key, file_key]: [&str; 2],
    directory: &Path,
    check: impl Fn(&str) -> Result<(), Problem>,
    faults: &mut Faults,
) -> Option<Secret> {
    let mut fault = |name: &str, problem: Problem| {
        faults.push(&table.origin_of(section, name), format!("{}.{name}", section.path()), problem);
    };
    if table.is_given(section, key) && table.is_given(section, file_key) {
        fault(key, Problem::new(format!("{key} and {file_key} are both given"), "remove one of them"));
        return None;
    }
    let (name, secret) = match table.one::<PathBuf>(section, file_key) {
        Some(path) => (file_key, read(&directory.join(path))),
        None => (key, Ok(table.one::<Secret>(section, key)?)),
    };
    match secret.and_then(|secret| check(secret.expose()).map(|()| secret)) {
        Ok(secret) => Some(secret),
        Err(problem) => {
            fault(name, problem);
            None
        }
    }
}

fn read(path: &Path) -> Result<Secret, Problem> {
    files::check(path, FileKind::Secret)?;
    // It was readable just now; what is not text is an empty secret.
    let text = fs::read_to_string(path).unwrap_or_default();
    Ok(Secret::new(text.trim_end_matches(['\r', '\n'])))
}
