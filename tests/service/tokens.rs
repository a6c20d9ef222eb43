//! How this node identifies itself to upstreams (items 70-78 are about our own tokens; here are those
//! of upstreams, and items 83 and 85 as far as tokens go).

use http::StatusCode;

use crate::harness::{Section, Setup, Tidegate, eventually};
use crate::upstream::{
    Access, Bearer, Gate, Kind, Then, Upstream, any, everything, manifest, serve, status, web_page,
};

fn with_tokens(upstream: &Upstream, change: impl FnOnce(&mut Bearer)) {
    let mut bearer = Bearer::of_realm(&upstream.realm());
    change(&mut bearer);
    upstream.require(Access::Bearer(bearer));
}

fn bearer_section(upstream: &Upstream) -> Section {
    Section::hub(upstream).timeouts("1s", "1s", "1s")
}

#[tokio::test]
async fn one_token_of_one_scope_serves_a_whole_repository() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[1000, 2000, 3000]);
    with_tokens(&upstream, |_| ());
    let tidegate = Tidegate::start(&upstream).await;
    tidegate.pull(&image).await;
    let tokens = upstream.requests(&any(Kind::Token));
    assert_eq!(tokens.len(), 1);
    assert_eq!(tokens[0].parameters("scope"), ["repository:library/app:pull"]);
    assert_eq!(tokens[0].parameters("service"), ["scripted"]);
    assert_eq!(tokens[0].header("authorization"), None, "anonymous");
    let other = upstream.make_image("library/other", "1", &[10]);
    tidegate.pull(&other).await;
    assert_eq!(upstream.count(&any(Kind::Token)), 2, "one token a repository");
}

#[tokio::test]
async fn a_token_is_fetched_once_for_all_who_wait() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[10; 20]);
    with_tokens(&upstream, |_| ());
    let gate = Gate::closed();
    upstream.rule(any(Kind::Token), serve().hold_head(&gate));
    let tidegate = Tidegate::start(&upstream).await;
    let calls: Vec<_> =
        (0..20).map(|index| tokio::spawn(tidegate.get(&image.layer_path(index)).send())).collect();
    gate.wait_for_arrivals(1).await;
    gate.open();
    for call in calls {
        assert_eq!(call.await.unwrap().status, 200);
    }
    assert_eq!(upstream.count(&any(Kind::Token)), 1);
}

