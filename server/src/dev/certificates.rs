//! A certificate authority for one server, and the server's certificate.

use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};

use super::files::{make_once, replace};

/// Makes what is missing: `ca.key`, `ca.pem`, `tls.key`, `tls.pem`. Another set of names makes another server certificate.
pub(super) fn make(data: &Path, names: &[String]) -> anyhow::Result<()> {
    let key = |name: &str| -> anyhow::Result<KeyPair> {
        let text = make_once(&data.join(name), 0o600, || Ok(KeyPair::generate()?.serialize_pem()))?;
        KeyPair::from_pem(&text).map_err(|error| {
            let help = if name == "ca.key" { super::PUT_BACK } else { "help: delete it and start again; another one is made" };
            anyhow::anyhow!("{}: not a private key: {error}\n{help}", data.join(name).display())
        })
    };
    // A certificate belongs to its key.
    let rekeyed = !data.join("tls.key").exists();
    let (ca_key, server_key) = (key("ca.key")?, key("tls.key")?);
    make_once(&data.join("ca.pem"), 0o644, || Ok(authority().self_signed(&ca_key)?.pem()))?;
    let issuer = Issuer::new(authority(), ca_key);
    let (certificate, listed) = (data.join("tls.pem"), data.join("tls.names"));
    let wanted = names.join("\n");
    // The list is written last: without it the certificate is made again.
    if rekeyed || !certificate.exists() || std::fs::read_to_string(&listed).ok().as_deref() != Some(&wanted) {
        replace(&certificate, 0o644, server(names)?.signed_by(&server_key, &issuer)?.pem().as_bytes())?;
        replace(&listed, 0o644, wanted.as_bytes())?;
    }
    Ok(())
}

/// Valid for any clock: nodes may start in 1970 and servers outlive 2038.
fn dated(mut params: CertificateParams, name: &str) -> CertificateParams {
    params.not_before = date_time_ymd(1975, 1, 1);
    params.not_after = date_time_ymd(4096, 1, 1);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn authority() -> CertificateParams {
    let mut params = dated(CertificateParams::default(), "Skerry development CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn server(names: &[String]) -> anyhow::Result<CertificateParams> {
    let mut params = dated(CertificateParams::new(names)?, "skerry-server");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}
