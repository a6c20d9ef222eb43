//! One image is made complete: level by level, what the walk over it finds missing is fetched.

use std::collections::HashSet;
use std::sync::Arc;

use futures_util::StreamExt as _;

use super::job::{Job, MOST_TRIES, WarmedState, describe, is_told_to_wait, may_help, pauses};
use crate::auth::RequestContext;
use crate::oci::{AcceptClass, Descriptor, Digest, MediaType, Platform, Reference};
use crate::registry::ahead::{self, Reason};
use crate::registry::core::Core;
use crate::registry::fill::FillFailure;
use crate::registry::image::{Catalogue, Image, Missing, Part};
use crate::registry::{RegistryError, Repository, Want, listing, manifest};

/// Tags that signatures and attestations of an image have where they are no referrers (cosign).
pub(in crate::registry) const SIGNATURE_TAGS: [&str; 3] = ["sig", "att", "sbom"];

/// Why an image is not complete yet.
enum Trouble {
    /// Trying again may help.
    Passing(RegistryError),
    /// It will not.
    Lasting(String),
}

impl From<RegistryError> for Trouble {
    fn from(error: RegistryError) -> Self {
        if may_help(&error) { Self::Passing(error) } else { Self::Lasting(describe(&error)) }
    }
}

/// Makes an image complete, and notes in the job how that goes.
pub(super) async fn make_complete(
    core: &Arc<Core>,
    job: &Arc<Job>,
    place: usize,
    repository: &Repository,
    reference: &Reference,
) {
    let warming = Warming { core, job, place, repository, reference };
    let (mut backoff, mut tries, mut least_missing) = (pauses(), 0_u32, usize::MAX);
    loop {
        job.wait_turn(&core.clock).await;
        job.update(place, |image| image.state = WarmedState::Running);
        let (trouble, missing) = match warming.round().await {
            Ok(()) => {
                job.update(place, |image| {
                    image.state = WarmedState::Complete;
                    image.reason = None;
                });
                return;
            }
            Err(failed) => failed,
        };
        tries += u32::from(!matches!(&trouble, Trouble::Passing(error) if is_told_to_wait(error)));
        if missing < least_missing {
            least_missing = missing;
            tries = 1;
            backoff.reset();
        }
        match trouble {
            Trouble::Passing(error) if tries < MOST_TRIES => {
                job.update(place, |image| image.reason = Some(describe(&error)));
                job.pause(&error, &mut backoff).await;
            }
            Trouble::Passing(error) => return warming.give_up(describe(&error)),
            Trouble::Lasting(reason) => return warming.give_up(reason),
        }
    }
}

/// An image of a job.
struct Warming<'a> {
    core: &'a Arc<Core>,
    job: &'a Arc<Job>,
    place: usize,
    repository: &'a Repository,
    reference: &'a Reference,
}

