//! Every fault of a disk, injected into the real program: what clients get meanwhile, what people are told,
//! and how soon all is as before. Each test prints its row of the table in `src/ARCHITECTURE.md`.

pub(crate) mod shim;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::content::Image;
use crate::disk::SmallDisk;
use crate::harness::{Section, Setup, Tidegate, files_in, until};
use crate::upstream::{Gate, Upstream, blob, everything, serve};
use shim::Shim;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// How soon a disk that works again has to be used again.
const RECOVERY: Duration = Duration::from_secs(10);

/// How many clients come at once.
const CROWD: usize = 12;

// The numbers of Linux; the same on every architecture that this runs on.
const EIO: i32 = 5;
const ENOSPC: i32 = 28;
const EROFS: i32 = 30;
const STUCK: i32 = 0;

/// A server on a disk that can be made to fail.
struct Node {
    upstream: Upstream,
    tidegate: Tidegate,
    before: Image,
}

impl Node {
    async fn start(data: Option<&Path>, shim: Option<&Shim>) -> Self {
        let upstream = Upstream::start().await;
        let before = upstream.make_image("library/before", "1", &[100 * KIB, KIB]);
        let mut setup = Setup::new().upstream(Section::hub(&upstream)).with_warnings();
        for expected in ["disk", "index", "content"] {
            setup = setup.with_log(expected);
        }
        if let Some(data) = data {
            setup = setup.data(data);
        }
        if let Some(shim) = shim {
            setup = shim.under(setup);
        }
        let tidegate = setup.start().await;
        tidegate.pull(&before).await;
        let kept = tidegate.stored_path(&before.layers[0].digest);
        until("the first image on the disk", async || kept.exists()).await;
        Self { upstream, tidegate, before }
    }

    /// What is wanted of a node whose disk fails: cached content, cold content, crowds, and no wrong byte.
    async fn serves(&self, crowd_transfers: usize) {
        self.tidegate.pull(&self.before).await;
        let cold = self.upstream.make_image("library/cold", "1", &[700 * KIB, 10]);
        self.tidegate.pull(&cold).await;
        self.serves_a_crowd(crowd_transfers).await;
        self.never_completes_a_wrong_blob().await;
        self.tidegate.pull(&self.before).await;
        let log = self.tidegate.log_lines("it passes through");
        assert!(log.len() <= 3, "one line for each cause and minute: {log:?}");
    }

    async fn serves_a_crowd(&self, transfers: usize) {
        let image = self.upstream.make_image("library/crowd", "1", &[2 * MIB]);
        self.tidegate.manifest(&image.tag_path()).await;
        self.upstream.forget_requests();
        // Held, so that all of them come while the first is being served.
        let gate = Gate::closed();
        self.upstream.rule(blob(&image.layers[0]), serve().hold_body(&gate));
        let path = image.layer_path(0);
        let clients = (0..CROWD).map(|_| self.tidegate.get(&path).open());
        let answers = futures_util::future::join_all(clients).await;
        gate.open();
        let read = answers.into_iter().map(async |mut answer| {
            assert_eq!(answer.status, 200);
            assert!(answer.equals(&image.layers[0].bytes).await);
        });
        futures_util::future::join_all(read).await;
        self.upstream.heal();
        let asked = self.upstream.count(&blob(&image.layers[0]));
        assert!(asked <= transfers, "{asked} transfers for {CROWD} clients");
    }

    async fn never_completes_a_wrong_blob(&self) {
        let wrong = self.upstream.make_image("library/wrong", "1", &[500 * KIB]);
        self.tidegate.manifest(&wrong.tag_path()).await;
        self.upstream.rule(blob(&wrong.layers[0]), serve().flip_at(200));
        match self.tidegate.get(&wrong.layer_path(0)).try_send().await {
            Ok(answer) => assert!(answer.status >= 500, "{}", answer.status),
            Err(cut) => assert!(cut.received.len() < 500 * KIB),
        }
        self.upstream.heal();
    }

    /// Waits until people are told of the cause; the node stays ready.
    async fn tells(&self, cause: &str) {
        until("the cause", async || {
            let told = self.disk_check().await;
            told["status"] == "degraded" && told["reason"].as_str().unwrap().contains(cause)
        })
        .await;
        let metrics = self.tidegate.metrics().await;
        assert!(metrics.sum("tidegate_disk_trouble", &[("cause", cause)]) > 0.5, "{}", metrics.text());
        assert!(metrics.sum("tidegate_disk_failures_total", &[]) > 0.5);
        assert!(!self.tidegate.log_lines("disk cannot keep content").is_empty());
    }

