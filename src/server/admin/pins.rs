//! `/api/v1/cache/pins`: images that eviction and purges leave alone.

use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::api::{Answered, Call, Refusal};
use crate::auth::RequestContext;
use crate::oci::decode_query;
use crate::registry::{PinError, PinnedImage, Registry};

/// What is to be pinned.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    image: String,
}

/// Answers GET of all pins, POST of a new one and DELETE of one.
pub(super) async fn answer(registry: &Registry, call: &Call) -> Answered {
    let context = RequestContext::administrator();
    match call.method {
        Method::POST => {
            let order: Order = call.order()?;
            let pinned = registry.pin(&context, &order.image).await?;
            Ok((StatusCode::OK, report(&pinned)))
        }
        Method::DELETE => {
            let query = decode_query(&call.query);
            let [(name, image)] = query.as_slice() else {
                return Err(Refusal::bad("say which: ?image=docker.io/library/alpine:3"));
            };
            if name != "image" {
                return Err(Refusal::bad(format!("{name} is not known: there is only image")));
            }
            registry.unpin(&context, image).await?;
            Ok((StatusCode::OK, json!({ "image": image })))
        }
        _ => {
            let pins = registry.list_pins(&context).await?;
            Ok((StatusCode::OK, json!({ "pins": pins.iter().map(report).collect::<Vec<_>>() })))
        }
    }
}

impl From<PinError> for Refusal {
    fn from(error: PinError) -> Self {
        let status = match error {
            PinError::Invalid(_) => StatusCode::BAD_REQUEST,
            PinError::NotHere(_) | PinError::NotPinned(_) => StatusCode::NOT_FOUND,
            PinError::OverBudget { .. } => StatusCode::CONFLICT,
            PinError::Registry(error) => return error.into(),
        };
        Self(status, error.to_string())
    }
}

fn report(pin: &PinnedImage) -> Value {
    json!({
        "image": pin.image,
        "digest": pin.digest.to_string(),
        "reason": pin.reason.as_str(),
        "pinned_at": pin.pinned_at.to_rfc3339(),
        "items": pin.items,
        "stored": pin.stored,
        "stored_bytes": pin.stored_bytes,
    })
}
