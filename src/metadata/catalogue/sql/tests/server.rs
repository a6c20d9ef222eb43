//! A private `PostgreSQL` for the tests: its own folder, a socket in there and no port, and ended with its last user.

use std::io::{BufRead, BufReader, Read as _};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, PgConnection};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::metadata::catalogue::PostgresSettings;

/// A running server.
pub(super) struct Server {
    folder: TempDir,
    process: Child,
    databases: AtomicU32,
}

impl Server {
    /// The server that other tests run on just now, or a new one; `None`, loudly, where the programs are not
    /// installed, which fails in CI.
    pub(super) fn shared() -> Option<Arc<Self>> {
        let mut running = RUNNING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(server) = running.upgrade() {
            return Some(server);
        }
        let Some(programs) = find_programs() else {
            skip("PostgreSQL's initdb and postgres");
            return None;
        };
        let server = Arc::new(Self::start(&programs));
        *running = Arc::downgrade(&server);
        Some(server)
    }

    fn start(programs: &Path) -> Self {
        let folder = folder_of_nobody();
        let data = folder.path().join("data");
        let made = as_nobody(&programs.join("initdb"))
            .args(["--username=tidegate", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"])
            .arg("--pgdata")
            .arg(&data)
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        // The shell ends the server when its input ends: with this value, and with this process, however it ends.
        let script = r#""$0" -D "$1" -k "$2" -c listen_addresses= -c max_connections=200 2>&1 & server=$!
            read -r end; kill -INT "$server"; wait "$server""#;
        let mut process = as_nobody(Path::new("/bin/sh"))
            .args(["-c", script])
            .args([programs.join("postgres").as_path(), data.as_path(), folder.path()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(process.stdout.take().unwrap());
        wait_until_ready(&mut log);
        // What is written to a pipe that nobody reads stops the writer.
        std::thread::spawn(move || log.read_to_end(&mut Vec::new()));
        Self { folder, process, databases: AtomicU32::new(0) }
    }

    /// The address of a database of its own.
    pub(super) async fn create_database(&self) -> String {
        let name = format!("test{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.run("postgres", &format!("CREATE DATABASE {name}")).await;
        format!("postgres://tidegate@localhost/{name}?host={}", self.folder.path().display())
    }

    /// Runs statements in a database, from outside of any catalogue.
    pub(super) async fn run(&self, database: &str, statements: &str) {
        let mut connection = self.connect(database).await;
        sqlx::raw_sql(sqlx::AssertSqlSafe(statements)).execute(&mut connection).await.unwrap();
    }

    pub(super) async fn connect(&self, database: &str) -> PgConnection {
        let options = PgConnectOptions::new_without_pgpass()
            .host(&self.folder.path().display().to_string())
            .username("tidegate")
            .database(database);
        options.connect().await.unwrap()
    }

    /// Waits until somebody in the database waits for a lock.
    pub(super) async fn wait_for_a_blocked_one(&self, database: &str) {
        let mut connection = self.connect(database).await;
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let blocked: Option<(i32,)> = sqlx::query_as(
                "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'",
            )
            .fetch_optional(&mut connection)
            .await
            .unwrap();
            if blocked.is_some() {
                return;
            }
            assert!(Instant::now() < deadline, "nobody waits");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

pub(super) fn settings(url: &str) -> PostgresSettings {
    PostgresSettings::parse(url, 8).unwrap()
}

/// A test that cannot run says so loudly, and fails where `CI` is set: nothing is skipped there.
#[expect(clippy::print_stderr, reason = "a skipped test must be seen")]
pub(super) fn skip(missing: &str) {
    assert!(std::env::var_os("CI").is_none(), "not installed: {missing}");
    eprintln!("SKIPPED: not installed: {missing}");
}

/// A command of a user that is not root, as which `PostgreSQL` does not run.
pub(super) fn as_nobody(program: &Path) -> Command {
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

/// A folder that such commands can write to.
pub(super) fn folder_of_nobody() -> TempDir {
    let folder = TempDir::new().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    if is_root() {
        chown(folder.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    folder
}

/// Those of `TIDEGATE_TEST_POSTGRES_BIN`, or else the newest: Debian keeps the versions side by side, and none of them in
/// `PATH`.
fn find_programs() -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os("TIDEGATE_TEST_POSTGRES_BIN") {
        return Some(folder.into());
    }
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let programs = versions.filter_map(|version| Some(version.ok()?.path().join("bin")));
    programs.filter(|folder| folder.join("initdb").exists()).max()
}

fn wait_until_ready(log: &mut impl BufRead) {
    let deadline = Instant::now() + Duration::from_mins(1);
    let mut text = String::new();
    while !text.contains("ready to accept connections") {
        let length = log.read_line(&mut text).unwrap();
        assert!(length > 0 && Instant::now() < deadline, "{text}");
    }
}

const NOBODY: u32 = 65534;

/// A server takes seconds to make, and tests run side by side in one process: they share one.
static RUNNING: Mutex<Weak<Server>> = Mutex::new(Weak::new());
