//! Uploads that are cut, left alone, raced, stolen or made up: the right error, nothing half-visible, nothing revealed,
//! bounded memory.

use bytes::Bytes;
use futures_util::future::join_all;
use http::Method;
use http_body_util::{BodyExt as _, Full};
use serde_json::json;

use super::actor::{Actor, location_of, with_query};
use super::registry::Hosted;
use super::wire::Wire;
use crate::cache::post;
use crate::client::{Answer, Client};
use crate::clock_steps::library;
use crate::content::{Content, Image};
use crate::harness::{eventually, until};

const MIB: u64 = 1 << 20;

/// How much of an upload is there; nothing while somebody else has it.
async fn length_of(actor: &Actor, location: &str) -> Option<usize> {
    let answer = actor.get(location).send().await;
    let last = answer.header("range")?.strip_prefix("0-")?.parse::<usize>().ok()?;
    (answer.status == 204).then_some(last + 1)
}

#[tokio::test]
async fn content_with_another_digest_leaves_nothing_behind() {
    let hosted = Hosted::start().await;
    let admin = hosted.administrator();
    let before = hosted.files();
    let blob = Content::blob(1, 100_000);
    let wrong = blob.another_digest();
    for wrong in [&wrong, &Content::blob(2, 5).sha512()] {
        let post =
            admin.post(&format!("/v2/acme/app/blobs/uploads/?digest={wrong}")).body(blob.bytes.clone());
        post.send().await.assert_error(400, "DIGEST_INVALID");
        let location = admin.start_upload("acme/app").await;
        admin.close_upload(&location, wrong, &blob.bytes).await.assert_error(400, "DIGEST_INVALID");
        let _ = admin.delete(&location).send().await;
        for digest in [wrong, &blob.digest] {
            admin.blob("acme/app", digest).await.assert_error(404, "BLOB_UNKNOWN");
        }
    }
    until("the files of refused uploads to be gone", async || hosted.files() == before).await;
}

#[tokio::test]
async fn a_body_that_is_cut_is_never_taken_for_a_whole_one() {
    let hosted = Hosted::start_for_trouble().await;
    let admin = hosted.administrator();
    for (seed, chunked) in [(1, false), (2, true)] {
        let blob = Content::blob(seed, 200_000);
        // What came of it is whole by its digest, and still not all that was announced.
        let half = Content::of("text/plain", blob.bytes.slice(..100_000));
        let location = with_query(&admin.start_upload("acme/app").await, &format!("digest={}", half.digest));
        let post = format!("/v2/acme/app/blobs/uploads/?digest={}", half.digest);
        for (method, path) in [("PUT", &location), ("POST", &post)] {
            let mut wire = if chunked {
                let mut wire = Wire::begin_chunked(&admin, method, path, &[]).await;
                wire.write_chunk(&half.bytes).await;
                wire
            } else {
                let mut wire = Wire::begin(&admin, method, path, &[("content-length", "200000")]).await;
                wire.write(&half.bytes).await;
                wire
            };
            wire.close_writing().await;
            if let Some(answer) = wire.try_answer().await {
                assert!(answer.status >= 400, "{answer:?}");
            }
            admin.blob("acme/app", &half.digest).await.assert_error(404, "BLOB_UNKNOWN");
        }
    }
}

#[tokio::test]
async fn a_manifest_that_is_cut_is_not_taken() {
    let hosted = Hosted::start_for_trouble().await;
    let admin = hosted.administrator();
    let image = Image::oci("acme/app", "1", &[1000]);
    admin.push_image(&image).await;
    let length = (image.manifest.bytes.len() + 10).to_string();
    let headers = [("content-length", length.as_str()), ("content-type", image.manifest.media_type.as_str())];
    let mut wire = Wire::begin(&admin, "PUT", "/v2/acme/app/manifests/cut", &headers).await;
    wire.write(&image.manifest.bytes).await;
    wire.close_writing().await;
    if let Some(answer) = wire.try_answer().await {
        assert!(answer.status >= 400, "{answer:?}");
    }
    assert_eq!(admin.tags("acme/app").await, ["1"]);
}

