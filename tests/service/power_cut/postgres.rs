//! The power goes under `PostgreSQL`, which has the catalogue, and under the directory with the blobs, at once.
//!
//! The use cases run here, in this process, over both: what they returned before the cut was acknowledged.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use rustix::process::{Pid, Signal, kill_process};
use tidegate::auth::RequestContext;
use tidegate::blobs::hosted::{BlobDirectory, Steps, Uploads};
use tidegate::metadata::catalogue::{PostgresSettings, SqlCatalogue};
use tidegate::oci::{Digest, MediaType, RepositoryName};
use tidegate::registry::hosted::{
    CollectionMetrics, Hosting, HostingServices, ManifestBody, NamespacePolicy,
};
use tidegate::runtime::{Clock, Tasks};

use super::disk::PowerDisk;
use super::hosted::rounds;
use super::{KIB, MIB, Seed};
use crate::content::{Content, Image, sha256};
use crate::hosted::tell;

/// A `PostgreSQL` whose data is on the disk, and whose socket is not.
struct Server {
    programs: PathBuf,
    data: PathBuf,
    socket: tempfile::TempDir,
    process: Option<Child>,
}

impl Server {
    /// Makes one; `None`, and loudly so, where it is not installed. Under CI it must be.
    #[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
    fn make(disk: &PowerDisk) -> Option<Self> {
        let Some(programs) = find_programs() else {
            assert!(std::env::var_os("CI").is_none(), "PostgreSQL is not installed");
            eprintln!("SKIPPED: PostgreSQL is not installed");
            return None;
        };
        let (data, socket) = (disk.path().join("postgres"), tempfile::tempdir().unwrap());
        std::fs::create_dir(&data).unwrap();
        for folder in [&data, socket.path()] {
            chown(folder, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let arguments =
            ["--username=tidegate", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--pgdata"];
        let made = as_nobody(&programs.join("initdb")).args(arguments).arg(&data).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Some(Self { programs, data, socket, process: None })
    }

    /// Starts it, and waits until it has repaired what the cut left.
    fn start(&mut self) {
        let mut process = as_nobody(&self.programs.join("postgres"))
            .args(["-c", "listen_addresses=", "-c", "max_wal_size=64MB", "-c", "min_wal_size=32MB", "-k"])
            .arg(self.socket.path())
            .arg("-D")
            .arg(&self.data)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(process.stderr.take().unwrap());
        let mut text = String::new();
        while !text.contains("ready to accept connections") {
            assert!(log.read_line(&mut text).unwrap() > 0, "{text}");
        }
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        self.process = Some(process);
    }

    /// Ends it at once, with all that it started, and without a checkpoint.
    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = kill_process(Pid::from_child(&process), Signal::QUIT);
            let _ = process.wait();
        }
    }

    fn settings(&self) -> PostgresSettings {
        let url = format!("postgres://tidegate@localhost/postgres?host={}", self.socket.path().display());
        PostgresSettings::parse(&url, 8).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What was acknowledged to one client, which pushes image after image to one tag.
struct Pusher {
    repository: RepositoryName,
    images: Mutex<Vec<(Image, bool)>>,
}

impl Pusher {
    fn new(number: usize) -> Arc<Self> {
        Arc::new(Self { repository: format!("acme/app{number}").parse().unwrap(), images: Mutex::default() })
    }

    /// Pushes until something fails or the power is gone.
    async fn push(self: Arc<Self>, hosting: Hosting, is_dark: Arc<AtomicBool>, mut random: fastrand::Rng) {
        while self.push_one(&hosting, &is_dark, &mut random).await.is_some() {}
    }

    async fn push_one(
        &self,
        hosting: &Hosting,
        is_dark: &AtomicBool,
        random: &mut fastrand::Rng,
    ) -> Option<()> {
        let layers = [random.usize(0..100 * KIB), random.usize(0..2 * KIB)];
        let layers = layers.map(|size| Content::blob(random.u64(..), size)).into();
        let image = Image::of_layers(self.repository.as_str(), "latest", layers);
        let context = RequestContext::administrator();
        for blob in image.layers.iter().chain([&image.config]) {
            let body = stream::iter([Ok(blob.bytes.clone())]).boxed();
            let digest = blob.digest.parse().unwrap();
            let pushed = hosting.push_blob(&context, &self.repository, &digest, body).await;
            if let Err(error) = pushed {
                assert!(is_dark.load(Ordering::SeqCst), "{error}");
                return None;
            }
        }
        self.images.lock().unwrap().push((image.clone(), false));
        let body =
            ManifestBody { media_type: Some(MediaType::OCI_MANIFEST), payload: image.manifest.bytes.clone() };
        let tag = "latest".parse().unwrap();
        let pushed = hosting.push_manifest(&context, &self.repository, &tag, vec![], body).await;
        if is_dark.load(Ordering::SeqCst) {
            return None;
        }
        pushed.unwrap();
        self.images.lock().unwrap().last_mut().unwrap().1 = true;
        Some(())
    }

    /// Every image that was acknowledged is there, byte by byte, and the tag is not behind the last of them. Gives their
    /// number.
    async fn verify(&self, hosting: &Hosting) -> usize {
        let images = std::mem::take(&mut *self.images.lock().unwrap());
        let context = RequestContext::administrator();
        let tag = hosting.catalogue.find_tag(&self.repository, &"latest".parse().unwrap()).await.unwrap();
        let mut visible = None;
        for (at, (image, is_acknowledged)) in images.iter().enumerate() {
            let digest: Digest = image.manifest.digest.parse().unwrap();
            let reference = image.manifest.digest.parse().unwrap();
            let found = hosting.pull_manifest(&context, &self.repository, &reference).await;
            assert!(found.is_ok() || !is_acknowledged, "{digest} was acknowledged and is lost: {found:?}");
            if let Ok(found) = found {
                assert_eq!(found.payload, image.manifest.bytes);
                for blob in image.layers.iter().chain([&image.config]) {
                    let digest: Digest = blob.digest.parse().unwrap();
                    hosting.stat_blob(&context, &self.repository, &digest).await.unwrap();
                    let bytes = hosting.store.read(&digest, 0..blob.size()).await.unwrap().unwrap();
                    let bytes: Vec<Bytes> = bytes.map(Result::unwrap).collect().await;
                    assert_eq!(sha256(&bytes.concat()), blob.digest);
                }
            }
            if tag == Some(digest) {
                visible = Some(at);
            }
        }
        let least = images.iter().rposition(|(_, is_acknowledged)| *is_acknowledged);
        assert!(visible >= least, "the tag is at {visible:?}, and {least:?} was acknowledged");
        least.map_or(0, |least| least + 1)
    }
}

/// The use cases, over the database and a directory on the disk.
async fn open(server: &Server, folder: &Path) -> Hosting {
    let (tasks, steps) = (Tasks::new(), Steps::default());
    let services = HostingServices {
        catalogue: Arc::new(SqlCatalogue::connect(&server.settings()).await.unwrap()),
        store: Arc::new(BlobDirectory::open(&folder.join("blobs"), &tasks, &steps).unwrap()),
        registry: None,
        location: "local".to_owned(),
        redirect_for: None,
        uploads: Uploads::open(&folder.join("uploads"), u64::MAX, &tasks, &steps).unwrap(),
        steps,
        clock: Clock::system(),
        tasks,
    };
    let hosting = Hosting::new(services, CollectionMetrics::new(&prometheus::Registry::new()).unwrap());
    hosting.refresh_namespaces().await.unwrap();
    hosting
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_power_cut_under_postgres_all_that_was_acknowledged_is_there() {
    let Some(disk) = PowerDisk::mount(2048 * MIB as u64) else { return };
    let Some(mut server) = Server::make(&disk) else { return };
    let seed = Seed::new();
    let mut random = fastrand::Rng::with_seed(seed.0);
    let folder = disk.path().join("data");
    server.start();
    let mut hosting = open(&server, &folder).await;
    let context = RequestContext::administrator();
    let policy = NamespacePolicy::default();
    hosting.create_namespace(&context, &"acme".parse().unwrap(), &policy).await.unwrap();
    let pushers: Vec<_> = (0..4).map(Pusher::new).collect();
    let mut acknowledged = 0;
    for round in 0..rounds() {
        let is_dark = Arc::new(AtomicBool::new(false));
        let tasks: Vec<_> = pushers
            .iter()
            .map(|pusher| {
                let pushing = Arc::clone(pusher).push(hosting.clone(), Arc::clone(&is_dark), random.fork());
                tokio::spawn(pushing)
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(random.u64(200..1000))).await;
        // What is said later, nobody would have heard.
        is_dark.store(true, Ordering::SeqCst);
        disk.cut_power();
        server.kill();
        for task in tasks {
            task.await.unwrap();
        }
        // Its open files are on the disk.
        hosting.tasks.shut_down(Duration::from_secs(10)).await;
        drop(hosting);
        disk.boot().await;
        server.start();
        hosting = open(&server, &folder).await;
        for pusher in &pushers {
            acknowledged += pusher.verify(&hosting).await;
        }
        let verified = hosting.verify(&context).await.unwrap();
        assert_eq!(verified.faults, [], "round {round}");
    }
    tell(&format!("{} cuts under PostgreSQL: {acknowledged} images acknowledged", rounds()));
    assert!(acknowledged > 0);
    drop(hosting);
}

/// A command of a user that is not root, as which `PostgreSQL` does not run; who mounts a disk is root.
fn as_nobody(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(program);
    command
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

const NOBODY: u32 = 65534;
