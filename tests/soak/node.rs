//! The server under test: what is done to it, and what has to be so in the end.

use std::path::Path;
use std::time::Duration;

use fastrand::Rng;
use http::Method;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::chronicle::Chronicle;
use crate::content::ALL_TYPES;
use crate::door::Door;
use crate::harness::{Section, Setup, Tidegate, files_in, until};
use crate::shim::Shim;
use crate::world::{Host, STEADY, World, pick_tag};

const MIB: u64 = 1 << 20;

/// The byte budget, below what there is: something is always being evicted.
const BUDGET_BYTES: u64 = 4 * MIB;

/// What it may have grown by, in memory, whatever it went through.
const GROWTH_BYTES: u64 = 48 * MIB;
/// And in connections and files, beside the stored ones that it keeps open.
const MORE_DESCRIPTORS: usize = 16;
/// Of those it may keep so many.
const MOST_STORED_FILES: usize = 256;

/// What the log may say of errors: disks fail.
const EXPECTED: [&str; 3] = [
    "disk cannot keep content",
    "index failed, upstream is asked instead",
    "a question to the administrator's API cannot be answered",
];

/// The server.
pub(crate) struct Node {
    tidegate: Tidegate,
    shim: Shim,
    door: Door,
    chronicle: Chronicle,
}

/// What a server takes of its machine.
pub(crate) struct Footprint {
    memory_bytes: u64,
    descriptors: usize,
}

impl Node {
    pub(crate) async fn start(world: &World, chronicle: Chronicle) -> Self {
        let shim = Shim::new();
        let mut setup = Setup::new().max_size(&format!("{}MiB", BUDGET_BYTES / MIB)).with_warnings();
        for host in &world.hosts {
            setup = setup.upstream(section_of(host));
        }
        // In hours, lines of the access log would fill the memory of this test.
        setup = setup.variable("TIDEGATE_LOGGING__LEVEL", Path::new("info,tidegate::access=warn"));
        let setup = EXPECTED.iter().fold(setup, |setup, text| setup.with_log(text));
        let tidegate = shim.under(setup).start().await;
        let door = Door::new(tidegate.address());
        Self { tidegate, shim, door, chronicle }
    }

    pub(crate) fn door(&self) -> Door {
        self.door.clone()
    }

    // ---- what is done to it

    pub(crate) fn fail_disk(&self, lines: &[String]) {
        self.chronicle.note(format!("disk: {lines:?}"));
        self.shim.fail(&lines.iter().map(String::as_str).collect::<Vec<_>>());
    }

    /// Removes and truncates some stored files, lengthens some, and alters some of the small ones. (A large one that was
    /// altered is served until something hashes it: its clients do.)
    pub(crate) fn damage_files(&self, rng: &mut Rng) {
        let files = files_in(&self.tidegate.data().join("content"));
        for path in &files {
            if rng.u8(..8) != 0 {
                continue;
            }
            let Ok(mut bytes) = std::fs::read(path) else { continue };
            let damage = match rng.u8(..4) {
                0 => std::fs::remove_file(path),
                1 => replace(path, &bytes[..rng.usize(..=bytes.len())]),
                2 => append(path),
                _ if bytes.len() <= 60_000 && !bytes.is_empty() => {
                    let place = rng.usize(..bytes.len());
                    bytes[place] ^= 1;
                    replace(path, &bytes)
                }
                _ => Ok(()),
            };
            // It may have been evicted meanwhile.
            let _ = damage;
        }
        self.chronicle.note("some stored files are damaged");
    }

    pub(crate) async fn switch(&self, is_offline: bool) {
        self.chronicle.note(format!("offline: {is_offline}"));
        if is_offline {
            self.door.switch(false);
        }
        self.order(Method::PUT, "/api/v1/offline", json!({ "offline": is_offline })).await;
        if !is_offline {
            self.door.switch(true);
        }
    }

