//! Repositories and their images: layers shared through bases, versions that replace each other.

use fastrand::Rng;

use super::Item;
use super::model::Model;
use super::sizes::{layer_bytes, manifest_bytes};

/// All items made so far.
#[derive(Default)]
pub(crate) struct Content(pub(crate) Vec<Item>);

impl Content {
    /// Makes a layer, and gives its number.
    pub(crate) fn layer(&mut self, random: &mut Rng) -> usize {
        self.add(Item { size_bytes: layer_bytes(random), is_manifest: false })
    }

    /// Makes a manifest, and gives its number.
    pub(crate) fn manifest(&mut self, random: &mut Rng) -> usize {
        self.add(Item { size_bytes: manifest_bytes(random), is_manifest: true })
    }

    fn layers(&mut self, count: usize, random: &mut Rng) -> Vec<usize> {
        (0..count).map(|_| self.layer(random)).collect()
    }

    fn add(&mut self, item: Item) -> usize {
        self.0.push(item);
        self.0.len() - 1
    }
}

/// An image that others are built on.
pub(crate) struct Base {
    layers: Vec<usize>,
    version: u32,
}

impl Base {
    /// Makes a base of one to four layers.
    pub(crate) fn new(content: &mut Content, random: &mut Rng) -> Self {
        let count = random.usize(1..=4);
        Self { layers: content.layers(count, random), version: 0 }
    }

    /// Replaces all layers.
    pub(crate) fn renew(&mut self, content: &mut Content, random: &mut Rng) {
        self.layers = content.layers(self.layers.len(), random);
        self.version += 1;
    }
}

/// A repository with one tag that people pull.
pub(crate) struct Repository {
    base: usize,
    base_version: u32,
    base_layers: usize,
    /// The manifest of the present version.
    pub(crate) manifest: usize,
    /// Its layers, the base's first.
    pub(crate) layers: Vec<usize>,
    /// Counts the versions.
    pub(crate) version: u32,
    /// The mean time between versions in days.
    pub(crate) days_between_versions: f64,
    /// The version that each node of its fleet has; `None` before its first pull.
    pub(crate) nodes: Vec<Option<u32>>,
    /// Since which version each layer is part of the image.
    since: Vec<u32>,
}

impl Repository {
    /// Makes a repository whose image stands on one of `bases`.
    pub(crate) fn new(
        model: &Model,
        (base, bases): (usize, &[Base]),
        content: &mut Content,
        random: &mut Rng,
    ) -> Self {
        let below = &bases[base];
        // Half of the images have fewer than 8 layers, nine in ten fewer than 18.
        let layers = (8_f64.ln() + 0.633 * normal(random)).exp().clamp(1.0, 120.0);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
        let own = (layers.round() as usize).saturating_sub(below.layers.len()).max(1);
        let mut layers = below.layers.clone();
        layers.extend(content.layers(own, random));
        let (fastest, slowest) = model.days_between_versions;
        let fleet = model.most_nodes.powf(random.f64()).round();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most `most_nodes`")]
        let fleet = fleet as usize;
        Self {
            base,
            base_version: below.version,
            base_layers: below.layers.len(),
            manifest: content.manifest(random),
            version: 0,
            days_between_versions: fastest * (slowest / fastest).powf(random.f64()),
            nodes: vec![None; fleet.max(1)],
            since: vec![0; layers.len()],
            layers,
        }
    }

    /// Makes a new version: its last layers are new; all are where the base was renewed.
    pub(crate) fn renew(&mut self, bases: &[Base], content: &mut Content, random: &mut Rng) {
        self.version += 1;
        let base = &bases[self.base];
        let own = self.layers.len() - self.base_layers;
        let kept = if base.version == self.base_version {
            self.layers.len() - random.usize(1..=own)
        } else {
            self.base_version = base.version;
            0
        };
        for place in kept..self.layers.len() {
            let from_base = base.layers.get(place).copied();
            self.layers[place] = from_base.unwrap_or_else(|| content.layer(random));
            self.since[place] = self.version;
        }
        self.manifest = content.manifest(random);
    }

    /// The layers that a node has to pull that has a version, or nothing.
    pub(crate) fn missing(&self, has: Option<u32>) -> impl Iterator<Item = usize> {
        let layers = self.layers.iter().zip(&self.since);
        layers.filter(move |(_, since)| has.is_none_or(|version| **since > version)).map(|(layer, _)| *layer)
    }
}

/// Draws from the normal distribution (Box and Muller).
fn normal(random: &mut Rng) -> f64 {
    let (radius, angle) = (1.0 - random.f64(), random.f64() * std::f64::consts::TAU);
    (-2.0 * radius.ln()).sqrt() * angle.cos()
}
