//! A process that is killed at every step of every change: what it had acknowledged is there, and what is there is whole.
//!
//! The process is this test's own program, which runs one ignored test that works until it dies.

mod collection;

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream;

use super::*;
use crate::blobs::hosted::{BlobDirectory, Witness};
use crate::metadata::catalogue::SqlCatalogue;
use crate::oci::{Algorithm, Digest, MediaType, Reference};
use crate::runtime::Timestamp;

const CHILD: &str = "registry::hosted::crash_tests::child_works_until_it_dies";

/// Kills the process at the n-th step that it takes, and writes down which that was.
#[derive(Debug)]
struct Deadly {
    steps_left: AtomicUsize,
    note: PathBuf,
}

impl Deadly {
    fn new(steps: usize, folder: &Path) -> Arc<Self> {
        Arc::new(Self { steps_left: steps.into(), note: folder.join("died") })
    }

    fn pass(&self, step: &str) -> io::Result<()> {
        if self.steps_left.fetch_sub(1, Ordering::SeqCst) == 1 {
            fs::write(&self.note, step)?;
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)?;
        }
        Ok(())
    }
}

impl Witness for Deadly {
    fn reach(&self, step: Step) -> io::Result<()> {
        self.pass(step.as_str())
    }
}

async fn open(folder: &Path, steps: &Steps, clock: Clock) -> Hosting {
    let tasks = Tasks::new();
    let metrics = CollectionMetrics::new(&prometheus::Registry::new()).unwrap();
    let services = HostingServices {
        catalogue: Arc::new(SqlCatalogue::open(&folder.join("catalogue.sqlite3")).await.unwrap()),
        store: Arc::new(BlobDirectory::open(&folder.join("blobs"), &tasks, steps).unwrap()),
        registry: None,
        location: "local".to_owned(),
        redirect_for: None,
        uploads: Uploads::open(&folder.join("uploads"), u64::MAX, &tasks, steps).unwrap(),
        steps: steps.clone(),
        clock,
        tasks,
    };
    let hosting = Hosting::new(services, metrics);
    let stamp = Stamp { at: Timestamp::from_millis(1), by: "test".into() };
    hosting.catalogue.create_namespace(&"acme".parse().unwrap(), &stamp).await.unwrap();
    hosting.refresh_namespaces().await.unwrap();
    hosting
}

/// What the process does, and what must be true once it was acknowledged.
struct Work<'a> {
    hosting: &'a Hosting,
    context: RequestContext,
    folder: &'a Path,
}

fn digest(content: &str) -> Digest {
    Digest::of(Algorithm::Sha256, content.as_bytes())
}