    pub(crate) async fn purge(&self, rng: &mut Rng, world: &World) {
        let host = &world.hosts[rng.usize(..world.hosts.len())];
        let image = host.versions(pick_tag(rng)).pop().unwrap();
        let repository = format!("{}/{}", host.name, image.repository);
        let order = match rng.u8(..4) {
            0 => json!({ "repository": repository }),
            1 => json!({ "repository": repository, "tag": image.tag }),
            2 => json!({ "upstream": host.name, "kind": "blob" }),
            _ => json!({ "digest": image.layers[0].digest }),
        };
        self.chronicle.note(format!("purge {order}"));
        self.order(Method::POST, "/api/v1/cache/purge", order).await;
    }

    pub(crate) async fn warm(&self, rng: &mut Rng, world: &World) {
        let names = (0..3).map(|_| {
            let host = &world.hosts[rng.usize(..world.hosts.len())];
            let image = host.versions(pick_tag(rng)).pop().unwrap();
            format!("{}/{}:{}", host.name, image.repository, image.tag)
        });
        let order = json!({ "images": names.collect::<Vec<_>>() });
        self.chronicle.note(format!("warm {order}"));
        self.order(Method::POST, "/api/v1/warm", order).await;
    }

    /// What the index cannot take is refused; nothing else is.
    async fn order(&self, method: Method, path: &str, order: Value) {
        let call = self.tidegate.admin().call(method, path).header("content-type", "application/json");
        let answer = call.body(order.to_string()).send().await;
        assert!([200, 202, 404, 500, 503].contains(&answer.status), "{path} {order}: {answer:?}");
    }

    pub(crate) fn reload(&self) {
        self.chronicle.note("SIGHUP");
        self.tidegate.signal(Signal::HUP);
    }

    /// Stops the process as a debugger or a frozen container does.
    pub(crate) async fn pause(&self, rng: &mut Rng) {
        self.chronicle.note("SIGSTOP");
        self.tidegate.signal(Signal::STOP);
        tokio::time::sleep(Duration::from_millis(rng.u64(100..2500))).await;
        self.tidegate.signal(Signal::CONT);
        self.chronicle.note("SIGCONT");
    }

    /// Kills or ends the process and starts another, at times without the index.
    pub(crate) async fn end_and_start(&mut self, rng: &mut Rng) {
        self.door.close();
        if rng.u8(..4) == 0 {
            self.chronicle.note("SIGTERM");
            self.tidegate.signal(Signal::TERM);
            self.tidegate.wait_for_exit().await;
        } else {
            self.chronicle.note("SIGKILL");
            self.tidegate.kill().await;
        }
        if rng.u8(..4) == 0 {
            self.chronicle.note("the index is lost");
            let files = files_in(&self.tidegate.data());
            let is_index = |path: &Path| path.to_string_lossy().contains("index.sqlite3");
            files.iter().filter(|path| is_index(path)).for_each(|path| std::fs::remove_file(path).unwrap());
        }
        self.start_again().await;
    }

    async fn start_again(&mut self) {
        self.tidegate.start_again().await;
        self.door.open(self.tidegate.address());
        self.chronicle.note("started");
    }

    // ---- what has to be so

    /// Pulls everything, so that what comes later can be compared.
    pub(crate) async fn settle(&self, world: &World) -> Footprint {
        self.pull_all(world).await.unwrap();
        Footprint { memory_bytes: self.tidegate.memory_bytes(), descriptors: self.count_descriptors().0 }
    }

    /// Its descriptors, without and only those of stored files.
    fn count_descriptors(&self) -> (usize, usize) {
        let all = self.tidegate.descriptors();
        let stored = all.iter().filter(|path| path.to_string_lossy().contains("/content/")).count();
        (all.len() - stored, stored)
    }

