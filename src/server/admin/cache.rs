//! `/api/v1/cache`: what is cached, by the repositories that have it, and the purge.

use std::time::Duration;

use http::StatusCode;
use serde_json::{Map, Value, json};

use super::api::{Answered, Call, Refusal};
use crate::auth::RequestContext;
use crate::metadata::ContentKind;
use crate::oci::decode_query;
use crate::registry::{CacheStats, HeldContent, HoldingQuery, HoldingSums, PurgeOrder, Purged, Registry};

/// How many entries a page has where nothing is said, and the most.
const PAGE: u32 = 1000;
const LONGEST_PAGE: u32 = 10_000;

/// Answers GET of the sums.
pub(super) async fn answer_stats(registry: &Registry, call: &Call) -> Answered {
    if let Some((name, _)) = decode_query(&call.query).first() {
        return Err(Refusal::bad(format!("unknown parameter {name}: there is none")));
    }
    let stats = registry.cache_stats(&RequestContext::administrator()).await?;
    Ok((StatusCode::OK, report_stats(&stats)))
}

/// Answers GET of entries.
pub(super) async fn answer_entries(registry: &Registry, call: &Call) -> Answered {
    let (mut query, mut last, mut limit) = (HoldingQuery::default(), None, PAGE);
    for (name, value) in decode_query(&call.query) {
        match name.as_str() {
            "last" => last = Some(value),
            "n" => {
                let number = value.parse().ok().filter(|number| (1..=LONGEST_PAGE).contains(number));
                let wrong = || format!("n={value}: write a number from 1 to {LONGEST_PAGE}");
                limit = number.ok_or_else(wrong).map_err(Refusal::bad)?;
            }
            _ => set(&mut query, &name, &value, "n and last")?,
        }
    }
    let context = RequestContext::administrator();
    let list = registry.list_holdings(&context, &query, last.as_deref(), limit).await?;
    let entries: Vec<_> = list.holdings.iter().map(report_entry).collect();
    Ok((StatusCode::OK, json!({ "entries": entries, "next": list.next })))
}

/// Answers POST of a purge.
pub(super) async fn answer_purge(registry: &Registry, call: &Call) -> Answered {
    let order = read_order(call.order()?)?;
    let purged = registry.purge(&RequestContext::administrator(), &order).await?;
    Ok((StatusCode::OK, report_purge(&order, &purged)))
}

/// Reads an order to purge. Everything is purged only for who says so.
fn read_order(order: Map<String, Value>) -> Result<PurgeOrder, Refusal> {
    let (mut read, mut all) = (PurgeOrder::default(), false);
    for (name, value) in order {
        match (name.as_str(), value) {
            (_, Value::Null) => {}
            ("all", Value::Bool(told)) => all = told,
            ("dry_run", Value::Bool(told)) => read.dry_run = told,
            ("all" | "dry_run", _) => return Err(Refusal::bad(format!("{name}: write true or false"))),
            (_, Value::String(value)) => set(&mut read.query, &name, &value, "all and dry_run")?,
            (_, Value::Number(value)) => set(&mut read.query, &name, &value.to_string(), "all and dry_run")?,
            _ => return Err(Refusal::bad(format!("{name}: write a text or a number"))),
        }
    }
    match (all, read.query == HoldingQuery::default()) {
        (false, true) => Err(Refusal::bad(
            "nothing says what is to be purged: name upstream, repository, tag, digest, kind, \
                stored_for_seconds, unused_for_seconds or min_size_bytes; or say \"all\": true",
        )),
        (true, false) => Err(Refusal::bad("all is said beside what limits it: leave one of them out")),
        _ => Ok(read),
    }
}

/// Sets a part of a query.
pub(super) fn set(query: &mut HoldingQuery, name: &str, value: &str, others: &str) -> Result<(), Refusal> {
    let wrong = |remedy: &str| Refusal::bad(format!("{name}={value}: {remedy}"));
    let number = || value.parse::<u64>().map_err(|_fault| wrong("write a whole number"));
    match name {
        "upstream" => query.upstream = Some(value.to_owned()),
        "repository" => query.repository = Some(value.to_owned()),
        "tag" => query.tag = Some(value.parse().map_err(|fault| wrong(&format!("{fault}")))?),
        "digest" => query.digest = Some(value.parse().map_err(|fault| wrong(&format!("{fault}")))?),
        "kind" => {
            let kinds = [ContentKind::Blob, ContentKind::Manifest];
            let kind = kinds.into_iter().find(|kind| kind.as_str() == value);
            query.kind = Some(kind.ok_or_else(|| wrong("write blob or manifest"))?);
        }
        "stored_for_seconds" => query.stored_for = Some(Duration::from_secs(number()?)),
        "unused_for_seconds" => query.unused_for = Some(Duration::from_secs(number()?)),
        "min_size_bytes" => query.least_bytes = Some(number()?),
        _ => {
            return Err(Refusal::bad(format!(
                "{name} is not known: there are upstream, repository, tag, digest, kind, stored_for_seconds, \
                 unused_for_seconds, min_size_bytes, {others}"
            )));
        }
    }
    Ok(())
}

