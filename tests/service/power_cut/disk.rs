//! A disk of its own, an ext4 on a file, that can lose its power.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::disk::mount;
use crate::harness::{compile, until};

/// The disk. It is gone, with what it is mounted by, when this is dropped.
pub(super) struct PowerDisk {
    directory: tempfile::TempDir,
}

impl PowerDisk {
    /// Makes and mounts one; `None`, and loudly so, where that is not allowed. Under CI it must be.
    pub(super) fn mount(size_bytes: u64) -> Option<Self> {
        let disk = Self { directory: tempfile::tempdir().unwrap() };
        std::fs::create_dir(disk.path()).unwrap();
        std::fs::File::create(disk.image()).unwrap().set_len(size_bytes).unwrap();
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(disk.image()));
        disk.try_mount_again().then_some(disk)
    }

    /// Where it is mounted.
    pub(super) fn path(&self) -> PathBuf {
        self.directory.path().join("mounted")
    }

    fn image(&self) -> PathBuf {
        self.directory.path().join("image")
    }

    /// Loses from now on what is written to it, and what was not on it yet.
    pub(super) fn cut_power(&self) {
        run(Command::new(shutdown()).arg(self.path()));
    }

    /// Has only what is really on it, as after the next boot; nobody may use it any more.
    pub(super) async fn boot(&self) {
        until("the disk unused", async || {
            Command::new("umount").arg(self.path()).output().unwrap().status.success()
        })
        .await;
        assert!(self.try_mount_again());
    }

    /// The loop device goes by itself with the mount. Files are not flushed because they are renamed, as ext4 does by
    /// itself in some cases: other file systems do not.
    fn try_mount_again(&self) -> bool {
        let options = "loop,noauto_da_alloc".as_ref();
        mount(["-o".as_ref(), options, self.image().as_os_str()], &self.path())
    }
}

impl Drop for PowerDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).output();
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {output:?}");
}

/// The program that cuts the power, compiled once.
fn shutdown() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| compile("power_cut/shutdown.c", "shut-down", &[]))
}
