//! Those who change everything at once, and what must be true after whatever happened to the server meanwhile.
//!
//! Each client has its repositories to itself and does one thing after the other, so that it knows what it was told: what
//! was acknowledged is so, and what was asked for last may have happened or not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use tokio::task::JoinHandle;

use super::actor::{Actor, location_of, with_query};
use super::registry::Hosted;
use crate::client::{Answer, Client};
use crate::content::{ALL_TYPES, Content, Image, sha256};
use crate::harness::until;

/// Repository and tag.
type Place = (String, String);

/// What a tag points to.
#[derive(Clone, Default)]
struct Pointed {
    /// What was acknowledged last; nothing where that was a deletion.
    certain: Option<Image>,
    /// What was asked for since and not answered.
    asked: Option<Wish>,
}

/// What a tag is to point to; nothing where it is to be deleted.
#[derive(Clone)]
struct Wish(Option<Image>);

/// What one client was told.
#[derive(Default)]
struct Story {
    tags: BTreeMap<Place, Pointed>,
    /// Blobs that were acknowledged since the server was started, by repository.
    blobs: Vec<(String, Content)>,
    /// Paths of what was deleted since then.
    deleted: Vec<String>,
    /// Images that no tag points to any more, and since which round.
    loose: Vec<(u64, Image)>,
    round: u64,
    /// Whether it hears nothing any more, so that nothing that comes now counts.
    is_deaf: bool,
}

/// One of those clients.
#[derive(Clone)]
pub(crate) struct Writer {
    repository: String,
    story: Arc<Mutex<Story>>,
}

impl Writer {
    pub(crate) fn new(number: usize) -> Self {
        Self { repository: format!("acme/app{number}"), story: Arc::default() }
    }

    /// Does one thing after the other until the server is gone.
    pub(crate) fn spawn(&self, actor: Actor, seed: u64) -> JoinHandle<()> {
        let writer = self.clone();
        tokio::spawn(async move {
            let mut random = fastrand::Rng::with_seed(seed);
            while writer.act(&actor, &mut random).await.is_some() {}
        })
    }

    /// Lets no answer count from now on.
    pub(crate) fn deafen(&self) {
        self.story.lock().unwrap().is_deaf = true;
    }

    async fn act(&self, actor: &Actor, random: &mut fastrand::Rng) -> Option<()> {
        let deed = random.u8(0..10);
        let image = self.choose(random);
        match (deed, image) {
            (5, Some(image)) => self.pull(actor, &image).await,
            (6, Some(image)) => self.delete_image(actor, &image, image.tag_path()).await,
            (7, Some(image)) => self.delete_image(actor, &image, image.digest_path()).await,
            (8, _) => self.push_and_delete_blob(actor, random).await,
            (9, Some(image)) => self.mount(actor, &image).await,
            _ => self.push_new(actor, random).await,
        }
    }

    /// An image that is there, of its own repository.
    fn choose(&self, random: &mut fastrand::Rng) -> Option<Image> {
        let story = self.story.lock().unwrap();
        let images: Vec<_> = story.tags.values().filter_map(|pointed| pointed.certain.clone()).collect();
        let images: Vec<_> = images.into_iter().filter(|image| image.repository == self.repository).collect();
        random.choice(images)
    }

    /// Pushes one image in one of the ways of clients; nothing where the server is gone.
    async fn push_new(&self, actor: &Actor, random: &mut fastrand::Rng) -> Option<()> {
        let layers =
            [random.usize(0..200_000), random.usize(0..2000)].map(|size| Content::blob(random.u64(..), size));
        let tag = random.choice(["latest", "latest", "a", "b"]).unwrap_or("latest");
        let image = Image::of_layers(&self.repository, tag, layers.into());
        for blob in image.layers.iter().chain([&image.config]) {
            self.push_blob(actor, blob, random.u8(0..3)).await?;
        }
        self.put_manifest(actor, &image).await
    }

