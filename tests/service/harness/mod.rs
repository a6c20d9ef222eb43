//! A running Tidegate: the real program, with its own directory, watched, and killed in the end.

mod compiler;
mod log;
mod metrics;
mod object_store;
mod postgres;
mod process;
mod setup;

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tokio::time::Instant;

pub(crate) use compiler::compile;
pub(crate) use metrics::Metrics;
pub(crate) use object_store::ObjectStore;
pub(crate) use postgres::Postgres;
pub(crate) use setup::{Section, Setup};

use crate::client::{Answer, Call, Client};
use crate::content::{ALL_TYPES, Image, sha256};
use crate::upstream::Upstream;
use process::Process;

/// How long anything may take before a test fails: generous, as tests share two cores.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

/// A running server.
pub(crate) struct Tidegate {
    setup: Setup,
    directory: tempfile::TempDir,
    process: Process,
}

impl Tidegate {
    /// A server with one upstream, `hub.test`: the default, with a `library/`, like Docker Hub.
    pub(crate) async fn start(upstream: &Upstream) -> Self {
        Setup::new().upstream(Section::hub(upstream)).start().await
    }

    async fn launch(setup: Setup) -> Self {
        let directory = tempfile::tempdir().unwrap();
        setup.write(directory.path());
        let process = Process::spawn(directory.path(), &setup).await;
        Self { setup, directory, process }
    }

    // ---- asking

    /// A client of the registry.
    pub(crate) fn client(&self) -> Client {
        Client::new(self.address())
    }

    /// A client of metrics and health.
    pub(crate) fn admin(&self) -> Client {
        Client::new(self.process.admin)
    }

    /// Where metrics, health and the API are.
    pub(crate) fn admin_url(&self) -> String {
        format!("http://{}", self.process.admin)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.process.address
    }

    pub(crate) fn get(&self, path: &str) -> Call {
        self.client().get(path)
    }

    pub(crate) fn head(&self, path: &str) -> Call {
        self.client().head(path)
    }

    /// GET to its end.
    pub(crate) async fn fetch(&self, path: &str) -> Answer {
        self.get(path).send().await
    }

    /// GET of a manifest, accepting every type.
    pub(crate) async fn manifest(&self, path: &str) -> Answer {
        self.get(path).accept(&ALL_TYPES).send().await
    }

    /// Pulls a whole image by tag, as clients do, and compares every byte.
    pub(crate) async fn pull(&self, image: &Image) {
        let manifest = self.manifest(&image.tag_path()).await;
        assert_eq!(manifest.status, 200, "{}: {manifest:?}", image.tag_path());
        assert_eq!(manifest.body, image.manifest.bytes, "{}", image.tag_path());
        for blob in image.layers.iter().chain([&image.config]) {
            let mut answer = self.get(&image.blob_path(blob)).open().await;
            assert_eq!(answer.status, 200, "{}", blob.digest);
            assert!(answer.equals(&blob.bytes).await, "{} of {}", blob.digest, image.tag_path());
        }
    }

    /// What `/metrics` says now.
    pub(crate) async fn metrics(&self) -> Metrics {
        let answer = self.admin().get("/metrics").send().await;
        assert_eq!(answer.status, 200);
        Metrics::parse(std::str::from_utf8(&answer.body).unwrap())
    }

    // ---- looking at it

    /// Where it keeps its data.
    pub(crate) fn data(&self) -> PathBuf {
        self.setup.data_of(self.directory.path())
    }

    /// Where it keeps a blob.
    pub(crate) fn stored_path(&self, digest: &str) -> PathBuf {
        let (algorithm, hex) = digest.split_once(':').unwrap();
        self.data().join("content").join(algorithm).join(&hex[..2]).join(hex)
    }

    /// Holds every file of the content store against the digest that it is named by.
    pub(crate) fn verify_store(&self) {
        for path in files_in(&self.data().join("content")) {
            let digest = sha256(&std::fs::read(&path).unwrap());
            let name = path.file_name().unwrap().to_str().unwrap();
            assert_eq!(digest, format!("sha256:{name}"), "{}", path.display());
        }
    }

