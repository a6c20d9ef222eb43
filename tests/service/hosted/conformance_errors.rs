//! The error codes (OCI distribution, "Error Codes"): each is produced by what it is for, in the form that the
//! specification gives it.

use bytes::Bytes;
use http::Method;
use serde_json::json;

use super::actor::{location_of, with_query};
use super::registry::Hosted;
use crate::client::Answer;
use crate::content::{Content, Image, OCI_MANIFEST};

/// The codes of the specification.
const CODES: [&str; 14] = [
    "BLOB_UNKNOWN",
    "BLOB_UPLOAD_INVALID",
    "BLOB_UPLOAD_UNKNOWN",
    "DIGEST_INVALID",
    "MANIFEST_BLOB_UNKNOWN",
    "MANIFEST_INVALID",
    "MANIFEST_UNKNOWN",
    "NAME_INVALID",
    "NAME_UNKNOWN",
    "SIZE_INVALID",
    "UNAUTHORIZED",
    "DENIED",
    "UNSUPPORTED",
    "TOOMANYREQUESTS",
];

/// Requires the form of an error, and returns its code.
fn code_of(answer: &Answer) -> String {
    assert!((400..500).contains(&answer.status), "{answer:?}");
    let body = answer.json();
    let errors = body["errors"].as_array().unwrap();
    assert!(!errors.is_empty(), "{body}");
    for error in errors {
        let code = error["code"].as_str().unwrap();
        assert!(CODES.contains(&code), "{code} is not of the specification");
        assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{error}");
        assert!(
            error
                .as_object()
                .unwrap()
                .keys()
                .all(|key| ["code", "message", "detail"].contains(&key.as_str()))
        );
    }
    answer.error_code()
}

#[tokio::test]
async fn error_01_content_that_is_not_there_is_unknown() {
    let hosted = Hosted::start().await;
    let admin = hosted.administrator();
    admin.push_image(&Image::oci("acme/app", "1", &[10])).await;
    let digest = Content::blob(1, 10).digest;
    let location = admin.start_upload("acme/app").await;
    admin.delete(&location).send().await;
    for (method, path, code) in [
        (Method::GET, format!("/v2/acme/app/blobs/{digest}"), "BLOB_UNKNOWN"),
        (Method::DELETE, format!("/v2/acme/app/blobs/{digest}"), "BLOB_UNKNOWN"),
        (Method::GET, "/v2/acme/app/manifests/none".to_owned(), "MANIFEST_UNKNOWN"),
        (Method::GET, format!("/v2/acme/app/manifests/{digest}"), "MANIFEST_UNKNOWN"),
        (Method::DELETE, "/v2/acme/app/manifests/none".to_owned(), "MANIFEST_UNKNOWN"),
        (Method::GET, "/v2/acme/none/tags/list".to_owned(), "NAME_UNKNOWN"),
        (Method::GET, location.clone(), "BLOB_UPLOAD_UNKNOWN"),
        (Method::PATCH, location.clone(), "BLOB_UPLOAD_UNKNOWN"),
        (Method::PUT, with_query(&location, &format!("digest={digest}")), "BLOB_UPLOAD_UNKNOWN"),
        (Method::DELETE, location, "BLOB_UPLOAD_UNKNOWN"),
    ] {
        let answer = admin.call(method.clone(), &path).send().await;
        assert_eq!((answer.status, code_of(&answer).as_str()), (404, code), "{method} {path}");
    }
}

