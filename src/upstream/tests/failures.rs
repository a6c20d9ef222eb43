//! Upstreams that are slow, short, silent, gone or throttling; several endpoints; TLS.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

const SHORT: Duration = Duration::from_millis(150);

fn hurried(config: &mut UpstreamConfig) {
    config.timeouts = Timeouts { connect: SHORT, first_byte: SHORT, silence: SHORT, miss: SHORT };
}

/// A server that says `text` to every connection and then closes it, or keeps it.
async fn raw_server(text: &'static str, then_close: bool) -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    Tasks::new().spawn(async move {
        let mut kept = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(text.as_bytes()).await;
            if !then_close {
                kept.push(stream);
            }
        }
    });
    format!("http://registry.test:{port}")
}

/// A port where nobody listens.
async fn nobody() -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    format!("http://registry.test:{}", listener.local_addr().unwrap().port())
}

#[tokio::test]
async fn a_body_that_ends_early_is_broken() {
    let part =
        "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 5-14/15\r\nConnection: close\r\n\r\n12345";
    for (text, offset) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345", 0),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n", 0),
        (part, 5),
    ] {
        let (upstream, _) = upstream_with(&[raw_server(text, true).await], |_| ());
        let mut transfer =
            upstream.open_blob(&Urgency::CLIENT, &repository(), &digest(), offset).await.unwrap();
        assert_eq!(transfer.body.next().await.unwrap().unwrap(), "12345");
        let end = transfer.body.next().await.unwrap();
        assert_eq!(kind(&end), "broken", "{text}");
        assert!(transfer.body.next().await.is_none());
    }
}

#[tokio::test]
async fn silence_is_unreachable_wherever_it_falls() {
    let silent = raw_server("", false).await;
    let (upstream, _) = upstream_with(&[silent], hurried);
    assert_eq!(kind(&fetch(&upstream).await), "unreachable", "before the head");
    let stalled = raw_server("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345", false).await;
    let (upstream, _) = upstream_with(&[stalled], hurried);
    assert_eq!(kind(&fetch(&upstream).await), "unreachable", "within a manifest");
    assert_eq!(kind(&read_blob(&upstream).await), "unreachable", "within a blob");
}

#[tokio::test]
async fn an_upstream_that_gives_bytes_one_by_one_counts_as_silent() {
    let server = Server::start(|_| {
        let drops = stream::unfold((), |()| async {
            tokio::time::sleep(SHORT / 5).await;
            Some((Ok(Bytes::from_static(b"x")), ()))
        });
        streaming(200, &[], drops)
    })
    .await;
    let (upstream, _) = upstream_with(&[server.url("registry.test")], hurried);
    assert_eq!(kind(&fetch(&upstream).await), "unreachable", "within a manifest");
    assert_eq!(kind(&read_blob(&upstream).await), "unreachable", "within a blob");
}

#[tokio::test]
async fn a_host_without_an_address_is_unreachable() {
    let shared = UpstreamServices {
        dns: Arc::new(Dns::from_table([("registry.test", vec![])])),
        ..services(Clock::manual(START))
    };
    let upstream = Upstream::new(config(&["http://registry.test".into()]), &shared).unwrap();
    assert_eq!(kind(&fetch(&upstream).await), "unreachable");
}

#[tokio::test]
async fn what_is_not_http_is_broken_and_what_hangs_up_is_unreachable() {
    for (text, expected) in [("SSH-2.0-OpenSSH_9.0\r\n\r\n", "broken"), ("", "unreachable")] {
        let (upstream, _) = upstream_with(&[raw_server(text, true).await], |_| ());
        assert_eq!(kind(&fetch(&upstream).await), expected, "{text}");
    }
    let (upstream, _) = upstream_with(&["http://unknown.test".into()], |_| ());
    assert_eq!(kind(&fetch(&upstream).await), "unreachable");
}

#[tokio::test]
async fn a_kept_connection_that_is_just_being_closed_is_no_fault() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let requests = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&requests);
    Tasks::new().spawn(async move {
        // Every connection answers once, then takes one more request and hangs up.
        while let Ok((mut stream, _)) = listener.accept().await {
            for answer in ["HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", ""] {
                if stream.read(&mut [0; 4096]).await.unwrap_or(0) > 0 {
                    counter.fetch_add(1, Ordering::SeqCst);
                }
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        }
    });
    let (upstream, _) = upstream_with(&[format!("http://registry.test:{port}")], |_| ());
    for _ in 0..3 {
        assert_eq!(kind(&fetch(&upstream).await), "ok");
    }
    assert_eq!(requests.load(Ordering::SeqCst), 5);
}

