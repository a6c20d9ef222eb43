//! A private `PostgreSQL`: its own folder, a socket in there and no port; ended with its value.

use std::io::{BufRead, BufReader, Read as _};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// A server with one database, running or stopped.
pub(crate) struct Postgres {
    programs: PathBuf,
    folder: TempDir,
    process: Option<Child>,
}

impl Postgres {
    /// Starts a server; `None`, loudly, where the programs are not installed, which fails in CI.
    pub(crate) fn start() -> Option<Self> {
        let Some(programs) = find_programs() else {
            super::skip("PostgreSQL's initdb and postgres");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        if is_root() {
            chown(folder.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let mut server = Self { programs, folder, process: None };
        let made = as_nobody(&server.programs.join("initdb"))
            .args(["--username=tidegate", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"])
            .arg("--pgdata")
            .arg(server.data())
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        server.start_again();
        Some(server)
    }

    /// The URL of its database.
    pub(crate) fn url(&self) -> String {
        format!("postgres://tidegate@localhost/postgres?host={}", self.folder.path().display())
    }

    /// Ends it as an operator does who does not wait for clients.
    pub(crate) fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            drop(process.stdin.take());
            process.wait().unwrap();
        }
    }

    /// Starts it again, on the same data.
    pub(crate) fn start_again(&mut self) {
        // The shell ends the server when its input ends: with this value, and with this process, however it ends.
        let script = r#""$0" -D "$1" -k "$2" -c listen_addresses= 2>&1 & server=$!
            read -r end; kill -INT "$server"; wait "$server""#;
        let mut process = as_nobody(Path::new("/bin/sh"))
            .args(["-c", script])
            .args([self.programs.join("postgres").as_path(), &self.data(), self.folder.path()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(process.stdout.take().unwrap());
        let mut text = String::new();
        while !text.contains("ready to accept connections") {
            assert!(log.read_line(&mut text).unwrap() > 0, "{text}");
        }
        // What is written to a pipe that nobody reads stops the writer.
        std::thread::spawn(move || log.read_to_end(&mut Vec::new()));
        self.process = Some(process);
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A command of a user that is not root, as which `PostgreSQL` does not run.
fn as_nobody(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(program);
    command
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Debian keeps the versions side by side, and none of them in `PATH`.
fn find_programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let programs = versions.filter_map(|version| Some(version.ok()?.path().join("bin")));
    programs.filter(|folder| folder.join("initdb").exists()).max()
}

const NOBODY: u32 = 65534;
