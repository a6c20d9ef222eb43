//! Upstreams that throttle: holds, several credentials, logins apart.

use super::*;
use crate::config::Secret;
use crate::upstream::credentials::Login;

/// A registry where `throttled` says what is told to a request in place of an answer.
async fn throttling(
    throttled: impl Fn(&Seen) -> Option<(u16, &'static str)> + Send + Sync + 'static,
) -> Server {
    Server::start(move |seen| match throttled(seen) {
        Some((status, "")) => answer(status, &[], ""),
        Some((status, retry_after)) => answer(status, &[("retry-after", retry_after)], ""),
        None => ok("{}"),
    })
    .await
}

fn one_of(server: &Server) -> (Upstream, Clock) {
    upstream_with(&[server.url("registry.test")], |_| ())
}

fn user(name: &str) -> Credentials {
    Credentials::Password { username: name.into(), password: Secret::new("p") }
}

/// The value of Basic for a user.
fn basic(name: &str) -> String {
    Login::Password { username: name.into(), password: Secret::new("p") }
        .to_basic()
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned()
}

#[tokio::test]
async fn nothing_is_asked_while_upstream_is_to_be_left_alone_and_one_request_tries_after() {
    let throttles = Arc::new(Mutex::new(true));
    let told = Arc::clone(&throttles);
    let server = throttling(move |_| told.lock().unwrap().then_some((429, "60"))).await;
    let (upstream, clock) = one_of(&server);
    for _ in 0..20 {
        let Err(UpstreamError::Throttled { retry_after: Some(pause), .. }) = fetch(&upstream).await else {
            panic!("it is throttled")
        };
        assert!(pause >= Duration::from_mins(1) && pause <= Duration::from_secs(66), "{pause:?}");
    }
    assert_eq!(server.seen().len(), 1);
    assert_eq!(upstream.status().endpoints[0].state, EndpointState::Up);
    assert!(upstream.status().held_for().is_some());
    clock.advance(Duration::from_secs(66));
    let outcomes = futures_util::future::join_all((0..20).map(|_| fetch(&upstream))).await;
    assert!(outcomes.iter().all(|outcome| kind(outcome) == "throttled"));
    assert_eq!(server.seen().len(), 2, "one tries, for all");
    *throttles.lock().unwrap() = false;
    clock.advance(Duration::from_secs(66));
    assert_eq!(kind(&fetch(&upstream).await), "ok");
    let outcomes = futures_util::future::join_all((0..20).map(|_| fetch(&upstream))).await;
    assert!(outcomes.iter().all(Result::is_ok));
    assert_eq!(upstream.status().held_for(), None);
}

#[tokio::test]
async fn a_503_that_asks_for_a_pause_gets_it_and_stays_broken() {
    let server = throttling(|_| Some((503, "30"))).await;
    let (upstream, _) = one_of(&server);
    for _ in 0..5 {
        assert_eq!(kind(&fetch(&upstream).await), "broken");
    }
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn another_endpoint_serves_while_one_is_left_alone() {
    let (held, good) = (throttling(|_| Some((429, "60"))).await, throttling(|_| None).await);
    let (upstream, _) = upstream_with(&[held.url("registry.test"), good.url("mirror.test")], |_| ());
    for _ in 0..5 {
        assert_eq!(kind(&fetch(&upstream).await), "ok");
    }
    assert_eq!((held.seen().len(), good.seen().len()), (1, 5));
}

/// A registry with Basic, and what it thinks of each user's request.
async fn with_users(opinion: impl Fn(&str) -> Response<Body> + Send + Sync + 'static) -> Server {
    Server::start(move |seen| match ["a", "b"].into_iter().find(|name| seen.authorization() == basic(name)) {
        Some(name) => opinion(name),
        None => answer(401, &[("www-authenticate", "Basic realm=\"r\"")], ""),
    })
    .await
}

fn two_users(server: &Server) -> (Upstream, Clock) {
    upstream_with(&[server.url("registry.test")], |config| config.credentials = vec![user("a"), user("b")])
}

fn count_of(server: &Server, name: &str) -> usize {
    server.seen().iter().filter(|seen| seen.authorization() == basic(name)).count()
}

#[tokio::test]
async fn the_next_credential_serves_when_one_is_throttled_and_is_kept() {
    let throttled = Arc::new(Mutex::new("a"));
    let told = Arc::clone(&throttled);
    let server = with_users(move |name| {
        if name == *told.lock().unwrap() { answer(429, &[("retry-after", "60")], "") } else { ok("{}") }
    })
    .await;
    let (upstream, clock) = two_users(&server);
    for _ in 0..10 {
        assert_eq!(kind(&fetch(&upstream).await), "ok");
    }
    assert_eq!((count_of(&server, "a"), count_of(&server, "b")), (1, 10));
    // The hold of one is over; the other serves on until it is its turn.
    clock.advance(Duration::from_secs(66));
    assert_eq!(kind(&fetch(&upstream).await), "ok");
    assert_eq!((count_of(&server, "a"), count_of(&server, "b")), (1, 11));
    *throttled.lock().unwrap() = "b";
    for _ in 0..10 {
        assert_eq!(kind(&fetch(&upstream).await), "ok");
    }
    assert_eq!((count_of(&server, "a"), count_of(&server, "b")), (11, 12));
}

#[tokio::test]
async fn while_all_credentials_are_throttled_none_is_used() {
    let server = with_users(|_| answer(429, &[("retry-after", "60")], "")).await;
    let (upstream, _) = two_users(&server);
    for _ in 0..5 {
        assert_eq!(kind(&fetch(&upstream).await), "throttled");
    }
    assert_eq!((count_of(&server, "a"), count_of(&server, "b")), (1, 1));
}

#[tokio::test]
async fn the_credential_with_the_most_left_is_used() {
    let left = Arc::new(Mutex::new([("a", 10), ("b", 50)]));
    let told = Arc::clone(&left);
    let server = with_users(move |name| {
        let mut left = told.lock().unwrap();
        let (_, left) = left.iter_mut().find(|(user, _)| *user == name).unwrap();
        *left -= 1;
        let left = left.to_string();
        answer(
            200,
            &[
                ("ratelimit-limit", "100;w=21600"),
                ("ratelimit-remaining", &left),
                ("docker-ratelimit-source", name),
            ],
            "{}",
        )
    })
    .await;
    let (upstream, _) = two_users(&server);
    for _ in 0..40 {
        assert_eq!(kind(&fetch(&upstream).await), "ok");
    }
    let [(_, a), (_, b)] = *left.lock().unwrap();
    assert_eq!(a + b, 20);
    assert!(a >= 5 && b <= 15, "{a} and {b} are left");
}

#[tokio::test]
async fn a_credential_that_is_refused_is_set_aside_and_others_serve() {
    let server = with_users(|name| match name {
        "a" => answer(401, &[("www-authenticate", "Basic realm=\"r\"")], ""),
        _ => ok("{}"),
    })
    .await;
    let (upstream, clock) = two_users(&server);
    for _ in 0..10 {
        assert_eq!(kind(&fetch(&upstream).await), "ok");
    }
    let refused = count_of(&server, "a");
    assert!(refused <= 2, "{refused}");
    assert_eq!(count_of(&server, "b"), 10);
    clock.advance(Duration::from_mins(10));
    assert_eq!(kind(&fetch(&upstream).await), "ok");
    // Alone, it is what it was: refused, and never set aside.
    let (alone, _) =
        upstream_with(&[server.url("registry.test")], |config| config.credentials = vec![user("a")]);
    for _ in 0..2 {
        assert_eq!(kind(&fetch(&alone).await), "forbidden");
    }
}

/// A registry with tokens, whose realm and whose manifests are throttled as said.
async fn with_tokens(
    realm: impl Fn(&Seen) -> bool + Send + Sync + 'static,
    manifests: impl Fn(&Seen) -> bool + Send + Sync + 'static,
) -> Server {
    Server::start(move |seen| {
        let throttled = || answer(429, &[("retry-after", "60")], "");
        if seen.target.starts_with("/token") {
            let user = ["a", "b"].into_iter().find(|name| seen.authorization() == basic(name));
            let token = format!(r#"{{"token":"of-{}","expires_in":300}}"#, user.unwrap_or("nobody"));
            return if realm(seen) { throttled() } else { ok(token) };
        }
        if !seen.authorization().starts_with("Bearer") {
            let realm = format!("Bearer realm=\"http://{}/token\"", seen.header("host"));
            return answer(401, &[("www-authenticate", &realm)], "");
        }
        if manifests(seen) { throttled() } else { ok("{}") }
    })
    .await
}

async fn fetch_of(upstream: &Upstream, name: &str) -> &'static str {
    let name: RepositoryName = name.parse().unwrap();
    kind(&upstream.fetch_manifest(&Urgency::CLIENT, &name, &tag(), &AcceptClass::Any).await)
}

#[tokio::test]
async fn logins_that_are_throttled_stop_nobody_who_has_a_token() {
    let server = with_tokens(|seen| seen.target.contains("later"), |_| false).await;
    let (upstream, clock) = one_of(&server);
    assert_eq!(fetch_of(&upstream, "first").await, "ok");
    for _ in 0..5 {
        assert_eq!(fetch_of(&upstream, "later").await, "throttled");
        assert_eq!(fetch_of(&upstream, "first").await, "ok");
    }
    assert_eq!(server.count("/token"), 2, "the realm is left alone");
    assert_eq!(upstream.status().held_for(), None, "the registry is not");
    // A token that is about to expire serves on until then.
    clock.advance(Duration::from_secs(280));
    assert_eq!(fetch_of(&upstream, "later").await, "throttled");
    assert_eq!(fetch_of(&upstream, "first").await, "ok");
}

#[tokio::test]
async fn pulls_that_are_throttled_stop_no_login() {
    let server = with_tokens(|_| false, |seen| seen.authorization() == "Bearer of-a").await;
    let (upstream, _) = two_users(&server);
    for name in ["one", "two", "three"] {
        assert_eq!(fetch_of(&upstream, name).await, "ok");
    }
    let logins = server.seen().iter().filter(|seen| seen.target.starts_with("/token")).count();
    assert_eq!(logins, 4, "one that was throttled, three that were not");
    let throttled = server.seen().iter().filter(|seen| seen.authorization() == "Bearer of-a").count();
    assert_eq!(throttled, 1);
}

#[tokio::test]
async fn where_logins_of_one_credential_are_throttled_another_logs_in() {
    let server = with_tokens(|seen| seen.authorization() == basic("a"), |_| false).await;
    let (upstream, _) = two_users(&server);
    for name in ["one", "two", "three"] {
        assert_eq!(fetch_of(&upstream, name).await, "ok");
    }
    assert_eq!(count_of(&server, "a"), 1);
}
