//! Parts of blobs (items 32-41).

use bytes::Bytes;

use crate::client::Answer;
use crate::content::OCTETS;
use crate::harness::{Section, Setup, Tidegate, until};
use crate::upstream::{Gate, Kind, Upstream, any, blob, serve};

const SIZE: usize = 300_000;

/// Whether a part is asked of a blob that is not cached, or one that is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Cache {
    Cold,
    Warm,
}

/// Asks for a range of a layer of [`SIZE`], of a server that has just started or has the layer.
async fn ask(cache: Cache, range: &str) -> (Answer, Bytes) {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[SIZE]);
    let tidegate = Tidegate::start(&upstream).await;
    tidegate.manifest(&image.tag_path()).await;
    if cache == Cache::Warm {
        tidegate.fetch(&image.layer_path(0)).await;
    }
    (tidegate.get(&image.layer_path(0)).range(range).send().await, image.layers[0].bytes.clone())
}

async fn assert_single(range: &str, first: usize, end: usize) {
    for cache in [Cache::Cold, Cache::Warm] {
        let (answer, content) = ask(cache, range).await;
        let expected = format!("bytes {first}-{}/{SIZE}", end - 1);
        assert_eq!(
            (answer.status, answer.header("content-range")),
            (206, Some(expected.as_str())),
            "{range} {cache:?}"
        );
        assert_eq!(answer.header("content-length"), Some((end - first).to_string().as_str()));
        assert_eq!(answer.header("content-type"), Some(OCTETS));
        assert!(answer.body == content.slice(first..end), "{range} {cache:?}");
    }
}

#[tokio::test]
async fn item_032_an_open_range_reaches_the_end_with_a_numeric_total() {
    assert_single("bytes=1234-", 1234, SIZE).await;
}

#[tokio::test]
async fn item_033_a_range_from_0_is_206_for_blobs_cold_and_warm() {
    assert_single("bytes=0-", 0, SIZE).await;
}

#[tokio::test]
async fn item_034_short_suffix_clamped_and_off_by_one_ranges_are_206() {
    assert_single("bytes=0-1", 0, 2).await;
    assert_single("bytes=-5", SIZE - 5, SIZE).await;
    assert_single("bytes=1000-999999", 1000, SIZE).await;
    assert_single(&format!("bytes=7-{SIZE}"), 7, SIZE).await;
    assert_single("bytes=-999999", 0, SIZE).await;
    assert_single("bytes=299999-299999", SIZE - 1, SIZE).await;
}

#[tokio::test]
async fn item_035_a_range_outside_is_416_with_the_size() {
    for cache in [Cache::Cold, Cache::Warm] {
        for range in [format!("bytes={SIZE}-"), "bytes=999999-1000000".to_owned(), "bytes=-0".to_owned()] {
            let (answer, _) = ask(cache, &range).await;
            let expected = format!("bytes */{SIZE}");
            assert_eq!(
                (answer.status, answer.header("content-range")),
                (416, Some(expected.as_str())),
                "{range} {cache:?}"
            );
            answer.error_code();
        }
    }
}

#[tokio::test]
async fn item_035_a_malformed_range_is_ignored() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[SIZE]);
    let tidegate = Tidegate::start(&upstream).await;
    for range in ["bytes=5-2", "bytes=a-b", "lines=1-2", "bytes", "bytes=", "bytes=--1", "bytes=1-2-3"] {
        let answer = tidegate.get(&image.layer_path(0)).range(range).send().await;
        assert_eq!((answer.status, answer.header("content-range")), (200, None), "{range}");
        assert_eq!(answer.body.len(), SIZE);
    }
}

/// The parts of a multipart answer: `Content-Range` and bytes, in order.
fn parts_of(answer: &Answer) -> Vec<(String, Bytes)> {
    let content_type = answer.header("content-type").unwrap();
    let boundary = content_type.strip_prefix("multipart/byteranges; boundary=").unwrap();
    assert!(
        boundary.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"'-_.".contains(&byte)),
        "{boundary}"
    );
    assert_eq!(answer.header("content-length"), Some(answer.body.len().to_string().as_str()));
    let mut rest = answer.body.clone();
    let mut parts = Vec::new();
    let opening = format!("--{boundary}\r\n");
    let closing = format!("--{boundary}--");
    loop {
        while rest.starts_with(b"\r\n") {
            rest = rest.slice(2..);
        }
        if rest.starts_with(closing.as_bytes()) {
            return parts;
        }
        rest = rest.slice(opening.len()..);
        let end = rest.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        let head = String::from_utf8(rest[..end].to_vec()).unwrap().to_lowercase();
        let field = |name: &str| {
            head.lines()
                .find_map(|line| line.strip_prefix(name))
                .unwrap_or_else(|| panic!("{head}"))
                .trim()
                .to_owned()
        };
        assert_eq!(field("content-type:"), OCTETS);
        let range = field("content-range:");
        let (first, last) =
            range.trim_start_matches("bytes ").split_once('/').unwrap().0.split_once('-').unwrap();
        let length = last.parse::<usize>().unwrap() - first.parse::<usize>().unwrap() + 1;
        parts.push((range.clone(), rest.slice(end + 4..end + 4 + length)));
        rest = rest.slice(end + 4 + length..);
    }
}

