//! Content discovery (OCI distribution, "Listing Tags" and "Listing Referrers"), numbered as in the table of the
//! module above.

use serde_json::{Value, json};

use super::actor::{Actor, next_page, tags_in};
use super::registry::Hosted;
use crate::content::{Content, Image, OCI_INDEX, OCI_MANIFEST};

const TAGS: [&str; 9] = ["1.0", "1.10", "1.2", "A", "B", "_x", "a", "b", "latest"];

/// A node with an image under all of [`TAGS`], pushed in another order.
async fn with_tags() -> Hosted {
    let hosted = Hosted::start().await;
    let image = Image::oci("acme/app", "latest", &[10]);
    hosted.administrator().push_image(&image).await;
    for tag in TAGS.iter().rev() {
        hosted.administrator().push_manifest("acme/app", tag, &image.manifest).await;
    }
    hosted
}

async fn list(hosted: &Hosted, query: &str) -> crate::client::Answer {
    hosted.anonymous().get(&format!("/v2/acme/app/tags/list{query}")).send().await
}

#[tokio::test]
async fn tags_01_the_list_is_200_with_the_name_and_all_tags_in_ascii_order() {
    let hosted = with_tags().await;
    let answer = list(&hosted, "").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json(), json!({ "name": "acme/app", "tags": TAGS }));
    assert!(answer.header("content-type").unwrap().starts_with("application/json"));
    assert_eq!(answer.header("link"), None);
}

#[tokio::test]
async fn tags_02_the_list_may_be_empty_and_is_never_null() {
    let hosted = Hosted::start().await;
    let admin = hosted.administrator();
    admin.push_blob("acme/app", &Content::blob(1, 10)).await;
    let answer = list(&hosted, "").await;
    if answer.status == 404 {
        answer.assert_error(404, "NAME_UNKNOWN");
    } else {
        assert_eq!(answer.json(), json!({ "name": "acme/app", "tags": [] }));
    }
    let image = Image::oci("acme/app", "1", &[10]);
    admin.push_image(&image).await;
    assert_eq!(admin.delete(&image.tag_path()).send().await.status, 202);
    assert_eq!(list(&hosted, "").await.json(), json!({ "name": "acme/app", "tags": [] }));
}

#[tokio::test]
async fn tags_03_so_many_tags_come_as_were_asked_for_with_a_link_to_the_rest() {
    let hosted = with_tags().await;
    for count in 1..TAGS.len() {
        let answer = list(&hosted, &format!("?n={count}")).await;
        assert_eq!(tags_in(&answer), TAGS[..count]);
        let mut seen = tags_in(&answer);
        let mut next = next_page(&answer);
        assert!(next.is_some(), "{answer:?}");
        while let Some(path) = next {
            assert!(path.starts_with("/v2/acme/app/tags/list?"), "{path}");
            let answer = hosted.anonymous().get(&path).send().await;
            assert!(tags_in(&answer).len() <= count);
            seen.extend(tags_in(&answer));
            next = next_page(&answer);
        }
        assert_eq!(seen, TAGS, "{count} at a time");
    }
    for count in [TAGS.len(), 10, 1000, 10_000, 1_000_000] {
        let answer = list(&hosted, &format!("?n={count}")).await;
        assert_eq!(
            (tags_in(&answer), next_page(&answer)),
            (TAGS.map(str::to_owned).to_vec(), None),
            "{count}"
        );
    }
}

#[tokio::test]
async fn tags_04_none_are_asked_for_and_none_come() {
    let hosted = with_tags().await;
    for query in ["?n=0", "?n=0&last=A"] {
        let answer = list(&hosted, query).await;
        assert_eq!((answer.status, tags_in(&answer).len(), answer.header("link")), (200, 0, None), "{query}");
    }
}

#[tokio::test]
async fn tags_05_the_list_goes_on_after_the_last_tag_whether_that_exists_or_not() {
    let hosted = with_tags().await;
    for (query, expected) in [
        ("?last=B", &TAGS[5..]),
        ("?n=2&last=B", &TAGS[5..7]),
        ("?last=B&n=2", &TAGS[5..7]),
        ("?last=AA", &TAGS[4..]),
        ("?last=1.1", &TAGS[1..]),
        ("?last=latest", &[]),
        ("?last=zzz&n=5", &[]),
    ] {
        let answer = list(&hosted, query).await;
        assert_eq!(tags_in(&answer), expected, "{query}");
    }
}

#[tokio::test]
async fn tags_06_a_number_that_is_none_is_refused_or_ignored_and_never_half_understood() {
    let hosted = with_tags().await;
    for query in ["?n=x", "?n=-1", "?n=1.5"] {
        let answer = list(&hosted, query).await;
        match answer.status {
            200 => assert_eq!(tags_in(&answer), TAGS, "{query}"),
            status => assert_eq!((status, answer.error_code().is_empty()), (400, false), "{query}"),
        }
    }
}

