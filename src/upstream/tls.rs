//! TLS towards upstreams: whom to believe, and which protocols to speak.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::error::SetupError;
use crate::config::UpstreamConfig;

/// The machine's certificate authorities; Mozilla's where it has none (an image from scratch).
pub fn load_native_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        tracing::debug!("no certificate authorities on this machine; using those built in");
    }
    roots
}

/// Settings for one upstream: the native roots and its own `ca_file`. Without protocols; see
/// [`speaking`].
pub(super) fn build_config(
    native: &RootCertStore,
    upstream: &UpstreamConfig,
) -> Result<ClientConfig, SetupError> {
    let mut roots = native.clone();
    if let Some(path) = &upstream.ca_file {
        let name = || upstream.name.clone();
        let pem = std::fs::read(path).map_err(|source| SetupError::ReadCaFile {
            upstream: name(),
            path: path.clone(),
            source,
        })?;
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok).collect();
        let (added, _) = roots.add_parsable_certificates(certificates);
        if added == 0 {
            return Err(SetupError::NoCertificate { upstream: name(), path: path.clone() });
        }
    }
    // Named, because a process may hold other providers through its libraries.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|source| SetupError::Tls { upstream: upstream.name.clone(), source })?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// The same settings with protocols to offer by ALPN (RFC 7301), the preferred first.
pub(super) fn speaking(config: &ClientConfig, protocols: &[&str]) -> Arc<ClientConfig> {
    let mut config = config.clone();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    Arc::new(config)
}
