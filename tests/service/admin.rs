//! Who may use the administrator's API, and how it refuses.

use std::path::Path;
use std::process::{Output, Stdio};

use http::Method;
use rustix::process::Signal;
use serde_json::Value;

use crate::client::{Answer, Call};
use crate::harness::{Section, Setup, Tidegate, until};
use crate::upstream::{Authority, Upstream, everything, status};

const TOKEN: &str = "a-token-of-tests-1";

/// Runs a command to its end, with nothing in its environment but these variables.
pub(crate) async fn command(directory: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    tokio::process::Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(arguments)
        .current_dir(directory)
        .env_clear()
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap()
}

pub(crate) fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Fails unless this is a refusal that says this.
#[track_caller]
fn assert_refused(answer: &Answer, status: u16, reason: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"), "{answer:?}");
    let told = answer.json()["error"].as_str().unwrap().to_owned();
    assert!(told.contains(reason), "{reason} in {told}");
}

/// A call of every path of the API with every method that it takes, and of paths that are none.
fn all_calls(tidegate: &Tidegate) -> Vec<Call> {
    let description: Value =
        serde_json::from_str(include_str!("../../src/server/admin/openapi.json")).unwrap();
    let paths = description["paths"].as_object().unwrap().iter();
    let described = paths.flat_map(|(path, methods)| {
        methods
            .as_object()
            .unwrap()
            .keys()
            .map(move |method| (method.to_ascii_uppercase(), path.replace("{id}", "x")))
    });
    let others = ["/api/v1", "/api/v1/", "/api/v1/nothing"].map(|path| ("GET".to_owned(), path.to_owned()));
    let calls = described.chain(others);
    calls.map(|(method, path)| tidegate.admin().call(method.parse().unwrap(), &path)).collect()
}

async fn with_token() -> (Upstream, Tidegate) {
    let upstream = Upstream::start().await;
    let setup = Setup::new().server("admin_token_file = \"token\"").file("token", TOKEN);
    let setup = setup.upstream(Section::hub(&upstream)).with_warnings();
    (upstream, setup.with_log("configuration is not reloaded").start().await)
}

#[tokio::test]
async fn with_a_token_the_whole_api_needs_it_and_health_and_metrics_do_not() {
    let (_upstream, tidegate) = with_token().await;
    for call in all_calls(&tidegate) {
        let answer = call.send().await;
        assert_refused(&answer, 401, "admin_token");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer realm=\"tidegate\""));
    }
    for call in all_calls(&tidegate) {
        let answer = call.header("authorization", "Bearer a-token-of-tests-2").send().await;
        assert_refused(&answer, 401, "this is not the token");
    }
    tidegate.wait_for_log("a wrong token was shown").await;
    let get = |path: &str| tidegate.admin().get(path);
    for path in ["/metrics", "/health/live", "/health/ready"] {
        assert_eq!(get(path).send().await.status, 200, "{path}");
    }
    let bearer = format!("Bearer {TOKEN}");
    // Also for somebody elsewhere, behind a proxy.
    let call = get("/api/v1/offline").header("authorization", &bearer).header("host", "cache.test");
    assert_eq!(call.header("x-forwarded-for", "10.0.0.1").send().await.status, 200);
    assert!(tidegate.log_lines(TOKEN).is_empty());
}

#[tokio::test]
async fn a_reload_changes_the_token() {
    let (_upstream, mut tidegate) = with_token().await;
    let ask = async |tidegate: &Tidegate, token: &str| {
        let call =
            tidegate.admin().get("/api/v1/offline").header("authorization", &format!("Bearer {token}"));
        call.send().await.status
    };
    assert_eq!(ask(&tidegate, TOKEN).await, 200);
    tidegate.reconfigure(|setup| setup.file("token", "another-token-of-tests"));
    tidegate.signal(Signal::HUP);
    until("the new token", async || ask(&tidegate, "another-token-of-tests").await == 200).await;
    assert_eq!(ask(&tidegate, TOKEN).await, 401);
    tidegate.reconfigure(|setup| setup.file("token", "short"));
    tidegate.signal(Signal::HUP);
    let line = tidegate.wait_for_log("configuration is not reloaded").await;
    assert!(line.contains("server.admin_token_file") && line.contains("too short"), "{line}");
    assert_eq!(ask(&tidegate, "another-token-of-tests").await, 200, "a faulty file changes nothing");
}

