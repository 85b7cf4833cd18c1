//! The TLS of the listener: rustls with ring, TLS 1.2 and 1.3, HTTP/1.1.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring::{Ticketer, default_provider};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A PEM file cannot be used.
    #[error("{}: {what}: {source}\nhelp: {help}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
        /// Why.
        source: rustls_pki_types::pem::Error,
        /// What to do.
        help: &'static str,
    },
    /// Certificate and key do not go together.
    #[error("{}: the certificate and its key cannot be used together: {source}\nhelp: tls.key must be the key of the first certificate in tls.certificate", path.display())]
    Pair {
        /// The certificate's file.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
}

/// Reads certificate and key. Blocks.
pub fn load(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let pem = |path: &Path, what, help| {
        let path = path.to_owned();
        move |source| TlsError::Pem { path, what, source, help }
    };
    let chain: Vec<_> = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect).map_err(pem(
        certificate,
        "no certificate",
        "tls.certificate must be a PEM file that the server may read",
    ))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(pem(
        key,
        "no private key",
        "tls.key must be a PEM file that the server, and nobody else, may read",
    ))?;
    let pair = |source| TlsError::Pair { path: certificate.to_owned(), source };
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(pair)?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(pair)?;
    // One ticket a handshake: it is paid for by the byte, and one is enough to resume.
    config.ticketer = Ticketer::new().map_err(pair)?;
    config.send_tls13_tickets = 1;
    Ok(Arc::new(config))
}
