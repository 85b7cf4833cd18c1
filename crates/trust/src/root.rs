//! The root document: which keys may sign what. Version N+1 is signed by the root keys of N and of N+1.
//!
//! A root file is a CBOR array of envelopes with one and the same payload, one per signature.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use skerry_wire::cbor::{self, Blob, DecodeError};
use skerry_wire::{Timestamp, limits};

use crate::envelope::{self, EnvelopeError};
use crate::key::{KeyId, KeyRing, PublicKey, SigningKey};

/// Purpose string of the envelopes of a root file.
const PURPOSE: &str = "skerry/root/1";

/// Keys in one role at most.
const MAX_KEYS: usize = 64;

/// Why a root document was refused.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// Not a root file.
    #[error("not a root document: {0}")]
    Malformed(String),
    /// Not CBOR, or too long.
    #[error("not a root document: {0}")]
    Decode(#[from] DecodeError),
    /// A signature is wrong.
    #[error("root document refused: {0}")]
    Envelope(#[from] EnvelopeError),
    /// Too few of the right keys signed it.
    #[error("root version {version} has {signatures} of the {threshold} signatures that version {judge} asks for")]
    Threshold {
        /// Version of the document.
        version: u64,
        /// Version of the root whose keys were asked.
        judge: u64,
        /// Signatures by distinct keys that count.
        signatures: usize,
        /// Signatures needed.
        threshold: u16,
    },
    /// Not the next version.
    #[error("root version {found} does not follow version {trusted}")]
    NotNext {
        /// Version that is trusted.
        trusted: u64,
        /// Version of the document.
        found: u64,
    },
}

/// What a key may be trusted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Signs root documents.
    Root,
    /// Signs releases and specifications.
    Release,
    /// Signs manifests, poll replies and bundles.
    Director,
}

/// The keys of a role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleKeys {
    /// The keys, by id.
    pub keys: Vec<PublicKey>,
    /// How many of them must sign; 1 for all roles but root in this version.
    pub threshold: u16,
}

/// The root document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// Counts up from 1.
    pub version: u64,
    /// The keys of each role.
    pub roles: BTreeMap<Role, RoleKeys>,
    /// No signed time above this moves a node's lower bound of time.
    pub time_cap: Timestamp,
}

impl Root {
    fn check(&self) -> Result<(), RootError> {
        if self.version == 0 {
            return Err(RootError::Malformed("version 0".to_owned()));
        }
        for role in [Role::Root, Role::Release, Role::Director] {
            let keys = self.roles.get(&role).ok_or_else(|| RootError::Malformed(format!("no keys for role {role:?}")))?;
            let distinct: BTreeSet<_> = keys.keys.iter().collect();
            if keys.keys.len() > MAX_KEYS || distinct.len() != keys.keys.len() {
                return Err(RootError::Malformed(format!("role {role:?} has too many keys or one twice")));
            }
            if keys.threshold == 0 || usize::from(keys.threshold) > distinct.len() {
                return Err(RootError::Malformed(format!("role {role:?} has a threshold that its keys cannot meet")));
            }
            if role != Role::Root && keys.threshold != 1 {
                return Err(RootError::Malformed(format!("role {role:?} must have threshold 1 in this version")));
            }
        }
        Ok(())
    }

    fn ring(&self, role: Role) -> KeyRing {
        KeyRing::new(self.roles.get(&role).into_iter().flat_map(|r| r.keys.iter().copied()))
    }
}

/// Signs a root document with each of the keys and gives the root file.
pub fn sign_root(root: &Root, keys: &[&SigningKey]) -> Vec<u8> {
    let payload = cbor::encode(root);
    cbor::encode(&keys.iter().map(|k| Blob(envelope::sign(k, PURPOSE, &payload))).collect::<Vec<_>>())
}

/// A root document that is trusted, with the keys of its roles at hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedRoot {
    root: Root,
    bytes: Vec<u8>,
    release: KeyRing,
    director: KeyRing,
}

impl TrustedRoot {
    /// The first root: it came by a trusted way (an SD card, the operator's configuration), so only its own keys judge it.
    pub fn first(bytes: &[u8]) -> Result<Self, RootError> {
        let unchecked = read(bytes)?;
        unchecked.check()?;
        judge(bytes, &unchecked, &unchecked)?;
        Ok(Self::trusted(unchecked, bytes))
    }

    /// The next root: its version is one more, and both this root's keys and its own signed it.
    pub fn update(&self, bytes: &[u8]) -> Result<Self, RootError> {
        let next = read(bytes)?;
        next.check()?;
        if next.version != self.root.version.saturating_add(1) {
            return Err(RootError::NotNext { trusted: self.root.version, found: next.version });
        }
        judge(bytes, &next, &self.root)?;
        judge(bytes, &next, &next)?;
        Ok(Self::trusted(next, bytes))
    }

    fn trusted(root: Root, bytes: &[u8]) -> Self {
        let (release, director) = (root.ring(Role::Release), root.ring(Role::Director));
        Self { root, bytes: bytes.to_vec(), release, director }
    }

    /// The document.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// The file as it was received.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The keys that may sign for a role of threshold 1.
    pub fn keys(&self, role: Role) -> KeyRing {
        match role {
            Role::Root => self.root.ring(Role::Root),
            Role::Release => self.release.clone(),
            Role::Director => self.director.clone(),
        }
    }

