//! Pushing a blob in chunks, its status, and how it is cancelled (OCI distribution, "Pushing a blob in chunks" and
//! "Cancel a blob upload"), numbered as in the table of the module above.

use bytes::Bytes;

use super::actor::{Actor, location_of, with_query};
use super::registry::Hosted;
use super::wire::Wire;
use crate::client::Answer;
use crate::content::Content;
use crate::harness::eventually;

/// Requires the answer to a chunk: 202, where it goes on, and how much is there.
fn require_accepted(answer: &Answer, last: usize) -> String {
    assert_eq!(answer.status, 202, "{answer:?}");
    assert_eq!(answer.header("range"), Some(format!("0-{last}").as_str()));
    location_of(answer)
}

/// Requires the status of an upload: 204, where it goes on, and how much is there.
async fn require_status(actor: &Actor, location: &str, last: usize) -> String {
    let answer = actor.get(location).send().await;
    assert_eq!((answer.status, answer.body.len()), (204, 0), "{answer:?}");
    assert_eq!(answer.header("range"), Some(format!("0-{last}").as_str()));
    location_of(&answer)
}

/// Requires that the blob is there.
async fn require_blob(actor: &Actor, blob: &Content) {
    let answer = actor.blob("acme/app", &blob.digest).await;
    assert_eq!(answer.status, 200);
    assert!(answer.body == blob.bytes, "other bytes of {}", blob.digest);
}

#[tokio::test]
async fn chunk_01_chunks_are_accepted_with_202_location_and_range_until_a_put_closes() {
    let hosted = Hosted::start().await;
    let admin = hosted.administrator();
    let blob = Content::blob(1, 300_001);
    let answer = admin.post("/v2/acme/app/blobs/uploads/").header("content-length", "0").send().await;
    assert_eq!(answer.status, 202);
    let mut location = location_of(&answer);
    for (index, chunk) in blob.bytes.chunks(100_000).enumerate() {
        let first = index * 100_000;
        let answer = admin.send_chunk(&location, first, chunk).await;
        location = require_accepted(&answer, first + chunk.len() - 1);
        // The session is closed by a PUT alone.
        admin.blob("acme/app", &blob.digest).await.assert_error(404, "BLOB_UNKNOWN");
    }
    let answer = admin.close_upload(&location, &blob.digest, &Bytes::new()).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    assert_eq!(admin.get(&location_of(&answer)).send().await.body, blob.bytes);
}

#[tokio::test]
async fn chunk_02_the_final_chunk_may_come_with_the_put() {
    let hosted = Hosted::start().await;
    let admin = hosted.administrator();
    let blob = Content::blob(1, 10_000);
    for range in [None, Some("6000-9999")] {
        let location = admin.start_upload("acme/app").await;
        let answer = admin.send_chunk(&location, 0, &blob.bytes[..6000]).await;
        let location = require_accepted(&answer, 5999);
        let call = admin.put(&with_query(&location, &format!("digest={}", blob.digest)));
        let call = call.header("content-type", "application/octet-stream").body(blob.bytes.slice(6000..));
        let call = range.iter().fold(call, |call, range| call.header("content-range", range));
        let answer = call.send().await;
        assert_eq!(answer.status, 201, "{range:?}: {answer:?}");
        require_blob(&admin, &blob).await;
    }
}

#[tokio::test]
async fn chunk_03_a_smallest_size_is_said_as_a_number_and_does_not_bind_the_last_chunk() {
    let hosted = Hosted::start().await;
    let admin = hosted.administrator();
    let answer = admin.post("/v2/acme/app/blobs/uploads/").send().await;
    let least = answer.header("oci-chunk-min-length").map_or(1, |text| text.parse::<usize>().unwrap());
    let blob = Content::blob(1, least + 1);
    let chunk = admin.send_chunk(&location_of(&answer), 0, &blob.bytes[..least]).await;
    let chunk = admin.send_chunk(&require_accepted(&chunk, least - 1), least, &blob.bytes[least..]).await;
    let location = require_accepted(&chunk, least);
    assert_eq!(admin.close_upload(&location, &blob.digest, &Bytes::new()).await.status, 201);
    require_blob(&admin, &blob).await;
}

