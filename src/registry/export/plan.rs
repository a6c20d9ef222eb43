//! Finds out all that images need to be pulled elsewhere.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use serde_json::Value;

use super::{ExportError, ExportOrder};
use crate::auth::RequestContext;
use crate::bundle::{self, Item, ItemKind, Plan, Referrers, Role};
use crate::oci::{
    AcceptClass, Descriptor, Digest, Manifest, Platform, Reference, RepositoryName, Selector, Tag,
};
use crate::registry::core::Core;
use crate::registry::image::is_elsewhere;
use crate::registry::warm::{SIGNATURE_TAGS, expand};
use crate::registry::{PulledManifest, RegistryError, Repository, Want, listing, manifest, pull_blob};
use crate::runtime::Timestamp;

/// Manifests up to this many bytes are hashed and parsed in well under half a millisecond.
const SHORT_BYTES: usize = 64 * 1024;

/// The most pages of referrers of one manifest.
const MOST_PAGES: usize = 100;

/// Plans; see [`crate::registry::Registry::plan_export`].
pub(in crate::registry) async fn plan(core: &Arc<Core>, order: &ExportOrder) -> Result<Plan, ExportError> {
    let image = order.image.to_string();
    let failed = |what: &'static str| {
        let image = image.clone();
        move |source| ExportError::Registry { image, what, source }
    };
    let names = core.names.load_full();
    let repository = expand::resolve(&names, &order.image).map_err(failed("the name"))?;
    let client_name = names.client_name(&repository.id);
    let name: RepositoryName = client_name.parse().map_err(|_no_name| ExportError::Unfit {
        image: image.clone(),
        reason: format!(
            "{client_name} is no name that a bundle can hold: give its upstream an alias without a port"
        ),
    })?;
    let references = match order.image.selector() {
        Selector::One(reference) => vec![reference.clone()],
        Selector::Tags(pattern) => {
            expand::find_tags(core, &repository, pattern).await.map_err(failed("the list of its tags"))?
        }
    };
    if references.is_empty() {
        return Err(ExportError::Unfit { image, reason: "no tag matches".to_owned() });
    }
    let platforms = match &order.platforms[..] {
        [] => repository.upstream.config().platforms.clone(),
        platforms => platforms.to_vec(),
    };
    let mut plan = Plan::default();
    for reference in &references {
        let mut walk = Walk {
            core,
            repository: &repository,
            image: spell(&name, reference),
            name: &name,
            platforms: &platforms,
            referrers: order.referrers,
            seen: HashSet::new(),
            rest: Vec::new(),
            items: BTreeMap::new(),
            plan: Plan::default(),
        };
        walk.run(reference).await?;
        plan.merge(walk.finish());
    }
    Ok(plan)
}

fn spell(name: &RepositoryName, reference: &Reference) -> String {
    let sign = if matches!(reference, Reference::Digest(_)) { '@' } else { ':' };
    format!("{name}{sign}{reference}")
}

/// From one image to all that it needs.
struct Walk<'a> {
    core: &'a Arc<Core>,
    repository: &'a Repository,
    /// What was asked for, in full.
    image: String,
    name: &'a RepositoryName,
    platforms: &'a [Platform],
    referrers: bool,
    seen: HashSet<Digest>,
    /// No recursion: indexes may list indexes, and referrers have referrers.
    rest: Vec<Step>,
    items: BTreeMap<Digest, Item>,
    plan: Plan,
}

/// A manifest on the way.
struct Step {
    digest: Digest,
    role: Role,
}

