//! Tags, referrers, the catalogue (items 88-98).

use serde_json::json;

use crate::content::{ALL_TYPES, Image, OCI_INDEX, OCI_MANIFEST, artifact_about, index_of};
use crate::harness::{Section, Setup, Tidegate};
use crate::upstream::{Kind, Upstream, any, everything, redirect, serve, status, web_page};

async fn with_tags(tags: &[&str]) -> (Upstream, Image) {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", tags[0], &[10]);
    for tag in tags {
        upstream.tag_manifest("library/app", tag, &image.manifest);
    }
    (upstream, image)
}

#[tokio::test]
async fn item_088_tags_are_listed_with_n_and_last() {
    let (upstream, _) = with_tags(&["1", "2", "3", "4"]).await;
    let tidegate = Tidegate::start(&upstream).await;
    for (query, tags) in [
        ("", json!(["1", "2", "3", "4"])),
        ("?n=2", json!(["1", "2"])),
        ("?n=2&last=2", json!(["3", "4"])),
        ("?last=3", json!(["4"])),
        ("?n=10000", json!(["1", "2", "3", "4"])),
        ("?n=0", json!([])),
        ("?last=4", json!([])),
    ] {
        let list = tidegate.fetch(&format!("/v2/library/app/tags/list{query}")).await;
        assert_eq!((list.status, list.header("content-type")), (200, Some("application/json")), "{query}");
        assert_eq!(list.json(), json!({ "name": "library/app", "tags": tags }), "{query}");
    }
}

#[tokio::test]
async fn item_088_a_bad_n_is_refused_and_tags_are_never_null() {
    let (upstream, _) = with_tags(&["1"]).await;
    let tidegate = Tidegate::start(&upstream).await;
    for n in ["-1", "x", "99999999999999999999"] {
        let answer = tidegate.fetch(&format!("/v2/library/app/tags/list?n={n}")).await;
        assert!([200, 400].contains(&answer.status), "{n}: {answer:?}");
    }
    upstream.spoil_tags(json!(null));
    let tidegate = Tidegate::start(&upstream).await;
    let list = tidegate.fetch("/v2/library/app/tags/list").await;
    assert_eq!(list.json()["tags"], json!([]));
}

#[tokio::test]
async fn item_089_links_lead_through_all_pages_in_the_clients_own_spelling() {
    let (upstream, _) = with_tags(&["1", "2", "3", "4", "5"]).await;
    let tidegate = Tidegate::start(&upstream).await;
    for (start, prefix) in [
        ("/v2/library/app/tags/list?n=2", "/v2/library/app/tags/list?"),
        ("/v2/app/tags/list?n=2", "/v2/app/tags/list?"),
        ("/v2/hub.test/library/app/tags/list?n=2", "/v2/hub.test/library/app/tags/list?"),
        ("/hub.test/v2/library/app/tags/list?n=2", "/hub.test/v2/library/app/tags/list?"),
        ("/v2/library/app/tags/list?n=2&ns=hub.test", "/v2/library/app/tags/list?"),
    ] {
        let (mut path, mut tags) = (start.to_owned(), Vec::new());
        loop {
            let page = tidegate.fetch(&path).await;
            assert_eq!(page.status, 200, "{path}");
            tags.extend(page.json()["tags"].as_array().unwrap().iter().cloned());
            let Some(link) = page.header("link") else { break };
            let (next, parameters) = link.strip_prefix('<').unwrap().split_once('>').unwrap();
            assert!(parameters.contains("rel=\"next\"") && next.starts_with(prefix), "{link}");
            assert_eq!(next.contains("ns=hub.test"), start.contains("ns="), "{link}");
            path = next.to_owned();
        }
        assert_eq!(json!(tags), json!(["1", "2", "3", "4", "5"]), "{start}");
    }
}

#[tokio::test]
async fn item_089_pages_that_upstream_limits_are_followed_as_well() {
    let (upstream, _) = with_tags(&["1", "2", "3"]).await;
    upstream.limit_pages(2);
    let tidegate = Tidegate::start(&upstream).await;
    let page = tidegate.fetch("/v2/library/app/tags/list").await;
    if let Some(link) = page.header("link") {
        let next = link.trim_start_matches('<').split('>').next().unwrap().to_owned();
        assert_eq!(tidegate.fetch(&next).await.json()["tags"], json!(["3"]));
    } else {
        assert_eq!(page.json()["tags"], json!(["1", "2", "3"]));
    }
}

