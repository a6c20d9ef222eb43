//! Pushing blobs whole, in one request or two, and mounting them (OCI distribution, "Pushing blobs" and "Mounting a
//! blob from another repository"), numbered as in the table of the module above.

use bytes::Bytes;
use http::Method;

use super::actor::{location_of, with_query};
use super::registry::Hosted;
use crate::client::Answer;
use crate::content::Content;

const UPLOADS: &str = "/v2/acme/app/blobs/uploads/";

/// Requires the answer to a finished push: 201, and a place where the blob can be pulled.
async fn require_created(hosted: &Hosted, answer: &Answer, digest: &str, bytes: &Bytes) {
    assert_eq!(answer.status, 201, "{answer:?}");
    let pulled = hosted.administrator().get(&location_of(answer)).send().await;
    assert_eq!(pulled.status, 200);
    assert!(pulled.body == *bytes, "other bytes of {digest}");
    assert_eq!(answer.header("docker-content-digest"), Some(digest));
    assert_eq!(pulled.header("docker-content-digest"), Some(digest));
}

#[tokio::test]
async fn blob_01_a_post_begins_an_upload_with_202_and_a_location() {
    let hosted = Hosted::start().await;
    let answer = hosted.administrator().post(UPLOADS).send().await;
    assert_eq!(answer.status, 202);
    assert!(location_of(&answer).starts_with(UPLOADS), "{answer:?}");
    // Docker reads these (item 100).
    assert_eq!(answer.header("range"), Some("0-0"));
    assert_eq!(answer.header("content-length"), Some("0"));
    assert!(
        answer.header("docker-upload-uuid").is_some_and(|id| location_of(&answer).contains(id)),
        "{answer:?}"
    );
}

#[tokio::test]
async fn blob_02_every_upload_has_an_identity_of_its_own() {
    let hosted = Hosted::start().await;
    let (first, second) = (
        hosted.administrator().start_upload("acme/app").await,
        hosted.administrator().start_upload("acme/app").await,
    );
    assert_ne!(first, second);
    let (one, two) = (Content::blob(1, 100), Content::blob(2, 100));
    let answer = hosted.administrator().close_upload(&second, &two.digest, &two.bytes).await;
    require_created(&hosted, &answer, &two.digest, &two.bytes).await;
    let answer = hosted.administrator().close_upload(&first, &one.digest, &one.bytes).await;
    require_created(&hosted, &answer, &one.digest, &one.bytes).await;
}

#[tokio::test]
async fn blob_03_a_post_and_a_put_push_a_blob_of_any_size() {
    let hosted = Hosted::start().await;
    for (seed, size) in [(1, 0), (2, 1), (3, 2), (4, 4096), (5, 65_537), (6, 9 << 20)] {
        let blob = Content::blob(seed, size);
        let location = hosted.administrator().start_upload("acme/app").await;
        let answer = hosted.administrator().close_upload(&location, &blob.digest, &blob.bytes).await;
        require_created(&hosted, &answer, &blob.digest, &blob.bytes).await;
    }
}

#[tokio::test]
async fn blob_04_a_single_post_pushes_a_blob() {
    let hosted = Hosted::start().await;
    for blob in [Content::blob(1, 100_000), Content::blob(2, 0)] {
        let call = hosted.administrator().post(&with_query(UPLOADS, &format!("digest={}", blob.digest)));
        let answer =
            call.header("content-type", "application/octet-stream").body(blob.bytes.clone()).send().await;
        require_created(&hosted, &answer, &blob.digest, &blob.bytes).await;
    }
}

#[tokio::test]
async fn blob_05_a_digest_that_is_wrong_invalid_or_of_an_unknown_algorithm_is_400_in_every_way_to_push() {
    let hosted = Hosted::start().await;
    let blob = Content::blob(1, 1000);
    let admin = hosted.administrator();
    let upper_case = blob.digest.to_uppercase().replace("SHA256", "sha256");
    let digests = [
        blob.another_digest(),
        Content::blob(2, 5).sha512(),
        "sha256:abc".to_owned(),
        "sha256:baddigeststring".to_owned(),
        "md5:d41d8cd98f00b204e9800998ecf8427e".to_owned(),
        "nonsense".to_owned(),
        upper_case,
        String::new(),
    ];
    for digest in &digests {
        let post = admin.post(&with_query(UPLOADS, &format!("digest={digest}"))).body(blob.bytes.clone());
        post.send().await.assert_error(400, "DIGEST_INVALID");
        let location = admin.start_upload("acme/app").await;
        admin.close_upload(&location, digest, &blob.bytes).await.assert_error(400, "DIGEST_INVALID");
        let location = admin.start_upload("acme/app").await;
        let chunk = admin.send_chunk(&location, 0, &blob.bytes).await;
        assert_eq!(chunk.status, 202);
        let answer = admin.close_upload(&location_of(&chunk), digest, &Bytes::new()).await;
        answer.assert_error(400, "DIGEST_INVALID");
    }
    for digest in [&blob.digest, &digests[0], &digests[1]] {
        admin.blob("acme/app", digest).await.assert_error(404, "BLOB_UNKNOWN");
    }
}

