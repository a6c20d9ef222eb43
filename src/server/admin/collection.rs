//! `/api/v1/prune`, `/api/v1/collection` and `/api/v1/verify`: what goes by rules, what nobody needs any more, and whether
//! the rest is whole.

use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::api::{Answered, Call};
use super::parameters::{Parameters, parse};
use crate::auth::RequestContext;
use crate::registry::hosted::{CollectionRun, Fault, Hosting, PruneOrder, PrunedTag, Removals};

/// What is to be pruned.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Prune {
    namespace: Option<String>,
    #[serde(default)]
    dry_run: bool,
}

/// What is to be collected.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Collect {
    #[serde(default)]
    dry_run: bool,
}

/// Answers POST of an order to prune.
pub(super) async fn answer_prune(hosting: &Hosting, call: &Call) -> Answered {
    let Prune { namespace, dry_run } = call.order()?;
    let namespace = namespace.map(|name| parse("namespace", &name)).transpose()?;
    let context = RequestContext::administrator();
    if let Some(name) = &namespace {
        // A wrong name must not look like a right one without tags.
        hosting.find_namespace(&context, name).await?;
    }
    let pruned = hosting.prune(&context, &PruneOrder { namespace, dry_run }).await?;
    let tag = |tag: &PrunedTag| {
        json!({
            "repository": tag.repository.as_str(),
            "name": tag.tag.as_str(),
            "digest": tag.digest.to_string(),
        })
    };
    let report = json!({
        "dry_run": dry_run,
        "repositories": pruned.repositories,
        "looked_at": pruned.looked_at,
        "removed": pruned.removed,
        "tags": pruned.tags.iter().map(tag).collect::<Vec<_>>(),
    });
    Ok((StatusCode::OK, report))
}

/// What is to be verified: all of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Verify {}

/// Answers POST of an order to verify everything that is hosted, when that is done.
pub(super) async fn answer_verify(hosting: &Hosting, call: &Call) -> Answered {
    let Verify {} = call.order()?;
    let verified = hosting.verify(&RequestContext::administrator()).await?;
    let fault = |fault: &Fault| {
        json!({
            "repository": fault.repository.as_str(),
            "of": fault.of,
            "digest": fault.digest.to_string(),
            "reason": fault.reason,
        })
    };
    let report = json!({
        "repositories": verified.repositories,
        "tags": verified.tags,
        "manifests": verified.manifests,
        "blobs": verified.blobs,
        "bytes": verified.bytes,
        "faults": verified.faults.iter().map(fault).collect::<Vec<_>>(),
    });
    Ok((StatusCode::OK, report))
}

/// Answers GET of how collection does, and POST of an order to collect.
pub(super) async fn answer_collection(hosting: &Hosting, call: &Call) -> Answered {
    let context = RequestContext::administrator();
    if call.is_read() {
        Parameters::read(call, &[])?;
        let state = hosting.collection_state(&context)?;
        let run = |run: &Option<CollectionRun>| run.as_ref().map(report_run);
        return Ok((StatusCode::OK, json!({ "running": run(&state.running), "last": run(&state.last) })));
    }
    let Collect { dry_run } = call.order()?;
    if dry_run {
        return Ok((StatusCode::OK, report(&hosting.foresee_collection(&context).await?)));
    }
    Ok((StatusCode::ACCEPTED, report_run(&hosting.start_collection(&context)?)))
}

fn report_run(run: &CollectionRun) -> Value {
    json!({
        "number": run.number,
        "started_at": run.started_at.to_rfc3339(),
        "ended_at": run.ended.map(|(at, _)| at.to_rfc3339()),
        "outcome": run.ended.map(|(_, outcome)| outcome.as_str()),
        "error": run.error,
        "removed": report(&run.removed),
    })
}

fn report(removed: &Removals) -> Value {
    json!({
        "repositories": removed.repositories,
        "manifests": removed.manifests,
        "links": removed.links,
        "blobs": removed.blobs,
        "blob_bytes": removed.blob_bytes,
        "strays": removed.strays,
        "stray_bytes": removed.stray_bytes,
        "uploads": removed.uploads,
        "upload_bytes": removed.upload_bytes,
        "freed_bytes": removed.freed_bytes(),
    })
}
