//! What is the same for every request, and the administrator's listener.

use std::io::Write;
use std::sync::{Arc, Mutex};

use futures_util::FutureExt as _;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use prometheus::Registry;
use tokio_util::sync::CancellationToken;

use super::{RequestBody, fed_body, no_body};
use crate::auth::{RequestContext, RequestId, policy};
use crate::registry::{CacheResult, RegistryError, Served};
use crate::server::admin::{Admin, AdminAccess, ReadinessCheck};
use crate::server::body::ResponseBody;
use crate::server::dispatch::Front;
use crate::server::distribution::{Answer, answer_base};
use crate::server::exchange::Outcome;
use crate::server::metrics::{ContentLabel, ServerMetrics};
use crate::server::respond::Problem;
use crate::server::route::Route;

struct TestFront {
    front: Front,
    numbers: Registry,
}

impl TestFront {
    fn new() -> Self {
        let numbers = Registry::new();
        let metrics = ServerMetrics::new(&numbers).unwrap();
        Self { front: Front { metrics, node_id: "1f2e".into() }, numbers }
    }

    async fn ask(
        &self,
        request: Request<RequestBody>,
        handler: impl AsyncFnOnce(&Route) -> Answer,
    ) -> Response<ResponseBody> {
        let client = "192.0.2.1:4000".parse().unwrap();
        self.front.answer(request, client, async |_parts, route, _context, _body| handler(route).await).await
    }

    fn numbers(&self) -> String {
        prometheus::TextEncoder::new().encode_to_string(&self.numbers.gather()).unwrap()
    }
}

fn request(method: &str, path: &str) -> Request<RequestBody> {
    Request::builder().method(method).uri(path).body(no_body()).unwrap()
}

async fn base(_route: &Route) -> Answer {
    Ok(answer_base())
}

async fn never(_route: &Route) -> Answer {
    panic!("the handler is not to be called")
}

/// What a cache does with a request.
async fn cached(route: &Route) -> Answer {
    let context = RequestContext::anonymous(RequestId::random());
    let refused = policy::require(&context, route.action()).expect_err("a cache is read-only");
    Err(RegistryError::from(refused).into())
}