#[tokio::test]
async fn item_090_the_name_is_the_clients_and_bad_tags_are_left_out() {
    let (upstream, _) = with_tags(&["1"]).await;
    let tidegate = Tidegate::start(&upstream).await;
    for name in ["library/app", "app", "hub.test/library/app"] {
        let list = tidegate.fetch(&format!("/v2/{name}/tags/list")).await;
        assert_eq!(list.json()["name"], name);
    }
    upstream.spoil_tags(json!(["good", null, "", "bad tag", 7, "x\r\nset-cookie: y", "a/b", "also.good"]));
    let tidegate = Tidegate::start(&upstream).await;
    for query in ["", "?n=1"] {
        let list = tidegate.fetch(&format!("/v2/library/app/tags/list{query}")).await;
        assert!(list.header("set-cookie").is_none());
        for tag in list.json()["tags"].as_array().unwrap() {
            assert!(["good", "also.good"].contains(&tag.as_str().unwrap()), "{tag}");
        }
    }
}

#[tokio::test]
async fn item_091_a_tag_list_outlives_its_upstream() {
    let (upstream, image) = with_tags(&["1", "2"]).await;
    let never_listed = upstream.make_image("library/other", "pulled", &[10]);
    let section = Section::hub(&upstream).timeouts("1s", "1s", "1s");
    let tidegate = Setup::new().upstream(section).with_warnings().start().await;
    tidegate.pull(&image).await;
    tidegate.pull(&never_listed).await;
    tidegate.fetch("/v2/library/app/tags/list").await;
    upstream.stop().await;
    let listed = tidegate.fetch("/v2/library/app/tags/list").await;
    assert_eq!((listed.status, listed.json()["tags"].clone()), (200, json!(["1", "2"])));
    let known = tidegate.fetch("/v2/library/other/tags/list").await;
    assert_eq!((known.status, known.json()["tags"].clone()), (200, json!(["pulled"])));
    let nothing = tidegate.fetch("/v2/library/never/tags/list").await;
    assert_eq!(nothing.status, 504);
}

#[tokio::test]
async fn item_091_tags_come_from_upstream_and_show_new_ones() {
    let (upstream, _) = with_tags(&["1"]).await;
    let section = Section::hub(&upstream).clocks("0s", "0s", "30d");
    let tidegate = Setup::new().upstream(section).start().await;
    assert_eq!(tidegate.fetch("/v2/library/app/tags/list").await.json()["tags"], json!(["1"]));
    upstream.make_image("library/app", "2", &[10]);
    crate::harness::until("the new tag in the list", async || {
        tidegate.fetch("/v2/library/app/tags/list").await.json()["tags"] == json!(["1", "2"])
    })
    .await;
    tidegate.fetch("/v2/library/none/tags/list").await.assert_error(404, "NAME_UNKNOWN");
}

