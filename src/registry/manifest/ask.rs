//! One question to upstream about a manifest, and what is made of its answer.

use std::sync::Arc;

use super::{Answer, Found, Pull};
use crate::metadata::{AccessProof, ContentKind, TagObservation};
use crate::oci::{AcceptClass, Algorithm, Digest, Reference, Tag};
use crate::registry::core::Core;
use crate::registry::{
    Repository, Want,
    acquire::{self, Acquired, find_stored, is_telling},
    deletion,
    memory::Question,
    pins, together,
};
use crate::upstream::{ManifestHead, Priority, UpstreamError};

/// Fetches a manifest by its digest although it may be in memory: what is on the disk was damaged. Whoever asks for
/// it meanwhile gets the same answer.
pub(in crate::registry) async fn refetch(
    core: &Arc<Core>,
    repository: &Repository,
    digest: &Digest,
) -> Result<(), UpstreamError> {
    let pull = Pull {
        core: Arc::clone(core),
        repository: repository.clone(),
        reference: Reference::Digest(*digest),
        want: Want::Body,
        priority: Priority::Ahead,
    };
    let key = (pull.question(&AcceptClass::Any), Want::Body);
    let fetch = || {
        let pull = pull.clone();
        async move { pull.fetch(&pull.reference, &AcceptClass::Any).await }
    };
    let upstream = &repository.id.upstream;
    together::ask(&core.manifest_flights, key, upstream, Priority::Ahead, fetch).await.map(drop)
}

impl Pull {
    pub(super) async fn ask_upstream(
        &self,
        class: &AcceptClass,
        known: Option<TagObservation>,
        want: Want,
    ) -> Answer {
        if let (Reference::Tag(tag), None) = (&self.reference, &known)
            && let Some(found) = self.find_just_answered(tag, class).await
        {
            return Ok(found);
        }
        let question = self.question(class);
        let mut answer = self.exchange(class, known.as_ref(), want).await;
        let urgency = self.urgency();
        if let (Err(error), Some(_)) = (&answer, &known) {
            // It was shown to this node before: a refusal may be about the node.
            let (upstream, name) = (&self.repository.upstream, self.repository.name());
            let weighed = upstream.weigh_refusal(&urgency, name, error.clone()).await;
            answer = Err(weighed);
        }
        match &answer {
            Ok(found) => {
                self.core.memory.forget_failure(&question).await;
                if let Reference::Tag(tag) = &self.reference {
                    pins::follow(&self.core, &self.repository, tag, &found.observation.digest).await;
                }
            }
            Err(error) => self.note_failure(question, error, class, known.as_ref()).await,
        }
        answer
    }

    /// The answer to the same question that came after this pull had looked for one and before it could
    /// join those who asked: each question counts upstream.
    async fn find_just_answered(&self, tag: &Tag, class: &AcceptClass) -> Option<Found> {
        let key = (self.repository.id.clone(), tag.clone(), class.clone());
        let observation = self.core.memory.tags.get(&key)??;
        let manifest = find_stored(&self.core, &observation.digest).await?;
        Some(Found { observation, manifest: Some(manifest), is_confirmation: true, stored: true })
    }

    async fn exchange(&self, class: &AcceptClass, known: Option<&TagObservation>, want: Want) -> Answer {
        let upstream = &self.repository.upstream;
        let digest = match &self.reference {
            Reference::Digest(digest) => Some(*digest),
            Reference::Tag(_) => None,
        };
        let is_stored = match &digest {
            Some(digest) => find_stored(&self.core, digest).await.is_some(),
            None => false,
        };
        if known.is_none() && want == Want::Body && !is_stored {
            return self.fetch(&self.reference, class).await;
        }
        let (urgency, name) = (self.urgency(), self.repository.name());
        let head = upstream.head_manifest(&urgency, name, &self.reference, class).await?;
        // A tag's digest is always SHA-256 to clients; where upstream says none, its body must tell.
        let Some(current) = digest.or(head.digest.filter(|digest| digest.algorithm() == Algorithm::Sha256))
        else {
            return self.fetch(&self.reference, class).await;
        };
        self.settle(class, known, want, current, head).await
    }

