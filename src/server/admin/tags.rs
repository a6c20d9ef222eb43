//! `/api/v1/tags` and `/api/v1/repositories`: what hosted repositories have, had, and get back.

use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::api::{Answered, Call};
use super::namespaces::{page, report_deleted, report_place};
use super::parameters::{Parameters, parse};
use crate::auth::RequestContext;
use crate::metadata::catalogue::{TagChange, TagState};
use crate::oci::{RepositoryName, Tag};
use crate::registry::hosted::{DeletedTag, Hosting};
use crate::runtime::Timestamp;

/// When a tag is to go by itself.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpiryOrder {
    repository: String,
    tag: String,
    /// In so many seconds from now; never, where it is null.
    expires_in_seconds: Option<u64>,
}

/// Answers GET of all repositories, and DELETE of one.
pub(super) async fn answer_repositories(hosting: &Hosting, call: &Call) -> Answered {
    let context = RequestContext::administrator();
    if call.method == Method::DELETE {
        let name = Parameters::read(call, &["repository"])?.require("repository")?;
        let deleted = hosting.delete_repository(&context, &name).await?;
        return Ok((StatusCode::OK, report_deleted(&deleted)));
    }
    let parameters = Parameters::read(call, &["n", "last", "deleted"])?;
    let (last, limit) = (parameters.find::<RepositoryName>("last")?, parameters.limit()?);
    let listed: Vec<_> = if parameters.find("deleted")?.unwrap_or(false) {
        let deleted = hosting.list_deleted_repositories(&context, last.as_ref(), limit).await?;
        deleted.iter().map(report_deleted).collect()
    } else {
        let places = hosting.list_hosted_repositories(&context, last.as_ref(), limit).await?;
        places.iter().map(report_place).collect()
    };
    Ok((StatusCode::OK, page("repositories", &listed, limit)))
}

/// Answers GET of a repository's tags, and DELETE of one.
pub(super) async fn answer_tags(hosting: &Hosting, call: &Call) -> Answered {
    let context = RequestContext::administrator();
    if call.method == Method::DELETE {
        let parameters = Parameters::read(call, &["repository", "tag"])?;
        let (repository, tag) = (parameters.require("repository")?, parameters.require("tag")?);
        let deleted = hosting.delete_tag(&context, &repository, &tag).await?;
        return Ok((StatusCode::OK, report_deleted_tag(&repository, &tag, &deleted)));
    }
    let parameters = Parameters::read(call, &["repository", "n", "last"])?;
    let (repository, limit) = (parameters.require("repository")?, parameters.limit()?);
    let last = parameters.find("last")?;
    let states = hosting.list_tag_states(&context, &repository, last.as_ref(), limit).await?;
    let tags: Vec<_> = states.iter().map(|state| report_state(&repository, state)).collect();
    Ok((StatusCode::OK, page("tags", &tags, limit)))
}

/// Answers GET of everything that a tag ever was, or of what it was at a moment.
pub(super) async fn answer_history(hosting: &Hosting, call: &Call) -> Answered {
    let context = RequestContext::administrator();
    let parameters = Parameters::read(call, &["repository", "tag", "n", "before", "as_of"])?;
    let (repository, tag) = (parameters.require("repository")?, parameters.require("tag")?);
    if let Some(moment) = parameters.find::<Timestamp>("as_of")? {
        let digest = hosting.find_tag_at(&context, &repository, &tag, moment).await?;
        return Ok((StatusCode::OK, json!({ "digest": digest.map(|digest| digest.to_string()) })));
    }
    let (before, limit) = (parameters.find("before")?, parameters.limit()?);
    let rows = hosting.list_tag_history(&context, &repository, &tag, before, limit).await?;
    let next = rows.last().filter(|_| rows.len() == limit as usize).map(|row| row.number);
    Ok((
        StatusCode::OK,
        json!({ "history": rows.iter().map(report_change).collect::<Vec<_>>(), "next": next }),
    ))
}

/// Answers PUT of when a tag goes by itself.
pub(super) async fn answer_expiry(hosting: &Hosting, call: &Call) -> Answered {
    let order: ExpiryOrder = call.order()?;
    let (repository, tag) = (parse("repository", &order.repository)?, parse("tag", &order.tag)?);
    let time = order.expires_in_seconds.map(std::time::Duration::from_secs);
    let state = hosting.set_tag_expiry(&RequestContext::administrator(), &repository, &tag, time).await?;
    Ok((StatusCode::OK, report_state(&repository, &state)))
}

pub(super) fn report_state(repository: &RepositoryName, state: &TagState) -> Value {
    json!({
        "repository": repository.as_str(),
        "name": state.tag.as_str(),
        "digest": state.digest.to_string(),
        "since": state.since.at.to_rfc3339(),
        "by": &*state.since.by,
        "expires_at": state.expires_at.map(Timestamp::to_rfc3339),
        "last_pulled_at": state.used_at.map(Timestamp::to_rfc3339),
    })
}

fn report_change(row: &TagChange) -> Value {
    json!({
        "number": row.number,
        "digest": row.digest.map(|digest| digest.to_string()),
        "at": row.stamp.at.to_rfc3339(),
        "by": &*row.stamp.by,
        "expires_at": row.expires_at.map(Timestamp::to_rfc3339),
        "is_restorable": row.is_restorable,
    })
}

fn report_deleted_tag(repository: &RepositoryName, tag: &Tag, deleted: &DeletedTag) -> Value {
    json!({
        "repository": repository.as_str(),
        "name": tag.as_str(),
        "digest": deleted.digest.to_string(),
        "deleted_at": deleted.at.to_rfc3339(),
        "deleted_by": deleted.by,
        "restorable_until": deleted.restorable_until.to_rfc3339(),
    })
}
