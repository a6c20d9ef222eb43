//! `/v2/<name>/tags/list`

use super::{Answer, Call, add_next_link, json_response, limit_of};
use crate::server::exchange::Outcome;
use crate::server::metrics::ContentLabel;
use crate::server::provenance::add_provenance;

/// Answers GET and HEAD for a repository's tags.
pub(in crate::server) async fn answer_tags(call: &Call<'_>) -> Answer {
    if limit_of(call.route) == Some(0) {
        // No tags and no next page (OCI distribution specification, "Listing Tags").
        return Ok(json_response(tags_json(call.name, &[])));
    }
    let list = call.registry.list_tags(call.context, call.repository, &call.route.query).await?;
    let mut response = json_response(tags_json(call.name, &list.tags));
    add_provenance(response.headers_mut(), &list.served);
    if let Some(next) = &list.next {
        add_next_link(response.headers_mut(), call.route, next);
    }
    response.extensions_mut().insert(Outcome::new(ContentLabel::Tags, &list.served));
    Ok(response)
}

/// `tags` is a list even where it is empty: clients do not expect `null`.
fn tags_json(name: &str, tags: &[String]) -> String {
    serde_json::json!({ "name": name, "tags": tags }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_the_clients_and_tags_are_never_null() {
        assert_eq!(tags_json("docker.io/a", &[]), r#"{"name":"docker.io/a","tags":[]}"#);
        assert_eq!(tags_json("a", &["1".into(), "2".into()]), r#"{"name":"a","tags":["1","2"]}"#);
    }
}
