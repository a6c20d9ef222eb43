//! A disk that fails on demand: a library that stands between the program and the C library.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::harness::{Setup, compile};

/// The faults of one server's disk. None at first.
pub(crate) struct Shim {
    directory: tempfile::TempDir,
}

impl Shim {
    pub(crate) fn new() -> Self {
        let shim = Self { directory: tempfile::tempdir().unwrap() };
        shim.heal();
        shim
    }

    /// Starts the server on this disk.
    pub(crate) fn under(&self, setup: Setup) -> Setup {
        setup.variable("LD_PRELOAD", library()).variable("DISK_FAULTS", &self.rules())
    }

    /// Lets calls fail, as the lines say (`shim.c`).
    pub(crate) fn fail(&self, lines: &[&str]) {
        let new = self.directory.path().join("new");
        std::fs::write(&new, lines.join("\n")).unwrap();
        std::fs::rename(new, self.rules()).unwrap();
    }

    pub(crate) fn heal(&self) {
        self.fail(&[]);
    }

    fn rules(&self) -> PathBuf {
        self.directory.path().join("rules")
    }
}

/// The library, compiled once.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| compile("disk_faults/shim.c", "disk-faults.so", &["-shared", "-fPIC", "-ldl"]))
}
