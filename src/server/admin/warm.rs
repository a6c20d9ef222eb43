//! `/api/v1/warm`: has images made complete ahead of time, and tells how that goes.

use std::net::SocketAddr;

use http::{Method, Request, Response, StatusCode};
use http_body::Body;
use serde_json::{Value, json};

use super::offline::{Refusal, read_order, require_local};
use super::{JSON, not_allowed, text};
use crate::registry::{Registry, WarmRequest, WarmState, WarmStatus, WarmedImage};

/// All jobs.
pub(super) const PATH: &str = "/api/v1/warm";

/// What the path of one job begins with.
pub(super) const BELOW: &str = "/api/v1/warm/";

/// Some thousand images of long names.
const MAX_ORDER_BYTES: usize = 2 * 1024 * 1024;

/// Answers GET and POST of all jobs, GET and DELETE of one.
pub(super) async fn answer<B>(
    registry: &Registry,
    request: Request<B>,
    client: SocketAddr,
) -> Response<super::Body>
where
    B: Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let id = request.uri().path().strip_prefix(BELOW).map(str::to_owned);
    let answered = match (&id, request.method()) {
        (None, &Method::GET | &Method::HEAD) => Ok((StatusCode::OK, list(registry))),
        (None, &Method::POST) => order(registry, request, client).await,
        (Some(id), &Method::GET | &Method::HEAD) => find(registry, id),
        (Some(id), &Method::DELETE) => {
            require_local(request.headers(), client).and_then(|()| cancel(registry, id))
        }
        (None, _) => return not_allowed("GET, HEAD, POST"),
        (Some(_), _) => return not_allowed("GET, HEAD, DELETE"),
    };
    match answered {
        Ok((status, value)) => text(status, JSON, value.to_string()),
        Err(Refusal(status, message)) => text(status, JSON, json!({ "error": message }).to_string()),
    }
}

fn list(registry: &Registry) -> Value {
    let job = |status: &WarmStatus| json!({ "id": status.id, "state": status.state.as_str(), "images": status.images.len() });
    json!({ "jobs": registry.list_warm().iter().map(job).collect::<Vec<_>>() })
}

async fn order<B>(
    registry: &Registry,
    request: Request<B>,
    client: SocketAddr,
) -> Result<(StatusCode, Value), Refusal>
where
    B: Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let request: WarmRequest = read_order(request, client, MAX_ORDER_BYTES).await?;
    let bad = |error: crate::registry::WarmError| Refusal(StatusCode::BAD_REQUEST, error.to_string());
    let id = registry.warm(request.into_order().map_err(bad)?).await.map_err(bad)?;
    Ok((StatusCode::ACCEPTED, json!({ "id": id })))
}

fn find(registry: &Registry, id: &str) -> Result<(StatusCode, Value), Refusal> {
    registry.find_warm(id).map(|status| (StatusCode::OK, report(&status))).ok_or_else(|| unknown(id))
}

fn cancel(registry: &Registry, id: &str) -> Result<(StatusCode, Value), Refusal> {
    if registry.cancel_warm(id) { Ok((StatusCode::OK, json!({ "id": id }))) } else { Err(unknown(id)) }
}

fn unknown(id: &str) -> Refusal {
    let message = format!("there is no job {id}: it never was, or was over long ago; GET {PATH} lists them");
    Refusal(StatusCode::NOT_FOUND, message)
}

/// A job as JSON.
fn report(status: &WarmStatus) -> Value {
    json!({
        "id": status.id,
        "state": status.state.as_str(),
        "is_over": !matches!(status.state, WarmState::Waiting | WarmState::Running),
        "images": status.images.iter().map(report_image).collect::<Vec<_>>(),
    })
}

fn report_image(image: &WarmedImage) -> Value {
    json!({
        "image": image.name,
        "state": image.state.as_str(),
        "reason": image.reason,
        "stored_bytes": image.stored_bytes,
        "total_bytes": image.total_bytes,
        "fetched_bytes": image.fetched_bytes,
    })
}