#[tokio::test]
async fn error_02_what_a_client_says_wrong_is_invalid() {
    let hosted = Hosted::start().await;
    let admin = hosted.administrator();
    let blob = Content::blob(1, 100);
    let location = admin.start_upload("acme/app").await;
    let chunk = admin.patch(&location).header("content-range", "x-y").body("bytes").send().await;
    assert_eq!((chunk.status, code_of(&chunk).as_str()), (400, "BLOB_UPLOAD_INVALID"));
    let chunk = admin.send_chunk(&location, 7, b"bytes").await;
    assert_eq!((chunk.status, code_of(&chunk).as_str()), (416, "BLOB_UPLOAD_INVALID"));
    let chunk = admin.patch(&location).header("content-range", "0-99").body("bytes").send().await;
    assert_eq!((chunk.status, code_of(&chunk).as_str()), (400, "SIZE_INVALID"));
    let put = admin.close_upload(&location, &blob.another_digest(), &blob.bytes).await;
    assert_eq!((put.status, code_of(&put).as_str()), (400, "DIGEST_INVALID"));
    let name = admin.post("/v2/acme/UPPER/blobs/uploads/").send().await;
    assert_eq!((name.status, code_of(&name).as_str()), (400, "NAME_INVALID"));
    let garbage = admin.put_manifest("acme/app", "1", &Content::of(OCI_MANIFEST, "{")).await;
    assert_eq!((garbage.status, code_of(&garbage).as_str()), (400, "MANIFEST_INVALID"));
    let image = Image::oci("acme/app", "1", &[10]);
    let missing = admin.put_manifest("acme/app", "1", &image.manifest).await;
    assert!([400, 404].contains(&missing.status), "{missing:?}");
    assert_eq!(code_of(&missing), "MANIFEST_BLOB_UNKNOWN");
}

#[tokio::test]
async fn error_03_who_may_not_is_unauthorized_or_denied() {
    let hosted = Hosted::start().await;
    let answer = hosted.anonymous().post("/v2/acme/app/blobs/uploads/").send().await;
    assert_eq!((answer.status, code_of(&answer).as_str()), (401, "UNAUTHORIZED"));
    let reader = hosted.bearer(&["repository:acme/app:pull"]).await;
    let answer = reader.post("/v2/acme/app/blobs/uploads/").send().await;
    // A token that lacks a scope is answered with what a better one needs (RFC 6750, section 3.1).
    assert!([401, 403].contains(&answer.status), "{answer:?}");
    assert!(["UNAUTHORIZED", "DENIED"].contains(&code_of(&answer).as_str()));
}

#[tokio::test]
async fn error_04_what_is_not_supported_says_so() {
    let hosted = Hosted::start().await;
    let admin = hosted.administrator();
    let image = Image::oci("acme/app", "1", &[10]);
    admin.push_image(&image).await;
    for (method, path) in [
        (Method::POST, image.tag_path()),
        (Method::PATCH, image.tag_path()),
        (Method::PUT, image.layer_path(0)),
        (Method::POST, image.layer_path(0)),
        (Method::DELETE, "/v2/acme/app/tags/list".to_owned()),
        (Method::PUT, "/v2/acme/app/tags/list".to_owned()),
        (Method::DELETE, format!("/v2/acme/app/referrers/{}", image.manifest.digest)),
        (Method::PUT, "/v2/acme/app/blobs/uploads/".to_owned()),
        (Method::DELETE, "/v2/".to_owned()),
    ] {
        let answer = admin.call(method.clone(), &path).body("{}").send().await;
        assert_eq!((answer.status, code_of(&answer).as_str()), (405, "UNSUPPORTED"), "{method} {path}");
        assert!(answer.header("allow").is_some(), "{method} {path}");
    }
    hosted.anonymous().pull_image(&image).await;
}

#[tokio::test]
async fn error_05_an_error_of_a_head_has_no_body() {
    let hosted = Hosted::start().await;
    for path in ["/v2/acme/app/manifests/none", "/v2/acme/app/blobs/sha256:abc", "/v2/secret/app/manifests/1"]
    {
        let answer = hosted.anonymous().head(path).send().await;
        assert!((400..500).contains(&answer.status), "{path}: {answer:?}");
        assert!(answer.body.is_empty(), "{path}");
    }
}

#[tokio::test]
async fn error_06_what_was_refused_is_explained_and_the_next_request_is_served() {
    let hosted = Hosted::start().await;
    let admin = hosted.administrator();
    let index = Content::json(
        OCI_MANIFEST,
        &json!({ "schemaVersion": 2, "mediaType": "text/plain", "manifests": [] }),
    );
    let answer = admin.put_manifest("acme/app", "1", &index).await;
    assert_eq!((answer.status, code_of(&answer).as_str()), (400, "MANIFEST_INVALID"));
    let answer = admin.post("/v2/acme/app/blobs/uploads/").send().await;
    let blob = Content::blob(1, 100);
    assert_eq!(admin.close_upload(&location_of(&answer), &blob.digest, &blob.bytes).await.status, 201);
    assert_eq!(admin.blob("acme/app", &blob.digest).await.body, Bytes::from(blob.bytes.to_vec()));
}
