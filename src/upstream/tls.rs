//! TLS towards upstreams and stores: whom to believe, and which protocols to speak.

use std::path::Path;
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::error::SetupError;

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

/// Settings for the connections of `whose`: the native roots and those of a file. They name no protocols (ALPN).
///
/// Reads the file; blocks.
pub fn build_tls(
    native: &RootCertStore,
    ca_file: Option<&Path>,
    whose: &str,
) -> Result<ClientConfig, SetupError> {
    let mut roots = native.clone();
    let whose = || whose.to_owned();
    if let Some(path) = ca_file {
        let path = || path.to_owned();
        let pem = std::fs::read(path()).map_err(|source| SetupError::ReadCaFile {
            whose: whose(),
            path: path(),
            source,
        })?;
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok).collect();
        let (added, _) = roots.add_parsable_certificates(certificates);
        if added == 0 {
            return Err(SetupError::NoCertificate { whose: whose(), path: path() });
        }
    }
    // Named, because a process may hold other providers through its libraries.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|source| SetupError::Tls { whose: whose(), source })?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// The same settings with protocols to offer by ALPN (RFC 7301), the preferred first.
pub(super) fn speaking(config: &ClientConfig, protocols: &[&str]) -> Arc<ClientConfig> {
    let mut config = config.clone();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    Arc::new(config)
}
