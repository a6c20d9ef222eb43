//! The process dies at random moments while everybody pushes, mounts and deletes beside collections: what was acknowledged
//! is there and whole, nothing else is half-visible, and whoever lost an answer asks again.

use std::collections::BTreeSet;
use std::time::Duration;

use http::Method;
use serde_json::json;
use tokio::time::Instant;

use super::load::{Writer, spawn_load};
use super::registry::Hosted;
use crate::cache::post;
use crate::clock_steps;
use crate::content::{Image, sha256};
use crate::harness::{Setup, Tidegate};

/// How many change something at once.
const WRITERS: usize = 4;

/// How often the process dies; `TIDEGATE_PUSH_KILLS` asks for more.
fn rounds() -> u64 {
    std::env::var("TIDEGATE_PUSH_KILLS").map_or(40, |number| number.parse().expect("a number"))
}

/// Tells how a failure is repeated.
struct Seed(u64);

impl Seed {
    /// Another one each time, or that of `TIDEGATE_PUSH_SEED`.
    fn new() -> Self {
        let given = std::env::var("TIDEGATE_PUSH_SEED").ok();
        Self(given.map_or_else(|| fastrand::u64(..), |seed| seed.parse().expect("a number")))
    }
}

impl Drop for Seed {
    #[expect(clippy::print_stderr, reason = "whoever looks into a failure needs it")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("to repeat this: TIDEGATE_PUSH_SEED={}", self.0);
        }
    }
}

/// What day it is for the server. Two days pass between its end and its next start: whatever nobody needed goes then, and
/// whatever comes is new. The last day is today, so that files are never older than they are.
struct Calendar {
    folder: tempfile::TempDir,
    days: i64,
}

impl Calendar {
    fn new(rounds: u64) -> Self {
        let days = -2 * i64::try_from(rounds).unwrap();
        let calendar = Self { folder: tempfile::tempdir().unwrap(), days };
        calendar.write();
        calendar
    }

    fn rule(&self, setup: Setup) -> Setup {
        setup
            .variable("LD_PRELOAD", clock_steps::library())
            .variable("CLOCK_STEP", &self.folder.path().join("step"))
    }

    fn turn(&mut self) {
        self.days += 2;
        self.write();
    }

    fn write(&self) {
        let new = self.folder.path().join("new");
        std::fs::write(&new, (self.days * 24 * 3600).to_string()).unwrap();
        std::fs::rename(new, self.folder.path().join("step")).unwrap();
    }
}

/// Has what is deleted come back for a day alone, so that collections have something to do.
async fn keep_deleted_for_a_day(hosted: &Hosted) {
    let policy = json!({ "anonymous_pull": true, "restore_for_ms": 24 * 3600 * 1000 });
    let call = hosted.tidegate.admin().call(Method::PUT, "/api/v1/namespaces/acme");
    let answer = call.header("content-type", "application/json").body(policy.to_string()).send().await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// The digests that tags need, and the number of the tags.
pub(crate) fn needed_by(writers: &[Writer]) -> (BTreeSet<String>, usize) {
    let each: Vec<_> = writers.iter().map(Writer::needed).collect();
    let tags = each.iter().map(|(_, tags)| tags).sum();
    (each.into_iter().flat_map(|(digests, _)| digests).collect(), tags)
}

/// Has the server walk from every tag to every byte.
pub(crate) async fn verify_all(tidegate: &Tidegate, tags: usize) {
    let verified = post(tidegate, "/api/v1/verify", &json!({})).await;
    assert_eq!(verified.status, 200, "{verified:?}");
    let verified = verified.json();
    assert_eq!((&verified["faults"], &verified["tags"]), (&json!([]), &json!(tags)), "{verified}");
}

/// Collects, to the end: what many rounds left is more than a moment's work.
async fn collect(tidegate: &Tidegate) {
    let started = post(tidegate, "/api/v1/collection", &json!({})).await;
    assert_eq!(started.status, 202, "{started:?}");
    let deadline = Instant::now() + Duration::from_mins(10);
    loop {
        let state = tidegate.admin().call(Method::GET, "/api/v1/collection").send().await.json();
        if state["running"] == json!(null) {
            assert_eq!(state["last"]["outcome"], "complete", "{state}");
            return;
        }
        assert!(Instant::now() < deadline, "the collection does not end: {state}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Tells what was tried.
#[expect(clippy::print_stderr, reason = "whoever asks for hundreds of kills wants to know")]
pub(crate) fn tell(what: &str) {
    eprintln!("{what}");
}

/// Every whole blob in the store has the digest that it is named by.
pub(crate) fn verify_files(hosted: &Hosted) {
    for path in hosted.files() {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            assert_eq!(
                sha256(&std::fs::read(&path).unwrap()),
                format!("sha256:{name}"),
                "{}",
                path.display()
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_every_kill() {
    let seed = Seed::new();
    let mut random = fastrand::Rng::with_seed(seed.0);
    let rounds = rounds();
    let mut calendar = Calendar::new(rounds);
    let mut hosted = Hosted::start_with(|setup| calendar.rule(setup.with_warnings())).await;
    keep_deleted_for_a_day(&hosted).await;
    let writers: Vec<Writer> = (0..WRITERS).map(Writer::new).collect();
    let (mut acknowledged, mut collected) = (0, 0);
    for _ in 0..rounds {
        let tasks = spawn_load(&writers, &hosted, &mut random).await;
        tokio::time::sleep(Duration::from_millis(random.u64(..400))).await;
        hosted.tidegate.kill().await;
        for task in tasks {
            task.await.unwrap();
        }
        verify_files(&hosted);
        calendar.turn();
        hosted.tidegate.start_again().await;
        let admin = hosted.administrator();
        for writer in &writers {
            let lost = writer.lost();
            acknowledged += writer.acknowledged();
            collected += writer.verify(&admin).await;
            writer.push_again(&admin, lost).await;
        }
    }
    tell(&format!("{rounds} kills: {acknowledged} things acknowledged, {collected} images collected"));
    assert!(acknowledged > 0 && collected > 0);
    // From every tag to the last blob.
    let (needed, tags) = needed_by(&writers);
    verify_all(&hosted.tidegate, tags).await;
    // What nobody needs is gone when its time is over, and nothing else.
    calendar.turn();
    calendar.turn();
    collect(&hosted.tidegate).await;
    verify_all(&hosted.tidegate, tags).await;
    let names =
        hosted.files().into_iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned());
    let expected: BTreeSet<_> =
        needed.iter().map(|digest| digest.trim_start_matches("sha256:").to_owned()).collect();
    assert_eq!(names.collect::<BTreeSet<_>>(), expected);
}

#[tokio::test]
async fn an_answer_that_was_lost_is_asked_for_again_and_given() {
    let mut hosted = Hosted::start_for_trouble().await;
    let image = Image::oci("acme/app", "1", &[100_000]);
    for _ in 0..3 {
        hosted.administrator().push_image(&image).await;
        hosted.tidegate.kill().await;
        hosted.tidegate.start_again().await;
        hosted.administrator().pull_image(&image).await;
        assert_eq!(hosted.administrator().tags("acme/app").await, ["1"]);
    }
}
