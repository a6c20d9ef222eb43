//! The management API: what there is under `/api/v1`, who may ask, and how orders are read.

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{
    JSON, bundles, cache, collection, images, namespaces, offline, pins, restore, tags, text, verify, warm,
};
use crate::registry::hosted::Hosting;
use crate::registry::{ErrorKind, Registry, RegistryError};

/// What every path of the API begins with.
const ROOT: &str = "/api/v1";

/// Something that can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    Description,
    Offline,
    Images,
    Stats,
    Entries,
    Purge,
    Pins,
    Verify,
    WarmJobs,
    WarmJob,
    ExportPlan,
    ExportContent,
    Import,
    Namespaces,
    Namespace,
    Restore,
    Repositories,
    Tags,
    TagHistory,
    TagExpiry,
    Prune,
    Collection,
    VerifyHosted,
}

/// A path of the API.
#[derive(Debug)]
pub(super) struct ApiRoute {
    /// The path; `{id}` stands for one component.
    pub(super) path: &'static str,
    /// The methods, as `Allow` has them.
    pub(super) methods: &'static str,
    endpoint: Endpoint,
    takes: Takes,
}

/// What comes along with PUT and POST.
#[derive(Clone, Copy, Debug)]
enum Takes {
    /// An order in JSON, of so many bytes at most.
    Order(usize),
    /// A bundle, which is read as it comes, however long it is.
    Bundle,
}

const fn route(path: &'static str, methods: &'static str, endpoint: Endpoint) -> ApiRoute {
    ApiRoute { path, methods, endpoint, takes: Takes::Order(16 * 1024) }
}

impl ApiRoute {
    const fn that_takes(mut self, takes: Takes) -> Self {
        self.takes = takes;
        self
    }
}

impl Takes {
    /// Its type, by which no form of a web page is taken for one; and what to say where it is missing.
    const fn content_type(self) -> (&'static str, &'static str) {
        match self {
            Self::Order(_) => {
                ("application/json", "an order is JSON: send it with \"Content-Type: application/json\"")
            }
            Self::Bundle => (
                "application/x-tar",
                "a bundle is a tar archive: send it with \"Content-Type: application/x-tar\"",
            ),
        }
    }
}

/// Every path.
pub(super) const ROUTES: &[ApiRoute] = &[
    route("/api/v1/openapi.json", "GET, HEAD", Endpoint::Description),
    route("/api/v1/offline", "GET, HEAD, PUT", Endpoint::Offline),
    route("/api/v1/cache/images", "GET, HEAD", Endpoint::Images),
    route("/api/v1/cache/stats", "GET, HEAD", Endpoint::Stats),
    route("/api/v1/cache/entries", "GET, HEAD", Endpoint::Entries),
    route("/api/v1/cache/purge", "POST", Endpoint::Purge),
    route("/api/v1/cache/pins", "GET, HEAD, POST, DELETE", Endpoint::Pins),
    route("/api/v1/cache/verify", "GET, HEAD, POST, DELETE", Endpoint::Verify),
    // Some thousand images of long names.
    route("/api/v1/warm", "GET, HEAD, POST", Endpoint::WarmJobs).that_takes(Takes::Order(2 * 1024 * 1024)),
    route("/api/v1/warm/{id}", "GET, HEAD, DELETE", Endpoint::WarmJob),
    route("/api/v1/export", "POST", Endpoint::ExportPlan),
    // Thousands of repositories of long names.
    route("/api/v1/export/content", "POST", Endpoint::ExportContent)
        .that_takes(Takes::Order(2 * 1024 * 1024)),
    route("/api/v1/import", "POST", Endpoint::Import).that_takes(Takes::Bundle),
    route("/api/v1/namespaces", "GET, HEAD, POST", Endpoint::Namespaces),
    route("/api/v1/namespaces/{id}", "GET, HEAD, PUT, DELETE", Endpoint::Namespace),
    route("/api/v1/restore", "POST", Endpoint::Restore),
    route("/api/v1/repositories", "GET, HEAD, DELETE", Endpoint::Repositories),
    route("/api/v1/tags", "GET, HEAD, DELETE", Endpoint::Tags),
    route("/api/v1/tags/history", "GET, HEAD", Endpoint::TagHistory),
    route("/api/v1/tags/expiry", "PUT", Endpoint::TagExpiry),
    route("/api/v1/prune", "POST", Endpoint::Prune),
    route("/api/v1/collection", "GET, HEAD, POST", Endpoint::Collection),
    route("/api/v1/verify", "POST", Endpoint::VerifyHosted),
];

/// One request, from somebody who may ask, of a method that there is.
pub(super) struct Call {
    pub(super) method: Method,
    /// What stands for `{id}` in the path; empty where there is none.
    pub(super) id: String,
    pub(super) query: String,
    body: Bytes,
}

