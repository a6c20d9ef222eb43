//! What must be installed; `tests/run` installs it.

use std::env;
use std::path::PathBuf;

/// Whether every program is there and the test may do what only root may.
///
/// A test that cannot run says so loudly, and fails where `CI` is set: nothing is skipped there.
pub(crate) fn present(programs: &[&str]) -> bool {
    let mut missing: Vec<String> =
        programs.iter().filter(|name| find(name).is_none()).map(|name| format!("`{name}`")).collect();
    if !rustix::process::geteuid().is_root() {
        missing.push("the rights of root".to_owned());
    }
    if missing.is_empty() {
        return true;
    }
    let text = format!("SKIPPED: this test needs {}; run `tests/run`, which sees to it", missing.join(", "));
    assert!(env::var_os("CI").is_none(), "{text}");
    eprintln!("{text}");
    false
}

/// Where a program is.
pub(crate) fn path(program: &str) -> PathBuf {
    find(program).unwrap_or_else(|| panic!("`{program}` is not installed"))
}

fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    // Not every PATH of root has these, and the daemons are there.
    let further = ["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from);
    env::split_paths(&path)
        .chain(further)
        .map(|directory| directory.join(program))
        .find(|file| file.is_file())
}

/// What every test needs: the upstream, its content, and the programs around the children.
pub(crate) fn of_upstream() -> Vec<&'static str> {
    vec!["docker-registry", "debootstrap", "zstd", "gzip", "tar", "setpriv", "timeout"]
}
