//! Integrity at rest: files that are altered under the service are noticed, never served, and healed.

mod index;
mod pull;
mod scrub;
mod verify;

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::process::Signal;
use serde_json::Value;

use crate::cache::{cache_lines, pull};
use crate::content::{Content, Image};
use crate::harness::{Metrics, Section, Setup, Tidegate, until};
use crate::upstream::{Upstream, When, blob, everything, manifest};

const MIB: usize = 1 << 20;

/// What is done to a stored file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spoil {
    Remove,
    Cut,
    Lengthen,
    Flip,
    /// Another file of the same size in its place.
    Swap,
    /// Something that cannot be opened, whoever tries: a link to itself.
    Block,
}

impl Spoil {
    /// How it is counted.
    fn cause(self) -> &'static str {
        match self {
            Self::Remove => "missing",
            Self::Cut => "short",
            Self::Lengthen => "long",
            Self::Flip | Self::Swap => "altered",
            Self::Block => "unreadable",
        }
    }

    fn apply(self, path: &Path) {
        let file = || File::options().write(true).open(path).unwrap();
        let length = path.metadata().unwrap().len();
        match self {
            Self::Remove => fs::remove_file(path).unwrap(),
            Self::Cut => file().set_len(length - 1).unwrap(),
            Self::Lengthen => file().write_all_at(b"more", length).unwrap(),
            Self::Flip => {
                let mut byte = [0];
                let middle = length / 2;
                File::open(path).unwrap().read_exact_at(&mut byte, middle).unwrap();
                file().write_all_at(&[!byte[0]], middle).unwrap();
            }
            Self::Swap => {
                let other = path.with_extension("other");
                fs::write(&other, vec![b'{'; usize::try_from(length).unwrap()]).unwrap();
                fs::rename(&other, path).unwrap();
            }
            Self::Block => {
                fs::remove_file(path).unwrap();
                std::os::unix::fs::symlink(path, path).unwrap();
            }
        }
    }
}

/// A part of an image, by what way it is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Item {
    /// From memory.
    Manifest,
    /// From memory.
    Small,
    /// From its file.
    Big,
}

impl Item {
    const ALL: [Self; 3] = [Self::Manifest, Self::Small, Self::Big];

    fn of(self, image: &Image) -> &Content {
        match self {
            Self::Manifest => &image.manifest,
            Self::Small => &image.layers[0],
            Self::Big => &image.layers[1],
        }
    }

    /// Requests for its bytes.
    fn transfers(self, image: &Image) -> When {
        match self {
            Self::Manifest => manifest(&image.manifest.digest).get(),
            Self::Small | Self::Big => blob(self.of(image)).get(),
        }
    }
}

/// A node with an image of all kinds of content, which was pulled and is all kept.
struct Node {
    upstream: Upstream,
    image: Image,
    tidegate: Tidegate,
}

impl Node {
    async fn start(setup: impl FnOnce(Setup) -> Setup) -> Self {
        let upstream = Upstream::start().await;
        let image = upstream.make_image("library/app", "1", &[5000, 3 * MIB]);
        let setup = setup(Setup::new().upstream(Section::hub(&upstream)).with_warnings().with_log("disk"));
        let tidegate = setup.start().await;
        pull(&tidegate, &image).await;
        upstream.forget_requests();
        Self { upstream, image, tidegate }
    }

    async fn stop(&mut self) {
        self.tidegate.signal(Signal::TERM);
        assert!(self.tidegate.wait_for_exit().await);
    }

    /// Spoils an item while nobody has anything of it in memory.
    async fn spoil_cold(&mut self, item: Item, spoil: Spoil) {
        self.stop().await;
        spoil.apply(&self.tidegate.stored_path(&item.of(&self.image).digest));
        self.tidegate.start_again().await;
        self.upstream.forget_requests();
    }

    fn is_whole(&self, item: Item) -> bool {
        let content = item.of(&self.image);
        fs::read(self.tidegate.stored_path(&content.digest)).is_ok_and(|bytes| bytes == content.bytes)
    }

    /// Waits until an item is on the disk and in the index again.
    async fn until_healed(&self, item: Item) {
        until("the item to be back", async || self.is_whole(item)).await;
        let digest = &item.of(&self.image).digest;
        until("the item to be listed", async || {
            !cache_lines(&self.tidegate, &["list", "--digest", digest]).await.is_empty()
        })
        .await;
    }

    /// Fails unless this item alone was transferred, once, and all is served without asking now.
    async fn check_healed(&self, item: Item, what: &str) {
        self.until_healed(item).await;
        assert_eq!(self.upstream.count(&item.transfers(&self.image)), 1, "{what}");
        assert_eq!(self.upstream.count(&everything()), 1, "{what}: and nothing else");
        self.upstream.forget_requests();
        self.tidegate.pull(&self.image).await;
        assert_eq!(self.upstream.count(&everything()), 0, "{what}: it is kept again");
    }

    /// Fails unless exactly this was counted and logged since the start.
    async fn check_counted(&self, item: Item, cause: &str, found_by: &str, what: &str) {
        let metrics = self.tidegate.metrics().await;
        assert_eq!(damaged(&metrics, &[("cause", cause), ("found_by", found_by)]), 1, "{what}");
        assert_eq!(damaged(&metrics, &[]), 1, "{what}: and nothing else");
        let place = if found_by == "pull" { "store" } else { found_by };
        let failures = metrics.sum("tidegate_integrity_failures_total", &[("where", place)]);
        assert!((failures - 1.0).abs() < 0.5, "{what}: {failures}");
        let digest = &item.of(&self.image).digest;
        let lines = self.tidegate.log_lines("stored content is damaged");
        let lines: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 1, "{what}: {lines:?}");
        let fields = lines[0].get("fields").unwrap_or(&lines[0]);
        assert_eq!(lines[0]["level"], "WARN");
        assert_eq!(
            (&fields["content.digest"], &fields["damage.cause"]),
            (&digest.as_str().into(), &cause.into())
        );
    }
}

fn damaged(metrics: &Metrics, labels: &[(&str, &str)]) -> u64 {
    count(metrics, "tidegate_content_damaged_total", labels)
}

fn count(metrics: &Metrics, name: &str, labels: &[(&str, &str)]) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small count")]
    let count = metrics.sum(name, labels).round() as u64;
    count
}