#[tokio::test]
async fn item_036_multi_range_is_one_part_per_range_in_order() {
    for cache in [Cache::Cold, Cache::Warm] {
        // Adjacent, overlapping, backwards, suffix and open ranges: never merged.
        let (answer, content) = ask(cache, "bytes=0-9,10-19,15-29,5-6,-3,299000-").await;
        assert_eq!(answer.status, 206, "{cache:?}");
        let expected = [(0, 10), (10, 20), (15, 30), (5, 7), (SIZE - 3, SIZE), (299_000, SIZE)];
        let parts = parts_of(&answer);
        assert_eq!(parts.len(), expected.len());
        for ((range, bytes), (first, end)) in parts.iter().zip(expected) {
            assert_eq!(*range, format!("bytes {first}-{}/{SIZE}", end - 1));
            assert_eq!(*bytes, content.slice(first..end));
        }
    }
}

#[tokio::test]
async fn item_037_1024_ranges_are_taken_and_more_are_400() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[SIZE]);
    let tidegate = Tidegate::start(&upstream).await;
    tidegate.manifest(&image.tag_path()).await;
    let ranges = |count: usize| {
        let list: Vec<String> =
            (0..count).map(|i| format!("{}-{}", 200 * i + 20_000, 200 * i + 20_009)).collect();
        format!("bytes={}", list.join(","))
    };
    for _cold_then_warm in 0..2 {
        for client in [tidegate.client(), tidegate.client().http2()] {
            let most = client.get(&image.layer_path(0)).range(&ranges(1024)).send().await;
            assert_eq!(most.status, 206);
            let parts = parts_of(&most);
            assert_eq!(parts.len(), 1024);
            assert_eq!(parts[1023].1, image.layers[0].bytes.slice(224_600..224_610));
            let beyond = client.get(&image.layer_path(0)).range(&ranges(1025)).send().await;
            assert_eq!(beyond.status, 400);
            beyond.error_code();
        }
        tidegate.fetch(&image.layer_path(0)).await;
    }
}

#[tokio::test]
async fn item_038_multi_range_works_although_upstream_refuses_it() {
    // The scripted upstream answers 501 to several ranges, always.
    let (answer, content) = ask(Cache::Cold, "bytes=100-199,250000-250099").await;
    assert_eq!(answer.status, 206);
    let parts = parts_of(&answer);
    assert_eq!(parts[0].1, content.slice(100..200));
    assert_eq!(parts[1].1, content.slice(250_000..250_100));
}

#[tokio::test]
async fn item_038_ranges_work_although_upstream_ignores_them() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[SIZE]);
    upstream.rule(any(Kind::Blob), serve().ignoring_range());
    for range in ["bytes=1000-1999", "bytes=0-", "bytes=-5"] {
        let tidegate = Setup::new().upstream(Section::hub(&upstream)).with_warnings().start().await;
        tidegate.manifest(&image.tag_path()).await;
        let answer = tidegate.get(&image.layer_path(0)).range(range).send().await;
        assert_eq!(answer.status, 206, "{range}");
    }
}

#[tokio::test]
async fn item_039_an_if_range_that_does_not_match_gets_the_whole() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[SIZE]);
    let tidegate = Tidegate::start(&upstream).await;
    let layer = &image.layers[0];
    let get = || tidegate.get(&image.layer_path(0)).range("bytes=5-9");
    let matching = get().header("if-range", &format!("\"{}\"", layer.digest)).send().await;
    assert_eq!(matching.status, 206);
    for value in [format!("\"{}\"", layer.another_digest()), format!("W/\"{}\"", layer.digest)] {
        let answer = get().header("if-range", &value).send().await;
        assert_eq!((answer.status, answer.body.len()), (200, SIZE), "{value}");
    }
}