    async fn disk_check(&self) -> serde_json::Value {
        let health = self.tidegate.admin().get("/health/ready").send().await;
        assert_eq!(health.status, 200, "{health:?}");
        health.json()["checks"]["disk"].clone()
    }

    /// Waits until the disk is in use again; prints the row.
    #[expect(clippy::print_stderr, reason = "the table for people")]
    async fn recovers(&self, fault: &str, outcome: &str) {
        let healed = Instant::now();
        until("the disk in use again", async || self.disk_check().await["status"] == "ok").await;
        let after = self.upstream.make_image("library/after", "1", &[300 * KIB]);
        self.tidegate.pull(&after).await;
        let kept = self.tidegate.stored_path(&after.layers[0].digest);
        until("new content on the disk", async || kept.exists()).await;
        let took = healed.elapsed();
        assert!(took < RECOVERY, "{took:?}");
        self.upstream.forget_requests();
        self.tidegate.pull(&after).await;
        assert_eq!(self.upstream.count(&everything()), 0, "kept again");
        let metrics = self.tidegate.metrics().await;
        assert!(metrics.sum("tidegate_disk_trouble", &[]) < 0.5, "{}", metrics.text());
        eprintln!("| {fault} | {outcome} | {:.1} s |", took.as_secs_f64());
    }
}

/// Runs a node whose calls fail as the lines say, and heals it.
async fn row(fault: &str, lines: &[String], cause: &str, crowd_transfers: usize) {
    let shim = Shim::new();
    let node = Node::start(None, Some(&shim)).await;
    shim.fail(&lines.iter().map(String::as_str).collect::<Vec<_>>());
    node.serves(crowd_transfers).await;
    node.tells(cause).await;
    shim.heal();
    let outcome = if crowd_transfers == 1 { "served, one transfer a crowd" } else { "served" };
    node.recovers(fault, outcome).await;
    node.tidegate.verify_store();
}

#[tokio::test]
async fn no_space_at_the_first_write() {
    row("ENOSPC, write", &[format!("write /incoming/ {ENOSPC} 0")], "full", 1).await;
}

#[tokio::test]
async fn no_space_at_a_later_write() {
    row("ENOSPC, write 3 and later", &[format!("write /incoming/ {ENOSPC} 2")], "full", 1).await;
}

#[tokio::test]
async fn no_space_at_the_sync() {
    row("ENOSPC, fsync", &[format!("sync /incoming/ {ENOSPC} 0")], "full", 1).await;
}

#[tokio::test]
async fn an_io_error_at_a_write() {
    row("EIO, write", &[format!("write /incoming/ {EIO} 0")], "io", 1).await;
}

#[tokio::test]
async fn an_io_error_at_the_sync() {
    row("EIO, fsync", &[format!("sync /incoming/ {EIO} 0")], "io", 1).await;
}

#[tokio::test]
async fn an_io_error_at_the_creation_of_a_file() {
    row("EIO, open to write", &[format!("create /incoming/ {EIO} 0")], "io", 1).await;
}

#[tokio::test]
async fn a_disk_that_turned_read_only() {
    let lines: Vec<_> = ["open_to_write", "write", "sync", "rename", "unlink"]
        .iter()
        .flat_map(|call| {
            ["/incoming/", "/content/", "/index.sqlite3"].map(|part| format!("{call} {part} {EROFS} 0"))
        })
        .collect();
    row("read-only, with the index", &lines, "read_only", 1).await;
}

#[tokio::test]
async fn a_disk_that_hangs_at_writes() {
    row("stuck, write", &[format!("write /incoming/ {STUCK} 0")], "slow", 1).await;
}

#[tokio::test]
async fn a_disk_that_hangs_at_every_file() {
    let lines = ["open", "write", "sync"].map(|call| format!("{call} /data/incoming/ {STUCK} 0"));
    row("stuck, open and write", &lines, "slow", 1).await;
}

#[tokio::test]
async fn a_node_whose_disk_hangs_can_be_ended() {
    let shim = Shim::new();
    let mut node = Node::start(None, Some(&shim)).await;
    shim.fail(&[&format!("write /incoming/ {STUCK} 0")]);
    let cold = node.upstream.make_image("library/cold", "1", &[100 * KIB]);
    node.tidegate.pull(&cold).await;
    let told = Instant::now();
    node.tidegate.signal(rustix::process::Signal::TERM);
    assert!(node.tidegate.wait_for_exit().await, "it did not end well");
    assert!(told.elapsed() < Duration::from_secs(30), "{:?}", told.elapsed());
}

