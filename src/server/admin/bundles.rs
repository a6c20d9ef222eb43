//! `/api/v1/export` and `/api/v1/import`: images leave for a bundle, and come by one.

use bytes::{Buf as _, Bytes};
use futures_util::{Stream, StreamExt as _, stream};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use http_body::Body;
use http_body_util::BodyExt as _;
use serde::Deserialize;
use serde_json::{Value, json};

use super::api::{Answered, Call, Refusal};
use crate::bundle::ItemKind;
use crate::oci::{Digest, Platform, decode_query};
use crate::registry::{
    ErrorKind, ExportError, ExportOrder, ExportedContent, ImportError, ImportOrder, Imported, NextBlob,
    Registry, RegistryError, TagFate, TagRule,
};
use crate::server::body::ResponseBody;
use crate::server::distribution::drain;
use crate::server::transmit::Piece;

/// An image that is to be carried.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PlanRequest {
    image: String,
    #[serde(default)]
    platforms: Vec<String>,
    #[serde(default)]
    referrers: Option<bool>,
}

/// Content of a plan.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ContentRequest {
    kind: ItemKind,
    digest: String,
    repositories: Vec<String>,
    #[serde(default)]
    next: Vec<NextRequest>,
}

/// A blob that will be asked for after it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NextRequest {
    digest: String,
    size_bytes: u64,
}

/// Answers POST for a plan.
pub(super) async fn answer_plan(registry: &Registry, call: &Call) -> Answered {
    let request: PlanRequest = call.order()?;
    let parse = |text: &String| {
        let parsed = text.parse::<Platform>();
        parsed.map_err(|error| Refusal::bad(format!("platform \"{text}\": {error}")))
    };
    let image = request.image.parse();
    let order = ExportOrder {
        image: image.map_err(|error| Refusal::bad(format!("image \"{}\": {error}", request.image)))?,
        platforms: request.platforms.iter().map(parse).collect::<Result<_, _>>()?,
        referrers: request.referrers.unwrap_or(true),
    };
    let plan = registry.plan_export(&order).await.map_err(|error| match &error {
        ExportError::Registry { source, .. } => Refusal(status_of(source), tell(&error)),
        ExportError::Unfit { .. } => Refusal(StatusCode::UNPROCESSABLE_ENTITY, tell(&error)),
    })?;
    let plan = serde_json::to_value(&plan);
    let plan = plan.map_err(|error| Refusal(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    Ok((StatusCode::OK, plan))
}

/// Answers POST for content of a plan: with the content.
pub(super) async fn answer_content(
    registry: &Registry,
    call: &Call,
) -> Result<Response<super::Body>, Refusal> {
    let request: ContentRequest = call.order()?;
    let digest = read_digest(&request.digest)?;
    let read =
        |next: &NextRequest| Ok(NextBlob { digest: read_digest(&next.digest)?, size_bytes: next.size_bytes });
    let next = request.next.iter().map(read).collect::<Result<_, Refusal>>()?;
    let ContentRequest { kind, repositories, .. } = request;
    let content = ExportedContent { kind, digest, repositories, next };
    let opened = registry.open_export(&content).await;
    let opened = opened.map_err(|error| Refusal(status_of(&error), tell(&error)))?;
    let size_bytes = opened.size_bytes();
    let parts = stream::unfold(opened, |mut body| async move {
        let part = body.next().await?;
        Some((part.map(Piece::Bytes), body))
    });
    let mut response = Response::new(ResponseBody::stream(parts.boxed(), size_bytes));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    Ok(response)
}

fn read_digest(text: &str) -> Result<Digest, Refusal> {
    text.parse().map_err(|error| Refusal::bad(format!("digest \"{text}\": {error}")))
}

/// Answers POST of a bundle. Parameters: `replace-tags`, and `verify-key`, the public key that has to have
/// signed it.
pub(super) async fn answer_import<B>(registry: &Registry, call: &Call, mut bundle: B) -> Answered
where
    B: Body + Send + Unpin,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let imported = match read_parameters(&call.query) {
        Ok(order) => registry.import(order, parts_of(&mut bundle)).await.map_err(|error| refusal_of(&error)),
        Err(refusal) => Err(refusal),
    };
    if imported.is_err() {
        // Who is still sending a little reads the answer all the same.
        let _at_its_end = drain(bundle).await;
    }
    imported.map(|imported| (StatusCode::OK, report(&imported)))
}

/// The bytes of a body as they come.
fn parts_of<B>(body: &mut B) -> impl Stream<Item = std::io::Result<Bytes>> + Send + Unpin
where
    B: Body + Send + Unpin,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let parts = stream::unfold(body, |body| async move {
        loop {
            match body.frame().await?.map(http_body::Frame::into_data) {
                Ok(Ok(mut data)) => return Some((Ok(data.copy_to_bytes(data.remaining())), body)),
                Ok(Err(_trailers)) => {}
                Err(error) => return Some((Err(std::io::Error::other(error)), body)),
            }
        }
    });
    parts.boxed()
}