    /// Knowing what the reference points to now, gets what is missing.
    async fn settle(
        &self,
        class: &AcceptClass,
        known: Option<&TagObservation>,
        want: Want,
        current: Digest,
        head: ManifestHead,
    ) -> Answer {
        let checked_at = self.core.clock.now();
        if let Some(known) = known.filter(|known| known.digest == current) {
            let observation = TagObservation { checked_at, missing_since: None, ..known.clone() };
            self.record(class, &observation).await;
            return Ok(Found { observation, manifest: None, is_confirmation: true, stored: true });
        }
        if let Some(manifest) = find_stored(&self.core, &current).await {
            let observation = TagObservation {
                digest: current,
                media_type: manifest.media_type.clone(),
                size_bytes: manifest.body.len() as u64,
                checked_at,
                missing_since: None,
            };
            self.record(class, &observation).await;
            return Ok(Found { observation, manifest: Some(manifest), is_confirmation: true, stored: true });
        }
        if want == Want::Head
            && let (Some(media_type), Some(size_bytes)) =
                (head.media_type.filter(is_telling), head.size_bytes)
        {
            let observation =
                TagObservation { digest: current, media_type, size_bytes, checked_at, missing_since: None };
            self.record(class, &observation).await;
            return Ok(Found { observation, manifest: None, is_confirmation: false, stored: false });
        }
        // By digest there is nothing to negotiate: some registries would refuse a type not accepted.
        let found = self.fetch(&Reference::Digest(current), &AcceptClass::Any).await?;
        self.record(class, &found.observation).await;
        Ok(found)
    }

    async fn fetch(&self, reference: &Reference, class: &AcceptClass) -> Answer {
        let Acquired { manifest, stored } =
            acquire::fetch(&self.core, &self.urgency(), &self.repository, reference, class).await?;
        let observation = TagObservation {
            digest: manifest.digest,
            media_type: manifest.media_type.clone(),
            size_bytes: manifest.body.len() as u64,
            checked_at: self.core.clock.now(),
            missing_since: None,
        };
        Ok(Found { observation, manifest: Some(manifest), is_confirmation: false, stored })
    }

    /// Records what upstream said: where the tag points, and that the repository has the manifest.
    async fn record(&self, class: &AcceptClass, observation: &TagObservation) {
        let proof = AccessProof {
            digest: observation.digest,
            kind: ContentKind::Manifest,
            size_bytes: Some(observation.size_bytes),
            media_type: Some(observation.media_type.clone()),
        };
        self.core.record_proofs(&self.repository.id, vec![proof]).await;
        if let Reference::Tag(tag) = &self.reference {
            acquire::record_tag(&self.core, &self.repository, (tag, class), observation.clone()).await;
        }
    }

    async fn note_failure(
        &self,
        question: Question,
        error: &UpstreamError,
        class: &AcceptClass,
        known: Option<&TagObservation>,
    ) {
        let negative_for = self.repository.upstream.config().freshness.negative_for;
        if let UpstreamError::Offline { .. } | UpstreamError::Reserved { priority: Priority::Ahead, .. } =
            error
        {
            // Known without asking, and over at once when the node is put back, or for clients that ask the same.
            return;
        }
        if !error.is_transient() || known.is_some() {
            self.core.memory.remember_failure(question, error.clone(), negative_for).await;
        }
        let (Reference::Tag(tag), Some(known)) = (&self.reference, known) else { return };
        match error {
            UpstreamError::Absent { .. } => {
                deletion::note(&self.core, &self.repository, (tag, class), known).await;
            }
            // Gone or private: who keeps it might show what was closed.
            UpstreamError::Withheld { .. } => {
                deletion::forget_tag(&self.core, &self.repository, (tag, class)).await;
            }
            _ => {}
        }
    }
}
