//! Random histories, held against a model in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use fastrand::Rng;

use super::{at, digest, hosted, keep_for, push_image, stamp, tag};
use crate::metadata::catalogue::{
    Catalogue, CatalogueError, ContentUse, Horizon, Prospect, Result, TagCondition,
};
use crate::oci::{Digest, RepositoryName};

/// Where a repository is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    There,
    DeletedAt(u64),
    Gone,
}

/// A manifest that was not collected.
#[derive(Clone, Copy, Debug, Default)]
struct Kept {
    deleted: Option<u64>,
    /// When it last lost a tag.
    loose: Option<u64>,
}

/// A row of a tag's history.
#[derive(Clone, Copy, Debug)]
struct Row {
    digest: Option<Digest>,
    at: u64,
    expires: Option<u64>,
}

/// What a repository should hold.
#[derive(Default)]
struct Model {
    place: Place,
    manifests: BTreeMap<Digest, Kept>,
    used: BTreeMap<Digest, u64>,
    /// The rows of each tag, the first one first.
    tags: BTreeMap<&'static str, Vec<Row>>,
}

/// Both repositories, and when each image was last pushed to any of them.
struct World {
    models: [Model; 2],
    pushed: BTreeMap<Digest, u64>,
}

/// What an operation should say.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Done,
    RepositoryUnknown,
    ManifestUnknown,
    TagUnknown,
}

impl Model {
    fn current(&self, tag: &str) -> Option<Digest> {
        self.tags.get(tag).and_then(|rows| rows.last()).and_then(|row| row.digest)
    }

    fn has(&self, image: &Digest) -> bool {
        self.manifests.get(image).is_some_and(|kept| kept.deleted.is_none())
    }

    fn move_tag(&mut self, tag: &'static str, digest: Option<Digest>, expires: Option<u64>, now: u64) {
        let current = self.current(tag);
        let rows = self.tags.entry(tag).or_default();
        if current == digest {
            if let Some(row) = rows.last_mut() {
                row.expires = expires;
            }
            return;
        }
        rows.push(Row { digest, at: now, expires });
        if let Some(kept) = current.and_then(|old| self.manifests.get_mut(&old)) {
            kept.loose = Some(now);
        }
    }

    fn put_tag(&mut self, tag: &'static str, image: Digest, now: u64) -> Answer {
        if !self.has(&image) {
            return Answer::ManifestUnknown;
        }
        self.move_tag(tag, Some(image), None, now);
        Answer::Done
    }

    fn delete_tag(&mut self, tag: &'static str, now: u64) -> Answer {
        if self.current(tag).is_none() {
            return Answer::TagUnknown;
        }
        self.move_tag(tag, None, None, now);
        Answer::Done
    }

    fn expire_at(&mut self, tag: &'static str, expires: Option<u64>) -> Answer {
        match self.tags.get_mut(tag).and_then(|rows| rows.last_mut()) {
            Some(row) if row.digest.is_some() => row.expires = expires,
            _ => return Answer::TagUnknown,
        }
        Answer::Done
    }

    fn expire(&mut self, now: u64) {
        for tag in TAGS {
            let last = self.tags.get(tag).and_then(|rows| rows.last());
            if last.is_some_and(|row| row.digest.is_some() && row.expires.is_some_and(|at| at <= now)) {
                self.move_tag(tag, None, None, now);
            }
        }
    }

    fn delete_manifest(&mut self, image: Digest, now: u64) -> Answer {
        if !self.has(&image) {
            return Answer::ManifestUnknown;
        }
        for tag in TAGS {
            if self.current(tag) == Some(image) {
                self.move_tag(tag, None, None, now);
            }
        }
        self.manifests.entry(image).or_default().deleted = Some(now);
        Answer::Done
    }

    fn restore_tag(&mut self, tag: &'static str, image: Digest, now: u64) -> Answer {
        let rows = self.tags.get(tag).map(Vec::as_slice).unwrap_or_default();
        let Some(pointed) = rows.iter().rev().find(|row| row.digest == Some(image)).copied() else {
            return Answer::TagUnknown;
        };
        let Some(kept) = self.manifests.get_mut(&image) else { return Answer::ManifestUnknown };
        kept.deleted = None;
        if self.current(tag) != Some(image) {
            self.move_tag(tag, Some(image), pointed.expires.filter(|at| *at > now), now);
        }
        Answer::Done
    }

    fn collect(&mut self, pushed: &BTreeMap<Digest, u64>, now: u64) {
        match self.place {
            Place::DeletedAt(when) if when + KEPT < now => {
                *self = Self { place: Place::Gone, ..Self::default() };
            }
            _ => {}
        }
        let is_past = |moment: u64| moment + KEPT < now;
        let is_old = |moment: u64| moment < now - GRACE;
        let tagged: Vec<_> = TAGS.iter().filter_map(|tag| self.current(tag)).collect();
        let goes = |image: &Digest, kept: &Kept| match (kept.deleted, kept.loose) {
            (Some(deleted), _) => is_past(deleted),
            (None, Some(loose)) => {
                let is_unused = self.used.get(image).is_none_or(|used| is_old(*used) && is_past(*used));
                !tagged.contains(image) && is_past(loose) && is_unused && is_old(pushed[image])
            }
            (None, None) => false,
        };
        let gone: Vec<_> = self
            .manifests
            .iter()
            .filter(|(image, kept)| goes(image, kept))
            .map(|(image, _)| *image)
            .collect();
        for image in gone {
            self.manifests.remove(&image);
            self.used.remove(&image);
        }
    }
}