#[tokio::test]
async fn a_rename_that_fails_keeps_nothing_and_costs_nobody_anything() {
    let shim = Shim::new();
    let node = Node::start(None, Some(&shim)).await;
    shim.fail(&[&format!("rename /content/ {EIO} 0")]);
    node.serves(CROWD).await;
    until("a count", async || {
        node.tidegate.metrics().await.sum("tidegate_disk_failures_total", &[("cause", "io")]) > 0.5
    })
    .await;
    shim.heal();
    node.recovers("EIO, rename", "served").await;
    node.tidegate.verify_store();
}

#[tokio::test]
async fn half_written_files_that_could_not_be_removed_are_removed_later() {
    let shim = Shim::new();
    let node = Node::start(None, Some(&shim)).await;
    let incoming = node.tidegate.data().join("incoming");
    shim.fail(&[&format!("unlink /incoming/ {EROFS} 0")]);
    node.never_completes_a_wrong_blob().await;
    assert_eq!(files_in(&incoming).len(), 1, "it could not be removed");
    shim.heal();
    until("it to be removed", async || files_in(&incoming).is_empty()).await;
}

#[tokio::test]
async fn stored_files_that_cannot_be_read_are_replaced_by_upstream() {
    let shim = Shim::new();
    let Some(disk) = SmallDisk::mount("64m") else { return };
    let node = Node::start(Some(&disk.path().join("data")), Some(&shim)).await;
    for call in ["read", "open"] {
        shim.fail(&[&format!("{call} /content/ {EIO} 0")]);
        node.tidegate.pull(&node.before).await;
        node.serves(CROWD).await;
        shim.heal();
    }
    node.recovers("EIO, read of stored files", "served from upstream").await;
}

#[tokio::test]
async fn a_full_disk_is_told_and_used_again_within_seconds() {
    let Some(disk) = SmallDisk::mount("16m") else { return };
    let node = Node::start(Some(&disk.path().join("data")), None).await;
    disk.fill();
    node.serves(1).await;
    disk.fill();
    node.tells("full").await;
    disk.free();
    node.recovers("full file system", "served, one transfer a crowd").await;
    node.tidegate.verify_store();
}

/// Another user of the disk, who takes all files that can be made, and takes again what is evicted.
struct Ballast {
    path: PathBuf,
    is_over: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Ballast {
    /// Returns when no more files can be made.
    fn load(path: &Path) -> Self {
        let (path, is_over) = (path.to_owned(), Arc::new(AtomicBool::new(false)));
        let mut number = Self::fill(&path, 0);
        let (place, told) = (path.clone(), Arc::clone(&is_over));
        let thread = std::thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                number = Self::fill(&place, number);
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        Self { path, is_over, thread: Some(thread) }
    }

    /// Makes files from that number on until it fails; gives the number that failed.
    fn fill(path: &Path, first: usize) -> usize {
        let mut numbers = first..;
        let make = |number: &usize| {
            std::fs::File::create(path.join(format!("ballast-{number}")))
                .map_err(|error| assert_eq!(error.kind(), std::io::ErrorKind::StorageFull))
                .is_err()
        };
        numbers.find(make).expect("an end of all disks")
    }
}

impl Drop for Ballast {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            assert!(
                thread.join().is_ok() || std::thread::panicking(),
                "a disk fails otherwise than by files"
            );
        }
        for entry in std::fs::read_dir(&self.path).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                std::fs::remove_file(path).unwrap();
            }
        }
    }
}

#[tokio::test]
async fn a_disk_without_inodes_is_told_as_such_and_given_some() {
    let Some(disk) = SmallDisk::mount_with("size=64m,nr_inodes=601") else { return };
    let node = Node::start(Some(&disk.path().join("data")), None).await;
    let ballast = Ballast::load(disk.path());
    node.serves(CROWD).await;
    until("nothing left to evict, and the right word for it", async || {
        node.tidegate.fetch("/v2/library/cold/manifests/other").await;
        let image = node.upstream.make_image("library/more", "1", &[100 * KIB]);
        node.tidegate.pull(&image).await;
        node.disk_check().await["reason"].as_str().is_some_and(|reason| reason.contains("inodes"))
    })
    .await;
    drop(ballast);
    node.recovers("no inodes", "served").await;
}

