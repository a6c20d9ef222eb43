//! From what is ordered to single images: globs over tags are looked up upstream.

use std::sync::Arc;

use super::job::{Job, Target};
use crate::auth::RequestContext;
use crate::config::glob;
use crate::oci::{ImagePattern, Reference, Selector};
use crate::registry::core::Core;
use crate::registry::{Names, RegistryError, Repository, Spelling, listing};

/// How many tags are asked for at once.
const PAGE: &str = "1000";

/// The most tags of one repository that are looked at.
const MOST_TAGS: usize = 50_000;

/// The most images that one glob may mean.
const MOST_IMAGES: usize = 5000;

/// Finds the repository that a pattern names.
pub(in crate::registry) fn resolve(
    names: &Names,
    pattern: &ImagePattern,
) -> Result<Repository, RegistryError> {
    names.resolve(&Spelling { ns: None, prefix: None, name: pattern.name(), own_hosts: &[] })
}

/// Finds all images of an order. What cannot be looked up is one target that fails, with the reason.
pub(super) async fn expand(core: &Arc<Core>, job: &Job) -> Vec<Target> {
    let mut targets = Vec::new();
    for pattern in &job.order.images {
        let names = core.names.load_full();
        let repository = match resolve(&names, pattern) {
            Ok(repository) => repository,
            Err(error) => {
                targets.push(Target::failed(pattern.to_string(), error.to_string()));
                continue;
            }
        };
        let name = names.client_name(&repository.id);
        match pattern.selector() {
            Selector::One(reference) => targets.push(Target::new(&name, repository, reference.clone())),
            Selector::Tags(pattern) => {
                match job.persist(&core.clock, || find_tags(core, &repository, pattern)).await {
                    Ok(tags) if tags.is_empty() => {
                        let reason = "no tag matches".to_owned();
                        targets.push(Target::failed(format!("{name}:{pattern}"), reason));
                    }
                    Ok(tags) => {
                        targets
                            .extend(tags.into_iter().map(|tag| Target::new(&name, repository.clone(), tag)));
                    }
                    Err(reason) => targets.push(Target::failed(format!("{name}:{pattern}"), reason)),
                }
            }
        }
    }
    targets
}

pub(in crate::registry) async fn find_tags(
    core: &Arc<Core>,
    repository: &Repository,
    pattern: &str,
) -> Result<Vec<Reference>, RegistryError> {
    let context = RequestContext::system();
    let mut query = vec![("n".to_owned(), PAGE.to_owned())];
    let (mut found, mut seen) = (Vec::new(), 0);
    loop {
        let page = listing::tags(core, &context, repository, &query).await?;
        seen += page.tags.len();
        let tags = page.tags.iter().filter(|tag| glob::matches(pattern, tag));
        found.extend(tags.filter_map(|tag| tag.parse().ok()).map(Reference::Tag));
        match page.next {
            Some(next) if !page.tags.is_empty() && seen < MOST_TAGS && found.len() < MOST_IMAGES => {
                query = next;
            }
            _ => break,
        }
    }
    found.truncate(MOST_IMAGES);
    Ok(found)
}