#[tokio::test]
async fn ten_thousand_abandoned_uploads_cost_little_and_hinder_nobody() {
    let wanted: usize = std::env::var("TIDEGATE_ABANDONED_UPLOADS")
        .map_or(10_000, |number| number.parse().expect("a number"));
    let mut hosted = Hosted::start_for_trouble().await;
    let admin = hosted.bearer(&["repository:acme/app:pull,push"]).await;
    let kept = admin.start_upload("acme/app").await;
    let kept = location_of(&admin.send_chunk(&kept, 0, b"kept").await);
    let before = hosted.tidegate.memory_bytes();
    let authorization = admin.authorization.clone().unwrap();
    let begin = async |count: usize| {
        let mut connection = Client::new(admin.address).connect().await;
        for _ in 0..count {
            let request = http::Request::post("/v2/acme/app/blobs/uploads/").header("host", "registry");
            let request =
                request.header("authorization", &authorization).body(Full::<Bytes>::default()).unwrap();
            connection.ready().await.unwrap();
            let answer = connection.send_request(request).await.unwrap();
            assert_eq!(answer.status(), 202);
            answer.into_body().collect().await.unwrap();
        }
    };
    join_all((0..8).map(|_| begin(wanted / 8))).await;
    let grown = hosted.tidegate.memory_bytes().saturating_sub(before);
    assert!(grown < 64 * MIB, "{grown} bytes more for {wanted} uploads");
    let image = Image::oci("acme/app", "1", &[1000]);
    admin.push_image(&image).await;
    hosted.tidegate.restart().await;
    let startup = hosted.tidegate.startup();
    assert!(startup.as_secs() < 10, "{startup:?} to start with {wanted} open uploads");
    let admin = hosted.administrator();
    assert_eq!(length_of(&admin, &kept).await, Some(4), "an open upload outlives a restart");
    hosted.anonymous().pull_image(&image).await;
}

#[tokio::test]
async fn uploads_that_nobody_goes_on_with_end_by_themselves() {
    let directory = tempfile::tempdir().unwrap();
    let step = directory.path().join("step");
    let mut hosted = Hosted::start_with(|setup| {
        setup.with_warnings().variable("LD_PRELOAD", library()).variable("CLOCK_STEP", &step)
    })
    .await;
    let admin = hosted.administrator();
    let before = hosted.files();
    let mut locations = Vec::new();
    for _ in 0..30 {
        let location = admin.start_upload("acme/app").await;
        locations.push(location_of(&admin.send_chunk(&location, 0, &[7; 1000]).await));
    }
    let collect = async |number: u64| {
        let begun = post(&hosted.tidegate, "/api/v1/collection", &json!({})).await;
        assert_eq!((begun.status, &begun.json()["number"]), (202, &json!(number)), "{begun:?}");
        until("the collection to end", async || {
            let state = hosted.tidegate.admin().get("/api/v1/collection").send().await.json();
            state["last"]["number"] == number && state["last"]["outcome"] == "complete"
        })
        .await;
    };
    collect(1).await;
    for location in &locations {
        assert_eq!(length_of(&admin, location).await, Some(1000), "it is young");
    }
    std::fs::write(&step, (48 * 3600).to_string()).unwrap();
    collect(2).await;
    for location in &locations {
        admin.get(location).send().await.assert_error(404, "BLOB_UPLOAD_UNKNOWN");
    }
    assert_eq!(hosted.files(), before);
    hosted.tidegate.restart().await;
    assert_eq!(length_of(&hosted.administrator(), &locations[0]).await, None);
}

