//! The one envelope: COSE_Sign1 (RFC 9052), untagged, Ed25519, key id in the protected header.
//!
//! The purpose of a message is authenticated as the external data of the signature: a signature made for one purpose does not hold
//! for another, and costs no bytes on the wire. The page `docs/formats/envelope.md` describes it byte by byte.

use coset::{CborSerializable, CoseSign1, CoseSign1Builder, HeaderBuilder, iana};
use serde::Serialize;
use serde::de::DeserializeOwned;
use skerry_wire::cbor::{self, DecodeError};

use crate::key::{KeyId, KeyRing, SigningKey};

/// Why an envelope was refused.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    /// Longer than it may be.
    #[error("envelope of {len} bytes is over its limit of {limit}")]
    TooLong {
        /// Bytes received.
        len: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// Not a COSE_Sign1 of our form.
    #[error("not a signed envelope: {0}")]
    Malformed(String),
    /// The key that signed it may not.
    #[error("signed by key {0}, which is not trusted for this")]
    UntrustedKey(KeyId),
    /// The signature does not hold.
    #[error("the signature of key {0} does not hold: the message was altered, or signed for another purpose")]
    BadSignature(KeyId),
    /// Signed, but not the message that it should be.
    #[error("signed message refused: {0}")]
    Payload(#[from] DecodeError),
}

/// A payload whose signature holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The signed bytes.
    pub payload: Vec<u8>,
    /// The key that signed them.
    pub key_id: KeyId,
}

/// Signs a payload for a purpose.
pub fn sign(key: &SigningKey, purpose: &str, payload: &[u8]) -> Vec<u8> {
    let protected = HeaderBuilder::new().algorithm(iana::Algorithm::EdDSA).key_id(key.public().id().0.to_vec()).build();
    CoseSign1Builder::new()
        .protected(protected)
        .payload(payload.to_vec())
        .create_signature(purpose.as_bytes(), |message| key.sign(message))
        .build()
        .to_vec()
        .expect("an envelope of byte strings always has a CBOR form")
}

/// Encodes a message and signs it for a purpose.
pub fn seal<T: Serialize>(key: &SigningKey, purpose: &str, message: &T) -> Vec<u8> {
    sign(key, purpose, &cbor::encode(message))
}

/// Checks the signature over the received bytes; the payload may be of at most `limit` bytes with its envelope.
pub fn verify(bytes: &[u8], purpose: &str, keys: &KeyRing, limit: usize) -> Result<Verified, EnvelopeError> {
    let (envelope, key_id) = parse(bytes, limit)?;
    let key = keys.get(&key_id).ok_or(EnvelopeError::UntrustedKey(key_id))?;
    envelope.verify_signature(purpose.as_bytes(), |signature, message| {
        if key.verifies(message, signature) { Ok(()) } else { Err(EnvelopeError::BadSignature(key_id)) }
    })?;
    let payload = envelope.payload.ok_or_else(|| EnvelopeError::Malformed("no payload".to_owned()))?;
    Ok(Verified { payload, key_id })
}

/// Checks the signature and decodes the message.
pub fn open<T: DeserializeOwned>(bytes: &[u8], purpose: &str, keys: &KeyRing, limit: usize) -> Result<(T, KeyId), EnvelopeError> {
    let verified = verify(bytes, purpose, keys, limit)?;
    Ok((cbor::decode(&verified.payload, limit)?, verified.key_id))
}

/// The message inside, **unverified**: for a request that carries the key to verify it with, and for showing. Never act on it.
pub fn peek<T: DeserializeOwned>(bytes: &[u8], limit: usize) -> Result<(T, KeyId), EnvelopeError> {
    let (envelope, key_id) = parse(bytes, limit)?;
    let payload = envelope.payload.ok_or_else(|| EnvelopeError::Malformed("no payload".to_owned()))?;
    Ok((cbor::decode(&payload, limit)?, key_id))
}

fn parse(bytes: &[u8], limit: usize) -> Result<(CoseSign1, KeyId), EnvelopeError> {
    if bytes.len() > limit {
        return Err(EnvelopeError::TooLong { len: bytes.len(), limit });
    }
    let envelope = CoseSign1::from_slice(bytes).map_err(|e| EnvelopeError::Malformed(e.to_string()))?;
    let header = &envelope.protected.header;
    if header.alg != Some(coset::Algorithm::Assigned(iana::Algorithm::EdDSA)) {
        return Err(EnvelopeError::Malformed("algorithm is not EdDSA".to_owned()));
    }
    if !envelope.unprotected.is_empty() || !header.crit.is_empty() {
        return Err(EnvelopeError::Malformed("unexpected header".to_owned()));
    }
    let key_id = header.key_id.as_slice().try_into().map_err(|_| EnvelopeError::Malformed("key id is not 8 bytes".to_owned()))?;
    Ok((envelope, KeyId(key_id)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A fixed key: tests that print envelopes print the same every time.
    fn key(seed: u8) -> SigningKey {
        // PKCS#8 v1 of Ed25519 (RFC 8410 section 7) is a fixed prefix and the seed.
        let mut pkcs8 = hex::decode("302e020100300506032b657004220420").unwrap();
        pkcs8.extend([seed; 32]);
        SigningKey::from_pkcs8_unchecked_for_tests(&pkcs8)
    }

    #[test]
    fn opens_what_was_sealed() {
        let bytes = seal(&key(1), "skerry/test/1", &vec![1u64, 2, 3]);
        let (message, key_id): (Vec<u64>, _) = open(&bytes, "skerry/test/1", &key(1).public().into(), 1000).unwrap();
        assert_eq!(message, [1, 2, 3]);
        assert_eq!(key_id, key(1).public().id());
        assert!(bytes.len() <= 4 + 64 + 24, "an envelope costs {} bytes over its payload", bytes.len() - 4);
    }

    #[test]
    fn refuses_other_keys_purposes_and_sizes() {
        let bytes = seal(&key(1), "skerry/test/1", &7u64);
        let ring = KeyRing::from(key(1).public());
        assert!(matches!(verify(&bytes, "skerry/test/1", &key(2).public().into(), 1000), Err(EnvelopeError::UntrustedKey(_))));
        assert!(matches!(verify(&bytes, "skerry/test/2", &ring, 1000), Err(EnvelopeError::BadSignature(_))));
        assert!(matches!(verify(&bytes, "skerry/test/1", &ring, 10), Err(EnvelopeError::TooLong { .. })));
        assert!(open::<String>(&bytes, "skerry/test/1", &ring, 1000).is_err());
    }

    /// The fixed vector of `docs/formats/envelope.md`: a change of the format shows here.
    #[test]
    fn fixed_vector() {
        assert_eq!(hex::encode(sign(&key(1), "skerry/test/1", b"payload")), include_str!("../tests/envelope.hex").trim());
    }

    proptest! {
        #[test]
        fn any_flipped_bit_is_noticed(at in 0usize..96, bit in 0u8..8) {
            let mut bytes = sign(&key(1), "skerry/test/1", b"payload");
            prop_assume!(at < bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(verify(&bytes, "skerry/test/1", &key(1).public().into(), 1000).is_err());
        }

        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(verify(&bytes, "skerry/test/1", &key(1).public().into(), 1000).is_err());
        }
    }
}
