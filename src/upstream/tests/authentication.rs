//! Tokens, credentials, and who gets them.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::config::Secret;

/// A registry whose token service is itself, under `auth.registry.test`. Tokens are `t1`, `t2`, …;
/// the newest is good unless `judge` says otherwise.
async fn registry(
    judge: impl Fn(&Seen, usize) -> Option<Response<Body>> + Send + Sync + 'static,
    grant: impl Fn(&Seen, usize) -> Response<Body> + Send + Sync + 'static,
) -> Server {
    let granted = AtomicUsize::new(0);
    Server::start(move |seen| {
        if seen.target.starts_with("/token") {
            return grant(seen, granted.fetch_add(1, Ordering::SeqCst) + 1);
        }
        let newest = granted.load(Ordering::SeqCst);
        if let Some(verdict) = judge(seen, newest) {
            return verdict;
        }
        if newest > 0 && seen.authorization() == format!("Bearer t{newest}") {
            ok("{}")
        } else {
            challenge(seen)
        }
    })
    .await
}

fn challenge(seen: &Seen) -> Response<Body> {
    let port = seen.header("host").rsplit_once(':').unwrap().1;
    let bearer = format!(r#"Bearer realm="http://auth.registry.test:{port}/token",service="the service""#);
    answer(401, &[("www-authenticate", &bearer)], "{}")
}

fn grant(_: &Seen, number: usize) -> Response<Body> {
    ok(format!(r#"{{"token":"t{number}","expires_in":300}}"#))
}

fn trusting(server: &Server, credentials: Credentials) -> (Upstream, Clock) {
    upstream_with(&[server.url("registry.test")], |config| {
        config.trusted_hosts = vec!["auth.registry.test".into()];
        config.credentials = vec![credentials];
    })
}

fn password() -> Credentials {
    Credentials::Password { username: "u".into(), password: Secret::new("p") }
}

#[tokio::test]
async fn a_challenge_is_answered_with_a_token_of_its_realm() {
    let server = registry(|_, _| None, grant).await;
    let (upstream, _) = trusting(&server, Credentials::Anonymous);
    assert_eq!(kind(&fetch(&upstream).await), "ok");
    assert_eq!(kind(&fetch(&upstream).await), "ok");
    let seen = server.seen();
    let targets: Vec<&str> = seen.iter().map(|seen| seen.target.as_str()).collect();
    let (manifest, token) = (
        "/v2/library/nginx/manifests/latest",
        "/token?service=the%20service&scope=repository:library/nginx:pull",
    );
    assert_eq!(targets, [manifest, token, manifest, manifest], "one challenge, one token");
    assert_eq!([0, 1, 2, 3].map(|at| seen[at].authorization()), ["", "", "Bearer t1", "Bearer t1"]);
}

#[tokio::test]
async fn fifty_waiters_share_one_token() {
    let server = registry(|_, _| None, grant).await;
    let (upstream, _) = trusting(&server, Credentials::Anonymous);
    let outcomes = futures_util::future::join_all((0..50).map(|_| fetch(&upstream))).await;
    assert!(outcomes.iter().all(Result::is_ok));
    assert_eq!(server.count("/token"), 1);
}

#[tokio::test]
async fn a_token_is_renewed_early_and_without_a_challenge() {
    let server = registry(|_, _| None, grant).await;
    let (upstream, clock) = trusting(&server, Credentials::Anonymous);
    for (wait, tokens) in [(0, 1), (269, 1), (2, 2), (200, 2)] {
        clock.advance(Duration::from_secs(wait));
        assert_eq!(kind(&fetch(&upstream).await), "ok");
        assert_eq!(server.count("/token"), tokens, "after {wait} s more");
    }
    let rejected = server
        .seen()
        .iter()
        .filter(|seen| seen.target.contains("/v2/") && seen.authorization().is_empty())
        .count();
    assert_eq!(rejected, 1, "only the first request is challenged");
}

#[tokio::test]
async fn a_token_without_a_lifetime_lives_sixty_seconds() {
    let server = registry(|_, _| None, |_, number| ok(format!(r#"{{"access_token":"t{number}"}}"#))).await;
    let (upstream, clock) = trusting(&server, Credentials::Anonymous);
    for (wait, tokens) in [(0, 1), (53, 1), (2, 2)] {
        clock.advance(Duration::from_secs(wait));
        assert_eq!(kind(&fetch(&upstream).await), "ok");
        assert_eq!(server.count("/token"), tokens, "after {wait} s more");
    }
}

#[tokio::test]
async fn a_token_that_dies_early_is_replaced_whether_by_401_or_by_400() {
    for status in [401, 400] {
        let dead = Arc::new(AtomicUsize::new(0));
        let killed = Arc::clone(&dead);
        let server = registry(
            move |seen, _| match seen.authorization() {
                "Bearer t1" if killed.load(Ordering::SeqCst) == 1 => {
                    Some(if status == 400 { answer(400, &[], "") } else { challenge(seen) })
                }
                _ => None,
            },
            grant,
        )
        .await;
        let (upstream, _) = trusting(&server, Credentials::Anonymous);
        assert_eq!(kind(&fetch(&upstream).await), "ok");
        dead.store(1, Ordering::SeqCst);
        assert_eq!(kind(&fetch(&upstream).await), "ok", "{status}");
        assert_eq!(server.count("/token"), 2, "{status}");
    }
}

#[tokio::test]
async fn checklist_83_a_401_for_a_fresh_token_means_absent() {
    let server = registry(|seen, _| Some(challenge(seen)), grant).await;
    let (upstream, _) = trusting(&server, Credentials::Anonymous);
    assert_eq!(kind(&fetch(&upstream).await), "absent");
    assert_eq!(server.seen().len(), 3);
}

#[tokio::test]
async fn a_400_for_a_fresh_token_is_not_tried_again() {
    let server = registry(
        |seen, newest| (newest > 0 && !seen.authorization().is_empty()).then(|| answer(400, &[], "")),
        grant,
    )
    .await;
    let (upstream, _) = trusting(&server, Credentials::Anonymous);
    assert_eq!(kind(&fetch(&upstream).await), "broken");
    assert_eq!(server.seen().len(), 3);
}

#[tokio::test]
async fn credentials_go_to_the_realm_and_never_to_the_registry() {
    let server = registry(|_, _| None, grant).await;
    let (upstream, _) = trusting(&server, password());
    assert_eq!(kind(&fetch(&upstream).await), "ok");
    let seen = server.seen();
    assert_eq!([0, 1, 2].map(|at| seen[at].authorization()), ["", "Basic dTpw", "Bearer t1"]);
}

#[tokio::test]
async fn what_the_realm_says_keeps_its_class() {
    for (status, credentials, expected) in [
        (401, password(), "forbidden"),
        (403, password(), "forbidden"),
        (403, Credentials::Anonymous, "forbidden"),
        (429, password(), "throttled"),
        (500, password(), "broken"),
        (302, password(), "broken"),
        (404, password(), "broken"),
    ] {
        let server = registry(|_, _| None, move |_, _| answer(status, &[("retry-after", "7")], "no")).await;
        let (upstream, _) = trusting(&server, credentials);
        let outcome = fetch(&upstream).await;
        assert_eq!(kind(&outcome), expected, "{status}");
        if let Err(UpstreamError::Throttled { retry_after, .. }) = outcome {
            assert_eq!(retry_after, Some(Duration::from_secs(7)));
        }
        assert_eq!(upstream.status().endpoints[0].state, EndpointState::Up);
    }
}

#[tokio::test]
async fn a_realm_of_another_site_gets_no_credentials() {
    let thief = Server::start(|_| ok(r#"{"token":"t"}"#)).await;
    let realm = format!("Bearer realm=\"{}/token\"", thief.url("evil.example"));
    let server = Server::start(move |_| answer(401, &[("www-authenticate", &realm)], "")).await;
    let (with_password, _) = trusting(&server, password());
    assert_eq!(kind(&fetch(&with_password).await), "broken");
    // Without credentials too: it points into this machine.
    let (anonymous, _) = trusting(&server, Credentials::Anonymous);
    let outcome = fetch(&anonymous).await;
    assert_eq!(kind(&outcome), "broken");
    assert!(outcome.unwrap_err().to_string().contains("trusted_hosts"));
    assert!(thief.seen().is_empty());
}

#[tokio::test]
async fn a_gigabyte_of_token_is_not_read() {
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&sent);
    let server = registry(
        |_, _| None,
        move |_, _| {
            let counter = Arc::clone(&counter);
            let part = Bytes::from(vec![b'a'; 65536]);
            let parts = stream::iter(0..16384).map(move |_| {
                counter.fetch_add(65536, Ordering::SeqCst);
                Ok(part.clone())
            });
            streaming(200, &[], parts)
        },
    )
    .await;
    let (upstream, _) = trusting(&server, Credentials::Anonymous);
    assert_eq!(kind(&fetch(&upstream).await), "broken");
    // What the sockets hold on top of the cap is some megabytes.
    assert!(sent.load(Ordering::SeqCst) < 32 * 1024 * 1024);
}

#[tokio::test]
async fn a_basic_registry_gets_the_password_and_a_rotated_one_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("password");
    std::fs::write(&path, "p").unwrap();
    let good = Arc::new(Mutex::new("Basic dTpw"));
    let expected = Arc::clone(&good);
    let server = Server::start(move |seen| {
        if seen.authorization() == *expected.lock().unwrap() {
            return ok("{}");
        }
        answer(401, &[("www-authenticate", "Basic realm=\"ecr\"")], "")
    })
    .await;
    let file = Credentials::PasswordFile { username: "u".into(), path: path.clone() };
    let (upstream, _) = trusting(&server, file);
    assert_eq!(kind(&fetch(&upstream).await), "ok");
    assert_eq!(kind(&fetch(&upstream).await), "ok");
    assert_eq!(server.seen().len(), 3, "the second request is not challenged");
    *good.lock().unwrap() = "Basic dTpxcQ==";
    assert_eq!(kind(&fetch(&upstream).await), "forbidden");
    std::fs::write(&path, "qq").unwrap();
    assert_eq!(kind(&fetch(&upstream).await), "ok");
    let (anonymous, _) = trusting(&server, Credentials::Anonymous);
    assert_eq!(kind(&fetch(&anonymous).await), "forbidden");
}

#[tokio::test]
async fn a_password_is_good_for_as_long_as_upstream_takes_it() {
    let server = Server::start(|seen| match seen.authorization() {
        "Basic dTpw" => ok("{}"),
        _ => answer(401, &[("www-authenticate", "Basic realm=\"ecr\"")], ""),
    })
    .await;
    let (upstream, clock) = trusting(&server, password());
    for _ in 0..5 {
        assert_eq!(kind(&fetch(&upstream).await), "ok");
        clock.advance(Duration::from_mins(7));
    }
    assert_eq!(server.seen().len(), 6, "challenged once");
}