#[tokio::test]
async fn item_092_the_catalogue_lists_cached_repositories_in_pages() {
    let upstream = Upstream::start().await;
    let other = Upstream::start().await;
    let tidegate = Setup::new()
        .upstream(Section::hub(&upstream))
        .upstream(Section::new("other.test", &other))
        .start()
        .await;
    assert_eq!(tidegate.fetch("/v2/_catalog").await.json(), json!({ "repositories": [] }));
    for name in ["library/a", "library/b"] {
        tidegate.pull(&upstream.make_image(name, "1", &[10])).await;
    }
    other.make_image("team/c", "1", &[10]);
    tidegate.manifest("/v2/other.test/team/c/manifests/1").await;
    let all = tidegate.fetch("/v2/_catalog").await.json();
    let names: Vec<&str> =
        all["repositories"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    assert_eq!(names.len(), 3, "{names:?}");
    for name in ["library/a", "library/b", "other.test/team/c"] {
        assert!(names.iter().any(|listed| listed.ends_with(name)), "{name} in {names:?}");
    }
    let page = tidegate.fetch("/v2/_catalog?n=2").await;
    assert_eq!(page.json()["repositories"], json!(names[..2]));
    let link = page.header("link").unwrap();
    assert!(link.starts_with("</v2/_catalog?"), "{link}");
    let next = link.trim_start_matches('<').split('>').next().unwrap();
    assert_eq!(tidegate.fetch(next).await.json()["repositories"], json!(names[2..]));
    for name in names {
        assert_eq!(tidegate.manifest(&format!("/v2/{name}/manifests/1")).await.status, 200, "{name}");
    }
}

#[tokio::test]
async fn item_094_referrers_are_an_index_also_when_empty_and_tell_of_filters() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[10]);
    let sbom = artifact_about(&image.manifest, "test/sbom");
    upstream.add_manifest("library/app", &sbom);
    upstream.add_manifest("library/app", &artifact_about(&image.manifest, "test/signature"));
    let tidegate = Tidegate::start(&upstream).await;
    let path = format!("/v2/library/app/referrers/{}", image.manifest.digest);
    for _cold_then_warm in 0..2 {
        let all = tidegate.get(&path).header("accept", OCI_INDEX).send().await;
        assert_eq!((all.status, all.header("content-type")), (200, Some(OCI_INDEX)));
        assert_eq!(all.header("oci-filters-applied"), None);
        assert_eq!(all.json()["manifests"].as_array().unwrap().len(), 2);
        let filtered = tidegate.fetch(&format!("{path}?artifactType=test%2Fsbom")).await;
        assert_eq!(filtered.header("oci-filters-applied"), Some("artifactType"));
        let manifests = filtered.json()["manifests"].clone();
        assert_eq!(manifests.as_array().unwrap().len(), 1);
        assert_eq!(manifests[0]["digest"], sbom.digest);
        let none = tidegate.fetch(&path.replace(&image.manifest.digest, &sbom.digest)).await;
        assert_eq!((none.status, none.header("content-type")), (200, Some(OCI_INDEX)));
        assert_eq!(none.json()["manifests"], json!([]));
    }
    assert_eq!(
        tidegate.manifest(&format!("/v2/library/app/manifests/{}", sbom.digest)).await.body,
        sbom.bytes
    );
}

#[tokio::test]
async fn item_095_an_upstream_without_referrers_is_a_clean_404() {
    let elsewhere = redirect(303, "https://web.invalid/login");
    for then in [status(404), web_page(404), status(405), status(400), elsewhere, web_page(200)] {
        let upstream = Upstream::start().await;
        let image = upstream.make_image("library/app", "1", &[10]);
        upstream.rule(any(Kind::Referrers), then);
        let tidegate = Setup::new().upstream(Section::hub(&upstream)).with_warnings().start().await;
        let answer = tidegate.fetch(&format!("/v2/library/app/referrers/{}", image.manifest.digest)).await;
        assert!([200, 404].contains(&answer.status), "{answer:?}");
        if answer.status == 404 {
            assert_ne!(answer.error_code(), "NAME_UNKNOWN");
        } else {
            assert_eq!(answer.header("content-type"), Some(OCI_INDEX));
            assert_eq!(answer.json()["manifests"], json!([]));
        }
    }
}

#[tokio::test]
async fn item_095_the_fallback_tag_stands_in_where_upstream_has_no_referrers() {
    let upstream = Upstream::start().await;
    upstream.forget_referrers();
    let image = upstream.make_image("library/app", "1", &[10]);
    let about = upstream.make_image("library/app", "about", &[20]);
    let fallback = index_of(OCI_INDEX, &[&about]);
    upstream.tag_manifest("library/app", &image.manifest.digest.replace(':', "-"), &fallback);
    let tidegate = Tidegate::start(&upstream).await;
    let answer = tidegate.fetch(&format!("/v2/library/app/referrers/{}", image.manifest.digest)).await;
    if answer.status == 200 {
        assert_eq!(answer.header("content-type"), Some(OCI_INDEX));
        assert_eq!(answer.json()["manifests"][0]["digest"], about.manifest.digest);
    } else {
        assert_eq!(answer.status, 404);
        assert_ne!(answer.error_code(), "NAME_UNKNOWN");
    }
    let tag = format!("/v2/library/app/manifests/{}", image.manifest.digest.replace(':', "-"));
    assert_eq!(tidegate.manifest(&tag).await.body, fallback.bytes);
}

