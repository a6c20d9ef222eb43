//! Small C programs and libraries that tests need below the program: compiled when they are wanted.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Compiles a source of these tests, given by its path from `tests/service`, to a file of this name.
pub(crate) fn compile(source: &str, name: &str, flags: &[&str]) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let own = folder.join(format!("{name}-{}", std::process::id()));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/service").join(source);
    let compiled = Command::new("cc")
        .args(["-O1", "-Wall", "-Werror", "-o"])
        .args([&own, &source])
        .args(flags)
        .output()
        .expect("cc is needed: tests/run installs it");
    assert!(compiled.status.success(), "{compiled:?}");
    // Other test processes may compile it, too: each takes a whole one.
    let target = folder.join(name);
    std::fs::rename(own, &target).unwrap();
    target
}