    async fn put_manifest(&self, actor: &Actor, image: &Image) -> Option<()> {
        self.ask(image, Some(image.clone()));
        let call = actor.put(&image.tag_path()).header("content-type", &image.manifest.media_type);
        self.require(&call.body(image.manifest.bytes.clone()).try_send().await.ok()?, &[201])?;
        self.hear(image)
    }

    /// Pulls an image whole, which is what its tag points to.
    async fn pull(&self, actor: &Actor, image: &Image) -> Option<()> {
        let parts = image.layers.iter().chain([&image.config]).map(|blob| (image.blob_path(blob), blob));
        for (path, content) in std::iter::once((image.tag_path(), &image.manifest)).chain(parts) {
            let answer = actor.get(&path).accept(&ALL_TYPES).try_send().await.ok()?;
            self.require(&answer, &[200])?;
            assert!(answer.body == content.bytes, "other bytes at {path}");
        }
        Some(())
    }

    /// Deletes the tag, or the manifest, which takes the tag along.
    async fn delete_image(&self, actor: &Actor, image: &Image, path: String) -> Option<()> {
        self.ask(image, None);
        self.require(&actor.delete(&path).try_send().await.ok()?, &[202])?;
        self.hear(image)?;
        self.story.lock().unwrap().deleted.push(path);
        Some(())
    }

    async fn push_and_delete_blob(&self, actor: &Actor, random: &mut fastrand::Rng) -> Option<()> {
        let blob = Content::blob(random.u64(..), random.usize(1..5000));
        self.push_blob(actor, &blob, random.u8(0..3)).await?;
        if random.bool() {
            return Some(());
        }
        // From now on nobody knows, until it is acknowledged.
        self.story.lock().unwrap().blobs.pop();
        let path = format!("/v2/{}/blobs/{}", self.repository, blob.digest);
        self.require(&actor.delete(&path).try_send().await.ok()?, &[202])?;
        let mut story = self.story.lock().unwrap();
        if !story.is_deaf {
            story.deleted.push(path);
        }
        Some(())
    }

    /// Makes a copy of an image in another repository without sending a byte of its blobs.
    async fn mount(&self, actor: &Actor, image: &Image) -> Option<()> {
        let copy = Image { repository: format!("{}/copy", self.repository), ..image.clone() };
        for blob in copy.layers.iter().chain([&copy.config]) {
            let path = format!("/v2/{}/blobs/uploads/?mount={}", copy.repository, blob.digest);
            let path = format!("{path}&from={}", image.repository);
            // What a tag needs is there for everybody who may have it.
            self.require(&actor.post(&path).try_send().await.ok()?, &[201])?;
            self.keep_blob(&copy.repository, blob)?;
        }
        self.put_manifest(actor, &copy).await
    }

    /// Pushes a blob whole, in chunks, or in one request; nothing where the server is gone.
    async fn push_blob(&self, actor: &Actor, blob: &Content, way: u8) -> Option<()> {
        let uploads = format!("/v2/{}/blobs/uploads/", self.repository);
        let digest = format!("digest={}", blob.digest);
        let send = async |method: Method, path: String, body: Bytes, status: u16| {
            let answer = actor.call(method, &path).body(body).try_send().await.ok()?;
            self.require(&answer, &[status])?;
            Some(answer)
        };
        if way == 0 {
            send(Method::POST, with_query(&uploads, &digest), blob.bytes.clone(), 201).await?;
            return self.keep_blob(&self.repository, blob);
        }
        let mut location = location_of(&send(Method::POST, uploads, Bytes::new(), 202).await?);
        let mut rest = blob.bytes.clone();
        if way == 1 {
            let half = rest.split_to(rest.len() / 2);
            location = location_of(&send(Method::PATCH, location, half, 202).await?);
        }
        send(Method::PUT, with_query(&location, &digest), rest, 201).await?;
        self.keep_blob(&self.repository, blob)
    }

