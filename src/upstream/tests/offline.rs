//! Offline: no packet leaves, and no name is looked up.

use super::*;

fn switchable(server: &Server) -> (Upstream, Arc<Dns>) {
    let shared = services(Clock::manual(START));
    let upstream = Upstream::new(config(&[server.url("registry.test")]), &shared).unwrap();
    (upstream, Arc::clone(&shared.dns))
}

#[tokio::test]
async fn an_upstream_that_is_offline_is_neither_looked_up_nor_asked() {
    let server = Server::start(|_| ok("{}")).await;
    let shared = services(Clock::manual(START));
    let offline = UpstreamConfig { offline: true, ..config(&[server.url("registry.test")]) };
    let upstream = Upstream::new(offline, &shared).unwrap();
    assert_eq!(upstream.status().link, Link::Offline);
    assert_eq!(kind(&fetch(&upstream).await), "offline");
    assert_eq!(
        kind(&upstream.head_manifest(&Urgency::CLIENT, &repository(), &tag(), &AcceptClass::Any).await),
        "offline"
    );
    assert_eq!(kind(&read_blob(&upstream).await), "offline");
    assert_eq!(kind(&upstream.probe_blob(&Urgency::CLIENT, &repository(), &digest()).await), "offline");
    assert_eq!(kind(&upstream.fetch_tags(&Urgency::CLIENT, &repository(), &[]).await), "offline");
    assert_eq!(
        kind(&upstream.fetch_referrers(&Urgency::CLIENT, &repository(), &digest(), &[]).await),
        "offline"
    );
    assert_eq!((shared.dns.asked(), server.seen().len()), (0, 0));
    assert!(upstream.status().is_usable(), "it says nothing against the endpoint");
    upstream.set_link(Link::Online);
    assert!(fetch(&upstream).await.is_ok());
    assert_eq!(shared.dns.asked(), 1);
}

#[tokio::test]
async fn what_runs_ends_when_the_upstream_goes_offline() {
    let server = Server::start(|seen| {
        if seen.target.contains("/blobs/") {
            let first = stream::iter([Ok(Bytes::from_static(b"begins"))]);
            return streaming(200, &[("content-length", "100")], first.chain(stream::pending()));
        }
        streaming(200, &[], stream::pending())
    })
    .await;
    let (upstream, dns) = switchable(&server);
    let mut transfer = upstream.open_blob(&Urgency::CLIENT, &repository(), &digest(), 0).await.unwrap();
    assert_eq!(transfer.body.next().await.unwrap().unwrap(), "begins");
    let mut asking = Box::pin(fetch(&upstream));
    while server.count("/manifests/") == 0 {
        assert!(futures_util::poll!(&mut asking).is_pending());
        tokio::task::yield_now().await;
    }
    upstream.set_link(Link::Offline);
    let cut = transfer.body.next().await.unwrap();
    assert!(matches!(cut, Err(UpstreamError::Offline { .. })), "{cut:?}");
    assert_eq!(kind(&asking.await), "offline");
    let (asked, seen) = (dns.asked(), server.seen().len());
    assert_eq!(kind(&fetch(&upstream).await), "offline");
    assert_eq!((dns.asked(), server.seen().len()), (asked, seen));
    assert!(upstream.status().endpoints.iter().all(|endpoint| endpoint.last_error.is_none()));
}
