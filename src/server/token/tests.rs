//! The token endpoint, as clients ask it.

use http::{Method, Response};
use http_body_util::Full;

use super::*;
use crate::auth::Actor;
use crate::auth::tests::{Node, PASSWORD, basic};
use crate::server::route::{Target, parse};

const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

/// `closed/…` is hosted, and for those who have a right to it.
fn visibility_of(scope: &Scope) -> Visibility {
    if scope.repository.as_str().starts_with("closed/") { Visibility::Private } else { Visibility::Public }
}

/// An answer's status, and its body as JSON.
async fn told(answer: Answer) -> (u16, serde_json::Value, Response<()>) {
    let response = answer.unwrap_or_else(Problem::into_response);
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (parts.status.as_u16(), serde_json::from_slice(&body).unwrap(), Response::from_parts(parts, ()))
}

async fn get(authenticator: &Authenticator, authorization: Option<&[u8]>, query: &str) -> Answer {
    let route = parse(&Method::GET, "/token", Some(query)).unwrap();
    assert_eq!(route.target, Target::Token);
    let header = authorization.map(|value| HeaderValue::from_bytes(value).unwrap());
    answer_get(authenticator, header.as_ref(), &route.query, CLIENT, &visibility_of).await
}

async fn post(authenticator: &Authenticator, form: &'static str) -> Answer {
    let form = read_form(Full::new(Bytes::from_static(form.as_bytes()))).await?;
    answer_post(authenticator, &form, CLIENT, &visibility_of).await
}

#[tokio::test]
async fn a_password_gets_a_token_as_every_client_looks_for_it() {
    let node = Node::begin().await;
    let authenticator = node.authenticator().await;
    let admin = basic("admin", PASSWORD);
    // As docker, containerd, and skopeo ask.
    for query in [
        "account=admin&client_id=docker&offline_token=true&service=tidegate",
        "scope=repository%3Aclosed%2Fapp%3Apull&scope=repository:127.0.0.1:5000/closed/app:pull,push&service=x",
        "account=admin&scope=repository%3Aclosed%2Fapp%3Apull%2Cpush+repository%3Ax%3Apull&service=tidegate",
    ] {
        let (status, body, response) = told(get(&authenticator, Some(&admin), query).await).await;
        assert_eq!(status, 200, "{query}");
        assert_eq!(body["token"], body["access_token"]);
        assert_eq!((&body["expires_in"], &body["issued_at"]), (&300.into(), &"2026-09-21T14:13:20Z".into()));
        assert_eq!(response.headers()["cache-control"], "no-store");
        assert_eq!(response.headers()["content-type"], "application/json");
        assert_eq!(body.as_object().unwrap().len(), 4);
        let bearer = format!("Bearer {}", body["token"].as_str().unwrap());
        let actor = authenticator.authenticate(Some(bearer.as_bytes()), CLIENT).await.unwrap();
        assert_eq!(&*actor.name(), "admin", "{query}");
    }
    let open = get(&authenticator, None, "scope=repository:closed/app:pull").await;
    let (status, body, _) = told(open).await;
    let bearer = format!("Bearer {}", body["token"].as_str().unwrap());
    let actor = authenticator.authenticate(Some(bearer.as_bytes()), CLIENT).await.unwrap();
    assert_eq!((status, actor), (200, Actor::Guest));
}

#[tokio::test]
async fn a_form_does_the_same() {
    let node = Node::begin().await;
    let authenticator = node.authenticator().await;
    let form = "grant_type=password&username=admin&password=correct+horse&service=tidegate&client_id=containerd-client\
                &scope=repository%3Aclosed%2Fapp%3Apull+repository%3Aclosed%2Fb%3Apush&access_type=offline";
    let (status, body, _) = told(post(&authenticator, form).await).await;
    assert_eq!((status, &body["expires_in"]), (200, &300.into()));
    let wrong = "grant_type=password&username=admin&password=correct%2Bhorse";
    assert_eq!(told(post(&authenticator, wrong).await).await.0, 401);
    for unknown in
        ["grant_type=refresh_token&refresh_token=x", "", "grant_type=", "a=b&grant_type=authorization_code"]
    {
        let (status, body, _) = told(post(&authenticator, unknown).await).await;
        assert_eq!((status, &body["errors"][0]["code"]), (404, &"UNSUPPORTED".into()), "{unknown}");
    }
    let large = read_form(Full::new(Bytes::from(vec![b'a'; MAX_FORM_BYTES + 1]))).await.unwrap_err();
    assert_eq!(large.status, 400);
    let binary = read_form(Full::new(Bytes::from_static(b"\xff"))).await.unwrap_err();
    assert_eq!(binary.status, 400);
}

#[tokio::test]
async fn a_wrong_password_is_a_401_and_leads_in_no_circle() {
    let node = Node::begin().await;
    let authenticator = node.authenticator().await;
    let wrong = basic("admin", "wrong");
    let (status, body, response) = told(get(&authenticator, Some(&wrong), "service=tidegate").await).await;
    assert_eq!((status, &body["errors"][0]["code"]), (401, &"UNAUTHORIZED".into()));
    assert_eq!(response.headers()["www-authenticate"], "Basic realm=\"tidegate\"");
    let open = get(&authenticator, Some(&wrong), "scope=repository:library/alpine:pull").await;
    assert_eq!(told(open).await.0, 200);
    for attempt in 0..6 {
        let wrong = basic("admin", &format!("{attempt}"));
        let _refused = get(&authenticator, Some(&wrong), "").await;
    }
    let (status, _, response) = told(get(&authenticator, Some(&basic("admin", PASSWORD)), "").await).await;
    assert_eq!((status, response.headers()["retry-after"].as_bytes()), (429, &b"1"[..]));
}

#[tokio::test]
async fn accounts_that_cannot_be_read_are_no_wrong_password() {
    let node = Node::begin().await;
    let authenticator = node.authenticator().await;
    node.catalogue().close().await;
    let (status, body, _) = told(get(&authenticator, Some(&basic("admin", PASSWORD)), "").await).await;
    assert_eq!((status, &body["errors"][0]["code"]), (500, &"UNKNOWN".into()));
}

#[test]
fn the_endpoint_takes_get_and_post_at_one_path() {
    assert!(parse(&Method::POST, "/token", None).is_ok());
    for method in [Method::PUT, Method::DELETE, Method::PATCH] {
        assert_eq!(parse(&method, "/token", None).unwrap_err().status(), 405);
    }
    for path in ["/token/", "/v2/token", "/docker.io/token", "/TOKEN"] {
        assert!(
            parse(&Method::GET, path, None).map_or(true, |route| route.target != Target::Token),
            "{path}"
        );
    }
    assert_eq!(parse(&Method::GET, "/token", Some("ns=a")).unwrap().link(&[]), "/token");
}