#[tokio::test]
async fn item_041_100_open_ranges_that_hang_up_are_one_transfer() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[32 << 20]);
    let layer = &image.layers[0];
    let tidegate = Tidegate::start(&upstream).await;
    tidegate.manifest(&image.tag_path()).await;
    let first = tidegate.get(&image.layer_path(0)).range("bytes=0-").open().await;
    assert_eq!(first.status, 206);
    drop(first);
    let chunks: Vec<_> = (0..100_usize)
        .map(|i| {
            let offset = i * (layer.bytes.len() / 100);
            let call = tidegate.get(&image.layer_path(0)).range(&format!("bytes={offset}-"));
            let expected = layer.bytes.slice(offset..offset + 100_000);
            tokio::spawn(async move {
                let mut open = call.open().await;
                assert_eq!(open.status, 206);
                let read = open.read_at_least(expected.len()).await;
                assert!(read.starts_with(&expected), "chunk {i}");
            })
        })
        .collect();
    for chunk in chunks {
        chunk.await.unwrap();
    }
    until("the whole blob", async || upstream.sent_bytes(&blob(layer)) >= layer.size()).await;
    let whole = tidegate.fetch(&image.layer_path(0)).await;
    assert!(whole.body == layer.bytes);
    assert_eq!(upstream.count(&blob(layer)), 1);
    assert!(upstream.sent_bytes(&blob(layer)) <= layer.size());
}

#[tokio::test]
async fn a_small_range_far_ahead_in_a_cold_blob_does_not_fetch_all_of_it() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[64 << 20]);
    let layer = &image.layers[0];
    let tidegate = Tidegate::start(&upstream).await;
    tidegate.manifest(&image.tag_path()).await;
    let range = format!("bytes={}-{}", 50 << 20, (50 << 20) + 9999);
    let answer = tidegate.get(&image.layer_path(0)).range(&range).send().await;
    assert_eq!(answer.status, 206);
    assert!(answer.body == layer.bytes.slice(50 << 20..(50 << 20) + 10_000));
    assert!(upstream.sent_bytes(&blob(layer)) < 8 << 20, "{}", upstream.sent_bytes(&blob(layer)));
}

#[tokio::test]
async fn ranges_in_mid_fill_are_served_from_what_is_there_or_waited_for() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[16 << 20]);
    let layer = &image.layers[0];
    let gate = Gate::closed();
    upstream.rule(blob(layer).whole(), serve().hold_body(&gate));
    let tidegate = Tidegate::start(&upstream).await;
    tidegate.manifest(&image.tag_path()).await;
    let mut leader = tidegate.get(&image.layer_path(0)).open().await;
    gate.release_to(8 << 20);
    leader.read_at_least(1 << 20).await;
    let there = tidegate.get(&image.layer_path(0)).range("bytes=1000-1999").send().await;
    assert_eq!((there.status, &there.body), (206, &layer.bytes.slice(1000..2000)));
    let mut soon = tidegate.get(&image.layer_path(0)).range("bytes=8388000-8389999").open().await;
    assert_eq!(soon.status, 206);
    gate.open();
    assert!(soon.equals(&layer.bytes[8_388_000..8_390_000]).await);
    drop(leader);
    let whole = tidegate.fetch(&image.layer_path(0)).await;
    assert!(whole.body == layer.bytes);
    assert_eq!(upstream.count(&blob(layer).whole()), 1);
}

#[tokio::test]
async fn item_040_ranges_are_206_from_cold_to_warm_to_evicted() {
    let upstream = Upstream::start().await;
    let image = upstream.make_image("library/app", "1", &[3 << 20]);
    let layer = &image.layers[0];
    let tidegate =
        Setup::new().upstream(Section::hub(&upstream)).max_size("8MiB").with_warnings().start().await;
    let check = async |state: &str| {
        for (range, first) in [("bytes=0-", 0), ("bytes=1048576-", 1 << 20)] {
            let answer = tidegate.get(&image.layer_path(0)).range(range).send().await;
            assert_eq!(answer.status, 206, "{state}");
            assert!(answer.body == layer.bytes.slice(first..), "{state}");
        }
    };
    tidegate.manifest(&image.tag_path()).await;
    check("cold").await;
    check("warm").await;
    for number in 0..6 {
        let other = upstream.make_image("library/other", &number.to_string(), &[3 << 20]);
        // Twice, as what is asked for once is the first to go.
        tidegate.pull(&other).await;
        tidegate.pull(&other).await;
    }
    upstream.forget_requests();
    check("evicted").await;
    assert!(upstream.count(&blob(layer)) >= 1, "it had really gone");
}
