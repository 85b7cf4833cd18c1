//! SHA-256, as the rest of the crate uses it.

use std::fmt;

use ring::digest::{self, Context};
use skerry_wire::Digest;

/// A running SHA-256.
#[derive(Clone)]
pub struct Sha256(Context);

impl Sha256 {
    /// Nothing hashed yet.
    pub fn new() -> Self {
        Self(Context::new(&digest::SHA256))
    }

    /// Hashes more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of everything hashed so far.
    pub fn digest(&self) -> Digest {
        let done = self.0.clone().finish();
        Digest::new(done.as_ref().try_into().expect("a SHA-256 has 32 bytes"))
    }
}

impl Default for Sha256 {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sha256")
    }
}

/// The SHA-256 of `bytes`.
pub fn sha256(bytes: &[u8]) -> Digest {
    let mut hash = Sha256::new();
    hash.update(bytes);
    hash.digest()
}
