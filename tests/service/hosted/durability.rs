//! The process dies at random moments while everybody pushes: what was acknowledged is there and whole, nothing else is
//! half-visible, and whoever lost an answer asks again.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use serde_json::json;
use tokio::task::JoinHandle;

use super::actor::{Actor, with_query};
use super::registry::Hosted;
use crate::cache::post;
use crate::client::Answer;
use crate::content::{Content, Image, sha256};

/// How many push at once.
const PUSHERS: usize = 4;

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

/// What one client asked for and what it was told.
#[derive(Default)]
struct Story {
    /// Blobs whose push was begun, and whether it was acknowledged.
    blobs: Vec<(Content, bool)>,
    /// Images whose manifest was sent, in the order of the pushes to its tag, and whether it was acknowledged.
    images: Vec<(Image, bool)>,
}

/// One of those who push, each to its own repository and always to the same tag.
#[derive(Clone)]
struct Pusher {
    repository: String,
    story: Arc<Mutex<Story>>,
}

impl Pusher {
    fn new(number: usize) -> Self {
        Self { repository: format!("acme/app{number}"), story: Arc::default() }
    }

    /// Pushes image after image until the server is gone.
    fn spawn(&self, actor: Actor, seed: u64) -> JoinHandle<()> {
        let pusher = self.clone();
        tokio::spawn(async move {
            let mut random = fastrand::Rng::with_seed(seed);
            while pusher.push_one(&actor, &mut random).await.is_some() {}
        })
    }

    /// Pushes one image in one of the ways of clients; nothing where the server is gone.
    async fn push_one(&self, actor: &Actor, random: &mut fastrand::Rng) -> Option<()> {
        let layers =
            [random.usize(0..200_000), random.usize(0..2000)].map(|size| Content::blob(random.u64(..), size));
        let image = Image::of_layers(&self.repository, "latest", layers.into());
        for blob in image.layers.iter().chain([&image.config]) {
            let index = {
                let mut story = self.story.lock().unwrap();
                story.blobs.push((blob.clone(), false));
                story.blobs.len() - 1
            };
            push_blob(actor, &self.repository, blob, random.u8(0..3)).await?;
            self.story.lock().unwrap().blobs[index].1 = true;
        }
        self.story.lock().unwrap().images.push((image.clone(), false));
        let call = actor.put(&image.tag_path()).header("content-type", &image.manifest.media_type);
        let answer = call.body(image.manifest.bytes.clone()).try_send().await.ok()?;
        require_done(&answer)?;
        self.story.lock().unwrap().images.last_mut().unwrap().1 = true;
        Some(())
    }

    /// What was acknowledged is there; what was not is there as a whole or not at all.
    async fn verify(&self, actor: &Actor) {
        let (blobs, images) = {
            let story = self.story.lock().unwrap();
            (story.blobs.clone(), story.images.clone())
        };
        for (blob, acknowledged) in &blobs {
            let answer = actor.blob(&self.repository, &blob.digest).await;
            match answer.status {
                200 => assert_eq!(sha256(&answer.body), blob.digest, "other bytes of a blob"),
                404 => assert!(!acknowledged, "{} was acknowledged and is lost", blob.digest),
                status => panic!("{status} for {}: {answer:?}", blob.digest),
            }
        }
        let mut visible = None;
        let tag = actor.manifest(&self.repository, "latest").await;
        for (at, (image, acknowledged)) in images.iter().enumerate() {
            let answer = actor.manifest(&self.repository, &image.manifest.digest).await;
            match answer.status {
                200 => {
                    assert!(answer.body == image.manifest.bytes, "other bytes of a manifest");
                    for blob in image.layers.iter().chain([&image.config]) {
                        let head = actor.head(&image.blob_path(blob)).send().await;
                        assert_eq!(head.status, 200, "a manifest without its blob {}", blob.digest);
                    }
                }
                404 => assert!(!acknowledged, "{} was acknowledged and is lost", image.manifest.digest),
                status => panic!("{status}: {answer:?}"),
            }
            if tag.body == image.manifest.bytes {
                visible = Some(at);
            }
        }
        // The tag never falls back behind what was acknowledged last.
        let least = images.iter().rposition(|(_, acknowledged)| *acknowledged);
        assert!(visible >= least, "the tag is at {visible:?}, and {least:?} was acknowledged");
        assert_eq!(tag.status, if visible.is_some() { 200 } else { 404 });
    }

