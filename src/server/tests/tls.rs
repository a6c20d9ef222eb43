//! TLS: protocols, and certificates that change.

use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::clients::{Http1, Http2};
use super::{TestServer, say_version, with_tls};
use crate::config::TlsConfig;
use crate::runtime::Tasks;
use crate::server::tls::{CertificateStore, TlsError};

const GET: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// Writes a new certificate and its key into the folder.
fn write_pair(folder: &Path) -> (TlsConfig, CertificateDer<'static>) {
    let pair = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let config = TlsConfig { certificate: folder.join("cert.pem"), private_key: folder.join("key.pem") };
    std::fs::write(&config.certificate, pair.cert.pem()).unwrap();
    std::fs::write(&config.private_key, pair.signing_key.serialize_pem()).unwrap();
    (config, pair.cert.der().clone())
}

async fn connect(
    server: &TestServer,
    trusted: &CertificateDer<'static>,
    protocol: &[u8],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    let stream = TcpStream::connect(server.address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

#[tokio::test]
async fn tls_offers_both_versions() {
    let folder = tempfile::tempdir().unwrap();
    let (config, certificate) = write_pair(folder.path());
    let store = Arc::new(CertificateStore::load(&config).unwrap());
    let server = TestServer::start(with_tls(&store), say_version);

    let stream = connect(&server, &certificate, b"h2").await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    assert_eq!(Http2::over(stream, &Tasks::new()).await.get("/").await.1, "HTTP/2.0");

    let stream = connect(&server, &certificate, b"http/1.1").await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    assert_eq!(Http1(stream).ask(GET).await.1, "HTTP/1.1");
}

#[tokio::test]
async fn a_new_certificate_is_for_new_connections_and_a_bad_one_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (config, old) = write_pair(folder.path());
    let store = Arc::new(CertificateStore::load(&config).unwrap());
    let server = TestServer::start(with_tls(&store), say_version);
    let mut before = Http1(connect(&server, &old, b"http/1.1").await.unwrap());

    let (_, new) = write_pair(folder.path());
    store.reload(&config).unwrap();
    assert!(connect(&server, &old, b"http/1.1").await.is_err());
    assert_eq!(Http1(connect(&server, &new, b"http/1.1").await.unwrap()).ask(GET).await.1, "HTTP/1.1");
    assert_eq!(before.ask(GET).await.1, "HTTP/1.1", "connections that are open go on");

    // The key of one pair beside the certificate of another.
    let key = std::fs::read(&config.private_key).unwrap();
    write_pair(folder.path());
    std::fs::write(&config.private_key, key).unwrap();
    assert!(matches!(store.reload(&config), Err(TlsError::Unusable(_))));
    std::fs::write(&config.certificate, "no PEM").unwrap();
    assert!(matches!(store.reload(&config), Err(TlsError::NoCertificate { .. })));
    std::fs::remove_file(&config.certificate).unwrap();
    assert!(matches!(store.reload(&config), Err(TlsError::Unreadable { what: "certificate", .. })));
    assert!(connect(&server, &new, b"http/1.1").await.is_ok());
}

#[tokio::test]
async fn a_client_that_speaks_clear_text_to_tls_does_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    let (config, certificate) = write_pair(folder.path());
    let store = Arc::new(CertificateStore::load(&config).unwrap());
    let server = TestServer::start(with_tls(&store), say_version);
    let mut clear = Http1::connect(server.address).await;
    clear.send(GET).await;
    assert!(!clear.read_to_end().await.starts_with(b"HTTP"));
    assert!(connect(&server, &certificate, b"http/1.1").await.is_ok());
}
