//! From a request to its answer: identify, route, ask the policy, call the handler, record.
//!
//! Whatever happens in a handler, the client gets an answer, and the log gets one line.

use std::any::Any;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;

use futures_util::FutureExt as _;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, VIA};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body;

use super::body::ResponseBody;
use super::distribution::{self, Answer, Call};
use super::exchange::Exchange;
use super::metrics::ServerMetrics;
use super::respond::Problem;
use super::route::{self, Operation, Route, Target};
use crate::auth::{RequestContext, RequestId, policy};
use crate::oci::ErrorCode;
use crate::registry::{Registry, RegistryError, Repository, Spelling};
use crate::upstream;

/// Answers requests to the registry API.
pub(super) struct Dispatcher {
    pub(super) registry: Arc<Registry>,
    pub(super) front: Front,
    /// Host and port of `external_url`.
    pub(super) external_host: Option<String>,
}

/// What every request passes, whatever it asks for.
pub(super) struct Front {
    pub(super) metrics: ServerMetrics,
    /// The name under which this node stands in `Via`.
    pub(super) node_id: String,
}

impl Dispatcher {
    /// Answers one request. May be dropped at any await point: the record then says so.
    pub(super) async fn dispatch<B>(
        self: Arc<Self>,
        request: Request<B>,
        client: SocketAddr,
    ) -> Response<ResponseBody>
    where
        B: Body + Unpin,
    {
        self.front
            .answer(request, client, async |parts: &Parts, route: &Route, context: &RequestContext| {
                self.call_handler(parts, route, context).await
            })
            .await
    }

    async fn call_handler(&self, parts: &Parts, route: &Route, context: &RequestContext) -> Answer {
        let (name, operation) = match &route.target {
            Target::Base { registry } => return self.answer_base(route, registry.as_deref()),
            Target::Catalog => {
                return Box::pin(distribution::answer_catalog(&self.registry, context, route)).await;
            }
            Target::Repository { name, operation } => (name, operation),
        };
        let repository = &self.find_repository(parts, route)?;
        let call = Call { registry: &self.registry, context, repository, name, route, parts };
        // The engine moves a request's future before it runs, and keeps room for the largest on every
        // connection: what is large and less asked for than manifests has a box of its own.
        match operation {
            Operation::PullManifest(reference) => distribution::answer_manifest(&call, reference).await,
            Operation::PullBlob(digest) => Box::pin(distribution::answer_blob(&call, digest)).await,
            Operation::ListTags => Box::pin(distribution::answer_tags(&call)).await,
            Operation::ListReferrers(digest) => Box::pin(distribution::answer_referrers(&call, digest)).await,
            Operation::PushManifest(_)
            | Operation::DeleteManifest(_)
            | Operation::DeleteBlob(_)
            | Operation::StartUpload
            | Operation::StatUpload(_)
            | Operation::AppendUpload(_)
            | Operation::FinishUpload(_)
            | Operation::CancelUpload(_) => Err(Problem::read_only()),
        }
    }

    fn find_repository(&self, parts: &Parts, route: &Route) -> Result<Repository, RegistryError> {
        let own_hosts: Vec<&str> = host_of(parts).into_iter().chain(self.external_host.as_deref()).collect();
        let Some(spelling) = route.spelling(&own_hosts) else {
            return Err(RegistryError::Internal);
        };
        self.registry.names().resolve(&spelling)
    }

    /// A base exists under every registry that is configured.
    fn answer_base(&self, route: &Route, registry: Option<&str>) -> Answer {
        let names = self.registry.names();
        for registry in [route.prefix.as_deref(), registry].into_iter().flatten() {
            let spelling = Spelling { ns: None, prefix: Some(registry), name: "any", own_hosts: &[] };
            if let Err(error @ RegistryError::UnknownRegistry(_)) = names.resolve(&spelling) {
                return Err(error.into());
            }
        }
        Ok(distribution::answer_base())
    }
}