#[tokio::test]
async fn tags_07_the_tags_of_an_unknown_repository_are_404() {
    let hosted = with_tags().await;
    hosted.anonymous().get("/v2/acme/none/tags/list").send().await.assert_error(404, "NAME_UNKNOWN");
}

/// An artifact of the given type, configuration and annotations about a subject, without blobs of its own.
fn referrer(subject: &Content, artifact_type: Option<&str>, annotation: &str) -> Content {
    let empty = Content::of("application/vnd.example.config.v1+json", "{}");
    let mut manifest = json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": empty.descriptor(), "layers": [],
        "subject": subject.descriptor(), "annotations": { "org.example.note": annotation },
    });
    if let Some(artifact_type) = artifact_type {
        manifest["artifactType"] = json!(artifact_type);
    }
    Content::json(OCI_MANIFEST, &manifest)
}

/// The same as an index.
fn referring_index(subject: &Content, artifact_type: Option<&str>) -> Content {
    let mut index = json!({
        "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [], "subject": subject.descriptor(),
        "annotations": { "org.example.note": "index" },
    });
    if let Some(artifact_type) = artifact_type {
        index["artifactType"] = json!(artifact_type);
    }
    Content::json(OCI_INDEX, &index)
}

async fn push_referrer(admin: &Actor, manifest: &Content) {
    admin.push_manifest("acme/app", &manifest.digest, manifest).await;
}

/// A node with an image and the blob that every referrer lists.
async fn with_subject() -> (Hosted, Image) {
    let hosted = Hosted::start().await;
    let image = Image::oci("acme/app", "1", &[10]);
    hosted.administrator().push_image(&image).await;
    hosted.administrator().push_blob("acme/app", &Content::of("text/plain", "{}")).await;
    (hosted, image)
}

/// All referrers, over all pages, which are valid each.
async fn referrers(actor: &Actor, digest: &str, query: &str) -> Vec<Value> {
    let mut all = Vec::new();
    let mut next = Some(format!("/v2/acme/app/referrers/{digest}{query}"));
    while let Some(path) = next {
        let answer = actor.get(&path).send().await;
        assert_eq!((answer.status, answer.header("content-type")), (200, Some(OCI_INDEX)), "{answer:?}");
        let index = answer.json();
        assert_eq!((&index["schemaVersion"], &index["mediaType"]), (&json!(2), &json!(OCI_INDEX)));
        assert!(answer.body.len() <= 4 << 20, "clients read 4 MiB: {}", answer.body.len());
        let filtered = answer.header("oci-filters-applied");
        assert_eq!(filtered, query.contains("artifactType").then_some("artifactType"), "{path}");
        all.extend(index["manifests"].as_array().unwrap().iter().cloned());
        next = next_page(&answer);
    }
    all
}

fn digests(list: &[Value]) -> Vec<&str> {
    let mut digests: Vec<&str> = list.iter().map(|entry| entry["digest"].as_str().unwrap()).collect();
    digests.sort_unstable();
    digests
}

#[tokio::test]
async fn referrers_01_a_digest_that_nothing_refers_to_has_an_empty_index() {
    let (hosted, image) = with_subject().await;
    let zero = format!("sha256:{}", "0".repeat(64));
    for digest in [&image.manifest.digest, &image.manifest.sha512(), &zero] {
        assert!(referrers(&hosted.anonymous(), digest, "").await.is_empty(), "{digest}");
        assert!(referrers(&hosted.anonymous(), digest, "?artifactType=a%2Fb").await.is_empty(), "{digest}");
    }
}

#[tokio::test]
async fn referrers_02_the_answer_is_never_404_not_even_before_the_first_push() {
    let hosted = Hosted::start().await;
    let digest = Content::blob(1, 10).digest;
    assert!(referrers(&hosted.anonymous(), &digest, "").await.is_empty());
}

#[tokio::test]
async fn referrers_03_an_invalid_digest_is_400() {
    let (hosted, _) = with_subject().await;
    for digest in ["sha256:abc", "latest", "sha256:", &format!("sha256:{}", "G".repeat(64))] {
        let answer = hosted.anonymous().get(&format!("/v2/acme/app/referrers/{digest}")).send().await;
        assert_eq!(answer.status, 400, "{digest}: {answer:?}");
        answer.error_code();
    }
}

