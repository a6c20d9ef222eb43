//! `/api/v1/offline`: which upstreams this node is offline for, and the switch.

use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::api::{Answered, Call};
use crate::registry::{LinkStatus, Registry};
use crate::upstream::Link;

/// What a switch says: `{"offline": true}` for all upstreams, `{"offline": true, "upstream": "docker.io"}`
/// for one; `null` is back to what the configuration says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    /// Has no default: who forgets it does not mean `null`.
    #[serde(deserialize_with = "Option::deserialize")]
    offline: Option<bool>,
    upstream: Option<String>,
}

/// Answers GET, HEAD and PUT.
pub(super) fn answer(registry: &Registry, call: &Call) -> Answered {
    if !call.is_read() {
        let order: Order = call.order()?;
        let wish = order.offline.map(|offline| if offline { Link::Offline } else { Link::Online });
        registry.switch(order.upstream.as_deref(), wish)?;
    }
    Ok((StatusCode::OK, report(&registry.links())))
}

/// `{"upstreams": [{"name": …, "offline": …, "switched": …}]}`; `switched` tells what was said at run time
/// from what the configuration says.
fn report(links: &[LinkStatus]) -> Value {
    let upstream = |status: &LinkStatus| {
        json!({
            "name": status.upstream,
            "offline": status.link == Link::Offline,
            "switched": status.is_switched,
        })
    };
    json!({ "upstreams": links.iter().map(upstream).collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_says_what_it_wants() {
        let read = |text: &str| {
            serde_json::from_str::<Order>(text).map(|order| (order.offline, order.upstream)).ok()
        };
        assert_eq!(read(r#"{"offline":true}"#), Some((Some(true), None)));
        assert_eq!(read(r#"{"offline":null,"upstream":"a"}"#), Some((None, Some("a".into()))));
        for bad in
            ["{}", r#"{"upstream":"a"}"#, r#"{"offline":"yes"}"#, r#"{"offline":true,"upstreams":"a"}"#, "[]"]
        {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