#[tokio::test]
async fn item_095_the_fallback_tag_serves_while_upstream_is_away() {
    let upstream = Upstream::start().await;
    upstream.forget_referrers();
    let image = upstream.make_image("library/app", "1", &[10]);
    let about = upstream.make_image("library/app", "about", &[20]);
    let fallback = index_of(OCI_INDEX, &[&about]);
    upstream.tag_manifest("library/app", &image.manifest.digest.replace(':', "-"), &fallback);
    let section = Section::hub(&upstream).clocks("0s", "0s", "1h");
    let tidegate = Setup::new().upstream(section).with_warnings().start().await;
    let path = format!("/v2/library/app/referrers/{}", image.manifest.digest);
    assert_eq!(tidegate.fetch(&path).await.status, 200);
    upstream.stop().await;
    let stale = tidegate.fetch(&path).await;
    assert_eq!((stale.status, &stale.body), (200, &fallback.bytes), "{stale:?}");
    assert!(stale.header("warning").is_some(), "{stale:?}");
    let unknown = tidegate.fetch(&path.replace(&image.manifest.digest, &about.manifest.digest)).await;
    assert!([502, 504].contains(&unknown.status), "not known to have none: {unknown:?}");
}

#[tokio::test]
async fn item_096_a_bad_digest_is_400_and_the_probe_of_oras_is_answered() {
    let upstream = Upstream::start().await;
    upstream.make_image("library/app", "1", &[10]);
    let tidegate = Tidegate::start(&upstream).await;
    for digest in ["latest", "sha256:abc", "sha256:XYZ", "md5:d41d8cd98f00b204e9800998ecf8427e"] {
        let answer = tidegate.fetch(&format!("/v2/library/app/referrers/{digest}")).await;
        answer.assert_error(400, "DIGEST_INVALID");
    }
    let probe = tidegate.fetch(&format!("/v2/library/app/referrers/sha256:{}", "0".repeat(64))).await;
    assert!([200, 404].contains(&probe.status), "{probe:?}");
}

#[tokio::test]
async fn item_097_referrers_are_cached_briefly_and_their_link_is_rewritten() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[10]);
    upstream.add_manifest("library/app", &artifact_about(&image.manifest, "test/sbom"));
    let tidegate = Tidegate::start(&upstream).await;
    let path = format!("/v2/library/app/referrers/{}", image.manifest.digest);
    let link = format!("<http://{}{path}?page=2>; rel=\"next\"", upstream.authority());
    upstream.rule(any(Kind::Referrers), serve().header("link", &link));
    let first = tidegate.fetch(&format!("/hub.test{path}")).await;
    let link = first.header("link").unwrap();
    assert!(link.starts_with(&format!("</hub.test{path}?")) && link.contains("page=2"), "{link}");
    tidegate.fetch(&path).await;
    assert_eq!(upstream.count(&any(Kind::Referrers)), 1, "asked once");
    let absent = format!("/v2/library/app/referrers/{}", image.layers[0].digest);
    upstream.heal();
    upstream.rule(any(Kind::Referrers), status(404));
    tidegate.fetch(&absent).await;
    let asked = upstream.count(&everything());
    tidegate.fetch(&absent).await;
    assert_eq!(upstream.count(&everything()), asked, "absence is remembered as well");
}

#[tokio::test]
async fn item_098_tags_of_signatures_pass_as_ordinary_tags() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[10]);
    let hex = image.manifest.digest.trim_start_matches("sha256:").to_owned();
    let hex512 = image.manifest.sha512().trim_start_matches("sha512:")[..64].to_owned();
    let tidegate = Tidegate::start(&upstream).await;
    for tag in [
        format!("sha256-{hex}"),
        format!("sha256-{hex}.sig"),
        format!("sha256-{hex}.att"),
        format!("sha256-{hex}.sbom"),
        format!("sha512-{hex512}"),
    ] {
        let signature = upstream.make_image("library/app", &tag, &[30]);
        let answer = tidegate.get(&signature.tag_path()).accept(&ALL_TYPES).send().await;
        assert_eq!((answer.status, answer.header("content-type")), (200, Some(OCI_MANIFEST)), "{tag}");
        assert_eq!(answer.body, signature.manifest.bytes);
    }
}