pub(in crate::metadata::catalogue) async fn random_histories_agree_with_the_model(
    catalogue: &Arc<dyn Catalogue>,
) {
    for seed in 0..SEEDS {
        let mut random = Rng::with_seed(seed);
        let names = [
            hosted(catalogue, &format!("seed{seed}/one")).await,
            hosted(catalogue, &format!("seed{seed}/two")).await,
        ];
        keep_for(catalogue, &format!("seed{seed}"), KEPT).await;
        let mut world = World { models: [Model::default(), Model::default()], pushed: BTreeMap::new() };
        // After all that earlier ones did.
        let mut now = 100 + seed * 1000;
        for step in 0..STEPS {
            now += random.u64(0..4);
            let chosen = random.usize(0..2);
            let said = act(catalogue, &names, &mut world, chosen, now, &mut random).await;
            let (answer, expected) = said;
            assert_eq!(answer, expected, "seed {seed}, step {step}");
            for (name, model) in names.iter().zip(&world.models) {
                compare(catalogue, name, model, random.u64(now.saturating_sub(40)..=now)).await;
            }
        }
    }
}

/// Does something at random, and gives the answer of the catalogue and of the model.
async fn act(
    catalogue: &Arc<dyn Catalogue>,
    names: &[RepositoryName; 2],
    world: &mut World,
    chosen: usize,
    now: u64,
    random: &mut Rng,
) -> (Answer, Answer) {
    match random.u8(0..10) {
        0 => {
            collect(catalogue, now).await;
            for model in &mut world.models {
                model.collect(&world.pushed, now);
            }
            (Answer::Done, Answer::Done)
        }
        1 => {
            for due in catalogue.list_due_tags(at(now), 99).await.unwrap() {
                let condition = TagCondition::Due(at(now));
                let retracted =
                    catalogue.retract_tag(&due.repository, &due.tag, condition, &stamp(now)).await;
                assert!(retracted.unwrap());
            }
            for model in world.models.iter_mut().filter(|model| model.place == Place::There) {
                model.expire(now);
            }
            (Answer::Done, Answer::Done)
        }
        _ if world.models[chosen].place != Place::There => {
            revive(catalogue, &names[chosen], &mut world.models[chosen], now, random).await
        }
        _ => change(catalogue, &names[chosen], world, chosen, now, random).await,
    }
}

/// Does something with a repository that was deleted, or purged.
async fn revive(
    catalogue: &Arc<dyn Catalogue>,
    name: &RepositoryName,
    model: &mut Model,
    now: u64,
    random: &mut Rng,
) -> (Answer, Answer) {
    let is_deleted = model.place != Place::Gone;
    match random.u8(0..6) {
        0 => {
            let expected = if is_deleted { Answer::Done } else { Answer::RepositoryUnknown };
            if is_deleted {
                model.place = Place::There;
            }
            (answer(catalogue.restore_repository(name, &stamp(now)).await), expected)
        }
        1 => {
            // A push creates it anew, or brings back what it held.
            model.place = Place::There;
            (answer(catalogue.create_repository(name, &stamp(now)).await), Answer::Done)
        }
        2 => (answer(catalogue.delete_repository(name, &stamp(now)).await), Answer::RepositoryUnknown),
        _ => {
            let image = digest(IMAGES[0]);
            let put = catalogue.put_tag(name, &tag(TAGS[0]), &image, &stamp(now)).await;
            (answer(put), Answer::RepositoryUnknown)
        }
    }
}