#[tokio::test]
async fn blob_06_a_put_that_names_no_digest_is_400() {
    let hosted = Hosted::start().await;
    let location = hosted.administrator().start_upload("acme/app").await;
    let answer = hosted.administrator().put(&location).body("bytes").send().await;
    answer.assert_error(400, "DIGEST_INVALID");
}

#[tokio::test]
async fn blob_07_sha512_is_taken_in_every_way_to_push() {
    let hosted = Hosted::start().await;
    let admin = hosted.administrator();
    for announced in ["", "?digest-algorithm=sha512"] {
        for (seed, way) in (0_u64..).zip(["post", "put", "patch"]) {
            let blob = Content::blob(seed + announced.len() as u64, 70_000);
            let digest = blob.sha512();
            let answer = if way == "post" {
                let call =
                    admin.post(&with_query(&format!("{UPLOADS}{announced}"), &format!("digest={digest}")));
                call.body(blob.bytes.clone()).send().await
            } else {
                let answer = admin.post(&format!("{UPLOADS}{announced}")).send().await;
                assert_eq!(answer.status, 202);
                let location = location_of(&answer);
                if way == "put" {
                    admin.close_upload(&location, &digest, &blob.bytes).await
                } else {
                    let chunk = admin.send_chunk(&location, 0, &blob.bytes).await;
                    admin.close_upload(&location_of(&chunk), &digest, &Bytes::new()).await
                }
            };
            require_created(&hosted, &answer, &digest, &blob.bytes).await;
            let head = admin.head(&format!("/v2/acme/app/blobs/{digest}")).send().await;
            assert_eq!(head.header("docker-content-digest"), Some(digest.as_str()), "{way}{announced}");
        }
    }
}

#[tokio::test]
async fn blob_08_an_algorithm_that_is_not_supported_is_400_when_it_is_announced() {
    let hosted = Hosted::start().await;
    let answer = hosted.administrator().post(&with_query(UPLOADS, "digest-algorithm=md5")).send().await;
    answer.assert_error(400, "DIGEST_INVALID");
}

#[tokio::test]
async fn blob_09_a_blob_that_is_pushed_again_is_created_again() {
    let hosted = Hosted::start().await;
    let blob = Content::blob(1, 5000);
    for _ in 0..3 {
        let answer = hosted.administrator().push_blob("acme/app", &blob).await;
        require_created(&hosted, &answer, &blob.digest, &blob.bytes).await;
    }
}

#[tokio::test]
async fn blob_10_parameters_of_an_upload_may_come_in_any_order_beside_others() {
    let hosted = Hosted::start().await;
    let blob = Content::blob(1, 500);
    let escaped = blob.digest.replace(':', "%3A");
    let own = hosted.tidegate.address().to_string().replace(':', "%3A");
    for query in [
        format!("ns={own}&digest={escaped}"),
        format!("digest={escaped}&ns={own}&_state=abc%2Fdef"),
        format!("x&digest={}", blob.digest),
    ] {
        let location = hosted.administrator().start_upload("acme/app").await;
        let answer =
            hosted.administrator().put(&with_query(&location, &query)).body(blob.bytes.clone()).send().await;
        assert_eq!(answer.status, 201, "{query}: {answer:?}");
    }
}

