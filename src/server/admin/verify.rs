//! `/api/v1/cache/verify`: has content compared with its digests, and tells what was found.

use http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::api::{Answered, Call, Refusal};
use super::cache;
use crate::auth::RequestContext;
use crate::registry::{
    Damage, HoldingQuery, IndexFound, Registry, VerifyError, VerifyFinding, VerifyOrder, VerifyState,
    VerifyStatus,
};

/// Answers GET of the latest verification, POST of a new one and DELETE of the one that runs.
pub(super) async fn answer(registry: &Registry, call: &Call) -> Answered {
    match call.method {
        Method::POST => {
            let order = read_order(call.order()?)?;
            let (id, joined) = registry.verify(&RequestContext::administrator(), order).await?;
            Ok((StatusCode::ACCEPTED, json!({ "id": id, "joined": joined })))
        }
        Method::DELETE => match registry.cancel_verification() {
            Some(id) => Ok((StatusCode::OK, json!({ "id": id }))),
            None => Err(none("no verification runs")),
        },
        _ => match registry.find_verification() {
            Some(status) => Ok((StatusCode::OK, report(&status))),
            None => Err(none("there was no verification since the server was started")),
        },
    }
}

fn none(what: &str) -> Refusal {
    Refusal(StatusCode::NOT_FOUND, format!("{what}; POST begins one"))
}

impl From<VerifyError> for Refusal {
    fn from(error: VerifyError) -> Self {
        match error {
            VerifyError::Registry(error) => error.into(),
            VerifyError::Busy(_) => Self(StatusCode::CONFLICT, error.to_string()),
        }
    }
}

/// Reads an order to verify.
fn read_order(order: Map<String, Value>) -> Result<VerifyOrder, Refusal> {
    let mut read = VerifyOrder { query: HoldingQuery::default(), heals: true, rate_bytes: None };
    for (name, value) in order {
        match (name.as_str(), value) {
            (_, Value::Null) => {}
            ("heal", Value::Bool(told)) => read.heals = told,
            ("heal", _) => return Err(Refusal::bad("heal: write true or false")),
            ("rate_bytes", value) => {
                let rate = value.as_u64().filter(|rate| *rate > 0);
                let wrong = || Refusal::bad(format!("rate_bytes={value}: write a whole number above 0"));
                read.rate_bytes = Some(rate.ok_or_else(wrong)?);
            }
            (_, Value::String(value)) => cache::set(&mut read.query, &name, &value, OTHERS)?,
            (_, Value::Number(value)) => cache::set(&mut read.query, &name, &value.to_string(), OTHERS)?,
            _ => return Err(Refusal::bad(format!("{name}: write a text or a number"))),
        }
    }
    Ok(read)
}

/// What an order may hold beside a query.
const OTHERS: &str = "heal and rate_bytes";

fn report(status: &VerifyStatus) -> Value {
    json!({
        "id": status.id,
        "state": status.state.as_str(),
        "is_over": status.state != VerifyState::Running,
        "reason": status.reason,
        "begun_at": status.begun_at.to_rfc3339(),
        "items": status.items,
        "bytes": status.bytes,
        "checked_items": status.checked_items,
        "checked_bytes": status.checked_bytes,
        "damaged": status.damaged,
        "healed": status.healed,
        "unchecked": status.unchecked,
        "index": status.index.map(IndexFound::as_str),
        "findings": status.findings.iter().map(report_finding).collect::<Vec<_>>(),
    })
}

fn report_finding(finding: &VerifyFinding) -> Value {
    json!({
        "digest": finding.digest.to_string(),
        "kind": finding.kind.as_str(),
        "size_bytes": finding.size_bytes,
        "damage": finding.damage.map(Damage::as_str),
        "state": finding.state.as_str(),
        "reason": finding.reason,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(order: Value) -> Result<VerifyOrder, String> {
        let Value::Object(order) = order else { panic!("an order is an object") };
        read_order(order).map_err(|refusal| refusal.1)
    }

    #[test]
    fn an_order_to_verify_means_everything_unless_it_says_what() {
        let all = VerifyOrder { query: HoldingQuery::default(), heals: true, rate_bytes: None };
        assert_eq!(read(json!({})).unwrap(), all);
        let order = read(json!({ "tag": "1", "heal": false, "rate_bytes": 5 })).unwrap();
        let query = HoldingQuery { tag: Some("1".parse().unwrap()), ..HoldingQuery::default() };
        assert_eq!(order, VerifyOrder { query, heals: false, rate_bytes: Some(5) });
        for (bad, reason) in [
            (json!({ "heal": 1 }), "write true or false"),
            (json!({ "rate_bytes": 0 }), "above 0"),
            (json!({ "rate_bytes": "1MiB" }), "above 0"),
            (json!({ "all": true }), "all: write a text"),
            (json!({ "tags": "1" }), "heal and rate_bytes"),
        ] {
            let told = read(bad.clone()).unwrap_err();
            assert!(told.contains(reason), "{bad}: {told}");
        }
    }
}
