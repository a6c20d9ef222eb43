//! Use case: a client pulls a manifest, by digest or by tag.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use super::acquire::{self, Acquired, find_stored, is_telling};
use super::core::Core;
use super::freshness::{Verdict, age, judge};
use super::memory::{Question, StoredManifest, TagKey};
use super::{CacheResult, PulledManifest, RegistryError, Repository, Served, Staleness, Want};
use crate::auth::{RequestContext, policy};
use crate::events::Event;
use crate::metadata::{AccessProof, ContentKind, TagObservation};
use crate::oci::{AcceptClass, Algorithm, Digest, Reference, Tag};
use crate::runtime::Joined;
use crate::upstream::{ManifestHead, UpstreamError};

/// How long a client waits for upstream while there is an answer that may be served stale.
const PATIENCE: Duration = Duration::from_millis(1500);

/// What upstream answered, for all who asked the same.
pub(super) type Answer = Result<Found, UpstreamError>;

/// What a question to upstream found.
#[derive(Clone, Debug)]
pub(super) struct Found {
    observation: TagObservation,
    /// The content, where it was fetched or is on this node.
    manifest: Option<Arc<StoredManifest>>,
    /// Whether upstream confirmed what was known.
    is_confirmation: bool,
    stored: bool,
}

/// Pulls a manifest; see [`super::Registry::pull_manifest`].
pub(super) async fn pull(
    core: &Arc<Core>,
    context: &RequestContext,
    repository: &Repository,
    reference: &Reference,
    class: &AcceptClass,
    want: Want,
) -> Result<PulledManifest, RegistryError> {
    policy::require(context, policy::Action::Pull)?;
    let pull =
        Pull { core: Arc::clone(core), repository: repository.clone(), reference: reference.clone(), want };
    match reference {
        Reference::Digest(digest) => pull.by_digest(digest).await,
        Reference::Tag(tag) => pull.by_tag(tag, class).await,
    }
}

/// One pull.
#[derive(Clone)]
struct Pull {
    core: Arc<Core>,
    repository: Repository,
    reference: Reference,
    want: Want,
}

impl Pull {
    async fn by_digest(&self, digest: &Digest) -> Result<PulledManifest, RegistryError> {
        let proof = self.core.find_proof(&self.repository.id, ContentKind::Manifest, digest).await;
        let stored = find_stored(&self.core, digest).await;
        if let (Some(_), Some(manifest)) = (&proof, &stored) {
            return Ok(self.answer_stored(manifest, self.served(CacheResult::Hit)));
        }
        let joined = self.ask(&AcceptClass::Any, None, self.want).await;
        let (found, led) = self.unwrap(joined)?;
        if let Some(manifest) = stored {
            // Known here by another name; now this repository has shown that it has it, too.
            return Ok(self.answer_stored(&manifest, self.served(CacheResult::Revalidated)));
        }
        Ok(self.answer_found(&found, led))
    }

    async fn by_tag(&self, tag: &Tag, class: &AcceptClass) -> Result<PulledManifest, RegistryError> {
        let any = AcceptClass::Any;
        if *class != any
            && let Some(known) = self.find_observation(tag, &any).await
            && class.admits(&known.media_type)
        {
            let pulled = self.by_known_tag(tag, &any, known).await?;
            if class.admits(&pulled.media_type) {
                return Ok(pulled);
            }
        }
        if let Some(known) = self.find_observation(tag, class).await {
            return self.by_known_tag(tag, class, known).await;
        }
        let joined = self.ask(class, None, self.want).await;
        let (found, led) = self.unwrap(joined)?;
        self.answer_asked(&found, led).await
    }

    async fn by_known_tag(
        &self,
        tag: &Tag,
        class: &AcceptClass,
        known: TagObservation,
    ) -> Result<PulledManifest, RegistryError> {
        let clocks = self.repository.upstream.config().freshness;
        match judge(self.core.clock.now(), known.checked_at, &clocks) {
            Verdict::Fresh => self.answer_known(&known, self.aged(CacheResult::Hit, &known)).await,
            verdict => Box::pin(self.by_aged_tag(tag, class, known, verdict)).await,
        }
    }