#[tokio::test]
async fn without_a_token_no_foreign_page_name_or_proxy_may_ask() {
    let upstream = Upstream::start().await;
    let tidegate = Tidegate::start(&upstream).await;
    for (name, value) in [
        ("host", "evil.test"),
        ("origin", "http://evil.test"),
        ("x-forwarded-for", "127.0.0.1"),
        ("via", "1.1 a"),
    ] {
        for call in all_calls(&tidegate) {
            assert_refused(&call.header(name, value).send().await, 403, "Set server.admin_token_file");
        }
    }
    let answer = tidegate.admin().get("/api/v1/offline").header("host", "localhost").send().await;
    assert_eq!(answer.status, 200);
    let http2 = tidegate.admin().http2().get("/api/v1/offline").send().await;
    assert_eq!(http2.status, 200, "its :authority is an address of this machine");
}

#[tokio::test]
async fn every_refusal_is_json_with_a_remedy() {
    let upstream = Upstream::start().await;
    let tidegate = Tidegate::start(&upstream).await;
    let call = |method: Method, path: &str| tidegate.admin().call(method, path);
    let json = |call: Call| call.header("content-type", "application/json");
    assert_refused(&call(Method::GET, "/api/v1/nothing").send().await, 404, "/api/v1/nothing");
    let answer = call(Method::POST, "/api/v1/cache/images").send().await;
    assert_refused(&answer, 405, "takes only GET and HEAD");
    assert_eq!(answer.header("allow"), Some("GET, HEAD"));
    let form = call(Method::POST, "/api/v1/warm").header("content-type", "text/plain").body("{}");
    assert_refused(&form.send().await, 415, "Content-Type: application/json");
    let large = json(call(Method::PUT, "/api/v1/offline")).body("x".repeat(17 * 1024));
    assert_refused(&large.send().await, 413, "16384 bytes");
    let broken = json(call(Method::PUT, "/api/v1/offline")).body("{");
    assert_refused(&broken.send().await, 400, "the body: ");
    // A body that does not say how long it is.
    let head = "POST /api/v1/offline HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n";
    let chunk = "x".repeat(20_000);
    let request = head.replace("POST", "PUT")
        + &format!("connection: close\r\ntransfer-encoding: chunked\r\n\r\n4e20\r\n{chunk}\r\n0\r\n\r\n");
    let answer = tidegate.admin().exchange(request).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

#[tokio::test]
async fn commands_show_the_token_that_flags_and_variables_name() {
    let (upstream, tidegate) = with_token().await;
    upstream.make_image("library/app", "1", &[10]);
    let server = tidegate.admin_url();
    let warm = ["warm", "app:1", "--no-referrers", "--server", &server];
    let run = async |more: &[&str], variables: &[(&str, &str)]| {
        command(tidegate.directory(), &[&warm, more].concat(), variables).await
    };
    let refused = run(&[], &[]).await;
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let told = text(&refused.stderr);
    assert!(told.contains("refuses (401)") && told.contains("--token-file, TIDEGATE_TOKEN_FILE"), "{told}");
    for (more, variables) in [
        (&["--token-file", "token"][..], &[][..]),
        (&[], &[("TIDEGATE_TOKEN_FILE", "token")]),
        (&[], &[("TIDEGATE_TOKEN", TOKEN)]),
    ] {
        let output = run(more, variables).await;
        assert_eq!(output.status.code(), Some(0), "{more:?} {variables:?}: {output:?}");
    }
    let output = run(&["--token-file", "no-such-file"], &[]).await;
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("no-such-file"), "{output:?}");
}

#[tokio::test]
async fn commands_speak_tls_with_servers_that_this_machine_trusts() {
    let authority = Authority::new();
    let proxy = Upstream::start_tls(&authority).await;
    let job = r#"{"id":"1","is_over":true,"state":"complete","images":[]}"#;
    proxy.rule(everything(), status(200).body(job).header("content-type", "application/json"));
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("ca.pem"), authority.pem()).unwrap();
    let arguments = ["warm", "app:1", "--server", &proxy.url()];
    let variables = [("SSL_CERT_FILE", "ca.pem"), ("TIDEGATE_TOKEN", TOKEN)];
    let output = command(directory.path(), &arguments, &variables).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let bearer = format!("Bearer {TOKEN}");
    assert!(
        proxy.requests(&everything()).iter().all(|request| request.header("authorization") == Some(&bearer))
    );
    let stranger = Authority::new();
    std::fs::write(directory.path().join("ca.pem"), stranger.pem()).unwrap();
    let output = command(directory.path(), &arguments, &variables).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text(&output.stderr).contains("certificate"), "{output:?}");
}
