//! One stored item is compared with its digest, at the pace that is asked for.

use std::sync::Arc;
use std::time::Duration;

use super::damage::{Damage, FoundBy};
use crate::blobs::{BlobError, BlobFile, DiskCause, Inspected, Inspection};
use crate::metadata::ContentRecord;
use crate::oci::Digest;
use crate::registry::core::Core;
use crate::registry::pace::Pace;

/// How often an item is looked at that changes while it is looked at, or cannot be read.
const MOST_LOOKS: usize = 4;

/// How many times as long as the disk took for a part the scrub then leaves it alone: where others keep it busy,
/// parts take long.
const REST: u32 = 3;

/// How many files of one run that cannot be read are taken for damage of each: more, and it is the disk.
pub(super) const MOST_UNREADABLE: usize = 64;

/// How often it is looked whether a troubled disk works again.
const TROUBLE_PAUSE: Duration = Duration::from_secs(1);

/// What is looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item {
    pub(super) digest: Digest,
    /// The size that it should have, where somebody knows.
    pub(super) size_bytes: Option<u64>,
}

impl Item {
    pub(super) const fn of(record: &ContentRecord) -> Self {
        Self { digest: record.digest, size_bytes: Some(record.size_bytes) }
    }
}

/// How fast content is read.
#[derive(Clone, Debug)]
pub(super) enum Gait {
    /// As fast as the disk gives it.
    Full,
    /// At a rate.
    Paced(Arc<Pace>),
    /// At the rate of the scrub, and less where the disk is busy.
    Background,
}

/// What came of a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Settled {
    /// It is what its name says.
    Sound,
    /// It was damaged, and is out of service.
    Damaged(Damage),
    /// It was evicted, purged or replaced meanwhile.
    Gone,
    /// It changed whenever it was looked at.
    Restless,
}

/// What a single look told.
enum Told {
    Sound,
    Damaged(Damage),
    Gone,
    Changed,
}

/// Compares an item with its digest, and takes it out of service where it is damaged. `saw` is told how many bytes
/// were read.
///
/// Fails where the disk does not answer in time or has no descriptor to give: that says nothing about the item.
pub(super) async fn examine(
    core: &Arc<Core>,
    item: &Item,
    gait: &Gait,
    found_by: FoundBy,
    saw: impl Fn(u64),
) -> Result<Settled, BlobError> {
    let digest = &item.digest;
    let mut was_unreadable = false;
    for _ in 0..MOST_LOOKS {
        while core.disk.is_troubled() {
            tokio::time::sleep(TROUBLE_PAUSE).await;
        }
        let mut file = None;
        let told = match look(core, item, gait, found_by, &saw, &mut file).await {
            Ok(told) => told,
            Err(error) if error.cause() != DiskCause::Io => return Err(error),
            // Once more when the disk has been tried: a whole disk that fails is no damage of one file.
            Err(error) if !was_unreadable => {
                was_unreadable = true;
                core.report_disk(&error);
                continue;
            }
            Err(_again) => Told::Damaged(Damage::Unreadable),
        };
        return Ok(match told {
            Told::Changed => continue,
            Told::Sound => Settled::Sound,
            Told::Damaged(damage) if core.condemn(digest, damage, found_by, file.as_ref()).await => {
                Settled::Damaged(damage)
            }
            Told::Gone if core.condemn_missing(digest, found_by).await => Settled::Damaged(Damage::Missing),
            Told::Damaged(_) | Told::Gone => Settled::Gone,
        });
    }
    Ok(Settled::Restless)
}

async fn look(
    core: &Core,
    item: &Item,
    gait: &Gait,
    found_by: FoundBy,
    saw: &impl Fn(u64),
    looked_at: &mut Option<BlobFile>,
) -> Result<Told, BlobError> {
    let Some(mut inspection) = core.blobs.inspect(&item.digest).await? else { return Ok(Told::Gone) };
    *looked_at = Some(inspection.file().clone());
    let found_bytes = inspection.file().size_bytes();
    if let Some(expected_bytes) = item.size_bytes.filter(|expected| *expected != found_bytes) {
        return Ok(Told::Damaged(Damage::of_size(expected_bytes, found_bytes)));
    }
    let mut left = found_bytes;
    loop {
        gait.wait(core, left).await;
        let part = inspection.read_next().await?;
        if part.bytes == 0 {
            break;
        }
        let bytes = part.bytes as u64;
        left = left.saturating_sub(bytes);
        core.metrics.integrity.verified_bytes(found_by, bytes);
        saw(bytes);
        if matches!(gait, Gait::Background) {
            tokio::time::sleep(part.waited * REST).await;
        }
    }
    core.metrics.integrity.verified(found_by);
    Ok(match inspection.judge() {
        (Inspected::Sound, _) => Told::Sound,
        (Inspected::Altered, _) => Told::Damaged(Damage::Altered),
        (Inspected::Changed, _) => Told::Changed,
    })
}

impl Gait {
    /// Waits until the next part may be read, of a file of which `left` bytes are left.
    async fn wait(&self, core: &Core, left: u64) {
        let part = Inspection::part_bytes();
        let bytes = usize::try_from(left).unwrap_or(part).min(part);
        match self {
            Self::Full => {}
            Self::Paced(pace) => pace.take(bytes).await,
            Self::Background => core.integrity.pace().take(bytes).await,
        }
    }
}
