//! Programs that a test starts: they write to a log, and end with the value that owns them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::Instant;

/// A running program that is stopped, by its own id, when the value is dropped.
pub(crate) struct Owned {
    name: &'static str,
    process: Child,
    log: PathBuf,
}

impl Owned {
    /// Starts `program`; both its outputs go to `log`.
    ///
    /// `setpriv` has the kernel end the program too when the thread of the test dies without unwinding.
    pub(crate) fn start(
        name: &'static str,
        program: &Path,
        log: &Path,
        configure: impl FnOnce(&mut Command),
    ) -> Self {
        let output = File::create(log).expect("create the log of a program");
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM", "--"]).arg(program);
        command.stdin(Stdio::null()).stderr(output.try_clone().expect("share the log")).stdout(output);
        configure(&mut command);
        let process = command.spawn().unwrap_or_else(|error| panic!("start {name}: {error}"));
        Self { name, process, log: log.to_path_buf() }
    }

    /// Waits until `find` sees in the log what it looks for; panics with the log if the program ends first.
    pub(crate) fn wait_for<T>(&mut self, what: &str, find: impl Fn(&str) -> Option<T>) -> T {
        let found = wait_until(Duration::from_secs(30), || {
            let ended = self.process.try_wait().expect("ask for the state of a program").is_some();
            match find(&self.log_text()) {
                Some(found) => Some(Some(found)),
                None => ended.then_some(None),
            }
        });
        found
            .flatten()
            .unwrap_or_else(|| panic!("{} never showed {what}; its log:\n{}", self.name, self.log_text()))
    }

    /// What the program has written so far.
    pub(crate) fn log_text(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Asks the program to end, and ends it by force when it does not.
    pub(crate) fn stop(&mut self) {
        if matches!(self.process.try_wait(), Ok(Some(_))) {
            return;
        }
        let id = Pid::from_child(&self.process);
        let _ = kill_process(id, Signal::TERM);
        if wait_until(Duration::from_secs(20), || self.process.try_wait().ok().flatten()).is_none() {
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        if thread::panicking() {
            let text = self.log_text();
            let lines: Vec<&str> = text.lines().collect();
            let tail = lines[lines.len().saturating_sub(15)..].join("\n");
            eprintln!("---- the last lines of {} ----\n{tail}", self.name);
        }
        self.stop();
    }
}

/// Asks again and again until there is an answer; `None` when there was none in time.
pub(crate) fn wait_until<T>(limit: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if Instant::now() >= deadline {
            return None;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// A command that is ended when it takes longer than five minutes.
pub(crate) fn command(program: impl AsRef<Path>) -> Command {
    command_within(Duration::from_mins(5), program)
}

/// A command that is ended when it takes longer than `limit`.
pub(crate) fn command_within(limit: Duration, program: impl AsRef<Path>) -> Command {
    let mut command = Command::new("timeout");
    command
        .arg("--kill-after=10")
        .arg(limit.as_secs().to_string())
        .arg(program.as_ref())
        .stdin(Stdio::null());
    command
}

/// Takes away the mounts that a program left, which would keep `directory` from being removed.
pub(crate) fn unmount_below(directory: &Path) {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let targets = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    for target in targets.filter(|target| Path::new(target).starts_with(directory)) {
        let _ = Command::new("umount").args(["--lazy", target]).status();
    }
}

/// Runs a command to its end and returns its standard output; panics with both outputs when it fails.
pub(crate) fn run(command: &mut Command) -> Vec<u8> {
    let Output { status, stdout, stderr } =
        command.output().unwrap_or_else(|error| panic!("start {command:?}: {error}"));
    assert!(
        status.success(),
        "{command:?}: {status}\n{}{}",
        String::from_utf8_lossy(&stdout),
        String::from_utf8_lossy(&stderr)
    );
    stdout
}

/// Runs a command to its end; whether it succeeded.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command.output().unwrap_or_else(|error| panic!("start {command:?}: {error}")).status.success()
}

/// Runs a command to its end and returns its standard output as text, without the last line break.
pub(crate) fn run_text(command: &mut Command) -> String {
    String::from_utf8(run(command)).expect("output is text").trim_end().to_owned()
}