#[tokio::test]
async fn what_others_take_of_the_disk_is_made_up_for_before_it_is_full() {
    let Some(disk) = SmallDisk::mount("32m") else { return };
    let upstream = Upstream::start().await;
    let tidegate = Setup::new()
        .upstream(Section::hub(&upstream))
        .data(&disk.path().join("data"))
        .storage("min_free = \"8MiB\"")
        .with_warnings()
        .start()
        .await;
    for number in 0..4 {
        tidegate.pull(&upstream.make_image("library/app", &number.to_string(), &[4 * MIB])).await;
    }
    std::fs::write(disk.path().join("others"), vec![1; 12 * MIB]).unwrap();
    until("content to be evicted and 8 MiB to be free", async || {
        let metrics = tidegate.metrics().await;
        metrics.sum("tidegate_cache_evictions_total", &[("reason", "disk_low")]) >= 1.0
            && metrics.sum("tidegate_disk_free_bytes", &[]) >= 8.0 * 1_048_576.0
    })
    .await;
    let metrics = tidegate.metrics().await;
    assert!(metrics.sum("tidegate_cache_bytes", &[]) > 0.5, "no more than needed");
    assert!(metrics.sum("tidegate_disk_failures_total", &[]) < 0.5, "nothing failed");
}

#[tokio::test]
async fn an_index_that_fails_stops_nothing_and_learns_later_what_it_missed() {
    let disks = [
        ("ENOSPC", ENOSPC, &["write", "sync"][..]),
        ("EIO", EIO, &["write", "sync"]),
        ("EROFS", EROFS, &["write", "sync"]),
        // What is opened meanwhile is opened for reading, and can never write.
        ("EROFS, also for files that are opened", EROFS, &["write", "sync", "open_to_write"]),
    ];
    for (name, errno, calls) in disks {
        let shim = Shim::new();
        let node = Node::start(None, Some(&shim)).await;
        let lines: Vec<_> = calls.iter().map(|call| format!("{call} index.sqlite3 {errno} 0")).collect();
        shim.fail(&lines.iter().map(String::as_str).collect::<Vec<_>>());
        let cold = node.upstream.make_image("library/cold", "1", &[700 * KIB]);
        for image in [&node.before, &cold, &node.before] {
            node.tidegate.pull(image).await;
        }
        let kept = node.tidegate.stored_path(&cold.layers[0].digest);
        until("the blob on the disk", async || kept.exists()).await;
        assert!(node.tidegate.metrics().await.sum("tidegate_index_failures_total", &[]) > 0.5);
        let lines = node.tidegate.log_lines("index failed");
        assert_eq!(lines.len(), 1, "{lines:?}");
        shim.heal();
        node.tidegate.wait_for_log("the index takes content again").await;
        until("all content counted", async || {
            node.tidegate.metrics().await.sum("tidegate_cache_bytes", &[]) > 800_000.0
        })
        .await;
        node.recovers(&format!("{name}, index"), "served and kept").await;
    }
}

#[tokio::test]
async fn descriptors_that_run_out_slow_the_node_down_and_nothing_else() {
    use rustix::process::{Resource, Rlimit, getrlimit, prlimit};

    let node = Node::start(None, None).await;
    let id = node.tidegate.process_id();
    let open = node.tidegate.descriptors().len() as u64;
    let few = Rlimit { current: Some(open + 6), maximum: getrlimit(Resource::Nofile).maximum };
    let old = prlimit(Some(id), Resource::Nofile, few).unwrap();
    let mut idle = Vec::new();
    for _ in 0..40 {
        idle.push(tokio::net::TcpStream::connect(node.tidegate.address()).await.unwrap());
    }
    node.tidegate.wait_for_log("cannot accept connections").await;
    let spent = processor_time(id);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let spent = processor_time(id).saturating_sub(spent);
    assert!(spent < Duration::from_millis(400), "it spins: {spent:?} of processor time in a second");
    assert_eq!(node.tidegate.log_lines("cannot accept connections").len(), 1);
    drop(idle);
    // Still with few: clients are served one after the other, rightly or not at all.
    let cold = node.upstream.make_image("library/cold", "1", &[300 * KIB]);
    for blob in cold.layers.iter().chain([&cold.config]) {
        if let Ok(answer) = node.tidegate.get(&cold.blob_path(blob)).try_send().await {
            assert!(answer.status >= 400 || answer.body == blob.bytes, "{}", answer.status);
        }
    }
    prlimit(Some(id), Resource::Nofile, old).unwrap();
    node.recovers("no descriptors", "served as far as they go, no spinning").await;
    node.tidegate.pull(&cold).await;
}

/// What the process has used of processors so far.
pub(crate) fn processor_time(id: rustix::process::Pid) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", id.as_raw_nonzero())).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    // User and system time, in hundredths of a second on Linux.
    let ticks: u64 = fields[11..=12].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}