fn report_stats(stats: &CacheStats) -> Value {
    let upstreams = stats.upstreams.iter().map(|sums| {
        let mut report = report_sums(sums);
        report["name"] = sums.upstream.as_str().into();
        report
    });
    json!({
        "upstreams": upstreams.collect::<Vec<_>>(),
        "total": report_sums(&stats.total),
        "pins": stats.pins,
        "budget_bytes": stats.budget_bytes,
        "min_free_bytes": stats.min_free_bytes,
        "free_bytes": stats.free_bytes,
    })
}

fn report_sums(sums: &HoldingSums) -> Value {
    json!({
        "tags": sums.tags,
        "manifests": sums.manifests,
        "blobs": sums.blobs,
        "bytes": sums.bytes,
        "pinned_bytes": sums.pinned_bytes,
    })
}

fn report_entry(held: &HeldContent) -> Value {
    let HeldContent { repository, content, tags, verified_at, is_pinned } = held;
    json!({
        "repository": repository,
        "digest": content.digest.to_string(),
        "kind": content.kind.as_str(),
        "media_type": content.media_type.as_ref().map(crate::oci::MediaType::as_str),
        "size_bytes": content.size_bytes,
        "tags": tags.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "stored_at": content.stored_at.to_rfc3339(),
        "last_used_at": content.last_used_at.to_rfc3339(),
        "verified_at": verified_at.map(crate::runtime::Timestamp::to_rfc3339),
        "is_pinned": is_pinned,
    })
}

fn report_purge(order: &PurgeOrder, purged: &Purged) -> Value {
    json!({
        "dry_run": order.dry_run,
        "entries": purged.holdings,
        "tags": purged.tags,
        "manifests": purged.manifests,
        "blobs": purged.blobs,
        "bytes": purged.bytes,
        "shared": purged.shared,
        "shared_bytes": purged.shared_bytes,
        "pinned": purged.pinned,
        "pinned_bytes": purged.pinned_bytes,
        "stuck": purged.stuck,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(order: Value) -> Result<PurgeOrder, String> {
        let Value::Object(order) = order else { panic!("an order is an object") };
        read_order(order).map_err(|refusal| refusal.1)
    }

    #[test]
    fn an_order_to_purge_says_what_it_means() {
        let order =
            read(json!({ "upstream": "docker.io", "unused_for_seconds": 60, "dry_run": true })).unwrap();
        let query = HoldingQuery {
            upstream: Some("docker.io".into()),
            unused_for: Some(Duration::from_mins(1)),
            ..HoldingQuery::default()
        };
        assert_eq!((order.query, order.dry_run), (query, true));
        assert_eq!(read(json!({ "all": true, "tag": null })).unwrap().query, HoldingQuery::default());
        for (bad, reason) in [
            (json!({}), "\"all\": true"),
            (json!({ "dry_run": true }), "\"all\": true"),
            (json!({ "all": false }), "\"all\": true"),
            (json!({ "all": true, "tag": "1" }), "leave one of them out"),
            (json!({ "all": "yes" }), "write true or false"),
            (json!({ "tags": "1" }), "tags is not known"),
            (json!({ "tag": ["1"] }), "write a text or a number"),
            (json!({ "tag": "a b" }), "tag=a b"),
            (json!({ "digest": "sha256:1" }), "digest=sha256:1"),
            (json!({ "kind": "layer" }), "write blob or manifest"),
            (json!({ "min_size_bytes": -1 }), "write a whole number"),
            (json!({ "unused_for_seconds": "1d" }), "write a whole number"),
        ] {
            let told = read(bad.clone()).unwrap_err();
            assert!(told.contains(reason), "{bad}: {told}");
        }
    }
}