impl Warming<'_> {
    fn give_up(&self, reason: String) {
        self.job.update(self.place, |image| {
            image.state = WarmedState::Incomplete;
            image.reason = Some(reason);
        });
    }

    /// Fetches until nothing is missing. Fails with the first trouble, when nothing more can be fetched, and
    /// how many parts are missing then.
    async fn round(&self) -> Result<(), (Trouble, usize)> {
        let root = self.pull(self.reference).await.map_err(|error| (error.into(), usize::MAX))?;
        if self.job.order.referrers {
            self.find_referrers(&root).await.map_err(|error| (error.into(), usize::MAX))?;
        }
        let mut tried = HashSet::new();
        let mut first_trouble = None;
        loop {
            let image = self.inspect(root).await.map_err(|error| (error.into(), usize::MAX))?;
            if let Err(trouble) = self.require_offered(&image)
                && !self.offers_any(&image)
            {
                return Err((trouble, usize::MAX));
            }
            let new: Vec<_> =
                image.missing.iter().filter(|missing| tried.insert(missing.digest)).cloned().collect();
            if new.is_empty() {
                let unoffered = self.require_offered(&image).err();
                return match first_trouble.or(unoffered) {
                    None if image.missing.is_empty() => Ok(()),
                    None => Err((not_kept(&image), image.missing.len())),
                    Some(trouble) => Err((trouble, image.missing.len())),
                };
            }
            for trouble in self.fetch(new).await {
                // What will never come is told before what may.
                if first_trouble.is_none() || matches!(trouble, Trouble::Lasting(_)) {
                    first_trouble = Some(trouble);
                }
            }
        }
    }

    /// Fetches parts, blobs several at once; gives what went wrong.
    async fn fetch(&self, missing: Vec<Missing>) -> Vec<Trouble> {
        let (blobs, manifests): (Vec<_>, Vec<_>) =
            missing.into_iter().partition(|missing| missing.part == Part::Blob);
        let mut troubles = Vec::new();
        for manifest in manifests {
            self.job.wait_turn(&self.core.clock).await;
            if let Err(error) = self.pull(&Reference::Digest(manifest.digest)).await {
                troubles.push(error.into());
            }
        }
        let blobs = futures_util::stream::iter(blobs).map(|blob| self.fetch_blob(blob));
        let fetched: Vec<_> = blobs.buffer_unordered(self.job.order.concurrency).collect().await;
        troubles.extend(fetched.into_iter().filter_map(Result::err));
        troubles
    }

    async fn fetch_blob(&self, missing: Missing) -> Result<(), Trouble> {
        // Never closed: an error would say so.
        let _permit = self.job.blobs.acquire().await;
        self.job.wait_turn(&self.core.clock).await;
        let blob = Descriptor {
            media_type: MediaType::OCTET_STREAM,
            digest: missing.digest,
            size_bytes: missing.size_bytes,
            platform: None,
        };
        let mut before = 0;
        let saw = |bytes: u64| {
            let more = bytes.saturating_sub(before);
            before = before.max(bytes);
            self.job.update(self.place, |image| {
                image.stored_bytes += more;
                image.fetched_bytes += more;
            });
        };
        let pace = self.job.pace.clone();
        let fetched = ahead::fetch(self.core, self.repository, &blob, Reason::Warm, pace, saw).await;
        fetched.map(drop).map_err(|failure| match failure {
            FillFailure::TooLarge => {
                Trouble::Lasting(format!("blob {} is larger than storage.max_size", blob.digest))
            }
            FillFailure::Vanished => Trouble::Passing(RegistryError::Internal),
            failure => failure.into_error(&blob.digest).into(),
        })
    }

    async fn pull(&self, reference: &Reference) -> Result<Digest, RegistryError> {
        let (context, class) = (RequestContext::system(), AcceptClass::Any);
        let pulled =
            manifest::pull(self.core, &context, self.repository, reference, &class, Want::Body).await?;
        Ok(pulled.digest)
    }

    /// Has the lists of what refers to the image kept here; the walk then finds what they list.
    async fn find_referrers(&self, root: &Digest) -> Result<(), RegistryError> {
        let context = RequestContext::system();
        match listing::referrers(self.core, &context, self.repository, root, &[]).await {
            Err(error) if !matches!(error, RegistryError::ManifestUnknown(_)) => return Err(error),
            _ => {}
        }
        for end in SIGNATURE_TAGS {
            let tag = format!("{}-{}.{end}", root.algorithm().as_str(), root.hex());
            let Ok(reference) = tag.parse() else { continue };
            match self.pull(&reference).await {
                Err(error) if !matches!(error, RegistryError::ManifestUnknown(_)) => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    async fn inspect(&self, root: Digest) -> Result<Image, RegistryError> {
        let catalogue = Catalogue::load(self.core, &self.repository.id).await?;
        let image = catalogue.want(&self.job.order.platforms).inspect(root).await?;
        self.job.update(self.place, |told| {
            told.stored_bytes = image.stored_bytes;
            told.total_bytes = image.stored_bytes.saturating_add(image.missing_bytes());
        });
        for digest in &image.stored {
            // What is to be here counts as used, each time that somebody says so.
            self.core.uses.note_use(digest);
        }
        Ok(image)
    }

    /// Whether some platform that was ordered is in the index.
    fn offers_any(&self, image: &Image) -> bool {
        let order = &self.job.order.platforms;
        order.iter().any(|wanted| image.platforms.iter().any(|made| wanted.covers(made)))
    }

    /// Fails where a platform that was ordered is none of the index's.
    fn require_offered(&self, image: &Image) -> Result<(), Trouble> {
        if image.platforms.is_empty() {
            return Ok(());
        }
        let is_missing = |wanted: &&Platform| !image.platforms.iter().any(|made| wanted.covers(made));
        match self.job.order.platforms.iter().find(is_missing) {
            None => Ok(()),
            Some(wanted) => Err(Trouble::Lasting(format!("the image is not made for {wanted}"))),
        }
    }
}

/// What is missing although nothing went wrong on the way: the disk did not keep it, or it was evicted.
fn not_kept(image: &Image) -> Trouble {
    let first = image.missing.first().map_or_else(String::new, |missing| missing.digest.to_string());
    Trouble::Lasting(format!(
        "{} of its parts are not kept here, such as {first}: the disk failed, or storage.max_size is too small",
        image.missing.len()
    ))
}