#[tokio::test]
async fn user_and_password_go_to_the_realm_and_nowhere_else() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[10]);
    with_tokens(&upstream, |bearer| bearer.credentials = Some(("user".into(), "pass word".into())));
    let section = bearer_section(&upstream).text("username", "user").text("password_file", "secret");
    let mut tidegate =
        Setup::new().upstream(section).file("secret", "pass word\n").with_warnings().start().await;
    tidegate.pull(&image).await;
    for request in upstream.requests(&everything()) {
        let basic = request.header("authorization").is_some_and(|value| value.starts_with("Basic"));
        assert_eq!(basic, request.kind == Kind::Token, "{}", request.path);
    }
    assert!(tidegate.log_lines("pass word").is_empty());

    tidegate.reconfigure(|setup| setup.file("secret", "wrong"));
    upstream.expire_tokens();
    let refused = upstream.make_image("library/refused", "1", &[10]);
    let answer = tidegate.manifest(&refused.tag_path()).await;
    assert!([403, 404].contains(&answer.status), "{answer:?}");
    tidegate.reconfigure(|setup| setup.file("secret", "pass word"));
    eventually("the right password to be read anew", async || {
        (tidegate.manifest(&refused.tag_path()).await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn basic_credentials_are_sent_where_basic_is_asked_for() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("team/app", "1", &[1000]);
    upstream.require(Access::Basic("AWS".into(), "token".into()));
    let section = bearer_section(&upstream).text("username", "AWS").text("password", "token");
    let tidegate = Setup::new().upstream(section).start().await;
    tidegate.pull(&image).await;
    assert_eq!(upstream.count(&any(Kind::Token)), 0);
}

#[tokio::test]
async fn challenges_without_service_or_scope_and_answers_without_expiry_do() {
    for (service, names_scope, expires_in) in
        [(false, true, Some(300)), (true, false, Some(300)), (true, true, None)]
    {
        let upstream = Upstream::start().await;
        let image = upstream.make_image("library/app", "1", &[1000]);
        with_tokens(&upstream, |bearer| {
            bearer.names_scope = names_scope;
            bearer.expires_in = expires_in;
            if !service {
                bearer.service = None;
            }
        });
        let tidegate = Tidegate::start(&upstream).await;
        tidegate.pull(&image).await;
        assert!(upstream.count(&any(Kind::Token)) <= 2);
    }
}

#[tokio::test]
async fn an_expired_token_is_renewed_also_where_upstream_says_400() {
    for code in [StatusCode::UNAUTHORIZED, StatusCode::BAD_REQUEST] {
        let upstream = Upstream::start().await;
        let image = upstream.make_image("library/app", "1", &[1000, 2000]);
        with_tokens(&upstream, |bearer| bearer.expired = code);
        let tidegate = Tidegate::start(&upstream).await;
        assert_eq!(tidegate.manifest(&image.tag_path()).await.status, 200);
        upstream.expire_tokens();
        tidegate.pull(&image).await;
        assert_eq!(upstream.count(&any(Kind::Token)), 2, "{code}");
    }
}

#[tokio::test]
async fn item_083_a_401_for_a_fresh_token_means_absent() {
    let upstream = Upstream::start().await;
    upstream.make_image("library/app", "1", &[10]);
    with_tokens(&upstream, |_| ());
    upstream.hide_missing();
    let section = bearer_section(&upstream).text("negative_for", "0s");
    let tidegate = Setup::new().upstream(section).with_warnings().start().await;
    tidegate.manifest("/v2/library/none/manifests/1").await.assert_error(404, "MANIFEST_UNKNOWN");
    let blob = format!("/v2/library/none/blobs/sha256:{}", "1".repeat(64));
    tidegate.fetch(&blob).await.assert_error(404, "BLOB_UNKNOWN");
    assert_eq!(tidegate.fetch("/v2/library/none/tags/list").await.status, 404);
    let tokens = upstream.count(&any(Kind::Token));
    assert!(tokens < 12, "{tokens} tokens for three answers");
    let image = upstream.make_image("library/none", "1", &[20]);
    assert_eq!(tidegate.manifest(&image.tag_path()).await.status, 200, "pushed in the meantime");
}

#[tokio::test]
async fn a_realm_in_trouble_is_told_by_its_own_class() {
    let page = "<html>login</html>";
    let cases: Vec<(Then, &[u16])> = vec![
        (status(401), &[403, 404]),
        (status(403), &[403, 404]),
        (status(429).header("retry-after", "1"), &[429]),
        (status(500), &[502]),
        (web_page(200).body(page), &[502]),
        (status(200).header("content-type", "application/json").body("{}"), &[502]),
        (status(200).header("content-type", "application/json").body("{\"token\":7}"), &[502]),
        (
            status(200).header("content-type", "application/json").body("{\"token\":\"a\\r\\nx-evil: 1\"}"),
            &[502],
        ),
        (serve().delay_head(std::time::Duration::from_mins(1)), &[504]),
    ];
    for (then, codes) in cases {
        let upstream = Upstream::start().await;
        let image = upstream.make_image("library/app", "1", &[10]);
        with_tokens(&upstream, |_| ());
        upstream.rule(any(Kind::Token), then);
        let tidegate = Setup::new().upstream(bearer_section(&upstream)).with_warnings().start().await;
        let answer = tidegate.manifest(&image.tag_path()).await;
        assert!(codes.contains(&answer.status), "{codes:?}: {answer:?}");
        for request in upstream.requests(&everything()) {
            assert_eq!(request.header("x-evil"), None);
        }
        upstream.heal();
        eventually("an answer after healing", async || {
            (tidegate.manifest(&image.tag_path()).await.status == 200).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_token_of_1_gib_is_given_up_in_little_memory() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[10]);
    with_tokens(&upstream, |_| ());
    let endless = status(200)
        .header("content-type", "application/json")
        .body("{\"token\":\"".to_owned() + &"x".repeat(1 << 20));
    for then in [endless.clone().repeated_to(1 << 30), endless.repeated_to(1 << 30).chunked()] {
        upstream.heal();
        upstream.rule(any(Kind::Token), then);
        let tidegate = Setup::new().upstream(bearer_section(&upstream)).with_warnings().start().await;
        let before = tidegate.memory_bytes();
        let answer = tidegate.manifest(&image.tag_path()).await;
        assert_eq!(answer.status, 502, "{answer:?}");
        let grown = tidegate.memory_bytes().saturating_sub(before);
        assert!(grown < 32 << 20, "{grown} bytes");
    }
    assert!(upstream.sent_bytes(&any(Kind::Token)) < 256 << 20);
}

#[tokio::test]
async fn endless_manifests_tags_and_referrers_are_given_up_in_little_memory() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[10]);
    let endless = serve().body("[".repeat(1 << 20)).repeated_to(1 << 30).chunked();
    upstream.rule(manifest("1").head(), status(405));
    for kind in [Kind::Manifest, Kind::Tags, Kind::Referrers] {
        upstream.rule(any(kind).get(), endless.clone());
    }
    let tidegate = Setup::new().upstream(bearer_section(&upstream)).with_warnings().start().await;
    let before = tidegate.memory_bytes();
    let referrers = format!("/v2/library/app/referrers/{}", image.manifest.digest);
    for path in [image.tag_path(), "/v2/library/app/tags/list".to_owned(), referrers] {
        let answer = tidegate.manifest(&path).await;
        assert!(answer.status == 502 || answer.status == 404, "{path}: {answer:?}");
    }
    let grown = tidegate.memory_bytes().saturating_sub(before);
    assert!(grown < 150 << 20, "{grown} bytes");
    assert!(upstream.sent_bytes(&everything()) < 768 << 20);
}
