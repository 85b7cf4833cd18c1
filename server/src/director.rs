//! The director's key at work: manifests and replies.

use serde::Serialize;
use skerry_trust::{SigningKey, TrustedRoot, envelope};
use skerry_wire::manifest::{Manifest, Mark};

/// The server's online key, under the root that names it.
#[derive(Debug)]
pub struct Director {
    key: SigningKey,
    root: TrustedRoot,
}

/// The root does not name the key that the server holds.
#[derive(Debug, thiserror::Error)]
#[error("the director key {key} is not named by root version {root}: give the server the key that the root names, or a newer root")]
pub struct NotDirector {
    key: skerry_trust::KeyId,
    root: u64,
}

impl Director {
    /// The key must be a director key of the root.
    pub fn new(key: SigningKey, root: TrustedRoot) -> Result<Self, NotDirector> {
        let id = key.public().id();
        if root.keys(skerry_trust::Role::Director).get(&id).is_none() {
            return Err(NotDirector { key: id, root: root.root().version });
        }
        Ok(Self { key, root })
    }

    /// The root in force.
    pub fn root(&self) -> &TrustedRoot {
        &self.root
    }

    /// The key, for bundles.
    pub fn key(&self) -> &SigningKey {
        &self.key
    }

    /// Signs a manifest.
    pub fn sign_manifest(&self, manifest: &Manifest) -> Vec<u8> {
        envelope::seal(&self.key, Manifest::PURPOSE, manifest)
    }

    /// Seals a reply.
    pub fn seal<T: Serialize>(&self, purpose: &str, message: &T) -> Vec<u8> {
        envelope::seal(&self.key, purpose, message)
    }

    /// The mark that follows the highest one known, of the store's and the node's own. A node that has seen more than this server
    /// remembers (the server came back from an old backup) gets a counter above its own. The epoch moves with the root.
    pub fn next_mark(&self, highest: Mark) -> Mark {
        let root = self.root.root().version;
        // An epoch of an older root says nothing under this one.
        let epoch = if highest.root < root { root } else { root.max(highest.epoch) };
        Mark { root, epoch, counter: highest.counter.saturating_add(1) }
    }
}