    /// Waits until everything can be pulled and is the newest; how long that took.
    pub(crate) async fn recover(&self, world: &World, limit: Duration) -> Duration {
        let started = Instant::now();
        loop {
            let pulled = self.pull_all(world).await;
            let took = started.elapsed();
            match pulled {
                Ok(()) => return took,
                Err(fault) => assert!(took < limit, "after {took:?}: {fault}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Pulls every image that ever was by digest, and every tag, which has to be current.
    async fn pull_all(&self, world: &World) -> Result<(), String> {
        for (host, image) in world.images() {
            self.pull(&host.path(&image.digest_path()), &image.manifest.bytes).await?;
            for blob in image.layers.iter().chain([&image.config]) {
                self.pull(&host.path(&image.blob_path(blob)), &blob.bytes).await?;
            }
        }
        for (host, image) in world.current_images() {
            self.pull(&host.path(&image.tag_path()), &image.manifest.bytes).await?;
        }
        Ok(())
    }

    async fn pull(&self, path: &str, right: &[u8]) -> Result<(), String> {
        match self.tidegate.get(path).accept(&ALL_TYPES).try_send().await {
            Ok(answer) if answer.status == 200 && answer.body == right => Ok(()),
            Ok(answer) => Err(format!("{path}: {answer:?}")),
            Err(cut) => Err(format!("{path}: cut after {} bytes", cut.received.len())),
        }
    }

    /// Waits until nothing is left of what went on: no transfer, no file, no memory.
    pub(crate) async fn has_shrunk_to(&self, before: &Footprint) {
        let tidegate = &self.tidegate;
        #[expect(clippy::cast_precision_loss, reason = "a small number")]
        let budget = BUDGET_BYTES as f64;
        let most = [
            ("tidegate_fills_in_progress", 0.0),
            ("tidegate_disk_trouble", 0.0),
            ("tidegate_cache_bytes", budget),
        ];
        for (name, most) in most {
            until(name, async || tidegate.metrics().await.sum(name, &[]) <= most).await;
        }
        until("no half-written file", async || files_in(&tidegate.data().join("incoming")).is_empty()).await;
        until("no more descriptors than before", async || {
            let (others, stored_files) = self.count_descriptors();
            others <= before.descriptors + MORE_DESCRIPTORS && stored_files <= MOST_STORED_FILES
        })
        .await;
        let (was, is) = (before.memory_bytes, tidegate.memory_bytes());
        self.chronicle.note(format!(
            "memory {} MiB, then {} MiB; descriptors {}, then {}",
            was / MIB,
            is / MIB,
            before.descriptors,
            self.count_descriptors().0
        ));
        assert!(is <= was + GROWTH_BYTES, "{} MiB became {} MiB", was / MIB, is / MIB);
    }

    /// Starts again, so that nothing comes from memory: all is right, and so is every file.
    pub(crate) async fn is_whole_after_a_restart(&mut self, world: &World) {
        self.tidegate.signal(Signal::TERM);
        assert!(self.tidegate.wait_for_exit().await, "it did not end well");
        self.start_again().await;
        self.pull_all(world).await.unwrap();
        until("the end of all fills", async || {
            self.tidegate.metrics().await.sum("tidegate_fills_in_progress", &[]) < 0.5
        })
        .await;
        self.tidegate.verify_store();
    }
}

fn section_of(host: &Host) -> Section {
    let section =
        Section::new(host.name, &host.upstream).clocks("1s", "1s", "30d").text("negative_for", "1s");
    if host.name == STEADY {
        // The process may be stopped meanwhile, and be one of many on a slow machine.
        return section;
    }
    section.timeouts("1s", "1s", "1s").without("miss_timeout")
}

fn append(path: &Path) -> std::io::Result<()> {
    use std::io::Write as _;
    std::fs::File::options().append(true).open(path)?.write_all(b"more")
}

/// Whoever reads the old file goes on to: only a stored file is altered, not what is on its way to a client. To cut one in
/// its place would be no exception: the system clears the rest of the last page, which a socket may hold.
fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let altered = path.with_extension("altered");
    std::fs::write(&altered, bytes)?;
    std::fs::rename(altered, path)
}
