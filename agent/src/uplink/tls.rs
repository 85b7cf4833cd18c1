//! TLS towards the one server: its CA is pinned, and no wrong clock locks the node out.
//!
//! A node's clock may say 1970 or 2038. A certificate is therefore judged at the lower bound of time, which only signed replies move:
//! one that had expired by then is refused, one that is "not valid yet" is taken as of its first day.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use skerry_trust::TimeBound;
use tokio::sync::watch;

/// Certificates of a chain: each may begin later than the bound.
const CHAIN: usize = 8;

/// Why no TLS can be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// The CA file is no good.
    #[error("the CA file has no certificate in PEM form that can be used: {0}")]
    Ca(String),
    /// rustls refused the configuration.
    #[error("TLS cannot be set up: {0}")]
    Setup(String),
}

/// The client's side of TLS 1.2 and 1.3: this CA only, sessions resumed.
pub(crate) fn config(ca_pem: &[u8], time: watch::Receiver<TimeBound>) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_pem) {
        let certificate = certificate.map_err(|e| TlsError::Ca(e.to_string()))?;
        roots.add(certificate).map_err(|e| TlsError::Ca(e.to_string()))?;
    }
    if roots.is_empty() {
        return Err(TlsError::Ca("it holds none".to_owned()));
    }
    let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .map_err(|e| TlsError::Setup(e.to_string()))?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| TlsError::Setup(e.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AtTheBound { inner, time }))
        .with_no_client_auth();
    Ok(config)
}

/// The usual verifier, asked about the lower bound of time instead of the clock.
#[derive(Debug)]
struct AtTheBound {
    inner: Arc<WebPkiServerVerifier>,
    time: watch::Receiver<TimeBound>,
}

impl ServerCertVerifier for AtTheBound {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        _clock: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let bound = u64::try_from(self.time.borrow().at().0).unwrap_or(0);
        let mut at = UnixTime::since_unix_epoch(Duration::from_millis(bound));
        for _ in 0..CHAIN {
            match self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, at) {
                Err(Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. })) if not_before > at => {
                    at = not_before
                }
                other => return other,
            }
        }
        Err(Error::InvalidCertificate(CertificateError::NotValidYet))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
    use skerry_wire::Timestamp;

    const DAY: i64 = 86_400_000;

    /// Days from 1970 to the first of January of a year in 2001..=2099.
    fn new_year(year: i64) -> i64 {
        ((year - 1970) * 365 + (year - 1969) / 4) * DAY
    }

    #[test]
    fn certificates_are_judged_at_the_bound() {
        let ca_key = KeyPair::generate().unwrap();
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.not_before = date_time_ymd(2030, 1, 1);
        ca.not_after = date_time_ymd(2050, 1, 1);
        let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
        let issuer = Issuer::new(ca, ca_key);
        let mut leaf = CertificateParams::new(vec!["server.example".to_owned(), "192.0.2.7".to_owned()]).unwrap();
        leaf.not_before = date_time_ymd(2031, 1, 1);
        leaf.not_after = date_time_ymd(2032, 1, 1);
        let certificate = leaf.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap();

        let (bound, time) = watch::channel(TimeBound::new(Timestamp(0), None));
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(ca_pem.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(ring::default_provider());
        let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        let verifier = AtTheBound { inner, time };
        // The clock that rustls passes on is wrong in both directions: it must not count.
        for clock in [0, 4_000_000_000] {
            let ask = |name: &str| {
                let name = ServerName::try_from(name).unwrap();
                verifier.verify_server_cert(certificate.der(), &[], &name, &[], UnixTime::since_unix_epoch(Duration::from_secs(clock)))
            };
            for (at, good) in [(0, true), (new_year(2031) + DAY, true), (new_year(2032) + DAY, false)] {
                bound.send_replace(TimeBound::new(Timestamp(at), None));
                assert_eq!(ask("server.example").is_ok(), good, "bound {at}");
                assert_eq!(ask("192.0.2.7").is_ok(), good, "bound {at}");
                assert!(ask("other.example").is_err());
            }
        }
    }

    #[test]
    fn a_ca_file_without_certificate_is_refused() {
        let (_keep, time) = watch::channel(TimeBound::new(Timestamp(0), None));
        assert!(config(b"", time.clone()).unwrap_err().to_string().contains("it holds none"));
        assert!(config(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", time).is_err());
    }
}