    // ---- what it was told

    fn ask(&self, image: &Image, becomes: Option<Image>) {
        let mut story = self.story.lock().unwrap();
        let place = (image.repository.clone(), image.tag.clone());
        story.tags.entry(place).or_default().asked = Some(Wish(becomes));
    }

    /// What was asked for of the image's tag is so.
    fn hear(&self, image: &Image) -> Option<()> {
        let mut story = self.story.lock().unwrap();
        (!story.is_deaf).then_some(())?;
        let place = (image.repository.clone(), image.tag.clone());
        let asked = story.tags.get_mut(&place).and_then(|pointed| pointed.asked.take());
        let Wish(image) = asked.expect("it was asked for");
        story.set(&place, image);
        Some(())
    }

    fn keep_blob(&self, repository: &str, blob: &Content) -> Option<()> {
        let mut story = self.story.lock().unwrap();
        (!story.is_deaf).then_some(())?;
        story.blobs.push((repository.to_owned(), blob.clone()));
        Some(())
    }

    /// Something other than an acknowledgement or the end of the server is a fault.
    fn require(&self, answer: &Answer, statuses: &[u16]) -> Option<()> {
        // It may say while it ends that it cannot.
        if answer.status == 503 || self.story.lock().unwrap().is_deaf {
            return None;
        }
        assert!(statuses.contains(&answer.status), "{answer:?}");
        Some(())
    }

    // ---- what is true

    /// What was acknowledged is there; what was not is there as a whole or not at all. Gives the number of images that
    /// were found to be collected. The next round may begin.
    pub(crate) async fn verify(&self, actor: &Actor) -> usize {
        let (tags, blobs, deleted) = {
            let mut story = self.story.lock().unwrap();
            story.is_deaf = false;
            (story.tags.clone(), story.blobs.clone(), story.deleted.clone())
        };
        for (repository, blob) in &blobs {
            let answer = actor.blob(repository, &blob.digest).await;
            assert_eq!(answer.status, 200, "{} of {repository} was acknowledged and is lost", blob.digest);
            assert_eq!(sha256(&answer.body), blob.digest, "other bytes of a blob");
        }
        for path in &deleted {
            let answer = actor.get(path).send().await;
            // A tag's path may point to something newer by now.
            assert!(
                answer.status == 404 || tags.values().any(|now| now.may_be_at(path)),
                "{path}: {answer:?}"
            );
        }
        for (place, pointed) in tags {
            let found = pointed.find(actor, &place).await;
            let mut story = self.story.lock().unwrap();
            story.set(&place, found);
        }
        self.verify_loose(actor).await
    }

    /// Images that no tag has pointed to for some rounds are whole or gone.
    async fn verify_loose(&self, actor: &Actor) -> usize {
        let due: Vec<Image> = {
            let mut story = self.story.lock().unwrap();
            story.round += 1;
            story.blobs.clear();
            story.deleted.clear();
            let round = story.round;
            story.loose.extract_if(.., |(since, _)| *since + 3 < round).map(|(_, image)| image).collect()
        };
        let mut collected = 0;
        for image in due {
            match actor.manifest(&image.repository, &image.manifest.digest).await.status {
                404 => collected += 1,
                200 => verify_blobs(actor, &image).await,
                status => panic!("{status}: {}", image.digest_path()),
            }
        }
        collected
    }

    /// Who lost the answer to a push pushes again, and then everything is there.
    pub(crate) async fn push_again(&self, actor: &Actor, lost: Vec<Image>) {
        for image in lost {
            for _ in 0..2 {
                actor.push_image(&image).await;
                actor.pull_image(&image).await;
            }
            self.ask(&image, Some(image.clone()));
            self.hear(&image);
        }
    }

    /// The images whose push was not answered.
    pub(crate) fn lost(&self) -> Vec<Image> {
        let story = self.story.lock().unwrap();
        story.tags.values().filter_map(|pointed| pointed.asked.as_ref()?.0.clone()).collect()
    }

