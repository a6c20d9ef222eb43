//! Manifests, blobs, ranges, listings: what is sent, and what is made of the answers.

use super::*;

const CONTENT: &str = "0123456789";

/// Serves [`CONTENT`] with ranges; `bytes=0-0` of nothing is not satisfiable.
fn serve_ranges(seen: &Seen, content: &'static str) -> Response<Body> {
    let Some(range) = seen.header("range").strip_prefix("bytes=") else { return ok(content) };
    let (start, end) = range.split_once('-').unwrap();
    let start: usize = start.parse().unwrap();
    if start >= content.len() {
        return answer(416, &[("content-range", &format!("bytes */{}", content.len()))], "");
    }
    let end = end.parse().map_or(content.len(), |end: usize| (end + 1).min(content.len()));
    let part = format!("bytes {start}-{}/{}", end - 1, content.len());
    answer(206, &[("content-range", &part)], &content[start..end])
}

#[tokio::test]
async fn checklist_19_and_79_requests_carry_our_own_headers_only() {
    let server = Server::start(|_| ok("{}")).await;
    let upstream = upstream(&server);
    assert_eq!(kind(&fetch(&upstream).await), "ok");
    let class = AcceptClass::Only(vec![MediaType::OCI_MANIFEST]);
    assert_eq!(kind(&upstream.fetch_manifest(&Urgency::CLIENT, &repository(), &tag(), &class).await), "ok");
    assert_eq!(kind(&read_blob(&upstream).await), "ok");
    let seen = server.seen();
    assert_eq!(seen[0].header("accept"), AcceptClass::Any.to_header_value());
    assert_eq!(seen[1].header("accept"), MediaType::OCI_MANIFEST.as_str());
    assert_eq!(seen[2].header("accept"), "");
    for seen in &seen {
        assert_eq!(seen.header("accept-encoding"), "identity");
        assert_eq!(seen.header("via"), "1.1 tidegate-test");
        assert_eq!(seen.header("user-agent"), concat!("tidegate/", env!("CARGO_PKG_VERSION")));
        let names = seen.headers.keys().filter(|name| *name != "accept").count();
        assert_eq!(names, 4, "host and nothing else: {:?}", seen.headers);
    }
}

#[tokio::test]
async fn a_manifest_comes_byte_for_byte_with_what_its_head_says() {
    let body = "{ \"odd\" :\n 1 }";
    let digest = Digest::of(Algorithm::Sha256, body.as_bytes()).to_string();
    let known = digest.clone();
    let server = Server::start(move |seen| {
        let digest = if seen.target.ends_with("latest") { known.as_str() } else { "sha256:nonsense" };
        answer(
            200,
            &[
                ("docker-content-digest", digest),
                ("content-type", "Application/VND.oci.image.manifest.v1+json; x=y"),
            ],
            body,
        )
    })
    .await;
    let upstream = upstream(&server);
    let fetched = fetch(&upstream).await.unwrap();
    let head = ManifestHead {
        digest: Some(digest.parse().unwrap()),
        media_type: Some(MediaType::OCI_MANIFEST),
        size_bytes: Some(body.len() as u64),
    };
    assert_eq!((fetched.body.as_ref(), fetched.head), (body.as_bytes(), head.clone()));
    assert_eq!(
        upstream.head_manifest(&Urgency::CLIENT, &repository(), &tag(), &AcceptClass::Any).await.unwrap(),
        head
    );
    let other = "other".parse().unwrap();
    let head =
        upstream.head_manifest(&Urgency::CLIENT, &repository(), &other, &AcceptClass::Any).await.unwrap();
    assert_eq!(head.digest, None, "checklist 21: a malformed digest is as good as none");
}

#[tokio::test]
async fn a_registry_without_head_is_asked_by_get() {
    for status in [405, 501] {
        let server =
            Server::start(
                move |seen| if seen.method == Method::HEAD { answer(status, &[], "") } else { ok("{}") },
            )
            .await;
        let upstream = upstream(&server);
        for _ in 0..10 {
            let head = upstream
                .head_manifest(&Urgency::CLIENT, &repository(), &tag(), &AcceptClass::Any)
                .await
                .unwrap();
            assert_eq!(head.size_bytes, Some(2));
        }
    }
}

#[tokio::test]
async fn a_blob_is_resumed_where_it_was_cut() {
    let server = Server::start(|seen| serve_ranges(seen, CONTENT)).await;
    let upstream = upstream(&server);
    let whole = upstream.open_blob(&Urgency::CLIENT, &repository(), &digest(), 0).await.unwrap();
    assert_eq!((whole.offset, whole.total_bytes), (0, Some(10)));
    assert_eq!(read(whole).await.unwrap(), CONTENT.as_bytes());
    let rest = upstream.open_blob(&Urgency::CLIENT, &repository(), &digest(), 7).await.unwrap();
    assert_eq!((rest.offset, rest.total_bytes), (7, Some(10)));
    assert_eq!(read(rest).await.unwrap(), b"789");
    let part = upstream.open_blob_range(&Urgency::CLIENT, &repository(), &digest(), 2..5).await.unwrap();
    assert_eq!((part.offset, part.total_bytes), (2, Some(10)));
    assert_eq!(read(part).await.unwrap(), b"234");
    assert_eq!(
        kind(&upstream.open_blob(&Urgency::CLIENT, &repository(), &digest(), 10).await),
        "broken",
        "416"
    );
    let ranges: Vec<_> = server.seen().iter().map(|seen| seen.header("range").to_owned()).collect();
    assert_eq!(ranges, ["", "bytes=7-", "bytes=2-4", "bytes=10-"]);
}