    /// Who lost the answer to a push pushes again, and then everything is there.
    async fn push_again(&self, actor: &Actor) {
        let lost = {
            let mut story = self.story.lock().unwrap();
            story.blobs.retain(|(_, acknowledged)| *acknowledged);
            let lost = story.images.pop_if(|(_, acknowledged)| !*acknowledged);
            lost.map(|(image, _)| image)
        };
        if let Some(image) = lost {
            for _ in 0..2 {
                actor.push_image(&image).await;
                actor.pull_image(&image).await;
            }
            self.story.lock().unwrap().images.push((image, true));
        }
    }
}

/// Something other than an acknowledgement or the end of the server is a fault.
fn require_done(answer: &Answer) -> Option<()> {
    // It may say while it ends that it cannot.
    if answer.status == 503 {
        return None;
    }
    assert!([201, 202].contains(&answer.status), "{answer:?}");
    Some(())
}

/// Pushes a blob whole, in chunks, or in one request; nothing where the server is gone.
async fn push_blob(actor: &Actor, repository: &str, blob: &Content, way: u8) -> Option<()> {
    let uploads = format!("/v2/{repository}/blobs/uploads/");
    let digest = format!("digest={}", blob.digest);
    let send = async |method: Method, path: String, body: Bytes| {
        let answer = actor.call(method, &path).body(body).try_send().await.ok()?;
        require_done(&answer)?;
        Some(answer)
    };
    if way == 0 {
        send(Method::POST, with_query(&uploads, &digest), blob.bytes.clone()).await?;
        return Some(());
    }
    let mut location = super::actor::location_of(&send(Method::POST, uploads, Bytes::new()).await?);
    let mut rest = blob.bytes.clone();
    if way == 1 {
        let half = rest.split_to(rest.len() / 2);
        location = super::actor::location_of(&send(Method::PATCH, location, half).await?);
    }
    send(Method::PUT, with_query(&location, &digest), rest).await?;
    Some(())
}

/// Every whole blob in the store has the digest that it is named by.
fn verify_files(hosted: &Hosted) {
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
    let mut hosted = Hosted::start_for_trouble().await;
    let pushers: Vec<Pusher> = (0..PUSHERS).map(Pusher::new).collect();
    let mut acknowledged = 0;
    for round in 0..rounds() {
        let admin = hosted.administrator();
        let tasks: Vec<_> =
            pushers.iter().map(|pusher| pusher.spawn(admin.clone(), random.u64(..))).collect();
        tokio::time::sleep(Duration::from_millis(random.u64(20..400))).await;
        hosted.tidegate.kill().await;
        for task in tasks {
            task.await.unwrap();
        }
        verify_files(&hosted);
        hosted.tidegate.start_again().await;
        let admin = hosted.administrator();
        for pusher in &pushers {
            pusher.verify(&admin).await;
            pusher.push_again(&admin).await;
            let mut story = pusher.story.lock().unwrap();
            acknowledged += story.blobs.len() + story.images.len();
            // What was there after this kill is looked at again after the last; a few of them after each.
            let (blobs, images) = (story.blobs.len(), story.images.len());
            if round + 1 < rounds() {
                story.blobs.drain(..blobs.saturating_sub(20));
                story.images.drain(..images.saturating_sub(10));
            }
        }
    }
    assert!(acknowledged > 0, "nothing was pushed between the kills");
    // From every tag to the last blob.
    let verified = post(&hosted.tidegate, "/api/v1/verify", &json!({})).await;
    assert_eq!(verified.status, 200, "{verified:?}");
    let verified = verified.json();
    assert_eq!((&verified["faults"], &verified["tags"]), (&json!([]), &json!(PUSHERS)), "{verified}");
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
