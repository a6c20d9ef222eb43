//! From a request to its answer: identify, route, ask the policy, call the handler, record.
//!
//! Whatever happens in a handler, the client gets an answer, and the log gets one line.

use std::any::Any;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, VIA};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body;

use super::body::ResponseBody;
use super::distribution::{self, Answer, Call};
use super::exchange::Exchange;
use super::gate::Gate;
use super::hosted;
use super::metrics::ServerMetrics;
use super::respond::{self, Problem};
use super::route::{self, Operation, Route, RouteError, Target};
use crate::auth::{RequestContext, RequestId, policy};
use crate::oci::{ErrorCode, RepositoryName};
use crate::registry::hosted::Hosting;
use crate::registry::{Registry, RegistryError, Repository, Spelling};
use crate::upstream;

/// Answers requests to the registry API.
pub(super) struct Dispatcher {
    pub(super) registry: Arc<Registry>,
    pub(super) hosting: Hosting,
    pub(super) gate: Gate,
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
        B: Body<Data = Bytes> + Send + Unpin,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.front
            .answer(
                request,
                client,
                async |parts: &Parts, route: &Route, context: &RequestContext, body: &mut B| {
                    self.call_handler(parts, route, context, client, body).await
                },
            )
            .await
    }

    async fn call_handler<B>(
        &self,
        parts: &Parts,
        route: &Route,
        context: &RequestContext,
        client: SocketAddr,
        body: &mut B,
    ) -> Answer
    where
        B: Body<Data = Bytes> + Send + Unpin,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        if self.hosting.may_host_anything() || matches!(route.target, Target::Token) {
            let hosted = Box::pin(self.call_hosted(parts, route, context, client, body)).await;
            if let Some(answer) = hosted {
                return answer;
            }
        }
        let (name, operation) = match &route.target {
            Target::Base { registry } => return self.answer_base(route, registry.as_deref()),
            Target::Catalog => {
                return Box::pin(distribution::answer_catalog(&self.registry, &self.hosting, context, route))
                    .await;
            }
            Target::Token => return Err(RouteError::NoEndpoint.into()),
            Target::Repository { name, operation } => (name, operation),
        };
        policy::require(context, route.action()).map_err(RegistryError::from)?;
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

    /// Answers what is about content that is hosted here. What is cached is for anybody: there, nobody is asked who they
    /// are.
    async fn call_hosted<B>(
        &self,
        parts: &Parts,
        route: &Route,
        anonymous: &RequestContext,
        client: SocketAddr,
        body: &mut B,
    ) -> Option<Answer>
    where
        B: Body<Data = Bytes> + Send + Unpin,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (gate, id, client) = (&self.gate, anonymous.request_id, client.ip());
        match &route.target {
            Target::Token => Some(gate.answer_token(&self.hosting, parts, route, client, body).await),
            Target::Base { registry: None }
                if self.hosting.hosts_anything() && route.prefix.is_none() && route.ns.is_none() =>
            {
                gate.require_login(parts, route, id, client).await.err().map(Err)
            }
            Target::Base { .. } => None,
            Target::Catalog if !self.hosting.hosts_anything() => None,
            Target::Catalog => Some(match gate.admit(parts, route, id, client).await {
                Ok(context) => {
                    distribution::answer_catalog(&self.registry, &self.hosting, &context, route).await
                }
                Err(problem) => Err(problem),
            }),
            Target::Repository { operation, .. } => {
                let repository = &match self.find_hosted(parts, route)? {
                    Ok(repository) => repository,
                    Err(problem) => return Some(Err(problem)),
                };
                Some(match gate.admit(parts, route, id, client).await {
                    Ok(context) => {
                        let (hosting, context) = (&self.hosting, &context);
                        let call = hosted::Call { hosting, gate, context, repository, route, parts };
                        hosted::answer(&call, operation, body).await
                    }
                    Err(problem) => Err(problem),
                })
            }
        }
    }

    /// The hosted repository that a request means, if it means one. Fails where that is not known: a name must not go to
    /// an upstream only because the catalogue is away.
    fn find_hosted(&self, parts: &Parts, route: &Route) -> Option<Result<RepositoryName, Problem>> {
        let own_hosts: Vec<&str> = host_of(parts).into_iter().chain(self.external_host.as_deref()).collect();
        let names = self.registry.names();
        let spelling = route.spelling(&own_hosts)?;
        let name = names.find_unqualified(&spelling)?;
        let namespace = name.split('/').next().unwrap_or(name);
        if !self.hosting.knows_namespaces() {
            let message = "this server has not reached its catalogue since it was set up: whether the name is of a \
                hosted namespace is not known; names that begin with a registry's are served";
            return Some(Err(respond::of_store("catalogue", true, message)));
        }
        self.hosting.hosts(namespace).then(|| name.parse().ok()).flatten().map(Ok)
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
        H: AsyncFnOnce(&Parts, &Route, &RequestContext, &mut B) -> Answer,
    {
        let (parts, mut body) = request.into_parts();
        let id = request_id(&parts.headers);
        let mut exchange = Exchange::begin(&self.metrics, &parts, client, id);
        let context = RequestContext::anonymous(id);
        let mut ns = None;
        let work = async {
            let route = self.admit(&parts, &mut exchange)?;
            let response = handler(&parts, &route, &context, &mut body).await?;
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

    /// Finds out what is asked for.
    fn admit(&self, parts: &Parts, exchange: &mut Exchange) -> Result<Route, Problem> {
        if is_loop(&parts.headers, &self.node_id) {
            let message = "the request has passed this server already: an upstream leads back to it";
            let status = StatusCode::LOOP_DETECTED;
            return Err(Problem::new(status, ErrorCode::Unavailable, "loop", message));
        }
        let route = route::parse(&parts.method, parts.uri.path(), parts.uri.query())?;
        exchange.set_route(route.as_str());
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
