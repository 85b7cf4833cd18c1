//! Ed25519 keys (RFC 8032), by ring.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use ring::rand::SecureRandom;
use ring::signature::{self, Ed25519KeyPair, KeyPair as _};
use serde::{Deserialize, Serialize};

/// Why bytes are not a key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// No randomness to be had.
    #[error("the system gives no random bytes for a new key")]
    NoRandomness,
    /// Not a private key in PKCS#8.
    #[error("not an Ed25519 private key in PKCS#8 form")]
    Malformed,
    /// Not the text form of a private key.
    #[error("not a key file: expected one line `skerry-private-key-1 <hex>`")]
    NotAKeyFile,
    /// Not the text form of a public key.
    #[error("`{0}` is not a public key: expected 64 hex digits")]
    NotAPublicKey(String),
}

/// The first 8 bytes of the SHA-256 of a public key: names a key, proves nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyId(#[serde(with = "serde_bytes")] pub [u8; 8]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PublicKey(#[serde(with = "serde_bytes")] pub [u8; 32]);

impl PublicKey {
    /// The id that names this key.
    pub fn id(&self) -> KeyId {
        let digest = ring::digest::digest(&ring::digest::SHA256, &self.0);
        let mut id = [0; 8];
        id.copy_from_slice(&digest.as_ref()[..8]);
        KeyId(id)
    }

    /// Does `signature` over `message` come from this key?
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        signature::UnparsedPublicKey::new(&signature::ED25519, &self.0).verify(message, signature).is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;
    fn from_str(text: &str) -> Result<Self, KeyError> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| KeyError::NotAPublicKey(text.chars().take(80).collect()))?;
        Ok(Self(bytes))
    }
}

/// A private key with its public key.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    public: PublicKey,
}

impl SigningKey {
    /// Makes a new key and gives its PKCS#8 form, to be kept secret.
    pub fn generate(random: &dyn SecureRandom) -> Result<Vec<u8>, KeyError> {
        let document = Ed25519KeyPair::generate_pkcs8(random).map_err(|_| KeyError::NoRandomness)?;
        Ok(document.as_ref().to_vec())
    }

    /// Reads the PKCS#8 form.
    pub fn from_pkcs8(bytes: &[u8]) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::from_pkcs8(bytes).map_err(|_| KeyError::Malformed)?;
        let public = PublicKey(pair.public_key().as_ref().try_into().map_err(|_| KeyError::Malformed)?);
        Ok(Self { pair, public })
    }

    /// The text form of a key file: `skerry-private-key-1 <hex of PKCS#8>` and a newline.
    pub fn to_text(pkcs8: &[u8]) -> String {
        format!("skerry-private-key-1 {}\n", hex::encode(pkcs8))
    }

    /// Reads the text form of a key file.
    pub fn from_text(text: &str) -> Result<Self, KeyError> {
        let digits = text.trim().strip_prefix("skerry-private-key-1 ").ok_or(KeyError::NotAKeyFile)?;
        Self::from_pkcs8(&hex::decode(digits.trim()).map_err(|_| KeyError::NotAKeyFile)?)
    }

    /// A key from a PKCS#8 v1 document, which does not carry the public key: fixed keys of tests have that form.
    #[cfg(test)]
    pub(crate) fn from_pkcs8_unchecked_for_tests(bytes: &[u8]) -> Self {
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(bytes).expect("a PKCS#8 v1 document");
        let public = PublicKey(pair.public_key().as_ref().try_into().expect("32 bytes"));
        Self { pair, public }
    }

    /// The public key.
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// Signs a message; 64 bytes.
    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(message).as_ref().to_vec()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey(public {})", self.public)
    }
}

/// Public keys that may sign something.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyRing(BTreeMap<KeyId, PublicKey>);

impl KeyRing {
    /// A ring of these keys.
    pub fn new(keys: impl IntoIterator<Item = PublicKey>) -> Self {
        Self(keys.into_iter().map(|k| (k.id(), k)).collect())
    }

    /// The key of this id.
    pub fn get(&self, id: &KeyId) -> Option<&PublicKey> {
        self.0.get(id)
    }
}

impl From<PublicKey> for KeyRing {
    fn from(key: PublicKey) -> Self {
        Self::new([key])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_round_trips() {
        let pkcs8 = SigningKey::generate(&ring::rand::SystemRandom::new()).unwrap();
        let key = SigningKey::from_text(&SigningKey::to_text(&pkcs8)).unwrap();
        assert_eq!(key.public(), SigningKey::from_pkcs8(&pkcs8).unwrap().public());
        assert!(key.public().verifies(b"m", &key.sign(b"m")));
        assert!(!key.public().verifies(b"n", &key.sign(b"m")));
        assert_eq!(key.public().to_string().parse::<PublicKey>().unwrap(), key.public());
    }

    #[test]
    fn other_files_are_refused() {
        for text in ["", "skerry-private-key-1", "skerry-private-key-1 00", "-----BEGIN PRIVATE KEY-----", "skerry-private-key-2 00"] {
            assert!(SigningKey::from_text(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_private_key_does_not_print_itself() {
        let pkcs8 = SigningKey::generate(&ring::rand::SystemRandom::new()).unwrap();
        let shown = format!("{:?}", SigningKey::from_pkcs8(&pkcs8).unwrap());
        assert!(!shown.contains(&hex::encode(&pkcs8[16..48])), "{shown}");
    }
}
