//! Redirects over sockets: who is followed, and what goes along.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

type Script = Box<dyn Fn(&Seen) -> Response<Body> + Send + Sync>;

/// A registry that wants `Bearer t` and redirects blobs and manifests to `target`.
async fn redirecting(status: u16, target: String) -> Server {
    Server::start(move |seen| match (seen.target.as_str(), seen.authorization()) {
        ("/token?scope=repository:library/nginx:pull", _) => ok(r#"{"token":"t"}"#),
        (_, "Bearer t") => answer(status, &[("location", &target)], "moved"),
        _ => answer(
            401,
            &[("www-authenticate", &format!("Bearer realm=\"http://{}/token\"", seen.header("host")))],
            "",
        ),
    })
    .await
}

fn trusting(server: &Server, hosts: &[&str]) -> Upstream {
    upstream_with(&[server.url("registry.test")], |config| {
        config.trusted_hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
    })
    .0
}

#[tokio::test]
async fn checklist_86_authorization_stays_with_its_origin() {
    let storage = Server::start(|_| ok("blob")).await;
    let target = format!("{}/signed?X-Sig=a%2Fb", storage.url("cdn.elsewhere.test"));
    for status in [301, 302, 303, 307, 308] {
        let server = redirecting(status, target.clone()).await;
        let upstream = trusting(&server, &["cdn.elsewhere.test"]);
        assert_eq!(read_blob(&upstream).await.unwrap(), b"blob", "{status}");
        assert_eq!(server.seen()[2].authorization(), "Bearer t");
    }
    for seen in storage.seen() {
        assert_eq!((seen.target.as_str(), seen.authorization()), ("/signed?X-Sig=a%2Fb", ""));
    }
}

#[tokio::test]
async fn a_relative_redirect_keeps_the_authorization() {
    let server = Server::start(|seen| match (seen.target.as_str(), seen.authorization()) {
        ("/token?scope=repository:library/nginx:pull", _) => ok(r#"{"token":"t"}"#),
        ("/artifacts-downloads/x", "Bearer t") => ok("blob"),
        (_, "Bearer t") => answer(302, &[("location", "/artifacts-downloads/x")], ""),
        _ => answer(
            401,
            &[("www-authenticate", &format!("Bearer realm=\"http://{}/token\"", seen.header("host")))],
            "",
        ),
    })
    .await;
    assert_eq!(read_blob(&upstream(&server)).await.unwrap(), b"blob");
}

#[tokio::test]
async fn a_redirect_into_this_machine_is_not_followed() {
    let inside = Server::start(|_| ok("secret")).await;
    for host in ["cdn.elsewhere.test", "127.0.0.1", "localhost", "registry.test", "auth.registry.test"] {
        let server = redirecting(307, inside.url(host)).await;
        assert_eq!(kind(&read_blob(&trusting(&server, &[])).await), "broken", "{host}");
        assert_eq!(kind(&fetch(&trusting(&server, &[])).await), "broken", "{host}");
    }
    assert!(inside.seen().is_empty());
}

#[tokio::test]
async fn a_loop_ends_after_five_redirects() {
    let server = Server::start(|seen| answer(307, &[("location", &seen.target)], "")).await;
    let upstream = upstream(&server);
    assert_eq!(kind(&read_blob(&upstream).await), "broken");
    assert_eq!(server.seen().len(), 6);
    assert_eq!(upstream.status().endpoints[0].state, EndpointState::Up);
}

#[tokio::test]
async fn checklist_87_a_manifest_redirect_is_followed_with_the_other_registrys_own_token() {
    let other = Server::start(|seen| match (seen.target.as_str(), seen.authorization()) {
        ("/token?service=other&scope=repository:k8s-artifacts-prod/images/nginx:pull", "") => {
            ok(r#"{"token":"other"}"#)
        }
        ("/v2/k8s-artifacts-prod/images/nginx/manifests/latest", "Bearer other") => {
            answer(200, &[("content-type", "application/vnd.oci.image.index.v1+json")], "{}")
        }
        _ => {
            let realm = format!(
                r#"Bearer realm="http://{}/token",service="other",scope="repository:k8s-artifacts-prod/images/nginx:pull""#,
                seen.header("host")
            );
            answer(401, &[("www-authenticate", &realm)], "")
        }
    })
    .await;
    let target =
        format!("{}/v2/k8s-artifacts-prod/images/nginx/manifests/latest", other.url("cdn.elsewhere.test"));
    let server = Server::start(move |_| answer(307, &[("location", &target)], "")).await;
    let (upstream, _) = upstream_with(&[server.url("registry.test")], |config| {
        config.trusted_hosts = vec!["cdn.elsewhere.test".into()];
        let password = crate::config::Secret::new("p");
        config.credentials = vec![Credentials::Password { username: "u".into(), password }];
    });
    assert_eq!(fetch(&upstream).await.unwrap().head.media_type, Some(MediaType::OCI_INDEX));
    let head = upstream.head_manifest(&Urgency::CLIENT, &repository(), &tag(), &AcceptClass::Any).await;
    assert_eq!(head.unwrap().media_type, Some(MediaType::OCI_INDEX));
    assert_eq!(other.count("/token"), 1, "the other registry's token is kept too");
    assert!(server.seen().iter().all(|seen| seen.authorization().is_empty()));
}

#[tokio::test]
async fn checklist_85_an_expired_signed_url_is_resolved_again_once() {
    for status in [400, 401, 403] {
        let storage =
            Server::start(
                move |seen| if seen.target == "/signed/2" { ok("blob") } else { answer(status, &[], "") },
            )
            .await;
        let (base, signed) = (storage.url("cdn.elsewhere.test"), AtomicUsize::new(0));
        let server = Server::start(move |_| {
            let number = signed.fetch_add(1, Ordering::SeqCst) + 1;
            answer(307, &[("location", &format!("{base}/signed/{number}"))], "")
        })
        .await;
        let upstream = trusting(&server, &["cdn.elsewhere.test"]);
        assert_eq!(read_blob(&upstream).await.unwrap(), b"blob", "{status}");
        assert_ne!(kind(&read_blob(&upstream).await), "ok", "{status}: expired twice");
        assert_eq!(server.seen().len(), 4, "{status}");
    }
}

#[tokio::test]
async fn referrers_that_lead_to_web_pages_are_absent() {
    let page = Server::start(|_| answer(200, &[("content-type", "text/html")], "<html>")).await;
    let url = page.url("cdn.elsewhere.test");
    for script in [
        Box::new(|_: &Seen| answer(303, &[("location", "https://github.example/page")], "")) as Script,
        Box::new(|_: &Seen| answer(200, &[("content-type", "text/html")], "<html>")),
        Box::new(move |_: &Seen| answer(302, &[("location", &url)], "")),
        Box::new(|_: &Seen| answer(404, &[], "")),
        Box::new(|_: &Seen| answer(405, &[], "")),
        Box::new(|_: &Seen| answer(400, &[], "")),
    ] {
        let server = Server::start(script).await;
        let upstream = trusting(&server, &["cdn.elsewhere.test"]);
        assert_eq!(
            kind(&upstream.fetch_referrers(&Urgency::CLIENT, &repository(), &digest(), &[]).await),
            "absent"
        );
    }
}
