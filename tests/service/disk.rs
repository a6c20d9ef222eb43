//! A disk that cannot take what comes: bytes still flow (design, the fill).

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use crate::content::Image;
use crate::harness::{Section, Setup, Tidegate};
use crate::upstream::{Kind, Upstream, any, everything, serve};

const MIB: usize = 1 << 20;

/// A small file system in memory, mounted for one test.
pub(crate) struct SmallDisk {
    directory: tempfile::TempDir,
}

impl SmallDisk {
    /// Mounts it; `None`, and loudly so, where mounting is not allowed. Under CI it must be.
    pub(crate) fn mount(size: &str) -> Option<Self> {
        Self::mount_with(&format!("size={size}"))
    }

    /// The same with options of the file system.
    pub(crate) fn mount_with(options: &str) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let options = format!("{options},mode=700");
        let arguments = ["-t", "tmpfs", "-o", &options, "tidegate-test"];
        mount(arguments.map(OsStr::new), directory.path()).then(|| Self { directory })
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Leaves no more than a few pages free.
    pub(crate) fn fill(&self) {
        use std::io::Write as _;
        let mut file = std::fs::File::create(self.path().join("ballast")).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
    }

    pub(crate) fn free(&self) {
        std::fs::remove_file(self.path().join("ballast")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).output();
    }
}

/// Mounts something there; if not, loudly so. Under CI it must be possible.
#[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
pub(crate) fn mount<'a>(arguments: impl IntoIterator<Item = &'a OsStr>, place: &Path) -> bool {
    let mounted = Command::new("mount").args(arguments).arg(place).output();
    let is_mounted = mounted.as_ref().is_ok_and(|output| output.status.success());
    assert!(is_mounted || std::env::var_os("CI").is_none(), "cannot mount a file system: {mounted:?}");
    if !is_mounted {
        eprintln!("SKIPPED: this test needs the right to mount a file system");
    }
    is_mounted
}

async fn on_disk(upstream: &Upstream, disk: &SmallDisk) -> Tidegate {
    Setup::new()
        .upstream(Section::hub(upstream))
        .data(&disk.path().join("data"))
        .with_warnings()
        .with_log("disk")
        .with_log("store")
        .with_log("index")
        .with_log("metadata")
        .with_log("No space left")
        .start()
        .await
}

#[tokio::test]
async fn a_blob_larger_than_the_disk_passes_through_whole() {
    let Some(disk) = SmallDisk::mount("12m") else { return };
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[24 * MIB]);
    let tidegate = on_disk(&upstream, &disk).await;
    for _ in 0..2 {
        tidegate.pull(&image).await;
    }
    let small: Image = upstream.make_image("library/small", "1", &[MIB]);
    tidegate.pull(&small).await;
    upstream.forget_requests();
    tidegate.pull(&small).await;
    assert_eq!(upstream.count(&any(Kind::Blob)), 0, "the disk has room for a small one");
}

#[tokio::test]
async fn a_full_disk_slows_pulls_but_breaks_none_and_is_used_again_when_there_is_room() {
    let Some(disk) = SmallDisk::mount("16m") else { return };
    let upstream = Upstream::start().await;
    let before = upstream.make_image("library/before", "1", &[MIB]);
    let during = upstream.make_image("library/during", "1", &[2 * MIB, 1000]);
    let after = upstream.make_image("library/after", "1", &[MIB]);
    let tidegate = on_disk(&upstream, &disk).await;
    tidegate.pull(&before).await;
    disk.fill();
    tidegate.pull(&during).await;
    tidegate.pull(&before).await;
    for range in ["bytes=0-", "bytes=-5", "bytes=10-19,30-39"] {
        let answer = tidegate.get(&during.layer_path(0)).range(range).send().await;
        assert_eq!(answer.status, 206, "{range}");
    }
    disk.free();
    tidegate.pull(&after).await;
    upstream.forget_requests();
    tidegate.pull(&after).await;
    assert_eq!(upstream.count(&everything()), 0, "kept again");
}

#[tokio::test]
async fn a_wrong_blob_is_not_completed_on_a_full_disk_either() {
    let Some(disk) = SmallDisk::mount("12m") else { return };
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[24 * MIB]);
    let tidegate = on_disk(&upstream, &disk).await;
    tidegate.manifest(&image.tag_path()).await;
    for flipped in [MIB as u64, 24 * MIB as u64 - 1] {
        upstream.heal();
        upstream.rule(any(Kind::Blob), serve().flip_at(flipped));
        let outcome = tidegate.get(&image.layer_path(0)).try_send().await;
        match outcome {
            Ok(answer) => assert!(answer.status >= 500, "{}", answer.status),
            Err(cut) => assert!(cut.received.len() < 24 * MIB),
        }
    }
    upstream.heal();
    crate::harness::until("the right blob", async || {
        let outcome = tidegate.get(&image.layer_path(0)).try_send().await;
        outcome.is_ok_and(|answer| answer.body == image.layers[0].bytes)
    })
    .await;
}

#[tokio::test]
async fn a_stored_file_that_fails_half_way_costs_its_readers_nothing() {
    const SIZE: usize = 48 * MIB;
    // Far behind what fits into the buffers between the two; and all that was not sent.
    for left_bytes in [SIZE as u64 - 1000, 0] {
        let upstream = Upstream::start().await;
        let image = upstream.make_image("library/app", "1", &[SIZE]);
        let tidegate =
            Setup::new().upstream(Section::hub(&upstream)).with_warnings().with_log("disk").with_log("store");
        let tidegate = tidegate.start().await;
        tidegate.pull(&image).await;
        let path = tidegate.stored_path(&image.layers[0].digest);
        crate::harness::until("the file in its place", async || path.exists()).await;
        let mut reading = tidegate.get(&image.layer_path(0)).open().await;
        let beginning = reading.read_at_least(1).await;
        std::fs::File::options().write(true).open(path).unwrap().set_len(left_bytes).unwrap();
        assert!(reading.equals(&image.layers[0].bytes[beginning.len()..]).await, "cut to {left_bytes}");
        upstream.forget_requests();
        tidegate.pull(&image).await;
        assert_eq!(upstream.count(&any(Kind::Blob)), 1, "it was fetched again");
    }
}