#[tokio::test]
async fn an_upload_belongs_to_its_repository() {
    let hosted = Hosted::start().await;
    let admin = hosted.administrator();
    let blob = Content::blob(1, 3000);
    admin.push_blob("acme/other", &Content::blob(2, 10)).await;
    let location = admin.start_upload("acme/app").await;
    let location = location_of(&admin.send_chunk(&location, 0, &blob.bytes[..1000]).await);
    for elsewhere in ["acme/other", "secret/app", "acme/none"] {
        let stolen = location.replace("/v2/acme/app/", &format!("/v2/{elsewhere}/"));
        assert_ne!(stolen, location);
        admin.get(&stolen).send().await.assert_error(404, "BLOB_UPLOAD_UNKNOWN");
        admin.send_chunk(&stolen, 1000, &blob.bytes[1000..]).await.assert_error(404, "BLOB_UPLOAD_UNKNOWN");
        let close = admin.close_upload(&stolen, &blob.digest, &blob.bytes.slice(1000..)).await;
        close.assert_error(404, "BLOB_UPLOAD_UNKNOWN");
        admin.delete(&stolen).send().await.assert_error(404, "BLOB_UPLOAD_UNKNOWN");
    }
    assert_eq!(length_of(&admin, &location).await, Some(1000));
    let answer = admin.close_upload(&location, &blob.digest, &blob.bytes.slice(1000..)).await;
    assert_eq!(answer.status, 201, "{answer:?}");
}

#[tokio::test]
async fn an_identity_that_was_made_up_is_no_upload() {
    let hosted = Hosted::start().await;
    let admin = hosted.administrator();
    let before = hosted.files();
    let long = "a".repeat(5000);
    let digest = Content::blob(1, 5).digest;
    for id in
        ["00000000-0000-4000-8000-000000000000", "x", "..%2F..%2Fx", "%2e%2e", "a%00b", "%20", "~", &long]
    {
        let path = format!("/v2/acme/app/blobs/uploads/{id}");
        for (method, path) in [
            (Method::GET, path.clone()),
            (Method::PATCH, path.clone()),
            (Method::PUT, with_query(&path, &format!("digest={digest}"))),
            (Method::DELETE, path),
        ] {
            let answer = admin.call(method.clone(), &path).body("bytes").send().await;
            assert!([400, 404].contains(&answer.status), "{method} {path}: {answer:?}");
            answer.error_code();
        }
    }
    assert_eq!(hosted.files(), before);
}

#[tokio::test]
async fn of_chunks_that_race_for_one_upload_each_byte_is_taken_once() {
    let hosted = Hosted::start_for_trouble().await;
    let admin = hosted.administrator();
    for round in 0..4 {
        let blob = Content::blob(round, 400_000);
        let mut location = admin.start_upload("acme/app").await;
        for first in [0, 200_000] {
            let part = &blob.bytes[first..first + 200_000];
            let answers: Vec<Answer> =
                join_all((0..6).map(|_| admin.send_chunk(&location, first, part))).await;
            let accepted: Vec<_> = answers.iter().filter(|answer| answer.status == 202).collect();
            assert_eq!(accepted.len(), 1, "{answers:?}");
            for refused in answers.iter().filter(|answer| answer.status != 202) {
                // Out of order by now, or while another one writes: to be asked again, and no fault of the server.
                assert!([409, 416, 423, 429, 503].contains(&refused.status), "{refused:?}");
            }
            location = location_of(accepted[0]);
            assert_eq!(length_of(&admin, &location).await, Some(first + 200_000));
        }
        assert_eq!(admin.close_upload(&location, &blob.digest, &Bytes::new()).await.status, 201);
        assert!(admin.blob("acme/app", &blob.digest).await.body == blob.bytes);
    }
}

#[tokio::test]
async fn the_same_content_pushed_by_many_at_once_is_there_once() {
    let hosted = Hosted::start().await;
    let admin = hosted.administrator();
    let layer = Content::blob(1, 300_000);
    let pushes = (0..12).map(|number| {
        let image =
            Image::of_layers(&format!("acme/app{}", number % 3), &number.to_string(), vec![layer.clone()]);
        let admin = admin.clone();
        async move {
            admin.push_image(&image).await;
            admin.pull_image(&image).await;
        }
    });
    join_all(pushes).await;
    assert_eq!(hosted.files_of(&layer.digest).len(), 1, "{:?}", hosted.files_of(&layer.digest));
}

