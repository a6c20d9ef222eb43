//! Pulls over time: bursts of nodes, machines that start empty, images built for one run, scans.

use fastrand::Rng;

use super::images::{Base, Content, Repository};
use super::model::Model;
use super::{Request, Trace};

/// Makes the trace of a model; the same seed gives the same trace.
pub(crate) fn make(model: &Model, seed: u64) -> Trace {
    let mut world = World::new(model, seed);
    let mut next_scan_days = if model.scan_days > 0.0 { model.scan_days } else { f64::INFINITY };
    for at_days in world.moments() {
        world.renew_until(at_days);
        if at_days >= next_scan_days {
            world.scan(at_days);
            next_scan_days += model.scan_days;
        }
        world.pull(at_days);
    }
    Trace::tidy(&world.content.0, world.requests)
}

struct World<'a> {
    model: &'a Model,
    random: Rng,
    content: Content,
    bases: Vec<Base>,
    repositories: Vec<Repository>,
    /// The sums of the weights of the repositories up to each.
    weights: Vec<f64>,
    /// When each base, and each repository, is renewed next, in days.
    base_renewals: Vec<f64>,
    renewals: Vec<f64>,
    requests: Vec<Request>,
}

impl<'a> World<'a> {
    fn new(model: &'a Model, seed: u64) -> Self {
        let mut random = Rng::with_seed(seed);
        let mut content = Content::default();
        let bases: Vec<_> = (0..model.bases).map(|_| Base::new(&mut content, &mut random)).collect();
        let base_weights = zipf(model.bases, model.zipf_exponent);
        let repositories: Vec<_> = (0..model.repositories)
            .map(|_| {
                let base = pick(&base_weights, &mut random);
                Repository::new(model, (base, &bases), &mut content, &mut random)
            })
            .collect();
        let base_renewals =
            bases.iter().map(|_| exponential(model.days_between_bases, &mut random)).collect();
        let renewals = repositories
            .iter()
            .map(|repository| exponential(repository.days_between_versions, &mut random))
            .collect();
        let weights = zipf(model.repositories, model.zipf_exponent);
        let requests = Vec::new();
        Self { model, random, content, bases, repositories, weights, base_renewals, renewals, requests }
    }

    /// When somebody pulls, in days, in order: fewer at night and at weekends.
    fn moments(&mut self) -> Vec<f64> {
        let mut moments = Vec::with_capacity(self.model.pulls);
        while moments.len() < self.model.pulls {
            let at_days = self.random.f64() * self.model.days;
            if self.random.f64() < activity(at_days) {
                moments.push(at_days);
            }
        }
        moments.sort_by(f64::total_cmp);
        moments
    }

    fn renew_until(&mut self, at_days: f64) {
        for (base, renewal) in self.bases.iter_mut().zip(&mut self.base_renewals) {
            while *renewal <= at_days {
                base.renew(&mut self.content, &mut self.random);
                *renewal += exponential(self.model.days_between_bases, &mut self.random);
            }
        }
        for (repository, renewal) in self.repositories.iter_mut().zip(&mut self.renewals) {
            while *renewal <= at_days {
                repository.renew(&self.bases, &mut self.content, &mut self.random);
                *renewal += exponential(repository.days_between_versions, &mut self.random);
            }
        }
    }

    fn pull(&mut self, at_days: f64) {
        let repository = pick(&self.weights, &mut self.random);
        let kind = self.random.f64();
        if kind < self.model.built_share {
            self.pull_built(repository, at_days);
        } else if kind < self.model.built_share + self.model.fresh_share {
            let layers = self.repositories[repository].layers.clone();
            self.request(self.repositories[repository].manifest, &layers, at_days);
        } else {
            self.pull_by_nodes(repository, at_days);
        }
    }