/// What a handler makes of a call.
pub(super) type Answered = Result<(StatusCode, Value), Refusal>;

/// Why nothing was done: status, and the reason with its remedy.
#[derive(Debug)]
pub(super) struct Refusal(pub(super) StatusCode, pub(super) String);

impl Refusal {
    pub(super) fn bad(message: impl Into<String>) -> Self {
        Self(StatusCode::BAD_REQUEST, message.into())
    }
}

impl From<RegistryError> for Refusal {
    fn from(error: RegistryError) -> Self {
        let status = match (&error, error.kind()) {
            (RegistryError::NameInvalid(_), _) => StatusCode::BAD_REQUEST,
            (RegistryError::ReadOnly(_), _) => StatusCode::FORBIDDEN,
            (_, ErrorKind::Client) => StatusCode::NOT_FOUND,
            (_, ErrorKind::Upstream) => StatusCode::BAD_GATEWAY,
            (_, ErrorKind::Store | ErrorKind::Internal) => {
                let source: &dyn std::error::Error = &error;
                tracing::error!(error = source, "a question to the administrator's API cannot be answered");
                StatusCode::INTERNAL_SERVER_ERROR
            }
        };
        Self(status, error.to_string())
    }
}

impl Call {
    /// Reads the order that came along.
    pub(super) fn order<T: DeserializeOwned>(&self) -> Result<T, Refusal> {
        serde_json::from_slice(&self.body).map_err(|error| Refusal::bad(format!("the body: {error}")))
    }

    /// Whether nothing is to be changed.
    pub(super) fn is_read(&self) -> bool {
        matches!(self.method, Method::GET | Method::HEAD)
    }
}

/// Whether a path belongs to the API.
pub(super) fn is_below(path: &str) -> bool {
    path.strip_prefix(ROOT).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Answers a request that [`super::AdminAccess`] lets in.
pub(super) async fn answer<B>(
    admitted: Result<(), Refusal>,
    registry: &Registry,
    hosting: &Hosting,
    request: Request<B>,
) -> Response<super::Body>
where
    B: http_body::Body + Send + Unpin,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    if let Err(refusal) = admitted {
        return refuse(refusal);
    }
    let Some((route, id)) = find(request.uri().path()).map(|(route, id)| (route, id.to_owned())) else {
        let message =
            format!("there is no {}; /api/v1/openapi.json tells what there is", request.uri().path());
        return refuse(Refusal(StatusCode::NOT_FOUND, message));
    };
    if !route.methods.split(", ").any(|method| method == request.method().as_str()) {
        let message = format!("{} takes only {}", route.path, route.methods.replace(", ", " and "));
        let mut response = refuse(Refusal(StatusCode::METHOD_NOT_ALLOWED, message));
        response.headers_mut().insert(ALLOW, HeaderValue::from_static(route.methods));
        return response;
    }
    let (parts, mut body) = request.into_parts();
    let answered = match read(&parts, &mut body, id, route.takes).await {
        Ok(call) => ask(registry, hosting, route.endpoint, &call, body).await,
        Err(refusal) => Err(refusal),
    };
    answered.unwrap_or_else(refuse)
}

/// Has a call answered; `body` is what of it was not read: a bundle.
async fn ask<B>(
    registry: &Registry,
    hosting: &Hosting,
    endpoint: Endpoint,
    call: &Call,
    body: B,
) -> Result<Response<super::Body>, Refusal>
where
    B: http_body::Body + Send + Unpin,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let answered = match endpoint {
        Endpoint::Description => describe(),
        Endpoint::Offline => offline::answer(registry, call),
        Endpoint::Images => images::answer(registry, call).await,
        Endpoint::Stats => cache::answer_stats(registry, call).await,
        Endpoint::Entries => cache::answer_entries(registry, call).await,
        Endpoint::Purge => cache::answer_purge(registry, call).await,
        Endpoint::Pins => pins::answer(registry, call).await,
        Endpoint::Verify => verify::answer(registry, call).await,
        Endpoint::WarmJobs => warm::answer_jobs(registry, call).await,
        Endpoint::WarmJob => warm::answer_job(registry, call),
        Endpoint::ExportPlan => bundles::answer_plan(registry, call).await,
        Endpoint::ExportContent => return bundles::answer_content(registry, call).await,
        Endpoint::Import => bundles::answer_import(registry, call, body).await,
        Endpoint::Namespaces => namespaces::answer_all(registry, hosting, call).await,
        Endpoint::Namespace => namespaces::answer_one(hosting, call).await,
        Endpoint::Restore => restore::answer(hosting, call).await,
        Endpoint::Repositories => tags::answer_repositories(hosting, call).await,
        Endpoint::Tags => tags::answer_tags(hosting, call).await,
        Endpoint::TagHistory => tags::answer_history(hosting, call).await,
        Endpoint::TagExpiry => tags::answer_expiry(hosting, call).await,
        Endpoint::Prune => collection::answer_prune(hosting, call).await,
        Endpoint::Collection => collection::answer_collection(hosting, call).await,
        Endpoint::VerifyHosted => collection::answer_verify(hosting, call).await,
    };
    answered.map(|(status, value)| text(status, JSON, value.to_string()))
}

