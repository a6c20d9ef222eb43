//! All content there is, and what of it is right where.

use std::sync::Mutex;

use fastrand::Rng;

use crate::content::{Content, Image};
use crate::upstream::{Access, Bearer, Upstream};

/// The registries.
pub(crate) struct World {
    pub(crate) hosts: Vec<Host>,
}

/// A registry and what it holds.
pub(crate) struct Host {
    pub(crate) name: &'static str,
    pub(crate) upstream: Upstream,
    tags: Mutex<Vec<Tag>>,
}

/// What a tag points to, and pointed to before; the last is the present one.
type Tag = Vec<Image>;

/// The registry that never fails: what is asked of it has to be answered whatever else happens.
pub(crate) const STEADY: &str = "steady.test";

const TAGS: usize = 10;

impl World {
    /// Registries with the same kinds of images; some layers are in all of them.
    pub(crate) async fn new(rng: &mut Rng) -> Self {
        let shared: Vec<_> = (0..4).map(|_| random_blob(rng)).collect();
        let mut hosts = Vec::new();
        for name in ["hub.test", "other.test", STEADY] {
            let upstream = Upstream::start().await;
            if name == "hub.test" {
                upstream.require(Access::Bearer(Bearer::of_realm(&upstream.realm())));
            }
            let host = Host { name, upstream, tags: Mutex::default() };
            for number in 0..TAGS {
                let repository = format!("team/app{}", number / 2);
                let image = random_image(rng, &repository, &number.to_string(), &shared);
                host.upstream.add_image(&image);
                host.tags.lock().unwrap().push(vec![image]);
            }
            hosts.push(host);
        }
        Self { hosts }
    }

    /// Every image that any tag points or pointed to, with its registry.
    pub(crate) fn images(&self) -> Vec<(&Host, Image)> {
        let of = |host: &Host| host.tags.lock().unwrap().concat();
        self.hosts.iter().flat_map(|host| of(host).into_iter().map(move |image| (host, image))).collect()
    }

    /// Every image that a tag points to now.
    pub(crate) fn current_images(&self) -> Vec<(&Host, Image)> {
        self.hosts
            .iter()
            .flat_map(|host| (0..TAGS).map(move |number| (host, host.versions(number).pop().unwrap())))
            .collect()
    }
}

impl Host {
    /// What the tag of this number points and pointed to.
    pub(crate) fn versions(&self, number: usize) -> Tag {
        self.tags.lock().unwrap()[number].clone()
    }

    /// Points a tag to a new image.
    pub(crate) fn move_tag(&self, rng: &mut Rng) -> String {
        let number = pick_tag(rng);
        let old = self.versions(number).pop().unwrap();
        let image = random_image(rng, &old.repository, &old.tag, &old.layers[..1]);
        // Known before it can be served.
        self.tags.lock().unwrap()[number].push(image.clone());
        self.upstream.add_image(&image);
        format!("{}:{}", image.repository, image.tag)
    }

    /// The path of something in this registry, given its path in a default one.
    pub(crate) fn path(&self, path: &str) -> String {
        format!("/v2/{}{}", self.name, &path[3..])
    }
}

/// The number of a tag, of some more often than of others.
pub(crate) fn pick_tag(rng: &mut Rng) -> usize {
    let place = rng.usize(..TAGS * TAGS);
    place * place / (TAGS * TAGS * TAGS)
}

fn random_image(rng: &mut Rng, repository: &str, tag: &str, shared: &[Content]) -> Image {
    let mut layers: Vec<_> = (0..rng.usize(1..=3)).map(|_| random_blob(rng)).collect();
    layers.push(shared[rng.usize(..shared.len())].clone());
    Image::of_layers(repository, tag, layers)
}

/// Of any size between a byte and 2 MiB, in most cases small.
fn random_blob(rng: &mut Rng) -> Content {
    let magnitude = rng.u32(1..=21);
    let size_bytes = rng.usize(1..=1 << magnitude);
    Content::blob(rng.u64(..), size_bytes)
}
