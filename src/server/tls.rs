//! TLS for the registry API: one certificate, replaced while connections go on.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::config::TlsConfig;

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or holds no PEM of the kind that is needed.
    #[error("read {what} from {path}")]
    Unreadable {
        /// Certificate or private key.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls_pki_types::pem::Error,
    },
    /// The certificate file holds no certificate.
    #[error("{path} holds no certificate")]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// The key is of an unknown kind, or belongs to another certificate.
    #[error("certificate and private key cannot be used together")]
    Unusable(#[source] rustls::Error),
}

/// The certificate in force, and the TLS parameters around it.
pub(super) struct CertificateStore {
    current: Arc<Current>,
    provider: Arc<CryptoProvider>,
    acceptor: TlsAcceptor,
}

impl CertificateStore {
    /// Reads the pair of files. Offers HTTP/2 and HTTP/1.1.
    pub(super) fn load(config: &TlsConfig) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let pair = load_pair(config, &provider)?;
        let current = Arc::new(Current(ArcSwap::from_pointee(pair)));
        let resolver = Arc::clone(&current) as Arc<dyn ResolvesServerCert>;
        let mut tls = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Unusable)?
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { current, provider, acceptor: TlsAcceptor::from(Arc::new(tls)) })
    }

    /// Reads the pair of files anew, for connections from now on. An error changes nothing.
    pub(super) fn reload(&self, config: &TlsConfig) -> Result<(), TlsError> {
        let pair = load_pair(config, &self.provider)?;
        self.current.0.store(Arc::new(pair));
        Ok(())
    }

    /// Greets a client.
    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.acceptor.accept(stream).await
    }
}

impl fmt::Debug for CertificateStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateStore").finish_non_exhaustive()
    }
}

/// Gives every client the certificate in force.
struct Current(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Current")
    }
}

fn load_pair(config: &TlsConfig, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    let unreadable = |what, path: &Path, source| TlsError::Unreadable { what, path: path.to_owned(), source };
    let path = &config.certificate;
    let chain = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|source| unreadable("certificate", path, source))?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate { path: path.clone() });
    }
    let path = &config.private_key;
    let key = PrivateKeyDer::from_pem_file(path).map_err(|source| unreadable("private key", path, source))?;
    // Checks that the key belongs to the first certificate.
    CertifiedKey::from_der(chain, key, provider).map_err(TlsError::Unusable)
}
