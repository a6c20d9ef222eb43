//! `/api/v1/warm`: has images made complete ahead of time, and tells how that goes.

use http::StatusCode;
use serde_json::{Value, json};

use super::api::{Answered, Call, Refusal};
use crate::registry::{Registry, WarmError, WarmRequest, WarmState, WarmStatus, WarmedImage};

/// Answers GET and POST of all jobs.
pub(super) async fn answer_jobs(registry: &Registry, call: &Call) -> Answered {
    if call.is_read() {
        return Ok((StatusCode::OK, list(registry)));
    }
    let request: WarmRequest = call.order()?;
    let bad = |error: WarmError| Refusal::bad(error.to_string());
    let id = registry.warm(request.into_order().map_err(bad)?).await.map_err(bad)?;
    Ok((StatusCode::ACCEPTED, json!({ "id": id })))
}

/// Answers GET and DELETE of one.
pub(super) fn answer_job(registry: &Registry, call: &Call) -> Answered {
    let id = &call.id;
    if call.is_read() {
        let status = registry.find_warm(id).ok_or_else(|| unknown(id))?;
        return Ok((StatusCode::OK, report(&status)));
    }
    if registry.cancel_warm(id) { Ok((StatusCode::OK, json!({ "id": id }))) } else { Err(unknown(id)) }
}

fn list(registry: &Registry) -> Value {
    let job = |status: &WarmStatus| json!({ "id": status.id, "state": status.state.as_str(), "images": status.images.len() });
    json!({ "jobs": registry.list_warm().iter().map(job).collect::<Vec<_>>() })
}

fn unknown(id: &str) -> Refusal {
    let message =
        format!("there is no job {id}: it never was, or was over long ago; GET /api/v1/warm lists them");
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
