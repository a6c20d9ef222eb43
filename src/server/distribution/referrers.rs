//! `/v2/<name>/referrers/<digest>`

use http::{HeaderName, HeaderValue};

use super::{Answer, Call, add_next_link, json_response, set_json};
use crate::oci::Digest;
use crate::registry::RegistryError;
use crate::server::exchange::Outcome;
use crate::server::metrics::ContentLabel;
use crate::server::provenance::add_provenance;
use crate::server::respond::Problem;

/// Clients compare the type as text, without parameters.
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// `OCI-Filters-Applied`
const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

/// Answers GET and HEAD for what refers to a manifest.
pub(in crate::server) async fn answer_referrers(call: &Call<'_>, digest: &Digest) -> Answer {
    let listed = call.registry.list_referrers(call.context, call.repository, digest, &call.route.query).await;
    let list = listed.map_err(|error| match error {
        // Clients take an unknown name for a fault, and any other 404 for "look at the tags instead".
        RegistryError::NameUnknown(_) => Problem::from(RegistryError::ManifestUnknown(digest.to_string())),
        other => Problem::from(other),
    })?;
    let mut response = json_response(list.body);
    let headers = response.headers_mut();
    set_json(headers, INDEX);
    if list.filtered {
        headers.insert(FILTERS_APPLIED, HeaderValue::from_static("artifactType"));
    }
    add_provenance(headers, &list.served);
    if let Some(next) = &list.next {
        add_next_link(headers, call.route, next);
    }
    response.extensions_mut().insert(Outcome::new(ContentLabel::Referrers, &list.served));
    Ok(response)
}
