//! The administrator's listener: health, metrics, and the management API under `/api/v1`.

mod access;
mod api;
mod bundles;
mod cache;
mod collection;
mod health;
mod images;
mod namespaces;
mod offline;
mod parameters;
mod pins;
mod restore;
mod tags;
mod verify;
mod warm;

use std::net::SocketAddr;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use prometheus::TextEncoder;
use tokio_util::sync::CancellationToken;

pub use access::AdminAccess;
pub use health::{Advice, Condition, ReadinessCheck};

use super::body::ResponseBody;
use crate::registry::Registry;
use crate::registry::hosted::Hosting;

/// A body: mostly small, and all at hand.
type Body = ResponseBody;

/// Answers one request to the administrator's listener.
pub(super) async fn answer<B>(
    admin: &Admin,
    registry: &Registry,
    hosting: &Hosting,
    request: Request<B>,
    client: SocketAddr,
) -> Response<Body>
where
    B: http_body::Body + Send + Unpin,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    if !api::is_below(request.uri().path()) {
        return admin.answer(&request).await;
    }
    let admitted = admin.access.require(request.headers(), request.uri(), client);
    Box::pin(api::answer(admitted, registry, hosting, request)).await
}

/// Answers questions about how the node does.
pub(super) struct Admin {
    pub(super) metrics: prometheus::Registry,
    /// Who may use the API. Health and metrics are open.
    pub(super) access: AdminAccess,
    pub(super) checks: Vec<ReadinessCheck>,
    /// What is told beside them.
    pub(super) advice: Advice,
    /// Cancelled when the server takes no new requests any more.
    pub(super) shutdown: CancellationToken,
}

impl Admin {
    /// Answers one request.
    pub(super) async fn answer<B>(&self, request: &Request<B>) -> Response<Body> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return not_allowed("GET, HEAD");
        }
        match request.uri().path() {
            // That it answers is all there is to say: a process that waits for others is alive.
            "/health/live" => text(StatusCode::OK, JSON, r#"{"status":"alive"}"#),
            "/health/ready" => {
                let readiness = health::ask(&self.checks, &self.advice, self.shutdown.is_cancelled()).await;
                let status =
                    if readiness.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
                text(status, JSON, readiness.to_json())
            }
            "/metrics" => self.metrics_page(),
            _ => text(StatusCode::NOT_FOUND, PLAIN, "not found\n"),
        }
    }

    fn metrics_page(&self) -> Response<Body> {
        match TextEncoder::new().encode_to_string(&self.metrics.gather()) {
            Ok(page) => text(StatusCode::OK, prometheus::TEXT_FORMAT, page),
            Err(error) => {
                tracing::error!(%error, "the metrics cannot be written");
                text(StatusCode::INTERNAL_SERVER_ERROR, PLAIN, "the metrics cannot be written\n")
            }
        }
    }
}

fn not_allowed(methods: &'static str) -> Response<Body> {
    let mut response =
        text(StatusCode::METHOD_NOT_ALLOWED, PLAIN, format!("only {}\n", methods.replace(", ", " and ")));
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
    response
}

fn text(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(ResponseBody::whole(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

const PLAIN: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