    /// Its own directory, with the configuration.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The anonymous memory of the process: what it allocated, without files that it maps.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.process.status_bytes("RssAnon:")
    }

    /// The most memory that the process ever had, files that it maps among it.
    pub(crate) fn peak_memory_bytes(&self) -> u64 {
        self.process.status_bytes("VmHWM:")
    }

    /// What the process has open: the paths of files, and words for connections.
    pub(crate) fn descriptors(&self) -> Vec<PathBuf> {
        let links = std::fs::read_dir(format!("/proc/{}/fd", self.process_id().as_raw_nonzero())).unwrap();
        // One may be closed meanwhile.
        links.filter_map(|link| std::fs::read_link(link.ok()?.path()).ok()).collect()
    }

    /// How often the threads that ask the index went to sleep: at least once a query.
    pub(crate) fn index_pauses(&self) -> u64 {
        self.process.pauses_of("sqlx-sqlite")
    }

    /// The process, for tests that take something away from it.
    pub(crate) fn process_id(&self) -> rustix::process::Pid {
        self.process.id()
    }

    /// How long it took from the start of the process to the line that says ready.
    pub(crate) fn startup(&self) -> Duration {
        self.process.startup
    }

    /// The log lines with this text so far.
    pub(crate) fn log_lines(&self, text: &str) -> Vec<String> {
        self.process.log.lines_with(text)
    }

    /// Waits for a log line with this text.
    pub(crate) async fn wait_for_log(&self, text: &str) -> String {
        eventually(&format!("a log line with {text:?}"), async || self.log_lines(text).into_iter().next())
            .await
    }

    // ---- its life

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Waits until the process has ended; whether it said that all was well.
    pub(crate) async fn wait_for_exit(&mut self) -> bool {
        self.process.wait_for_exit().await
    }

    /// Kills it without a warning.
    pub(crate) async fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.wait_for_exit().await;
    }

    /// Starts it again, on the same data, after it ended.
    pub(crate) async fn start_again(&mut self) {
        self.process.log.check(&self.setup);
        self.process = Process::spawn(self.directory.path(), &self.setup).await;
    }

    /// Ends it properly and starts it again on the same data.
    pub(crate) async fn restart(&mut self) {
        self.signal(Signal::TERM);
        assert!(self.wait_for_exit().await, "it did not end well");
        self.start_again().await;
    }

    /// Changes the configuration file; counts after a restart or SIGHUP.
    pub(crate) fn reconfigure(&mut self, change: impl FnOnce(Setup) -> Setup) {
        self.setup = change(std::mem::take(&mut self.setup));
        self.setup.write(self.directory.path());
    }
}

impl Drop for Tidegate {
    fn drop(&mut self) {
        self.process.end();
        if std::thread::panicking() {
            self.process.log.print_tail();
        } else {
            self.process.log.check(&self.setup);
        }
    }
}

/// Runs the program with these arguments to its end: exit code, output, errors.
pub(crate) fn run(directory: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = process::command(directory).args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// A test that cannot run says so loudly, and fails where `CI` is set: nothing is skipped there.
#[expect(clippy::print_stderr, reason = "a skipped test must be seen")]
fn skip(missing: &str) {
    assert!(std::env::var_os("CI").is_none(), "not installed: {missing}");
    eprintln!("SKIPPED: not installed: {missing}");
}

/// All files under a directory.
pub(crate) fn files_in(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    paths.flat_map(|path| if path.is_dir() { files_in(&path) } else { vec![path] }).collect()
}

/// Asks again and again until there is an answer.
pub(crate) async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what} did not come in time");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until something is so.
pub(crate) async fn until(what: &str, mut ask: impl AsyncFnMut() -> bool) {
    eventually(what, async || ask().await.then_some(())).await;
}

/// Fails where something does not come in time.
pub(crate) async fn within_patience<T>(what: &str, future: impl Future<Output = T>) -> T {
    let waited = tokio::time::timeout(PATIENCE, future).await;
    waited.unwrap_or_else(|_elapsed| panic!("{what} did not come in time"))
}

/// The error in a JSON log line, its level, or nothing where it is no JSON.
fn level_of(line: &str) -> Option<String> {
    let line: Value = serde_json::from_str(line).ok()?;
    Some(line["level"].as_str()?.to_owned())
}