    /// Answers by a tag that upstream has to be asked about, before or after.
    async fn by_aged_tag(
        &self,
        tag: &Tag,
        class: &AcceptClass,
        known: TagObservation,
        verdict: Verdict,
    ) -> Result<PulledManifest, RegistryError> {
        match verdict {
            Verdict::Fresh | Verdict::ServeAndAsk => {
                self.ask_in_background(tag, class, &known).await;
                let served = self.stale(&known, None);
                self.answer_known(&known, served).await
            }
            Verdict::AskFirst => {
                if let Some(error) = self.find_failure(class).await.filter(UpstreamError::is_transient) {
                    let served = self.stale(&known, Some(error.kind()));
                    return self.answer_known(&known, served).await;
                }
                let asked = self.ask(class, Some(known.clone()), self.want);
                match tokio::time::timeout(PATIENCE, asked).await {
                    Ok(Ok(joined)) => {
                        let (found, led) = self.unwrap(Ok(joined))?;
                        self.answer_asked(&found, led).await
                    }
                    Ok(Err(error)) if !error.is_transient() => Err(self.error(error)),
                    Ok(Err(error)) => {
                        let served = self.stale(&known, Some(error.kind()));
                        self.answer_known(&known, served).await
                    }
                    Err(_elapsed) => {
                        let served = self.stale(&known, Some("slow"));
                        self.answer_known(&known, served).await
                    }
                }
            }
            Verdict::AskOnly => {
                let joined = self.ask(class, Some(known), self.want).await;
                let (found, led) = self.unwrap(joined)?;
                self.answer_asked(&found, led).await
            }
        }
    }

    async fn find_observation(&self, tag: &Tag, class: &AcceptClass) -> Option<TagObservation> {
        let key = (self.repository.id.clone(), tag.clone(), class.clone());
        match self.core.memory.tags.get(&key) {
            Some(observation) => Some(observation),
            None => self.read_observation(key).await,
        }
    }

