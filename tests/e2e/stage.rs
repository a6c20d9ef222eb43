//! What every test plays on: an upstream, Tidegate in front of it, and clients that come and go.

use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::Instant;

use crate::child::wait_until;
use crate::clients::Program;
use crate::fixtures::{Fixtures, Image, Kind, TEMPORARY};
use crate::http::fetch;
use crate::registry::{Access, Registry, Writes};
use crate::tidegate::{Freshness, Tidegate};

/// An upstream and the Tidegate in front of it. Fields are dropped in this order.
pub(crate) struct Stage {
    pub(crate) tidegate: Tidegate,
    pub(crate) registries: Vec<Registry>,
    upstreams: Vec<String>,
    directory: TempDir,
}

/// The circumstances of a pull.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Nothing is cached, and a container is run where an image can be.
    Cold,
    /// Everything is cached and fresh.
    Warm,
    /// Everything is cached and stale, and upstream is gone.
    StoppedByTag,
    /// The same, with digests for names.
    StoppedByDigest,
}

impl Phase {
    fn name(self, image: &Image) -> String {
        if self == Self::StoppedByDigest { image.by_digest() } else { image.by_tag() }
    }
}

impl Stage {
    /// One open registry that stands for Docker Hub and for another registry.
    pub(crate) fn open() -> Self {
        let directory = new_directory();
        let registry =
            Registry::start(directory.path(), &Fixtures::storage(), Writes::Denied, &Access::Anonymous);
        let endpoint = format!("endpoints = [\"http://{}\"]", registry.address);
        let upstreams = vec![
            format!("name = \"docker.io\"\ndefault = true\nlibrary_prefix = true\n{endpoint}"),
            format!("name = \"ghcr.io\"\n{endpoint}"),
        ];
        Self::with(directory, vec![registry], upstreams)
    }

    /// Registries and the `[[upstream]]` tables that name them.
    pub(crate) fn with(directory: TempDir, registries: Vec<Registry>, upstreams: Vec<String>) -> Self {
        let tidegate = Tidegate::start(&tidegate_directory(&directory), &upstreams, Freshness::Lasting);
        Self { tidegate, registries, upstreams, directory }
    }

    /// Stops every upstream, and starts Tidegate anew over its cache, so that each tag is stale from the first pull on.
    pub(crate) fn stop_upstreams(self) -> Self {
        let Self { tidegate, mut registries, upstreams, directory } = self;
        registries.iter_mut().for_each(Registry::stop);
        tidegate.stop();
        let tidegate = Tidegate::start(&tidegate_directory(&directory), &upstreams, Freshness::None);
        // What is cached is served with every upstream gone, so that says nothing against it.
        fetch(tidegate.admin_address, "/health/ready", "application/json").expect(200);
        Self { tidegate, registries, upstreams, directory }
    }

    /// Has a new client, with nothing pulled yet, pull images and compares what it got.
    pub(crate) fn pull_all(&self, program: Program, images: &[Image], when: Phase) {
        let mut client = program.start(&self.tidegate);
        for image in images.iter().filter(|image| program.supports(image)) {
            let name = when.name(image);
            let started = Instant::now();
            client.pull(&name, image);
            let pulled = started.elapsed();
            let comparing = Instant::now();
            client.require_content(&name, image);
            eprintln!(
                "{program:?}, {when:?}: {name} in {pulled:.1?}, compared in {:.1?}",
                comparing.elapsed()
            );
            if when == Phase::Cold
                && image.kind == Kind::Debian
                && let Some(answer) = client.run(&name, &["cat", "/etc/os-release"])
            {
                assert!(answer.contains("ID=debian"), "{program:?}, {when:?}: {name} ran and said {answer}");
            }
        }
    }

    /// Requires that upstream was asked for each blob of the images exactly once, and returns all its requests.
    pub(crate) fn require_single_fetches(&self, program: Program, images: &[Image]) -> usize {
        for digest in images.iter().filter(|image| program.supports(image)).flat_map(|image| &image.blobs) {
            let count =
                || self.registries.iter().map(|registry| registry.count(&["GET"], digest)).sum::<usize>();
            // The registry writes to its log after the last byte has left, so the line may come after the pull.
            wait_until(Duration::from_secs(10), || (count() > 0).then_some(()));
            assert_eq!(count(), 1, "GETs of {digest} upstream");
        }
        self.request_count()
    }

    /// How many requests the upstreams have answered.
    pub(crate) fn request_count(&self) -> usize {
        self.registries.iter().map(|registry| registry.requests().len()).sum()
    }

    /// The story of every test: cold, warm, and with upstream gone.
    pub(crate) fn play(self, program: Program, images: &[Image]) {
        self.pull_all(program, images, Phase::Cold);
        let asked = self.require_single_fetches(program, images);
        self.pull_all(program, images, Phase::Warm);
        assert_eq!(self.request_count(), asked, "a second pull asked upstream");
        let alone = self.stop_upstreams();
        alone.pull_all(program, images, Phase::StoppedByTag);
        alone.pull_all(program, images, Phase::StoppedByDigest);
    }
}

/// A new directory for one test.
pub(crate) fn new_directory() -> TempDir {
    tempfile::Builder::new().prefix("stage-").tempdir_in(TEMPORARY).expect("create a directory")
}

fn tidegate_directory(directory: &TempDir) -> std::path::PathBuf {
    Path::new(directory.path()).join("tidegate")
}