#[tokio::test]
async fn chunk_04_a_chunk_out_of_order_is_416_and_changes_nothing() {
    let hosted = Hosted::start().await;
    let admin = hosted.administrator();
    let blob = Content::blob(1, 9000);
    let mut location = admin.start_upload("acme/app").await;
    for first in [0_usize, 3000, 6000] {
        // Ahead by a byte, ahead by a chunk, and back at the beginning, which is in order only once.
        for wrong in [first + 1, first + 3000, first.saturating_sub(1), 0] {
            if wrong == first || wrong + 1000 > 9000 {
                continue;
            }
            let answer = admin.send_chunk(&location, wrong, &blob.bytes[wrong..wrong + 1000]).await;
            assert_eq!(answer.status, 416, "{wrong} for {first}: {answer:?}");
            if answer.header("range").is_some() {
                // What clients resume from says the truth (spec main; regclient).
                let range = format!("0-{}", first.saturating_sub(1));
                assert_eq!(answer.header("range"), Some(range.as_str()));
                location_of(&answer);
            }
        }
        location = require_status(&admin, &location, first.saturating_sub(1)).await;
        let answer = admin.send_chunk(&location, first, &blob.bytes[first..first + 3000]).await;
        location = require_accepted(&answer, first + 2999);
    }
    assert_eq!(admin.close_upload(&location, &blob.digest, &Bytes::new()).await.status, 201);
    require_blob(&admin, &blob).await;
}

#[tokio::test]
async fn chunk_05_an_answer_416_says_where_to_go_on() {
    let hosted = Hosted::start().await;
    let admin = hosted.administrator();
    let blob = Content::blob(1, 9000);
    let location = admin.start_upload("acme/app").await;
    let location = require_accepted(&admin.send_chunk(&location, 0, &blob.bytes[..4000]).await, 3999);
    let answer = admin.send_chunk(&location, 5000, &blob.bytes[5000..]).await;
    answer.assert_error(416, "BLOB_UPLOAD_INVALID");
    assert_eq!(answer.header("range"), Some("0-3999"));
    let answer = admin.send_chunk(&location_of(&answer), 4000, &blob.bytes[4000..]).await;
    let location = require_accepted(&answer, 8999);
    assert_eq!(admin.close_upload(&location, &blob.digest, &Bytes::new()).await.status, 201);
    require_blob(&admin, &blob).await;
}

#[tokio::test]
async fn chunk_06_a_final_chunk_out_of_order_is_416_and_the_upload_lives_on() {
    let hosted = Hosted::start().await;
    let admin = hosted.administrator();
    let blob = Content::blob(1, 9000);
    let location = admin.start_upload("acme/app").await;
    let location = require_accepted(&admin.send_chunk(&location, 0, &blob.bytes[..3000]).await, 2999);
    for (first, range) in [(6000, "6000-8999"), (0, "0-2999")] {
        let call = admin.put(&with_query(&location, &format!("digest={}", blob.digest)));
        let call = call.header("content-range", range).body(blob.bytes.slice(first..first + 3000));
        assert_eq!(call.send().await.status, 416, "{range}");
        require_status(&admin, &location, 2999).await;
    }
    let answer = admin.close_upload(&location, &blob.digest, &blob.bytes.slice(3000..)).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    require_blob(&admin, &blob).await;
}

