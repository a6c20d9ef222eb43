//! `/api/v1/namespaces`: what is hosted here, and what is allowed there.

use http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::api::{Answered, Call, Refusal};
use super::parameters::{Parameters, parse};
use crate::auth::RequestContext;
use crate::metadata::catalogue::{CatalogueError, Namespace, Place, Stamp};
use crate::registry::Registry;
use crate::registry::hosted::{DeletedPlace, Hosting, HostingError, NamespacePolicy, NamespaceRecord};

/// Answers GET of all namespaces and POST of a new one.
pub(super) async fn answer_all(registry: &Registry, hosting: &Hosting, call: &Call) -> Answered {
    let context = RequestContext::administrator();
    if call.method == Method::POST {
        let mut order: Map<String, Value> = call.order()?;
        let name = order.remove("name").unwrap_or_default();
        let name = name.as_str().ok_or_else(|| Refusal::bad("name: write the name of the namespace"))?;
        let name: Namespace = parse("name", name)?;
        let policy = read_policy(order)?;
        if registry.names().knows(name.as_str()) {
            // In a path, the registry would come first.
            let message = format!("{name} is the name of an upstream: no request could mean the namespace");
            return Err(Refusal(StatusCode::CONFLICT, message));
        }
        let created = hosting.create_namespace(&context, &name, &policy).await?;
        return Ok((StatusCode::CREATED, report(&created)));
    }
    let parameters = Parameters::read(call, &["n", "last", "deleted"])?;
    let (last, limit) = (parameters.find::<Namespace>("last")?, parameters.limit()?);
    let listed: Vec<_> = if parameters.find("deleted")?.unwrap_or(false) {
        let deleted = hosting.list_deleted_namespaces(&context, last.as_ref(), limit).await?;
        deleted.iter().map(report_deleted).collect()
    } else {
        hosting.list_namespaces(&context, last.as_ref(), limit).await?.iter().map(report).collect()
    };
    Ok((StatusCode::OK, page("namespaces", &listed, limit)))
}

/// Answers GET of one, PUT of its policy and DELETE.
pub(super) async fn answer_one(hosting: &Hosting, call: &Call) -> Answered {
    let context = RequestContext::administrator();
    let name: Namespace = parse("name", &call.id)?;
    let answer = match call.method {
        Method::PUT => {
            let policy = read_policy(call.order()?)?;
            report(&hosting.set_namespace_policy(&context, &name, &policy).await?)
        }
        Method::DELETE => report_deleted(&hosting.delete_namespace(&context, &name).await?),
        _ => report(&hosting.find_namespace(&context, &name).await?),
    };
    Ok((StatusCode::OK, answer))
}

fn read_policy(order: Map<String, Value>) -> Result<NamespacePolicy, Refusal> {
    let read = NamespacePolicy::from_value(Value::Object(order));
    read.map_err(|fault| Refusal::bad(format!("the policy: {fault}")))
}

impl From<HostingError> for Refusal {
    fn from(error: HostingError) -> Self {
        let status = match &error {
            HostingError::Refused(_) => StatusCode::FORBIDDEN,
            HostingError::Conflict(_)
            | HostingError::Immutable { .. }
            | HostingError::Catalogue(CatalogueError::TagImmutable(_)) => StatusCode::CONFLICT,
            HostingError::Gone { .. } => StatusCode::GONE,
            HostingError::Catalogue(CatalogueError::Store(_)) | HostingError::Store(_) => {
                let source: &dyn std::error::Error = &error;
                tracing::error!(error = source, "an order about what is hosted cannot be followed");
                StatusCode::INTERNAL_SERVER_ERROR
            }
            HostingError::Catalogue(error) if error.is_transient() => StatusCode::SERVICE_UNAVAILABLE,
            HostingError::Catalogue(_) => StatusCode::NOT_FOUND,
            _ => StatusCode::BAD_REQUEST,
        };
        Self(status, error.to_string())
    }
}

/// A page of a listing; `next` is what the next one comes after, where there may be one.
pub(super) fn page(name: &str, items: &[Value], limit: u32) -> Value {
    let is_full = items.len() >= limit as usize;
    let next = items.last().filter(|_| is_full).map(|item| item["name"].clone());
    json!({ name: items, "next": next })
}

pub(super) fn report(namespace: &NamespaceRecord) -> Value {
    let mut report = report_place(&namespace.place);
    report["policy"] = serde_json::to_value(&namespace.policy).unwrap_or_default();
    report
}

/// What was deleted, and until when it can be restored for certain.
pub(super) fn report_deleted<N: std::fmt::Display>(deleted: &DeletedPlace<N>) -> Value {
    let mut report = report_place(&deleted.place);
    report["restorable_until"] = deleted.restorable_until.to_rfc3339().into();
    report
}

pub(super) fn report_place<N: std::fmt::Display>(place: &Place<N>) -> Value {
    let at = |stamp: &Stamp| stamp.at.to_rfc3339();
    json!({
        "name": place.name.to_string(),
        "created_at": at(&place.created),
        "created_by": &*place.created.by,
        "deleted_at": place.deleted.as_ref().map(at),
        "deleted_by": place.deleted.as_ref().map(|stamp| &*stamp.by),
    })
}