/// Does something with a repository that is there.
async fn change(
    catalogue: &Arc<dyn Catalogue>,
    name: &RepositoryName,
    world: &mut World,
    chosen: usize,
    now: u64,
    random: &mut Rng,
) -> (Answer, Answer) {
    let text = IMAGES[random.usize(..IMAGES.len())];
    let version = TAGS[random.usize(..TAGS.len())];
    let (image, name_of_tag, moment) = (digest(text), tag(version), stamp(now));
    let model = &mut world.models[chosen];
    let (said, expected) = match random.u8(0..20) {
        0..=5 => {
            push_image(catalogue, name, text, &[version], now).await;
            world.pushed.insert(image, now);
            model.manifests.insert(image, Kept::default());
            return (Answer::Done, model.put_tag(version, image, now));
        }
        6..=7 => {
            (catalogue.put_tag(name, &name_of_tag, &image, &moment).await, model.put_tag(version, image, now))
        }
        8..=9 => (catalogue.delete_tag(name, &name_of_tag, &moment).await, model.delete_tag(version, now)),
        10..=11 => (
            catalogue.delete_manifest(name, &image, &moment).await.map(|_| ()),
            model.delete_manifest(image, now),
        ),
        12..=14 => (
            catalogue.restore_tag(name, &name_of_tag, &image, &moment).await,
            model.restore_tag(version, image, now),
        ),
        15..=16 => {
            let expires = random.bool().then(|| now + random.u64(0..20));
            let set = catalogue.set_tag_expiry(name, &name_of_tag, expires.map(at), &moment).await;
            (set, model.expire_at(version, expires))
        }
        17..=18 => {
            model.used.insert(image, now);
            let used = ContentUse { repository: name.clone(), digest: image, used_at: at(now) };
            (catalogue.record_uses(&[used]).await, Answer::Done)
        }
        _ => {
            model.place = Place::DeletedAt(now);
            (catalogue.delete_repository(name, &moment).await, Answer::Done)
        }
    };
    (answer(said), expected)
}

/// Collects all there is to collect, which has to be what was foreseen.
async fn collect(catalogue: &Arc<dyn Catalogue>, now: u64) {
    let horizon = Horizon { now: at(now), grace_since: at(now - GRACE) };
    let foreseen = catalogue.foresee_collection(horizon).await.unwrap();
    let mut removed = Prospect::default();
    while catalogue.seal_due_places(horizon.now, 99, &stamp(now)).await.unwrap() > 0 {}
    loop {
        let purged = catalogue.purge_sealed(2).await.unwrap();
        removed.repositories += purged.repositories;
        removed.manifests += purged.manifests;
        removed.links += purged.links;
        if !purged.is_unfinished {
            break;
        }
    }
    removed.manifests += u64::from(catalogue.collect_manifests(horizon, 99, &stamp(now)).await.unwrap());
    let links = catalogue.collect_links(horizon.grace_since, None, 999).await.unwrap();
    removed.links += u64::from(links.collected);
    let blobs = catalogue.condemn_blobs(horizon.grace_since, None, 999, horizon.now).await.unwrap();
    for blob in blobs.condemned {
        removed.blobs += 1;
        removed.bytes += blob.size_bytes;
        catalogue.forget_blob(&blob.digest).await.unwrap();
    }
    assert_eq!(removed, foreseen);
}

async fn compare(catalogue: &Arc<dyn Catalogue>, name: &RepositoryName, model: &Model, moment: u64) {
    if model.place != Place::There {
        assert!(matches!(catalogue.list_tags(name, None, 99).await, Err(CatalogueError::RepositoryUnknown)));
        return;
    }
    let live: Vec<_> = TAGS.into_iter().filter(|tag| model.current(tag).is_some()).map(tag).collect();
    assert_eq!(catalogue.list_tags(name, None, 99).await.unwrap(), live);
    for version in TAGS {
        let rows = model.tags.get(version).cloned().unwrap_or_default();
        let history = catalogue.list_tag_history(name, &tag(version), None, 999).await.unwrap();
        let seen: Vec<_> = history
            .iter()
            .rev()
            .map(|row| (row.digest, row.stamp.at, row.expires_at, row.is_restorable))
            .collect();
        let is_kept = |image: Option<Digest>| image.is_some_and(|image| model.manifests.contains_key(&image));
        let expected: Vec<_> = rows
            .iter()
            .map(|row| (row.digest, at(row.at), row.expires.map(at), is_kept(row.digest)))
            .collect();
        assert_eq!(seen, expected);
        assert_eq!(catalogue.find_tag(name, &tag(version)).await.unwrap(), model.current(version));
        let then = rows.iter().rev().find(|row| row.at <= moment).and_then(|row| row.digest);
        assert_eq!(catalogue.find_tag_at(name, &tag(version), at(moment)).await.unwrap(), then);
    }
    for text in IMAGES {
        let found = catalogue.find_manifest(name, &digest(text)).await.unwrap();
        assert_eq!(found.is_some(), model.has(&digest(text)));
        if found.is_some() {
            let layer = digest(&format!("layer of {text}"));
            assert!(catalogue.find_blob(name, &layer).await.unwrap().is_some(), "{text} lost its layer");
        }
    }
}

fn answer(said: Result<()>) -> Answer {
    match said {
        Ok(()) => Answer::Done,
        Err(CatalogueError::RepositoryUnknown) => Answer::RepositoryUnknown,
        Err(CatalogueError::ManifestUnknown) => Answer::ManifestUnknown,
        Err(CatalogueError::TagUnknown) => Answer::TagUnknown,
        Err(error) => panic!("{error:?}"),
    }
}

const SEEDS: u64 = 3;
const STEPS: u32 = 80;
/// For how many seconds what is deleted can come back.
const KEPT: u64 = 20;
/// For how many seconds what just came is left alone.
const GRACE: u64 = 5;
const TAGS: [&str; 3] = ["a", "b", "c"];
const IMAGES: [&str; 4] = ["one", "two", "three", "four"];