#[tokio::test]
async fn chunk_07_the_status_of_an_upload_is_204_with_location_and_range() {
    let hosted = Hosted::start().await;
    let admin = hosted.administrator();
    let blob = Content::blob(1, 5000);
    let location = admin.start_upload("acme/app").await;
    // Nothing has come: the form that clients know for that is `0-0`.
    let location = require_status(&admin, &location, 0).await;
    let location = require_accepted(&admin.send_chunk(&location, 0, &blob.bytes[..1234]).await, 1233);
    let location = require_status(&admin, &location, 1233).await;
    let location = require_accepted(&admin.send_chunk(&location, 1234, &blob.bytes[1234..]).await, 4999);
    assert_eq!(admin.close_upload(&location, &blob.digest, &Bytes::new()).await.status, 201);
}

#[tokio::test]
async fn chunk_08_a_stream_of_unknown_length_is_one_chunk() {
    let hosted = Hosted::start().await;
    let admin = hosted.administrator();
    let blob = Content::blob(1, 700_000);
    let location = admin.start_upload("acme/app").await;
    let mut wire = Wire::begin_chunked(&admin, "PATCH", &location, &[]).await;
    for part in blob.bytes.chunks(99_999) {
        assert!(wire.write_chunk(part).await);
    }
    wire.end_chunks().await;
    let location = require_accepted(&wire.answer().await, 699_999);
    assert_eq!(admin.close_upload(&location, &blob.digest, &Bytes::new()).await.status, 201);
    require_blob(&admin, &blob).await;
}

#[tokio::test]
async fn chunk_09_streams_follow_each_other_and_a_put_may_stream_too() {
    let hosted = Hosted::start().await;
    let admin = hosted.administrator();
    let blob = Content::blob(1, 60_000);
    let location = admin.start_upload("acme/app").await;
    let answer = admin.patch(&location).body(blob.bytes.slice(..20_000)).send().await;
    let location = require_accepted(&answer, 19_999);
    let answer = admin.patch(&location).body(blob.bytes.slice(20_000..40_000)).send().await;
    let location = with_query(&require_accepted(&answer, 39_999), &format!("digest={}", blob.digest));
    let mut wire = Wire::begin_chunked(&admin, "PUT", &location, &[]).await;
    wire.write_chunk(&blob.bytes[40_000..]).await;
    wire.end_chunks().await;
    assert_eq!(wire.answer().await.status, 201);
    require_blob(&admin, &blob).await;
}

#[tokio::test]
async fn chunk_10_an_upload_goes_on_after_a_broken_connection() {
    let hosted = Hosted::start_for_trouble().await;
    let admin = hosted.administrator();
    let blob = Content::blob(1, 400_000);
    let location = admin.start_upload("acme/app").await;
    let location = require_accepted(&admin.send_chunk(&location, 0, &blob.bytes[..100_000]).await, 99_999);
    let length = [("content-length", "300000"), ("content-range", "100000-399999")];
    let mut wire = Wire::begin(&admin, "PATCH", &location, &length).await;
    wire.write(&blob.bytes[100_000..250_000]).await;
    wire.cut();
    // How much of it was kept is the server's affair; that it says so is not. Until it has noticed, it may grow.
    let answer = eventually("the rest to be taken", async || {
        let status = admin.get(&location).send().await;
        let have = status.header("range")?.strip_prefix("0-")?.parse::<usize>().unwrap() + 1;
        assert!((100_000..=250_000).contains(&have), "{have}");
        let answer = admin.send_chunk(&location, have, &blob.bytes[have..]).await;
        (answer.status == 202).then_some(answer)
    })
    .await;
    let location = require_accepted(&answer, 399_999);
    assert_eq!(admin.close_upload(&location, &blob.digest, &Bytes::new()).await.status, 201);
    require_blob(&admin, &blob).await;
}

#[tokio::test]
async fn chunk_11_an_upload_goes_on_after_a_restart() {
    let mut hosted = Hosted::start().await;
    let blob = Content::blob(1, 200_000);
    let location = hosted.administrator().start_upload("acme/app").await;
    let answer = hosted.administrator().send_chunk(&location, 0, &blob.bytes[..150_000]).await;
    let location = require_accepted(&answer, 149_999);
    hosted.tidegate.restart().await;
    let admin = hosted.administrator();
    let location = require_status(&admin, &location, 149_999).await;
    let answer = admin.close_upload(&location, &blob.digest, &blob.bytes.slice(150_000..)).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    require_blob(&admin, &blob).await;
}

