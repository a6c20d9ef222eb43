//! A process that is killed before each step of a push: what it had acknowledged is there, what is there is whole, and
//! what was interrupted goes on.
//!
//! The process is this test's own program, which runs one ignored test that pushes until it dies.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;

use super::contract::{content, read};
use super::s3_server::{self, PATIENCE, S3Server};
use super::{BlobDirectory, DurableBlobs, Step, Steps, Uploads, Witness};
use crate::oci::{Algorithm, Digest};
use crate::runtime::Tasks;

const CHILD: &str = "blobs::hosted::crash_tests::child_pushes_until_it_dies";

/// Kills the process before one step.
#[derive(Debug)]
struct Deadly(String);

impl Witness for Deadly {
    fn reach(&self, step: Step) -> io::Result<()> {
        if step.as_str() == self.0 {
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)?;
        }
        Ok(())
    }
}

/// Where a push goes.
struct Scene<'a> {
    folder: &'a Path,
    /// The object store; without one, content goes to a directory.
    server: Option<&'a str>,
    /// What of the object store is its own.
    prefix: &'a str,
}

impl Scene<'_> {
    fn open(&self, steps: &Steps) -> (Arc<dyn DurableBlobs>, Uploads) {
        let tasks = Tasks::new();
        let store: Arc<dyn DurableBlobs> = match self.server {
            Some(address) => Arc::new(s3_server::connect(address, self.prefix, self.folder, PATIENCE, steps)),
            None => Arc::new(BlobDirectory::open(&self.folder.join("hosted"), &tasks, steps).unwrap()),
        };
        (store, Uploads::open(&self.folder.join("uploads"), u64::MAX, &tasks, steps).unwrap())
    }

    /// What is pushed: to an object store, in two parts.
    fn content(&self) -> Vec<u8> {
        content(if self.server.is_some() { 6 * 1024 * 1024 } else { 1000 }, 1)
    }

    fn digest(&self) -> Digest {
        Digest::of(Algorithm::Sha256, &self.content())
    }

    /// Runs a push that dies before a step, or not at all.
    fn push_and_die(&self, step: &str) -> ExitStatus {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([CHILD, "--exact", "--ignored"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let (folder, server) = (self.folder.display(), self.server.unwrap_or_default());
        write!(child.stdin.take().unwrap(), "{step}\n{folder}\n{}\n{server}", self.prefix).unwrap();
        child.wait().unwrap()
    }

    /// What the process had acknowledged.
    fn acknowledged(&self) -> String {
        fs::read_to_string(self.folder.join("acknowledged")).unwrap_or_default()
    }

    /// Looks at what is there after the death, and goes on where it is not all.
    async fn judge(&self, step: Step, is_there: bool) {
        let acknowledged = self.acknowledged();
        assert_ne!(acknowledged, "all", "{step:?}");
        let (store, uploads) = self.open(&Steps::default());
        let found = store.find(&self.digest()).await.unwrap();
        assert_eq!(found.is_some(), is_there, "{step:?}");
        if !is_there {
            self.go_on(&*store, &uploads, acknowledged.parse().unwrap_or(0)).await;
        }
        let size_bytes = store.find(&self.digest()).await.unwrap().unwrap().size_bytes;
        assert!(read(&*store, &self.digest(), 0..size_bytes).await.unwrap() == self.content(), "{step:?}");
    }

    /// Goes on with the upload that the dead process left.
    async fn go_on(&self, store: &dyn DurableBlobs, uploads: &Uploads, acknowledged: u64) {
        let name = fs::read_dir(self.folder.join("uploads")).unwrap().next().unwrap().unwrap().file_name();
        let upload = uploads.resume(&name.to_str().unwrap().parse().unwrap()).await.unwrap();
        assert!(upload.offset_bytes() >= acknowledged);
        let rest = self.content().split_off(usize::try_from(upload.offset_bytes()).unwrap());
        let upload = upload.append(vec![rest.into()]).await.unwrap();
        store.put(upload.complete(&self.digest()).await.unwrap()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the other tests, which say on its input what to do"]
async fn child_pushes_until_it_dies() {
    let mut order = String::new();
    io::stdin().read_to_string(&mut order).unwrap();
    let [step, folder, prefix, server] = order.split('\n').collect::<Vec<_>>()[..] else { panic!("{order}") };
    let server = Some(server).filter(|server| !server.is_empty());
    let scene = Scene { folder: Path::new(folder), server, prefix };
    let (store, uploads) = scene.open(&Steps::seen_by(Arc::new(Deadly(step.to_owned()))));
    let mut first = scene.content();
    let second = first.split_off(first.len() / 3);
    let upload = uploads.begin(Algorithm::Sha256).await.unwrap();
    let id = upload.id();
    let acknowledged = upload.append(vec![first.into()]).await.unwrap().pause().await.unwrap();
    fs::write(scene.folder.join("acknowledged"), acknowledged.to_string()).unwrap();
    let upload = uploads.resume(&id).await.unwrap().append(vec![second.into()]).await.unwrap();
    store.put(upload.complete(&scene.digest()).await.unwrap()).await.unwrap();
    fs::write(scene.folder.join("acknowledged"), "all").unwrap();
}

#[tokio::test]
async fn a_push_killed_before_any_step_is_whole_or_goes_on() {
    // Whether the content is there when the process dies before the step.
    for (step, is_there) in [
        (Step::Append, false),
        (Step::SyncUpload, false),
        (Step::SyncUploads, false),
        (Step::Verify, false),
        (Step::SyncContent, false),
        (Step::Rename, false),
        (Step::SyncDirectory, true),
        (Step::Acknowledge, true),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let scene = Scene { folder: folder.path(), server: None, prefix: "" };
        let status = scene.push_and_die(step.as_str());
        assert_eq!(status.signal(), Some(9), "{step:?}: {status}");
        scene.judge(step, is_there).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_to_an_object_store_killed_before_any_step_leaves_nothing_begun() {
    let Some(server) = S3Server::start().await else { return };
    // Whether the content is there, and whether parts were left, when the process dies before the step.
    for (step, is_there, is_begun) in [
        (Step::BeginParts, false, false),
        (Step::SendPart, false, true),
        (Step::CompleteParts, false, true),
        (Step::Confirm, true, false),
        (Step::Acknowledge, true, false),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let scene = Scene { folder: folder.path(), server: Some(server.address()), prefix: step.as_str() };
        let status = scene.push_and_die(step.as_str());
        assert_eq!(status.signal(), Some(9), "{step:?}: {status}");
        assert_eq!(server.has_begun().await, is_begun, "{step:?}");
        let next =
            s3_server::connect(server.address(), scene.prefix, scene.folder, PATIENCE, &Steps::default());
        assert_eq!(next.abort_abandoned().await.unwrap(), u64::from(is_begun), "{step:?}");
        assert!(!server.has_begun().await, "{step:?}");
        scene.judge(step, is_there).await;
    }
}

#[tokio::test]
async fn a_push_that_nobody_kills_is_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let scene = Scene { folder: folder.path(), server: None, prefix: "" };
    let status = scene.push_and_die("none");
    assert!(status.success(), "{status}");
    assert_eq!(scene.acknowledged(), "all");
    let (store, _uploads) = scene.open(&Steps::default());
    assert!(store.find(&scene.digest()).await.unwrap().is_some());
    assert_eq!(fs::read_dir(folder.path().join("uploads")).unwrap().count(), 0);
}
