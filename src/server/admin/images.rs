//! `/api/v1/cache/images`: the images that are known here, and what of them is missing.

use http::StatusCode;
use serde_json::{Value, json};

use super::api::{Answered, Call, Refusal};
use crate::auth::{RequestContext, RequestId};
use crate::oci::decode_query;
use crate::registry::{Image, ImageQuery, ImageState, Missing, Registry};

/// How many images a page has where nothing is said, and the most.
const PAGE: usize = 1000;
const LONGEST_PAGE: usize = 10_000;

/// How many missing parts of an image are told; their number is told in any case.
const TOLD_PARTS: usize = 100;

/// Answers GET and HEAD. Parameters: `incomplete` or `complete` (only those), `upstream`, `repository`, and for
/// pages `n` and `last`.
pub(super) async fn answer(registry: &Registry, call: &Call) -> Answered {
    let query = read_query(&call.query).map_err(Refusal::bad)?;
    let context = RequestContext::anonymous(RequestId::random());
    let list = registry.list_images(&context, &query).await?;
    let images: Vec<_> = list.images.iter().map(report).collect();
    Ok((StatusCode::OK, json!({ "images": images, "next": list.next })))
}

fn read_query(query: &str) -> Result<ImageQuery, String> {
    let mut read = ImageQuery { limit: PAGE, ..ImageQuery::default() };
    for (name, value) in decode_query(query) {
        match name.as_str() {
            "incomplete" | "complete" => {
                let state = if name == "complete" { ImageState::Complete } else { ImageState::Incomplete };
                if !matches!(value.as_str(), "" | "true" | "1") {
                    return Err(format!("{name}={value}: write {name} without a value, or leave it out"));
                }
                if read.state.is_some_and(|other| other != state) {
                    return Err("incomplete and complete are both given: leave both out for all".to_owned());
                }
                read.state = Some(state);
            }
            "upstream" => read.upstream = Some(value),
            "repository" => read.repository = Some(value),
            "last" => read.last = Some(value),
            "n" => {
                let limit = value.parse().ok().filter(|limit| (1..=LONGEST_PAGE).contains(limit));
                read.limit =
                    limit.ok_or_else(|| format!("n={value}: write a number from 1 to {LONGEST_PAGE}"))?;
            }
            _ => {
                return Err(format!(
                    "unknown parameter {name}: there are incomplete, complete, upstream, repository, n and last"
                ));
            }
        }
    }
    Ok(read)
}

/// An image as JSON.
pub(super) fn report(image: &Image) -> Value {
    json!({
        "repository": image.repository,
        "tags": image.tags.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "digest": image.digest.to_string(),
        "state": image.state().as_str(),
        "platforms": image.platforms.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "stored_bytes": image.stored_bytes,
        "missing_bytes": image.missing_bytes(),
        "missing_parts": image.missing.len(),
        "missing": image.missing.iter().take(TOLD_PARTS).map(report_part).collect::<Vec<_>>(),
    })
}

fn report_part(missing: &Missing) -> Value {
    json!({
        "part": missing.part.as_str(),
        "digest": missing.digest.to_string(),
        "size_bytes": missing.size_bytes,
        "platform": missing.platform.as_ref().map(ToString::to_string),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_read_strictly() {
        let read = read_query("incomplete&upstream=docker.io&n=5&last=a%2Fb").unwrap();
        assert_eq!((read.state, read.limit), (Some(ImageState::Incomplete), 5));
        assert_eq!((read.upstream.as_deref(), read.last.as_deref()), (Some("docker.io"), Some("a/b")));
        assert_eq!(read_query("").unwrap().limit, PAGE);
        for (bad, reason) in [
            ("n=0", "n=0"),
            ("n=x", "n=x"),
            ("incomplete=no", "without a value"),
            ("complete&incomplete", "both"),
            ("incompleet", "unknown parameter incompleet"),
        ] {
            assert!(read_query(bad).unwrap_err().contains(reason), "{bad}");
        }
    }
}
