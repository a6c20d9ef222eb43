//! Use case: a client pulls a manifest, by digest or by tag.

mod ask;

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use super::acquire::find_stored;
use super::core::Core;
use super::deletion;
use super::freshness::{Verdict, age, judge};
use super::memory::{Question, StoredManifest, TagKey};
use super::patience;
use super::prefetch;
use super::together;
use super::{CacheResult, PulledManifest, RegistryError, Repository, Served, StaleCause, Staleness, Want};
use crate::auth::{RequestContext, policy};
use crate::metadata::{ContentKind, TagObservation};
use crate::oci::{AcceptClass, Digest, Reference, Tag};
use crate::runtime::Joined;
use crate::upstream::{Link, Priority, UpstreamError, Urgency};

pub(super) use ask::refetch;

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
    let pull = Pull {
        core: Arc::clone(core),
        repository: repository.clone(),
        reference: reference.clone(),
        want,
        priority: patience::priority_of(context),
    };
    match reference {
        Reference::Digest(digest) => pull.by_digest(digest).await,
        Reference::Tag(tag) => pull.by_tag(tag, class).await,
    }
}

/// Finds what a tag is known to point to, without asking anybody: upstream just failed with `error`.
pub(super) async fn find_known(
    core: &Arc<Core>,
    repository: &Repository,
    tag: &Tag,
    error: &UpstreamError,
) -> Option<PulledManifest> {
    let (core, repository) = (Arc::clone(core), repository.clone());
    let pull = Pull {
        core,
        repository,
        reference: Reference::Tag(tag.clone()),
        want: Want::Body,
        priority: Priority::Ahead,
    };
    let known = pull.find_observation(tag, &AcceptClass::Any).await?;
    let clocks = pull.repository.upstream.config().freshness;
    let served = match judge(pull.core.clock.now(), known.checked_at, &clocks) {
        Verdict::Fresh => pull.aged(CacheResult::Hit, &known),
        Verdict::AskOnly if !pull.is_offline() => return None,
        _ => pull.stale(&known, StaleCause::of(error)),
    };
    let manifest = find_stored(&pull.core, &known.digest).await?;
    Some(pull.answer_stored(&manifest, served))
}

/// One pull.
#[derive(Clone)]
struct Pull {
    core: Arc<Core>,
    repository: Repository,
    reference: Reference,
    want: Want,
    /// Who gets the answer. A client may want what the manifest lists next.
    priority: Priority,
}