#[tokio::test]
async fn referrers_04_descriptors_have_type_size_artifact_type_and_annotations() {
    let (hosted, image) = with_subject().await;
    let typed = referrer(&image.manifest, Some("application/vnd.example.sbom"), "typed");
    let untyped = referrer(&image.manifest, None, "untyped");
    let blank = referrer(&image.manifest, Some(""), "blank");
    let typed_index = referring_index(&image.manifest, Some("application/vnd.example.set"));
    let untyped_index = referring_index(&image.manifest, None);
    let expected = [
        (&typed, OCI_MANIFEST, Some("application/vnd.example.sbom"), "typed"),
        (&untyped, OCI_MANIFEST, Some("application/vnd.example.config.v1+json"), "untyped"),
        (&blank, OCI_MANIFEST, Some("application/vnd.example.config.v1+json"), "blank"),
        (&typed_index, OCI_INDEX, Some("application/vnd.example.set"), "index"),
        (&untyped_index, OCI_INDEX, None, "index"),
    ];
    for (manifest, ..) in &expected {
        push_referrer(&hosted.administrator(), manifest).await;
    }
    let all = referrers(&hosted.anonymous(), &image.manifest.digest, "").await;
    assert_eq!(all.len(), expected.len(), "{all:?}");
    for (manifest, media_type, artifact_type, note) in expected {
        let entry = all.iter().find(|entry| entry["digest"] == manifest.digest.as_str()).unwrap();
        assert_eq!(entry["mediaType"], media_type);
        assert_eq!(entry["size"], manifest.size());
        assert_eq!(entry.get("artifactType").and_then(Value::as_str), artifact_type, "{note}");
        assert_eq!(entry["annotations"], json!({ "org.example.note": note }));
    }
}

#[tokio::test]
async fn referrers_05_a_filter_leaves_what_it_asks_for_and_says_so() {
    let (hosted, image) = with_subject().await;
    let sbom = referrer(&image.manifest, Some("application/vnd.example.sbom"), "1");
    let other = referrer(&image.manifest, Some("application/vnd.example+plus"), "2");
    let untyped = referrer(&image.manifest, None, "3");
    for manifest in [&sbom, &other, &untyped] {
        push_referrer(&hosted.administrator(), manifest).await;
    }
    for (filter, expected) in [
        ("application/vnd.example.sbom", vec![&sbom]),
        ("application%2Fvnd.example.sbom", vec![&sbom]),
        ("application%2Fvnd.example%2Bplus", vec![&other]),
        ("application/vnd.example.config.v1%2Bjson", vec![&untyped]),
        ("application/none", vec![]),
    ] {
        let query = format!("?artifactType={filter}");
        let list = referrers(&hosted.anonymous(), &image.manifest.digest, &query).await;
        let expected: Vec<&str> = expected.iter().map(|manifest| manifest.digest.as_str()).collect();
        assert_eq!(digests(&list), expected, "{filter}");
    }
}

#[tokio::test]
async fn referrers_06_a_list_that_is_too_long_for_one_answer_comes_in_pages() {
    let (hosted, image) = with_subject().await;
    let admin = hosted.administrator();
    let note = "N".repeat(100_000);
    let mut expected = Vec::new();
    for number in 0..60 {
        let manifest =
            referrer(&image.manifest, Some("application/vnd.example.large"), &format!("{number}{note}"));
        push_referrer(&admin, &manifest).await;
        expected.push(manifest.digest);
    }
    expected.sort_unstable();
    for query in ["", "?artifactType=application/vnd.example.large"] {
        let list = referrers(&hosted.anonymous(), &image.manifest.digest, query).await;
        assert_eq!(digests(&list), expected, "{query}");
    }
}

#[tokio::test]
async fn referrers_07_a_subject_by_sha512_has_its_referrers_under_that_digest() {
    let (hosted, image) = with_subject().await;
    let admin = hosted.administrator();
    let sha512 = image.manifest.sha512();
    admin.push_manifest("acme/app", &sha512, &image.manifest).await;
    let mut subject = image.manifest.clone();
    subject.digest.clone_from(&sha512);
    let manifest = referrer(&subject, Some("application/vnd.example.sbom"), "about sha512");
    let answer = admin.push_manifest("acme/app", &manifest.digest, &manifest).await;
    assert_eq!(answer.header("oci-subject"), Some(sha512.as_str()));
    let list = referrers(&hosted.anonymous(), &sha512, "").await;
    assert_eq!(digests(&list), [manifest.digest.as_str()]);
}

#[tokio::test]
async fn referrers_08_only_those_of_the_same_repository_are_listed_and_only_once() {
    let (hosted, image) = with_subject().await;
    let admin = hosted.administrator();
    let manifest = referrer(&image.manifest, Some("application/vnd.example.sbom"), "here");
    for reference in [&manifest.digest, "tagged", "tagged-again"] {
        admin.push_manifest("acme/app", reference, &manifest).await;
    }
    admin.push_blob("acme/other", &Content::of("text/plain", "{}")).await;
    let elsewhere = referrer(&image.manifest, Some("application/vnd.example.sbom"), "elsewhere");
    admin.push_manifest("acme/other", &elsewhere.digest, &elsewhere).await;
    let list = referrers(&hosted.anonymous(), &image.manifest.digest, "").await;
    assert_eq!(digests(&list), [manifest.digest.as_str()]);
}