#[tokio::test]
async fn blob_11_an_upload_is_closed_once() {
    let hosted = Hosted::start().await;
    let admin = hosted.administrator();
    let blob = Content::blob(1, 500);
    let location = admin.start_upload("acme/app").await;
    assert_eq!(admin.close_upload(&location, &blob.digest, &blob.bytes).await.status, 201);
    for method in [Method::GET, Method::PATCH, Method::DELETE] {
        admin.call(method, &location).send().await.assert_error(404, "BLOB_UPLOAD_UNKNOWN");
    }
    // Whoever lost the answer to a PUT asks again: the same, or that the upload is over; never anything half-way.
    let again = admin.close_upload(&location, &blob.digest, &blob.bytes).await;
    assert!([201, 404].contains(&again.status), "{again:?}");
    assert_eq!(admin.blob("acme/app", &blob.digest).await.body, blob.bytes);
}

#[tokio::test]
async fn mount_01_a_blob_of_another_repository_is_mounted_with_201() {
    let hosted = Hosted::start().await;
    for digest in [Content::blob(1, 70_000).digest, Content::blob(1, 70_000).sha512()] {
        let bytes = Content::blob(1, 70_000).bytes;
        hosted.administrator().push_bytes("acme/base", &digest, &bytes).await;
        hosted.administrator().blob("acme/app", &digest).await.assert_error(404, "BLOB_UNKNOWN");
        let mount = with_query(UPLOADS, &format!("mount={digest}&from=acme%2Fbase"));
        let answer = hosted.administrator().post(&mount).send().await;
        require_created(&hosted, &answer, &digest, &bytes).await;
        assert!(location_of(&answer).starts_with("/v2/acme/app/blobs/"), "{answer:?}");
        assert_eq!(hosted.anonymous().blob("acme/app", &digest).await.body, bytes);
    }
}

#[tokio::test]
async fn mount_02_a_blob_that_cannot_be_mounted_is_202_and_can_be_pushed_at_once() {
    let hosted = Hosted::start().await;
    let admin = hosted.administrator();
    admin.push_blob("acme/base", &Content::blob(1, 10)).await;
    for (seed, from) in
        [(2, "&from=acme/base"), (3, "&from=acme/none"), (4, ""), (5, "&from=acme/app"), (6, "&from=UPPER")]
    {
        let blob = Content::blob(seed, 3000);
        let mount = with_query(UPLOADS, &format!("mount={}{from}", blob.digest));
        let answer = admin.post(&mount).send().await;
        assert_eq!(answer.status, 202, "{from}: {answer:?}");
        admin.blob("acme/app", &blob.digest).await.assert_error(404, "BLOB_UNKNOWN");
        let answer = admin.close_upload(&location_of(&answer), &blob.digest, &blob.bytes).await;
        require_created(&hosted, &answer, &blob.digest, &blob.bytes).await;
    }
}

#[tokio::test]
async fn mount_03_a_mount_without_from_is_201_or_an_upload() {
    let hosted = Hosted::start().await;
    let admin = hosted.administrator();
    let blob = Content::blob(1, 3000);
    admin.push_blob("acme/base", &blob).await;
    let answer = admin.post(&with_query(UPLOADS, &format!("mount={}", blob.digest))).send().await;
    let answer = match answer.status {
        202 => admin.close_upload(&location_of(&answer), &blob.digest, &blob.bytes).await,
        _ => answer,
    };
    require_created(&hosted, &answer, &blob.digest, &blob.bytes).await;
}

#[tokio::test]
async fn mount_04_a_mounted_blob_stays_when_the_other_repository_deletes_it() {
    let hosted = Hosted::start().await;
    let admin = hosted.administrator();
    let blob = Content::blob(1, 3000);
    admin.push_blob("acme/base", &blob).await;
    let mount = with_query(UPLOADS, &format!("mount={}&from=acme/base", blob.digest));
    assert_eq!(admin.post(&mount).send().await.status, 201);
    let base = format!("/v2/acme/base/blobs/{}", blob.digest);
    assert_eq!(admin.delete(&base).send().await.status, 202);
    admin.get(&base).send().await.assert_error(404, "BLOB_UNKNOWN");
    assert_eq!(admin.blob("acme/app", &blob.digest).await.body, blob.bytes);
}

#[tokio::test]
async fn mount_05_an_invalid_digest_to_mount_is_400() {
    let hosted = Hosted::start().await;
    for digest in ["sha256:abc", "nonsense"] {
        let mount = with_query(UPLOADS, &format!("mount={digest}&from=acme/base"));
        hosted.administrator().post(&mount).send().await.assert_error(400, "DIGEST_INVALID");
    }
}
