//! One run, step by step.

use std::time::Duration;

use super::{CollectionOutcome, CollectionRun, Collector, Removals};
use crate::blobs::{FoundBlob, hosted};
use crate::metadata::catalogue::{CondemnedBlob, Horizon, Stamp, StrayBlob};
use crate::oci::Digest;
use crate::registry::hosted::{Hosting, HostingError, Result};

/// Ends the state of a run, also where that panics.
struct Running<'a>(&'a Collector);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.with_state(|state| state.running = None);
    }
}

/// Why a run does not go on.
enum Stop {
    /// The process is told to end.
    Cut,
    Failed(HostingError),
}

impl<E: Into<HostingError>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

type Step<T = ()> = std::result::Result<T, Stop>;

impl Hosting {
    /// Runs what [`Hosting::begin_run`] began, and notes how it ended.
    pub(super) async fn run_collection(&self, begun: CollectionRun) -> CollectionRun {
        // However this ends, the next run may begin.
        let _running = Running(&self.0.collector);
        let ended = self.run_steps().await;
        let holder = &self.0.collector.holder;
        let released = self.catalogue.end_lease(LEASE, holder).await;
        if let Err(error) = released {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the lease of the collection is kept until its end"
            );
        }
        let (outcome, error) = match ended {
            Ok(()) => (CollectionOutcome::Complete, None),
            Err(Stop::Cut) => (CollectionOutcome::Cut, None),
            Err(Stop::Failed(error)) => (CollectionOutcome::Failed, Some(error.to_string())),
        };
        let at = self.clock.now();
        self.0.collector.metrics.ended(outcome, at);
        let run = self.0.collector.with_state(|state| {
            let mut run = state.running.take().unwrap_or(begun);
            run.ended = Some((at, outcome));
            run.error = error;
            state.last = Some(run.clone());
            run
        });
        let removed = &run.removed;
        if *removed != Removals::default() || outcome != CollectionOutcome::Complete {
            tracing::info!(
                outcome = outcome.as_str(),
                error = run.error.as_deref(),
                manifests = removed.manifests,
                blobs = removed.blobs,
                strays = removed.strays,
                uploads = removed.uploads,
                freed.bytes = removed.freed_bytes(),
                "collection of hosted content has ended"
            );
        }
        run
    }

    async fn run_steps(&self) -> Step {
        self.proceed().await?;
        // What was asked for just now must not look unused.
        self.flush_uses().await?;
        let horizon = self.horizon();
        let stamp = Stamp { at: horizon.now, by: "collection".into() };
        // What an earlier run left.
        self.remove_condemned().await?;
        self.purge_places(horizon, &stamp).await?;
        self.remove_manifests(horizon, &stamp).await?;
        self.remove_links(horizon).await?;
        self.condemn_unlinked(horizon).await?;
        self.remove_strays(horizon).await?;
        self.remove_uploads(horizon).await
    }

    /// Goes on only while the process does and no other node collects.
    async fn proceed(&self) -> Step {
        if self.tasks.shutdown_token().is_cancelled() {
            return Err(Stop::Cut);
        }
        let now = self.clock.now();
        let until = now.after(LEASE_TIME);
        if self.catalogue.take_lease(LEASE, &self.0.collector.holder, now, until).await? {
            return Ok(self.reach(hosted::Step::Proceed)?);
        }
        Err(Stop::Failed(HostingError::Conflict("another node is collecting".to_owned())))
    }

    /// Notes what was removed.
    fn note(&self, change: impl FnOnce(&mut Removals)) {
        let collector = &self.0.collector;
        collector.with_state(|state| {
            if let Some(run) = &mut state.running {
                let before = run.removed;
                change(&mut run.removed);
                collector.metrics.removed(&before, &run.removed);
            }
        });
    }

    async fn purge_places(&self, horizon: Horizon, stamp: &Stamp) -> Step {
        while self.catalogue.seal_due_places(horizon.now, BATCH, stamp).await? > 0 {
            self.proceed().await?;
        }
        loop {
            self.proceed().await?;
            let purged = self.catalogue.purge_sealed(ROWS).await?;
            self.note(|removed| {
                removed.repositories += purged.repositories;
                removed.manifests += purged.manifests;
                removed.links += purged.links;
            });
            if !purged.is_unfinished {
                return Ok(());
            }
        }
    }

    async fn remove_manifests(&self, horizon: Horizon, stamp: &Stamp) -> Step {
        loop {
            self.proceed().await?;
            let collected = self.catalogue.collect_manifests(horizon, BATCH, stamp).await?;
            if collected == 0 {
                return Ok(());
            }
            self.note(|removed| removed.manifests += u64::from(collected));
        }
    }

    async fn remove_links(&self, horizon: Horizon) -> Step {
        let mut after = None;
        loop {
            self.proceed().await?;
            let sweep = self.catalogue.collect_links(horizon.grace_since, after, ROWS).await?;
            self.note(|removed| removed.links += u64::from(sweep.collected));
            after = sweep.next;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    async fn condemn_unlinked(&self, horizon: Horizon) -> Step {
        let mut after: Option<Digest> = None;
        loop {
            self.proceed().await?;
            let Horizon { now, grace_since } = horizon;
            let sweep = self.catalogue.condemn_blobs(grace_since, after.as_ref(), ROWS, now).await?;
            for blob in sweep.condemned {
                self.remove_blob(&blob).await?;
            }
            after = sweep.next;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    async fn remove_condemned(&self) -> Step {
        loop {
            self.proceed().await?;
            let condemned = self.catalogue.list_condemned_blobs(BATCH).await?;
            if condemned.is_empty() {
                return Ok(());
            }
            for blob in condemned {
                self.remove_blob(&blob).await?;
            }
        }
    }

    /// Removes the bytes of a condemned blob, and forgets it.
    async fn remove_blob(&self, blob: &CondemnedBlob) -> Step {
        self.proceed().await?;
        self.reach(hosted::Step::RemoveContent)?;
        self.store.delete(&blob.digest).await?;
        self.reach(hosted::Step::ForgetContent)?;
        self.catalogue.forget_blob(&blob.digest).await?;
        self.forget_cached(&blob.digest).await;
        self.note(|removed| {
            removed.blobs += 1;
            removed.blob_bytes += blob.size_bytes;
        });
        Ok(())
    }

    /// Frees what the copy in this node's cache takes. Nobody is served it any more, and eviction would find it.
    async fn forget_cached(&self, digest: &Digest) {
        let Some(cache) = &self.0.cache else { return };
        if let Err(error) = cache.forget(digest).await {
            let error = &error as &dyn std::error::Error;
            tracing::debug!(blob.digest = %digest, error, "the copy of a collected blob stays in the cache");
        }
    }

    async fn remove_strays(&self, horizon: Horizon) -> Step {
        if self.knows_nothing().await? {
            return Ok(());
        }
        let Horizon { now, grace_since } = horizon;
        let mut listing = self.store.list(None).await?;
        while let Some(batch) = listing.recv().await {
            self.proceed().await?;
            for found in self.strays_of(batch?, horizon).await? {
                self.proceed().await?;
                let FoundBlob { digest, size_bytes, .. } = found;
                let stray = StrayBlob { digest, size_bytes, location: self.location.clone() };
                if !self.catalogue.condemn_stray(&stray, grace_since, now).await? {
                    continue;
                }
                self.reach(hosted::Step::RemoveContent)?;
                let still = self.store.find(&digest).await?;
                if still.is_some_and(|still| still.modified_at < grace_since) {
                    self.store.delete(&digest).await?;
                    self.note(|removed| {
                        removed.strays += 1;
                        removed.stray_bytes += size_bytes;
                    });
                }
                self.reach(hosted::Step::ForgetContent)?;
                self.catalogue.forget_blob(&digest).await?;
            }
        }
        Ok(())
    }

    /// Counts what [`Hosting::remove_strays`] would remove.
    pub(super) async fn foresee_strays(&self, horizon: Horizon, removed: &mut Removals) -> Result<()> {
        if self.knows_nothing().await? {
            return Ok(());
        }
        let mut listing = self.store.list(None).await?;
        while let Some(batch) = listing.recv().await {
            for found in self.strays_of(batch?, horizon).await? {
                removed.strays += 1;
                removed.stray_bytes += found.size_bytes;
            }
        }
        Ok(())
    }

    /// A catalogue in which nothing ever happened is not the one that this content belongs to.
    async fn knows_nothing(&self) -> Result<bool> {
        Ok(self.catalogue.last_change().await? == 0)
    }

    /// What of some content the catalogue does not know, and nobody is about to push.
    async fn strays_of(&self, batch: Vec<FoundBlob>, horizon: Horizon) -> Result<Vec<FoundBlob>> {
        let old: Vec<_> = batch.into_iter().filter(|found| found.modified_at < horizon.grace_since).collect();
        let digests: Vec<_> = old.iter().map(|found| found.digest).collect();
        let unknown = self.catalogue.find_unknown_blobs(&digests, horizon.grace_since).await?;
        Ok(old.into_iter().filter(|found| unknown.contains(&found.digest)).collect())
    }

    async fn remove_uploads(&self, horizon: Horizon) -> Step {
        let grace_since = horizon.grace_since;
        let abandoned = self.uploads.remove_abandoned(grace_since).await?;
        self.note(|removed| {
            removed.uploads += abandoned.uploads;
            removed.upload_bytes += abandoned.bytes;
        });
        loop {
            self.proceed().await?;
            let mut forgotten = 0;
            for (_, record) in self.catalogue.list_silent_uploads(grace_since, ROWS).await? {
                // Bytes that still come are seen at the file alone.
                let is_there = match record.id.parse() {
                    Ok(id) => self.uploads.find_offset(&id).await?.is_some(),
                    Err(_malformed) => false,
                };
                if !is_there && self.catalogue.remove_silent_upload(&record.id, grace_since).await? {
                    forgotten += 1;
                }
            }
            if forgotten == 0 {
                break;
            }
        }
        while self.catalogue.forget_announcements(grace_since, ROWS).await? > 0 {
            self.proceed().await?;
        }
        Ok(())
    }
}

/// What one node at a time has.
const LEASE: &str = "collection";

/// For how long, unless it is renewed: longer than a store may take to remove one blob.
const LEASE_TIME: Duration = Duration::from_mins(15);

/// How many items, each of which is a transaction, are removed with one look.
const BATCH: u32 = 100;

/// How many rows are looked at, or removed, at once.
const ROWS: u32 = 1000;