#[tokio::test]
async fn dropping_a_transfer_ends_it() {
    struct Flag(Arc<AtomicBool>);
    impl Drop for Flag {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let ended = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&ended);
    let server = Server::start(move |_| {
        let flag = Flag(Arc::clone(&told));
        let part = Bytes::from(vec![0; 65536]);
        streaming(
            200,
            &[],
            stream::repeat_with(move || {
                let _ = &flag;
                Ok(part.clone())
            }),
        )
    })
    .await;
    let upstream = upstream(&server);
    let mut transfer = upstream.open_blob(&Urgency::CLIENT, &repository(), &digest(), 0).await.unwrap();
    assert!(transfer.body.next().await.unwrap().is_ok());
    drop(transfer);
    let gone = async {
        while !ended.load(Ordering::SeqCst) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), gone).await.unwrap();
}

#[tokio::test]
async fn statuses_reach_the_caller_as_their_class() {
    for (status, expected) in [
        (404, "absent"),
        (403, "forbidden"),
        (401, "forbidden"),
        (429, "throttled"),
        (500, "broken"),
        (204, "broken"),
    ] {
        let server = Server::start(move |_| answer(status, &[("retry-after", "99999999")], "")).await;
        let upstream = upstream(&server);
        assert_eq!(kind(&fetch(&upstream).await), expected, "{status}");
        assert_eq!(kind(&read_blob(&upstream).await), expected, "{status}");
        if let Err(UpstreamError::Throttled { retry_after, .. }) = fetch(&upstream).await {
            let pause = retry_after.unwrap();
            assert!(pause > Duration::from_mins(14) && pause <= Duration::from_mins(15), "{pause:?}");
        }
    }
}

#[tokio::test]
async fn the_next_endpoint_serves_when_one_cannot_and_the_first_is_not_asked_for_a_while() {
    let good = Server::start(|_| ok("{}")).await;
    for status in [500, 502, 429] {
        let bad = Server::start(move |_| answer(status, &[], "")).await;
        let (upstream, _) = upstream_with(&[bad.url("registry.test"), good.url("mirror.test")], |_| ());
        assert_eq!(kind(&fetch(&upstream).await), "ok", "{status}");
        assert_eq!(bad.seen().len(), 1);
    }
    let (upstream, _) = upstream_with(&[nobody().await, good.url("mirror.test")], |_| ());
    assert_eq!(kind(&fetch(&upstream).await), "ok");
    let absent = Server::start(|_| answer(404, &[], "")).await;
    let (upstream, _) = upstream_with(&[absent.url("registry.test"), good.url("mirror.test")], |_| ());
    assert_eq!(kind(&fetch(&upstream).await), "absent", "an answer about the content is an answer");
}

#[tokio::test]
async fn the_most_telling_fault_of_all_endpoints_is_reported() {
    let server = |status| Server::start(move |_| answer(status, &[], ""));
    let (broken, throttling) = (server(500).await, server(429).await);
    for (endpoints, expected) in [
        (vec![nobody().await, broken.url("registry.test")], "broken"),
        (vec![throttling.url("registry.test"), broken.url("mirror.test"), nobody().await], "throttled"),
        (vec![nobody().await], "unreachable"),
    ] {
        let (upstream, _) = upstream_with(&endpoints, |_| ());
        assert_eq!(kind(&fetch(&upstream).await), expected);
    }
}

#[tokio::test]
async fn a_cut_transfer_is_resumed_at_the_other_endpoint() {
    let cut = raw_server("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234", true).await;
    let other = Server::start(|_| answer(206, &[("content-range", "bytes 5-9/10")], "56789")).await;
    let (upstream, _) = upstream_with(&[cut, other.url("mirror.test")], |_| ());
    assert_eq!(kind(&read_blob(&upstream).await), "broken");
    let rest = upstream.open_blob(&Urgency::CLIENT, &repository(), &digest(), 5).await.unwrap();
    assert_eq!(read(rest).await.unwrap(), b"56789");
}