impl Front {
    /// Lets `handler` answer, and does all that is the same for every request.
    pub(super) async fn answer<B, H>(
        &self,
        request: Request<B>,
        client: SocketAddr,
        handler: H,
    ) -> Response<ResponseBody>
    where
        B: Body + Unpin,
        H: AsyncFnOnce(&Parts, &Route, &RequestContext) -> Answer,
    {
        let (parts, body) = request.into_parts();
        let id = request_id(&parts.headers);
        let mut exchange = Exchange::begin(&self.metrics, &parts, client, id);
        let context = RequestContext::anonymous(id);
        let mut ns = None;
        let work = async {
            let route = self.admit(&parts, &context, &mut exchange)?;
            let response = handler(&parts, &route, &context).await?;
            ns = route.ns;
            Ok(response)
        };
        // Pinned where it stands: to pass it on would take its room twice.
        let answer = AssertUnwindSafe(pin!(work)).catch_unwind().await;
        let answer = answer.unwrap_or_else(|panic| Err(Problem::internal(text_of(&*panic))));
        let mut response = answer.unwrap_or_else(|problem| tell(problem, &context));
        add_common_headers(response.headers_mut(), &context.request_id, ns.as_deref());
        let is_read = matches!(parts.method, Method::GET | Method::HEAD);
        if !is_read && !Box::pin(distribution::drain(body)).await && parts.version < Version::HTTP_2 {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if parts.method == Method::HEAD {
            response = without_body(response);
        }
        exchange.answer(&parts.method, response)
    }

    /// Finds out what is asked for, and whether it may be.
    fn admit(
        &self,
        parts: &Parts,
        context: &RequestContext,
        exchange: &mut Exchange,
    ) -> Result<Route, Problem> {
        if is_loop(&parts.headers, &self.node_id) {
            let message = "the request has passed this server already: an upstream leads back to it";
            let status = StatusCode::LOOP_DETECTED;
            return Err(Problem::new(status, ErrorCode::Unavailable, "loop", message));
        }
        let route = route::parse(&parts.method, parts.uri.path(), parts.uri.query())?;
        exchange.set_route(route.as_str());
        policy::require(context, route.action()).map_err(RegistryError::from)?;
        Ok(route)
    }
}

/// The client's identifier for the request, where it is harmless, else one of ours.
fn request_id(headers: &HeaderMap) -> RequestId {
    headers
        .get(&REQUEST_ID)
        .and_then(|value| value.to_str().ok())
        .and_then(RequestId::from_client)
        .unwrap_or_else(RequestId::random)
}

/// Whether `Via` names this node: one of its own requests went round in a circle.
fn is_loop(headers: &HeaderMap, node_id: &str) -> bool {
    let lines = headers.get_all(VIA).iter().filter_map(|line| line.to_str().ok());
    headers.contains_key(VIA) && upstream::is_own_request(lines, node_id)
}

/// The name under which the client reached this server: `:authority` or `Host`.
fn host_of(parts: &Parts) -> Option<&str> {
    let authority = parts.uri.authority().map(http::uri::Authority::as_str);
    authority.or_else(|| parts.headers.get(HOST)?.to_str().ok())
}

/// Makes an error an answer, and logs it where somebody should look at this node.
fn tell(problem: Problem, context: &RequestContext) -> Response<ResponseBody> {
    if let Some(causes) = &problem.causes {
        tracing::error!(
            request.id = %context.request_id,
            error.class = problem.class,
            error.causes = causes,
            "a request failed for a fault of this server: {causes}"
        );
    }
    problem.into_response()
}

fn add_common_headers(headers: &mut HeaderMap, id: &RequestId, ns: Option<&str>) {
    headers.insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
    if let Ok(id) = HeaderValue::from_str(id.as_str()) {
        headers.insert(REQUEST_ID, id);
    }
    // OCI distribution specification, "Registry Proxying": say which namespace was served.
    if let Some(ns) = ns.and_then(|ns| HeaderValue::from_str(ns).ok()) {
        headers.insert(OCI_NAMESPACE, ns);
    }
}

/// The answer to HEAD: all headers of the answer to GET, its size included.
fn without_body(mut response: Response<ResponseBody>) -> Response<ResponseBody> {
    let has_size = response.headers().contains_key(CONTENT_LENGTH);
    if let (false, Some(size_bytes)) = (has_size, response.body().size_bytes())
        && response.status() != StatusCode::NOT_MODIFIED
    {
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(size_bytes));
    }
    response.map(|_body| ResponseBody::empty())
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("a handler panicked: {}", text.unwrap_or("no message"))
}

/// `X-Request-Id`
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// `Docker-Distribution-Api-Version`
const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");

/// `OCI-Namespace`
const OCI_NAMESPACE: HeaderName = HeaderName::from_static("oci-namespace");