fn read_parameters(query: &str) -> Result<ImportOrder, Refusal> {
    let mut order = ImportOrder::default();
    for (name, value) in decode_query(query) {
        match name.as_str() {
            "replace-tags" if matches!(value.as_str(), "" | "true" | "1") => order.tags = TagRule::Bundle,
            "replace-tags" => {
                return Err(Refusal::bad(format!(
                    "replace-tags={value}: write it without a value, or leave it out"
                )));
            }
            "verify-key" => {
                order.keys.push(value.parse().map_err(|error| Refusal::bad(format!("verify-key: {error}")))?);
            }
            _ => {
                return Err(Refusal::bad(format!(
                    "unknown parameter {name}: there are replace-tags and verify-key"
                )));
            }
        }
    }
    Ok(order)
}

/// What an import came to, as JSON.
fn report(imported: &Imported) -> Value {
    let images = imported.images.iter().map(|image| {
        let other = match image.tag {
            Some(TagFate::Moved { from }) => Some(from),
            Some(TagFate::Kept { at }) => Some(at),
            _ => None,
        };
        json!({
            "image": image.name,
            "digest": image.digest.to_string(),
            "tag": image.tag.map(TagFate::as_str),
            "other": other.map(|other| other.to_string()),
        })
    });
    json!({
        "bundle": imported.id.to_string(),
        "signed_by": imported.signed_by.map(|key| key.to_string()),
        "images": images.collect::<Vec<_>>(),
        "items": imported.items,
        "bytes": imported.bytes,
        "new_items": imported.new_items,
        "new_bytes": imported.new_bytes,
        "evicted_items": imported.evicted.items,
        "evicted_bytes": imported.evicted.bytes,
    })
}

fn refusal_of(error: &ImportError) -> Refusal {
    let status = match error {
        ImportError::Busy
        | ImportError::BaseMissing { .. }
        | ImportError::BaseAltered { .. }
        | ImportError::Gone(_) => StatusCode::CONFLICT,
        ImportError::Source(_) | ImportError::Silent { .. } => StatusCode::BAD_REQUEST,
        ImportError::Bundle(_)
        | ImportError::Name { .. }
        | ImportError::Incomplete { .. }
        | ImportError::Stray(_)
        | ImportError::TooManyManifests { .. }
        | ImportError::TooManyParts { .. } => StatusCode::UNPROCESSABLE_ENTITY,
        ImportError::OverBudget { .. } | ImportError::NoRoom { .. } => StatusCode::INSUFFICIENT_STORAGE,
        ImportError::Store(_) | ImportError::Index(_) | ImportError::Internal => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
    };
    Refusal(status, tell(error))
}

fn status_of(error: &RegistryError) -> StatusCode {
    match error {
        // Nothing that passes: who asks must not try again and again.
        RegistryError::Offline { .. } => StatusCode::CONFLICT,
        RegistryError::Throttled { .. } => StatusCode::TOO_MANY_REQUESTS,
        RegistryError::Denied(_) => StatusCode::FORBIDDEN,
        RegistryError::UpstreamUnreachable(_) => StatusCode::GATEWAY_TIMEOUT,
        error if error.kind() == ErrorKind::Client => StatusCode::NOT_FOUND,
        error if error.kind() == ErrorKind::Upstream => StatusCode::BAD_GATEWAY,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// An error and all that caused it: who asks here is the operator.
fn tell(error: &(dyn std::error::Error + 'static)) -> String {
    let chain = std::iter::successors(Some(error), |error| error.source());
    chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_strictly() {
        let order = |query: &str| read_parameters(query).map_err(|Refusal(_, message)| message);
        let (key, _) = crate::bundle::SigningKey::generate().unwrap();
        let pairs = [("verify-key", key.public().to_string()), ("replace-tags", String::new())];
        let read = order(&crate::oci::encode_query(&pairs)).unwrap();
        assert_eq!((&read.keys[..], read.tags), (&[key.public()][..], TagRule::Bundle));
        assert_eq!(order("").unwrap().tags, TagRule::Later);
        for (bad, reason) in [
            ("replace-tags=no", "without a value"),
            ("verify-key=ed25519:AA", "44 characters"),
            ("force", "unknown parameter force"),
        ] {
            assert!(order(bad).unwrap_err().contains(reason), "{bad}");
        }
    }
}
