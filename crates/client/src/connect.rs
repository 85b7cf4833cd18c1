//! The connection: TLS with the server's CA and nothing else, one pool.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::ClientError;
use crate::request::UploadBody;

/// From the first byte sent to a connection that stands.
const CONNECT: Duration = Duration::from_secs(15);

/// Where the server is and how to be let in.
#[derive(Clone)]
pub struct Connection {
    /// `https://HOST:PORT`.
    pub server: String,
    /// The CA that signed the server's certificate, PEM.
    pub ca_pem: Vec<u8>,
    /// Operator token.
    pub token: String,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("server", &self.server).finish_non_exhaustive()
    }
}

/// How long a connection may take nothing of what was sent, and twice how long it may be silent, before it counts as broken. Uploads
/// have a long deadline: without this, one to a server that is gone would hang until then.
const STALL: Duration = Duration::from_secs(120);

/// A client of one server. Clones share their connections.
#[derive(Clone)]
pub struct Client {
    pub(crate) base: String,
    pub(crate) authorization: HeaderValue,
    pub(crate) pool: Pool<HttpsConnector<HttpConnector>, UploadBody>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("server", &self.base).finish_non_exhaustive()
    }
}

impl Client {
    /// A client; connects when first used.
    pub fn new(connection: &Connection) -> Result<Self, ClientError> {
        let address = || ClientError::Address { address: connection.server.clone() };
        let uri: Uri = connection.server.parse().map_err(|_| address())?;
        if uri.scheme_str() != Some("https") || uri.host().is_none() || uri.path() != "/" {
            return Err(address());
        }
        let mut authorization = HeaderValue::from_str(&format!("Bearer {}", connection.token)).map_err(|_| ClientError::Token)?;
        authorization.set_sensitive(true);
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(CONNECT));
        #[cfg(target_os = "linux")]
        http.set_tcp_user_timeout(Some(STALL));
        http.set_keepalive(Some(STALL));
        http.set_keepalive_interval(Some(STALL / 4));
        http.set_keepalive_retries(Some(4));
        let https = HttpsConnectorBuilder::new().with_tls_config(tls(&connection.ca_pem)?).https_only().enable_http1().wrap_connector(http);
        let pool = Pool::builder(TokioExecutor::new()).pool_max_idle_per_host(4).build(https);
        Ok(Self { base: connection.server.trim_end_matches('/').to_owned(), authorization, pool })
    }
}

fn tls(ca_pem: &[u8]) -> Result<ClientConfig, ClientError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_pem) {
        let certificate = certificate.map_err(|e| ClientError::Ca { reason: e.to_string() })?;
        roots.add(certificate).map_err(|e| ClientError::Ca { reason: e.to_string() })?;
    }
    if roots.is_empty() {
        return Err(ClientError::Ca { reason: "no certificate in it".to_owned() });
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| ClientError::Ca { reason: e.to_string() })?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_are_none() {
        for server in ["", "localhost:7070", "http://localhost:7070", "https://", "https://h/path"] {
            let error = Client::new(&Connection { server: server.to_owned(), ca_pem: Vec::new(), token: "t".to_owned() }).unwrap_err();
            assert!(matches!(error, ClientError::Address { .. }), "{server}: {error}");
        }
    }

    #[test]
    fn a_ca_file_without_certificate() {
        let connection = Connection { server: "https://h:1".to_owned(), ca_pem: b"hello".to_vec(), token: "t".to_owned() };
        assert!(matches!(Client::new(&connection), Err(ClientError::Ca { .. })));
    }
}
