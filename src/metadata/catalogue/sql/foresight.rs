//! What a collection would remove, found out by reading alone.
//!
//! A collection goes in rounds: what goes lets go of what it held. Here, all that could go is gathered first, from what
//! is past its retention down to what that holds; then whatever something else holds is taken out again, down to what
//! it holds in turn. What is left is what the rounds remove. Memory is taken for what could go, not for what is there.

use std::collections::{HashMap, HashSet};

use super::SqlCatalogue;
use super::collection::{past, read_place, start_of, unlisted};
use super::session::Session;
use super::values::values;
use crate::metadata::catalogue::{Horizon, LinkPlace, Prospect, Result};
use crate::oci::Digest;

/// Whether a manifest was deleted: its subject does not hold it then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Deleted,
    Loose,
}

/// What is gathered.
struct Foresight {
    session: Session,
    horizon: Horizon,
    /// Repositories that go altogether.
    repositories: HashSet<u64>,
    /// Manifests that could go.
    manifests: HashMap<LinkPlace, Fate>,
    /// Links that go.
    links: HashSet<LinkPlace>,
}

pub(super) async fn foresee(catalogue: &SqlCatalogue, horizon: Horizon) -> Result<Prospect> {
    let mut foresight = Foresight {
        session: catalogue.read().await?,
        horizon,
        repositories: HashSet::new(),
        manifests: HashMap::new(),
        links: HashSet::new(),
    };
    let mut prospect = Prospect::default();
    foresight.gather_repositories(&mut prospect).await?;
    foresight.gather_manifests().await?;
    foresight.take_out_held().await?;
    foresight.gather_links().await?;
    prospect.manifests += foresight.manifests.len() as u64;
    prospect.links += foresight.links.len() as u64;
    foresight.gather_blobs(&mut prospect).await?;
    Ok(prospect)
}

impl Foresight {
    async fn gather_repositories(&mut self, prospect: &mut Prospect) -> Result<()> {
        let rows = self
            .session
            .fetch(
                "SELECT id, (SELECT COUNT(*) FROM manifest_link WHERE repository_id = id) AS manifests,
                    (SELECT COUNT(*) FROM blob_link WHERE repository_id = id) AS links
                 FROM repository JOIN namespace ON namespace.name = repository.namespace
                 WHERE repository.purged_at IS NOT NULL
                    OR repository.deleted_at + restore_for_ms < $1 OR namespace.deleted_at + restore_for_ms < $1",
                values![self.horizon.now],
            )
            .await?;
        for row in rows {
            self.repositories.insert(row.number("id")?);
            prospect.repositories += 1;
            prospect.manifests += row.number("manifests")?;
            prospect.links += row.number("links")?;
        }
        Ok(())
    }

    /// All that could go: what is past by itself, and what it holds.
    async fn gather_manifests(&mut self) -> Result<()> {
        let Horizon { now, grace_since } = self.horizon;
        let mut open = Vec::new();
        for (statement, fate) in [(PAST_DELETED, Fate::Deleted), (PAST_LOOSE, Fate::Loose)] {
            let rows = self.session.fetch(statement, values![now, grace_since]).await?;
            for row in rows {
                open.push((read_place(&row)?, fate));
            }
        }
        while let Some((place, fate)) = open.pop() {
            if self.repositories.contains(&place.repository) || self.manifests.contains_key(&place) {
                continue;
            }
            self.manifests.insert(place, fate);
            for statement in HELD {
                let LinkPlace { repository, digest } = place;
                let rows =
                    self.session.fetch(statement, values![now, grace_since, repository, &digest]).await?;
                for row in rows {
                    open.push((read_place(&row)?, Fate::Loose));
                }
            }
        }
        Ok(())
    }

    /// Takes out what something holds that stays.
    async fn take_out_held(&mut self) -> Result<()> {
        let all: Vec<_> = self.manifests.iter().map(|(place, fate)| (*place, *fate)).collect();
        let (mut holders, mut held_by) = (HashMap::new(), HashMap::<LinkPlace, Vec<LinkPlace>>::new());
        for (place, fate) in all {
            let LinkPlace { repository, digest } = place;
            let mut found = Vec::new();
            let rows = self.session.fetch(LISTING, values![repository, &digest]).await?;
            for row in rows {
                found.push(read_place(&row)?);
            }
            if fate == Fate::Loose {
                let rows = self.session.fetch(ABOUT, values![repository, &digest]).await?;
                for row in rows {
                    found.push(read_place(&row)?);
                }
            }
            for holder in &found {
                held_by.entry(*holder).or_default().push(place);
            }
            holders.insert(place, found);
        }
        let stays = |holder: &LinkPlace| !self.manifests.contains_key(holder);
        let mut kept: Vec<_> =
            holders.iter().filter(|(_, found)| found.iter().any(stays)).map(|(place, _)| *place).collect();
        while let Some(place) = kept.pop() {
            if self.manifests.remove(&place).is_some() {
                kept.extend(held_by.get(&place).into_iter().flatten());
            }
        }
        Ok(())
    }