    /// An image on top of the repository's is built and pulled once, by a machine that has what is below
    /// it or has not.
    fn pull_built(&mut self, repository: usize, at_days: f64) {
        let mut layers = Vec::new();
        if self.random.f64() < self.model.fresh_share {
            layers.clone_from(&self.repositories[repository].layers);
        }
        for _ in 0..self.random.usize(1..=4) {
            layers.push(self.content.layer(&mut self.random));
        }
        let manifest = self.content.manifest(&mut self.random);
        self.request(manifest, &layers, at_days);
    }

    /// Some nodes of the fleet pull, one after the other; each asks for the layers that it lacks, and for
    /// the manifest in any case.
    fn pull_by_nodes(&mut self, repository: usize, at_days: f64) {
        let mut at_days = at_days;
        let nodes = 1.0 + exponential(self.model.burst_nodes - 1.0, &mut self.random);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some nodes")]
        for _ in 0..nodes.round() as usize {
            let pulled = &mut self.repositories[repository];
            let node = self.random.usize(0..pulled.nodes.len());
            let layers: Vec<_> = pulled.missing(pulled.nodes[node]).collect();
            pulled.nodes[node] = Some(pulled.version);
            let manifest = pulled.manifest;
            self.request(manifest, &layers, at_days);
            at_days += exponential(self.model.burst_seconds / SECONDS_A_DAY, &mut self.random);
        }
    }

    fn scan(&mut self, at_days: f64) {
        for number in 0..self.model.scan_repositories.min(self.repositories.len()) {
            let repository = &self.repositories[number];
            let (manifest, layers) = (repository.manifest, repository.layers.clone());
            // Ten seconds an image.
            #[expect(clippy::cast_precision_loss, reason = "some thousands")]
            let later = number as f64 * 10.0 / SECONDS_A_DAY;
            self.request(manifest, &layers, at_days + later);
        }
    }

    fn request(&mut self, manifest: usize, layers: &[usize], at_days: f64) {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within the trace")]
        let at_ms = (at_days * SECONDS_A_DAY * 1e3) as u64;
        for (item, after) in std::iter::once(&manifest).chain(layers).zip(0..) {
            self.requests.push(Request { at_ms: at_ms + after * 20, item: *item });
        }
    }
}

/// How busy people are, from 0 to 1: a day has its peak at noon, a weekend is a little quieter.
fn activity(at_days: f64) -> f64 {
    let day = 0.6 - 0.4 * (at_days.fract() * std::f64::consts::TAU).cos();
    if at_days % 7.0 >= 5.0 { 0.8 * day } else { day }
}

fn exponential(mean: f64, random: &mut Rng) -> f64 {
    -mean * (1.0 - random.f64()).ln()
}

/// The sums of the weights that Zipf's law gives the ranks.
fn zipf(count: usize, exponent: f64) -> Vec<f64> {
    let mut sum = 0.0;
    let mut rank = 0.0_f64;
    let mut weigh = || {
        rank += 1.0;
        sum += rank.powf(-exponent);
        sum
    };
    (0..count).map(|_| weigh()).collect()
}

/// Draws a place by weight.
fn pick(sums: &[f64], random: &mut Rng) -> usize {
    let total = sums.last().copied().unwrap_or_default();
    let drawn = random.f64() * total;
    sums.partition_point(|sum| *sum <= drawn).min(sums.len() - 1)
}

const SECONDS_A_DAY: f64 = 86_400.0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::VARIANTS;

    #[test]
    fn a_seed_makes_the_same_trace_again_and_another_seed_another() {
        let model = Model { pulls: 200, repositories: 50, ..VARIANTS[2] };
        assert_eq!(make(&model, 1), make(&model, 1));
        assert_ne!(make(&model, 1), make(&model, 2));
    }

    #[test]
    fn requests_are_in_order_and_every_item_is_requested() {
        let trace = make(&Model { pulls: 500, repositories: 50, ..VARIANTS[0] }, 1);
        assert!(trace.requests.windows(2).all(|pair| pair[0].at_ms < pair[1].at_ms));
        let mut seen = vec![false; trace.items.len()];
        for request in &trace.requests {
            seen[request.item] = true;
        }
        assert!(seen.iter().all(|seen| *seen));
    }
}