#[tokio::test]
async fn the_breaker_opens_on_failures_and_closes_when_upstream_is_back() {
    let healthy = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&healthy);
    let server =
        Server::start(move |_| if switch.load(Ordering::SeqCst) { ok("{}") } else { answer(503, &[], "") })
            .await;
    let upstream = upstream(&server);
    for _ in 0..5 {
        assert_eq!(kind(&fetch(&upstream).await), "broken");
    }
    assert_eq!(upstream.status().endpoints[0].state, EndpointState::Down);
    assert!(!upstream.status().is_usable());
    assert_eq!(kind(&fetch(&upstream).await), "unreachable");
    assert_eq!(server.seen().len(), 5, "an open breaker sends nothing");
    healthy.store(true, Ordering::SeqCst);
    // Longer than the first pause can be; the clock of the runtime stands still but for this.
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(2)).await;
    tokio::time::resume();
    assert_eq!(kind(&fetch(&upstream).await), "ok");
    assert_eq!(upstream.status().endpoints[0].state, EndpointState::Up);
}

#[tokio::test]
async fn absence_and_throttling_do_not_open_the_breaker() {
    for status in [404, 429, 403, 400] {
        let server = Server::start(move |_| answer(status, &[], "")).await;
        let upstream = upstream(&server);
        for _ in 0..20 {
            let _ = fetch(&upstream).await;
        }
        let asked = if status == 429 { 1 } else { 20 };
        assert_eq!(server.seen().len(), asked, "{status}");
        assert_eq!(upstream.status().endpoints[0].state, EndpointState::Up);
    }
}

#[tokio::test]
async fn a_slot_is_held_for_as_long_as_the_body_comes() {
    let server = Server::start(|seen| {
        if seen.target.contains("/blobs/") {
            let first = stream::iter([Ok(Bytes::from_static(b"x"))]);
            return streaming(200, &[], first.chain(stream::pending()));
        }
        ok("{}")
    })
    .await;
    let (upstream, _) = upstream_with(&[server.url("registry.test")], |config| {
        config.max_concurrent_requests = 1;
        config.timeouts.first_byte = SHORT;
    });
    let transfer = upstream.open_blob(&Urgency::CLIENT, &repository(), &digest(), 0).await.unwrap();
    assert_eq!(kind(&fetch(&upstream).await), "unreachable", "busy");
    drop(transfer);
    assert_eq!(kind(&fetch(&upstream).await), "ok");
}

fn tls_acceptor(protocols: &[&str]) -> (tokio_rustls::TlsAcceptor, String) {
    let key = rcgen::generate_simple_self_signed(["registry.test".to_owned()]).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let private = rustls_pki_types::PrivateKeyDer::Pkcs8(key.signing_key.serialize_der().into());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![key.cert.der().clone()], private)
        .unwrap();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    (Arc::new(config).into(), key.cert.pem())
}

#[tokio::test]
async fn tls_speaks_http_2_where_offered_and_believes_the_configured_authority_only() {
    for (protocols, version) in [(&["h2", "http/1.1"][..], Version::HTTP_2), (&[], Version::HTTP_11)] {
        let (acceptor, pem) = tls_acceptor(protocols);
        let served = AtomicUsize::new(0);
        let server = Server::start_with(Some(acceptor), move |_| {
            served.fetch_add(1, Ordering::SeqCst);
            ok(vec![7; 300_000])
        })
        .await;
        let endpoint = server.url("registry.test").replace("http:", "https:");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        std::fs::write(&path, pem).unwrap();
        let (believing, _) =
            upstream_with(std::slice::from_ref(&endpoint), |config| config.ca_file = Some(path));
        assert_eq!(read_blob(&believing).await.unwrap(), vec![7; 300_000]);
        assert_eq!(server.seen()[0].version, version);
        let (doubting, _) = upstream_with(&[endpoint], |_| ());
        assert_eq!(kind(&fetch(&doubting).await), "unreachable");
        assert_eq!(server.seen().len(), 1);
    }
}

#[tokio::test]
async fn an_https_registry_sends_nobody_to_http() {
    let plain = Server::start(|_| ok(r#"{"token":"t"}"#)).await;
    let (realm, location) =
        (format!("Bearer realm=\"{}\"", plain.url("registry.test")), plain.url("registry.test"));
    let (acceptor, pem) = tls_acceptor(&[]);
    let server = Server::start_with(Some(acceptor), move |seen| {
        if seen.target.contains("/blobs/") {
            return answer(307, &[("location", &location)], "");
        }
        answer(401, &[("www-authenticate", &realm)], "")
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.pem");
    std::fs::write(&path, pem).unwrap();
    let endpoint = server.url("registry.test").replace("http:", "https:");
    let (upstream, _) = upstream_with(&[endpoint], |config| {
        config.ca_file = Some(path);
        config.trusted_hosts = vec!["registry.test".into()];
    });
    assert_eq!(kind(&fetch(&upstream).await), "broken");
    assert_eq!(kind(&read_blob(&upstream).await), "broken");
    assert!(plain.seen().is_empty());
}
