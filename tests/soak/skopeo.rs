//! A client that people use: skopeo copies images, and what it takes for whole is held against the truth.

use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::Instant;

use crate::content::sha256;
use crate::door::View;
use crate::harness::files_in;
use crate::visitor::{LIMIT, Visitor};
use crate::world::{Host, STEADY, pick_tag};

impl Visitor {
    /// Copies one image after the other until the end.
    pub(crate) async fn run_skopeo(mut self, end: Instant) {
        let world = std::sync::Arc::clone(&self.world);
        while Instant::now() < end {
            let host = &world.hosts[self.rng.usize(..world.hosts.len())];
            let number = pick_tag(&mut self.rng);
            let started = Instant::now();
            let image = host.versions(number).pop().unwrap();
            let name = format!("{}/{}:{}", host.name, image.repository, image.tag);
            let judged = self.copy(host, number, &name).await;
            self.settle(judged, &name, started);
            tokio::time::sleep(Duration::from_millis(self.rng.u64(..500))).await;
        }
    }

    async fn copy(&self, host: &Host, number: usize, name: &str) -> Result<&AtomicU64, String> {
        let before = self.door.look();
        let target = tempfile::tempdir().unwrap();
        let mut skopeo = Command::new("skopeo");
        skopeo.args(["copy", "--quiet", "--src-tls-verify=false"]);
        skopeo.arg(format!("docker://{}/{name}", before.address));
        skopeo.arg(format!("dir:{}", target.path().display())).kill_on_drop(true);
        let copied = tokio::time::timeout(LIMIT, skopeo.output()).await;
        let why = match copied {
            Ok(Ok(output)) if output.status.success() => {
                return check(host, number, target.path()).map(|()| &self.tally.copies);
            }
            Ok(Ok(output)) => String::from_utf8_lossy(&output.stderr).into_owned(),
            Ok(Err(error)) => panic!("skopeo does not start ({error}): `tests/run soak` installs it"),
            Err(_elapsed) => format!("nothing came of it in {LIMIT:?}"),
        };
        self.excuse(host, &before, why)
    }

    /// Which counter a copy belongs to that failed, if it may.
    fn excuse(&self, host: &Host, before: &View, why: String) -> Result<&AtomicU64, String> {
        let after = self.door.look();
        if !before.lived_until(&after) {
            Ok(&self.tally.unreachable)
        } else if host.name == STEADY && before.was_online_until(&after) {
            Err(why)
        } else {
            Ok(&self.tally.cut)
        }
    }
}

/// Compares a copy, whose files have their digests for names, with what the tag points or pointed to.
fn check(host: &Host, number: usize, copy: &Path) -> Result<(), String> {
    let manifest = std::fs::read(copy.join("manifest.json")).map_err(|error| error.to_string())?;
    let versions = host.versions(number);
    let image = versions.iter().find(|image| image.manifest.bytes == manifest);
    let image = image.ok_or_else(|| format!("WRONG manifest: {}", sha256(&manifest)))?;
    for blob in image.layers.iter().chain([&image.config]) {
        let file = copy.join(blob.digest.trim_start_matches("sha256:"));
        if std::fs::read(&file).ok().as_deref() != Some(&blob.bytes[..]) {
            return Err(format!("WRONG or missing: {} among {:?}", blob.digest, files_in(copy)));
        }
    }
    Ok(())
}
