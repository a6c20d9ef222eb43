//! `/v2/_catalog`: repositories that are hosted here, and those with cached content.

use super::{Answer, add_next_link, json_response, limit_of};
use crate::auth::RequestContext;
use crate::oci::RepositoryName;
use crate::registry::hosted::Hosting;
use crate::registry::{Registry, RepositoryList};
use crate::server::hosted;
use crate::server::respond::Problem;
use crate::server::route::Route;

/// Repositories on a page where the client does not say how many.
const DEFAULT_LIMIT: u32 = 100;

const MAX_LIMIT: u32 = 1000;

/// Answers GET and HEAD for the catalogue: what is hosted here and what is cached, in one order.
pub(in crate::server) async fn answer_catalog(
    registry: &Registry,
    hosting: &Hosting,
    context: &RequestContext,
    route: &Route,
) -> Answer {
    let limit = clamp_limit(limit_of(route));
    if limit == 0 {
        return Ok(json_response(catalog_json(&[])));
    }
    let last = route.parameter("last");
    let mut list = registry.list_repositories(context, last, limit).await?;
    if hosting.hosts_anything() {
        add_hosted(&mut list, hosting, context, last, limit).await?;
    }
    let mut response = json_response(catalog_json(&list.names));
    if let (true, Some(last)) = (list.more, list.names.last()) {
        let next = [("n".to_owned(), limit.to_string()), ("last".to_owned(), last.clone())];
        add_next_link(response.headers_mut(), route, &next);
    }
    Ok(response)
}

async fn add_hosted(
    list: &mut RepositoryList,
    hosting: &Hosting,
    context: &RequestContext,
    last: Option<&str>,
    limit: u32,
) -> Result<(), Problem> {
    // What is no name of a hosted repository is a place in the order all the same: none is left out before it.
    let after = last.and_then(|last| last.parse::<RepositoryName>().ok());
    let page = hosting.list_repositories(context, after.as_ref(), limit).await;
    let page = page.map_err(|error| hosted::problem_of(&error))?;
    let names = page.items.iter().map(|name| name.as_str().to_owned());
    list.names.extend(names.filter(|name| last.is_none_or(|last| name.as_str() > last)));
    list.names.sort_unstable();
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    list.more |= page.has_more || list.names.len() > limit;
    list.names.truncate(limit);
    Ok(())
}

fn clamp_limit(limit: Option<u64>) -> u32 {
    limit.map_or(DEFAULT_LIMIT, |limit| u32::try_from(limit).unwrap_or(u32::MAX).min(MAX_LIMIT))
}

fn catalog_json(names: &[String]) -> String {
    serde_json::json!({ "repositories": names }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_never_larger_than_the_limit() {
        for (asked, expected) in [(None, 100), (Some(0), 0), (Some(7), 7), (Some(u64::MAX), 1000)] {
            assert_eq!(clamp_limit(asked), expected);
        }
    }

    #[test]
    fn an_empty_catalogue_is_an_empty_list() {
        assert_eq!(catalog_json(&[]), r#"{"repositories":[]}"#);
    }
}