    /// Opens a message that a release key signed.
    pub fn open_release<T: DeserializeOwned>(&self, bytes: &[u8], purpose: &str, limit: usize) -> Result<(T, KeyId), EnvelopeError> {
        envelope::open(bytes, purpose, &self.release, limit)
    }

    /// Opens a message that the director signed.
    pub fn open_director<T: DeserializeOwned>(&self, bytes: &[u8], purpose: &str, limit: usize) -> Result<(T, KeyId), EnvelopeError> {
        envelope::open(bytes, purpose, &self.director, limit)
    }
}

fn envelopes(bytes: &[u8]) -> Result<Vec<Blob>, RootError> {
    let all: Vec<Blob> = cbor::decode(bytes, limits::ROOT)?;
    if all.is_empty() || all.len() > MAX_KEYS {
        return Err(RootError::Malformed("no signatures, or too many".to_owned()));
    }
    Ok(all)
}

/// The document inside, unverified; only [`judge`] makes it worth anything.
fn read(bytes: &[u8]) -> Result<Root, RootError> {
    Ok(envelope::peek(&envelopes(bytes)?[0].0, limits::ROOT)?.0)
}

/// Do enough root keys of `judge` sign exactly `root`?
fn judge(bytes: &[u8], root: &Root, judge: &Root) -> Result<(), RootError> {
    let ring = judge.ring(Role::Root);
    let threshold = judge.roles.get(&Role::Root).map_or(u16::MAX, |r| r.threshold);
    let mut signers = BTreeSet::new();
    let mut payload = None;
    for one in envelopes(bytes)? {
        match envelope::verify(&one.0, PURPOSE, &ring, limits::ROOT) {
            Ok(verified) => {
                if cbor::decode::<Root>(&verified.payload, limits::ROOT)? != *root
                    || payload.get_or_insert(verified.payload.clone()) != &verified.payload
                {
                    return Err(RootError::Malformed("its signatures are over different documents".to_owned()));
                }
                signers.insert(verified.key_id);
            }
            // A key of the other root of the pair: judged by that one.
            Err(EnvelopeError::UntrustedKey(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    if signers.len() < usize::from(threshold) {
        return Err(RootError::Threshold { version: root.version, judge: judge.version, signatures: signers.len(), threshold });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SigningKey {
        SigningKey::from_pkcs8(&SigningKey::generate(&ring::rand::SystemRandom::new()).unwrap()).unwrap()
    }

    fn root(version: u64, root_keys: &[&SigningKey], threshold: u16, other: &SigningKey) -> Root {
        let role = |keys: Vec<PublicKey>, threshold| RoleKeys { keys, threshold };
        Root {
            version,
            roles: BTreeMap::from([
                (Role::Root, role(root_keys.iter().map(|k| k.public()).collect(), threshold)),
                (Role::Release, role(vec![other.public()], 1)),
                (Role::Director, role(vec![other.public()], 1)),
            ]),
            time_cap: Timestamp(i64::MAX),
        }
    }

    #[test]
    fn a_chain_of_roots() {
        let (a, b, c, other) = (key(), key(), key(), key());
        let first = TrustedRoot::first(&sign_root(&root(1, &[&a, &b], 2, &other), &[&a, &b])).unwrap();
        let two = root(2, &[&b, &c], 2, &other);
        let second = first.update(&sign_root(&two, &[&a, &b, &c])).unwrap();
        assert_eq!(second.root().version, 2);
        // Too few of the old keys, too few of the new ones, a version left out, an old version again.
        assert!(matches!(first.update(&sign_root(&two, &[&b, &c])), Err(RootError::Threshold { judge: 1, signatures: 1, .. })));
        assert!(matches!(first.update(&sign_root(&two, &[&a, &b])), Err(RootError::Threshold { judge: 2, signatures: 1, .. })));
        assert!(matches!(first.update(&sign_root(&root(3, &[&a, &b], 2, &other), &[&a, &b])), Err(RootError::NotNext { .. })));
        assert!(matches!(second.update(first.bytes()), Err(RootError::NotNext { .. })));
    }

    #[test]
    fn one_key_cannot_sign_twice() {
        let (a, b, other) = (key(), key(), key());
        let result = TrustedRoot::first(&sign_root(&root(1, &[&a, &b], 2, &other), &[&a, &a]));
        assert!(matches!(result, Err(RootError::Threshold { signatures: 1, threshold: 2, .. })), "{result:?}");
    }

    #[test]
    fn roles_are_kept_apart() {
        let (a, release, director) = (key(), key(), key());
        let mut document = root(1, &[&a], 1, &release);
        document.roles.insert(Role::Director, RoleKeys { keys: vec![director.public()], threshold: 1 });
        let trusted = TrustedRoot::first(&sign_root(&document, &[&a])).unwrap();
        let message = envelope::seal(&director, "skerry/test/1", &1u64);
        assert!(trusted.open_director::<u64>(&message, "skerry/test/1", 1000).is_ok());
        assert!(matches!(trusted.open_release::<u64>(&message, "skerry/test/1", 1000), Err(EnvelopeError::UntrustedKey(_))));
    }

    #[test]
    fn thresholds_that_cannot_be_met_are_refused() {
        let (a, other) = (key(), key());
        for threshold in [0, 2] {
            assert!(matches!(TrustedRoot::first(&sign_root(&root(1, &[&a], threshold, &other), &[&a])), Err(RootError::Malformed(_))));
        }
    }
}