/// The description of all this.
fn describe() -> Answered {
    let broken =
        |fault| Refusal(StatusCode::INTERNAL_SERVER_ERROR, format!("the description of the API: {fault}"));
    Ok((StatusCode::OK, serde_json::from_str(DESCRIPTION).map_err(broken)?))
}

/// Finds a path, and what stands for `{id}` in it.
fn find(path: &str) -> Option<(&'static ApiRoute, &str)> {
    ROUTES.iter().find_map(|route| match route.path.strip_suffix("{id}") {
        Some(start) => {
            let id = path.strip_prefix(start).filter(|id| !id.is_empty() && !id.contains('/'));
            id.map(|id| (route, id))
        }
        None => (route.path == path).then_some((route, "")),
    })
}

/// Reads a request, with the whole order where it takes one.
async fn read<B>(parts: &Parts, body: &mut B, id: String, takes: Takes) -> Result<Call, Refusal>
where
    B: http_body::Body + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let method = parts.method.clone();
    let query = parts.uri.query().unwrap_or_default().to_owned();
    let call = Call { method, id, query, body: Bytes::new() };
    if !matches!(call.method, Method::PUT | Method::POST) {
        return Ok(call);
    }
    let (content_type, message) = takes.content_type();
    let is_told = parts
        .headers
        .get(CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(content_type.as_bytes()));
    if !is_told {
        return Err(Refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, message.to_owned()));
    }
    let Takes::Order(most_bytes) = takes else { return Ok(call) };
    let too_large = || {
        let message = format!("the body is larger than {most_bytes} bytes: give the order in parts");
        Refusal(StatusCode::PAYLOAD_TOO_LARGE, message)
    };
    let announced = parts.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if announced.is_some_and(|length: u64| length > most_bytes as u64) {
        return Err(too_large());
    }
    match Limited::new(body, most_bytes).collect().await {
        Ok(body) => Ok(Call { body: body.to_bytes(), ..call }),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large()),
        Err(error) => Err(Refusal::bad(format!("the body cannot be read: {error}"))),
    }
}

/// `{"error": …}`, as every refusal of the API.
fn refuse(Refusal(status, message): Refusal) -> Response<super::Body> {
    let mut response = text(status, JSON, json!({ "error": message }).to_string());
    if status == StatusCode::UNAUTHORIZED {
        // RFC 6750, section 3.
        response
            .headers_mut()
            .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"tidegate\""));
    }
    response
}

/// What tells others of [`ROUTES`], which a test holds it to.
const DESCRIPTION: &str = include_str!("openapi.json");

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_route_is_described_and_nothing_else() {
        let (_, description) = describe().unwrap();
        let described = description["paths"].as_object().unwrap().iter().flat_map(|(path, methods)| {
            methods.as_object().unwrap().keys().map(move |method| (path.clone(), method.to_ascii_uppercase()))
        });
        // HEAD is wherever GET is.
        let routed = ROUTES.iter().flat_map(|route| {
            let methods = route.methods.split(", ").filter(|method| *method != "HEAD");
            assert_eq!(route.methods.contains("GET"), route.methods.contains("HEAD"), "{}", route.path);
            methods.map(|method| (route.path.to_owned(), method.to_owned()))
        });
        assert_eq!(described.collect::<BTreeSet<_>>(), routed.collect());
    }

    #[test]
    fn paths_are_found_whole_and_with_one_component_for_an_id() {
        let found = |path: &str| find(path).map(|(route, id)| (route.endpoint, id.to_owned()));
        assert_eq!(found("/api/v1/warm"), Some((Endpoint::WarmJobs, String::new())));
        assert_eq!(found("/api/v1/warm/a1"), Some((Endpoint::WarmJob, "a1".to_owned())));
        for path in ["/api/v1", "/api/v1/warm/", "/api/v1/warm/a/b", "/api/v1/offline/", "/api/v2/warm"] {
            assert_eq!(found(path), None, "{path}");
        }
        assert!(
            is_below("/api/v1") && is_below("/api/v1/x") && !is_below("/api/v10") && !is_below("/metrics")
        );
    }
}