#[tokio::test]
async fn an_upstream_that_ignores_ranges_starts_anew_or_is_refused() {
    let server = Server::start(|_| ok(CONTENT)).await;
    let upstream = upstream(&server);
    let rest = upstream.open_blob(&Urgency::CLIENT, &repository(), &digest(), 7).await.unwrap();
    assert_eq!((rest.offset, read(rest).await.unwrap().as_slice()), (0, CONTENT.as_bytes()));
    assert_eq!(
        kind(&upstream.open_blob_range(&Urgency::CLIENT, &repository(), &digest(), 2..5).await),
        "broken"
    );
}

#[tokio::test]
async fn checklist_31_a_blobs_size_is_found_without_head() {
    for (content, size) in [(CONTENT, 10), ("", 0)] {
        let server = Server::start(move |seen| serve_ranges(seen, content)).await;
        assert_eq!(
            upstream(&server).probe_blob(&Urgency::CLIENT, &repository(), &digest()).await.unwrap(),
            Some(size)
        );
        assert_eq!(
            (server.seen()[0].method.clone(), server.seen()[0].header("range")),
            (Method::GET, "bytes=0-0")
        );
    }
    let plain = Server::start(|_| ok(CONTENT)).await;
    assert_eq!(
        upstream(&plain).probe_blob(&Urgency::CLIENT, &repository(), &digest()).await.unwrap(),
        Some(10)
    );
    let missing = Server::start(|_| answer(404, &[], "")).await;
    assert_eq!(
        kind(&upstream(&missing).probe_blob(&Urgency::CLIENT, &repository(), &digest()).await),
        "absent"
    );
}

#[tokio::test]
async fn a_wrong_part_is_broken() {
    for (range, body) in
        [("bytes 0-9/10", CONTENT), ("bytes 7-8/10", "78"), ("bytes 7-9/10", "7890"), ("lines 7-9/10", "789")]
    {
        let server = Server::start(move |_| answer(206, &[("content-range", range)], body)).await;
        assert_eq!(
            kind(&upstream(&server).open_blob(&Urgency::CLIENT, &repository(), &digest(), 7).await),
            "broken",
            "{range}"
        );
    }
}

#[tokio::test]
async fn content_that_is_compressed_or_a_web_page_is_refused() {
    for header in [("content-encoding", "gzip"), ("content-type", "text/html")] {
        let server = Server::start(move |_| answer(200, &[header], "x")).await;
        let upstream = upstream(&server);
        assert_eq!(kind(&fetch(&upstream).await), "broken", "{header:?}");
        assert_eq!(kind(&read_blob(&upstream).await), "broken", "{header:?}");
        assert_eq!(
            kind(&upstream.fetch_tags(&Urgency::CLIENT, &repository(), &[]).await),
            "broken",
            "{header:?}"
        );
    }
}

#[tokio::test]
async fn an_endless_manifest_is_cut_at_its_cap() {
    let part = Bytes::from(vec![b' '; 1024 * 1024]);
    let server = Server::start(move |seen| {
        let part = part.clone();
        let parts = stream::iter(0..1024).map(move |_| Ok(part.clone()));
        let length = (1024 * 1024 * 1024).to_string();
        let headers: &[_] =
            if seen.target.ends_with("announced") { &[("content-length", length.as_str())] } else { &[] };
        streaming(200, headers, parts)
    })
    .await;
    let upstream = upstream(&server);
    for reference in ["announced", "chunked"] {
        let reference = reference.parse().unwrap();
        let outcome =
            upstream.fetch_manifest(&Urgency::CLIENT, &repository(), &reference, &AcceptClass::Any).await;
        assert_eq!(kind(&outcome), "broken");
    }
}

#[tokio::test]
async fn listings_tell_their_next_page_and_no_more() {
    let server = Server::start(|seen| match seen.target.as_str() {
        "/v2/library/nginx/tags/list?n=2" => {
            let next = r#"<https://evil.example/v2/x/tags/list?last=b&n=2>; rel="next""#;
            answer(200, &[("link", next)], r#"{"tags":["a",null,"b"]}"#)
        }
        target if target.contains("/referrers/") => {
            answer(200, &[("oci-filters-applied", "artifactType")], r#"{"manifests":[]}"#)
        }
        _ => ok("no JSON"),
    })
    .await;
    let upstream = upstream(&server);
    let page =
        upstream.fetch_tags(&Urgency::CLIENT, &repository(), &[("n".into(), "2".into())]).await.unwrap();
    let next = NextPage { query: vec![("last".into(), "b".into()), ("n".into(), "2".into())] };
    assert_eq!(page, TagsPage { tags: vec!["a".into(), "b".into()], next: Some(next) });
    assert_eq!(kind(&upstream.fetch_tags(&Urgency::CLIENT, &repository(), &[]).await), "broken");
    let query = [("artifactType".to_owned(), "application/x+y".to_owned())];
    let page = upstream.fetch_referrers(&Urgency::CLIENT, &repository(), &digest(), &query).await.unwrap();
    assert!(page.filtered && page.next.is_none() && page.body == r#"{"manifests":[]}"#);
    assert!(server.seen()[2].target.ends_with("?artifactType=application/x%2By"));
}