impl Walk<'_> {
    async fn run(&mut self, reference: &Reference) -> Result<(), ExportError> {
        let root = self.pull(reference).await.map_err(|source| self.failed("its manifest", source))?;
        self.require_offered(&root).await?;
        let tag = match reference {
            Reference::Tag(tag) => Some(tag.clone()),
            Reference::Digest(_) => None,
        };
        self.add_name(&root, tag, Role::Image);
        self.rest.push(Step { digest: root.digest, role: Role::Image });
        while let Some(step) = self.rest.pop() {
            if self.seen.insert(step.digest) {
                self.look_at(step).await?;
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Plan {
        self.plan.items = self.items.into_values().collect();
        self.plan
    }

    async fn look_at(&mut self, step: Step) -> Result<(), ExportError> {
        let pulled = match self.pull(&Reference::Digest(step.digest)).await {
            Ok(pulled) => pulled,
            Err(RegistryError::ManifestUnknown(_)) if step.role == Role::Companion => {
                let note = format!(
                    "{}: upstream lists the referrer {}, and does not have it",
                    self.image, step.digest
                );
                self.plan.notes.push(note);
                return Ok(());
            }
            Err(source) => return Err(self.failed("a manifest of it", source)),
        };
        let Some(view) = self.read(&pulled).await? else { return Ok(()) };
        let children: Vec<_> = view.manifests.iter().filter(|child| self.wants(child)).collect();
        self.rest.extend(children.iter().map(|child| Step { digest: child.digest, role: step.role }));
        for blob in view.blobs.iter().filter(|blob| !is_elsewhere(&blob.media_type)) {
            let size_bytes = match blob.size_bytes {
                Some(size_bytes) => size_bytes,
                None => self.find_size(&blob.digest).await?,
            };
            self.add_item(Item { kind: ItemKind::Blob, digest: blob.digest, size_bytes, media_type: None });
        }
        if self.referrers {
            self.find_referrers(&step).await?;
        }
        Ok(())
    }

    /// Lists a manifest, and reads what it lists; `None` where it cannot be parsed, and then lists nothing.
    async fn read(&mut self, pulled: &PulledManifest) -> Result<Option<Manifest>, ExportError> {
        let body = pulled.body.clone().unwrap_or_default();
        let digest = pulled.digest;
        let size_bytes = body.len() as u64;
        let look = move || (Digest::of(digest.algorithm(), &body) == digest, Manifest::parse(&body).ok());
        let (is_of_digest, view) = if size_bytes <= SHORT_BYTES as u64 {
            look()
        } else {
            self.core.tasks.spawn_blocking(look).await.unwrap_or((false, None))
        };
        if !is_of_digest {
            let reason = format!(
                "{digest} is a manifest of schema 1, whose content has another digest: it cannot be carried"
            );
            return Err(ExportError::Unfit { image: self.image.clone(), reason });
        }
        let media_type = Some(pulled.media_type.clone());
        self.add_item(Item { kind: ItemKind::Manifest, digest, size_bytes, media_type });
        Ok(view)
    }

    /// What is made for no platform, or for none that anybody runs, always comes along: attestations.
    fn wants(&self, child: &Descriptor) -> bool {
        let Some(made) = &child.platform else { return true };
        made.is_unknown()
            || self.platforms.is_empty()
            || self.platforms.iter().any(|wanted| wanted.covers(made))
    }

    async fn require_offered(&self, root: &PulledManifest) -> Result<(), ExportError> {
        let Some(body) = root.body.clone() else { return Ok(()) };
        let parsed = self.core.tasks.spawn_blocking(move || Manifest::parse(&body).ok()).await;
        let Some(view) = parsed.ok().flatten() else { return Ok(()) };
        let made: Vec<_> = view.manifests.iter().filter_map(|child| child.platform.as_ref()).collect();
        let lacks = |wanted: &&Platform| !made.iter().any(|made| wanted.covers(made));
        match self.platforms.iter().find(lacks) {
            Some(wanted) if !made.is_empty() => Err(ExportError::Unfit {
                image: self.image.clone(),
                reason: format!("it is not made for {wanted}"),
            }),
            _ => Ok(()),
        }
    }

    async fn find_referrers(&mut self, step: &Step) -> Result<(), ExportError> {
        match self.list_referrers(&step.digest).await {
            Ok(descriptors) => {
                let digests = descriptors.iter().filter_map(|found| found["digest"].as_str()?.parse().ok());
                self.rest.extend(digests.map(|digest| Step { digest, role: Role::Companion }));
                self.plan.referrers.push(Referrers {
                    repository: self.name.clone(),
                    subject: step.digest,
                    observed_at_ms: self.core.clock.now().as_millis(),
                    descriptors,
                });
            }
            Err(RegistryError::Offline { .. }) => {
                let note = format!(
                    "{}: this node is offline and does not know what refers to {}: signatures may be missing",
                    self.image, step.digest
                );
                self.plan.notes.push(note);
            }
            Err(source) => return Err(self.failed("the list of what refers to it", source)),
        }
        if step.role == Role::Companion {
            return Ok(());
        }
        for end in SIGNATURE_TAGS {
            let text = format!("{}-{}.{end}", step.digest.algorithm().as_str(), step.digest.hex());
            let Ok(tag) = text.parse::<Tag>() else { continue };
            match self.pull(&Reference::Tag(tag.clone())).await {
                Ok(pulled) => {
                    self.add_name(&pulled, Some(tag), Role::Companion);
                    self.rest.push(Step { digest: pulled.digest, role: Role::Companion });
                }
                Err(RegistryError::ManifestUnknown(_) | RegistryError::Offline { .. }) => {}
                Err(source) => return Err(self.failed("a signature of it", source)),
            }
        }
        Ok(())
    }

    /// All pages of descriptors; none where upstream knows of none.
    async fn list_referrers(&self, digest: &Digest) -> Result<Vec<Value>, RegistryError> {
        let context = RequestContext::system();
        let (mut query, mut descriptors) = (Vec::new(), Vec::new());
        for _ in 0..MOST_PAGES {
            let listed = listing::referrers(self.core, &context, self.repository, digest, &query).await;
            let page = match listed {
                Err(RegistryError::ManifestUnknown(_)) => break,
                page => page?,
            };
            let mut index: Value = serde_json::from_slice(&page.body).unwrap_or_default();
            if let Some(listed) = index["manifests"].as_array_mut() {
                descriptors.append(listed);
            }
            match page.next {
                Some(next) => query = next,
                None => break,
            }
        }
        Ok(descriptors)
    }

    async fn pull(&self, reference: &Reference) -> Result<PulledManifest, RegistryError> {
        let context = RequestContext::system();
        manifest::pull(self.core, &context, self.repository, reference, &AcceptClass::Any, Want::Body).await
    }

    async fn find_size(&self, digest: &Digest) -> Result<u64, ExportError> {
        let stat = pull_blob::stat(self.core, &RequestContext::system(), self.repository, digest).await;
        stat.map(|stat| stat.size_bytes).map_err(|source| self.failed("a blob of it", source))
    }

    fn add_item(&mut self, item: Item) {
        bundle::add_item(&mut self.items, item);
    }

    fn add_name(&mut self, pulled: &PulledManifest, tag: Option<Tag>, role: Role) {
        let now = self.core.clock.now();
        let served = &pulled.served;
        let checked_at = served.staleness.as_ref().and_then(|stale| stale.checked_at);
        let age = served.age.and_then(|age| u64::try_from(age.as_millis()).ok()).unwrap_or(0);
        let observed_at = checked_at.unwrap_or(Timestamp::from_millis(now.as_millis().saturating_sub(age)));
        self.plan.images.push(bundle::Image {
            repository: self.name.clone(),
            tag,
            digest: pulled.digest,
            observed_at_ms: observed_at.as_millis(),
            role,
        });
    }

    fn failed(&self, what: &'static str, source: RegistryError) -> ExportError {
        ExportError::Registry { image: self.image.clone(), what, source }
    }
}
