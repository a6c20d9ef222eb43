//! The process of a server: started, watched, and never left behind.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::time::Instant;

use super::log::Log;
use super::{PATIENCE, Setup, eventually};

/// A server process that has said that it is ready.
pub(super) struct Process {
    child: Child,
    pub(super) log: Log,
    pub(super) address: SocketAddr,
    pub(super) admin: SocketAddr,
    pub(super) startup: Duration,
}

impl Process {
    /// Starts the server and waits until it is ready.
    pub(super) async fn spawn(directory: &Path, setup: &Setup) -> Self {
        let started = Instant::now();
        let mut child = command(directory)
            .envs(setup.variables())
            .args(["serve", "--config", "tidegate.toml", "--listen"])
            .arg(setup.listen())
            .args(["--admin-listen", "127.0.0.1:0"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Log::default();
        log.follow(child.stdout.take().unwrap());
        log.follow(child.stderr.take().unwrap());
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut process = Self { child, log, address, admin: address, startup: Duration::ZERO };
        (process.address, process.admin) = process.wait_for_addresses().await;
        process.startup = started.elapsed();
        process
    }

    async fn wait_for_addresses(&mut self) -> (SocketAddr, SocketAddr) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let exited = self.child.try_wait().unwrap();
            if let Some(addresses) = self.log.lines().iter().find_map(|line| addresses_in(line)) {
                return addresses;
            }
            if exited.is_some() || Instant::now() > deadline {
                self.end();
                panic!("the server is not ready ({exited:?}): {}", self.log.lines().join("\n"));
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    pub(super) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub(super) async fn wait_for_exit(&mut self) -> bool {
        let child = &mut self.child;
        eventually("the end of the process", async || child.try_wait().unwrap()).await.success()
    }

    /// Kills the process if it still runs.
    pub(super) fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub(super) fn id(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// How often the threads whose names begin so have waited for something to do.
    pub(super) fn pauses_of(&self, name: &str) -> u64 {
        let tasks = format!("/proc/{}/task", self.id().as_raw_nonzero());
        let statuses = std::fs::read_dir(tasks).unwrap().filter_map(|task| {
            // A thread may end meanwhile.
            std::fs::read_to_string(task.ok()?.path().join("status")).ok()
        });
        let field = |status: &str, field: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(field));
            line.map(|value| value.trim().to_owned()).unwrap_or_default()
        };
        let threads = statuses.filter(|status| field(status, "Name:").starts_with(name));
        threads.map(|status| field(&status, "voluntary_ctxt_switches:").parse::<u64>().unwrap()).sum()
    }

    /// A number of kB in the status of the process, in bytes.
    pub(super) fn status_bytes(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// The program, at home in this directory and with nothing of the caller's configuration.
pub(super) fn command(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TIDEGATE_") {
            command.env_remove(name);
        }
    }
    command.current_dir(directory);
    command
}

/// The addresses in the line that says ready.
fn addresses_in(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let line: Value = serde_json::from_str(line).ok()?;
    let fields = line.get("fields").unwrap_or(&line);
    if fields["message"].as_str()? != "ready" {
        return None;
    }
    let field = |name: &str| fields[name].as_str()?.split(',').next()?.trim().parse().ok();
    Some((field("server.addresses")?, field("admin.address")?))
}