#[tokio::test]
async fn chunk_12_a_cancelled_upload_is_204_and_then_unknown() {
    let hosted = Hosted::start().await;
    let admin = hosted.administrator();
    let location = admin.start_upload("acme/app").await;
    let location = require_accepted(&admin.send_chunk(&location, 0, b"bytes").await, 4);
    let answer = admin.delete(&location).header("content-length", "0").send().await;
    assert_eq!((answer.status, answer.body.len()), (204, 0));
    admin.get(&location).send().await.assert_error(404, "BLOB_UPLOAD_UNKNOWN");
    admin.send_chunk(&location, 5, b"more").await.assert_error(404, "BLOB_UPLOAD_UNKNOWN");
    let content = Content::of("text/plain", "bytes");
    let answer = admin.close_upload(&location, &content.digest, &Bytes::new()).await;
    answer.assert_error(404, "BLOB_UPLOAD_UNKNOWN");
    admin.delete(&location).send().await.assert_error(404, "BLOB_UPLOAD_UNKNOWN");
    admin.blob("acme/app", &content.digest).await.assert_error(404, "BLOB_UNKNOWN");
}

#[tokio::test]
async fn chunk_13_a_chunk_whose_range_makes_no_sense_is_400() {
    let hosted = Hosted::start().await;
    let admin = hosted.administrator();
    for range in ["0", "-4", "0-", "a-b", "4-0", "0-99999999999999999999999", "0--4"] {
        let location = admin.start_upload("acme/app").await;
        let answer = admin.patch(&location).header("content-range", range).body("bytes").send().await;
        answer.assert_error(400, "BLOB_UPLOAD_INVALID");
        require_status(&admin, &location, 0).await;
    }
}

#[tokio::test]
async fn chunk_14_a_chunk_that_is_longer_or_shorter_than_its_range_is_400() {
    let hosted = Hosted::start().await;
    let admin = hosted.administrator();
    for range in ["0-3", "0-5", "0-0"] {
        let location = admin.start_upload("acme/app").await;
        let answer = admin.patch(&location).header("content-range", range).body("bytes").send().await;
        answer.assert_error(400, "SIZE_INVALID");
        require_status(&admin, &location, 0).await;
    }
    let location = admin.start_upload("acme/app").await;
    let mut wire = Wire::begin_chunked(&admin, "PATCH", &location, &[("content-range", "0-3")]).await;
    wire.write_chunk(b"bytes").await;
    wire.end_chunks().await;
    wire.answer().await.assert_error(400, "SIZE_INVALID");
}

#[tokio::test]
async fn chunk_15_an_empty_blob_can_be_pushed_by_an_empty_patch() {
    let hosted = Hosted::start().await;
    let admin = hosted.administrator();
    let blob = Content::blob(1, 0);
    let location = admin.start_upload("acme/app").await;
    let answer = admin.patch(&location).send().await;
    assert_eq!((answer.status, answer.header("range")), (202, Some("0-0")));
    let answer = admin.close_upload(&location_of(&answer), &blob.digest, &Bytes::new()).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    require_blob(&admin, &blob).await;
}

#[tokio::test]
async fn chunk_16_a_client_that_waits_to_be_asked_for_its_body_is_asked() {
    let hosted = Hosted::start().await;
    let admin = hosted.administrator();
    let location = admin.start_upload("acme/app").await;
    let headers = [("content-length", "5"), ("expect", "100-continue")];
    let mut wire = Wire::begin(&admin, "PATCH", &location, &headers).await;
    wire.wait_for_continue().await;
    wire.write(b"bytes").await;
    require_accepted(&wire.answer().await, 4);
}