    /// How much it was told that is still to be looked at.
    pub(crate) fn acknowledged(&self) -> usize {
        let story = self.story.lock().unwrap();
        story.blobs.len() + story.deleted.len()
    }

    /// The digests of all blobs that its tags need, and the number of these tags.
    pub(crate) fn needed(&self) -> (BTreeSet<String>, usize) {
        let story = self.story.lock().unwrap();
        let images: Vec<_> = story.tags.values().filter_map(|pointed| pointed.certain.as_ref()).collect();
        let blobs = images.iter().flat_map(|image| image.layers.iter().chain([&image.config]));
        (blobs.map(|blob| blob.digest.clone()).collect(), images.len())
    }
}

impl Story {
    /// What a tag points to now.
    fn set(&mut self, place: &Place, image: Option<Image>) {
        let pointed = self.tags.entry(place.clone()).or_default();
        pointed.asked = None;
        let digest_of = |image: &Option<Image>| image.as_ref().map(|image| image.manifest.digest.clone());
        if digest_of(&pointed.certain) == digest_of(&image) {
            return;
        }
        if let Some(old) = std::mem::replace(&mut pointed.certain, image) {
            self.loose.push((self.round, old));
        }
    }
}

impl Pointed {
    /// Finds what the tag points to, which is what was acknowledged or what was asked for, and whole.
    async fn find(&self, actor: &Actor, (repository, tag): &Place) -> Option<Image> {
        let answer = actor.manifest(repository, tag).await;
        let candidates: Vec<_> = [Some(self.certain.clone()), self.asked.clone().map(|Wish(image)| image)]
            .into_iter()
            .flatten()
            .collect();
        let found = candidates.into_iter().find(|candidate| match candidate {
            Some(image) => answer.status == 200 && answer.body == image.manifest.bytes,
            None => answer.status == 404,
        });
        let found = found.unwrap_or_else(|| {
            panic!("{repository}:{tag} is neither what it was nor what it was to be: {answer:?}")
        });
        if let Some(image) = &found {
            verify_blobs(actor, image).await;
        }
        found
    }

    /// Whether the path may lead to what the tag points to.
    fn may_be_at(&self, path: &str) -> bool {
        let images = self.certain.iter().chain(self.asked.iter().filter_map(|Wish(image)| image.as_ref()));
        images.into_iter().any(|image| image.tag_path() == path)
    }
}

async fn verify_blobs(actor: &Actor, image: &Image) {
    for blob in image.layers.iter().chain([&image.config]) {
        let answer = actor.blob(&image.repository, &blob.digest).await;
        assert_eq!(answer.status, 200, "{} without its blob {}", image.digest_path(), blob.digest);
        assert_eq!(sha256(&answer.body), blob.digest, "other bytes of a blob");
    }
}

/// Has all of them work, and collections beside them, and waits for the first acknowledgement.
pub(crate) async fn spawn_load(
    writers: &[Writer],
    hosted: &Hosted,
    random: &mut fastrand::Rng,
) -> Vec<JoinHandle<()>> {
    let admin = hosted.administrator();
    let mut tasks: Vec<_> =
        writers.iter().map(|writer| writer.spawn(admin.clone(), random.u64(..))).collect();
    tasks.push(spawn_collector(hosted.tidegate.admin()));
    until("an answer", async || writers.iter().any(|writer| writer.acknowledged() > 0)).await;
    tasks
}

/// Collects again and again until the server is gone.
fn spawn_collector(admin: Client) -> JoinHandle<()> {
    tokio::spawn(async move {
        let order =
            || admin.call(Method::POST, "/api/v1/collection").header("content-type", "application/json");
        while let Ok(answer) = order().body("{}").try_send().await {
            if !matches!(answer.status, 202 | 409) {
                assert_eq!(answer.status, 503, "{answer:?}");
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
}