#[tokio::test]
async fn the_same_tag_pushed_by_many_at_once_is_one_of_them() {
    let hosted = Hosted::start().await;
    let admin = hosted.administrator();
    let images: Vec<Image> =
        (0..8).map(|number| Image::oci("acme/app", &number.to_string(), &[number + 1])).collect();
    for image in &images {
        admin.push_image(image).await;
    }
    join_all(images.iter().map(|image| admin.push_manifest("acme/app", "latest", &image.manifest))).await;
    let latest = admin.manifest("acme/app", "latest").await;
    assert_eq!(images.iter().filter(|image| image.manifest.bytes == latest.body).count(), 1);
    assert_eq!(admin.tags("acme/app").await.len(), 9);
}

#[tokio::test]
async fn a_mount_from_where_the_blob_is_not_or_may_not_be_seen_reveals_nothing() {
    let hosted = Hosted::start().await;
    let blob = Content::blob(1, 3000);
    hosted.administrator().push_blob("secret/app", &blob).await;
    hosted.administrator().push_blob("acme/base", &Content::blob(2, 10)).await;
    let actor = hosted.bearer(&["repository:acme/app:pull,push"]).await;
    let uploads = "/v2/acme/app/blobs/uploads/";
    let mut told = Vec::new();
    for (digest, from) in [
        (&blob.digest, "secret/app"),
        (&blob.digest, "secret/none"),
        (&blob.another_digest(), "secret/app"),
        (&blob.digest, "acme/base"),
        (&blob.digest, "nowhere/app"),
        (&blob.digest, ""),
    ] {
        let from = if from.is_empty() { String::new() } else { format!("&from={from}") };
        let answer = actor.post(&with_query(uploads, &format!("mount={digest}{from}"))).send().await;
        let mut names: Vec<String> = answer.headers.keys().map(ToString::to_string).collect();
        names.sort();
        told.push((from, answer.status, names));
        actor.blob("acme/app", digest).await.assert_error(404, "BLOB_UNKNOWN");
    }
    for other in &told {
        assert_eq!((other.1, &other.2), (202, &told[0].2), "{told:?}");
    }
    // Whoever may see it may mount it.
    let mount = format!("mount={}&from=secret/app", blob.digest);
    let entitled = hosted.bearer(&["repository:acme/app:pull,push", "repository:secret/app:pull"]).await;
    assert_eq!(entitled.post(&with_query(uploads, &mount)).send().await.status, 201);
}

#[tokio::test]
async fn clients_that_stall_in_the_middle_hinder_neither_others_nor_a_restart() {
    let mut hosted = Hosted::start_with(|setup| setup.with_warnings().server("drain_timeout = \"2s\"")).await;
    let admin = hosted.administrator();
    let before = hosted.tidegate.memory_bytes();
    let mut stalled = Vec::new();
    for _ in 0..50 {
        let location = admin.start_upload("acme/app").await;
        let mut wire = Wire::begin(&admin, "PATCH", &location, &[("content-length", "1000000")]).await;
        wire.write(&[7; 10_000]).await;
        stalled.push(wire);
    }
    let image = Image::oci("acme/app", "1", &[1000, 300_000]);
    admin.push_image(&image).await;
    hosted.anonymous().pull_image(&image).await;
    let grown = hosted.tidegate.memory_bytes().saturating_sub(before);
    assert!(grown < 64 * MIB, "{grown} bytes more for 50 clients");
    hosted.tidegate.restart().await;
    for wire in stalled {
        wire.wait_for_close().await;
    }
    hosted.anonymous().pull_image(&image).await;
}

#[tokio::test]
async fn an_upload_is_free_again_when_its_client_is_gone() {
    let hosted = Hosted::start_for_trouble().await;
    let admin = hosted.administrator();
    let blob = Content::blob(1, 100_000);
    let location = admin.start_upload("acme/app").await;
    for _ in 0..3 {
        let mut wire = Wire::begin_chunked(&admin, "PATCH", &location, &[]).await;
        wire.write_chunk(&blob.bytes[..1]).await;
        wire.cut();
    }
    eventually("the upload to be free", async || length_of(&admin, &location).await).await;
    eventually("it to be cancelled", async || {
        (admin.delete(&location).send().await.status == 204).then_some(())
    })
    .await;
    assert_eq!(admin.push_blob("acme/app", &blob).await.status, 201);
}
