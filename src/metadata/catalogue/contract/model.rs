//! Random histories, held against a model in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use fastrand::Rng;

use super::{at, digest, hosted, push_image, stamp, tag};
use crate::metadata::catalogue::{Catalogue, CatalogueError, Result};
use crate::oci::{Digest, RepositoryName};

/// What a repository should hold.
#[derive(Default)]
struct Model {
    is_deleted: bool,
    /// Manifests that were not collected, and since when they are deleted.
    manifests: BTreeMap<Digest, Option<u64>>,
    /// The rows of each tag, the first one first.
    tags: BTreeMap<&'static str, Vec<(Option<Digest>, u64)>>,
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
        self.tags.get(tag).and_then(|rows| rows.last()).and_then(|(digest, _)| *digest)
    }

    fn has(&self, image: &Digest) -> bool {
        self.manifests.get(image) == Some(&None)
    }

    fn move_tag(&mut self, tag: &'static str, digest: Option<Digest>, now: u64) {
        if self.current(tag) != digest {
            self.tags.entry(tag).or_default().push((digest, now));
        }
    }

    fn put_tag(&mut self, tag: &'static str, image: Digest, now: u64) -> Answer {
        if !self.has(&image) {
            return Answer::ManifestUnknown;
        }
        self.move_tag(tag, Some(image), now);
        Answer::Done
    }

    fn delete_tag(&mut self, tag: &'static str, now: u64) -> Answer {
        if self.current(tag).is_none() {
            return Answer::TagUnknown;
        }
        self.move_tag(tag, None, now);
        Answer::Done
    }

    fn delete_manifest(&mut self, image: Digest, now: u64) -> Answer {
        if !self.has(&image) {
            return Answer::ManifestUnknown;
        }
        self.manifests.insert(image, Some(now));
        for tag in TAGS {
            if self.current(tag) == Some(image) {
                self.move_tag(tag, None, now);
            }
        }
        Answer::Done
    }

    fn restore_tag(&mut self, tag: &'static str, image: Digest, now: u64) -> Answer {
        let pointed = self.tags.get(tag).is_some_and(|rows| rows.iter().any(|row| row.0 == Some(image)));
        if !pointed {
            return Answer::TagUnknown;
        }
        if !self.manifests.contains_key(&image) {
            return Answer::ManifestUnknown;
        }
        self.manifests.insert(image, None);
        self.move_tag(tag, Some(image), now);
        Answer::Done
    }

    fn collect(&mut self, before: u64) {
        self.manifests.retain(|_, deleted| deleted.is_none_or(|deleted| deleted >= before));
    }
}

pub(in crate::metadata::catalogue) async fn random_histories_agree_with_the_model(
    catalogue: &Arc<dyn Catalogue>,
) {
    for seed in 0..3 {
        let mut random = Rng::with_seed(seed);
        let names = [
            hosted(catalogue, &format!("seed{seed}/one")).await,
            hosted(catalogue, &format!("seed{seed}/two")).await,
        ];
        let mut models = [Model::default(), Model::default()];
        let mut now = 100;
        for step in 0..STEPS {
            now += random.u64(0..4);
            let chosen = random.usize(0..2);
            let said = act(catalogue, &names[chosen], &mut models, chosen, now, &mut random).await;
            let (answer, expected) = said;
            assert_eq!(answer, expected, "seed {seed}, step {step}");
            compare(catalogue, &names[chosen], &models[chosen], random.u64(99..=now)).await;
        }
    }
}

/// Does something at random, and gives the answer of the catalogue and of the model.
async fn act(
    catalogue: &Arc<dyn Catalogue>,
    name: &RepositoryName,
    models: &mut [Model; 2],
    chosen: usize,
    now: u64,
    random: &mut Rng,
) -> (Answer, Answer) {
    let text = IMAGES[random.usize(..IMAGES.len())];
    let version = TAGS[random.usize(..TAGS.len())];
    let (image, name_of_tag, moment) = (digest(text), tag(version), stamp(now));
    let choice = random.u8(0..20);
    if choice == 19 {
        let before = now.saturating_sub(15);
        collect(catalogue, before, now).await;
        for model in models {
            model.collect(before);
        }
        return (Answer::Done, Answer::Done);
    }
    let model = &mut models[chosen];
    if model.is_deleted && choice < 10 {
        model.is_deleted = false;
        return (answer(catalogue.restore_repository(name, &moment).await), Answer::Done);
    }
    let (said, expected) = match choice {
        0..=6 if !model.is_deleted => {
            push_image(catalogue, name, text, &[version], now).await;
            model.manifests.insert(image, None);
            return (Answer::Done, model.put_tag(version, image, now));
        }
        0..=9 => {
            (catalogue.put_tag(name, &name_of_tag, &image, &moment).await, model.put_tag(version, image, now))
        }
        10..=12 if !model.is_deleted => {
            (catalogue.delete_tag(name, &name_of_tag, &moment).await, model.delete_tag(version, now))
        }
        13..=14 if !model.is_deleted => (
            catalogue.delete_manifest(name, &image, &moment).await.map(|_| ()),
            model.delete_manifest(image, now),
        ),
        15..=17 if !model.is_deleted => (
            catalogue.restore_tag(name, &name_of_tag, &image, &moment).await,
            model.restore_tag(version, image, now),
        ),
        _ => {
            let was_deleted = std::mem::replace(&mut model.is_deleted, true);
            let expected = if was_deleted { Answer::RepositoryUnknown } else { Answer::Done };
            (catalogue.delete_repository(name, &moment).await, expected)
        }
    };
    (answer(said), expected)
}

async fn collect(catalogue: &Arc<dyn Catalogue>, before: u64, now: u64) {
    catalogue.collect_manifests(at(before), 99, &stamp(now)).await.unwrap();
    catalogue.collect_links(at(before), 99).await.unwrap();
    for blob in catalogue.condemn_blobs(at(before), 99, at(now)).await.unwrap() {
        catalogue.forget_blob(&blob.digest).await.unwrap();
    }
}

async fn compare(catalogue: &Arc<dyn Catalogue>, name: &RepositoryName, model: &Model, moment: u64) {
    if model.is_deleted {
        assert!(matches!(catalogue.list_tags(name, None, 99).await, Err(CatalogueError::RepositoryUnknown)));
        return;
    }
    let live: Vec<_> = TAGS.into_iter().filter(|tag| model.current(tag).is_some()).map(tag).collect();
    assert_eq!(catalogue.list_tags(name, None, 99).await.unwrap(), live);
    for version in TAGS {
        let rows = model.tags.get(version).cloned().unwrap_or_default();
        let history = catalogue.list_tag_history(name, &tag(version), None, 999).await.unwrap();
        let seen: Vec<_> = history.iter().rev().map(|row| (row.digest, row.stamp.at)).collect();
        let expected: Vec<_> = rows.iter().map(|(digest, when)| (*digest, at(*when))).collect();
        assert_eq!(seen, expected);
        assert_eq!(catalogue.find_tag(name, &tag(version)).await.unwrap(), model.current(version));
        let then = rows.iter().rev().find(|(_, when)| *when <= moment).and_then(|(digest, _)| *digest);
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

const STEPS: u32 = 50;
const TAGS: [&str; 3] = ["a", "b", "c"];
const IMAGES: [&str; 4] = ["one", "two", "three", "four"];
