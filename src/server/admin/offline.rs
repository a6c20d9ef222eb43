//! `/api/v1/offline`: which upstreams this node is offline for, and the switch.

use std::net::SocketAddr;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, FORWARDED, HeaderMap, HeaderName, ORIGIN, VIA};
use http::{Method, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt as _, Limited};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::{JSON, not_allowed, text};
use crate::registry::{LinkStatus, Registry, RegistryError};
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

/// Why nothing was done.
pub(super) struct Refusal(pub(super) StatusCode, pub(super) String);

/// Answers GET, HEAD and PUT.
pub(super) async fn answer<B>(
    registry: &Registry,
    request: Request<B>,
    client: SocketAddr,
) -> Response<super::Body>
where
    B: Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let refusal = match *request.method() {
        Method::GET | Method::HEAD => None,
        Method::PUT => order(registry, request, client).await.err(),
        _ => return not_allowed("GET, HEAD, PUT"),
    };
    match refusal {
        None => text(StatusCode::OK, JSON, report(&registry.links())),
        Some(Refusal(status, message)) => text(status, JSON, json!({ "error": message }).to_string()),
    }
}

async fn order<B>(registry: &Registry, request: Request<B>, client: SocketAddr) -> Result<(), Refusal>
where
    B: Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let order: Order = read_order(request, client, MAX_ORDER_BYTES).await?;
    let wish = order.offline.map(|offline| if offline { Link::Offline } else { Link::Online });
    registry.switch(order.upstream.as_deref(), wish).map_err(|error| match error {
        RegistryError::UnknownRegistry(_) => Refusal(StatusCode::NOT_FOUND, error.to_string()),
        other => Refusal(StatusCode::INTERNAL_SERVER_ERROR, other.to_string()),
    })
}

/// Reads an order, JSON of at most `limit_bytes`, of somebody who may give one.
pub(super) async fn read_order<B, T>(
    request: Request<B>,
    client: SocketAddr,
    limit_bytes: usize,
) -> Result<T, Refusal>
where
    B: Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    T: DeserializeOwned,
{
    require_local(request.headers(), client)?;
    let bad = |message: String| Refusal(StatusCode::BAD_REQUEST, message);
    let is_json = request
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/json"));
    if !is_json {
        let message = "the content type has to be application/json".to_owned();
        return Err(Refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
    }
    let body = Limited::new(request.into_body(), limit_bytes).collect().await;
    let body: Bytes = body.map_err(|error| bad(format!("the body cannot be read: {error}")))?.to_bytes();
    serde_json::from_slice(&body).map_err(|error| bad(format!("the body: {error}")))
}

/// Only who is on this machine may change anything, and no web page that somebody looks at there: there
/// are no tokens for this API yet. What a proxy passed on may come from anywhere.
pub(super) fn require_local(headers: &HeaderMap, client: SocketAddr) -> Result<(), Refusal> {
    let is_forwarded = [FORWARDED, FORWARDED_FOR, VIA, ORIGIN].iter().any(|name| headers.contains_key(name));
    if client.ip().to_canonical().is_loopback() && !is_forwarded {
        return Ok(());
    }
    let message = "this can be changed from the server's own machine only, over its loopback interface and \
        without a proxy or browser";
    Err(Refusal(StatusCode::FORBIDDEN, message.to_owned()))
}

/// `{"upstreams": [{"name": …, "offline": …, "switched": …}]}`; `switched` tells what was said at run time
/// from what the configuration says.
fn report(links: &[LinkStatus]) -> String {
    let upstream = |status: &LinkStatus| {
        json!({
            "name": status.upstream,
            "offline": status.link == Link::Offline,
            "switched": status.is_switched,
        })
    };
    json!({ "upstreams": links.iter().map(upstream).collect::<Vec<_>>() }).to_string()
}

/// Longer than any host name needs.
const MAX_ORDER_BYTES: usize = 4096;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn only_the_own_machine_may_change_anything() {
        let nothing = HeaderMap::new();
        for (client, may) in [
            ("127.0.0.1:1", true),
            ("127.9.9.9:1", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("10.0.0.1:1", false),
            ("[::ffff:10.0.0.1]:1", false),
            ("[fe80::1]:1", false),
        ] {
            assert_eq!(require_local(&nothing, client.parse().unwrap()).is_ok(), may, "{client}");
        }
        for name in ["x-forwarded-for", "forwarded", "via", "origin"] {
            let headers =
                HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_static("x"))]);
            assert!(require_local(&headers, "127.0.0.1:1".parse().unwrap()).is_err(), "{name}");
        }
    }

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