impl Pull {
    async fn by_digest(&self, digest: &Digest) -> Result<PulledManifest, RegistryError> {
        let proof = self.core.find_proof(&self.repository.id, ContentKind::Manifest, digest).await;
        let stored = find_stored(&self.core, digest).await;
        if let (Some(_), Some(manifest)) = (&proof, &stored) {
            return Ok(self.answer_stored(manifest, self.served(CacheResult::Hit)));
        }
        let joined = self.ask_in_time(&AcceptClass::Any, None).await;
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
        let joined = self.ask_in_time(class, None).await;
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
        let verdict = judge(self.core.clock.now(), known.checked_at, &clocks);
        match verdict {
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
        if self.is_offline() {
            // Of whatever age: nothing newer can be had.
            return self.answer_known(&known, self.stale(&known, StaleCause::Offline)).await;
        }
        match verdict {
            Verdict::Fresh | Verdict::ServeAndAsk => {
                self.ask_in_background(tag, class, &known).await;
                let cause =
                    known.missing_since.map_or(StaleCause::Asking, |since| StaleCause::Deleted { since });
                let served = self.stale(&known, cause);
                self.answer_known(&known, served).await
            }
            Verdict::AskFirst => match self.ask_for_news(tag, class, &known).await {
                Ok(joined) => {
                    let (found, led) = self.unwrap(Ok(joined))?;
                    self.answer_asked(&found, led).await
                }
                Err(error) if error.is_transient() => {
                    let served = self.stale(&known, StaleCause::of(&error));
                    self.answer_known(&known, served).await
                }
                Err(error) => self.answer_deleted(tag, class, error).await,
            },
            Verdict::AskOnly => match self.ask_in_time(class, Some(known)).await {
                Err(error) => self.answer_deleted(tag, class, error).await,
                joined => {
                    let (found, led) = self.unwrap(joined)?;
                    self.answer_asked(&found, led).await
                }
            },
        }
    }

    /// Answers with the copy of a tag that upstream has deleted, while that is kept; else with the error.
    async fn answer_deleted(
        &self,
        tag: &Tag,
        class: &AcceptClass,
        error: UpstreamError,
    ) -> Result<PulledManifest, RegistryError> {
        if matches!(error, UpstreamError::Absent { .. })
            && let Some(known) = self.find_observation(tag, class).await
            && let Some(since) = known.missing_since
            && deletion::is_kept(&self.core, &self.repository, tag, since).await
        {
            let served = self.stale(&known, StaleCause::Deleted { since });
            return self.answer_known(&known, served).await;
        }
        Err(self.error(error))
    }

    /// Asks where a tag points now, briefly. While upstream is in trouble, only the first client waits for
    /// it; later ones get the trouble, and upstream is asked in the background.
    async fn ask_for_news(
        &self,
        tag: &Tag,
        class: &AcceptClass,
        known: &TagObservation,
    ) -> Result<Joined<Found>, UpstreamError> {
        let question = self.question(class);
        if let Some(trouble) = self.core.memory.find_trouble(&question).await {
            if trouble.is_due {
                self.ask_in_background(tag, class, known).await;
            }
            return Err(trouble.error);
        }
        let pull = self.for_news();
        let asked = pull.ask(class, Some(known.clone()), self.want);
        match patience::for_news(&self.repository, asked).await {
            Ok(answer) => answer,
            Err(slow) => {
                self.core.memory.remember_failure(question, slow.clone(), Duration::ZERO).await;
                Err(slow)
            }
        }
    }

    /// Asks for what is not here. Boxed: a hit asks nothing.
    fn ask_in_time<'a>(
        &'a self,
        class: &'a AcceptClass,
        known: Option<TagObservation>,
    ) -> BoxFuture<'a, Result<Joined<Found>, UpstreamError>> {
        async move { patience::for_a_miss(&self.repository, self.ask(class, known, self.want)).await? }
            .boxed()
    }

    async fn find_observation(&self, tag: &Tag, class: &AcceptClass) -> Option<TagObservation> {
        let key = (self.repository.id.clone(), tag.clone(), class.clone());
        match self.core.memory.tags.get(&key) {
            Some(known) => known,
            None => self.read_observation(key).await,
        }
    }

    /// Reads the index. Boxed, as all is that a hit in memory does not need: the engine moves a request's
    /// future before it runs, and keeps room for the largest on every connection.
    fn read_observation(&self, key: TagKey) -> BoxFuture<'_, Option<TagObservation>> {
        async move {
            let found = self.core.index.find_tag(&key.0, &key.1, &key.2).await;
            let is_told = found.is_ok();
            let known = self.core.or_nothing(found);
            if is_told {
                // What was recorded since the index was read stands.
                self.core.memory.tags.entry(key).or_insert(known.clone());
            }
            known
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
            let key = (self.question(class), want);
            let run = || {
                let (pull, class, known) = (self.clone(), class.clone(), known.clone());
                async move { pull.ask_upstream(&class, known, want).await }
            };
            let upstream = &self.repository.id.upstream;
            together::ask(&self.core.manifest_flights, key, upstream, self.priority, run).await
        }
        .boxed()
    }

    async fn ask_in_background(&self, tag: &Tag, class: &AcceptClass, known: &TagObservation) {
        let (pull, class, known) = (self.for_news(), class.clone(), known.clone());
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
        let cause = served.staleness.as_ref().map(|staleness| staleness.cause);
        // HEAD promises only what GET can give: what upstream does not, has to be here.
        let is_last_copy = self.is_offline() || matches!(cause, Some(StaleCause::Deleted { .. }));
        if self.want == Want::Head && !is_last_copy {
            self.core.uses.note_use(&known.digest);
            return Ok(head_only(known, served));
        }
        if let Some(manifest) = find_stored(&self.core, &known.digest).await {
            return Ok(self.answer_stored(&manifest, served));
        }
        let again = Self { reference: Reference::Digest(known.digest), want: Want::Body, ..self.clone() };
        let joined = again.ask_in_time(&AcceptClass::Any, None).await;
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
            Some(manifest) => {
                if self.priority == Priority::Client && result == CacheResult::Miss && self.want == Want::Body
                {
                    prefetch::follow_up(&self.core, &self.repository, manifest);
                }
                self.answer_stored(manifest, served)
            }
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
        RegistryError::from_manifest_fetch(error, &self.repository.id, &self.reference)
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

    /// The same question, where an answer is here already.
    fn for_news(&self) -> Self {
        Self { priority: self.priority.max(Priority::Revalidation), ..self.clone() }
    }

    const fn urgency(&self) -> Urgency {
        Urgency::fixed(self.priority)
    }

    fn is_offline(&self) -> bool {
        self.repository.upstream.link() == Link::Offline
    }

    fn stale(&self, known: &TagObservation, cause: StaleCause) -> Served {
        let staleness = Some(Staleness { checked_at: Some(known.checked_at), cause });
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