async fn text_of(response: Response<ResponseBody>) -> String {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

#[tokio::test]
async fn every_spelling_of_the_base_says_yes_without_a_challenge() {
    let front = TestFront::new();
    for path in ["/v2/", "/v2", "/v2/?ns=docker.io", "/docker.io/v2/", "/v2/docker.io/"] {
        let response = front.ask(request("GET", path), base).await;
        let headers = response.headers();
        assert_eq!(response.status(), 200, "{path}");
        assert_eq!(headers["docker-distribution-api-version"], "registry/2.0");
        assert_eq!(headers["content-type"], "application/json");
        assert!(!headers.contains_key("www-authenticate"));
        assert_eq!(text_of(response).await, "{}");
    }
}

#[tokio::test]
async fn a_head_has_the_headers_of_the_get_and_no_body() {
    let front = TestFront::new();
    let response = front.ask(request("HEAD", "/v2/"), base).await;
    assert_eq!(response.headers()["content-length"], "2");
    assert_eq!(text_of(response).await, "");

    let response = front.ask(request("HEAD", "/v2/a/manifests/sha256:0"), never).await;
    assert_eq!(response.status(), 400);
    assert_eq!(response.headers()["content-type"], "application/json");
    assert_ne!(response.headers()["content-length"], "0");
    assert_eq!(text_of(response).await, "");
}

#[tokio::test]
async fn errors_of_the_path_are_oci_errors_and_reach_no_handler() {
    let front = TestFront::new();
    let cases = [
        ("/v2/Upper/manifests/1", 400, "NAME_INVALID"),
        ("/v2/a/blobs/sha256:xyz", 400, "DIGEST_INVALID"),
        ("/v2/a/referrers/sha256:xyz", 400, "DIGEST_INVALID"),
        ("/v1/search?q=x", 404, "UNSUPPORTED"),
        ("/v2/a/nothing", 404, "NAME_UNKNOWN"),
        ("/", 404, "NAME_UNKNOWN"),
    ];
    for (path, status, code) in cases {
        let response = front.ask(request("GET", path), never).await;
        assert_eq!(response.status(), status, "{path}");
        assert_eq!(response.headers()["docker-distribution-api-version"], "registry/2.0");
        let body: serde_json::Value = serde_json::from_str(&text_of(response).await).unwrap();
        assert_eq!(body["errors"][0]["code"], code, "{path}");
        assert!(body["errors"][0]["message"].is_string());
    }
}

#[tokio::test]
async fn whatever_writes_is_refused_with_the_methods_that_work() {
    let front = TestFront::new();
    let digest = format!("sha256:{}", "0".repeat(64));
    let cases = [
        ("POST", "/v2/a/blobs/uploads/".to_owned()),
        ("PATCH", "/v2/a/blobs/uploads/1".to_owned()),
        ("PUT", "/v2/a/manifests/latest".to_owned()),
        ("DELETE", format!("/v2/a/blobs/{digest}")),
        ("DELETE", "/v2/a/manifests/latest".to_owned()),
        ("POST", "/v2/".to_owned()),
        ("BREW", "/v2/a/manifests/latest".to_owned()),
    ];
    for (method, path) in cases {
        let response = front.ask(request(method, &path), cached).await;
        assert_eq!(response.status(), 405, "{method} {path}");
        assert_eq!(response.headers()["allow"], "GET, HEAD");
        assert!(!response.headers().contains_key("connection"));
        assert!(text_of(response).await.contains(r#""code":"UNSUPPORTED""#));
    }
    let large = Request::put("/v2/a/manifests/latest").body(Full::new(vec![0; 5 << 20].into())).unwrap();
    let response = front.ask(large, cached).await;
    assert_eq!(response.headers()["connection"], "close", "a large body is not read away");
    assert!(front.numbers().contains(r#"requests_total{code="405",method="other",route="unknown"} 1"#));
}

#[tokio::test]
async fn a_request_that_was_here_before_is_refused() {
    let front = TestFront::new();
    for (via, status) in [
        ("1.1 proxy, 2.0 tidegate-1f2e (cache)", 508),
        ("1.1 tidegate-1f2e", 508),
        ("1.1 tidegate-1f2f", 200),
        ("tidegate-1f2e", 200),
    ] {
        let request = Request::get("/v2/").header("via", via).body(no_body()).unwrap();
        assert_eq!(front.ask(request, base).await.status(), status, "{via}");
    }
}

#[tokio::test]
async fn request_ids_are_echoed_where_they_are_harmless() {
    let front = TestFront::new();
    let with_id = |id: &str| Request::get("/v2/").header("x-request-id", id).body(no_body()).unwrap();
    let response = front.ask(with_id("ci-42.a_B"), base).await;
    assert_eq!(response.headers()["x-request-id"], "ci-42.a_B");
    let response = front.ask(with_id("a b"), base).await;
    assert_eq!(response.headers()["x-request-id"].len(), 16);
}

#[tokio::test]
async fn the_namespace_asked_for_is_named_in_the_answer() {
    let front = TestFront::new();
    let path = "/v2/a/tags/list?ns=reg.corp%3A5000";
    let response = front.ask(request("GET", path), base).await;
    assert_eq!(response.headers()["oci-namespace"], "reg.corp:5000");
    let unknown = async |_route: &Route| -> Answer { Err(RegistryError::NoDefaultRegistry.into()) };
    let response = front.ask(request("GET", path), unknown).await;
    assert!(!response.headers().contains_key("oci-namespace"), "it was not served");
    let path = "/v2/a/tags/list?ns=x%0d%0aSet-Cookie:%20a";
    let response = front.ask(request("GET", path), base).await;
    assert!(!response.headers().contains_key("oci-namespace"));
}

#[tokio::test]
async fn a_handler_that_panics_is_an_internal_error() {
    let front = TestFront::new();
    let response = front.ask(request("GET", "/v2/a/tags/list"), never).await;
    assert_eq!(response.status(), 500);
    let body = text_of(response).await;
    assert!(body.contains("UNKNOWN") && !body.contains("handler"), "{body}");
    assert!(front.numbers().contains(r#"requests_total{code="500",method="GET",route="tags"} 1"#));
}

#[tokio::test]
async fn a_request_is_counted_once_and_its_bytes_as_they_go() {
    let front = TestFront::new();
    let missing = async |_route: &Route| -> Answer { Err(Problem::read_only()) };
    drop(front.ask(request("GET", "/v2/a/manifests/1"), missing).await);
    let whole = front.ask(request("GET", "/v2/"), base).await;
    assert!(front.numbers().contains(r#"response_bytes_total{source="cache"} 0"#));
    text_of(whole).await;
    let numbers = front.numbers();
    for line in [
        r#"requests_total{code="405",method="GET",route="manifest"} 1"#,
        r#"requests_total{code="200",method="GET",route="base"} 1"#,
        r#"request_duration_seconds_count{route="base"} 1"#,
        r#"response_bytes_total{source="cache"} 2"#,
    ] {
        assert!(numbers.contains(line), "{line} in {numbers}");
    }
}

/// Collects what is logged on this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn capture(&self) -> tracing::subscriber::DefaultGuard {
        let log = self.clone();
        crate::telemetry::logging::capture(move || log.clone())
    }

    /// The lines of the access log, without what changes with each run.
    fn access_lines(&self) -> Vec<serde_json::Value> {
        let bytes = self.0.lock().unwrap();
        let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let lines = lines.map(|line| serde_json::from_slice::<serde_json::Value>(line).unwrap());
        lines.filter(|line| line["target"] == "tidegate::access").collect()
    }
}

#[tokio::test]
async fn the_access_log_has_one_line_a_request_whatever_becomes_of_it() {
    let log = Log::default();
    let guard = log.capture();
    let front = TestFront::new();
    let request = Request::get("/v2/a/tags/list?n=1")
        .header("user-agent", "curl/8 \"x\"")
        .header("x-request-id", "ci-1")
        .body(no_body())
        .unwrap();
    text_of(front.ask(request, base).await).await;
    let unread = front.ask(self::request("GET", "/v2/"), base).await;
    drop(unread);
    let failing = front.ask(self::request("GET", "/v2/"), async |_route: &Route| {
        let (parts, body) = fed_body(Some(5));
        parts.send(Err(RegistryError::Internal)).await.unwrap();
        Ok(Response::new(body))
    });
    assert!(failing.await.into_body().collect().await.is_err());
    // The client goes away before there is an answer.
    let forever = async |_route: &Route| -> Answer { std::future::pending().await };
    assert!(front.ask(self::request("GET", "/v2/"), forever).now_or_never().is_none());
    front.ask(self::request("GET", "/v2/A/%0a/manifests/1"), never).await;
    drop(guard);

    let lines = log.access_lines();
    let ends: Vec<_> =
        lines.iter().map(|line| (line["end"].as_str(), line["response.status"].as_u64())).collect();
    let complete = Some("complete");
    let aborted = Some("aborted");
    let expected = [
        (complete, Some(200)),
        (aborted, Some(200)),
        (aborted, Some(200)),
        (aborted, None),
        (aborted, Some(400)),
    ];
    assert_eq!(ends, expected);
    let first = &lines[0];
    for (field, value) in [
        ("message", "GET /v2/a/tags/list 200"),
        ("request.id", "ci-1"),
        ("request.method", "GET"),
        ("request.path", "/v2/a/tags/list"),
        ("request.protocol", "HTTP/1.1"),
        ("route", "tags"),
        ("client.address", "192.0.2.1:4000"),
        ("user_agent", "curl/8 \\\"x\\\""),
    ] {
        assert_eq!(first[field], value, "{field}");
    }
    assert_eq!(first["sent_bytes"], 2);
    assert!(first["duration_ms"].is_f64() && first["first_byte_ms"].is_f64());
    assert_eq!(lines[2]["error.class"], "cut");
    assert_eq!(lines[2]["error.text"], "internal fault");
    assert_eq!(lines[4]["error.class"], "route");
}

#[tokio::test]
async fn the_outcome_of_the_cache_is_logged_and_counted() {
    let log = Log::default();
    let guard = log.capture();
    let front = TestFront::new();
    let answer = async |_route: &Route| -> Answer {
        let served = Served {
            result: CacheResult::Collapsed,
            upstream: "quay.io".into(),
            age: None,
            staleness: None,
            stored: true,
        };
        let mut response = Response::new(ResponseBody::whole("blob"));
        response.extensions_mut().insert(Outcome::new(ContentLabel::Blob, &served));
        Ok(response)
    };
    let digest = format!("sha256:{}", "0".repeat(64));
    text_of(front.ask(request("GET", &format!("/v2/a/blobs/{digest}")), answer).await).await;
    drop(guard);
    let lines = log.access_lines();
    assert_eq!((&lines[0]["outcome"], &lines[0]["upstream.name"]), (&"collapsed".into(), &"quay.io".into()));
    let numbers = front.numbers();
    for line in [
        r#"cache_requests_total{kind="blob",result="collapsed",upstream="quay.io"} 1"#,
        r#"response_bytes_total{source="upstream"} 4"#,
    ] {
        assert!(numbers.contains(line), "{line} in {numbers}");
    }
}

#[tokio::test]
async fn the_administrators_listener_says_how_the_node_is() {
    let numbers = Registry::new();
    ServerMetrics::new(&numbers).unwrap();
    let shutdown = CancellationToken::new();
    let checks = vec![ReadinessCheck::new("metadata", || async { Err("disk is full".into()) })];
    let admin = Admin {
        metrics: numbers,
        access: AdminAccess::default(),
        checks,
        advice: Box::new(Vec::new),
        shutdown,
    };
    let cases = [
        ("GET", "/health/live", 200, "alive"),
        ("GET", "/health/ready", 503, r#""reason":"disk is full""#),
        ("GET", "/metrics", 200, "# TYPE open_connections gauge"),
        ("GET", "/api/v1/nothing", 404, "not found"),
        ("POST", "/metrics", 405, "only GET and HEAD"),
    ];
    for (method, path, status, text) in cases {
        let response = admin.answer(&request(method, path)).await;
        assert_eq!(response.status(), status, "{path}");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body = String::from_utf8(body.to_vec()).unwrap();
        assert!(body.contains(text), "{path}: {body}");
    }
}
