//! `/api/v1/restore`: what was deleted comes back.

use http::StatusCode;
use serde::Deserialize;

use super::api::{Answered, Call, Refusal};
use super::parameters::parse;
use super::{namespaces, tags};
use crate::auth::RequestContext;
use crate::registry::hosted::Hosting;

/// What is to come back: a namespace, a repository or a tag.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    namespace: Option<String>,
    repository: Option<String>,
    /// A tag of the repository, instead of all of it.
    tag: Option<String>,
    /// What the tag is to point to again; what it pointed to last, where nothing is said.
    digest: Option<String>,
}

/// Answers POST.
pub(super) async fn answer(hosting: &Hosting, call: &Call) -> Answered {
    let context = RequestContext::administrator();
    let restored = match call.order()? {
        Order { namespace: Some(name), repository: None, tag: None, digest: None } => {
            let name = parse("namespace", &name)?;
            namespaces::report(&hosting.restore_namespace(&context, &name).await?)
        }
        Order { namespace: None, repository: Some(name), tag: None, digest: None } => {
            let name = parse("repository", &name)?;
            namespaces::report_place(&hosting.restore_repository(&context, &name).await?)
        }
        Order { namespace: None, repository: Some(name), tag: Some(tag), digest } => {
            let (name, tag) = (parse("repository", &name)?, parse("tag", &tag)?);
            let digest = digest.map(|digest| parse("digest", &digest)).transpose()?;
            let state = hosting.restore_tag(&context, &name, &tag, digest.as_ref()).await?;
            tags::report_state(&name, &state)
        }
        _ => {
            let message =
                "say which: namespace; or repository; or repository and tag, with a digest or without";
            return Err(Refusal::bad(message));
        }
    };
    Ok((StatusCode::OK, restored))
}