    async fn gather_links(&mut self) -> Result<()> {
        let grace_since = self.horizon.grace_since;
        let mut after = None;
        loop {
            let (repository, digest) = start_of(after);
            let values = values![grace_since, repository, digest.as_str(), PAGE];
            let rows = self.session.fetch(UNLISTED, values).await?;
            for row in &rows {
                let place = read_place(row)?;
                if row.flag("goes")? && !self.repositories.contains(&place.repository) {
                    self.links.insert(place);
                }
            }
            match rows.last() {
                Some(row) if rows.len() == PAGE as usize => after = Some(read_place(row)?),
                _ => break,
            }
        }
        let manifests: Vec<_> = self.manifests.keys().copied().collect();
        for LinkPlace { repository, digest } in manifests {
            let rows = self.session.fetch(BLOBS, values![grace_since, repository, &digest]).await?;
            for row in rows {
                let place = read_place(&row)?;
                let listing =
                    self.session.fetch(LISTING_BLOB, values![place.repository, &place.digest]).await?;
                let mut is_listed = false;
                for row in listing {
                    is_listed |= !self.manifests.contains_key(&read_place(&row)?);
                }
                if !is_listed {
                    self.links.insert(place);
                }
            }
        }
        Ok(())
    }

    async fn gather_blobs(&mut self, prospect: &mut Prospect) -> Result<()> {
        let mut after = String::new();
        loop {
            let values = values![self.horizon.grace_since, after.as_str(), PAGE];
            let rows = self.session.fetch(UNNEEDED, values).await?;
            for row in &rows {
                let digest: Digest = row.parsed("digest")?;
                let goes = row.flag("is_condemned")?
                    || (row.flag("may_go")? && !self.is_linked(&digest, row.number("links")?).await?);
                if goes {
                    prospect.blobs += 1;
                    prospect.bytes += row.number("size_bytes")?;
                }
            }
            match rows.last() {
                Some(row) if rows.len() == PAGE as usize => after = row.text("digest")?,
                _ => return Ok(()),
            }
        }
    }

    /// Whether a blob has a link that stays.
    async fn is_linked(&mut self, digest: &Digest, links: u64) -> Result<bool> {
        if links == 0 {
            return Ok(false);
        }
        let rows = self
            .session
            .fetch("SELECT repository_id, digest FROM blob_link WHERE digest = $1", values![digest])
            .await?;
        for row in rows {
            let place = read_place(&row)?;
            if !self.repositories.contains(&place.repository) && !self.links.contains(&place) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

const PAST_DELETED: &str = concat!(
    "SELECT link.repository_id, link.digest FROM manifest_link AS link WHERE link.deleted_at < $1 AND ",
    past!()
);

const PAST_LOOSE: &str = concat!(
    "SELECT link.repository_id, link.digest FROM manifest_link AS link
     WHERE link.deleted_at IS NULL AND link.loose_since < $1 AND ",
    past!()
);

/// What the manifest `$4` holds and what nothing but holders speaks for. It is as loose as that one from when that one
/// is gone.
const HELD: [&str; 2] = [
    concat!(
        "SELECT link.repository_id, link.digest FROM (
            SELECT repository_id, digest, subject, deleted_at, 0 AS loose_since FROM manifest_link
            WHERE repository_id = $3 AND deleted_at IS NULL AND loose_since IS NULL AND digest IN (
                SELECT child FROM manifest_edge WHERE parent = $4 AND kind = 'manifest')) AS link WHERE ",
        past!()
    ),
    concat!(
        "SELECT link.repository_id, link.digest FROM (
            SELECT repository_id, digest, subject, deleted_at, 0 AS loose_since FROM manifest_link
            WHERE repository_id = $3 AND deleted_at IS NULL AND loose_since IS NULL AND digest IN (
                SELECT digest FROM manifest_link WHERE repository_id = $3 AND subject = $4)) AS link WHERE ",
        past!()
    ),
];

/// The manifests of the repository that list a manifest.
const LISTING: &str = "SELECT listing.repository_id, listing.digest FROM manifest_edge
    JOIN manifest_link AS listing ON listing.digest = parent
    WHERE child = $2 AND kind = 'manifest' AND listing.repository_id = $1";

/// The subject of a manifest, if the repository has it.
const ABOUT: &str = "SELECT about.repository_id, about.digest FROM manifest_link AS link
    JOIN manifest_link AS about ON about.repository_id = link.repository_id AND about.digest = link.subject
    WHERE link.repository_id = $1 AND link.digest = $2";

const UNLISTED: &str = concat!(
    "SELECT repository_id, digest, (",
    unlisted!(),
    ") AS goes FROM (SELECT repository_id, digest, linked_at FROM blob_link
        WHERE (repository_id, digest) > ($2, $3) ORDER BY repository_id, digest LIMIT $4) AS link
     ORDER BY repository_id, digest"
);

/// The links to what a manifest lists that are old enough to go.
const BLOBS: &str = "SELECT repository_id, digest FROM blob_link
    WHERE repository_id = $2 AND linked_at < $1
        AND digest IN (SELECT child FROM manifest_edge WHERE parent = $3 AND kind = 'blob')
        AND NOT EXISTS (SELECT 1 FROM content_use WHERE content_use.repository_id = blob_link.repository_id
            AND content_use.digest = blob_link.digest AND used_at >= $1)";

/// The manifests of the repository that list a blob.
const LISTING_BLOB: &str = "SELECT manifest_link.repository_id, manifest_link.digest FROM manifest_edge
    JOIN manifest_link ON manifest_link.digest = parent
    WHERE child = $2 AND kind = 'blob' AND manifest_link.repository_id = $1";

const UNNEEDED: &str = "SELECT digest, size_bytes, condemned_at IS NOT NULL AS is_condemned,
        (recorded_at < $1 AND NOT EXISTS (
            SELECT 1 FROM blob_announcement
            WHERE blob_announcement.digest = blob.digest AND announced_at >= $1)) AS may_go,
        (SELECT COUNT(*) FROM blob_link WHERE blob_link.digest = blob.digest) AS links
    FROM blob WHERE digest > $2 ORDER BY digest LIMIT $3";

const PAGE: u32 = 1000;