fn manifest(layers: &[&str]) -> ManifestBody {
    let item = |content: &&str| {
        format!(r#"{{"mediaType":"a/b","digest":"{}","size":{}}}"#, digest(content), content.len())
    };
    let listed: Vec<_> = layers.iter().map(item).collect();
    let payload = format!(r#"{{"schemaVersion":2,"config":{},"layers":[{}]}}"#, listed[0], listed.join(","));
    ManifestBody { media_type: Some(MediaType::OCI_MANIFEST), payload: payload.into() }
}

impl Work<'_> {
    /// Writes down what was acknowledged.
    fn acknowledge(&self, line: &str) {
        let mut file =
            fs::File::options().append(true).create(true).open(self.folder.join("acknowledged")).unwrap();
        writeln!(file, "{line}").unwrap();
    }

    fn body(content: &str) -> Body<'static> {
        stream::iter([Ok(Bytes::copy_from_slice(content.as_bytes()))]).boxed()
    }

    async fn all(&self) {
        let (base, app): (RepositoryName, RepositoryName) =
            ("acme/base".parse().unwrap(), "acme/app".parse().unwrap());
        let (hosting, context) = (self.hosting, &self.context);
        hosting.push_blob(context, &base, &digest("layer"), Self::body("layer")).await.unwrap();
        self.acknowledge("blob acme/base layer");
        let id = hosting.start_upload(context, &app, Algorithm::Sha256).await.unwrap().id.to_string();
        let none = Announced::default();
        hosting.append_upload(context, &app, &id, none, Self::body("con")).await.unwrap();
        let config = digest("config");
        hosting.finish_upload(context, &app, &id, &config, none, Self::body("fig")).await.unwrap();
        self.acknowledge("blob acme/app config");
        hosting.mount_blob(context, &app, &digest("layer"), Some(&base)).await.unwrap();
        self.acknowledge("blob acme/app layer");
        for (tag, layers) in [("1", &["config", "layer"][..]), ("1", &["config"][..]), ("2", &["config"][..])]
        {
            let reference: Reference = tag.parse().unwrap();
            let pushed = hosting.push_manifest(context, &app, &reference, vec![], manifest(layers)).await;
            self.acknowledge(&format!("tag {tag} {}", pushed.unwrap().digest));
        }
        hosting.delete_manifest(context, &app, &"2".parse().unwrap()).await.unwrap();
        self.acknowledge("gone 2");
        hosting.delete_blob(context, &base, &digest("layer")).await.unwrap();
        self.acknowledge("unlinked acme/base layer");
        self.acknowledge("all");
    }

    /// Holds what is there against what was acknowledged. Of each thing the last word counts, and what was under way
    /// when the process died may or may not have happened.
    async fn judge(&self, acknowledged: &str, what: &str) {
        let app: RepositoryName = "acme/app".parse().unwrap();
        let lines: Vec<Vec<&str>> = acknowledged.lines().map(|line| line.split(' ').collect()).collect();
        let is_last_word = |place: usize| place + 1 == lines.len();
        for (place, line) in lines.iter().enumerate() {
            match line[..] {
                ["blob", repository, content] => {
                    let (name, digest) = (repository.parse().unwrap(), digest(content));
                    let found = self.hosting.open_blob(&self.context, &name, &digest, None).await;
                    // Its deletion is the last thing that happens.
                    let is_deleted = repository == "acme/base" && lines.iter().any(|line| line[0] == "gone");
                    assert!(found.is_ok() || is_deleted, "{what}: {line:?}");
                }
                ["tag", tag, wanted] => {
                    let later = lines[place + 1..].iter().any(|line| line.get(1) == Some(&tag));
                    let found = self.hosting.pull_manifest(&self.context, &app, &tag.parse().unwrap()).await;
                    let is_there = found.as_ref().is_ok_and(|found| found.digest.to_string() == wanted);
                    assert!(is_there || later || is_last_word(place), "{what}: {line:?} {found:?}");
                    // Deleted or moved, it is in the history.
                    let history =
                        self.hosting.catalogue.list_tag_history(&app, &tag.parse().unwrap(), None, 9).await;
                    let was = history.unwrap().iter().any(|row| row.digest == wanted.parse().ok());
                    assert!(was, "{what}: {line:?}");
                }
                ["gone", tag] => {
                    let found = self.hosting.pull_manifest(&self.context, &app, &tag.parse().unwrap()).await;
                    assert!(found.is_err(), "{what}: {line:?}");
                }
                ["unlinked", repository, content] => {
                    let (name, digest) = (repository.parse().unwrap(), digest(content));
                    let found = self.hosting.stat_blob(&self.context, &name, &digest).await;
                    assert!(found.is_err(), "{what}: {line:?}");
                }
                _ => {}
            }
        }
        let verified = self.hosting.verify(&self.context).await.unwrap();
        assert_eq!(verified.faults, [], "{what}");
    }
}

/// Has a process work until its n-th step.
fn work_and_die(child: &str, folder: &Path, steps: usize) -> ExitStatus {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([child, "--exact", "--ignored"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    write!(child.stdin.take().unwrap(), "{steps}\n{}", folder.display()).unwrap();
    child.wait().unwrap()
}

/// What a child is told: until which step it works, and in which folder.
fn read_order() -> (usize, PathBuf) {
    let mut order = String::new();
    io::stdin().read_to_string(&mut order).unwrap();
    let (steps, folder) = order.split_once('\n').unwrap();
    (steps.parse().unwrap(), folder.into())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the other test, which says on its input what to do"]
async fn child_works_until_it_dies() {
    let (steps, folder) = read_order();
    let folder = &folder;
    let hosting = open(folder, &Steps::seen_by(Deadly::new(steps, folder)), Clock::system()).await;
    Work { hosting: &hosting, context: RequestContext::administrator(), folder }.all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_a_kill_at_every_step() {
    let mut died_at = std::collections::BTreeSet::new();
    for steps in 1.. {
        let folder = tempfile::tempdir().unwrap();
        let status = work_and_die(CHILD, folder.path(), steps);
        let acknowledged = fs::read_to_string(folder.path().join("acknowledged")).unwrap_or_default();
        let died = fs::read_to_string(folder.path().join("died")).unwrap_or_default();
        let what = format!("killed at step {steps} ({died})");
        let hosting = open(folder.path(), &Steps::default(), Clock::system()).await;
        let work =
            Work { hosting: &hosting, context: RequestContext::administrator(), folder: folder.path() };
        work.judge(&acknowledged, &what).await;
        if status.success() {
            assert!(acknowledged.ends_with("all\n"));
            break;
        }
        assert_eq!(status.signal(), Some(9), "{what}: {status}");
        assert!(!acknowledged.ends_with("all\n"), "{what}");
        died_at.insert(died);
        // Whoever heard nothing does it all again.
        work.all().await;
        work.judge("", &what).await;
    }
    let expected =
        ["append", "sync_upload", "verify", "rename", "sync_directory", "acknowledge", "commit", "committed"];
    assert!(expected.iter().all(|step| died_at.contains(*step)), "{died_at:?}");
}