    /// Reads the index. Boxed, as all is that a hit in memory does not need: the engine moves a request's
    /// future before it runs, and keeps room for the largest on every connection.
    fn read_observation(&self, key: TagKey) -> BoxFuture<'_, Option<TagObservation>> {
        async move {
            let found = self.core.index.find_tag(&key.0, &key.1, &key.2).await;
            let observation = self.core.or_nothing(found)?;
            self.core.memory.tags.insert(key, observation.clone());
            Some(observation)
        }
        .boxed()
    }

    /// Asks upstream; whoever asks the same meanwhile gets the same answer. Boxed: a hit asks nothing.
    fn ask<'a>(
        &'a self,
        class: &'a AcceptClass,
        known: Option<TagObservation>,
        want: Want,
    ) -> BoxFuture<'a, Result<Joined<Found>, UpstreamError>> {
        async move {
            // What upstream could not answer lately is asked again: only a stale answer spares the question.
            if let Some(error) = self.find_failure(class).await.filter(|error| !error.is_transient()) {
                return Err(error);
            }
            let question = self.question(class);
            let (pull, class) = (self.clone(), class.clone());
            let run = move || async move { pull.ask_upstream(&class, known, want).await };
            match self.core.manifest_flights.run((question, want), run).await {
                Some(Joined::Led(answer)) => answer.map(Joined::Led),
                Some(Joined::Followed(answer)) => answer.map(Joined::Followed),
                None => Err(UpstreamError::Broken {
                    upstream: self.repository.upstream.config().name.clone(),
                    reason: "asking it ended in an internal fault".to_owned(),
                }),
            }
        }
        .boxed()
    }

    async fn ask_in_background(&self, tag: &Tag, class: &AcceptClass, known: &TagObservation) {
        let (pull, class, known) = (self.clone(), class.clone(), known.clone());
        // One task for all who are served meanwhile.
        let is_asked = self.core.manifest_flights.is_running(&(self.question(&class), Want::Body));
        if is_asked || self.find_failure(&class).await.is_some() {
            return;
        }
        let tag = tag.clone();
        self.core.tasks.spawn(async move {
            if let Err(error) = pull.ask(&class, Some(known), Want::Body).await {
                tracing::info!(repository.name = %pull.repository.id, tag = %tag, error = %error, "tag cannot be revalidated, it is served stale");
            }
        });
    }

    async fn ask_upstream(&self, class: &AcceptClass, known: Option<TagObservation>, want: Want) -> Answer {
        let question = self.question(class);
        let answer = self.exchange(class, known.as_ref(), want).await;
        match &answer {
            Ok(_) => self.core.memory.forget_failure(&question).await,
            Err(error) => self.note_failure(question, error, class, known.as_ref()).await,
        }
        answer
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
        let head = upstream.head_manifest(self.repository.name(), &self.reference, class).await?;
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
            let observation = TagObservation { checked_at, ..known.clone() };
            self.record(class, &observation).await;
            return Ok(Found { observation, manifest: None, is_confirmation: true, stored: true });
        }
        if let Some(manifest) = find_stored(&self.core, &current).await {
            let observation = TagObservation {
                digest: current,
                media_type: manifest.media_type.clone(),
                size_bytes: manifest.body.len() as u64,
                checked_at,
            };
            self.record(class, &observation).await;
            return Ok(Found { observation, manifest: Some(manifest), is_confirmation: true, stored: true });
        }
        if want == Want::Head
            && let (Some(media_type), Some(size_bytes)) =
                (head.media_type.filter(is_telling), head.size_bytes)
        {
            let observation = TagObservation { digest: current, media_type, size_bytes, checked_at };
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
            acquire::fetch(&self.core, &self.repository, reference, class).await?;
        let observation = TagObservation {
            digest: manifest.digest,
            media_type: manifest.media_type.clone(),
            size_bytes: manifest.body.len() as u64,
            checked_at: self.core.clock.now(),
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
        if !error.is_transient() || known.is_some() {
            self.core.memory.remember_failure(question, error.clone(), negative_for).await;
        }
        if let (UpstreamError::Absent { .. }, Reference::Tag(tag), Some(_)) = (error, &self.reference, known)
        {
            self.forget_tag(tag, class).await;
        }
    }

    /// Upstream deleted the tag: it is gone here, too. Its digest stays.
    async fn forget_tag(&self, tag: &Tag, class: &AcceptClass) {
        tracing::info!(repository.name = %self.repository.id, tag = %tag, "tag was deleted upstream");
        if let Err(error) = self.core.index.remove_tag(&self.repository.id, tag).await {
            self.core.report_metadata(&error);
        }
        self.core.memory.tags.invalidate(&(self.repository.id.clone(), tag.clone(), class.clone()));
        let event = Event::TagChanged {
            upstream: self.repository.id.upstream.to_string(),
            repository: self.repository.name().clone(),
            tag: tag.clone(),
        };
        self.core.events.publish(event).await;
    }

    async fn answer_asked(&self, found: &Found, led: bool) -> Result<PulledManifest, RegistryError> {
        if !found.is_confirmation {
            return Ok(self.answer_found(found, led));
        }
        let served = self.aged(CacheResult::Revalidated, &found.observation);
        self.answer_known(&found.observation, served).await
    }

    /// Answers with what a tag is known to point to; content that was evicted is fetched again.
    async fn answer_known(
        &self,
        known: &TagObservation,
        served: Served,
    ) -> Result<PulledManifest, RegistryError> {
        if self.want == Want::Head {
            self.core.uses.note_use(&known.digest);
            return Ok(head_only(known, served));
        }
        if let Some(manifest) = find_stored(&self.core, &known.digest).await {
            return Ok(self.answer_stored(&manifest, served));
        }
        let again = Self { reference: Reference::Digest(known.digest), ..self.clone() };
        let joined = again.ask(&AcceptClass::Any, None, Want::Body).await;
        let (found, led) = self.unwrap(joined)?;
        Ok(self.answer_found(&found, led))
    }

    fn answer_found(&self, found: &Found, led: bool) -> PulledManifest {
        let result = match (led, found.is_confirmation, found.stored, self.want) {
            (_, true, ..) => CacheResult::Revalidated,
            (_, false, false, Want::Body) => CacheResult::Bypass,
            (true, false, ..) => CacheResult::Miss,
            (false, false, ..) => CacheResult::Collapsed,
        };
        let served = Served { stored: found.stored, ..self.served(result) };
        match &found.manifest {
            Some(manifest) => self.answer_stored(manifest, served),
            None => head_only(&found.observation, served),
        }
    }

    fn answer_stored(&self, manifest: &StoredManifest, served: Served) -> PulledManifest {
        self.core.uses.note_use(&manifest.digest);
        PulledManifest {
            digest: manifest.digest,
            media_type: manifest.media_type.clone(),
            size_bytes: manifest.body.len() as u64,
            body: Some(manifest.body.clone()),
            served,
        }
    }

    fn unwrap(&self, joined: Result<Joined<Found>, UpstreamError>) -> Result<(Found, bool), RegistryError> {
        match joined {
            Ok(Joined::Led(found)) => Ok((found, true)),
            Ok(Joined::Followed(found)) => Ok((found, false)),
            Err(error) => Err(self.error(error)),
        }
    }

    fn error(&self, error: UpstreamError) -> RegistryError {
        RegistryError::from_manifest_fetch(error, &self.reference)
    }

    async fn find_failure(&self, class: &AcceptClass) -> Option<UpstreamError> {
        self.core.memory.find_failure(&self.question(class)).await
    }

    fn question(&self, class: &AcceptClass) -> Question {
        Question::Manifest(self.repository.id.clone(), self.reference.clone(), class.clone())
    }

    fn served(&self, result: CacheResult) -> Served {
        Served::new(result, &self.repository.id.upstream)
    }

    fn aged(&self, result: CacheResult, known: &TagObservation) -> Served {
        let age = age(self.core.clock.now(), known.checked_at);
        Served { age: Some(age).filter(|age| *age != Duration::MAX), ..self.served(result) }
    }

    fn stale(&self, known: &TagObservation, error: Option<&'static str>) -> Served {
        let staleness = Some(Staleness { checked_at: known.checked_at, error });
        Served { staleness, ..self.aged(CacheResult::Stale, known) }
    }
}

fn head_only(known: &TagObservation, served: Served) -> PulledManifest {
    PulledManifest {
        digest: known.digest,
        media_type: known.media_type.clone(),
        size_bytes: known.size_bytes,
        body: None,
        served,
    }
}
