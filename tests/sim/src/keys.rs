//! The keys of the fleet: the same in every life, so that digests and ids are the same too.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use ring::signature::{Ed25519KeyPair, KeyPair};
use skerry_server::director::Director;
use skerry_trust::{PublicKey, Role, RoleKeys, Root, SigningKey, TrustedRoot, sign_root};
use skerry_wire::Timestamp;

/// The root document, version 1.
pub(crate) static ROOT: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let only = |key: PublicKey| RoleKeys { keys: vec![key], threshold: 1 };
    let roles = [(Role::Root, 1), (Role::Release, 2), (Role::Director, 3)].map(|(role, n)| (role, only(key(n).public())));
    sign_root(&Root { version: 1, roles: BTreeMap::from(roles), time_cap: Timestamp(i64::MAX) }, &[&key(1)])
});

/// A CA certificate, for a client that never speaks TLS.
pub(crate) static CA: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let key = rcgen::KeyPair::generate().expect("a key");
    rcgen::CertificateParams::default().self_signed(&key).expect("a certificate").pem().into_bytes()
});

/// PKCS#8 of the key of this number: 1 is root's, 2 release's, 3 director's, those from 10 on are nodes'.
pub(crate) fn pkcs8(number: u8) -> Vec<u8> {
    let seed = [number; 32];
    let pair = Ed25519KeyPair::from_seed_unchecked(&seed).expect("32 bytes");
    let mut document = SigningKey::generate(&ring::rand::SystemRandom::new()).expect("randomness");
    let end = document.len() - 32;
    document[16..48].copy_from_slice(&seed);
    document[end..].copy_from_slice(pair.public_key().as_ref());
    document
}

/// The key of this number.
pub(crate) fn key(number: u8) -> SigningKey {
    SigningKey::from_pkcs8(&pkcs8(number)).expect("a PKCS#8 document")
}

/// The server's director.
pub(crate) fn director() -> Director {
    Director::new(key(3), TrustedRoot::first(&ROOT).expect("a root")).expect("named by the root")
}
